"""Shapes of defects without a picture, scaled until their mask has a wanted size.

The makers of `defects` draw at a size of their own, as a share of a square window. A shape does
not depend on what the window shows, so its window is chosen before its place in a picture.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.synthetic.canvas import Canvas
from faprompt.synthetic.painting import LEAST_ALPHA, MASK_ALPHA, Content, Spot
from faprompt.synthetic.scene import MAKERS

SIZE_TOLERANCE = 0.1  # of the wanted size, and at least one pixel
_THIN = ("scratch", "crack", "thread")  # the makers give their widths in pixels
_FITS = 8  # windows for one shape
_MOST_WINDOW = 2000
_LEAST_SHARE, _MOST_SHARE = 0.15, 0.8  # extent of a shape as a share of the window
_FIRST_SHARE = 0.35  # assumed at first
_PORE_ZOOM = 6.0  # pores are drawn small otherwise
_FIRST_MOST = 300  # pixels of the first sheet


@dataclass(frozen=True, slots=True, eq=False)
class DefectShape:
    """A defect without its picture."""

    window: int  # side of the square window in pixels of the picture
    fine: int  # sheet pixels per picture pixel
    mask: np.ndarray  # (window, window) bool
    alpha: Tensor  # (window * fine, window * fine)
    top: int  # the pixels that the defect changes lie in this box of the window
    left: int
    height: int
    width: int


def fit_shape(kind: str, size_px: float, key: str) -> DefectShape | None:
    """Draw a shape and scale its window until it has the wanted size; None if it never has."""
    fine = _sheet_pixels(kind, size_px)
    flat = torch.full((1, 1, 1, 1), 0.5)
    window, tried = round(min(size_px / _FIRST_SHARE, _FIRST_MOST / fine)), set[int]()
    for _ in range(_FITS):
        side = window * fine
        content = Content(flat.expand(1, 1, side, side), torch.ones(1, side, side), flat)
        sheet = run_maker(kind, content, key, level=0.5, rough=0.05)[1]
        alpha = pool(sheet, fine)
        mask, near = (alpha > MASK_ALPHA).numpy(), (alpha > LEAST_ALPHA).numpy()
        inside = not np.concatenate((near[[0, -1]], near[:, [0, -1]].T)).any()
        extent = longest_extent((sheet > MASK_ALPHA).numpy()) / fine
        apart = max(abs(extent - size_px), abs(longest_extent(mask) - size_px))
        if inside and apart <= max(1.0, SIZE_TOLERANCE * size_px):
            rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
            top, left = int(rows[0]), int(columns[0])
            height, width = int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
            return DefectShape(window, fine, mask, sheet, top, left, height, width)
        tried.add(window)
        if len(tried) == 1 and not _LEAST_SHARE <= extent / window <= _MOST_SHARE:
            return None
        window = max(round(window * size_px / max(extent, 0.5)), 8)
        if window in tried or window * fine > _MOST_WINDOW:
            return None
    return None


def _sheet_pixels(kind: str, size_px: float) -> int:
    """Return sheet pixels per picture pixel: small defects are drawn larger and averaged."""
    if kind in _THIN:
        return 2 if size_px < 12 else 1
    return max(math.ceil(24 / size_px), 1)


def run_maker(
    kind: str, content: Content, key: str, *, level: float, rough: float
) -> tuple[Tensor, Tensor]:
    """Draw a defect in the middle of a window: changed (c, size, size), alpha (size, size)."""
    host = random.Random(key)
    generator = torch.Generator().manual_seed(host.getrandbits(62))
    channels, size = content.image.shape[1], content.image.shape[-1]
    canvas = Canvas(1, size, generator=generator, host=host, channels=channels, squashed=False)
    canvas.pore_zoom = _PORE_ZOOM
    middle, room = torch.zeros(1, 1, 1), torch.full((1, 1, 1), 0.7)
    spot = Spot(middle, middle, room, middle + rough, middle + level)
    changed, alpha = MAKERS[kind](canvas, content, spot)
    return changed[0], alpha[0]


def pool(field: Tensor, fine: int) -> Tensor:
    """Average squares of `fine` x `fine` sheet pixels."""
    if fine == 1:
        return field
    flat = field.reshape(1, -1, *field.shape[-2:])
    return F.avg_pool2d(flat, fine).reshape(
        *field.shape[:-2], *(s // fine for s in field.shape[-2:])
    )


def longest_extent(mask: np.ndarray) -> float:
    """Return the longest extent of a mask (H, W) in any direction, in pixels; 0 if it is empty.

    It is the largest width of the mask over 32 directions, measured between pixel centres, plus
    one pixel (about the largest Feret diameter).
    """
    rows, columns = mask.nonzero()
    if not len(rows):
        return 0.0
    angles = np.arange(32) * (math.pi / 32)
    along = rows[:, None] * np.sin(angles) + columns[:, None] * np.cos(angles)
    return float((along.max(0) - along.min(0)).max()) + 1
