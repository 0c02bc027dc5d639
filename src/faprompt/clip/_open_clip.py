"""The one place that imports open_clip, and the torchvision beneath it.

open_clip imports torchvision for its own transforms. A CPU build of torch beside a CUDA
build of torchvision makes that import fail with "operator torchvision::nms does not
exist": torchvision's compiled half did not load, and it registers a fake kernel for
operators that are therefore unknown. Neither open_clip nor we use those operators, so
declaring their signatures is enough to let the import through.
"""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@cache
def open_clip_module() -> ModuleType:
    """The `open_clip` package, imported at first use."""
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
