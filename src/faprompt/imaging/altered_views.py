"""Altered copies of a batch of pictures, whose scores AnoVL averages.

Source: vl_test.py of hq-deng/AnoVL: small rotations and shifts by affine grids with reflected
borders, a mirror image, grey, and quarter turns, all on pixels that are already normalised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ANGLES = tuple(sign * k * math.pi / 16 for k in (1, 2, 3, 4) for sign in (1, -1))
SHIFTS = tuple((a * s, b * s) for s in (0.2, 0.1) for a in (1, -1) for b in (1, -1))
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
VIEWS = 1 + len(ANGLES) + len(SHIFTS) + 1 + 1 + 3  # 22, the picture itself among them


def altered_views(pixels: Tensor) -> Iterator[Tensor]:
    """Yield the 21 copies besides the picture itself, one batch at a time.

    Args:
        pixels: (B, 3, H, W), normalised.

    Yields:
        (B, 3, H, W); two of the three quarter turns are (B, 3, W, H).
    """
    for angle in ANGLES:
        sine, cosine = math.sin(angle), math.cos(angle)
        yield _move(pixels, ((cosine, -sine, 0.0), (sine, cosine, 0.0)))
    for right, down in SHIFTS:
        yield _move(pixels, ((1.0, 0.0, right), (0.0, 1.0, down)))
    yield pixels.flip(-1)
    weights = pixels.new_tensor(LUMA)[:, None, None]
    yield (pixels * weights).sum(dim=1, keepdim=True).expand_as(pixels)
    for turns in (1, 2, 3):
        yield pixels.rot90(turns, dims=(-2, -1))


def _move(pixels: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Sample at `matrix` @ (x, y, 1), in units of half the picture."""
    from torch.nn import functional

    theta = pixels.new_tensor(matrix).expand(pixels.shape[0], 2, 3)
    grid = functional.affine_grid(theta, list(pixels.shape), align_corners=True)
    return functional.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )
