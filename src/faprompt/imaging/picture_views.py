"""Views of a picture: square tiles of it and their joined maps, and altered copies of a batch.

Source of the copies, whose scores AnoVL averages: vl_test.py of hq-deng/AnoVL. Small rotations
and shifts by affine grids with reflected borders, a mirror image, grey, and quarter turns, all
on pixels that are already normalised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

STRIDE_SHARE = 0.8  # of a tile's side (mala-lab/WinCLIP datasets/mvtec_dataset.py)

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels; x1 and y1 exclusive

ANGLES = tuple(sign * k * math.pi / 16 for k in (1, 2, 3, 4) for sign in (1, -1))
SHIFTS = tuple((a * s, b * s) for s in (0.2, 0.1) for a in (1, -1) for b in (1, -1))
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def square_tiles(height: int, width: int) -> list[Box]:
    """Return squares as wide as the shorter edge, in steps along the longer one.

    The last one ends at the border; a square picture is one tile.

    Example:
        >>> square_tiles(10, 21)
        [(0, 0, 10, 10), (8, 0, 18, 10), (11, 0, 21, 10)]
    """
    side, length = _edges(height, width)
    step = max(1, int(STRIDE_SHARE * side))
    return _squares([*range(0, length - side, step), length - side], side, width >= height)


def tile_boxes(image_size: tuple[int, int], *, tiled: bool) -> list[Box]:
    """Return the `square_tiles` of a picture (height, width), or the whole as the only box."""
    height, width = image_size
    return square_tiles(height, width) if tiled else [(0, 0, width, height)]


def cut_tiles(image: np.ndarray, boxes: Iterable[Box]) -> list[np.ndarray]:
    """Return the parts of an array in boxes; they share its memory."""
    return [image[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes]


def end_squares(height: int, width: int) -> list[Box]:
    """Return the squares at both ends of the longer edge, as wide as the shorter edge.

    A square picture gives the same square twice. A picture longer than two squares gets as
    many as cover it, evenly spread.

    Source:
        `image_tiling` in vis_test.py of hq-deng/AnoVL, which takes pictures up to two squares.

    Example:
        >>> end_squares(10, 16), end_squares(25, 10)
        ([(0, 0, 10, 10), (6, 0, 16, 10)], [(0, 0, 10, 10), (0, 8, 10, 18), (0, 15, 10, 25)])
    """
    side, length = _edges(height, width)
    gaps = max(1, math.ceil(length / side) - 1)
    starts = (round(number * (length - side) / gaps) for number in range(gaps + 1))
    return _squares(starts, side, width >= height)


def _edges(height: int, width: int) -> tuple[int, int]:
    if min(height, width) < 1:
        raise ValueError(f"A picture should have pixels, got {height}x{width}.")
    return min(height, width), max(height, width)


def _squares(starts: Iterable[int], side: int, across: bool) -> list[Box]:
    if across:
        return [(start, 0, start + side, side) for start in starts]
    return [(0, start, side, start + side) for start in starts]


def join_maps(
    maps: Sequence[np.ndarray], boxes: Sequence[Box], image_size: tuple[int, int]
) -> np.ndarray:
    """Join the maps of tiles; where they overlap, their mean counts.

    Args:
        maps: (height, width) of each box, values in [0, 1].
        boxes: place of each map; together they cover the picture.
        image_size: (height, width) of the picture.

    Returns:
        (height, width) float32 in [0, 1].

    Raises:
        ValueError: a map is not of its box's size, or a pixel is in no box.
    """
    total, count = np.zeros(image_size, np.float64), np.zeros(image_size, np.int64)
    for tile, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
        if tile.shape != (y1 - y0, x1 - x0):
            raise ValueError(f"A map of {tile.shape} does not fill the box {(x0, y0, x1, y1)}.")
        total[y0:y1, x0:x1] += tile
        count[y0:y1, x0:x1] += 1
    if not count.all():
        raise ValueError(f"The boxes leave {(count == 0).sum()} pixels of the picture uncovered.")
    return (total / count).astype(np.float32)


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
