"""Graphs that are traced once for a test run, and detectors to export."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from faprompt.detector import Detector
from faprompt.exporting import graph_files
from faprompt.exporting.detector_graph import DetectorGraph
from tests.helpers import small


class SavedProgram:
    """An ONNX file in place of the program that torch would trace again."""

    def __init__(self, path: Path) -> None:
        import onnx_ir as ir

        self.model = ir.load(path)

    def save(self, path: Path, *, external_data: bool = False) -> None:
        import onnx_ir as ir

        ir.save(self.model, path, external_data=f"{path.name}.data" if external_data else None)


@cache
def detector() -> Detector:
    """FAPrompt on the drawn CLIP, which every test here shares and none changes."""
    found = small.detector("faprompt")
    found.method.eval()
    return found


def save_graph(folder: Path, found: Detector) -> Path:
    """Write the fp32 graph of a detector."""
    folder.mkdir(parents=True, exist_ok=True)
    graph_files.write_graph(DetectorGraph(found), folder, file_format="onnx", precision="fp32")
    return folder / "model.onnx"


def assert_equals_torch(found: Detector, path: Path, *, atol: float = 1e-5) -> None:
    """Every output of the file is torch's, for batches of 1, 3 and 4 with patches left out."""
    import onnxruntime

    graph = DetectorGraph(found).eval()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert tuple(each.name for each in session.get_inputs()) == graph.input_names
    assert tuple(each.name for each in session.get_outputs()) == graph.output_names
    draw = torch.Generator().manual_seed(3)
    for count in (1, 3, 4):
        pixels, *kept = graph.example_inputs(count)
        pixels = small.pixels(count, *pixels.shape[-2:], seed=count)
        kept = [torch.randint(rows.shape[1], rows.shape, generator=draw) for rows in kept]
        with torch.no_grad():
            wanted = graph(pixels, *kept)
        inputs = zip(graph.input_names, (pixels, *kept), strict=True)
        outputs = session.run(None, {name: each.numpy() for name, each in inputs})
        for name, one, other in zip(graph.output_names, wanted, outputs, strict=True):
            assert one.shape == other.shape, name
            scale = max(1.0, float(one.abs().max()))
            np.testing.assert_allclose(other, one.numpy(), rtol=0, atol=atol * scale, err_msg=name)
