"""Write a traced detector as a file: ONNX or OpenVINO, at fp32, fp16 or int8.

fp16  weights are stored as float16 and computed with as float32, in both formats: half the size
      and no overflow. A conversion of all values would be no faster on a CPU, which converts
      them back before each step.
int8  ONNX alone. Weights of matrix products are stored as 8-bit numbers, and their inputs are
      rounded to 8 bits picture by picture (dynamic quantisation); everything else stays float32.
      OpenVINO's own tool, NNCF, moved scores of `tiny` by 0.25, so it is not offered.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from faprompt.errors import ConfigError, ModelError
from faprompt.exported_detector import ONNX_FILES, OPENVINO_FILES
from faprompt.exporting.detector_graph import DetectorGraph, trace
from faprompt.work import load_extra

Format = Literal["onnx", "openvino"]
Precision = Literal["fp32", "fp16", "int8"]

HINTS: dict[str, dict[str, str]] = {
    "onnx": {},
    # by default OpenVINO computes in bf16 where the processor has it: maps move by 0.05
    "openvino": {"INFERENCE_PRECISION_HINT": "f32"},
}
EXTERNAL_BYTES = 1_500_000_000  # weights above it lie in a file of their own; a file ends at 2 GiB
OPSET = 18
_LEAST_HALVED = 256  # values of a tensor that is stored as float16
_LARGEST_HALF = 65504.0


def check_choice(file_format: Format, precision: Precision) -> None:
    """Refuse a combination that is not offered, and a missing package, by an error."""
    if file_format == "openvino" and precision == "int8":
        raise ConfigError(
            "int8 is not offered for openvino: its quantisation tool NNCF moves scores by 0.25. "
            "Use --format onnx --precision int8, or --precision fp16."
        )
    for package in ("onnx", "onnxscript", "onnxruntime"):
        load_extra("onnx", package)
    if file_format == "openvino":
        load_extra("openvino", "openvino")


def write_graph(
    graph: DetectorGraph, folder: Path, *, file_format: Format, precision: Precision
) -> tuple[str, ...]:
    """Write the files of a graph into a folder, and return their names.

    Raises:
        ConfigError: the combination is not offered, or int8 has nothing to quantise.
        ModelError: the graph cannot be traced or converted.
    """
    if file_format == "openvino" and len(graph.kept_rows) > 1:
        raise ConfigError(
            f"openvino is not offered for {graph.detector.name}: its graph runs every window of "
            "patches through the image tower, and OpenVINO had not converted it after ten "
            "minutes. Use --format onnx."
        )
    program = to_onnx(graph)
    if file_format == "onnx" and precision == "fp16":
        store_half(program.model)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        whole = Path(place) / ONNX_FILES[0]
        program.save(whole, external_data=weight_bytes(program.model) > EXTERNAL_BYTES)
        del program
        if file_format == "openvino":
            _write_openvino(whole, folder / OPENVINO_FILES[0], half=precision == "fp16")
        elif precision == "int8":
            quantize(whole, folder / ONNX_FILES[0])
        else:
            for path in Path(place).iterdir():
                path.replace(folder / path.name)
    names = OPENVINO_FILES if file_format == "openvino" else ONNX_FILES
    return tuple(name for name in names if (folder / name).is_file())


def to_onnx(graph: DetectorGraph) -> Any:
    """Trace a graph and convert it; returns torch's `ONNXProgram`, without traces of this machine.

    Raises:
        ModelError: a step has no form in ONNX.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    program = trace(graph)
    try:
        with _quiet():
            found: Any = torch.onnx.export(
                program, input_names=list(graph.input_names), opset_version=OPSET,
                output_names=list(graph.output_names), dynamo=True, verbose=False,
            )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise ModelError(
            f"{graph.detector.name} cannot be exported: a step has no form in ONNX ({reason})."
        ) from error
    ClearMetadataAndDocStringPass()(found.model)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the notes of the exporters to themselves."""
    level = logging.getLogger().manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def weight_bytes(model: Any) -> int:
    """Return the bytes of the weights of an `onnx_ir` model."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values())


def store_half(model: Any) -> None:
    """Store the float32 weights of an `onnx_ir` model as float16, and convert them when it runs.

    Small tensors, and those with values that float16 does not hold, stay as they are.
    """
    import onnx_ir as ir

    casts = []
    for name, value in list(model.graph.initializers.items()):
        weights = value.const_value.numpy()
        if (
            weights.dtype != np.float32 or weights.size < _LEAST_HALVED
            or np.abs(weights).max() > _LARGEST_HALF or not value.uses()
        ):  # fmt: skip
            continue
        tensor = ir.tensor(weights.astype(np.float16), name=f"{name}_half")
        half = ir.Value(
            name=tensor.name, type=ir.TensorType(ir.DataType.FLOAT16), shape=value.shape,
            const_value=tensor,
        )  # fmt: skip
        cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT.value})
        cast.outputs[0].name = f"{name}_single"
        cast.outputs[0].type, cast.outputs[0].shape = value.type, value.shape
        for node, place in list(value.uses()):
            node.replace_input_with(place, cast.outputs[0])
        del model.graph.initializers[name]
        model.graph.initializers[tensor.name] = half
        casts.append(cast)
    if casts:
        model.graph.insert_before(model.graph[0], casts)


def quantize(source: Path, target: Path) -> None:
    """Quantise the matrix products of an ONNX file to 8 bits.

    Weights are unsigned: signed ones saturate on processors without 8-bit multiplication units.

    Raises:
        ConfigError: no matrix product has weights.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            source, target, op_types_to_quantize=["MatMul"], weight_type=QuantType.QUInt8,
            per_channel=True, use_external_data_format=source.with_name(ONNX_FILES[1]).is_file(),
        )  # fmt: skip
    written = onnx.load(target, load_external_data=False)
    if not any(node.op_type == "MatMulInteger" for node in written.graph.node):
        raise ConfigError(
            "int8 has nothing to quantise here: this model is made of convolutions, and only "
            "matrix products with weights are quantised. Use --precision fp32 or fp16."
        )


def _write_openvino(source: Path, target: Path, *, half: bool) -> None:
    import openvino

    try:
        model = openvino.convert_model(source)
    except Exception as error:  # the converter has errors of its own
        reason = " ".join(str(error).split())
        raise ModelError(f"OpenVINO cannot read the graph: {reason[:300]}") from error
    openvino.save_model(model, target, compress_to_fp16=half)
