"""Exporting a detector before anything was predicted, and what that leaves behind."""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export

from faprompt.detector import Detector


class TensorInterface(nn.Module):
    """A detector as the module that torch exports."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.parts = nn.ModuleList([detector.backbone, detector.method])

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.detector(pixels)


def forget() -> None:
    """Empty every cache of the package's functions, as in a process that just began.

    The byte pairs stay: they are plain text, and slow to read.
    """
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "faprompt":
            for key, value in list(vars(module).items()):
                if hasattr(value, "cache_clear") and not key.startswith("_merge"):
                    value.cache_clear()


def export_cold(
    detector: Detector, pixels: torch.Tensor, *, open_batch: bool = True
) -> ExportedProgram:
    """Export a detector with nothing in any cache; `open_batch` names the batch dimension."""
    forget()
    shapes = {"pixels": {0: Dim("batch", min=1, max=64)}} if open_batch else None
    return export(TensorInterface(detector), (pixels,), dynamic_shapes=shapes)


def assert_equal_after_export(
    program: ExportedProgram, exported: Detector, rival: Detector, pixels: torch.Tensor
) -> None:
    """Program and detector give the rival's scores and maps, which is computed with new caches.

    Args:
        program: of `exported`, which has predicted nothing since.
        rival: the same model, built on its own.
        pixels: of another batch size than the program was made with, where that is open.
    """
    with torch.no_grad():
        ours, after = program.module()(pixels), exported(pixels)
        forget()
        wanted = rival(pixels)
    for found in (ours, after):
        assert [type(each) for each in found] == [torch.Tensor] * 2  # no stand-in without values
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
