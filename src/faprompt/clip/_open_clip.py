"""Import open_clip, and with it torchvision, in one place.

open_clip imports torchvision for its own transforms. With a CPU build of torch and a CUDA
build of torchvision that import fails: "operator torchvision::nms does not exist", because
torchvision's compiled half did not load. Neither open_clip nor we use those operators, so
it is enough to declare their signatures.
"""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def open_clip_module() -> ModuleType:
    """Import the `open_clip` package at first use, and return it."""
    try:
        import open_clip
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_torchvision_operators()
        import open_clip
    return open_clip


def _declare_torchvision_operators() -> None:
    import torch

    for name in [m for m in sys.modules if m.split(".")[0] in ("torchvision", "open_clip", "timm")]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", _SIGNATURE)
