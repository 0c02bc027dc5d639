"""A small exported folder whose graph is written by hand, and the same model in numpy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from faprompt.detector_parts import kept_rows
from faprompt.detector_setup import DetectorSetup
from faprompt.exported_detector import EXPORT
from faprompt.imaging.transform import Transform
from faprompt.picture_detector import PictureDetector
from faprompt.picture_model import EncodedPicture, ModelGeometry, ModelIdentity, ScoredBatch

SIDE, PATCH, WIDTH, PROMPTS = 28, 7, 6, 3
GRID = (SIDE // PATCH, SIDE // PATCH)
LAYER = 2
NAME = "hand-made"
TRANSFORM = Transform((SIDE, SIDE))
FINGERPRINT = hashlib.sha256(b"no backbone").hexdigest()


def weights() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    shapes = {
        "patches": (WIDTH, 3, PATCH, PATCH),
        "abnormal": (WIDTH, 1),
        "prompts": (WIDTH, PROMPTS),
    }
    return {name: 0.2 * draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}


class HandMade(PictureDetector):
    """The rival: the graph's formulas in numpy."""

    name, threshold, class_name = NAME, 0.5, None
    geometry = ModelGeometry(transform=TRANSFORM, sigma_px=2.0)
    identity = ModelIdentity(method="hand", backbone="none", backbone_fingerprint=FINGERPRINT,
                             runtime=("numpy", np.__version__), precision="fp32",
                             device="cpu")  # fmt: skip

    def __init__(self) -> None:
        self.description = {}
        self._set(DetectorSetup())

    def decided_by(self) -> dict[str, str]:
        return {"model": NAME, **self.setup.decided_by()}

    def tokens(self, pixels: np.ndarray) -> np.ndarray:
        rows = pixels.reshape(len(pixels), 3, GRID[0], PATCH, GRID[1], PATCH)
        found = np.einsum("bcryxp,dcyp->brxd", rows, weights()["patches"])
        return found.reshape(len(pixels), -1, WIDTH)

    def run_model(self, pixels, *, masks, products, class_names=None, with_prompt_scores=False):
        whole = own = self.tokens(pixels)
        kept = kept_rows(masks, GRID)
        if kept is not None:
            own = np.stack([each[rows] for each, rows in zip(whole, kept, strict=True)])
        chance = _sigmoid(own @ weights()["abnormal"])[..., 0]
        prompts = _sigmoid(whole.mean(axis=1) @ weights()["prompts"])
        surprise = None
        if self.setup.references is not None:
            bank = self.setup.references.bank
            surprise = np.concatenate(
                [
                    bank(product).surprise({LAYER: each[None]})
                    for each, product in zip(own, products, strict=True)
                ]
            )
        return ScoredBatch(
            score=chance.max(axis=1), patch_map=chance.reshape(-1, *GRID), grid=GRID,
            prompt_scores=prompts if with_prompt_scores else None, surprise=surprise,
        )  # fmt: skip

    def encode_picture(self, pixels: np.ndarray) -> EncodedPicture:
        (tokens,) = self.tokens(pixels[None])
        return EncodedPicture(class_token=tokens.mean(axis=0), patch_tokens={LAYER: tokens},
                              grid=GRID)  # fmt: skip


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def graph() -> bytes:
    """The rival as an ONNX file: pixels, kept -> score, patch_map, class_token, tokens_2 ..."""
    from onnx import TensorProto, checker, helper, numpy_helper

    patches = GRID[0] * GRID[1]
    constants = {
        **weights(),
        "flat": np.array([0, WIDTH, patches]), "grid": np.array([-1, *GRID]),
        "axis1": np.array([1]), "axis2": np.array([2]),
    }  # fmt: skip
    steps = [
        ("Conv", "pixels patches", "planes", {"strides": [PATCH, PATCH]}),
        ("Reshape", "planes flat", "columns", {}),
        ("Transpose", "columns", "whole", {"perm": [0, 2, 1]}),
        ("Unsqueeze", "kept axis2", "index", {}),
        ("Shape", "whole", "shape", {}),
        ("Expand", "index shape", "rows", {}),
        ("GatherElements", "whole rows", f"tokens_{LAYER}", {"axis": 1}),
        ("MatMul", f"tokens_{LAYER} abnormal", "logits", {}),
        ("Sigmoid", "logits", "chances", {}),
        ("Reshape", "chances grid", "patch_map", {}),
        ("Squeeze", "chances axis2", "row", {}),
        ("ReduceMax", "row axis1", "score", {"keepdims": 0}),
        ("ReduceMean", "whole axis1", "class_token", {"keepdims": 0}),
        ("MatMul", "class_token prompts", "prompt_logits", {}),
        ("Sigmoid", "prompt_logits", "prompt_scores", {}),
    ]
    nodes = [
        helper.make_node(kind, names.split(), [out], **options)
        for kind, names, out, options in steps
    ]
    number, whole = TensorProto.FLOAT, TensorProto.INT64
    inputs = {"pixels": (number, (3, SIDE, SIDE)), "kept": (whole, (patches,))}
    outputs = {"score": (), "patch_map": GRID, "class_token": (WIDTH,),
               f"tokens_{LAYER}": (patches, WIDTH), "prompt_scores": (PROMPTS,)}  # fmt: skip
    made = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info(k, kind, ["B", *s]) for k, (kind, s) in inputs.items()],
        [helper.make_tensor_value_info(k, number, ["B", *s]) for k, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(model)
    return model.SerializeToString()


def config(files: dict[str, bytes], **changes) -> dict:
    """The config of an exported folder with these files; changes are of the entry "export"."""
    record = {
        "format": "onnx", "precision": "fp32",
        "runtime": {"name": "onnxruntime", "version": "1", "hints": {}},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "inputs": ["pixels", "kept"],
        "outputs": ["score", "patch_map", "class_token", f"tokens_{LAYER}", "prompt_scores"],
        "grid": list(GRID), "sigma_px": 2.0, "keeps_aspect": False, "tiled": False,
        "stacks_squares": False, "class_names": None, "batch": "dynamic", "difference": {},
        "torch": "2", "faprompt": "0",
    }  # fmt: skip
    return {
        "format": 1, "name": NAME, "license": "Apache-2.0", "method": "hand", "options": {},
        "backbone": {"name": "none", "source": "none", "fingerprint": FINGERPRINT},
        "transform": TRANSFORM.to_dict(), "threshold": 0.5, "training": {},
        EXPORT: record | changes,
    }  # fmt: skip


def write_folder(folder: Path, **changes) -> Path:
    """Write the exported folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"model.onnx": graph()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "README.md").write_text("# hand-made\n")
    (folder / "config.json").write_text(json.dumps(config(files, **changes)))
    return folder
