"""Tiles of one picture, their maps joined to one, and pixels or patches that a mask leaves out.

Ours. Tiles are squares that overlap by a quarter of their side. Their maps are weighted by a
Hann window along each axis, so that no border of a tile shows. Both axes have tiles of their own,
so the weights of all tiles at a pixel are a product of two factors. They are divided by their sum
beforehand, and nothing but one row of tiles is held in memory besides the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeAlias

import numpy as np

from faprompt.errors import ConfigError, ImageReadError
from faprompt.imaging.map_rendering import MapRows
from faprompt.imaging.picture_views import Box

TileSetting: TypeAlias = Literal["off", "auto"] | int

MOST_TILES = 64  # along the longer side
OVERLAP = 0.25  # least share of a tile's side that the next tile covers too
OBLONG = 1.5  # longer over shorter side from which "auto" cuts squares
LARGE = 2  # longer side over the model's, above which "auto" cuts tiles of the model's size
EDGE_WEIGHT = 1e-3  # added to the Hann window, which is almost 0 at the border of a picture

_BLOCK_PIXELS = 2**18  # of a map worked on at once


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Places of a picture's tiles, row by row."""

    image_size: tuple[int, int]  # (height, width) in pixels
    boxes: tuple[Box, ...]  # row-major, all of one size

    @property
    def whole(self) -> bool:
        """Whether the whole picture is scored once besides the tiles."""
        return len(self.boxes) > 1

    @property
    def tile_size(self) -> tuple[int, int]:
        """(height, width) of every tile, in pixels."""
        x0, y0, x1, y1 = self.boxes[0]
        return y1 - y0, x1 - x0


def check_tiles(value: object) -> TileSetting:
    """Return "off", "auto" or the number of tiles along the longer side, 1 to 64.

    Raises:
        ConfigError: any other value.
    """
    if value == "off" or value == "auto":
        return "off" if value == "off" else "auto"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_TILES:
        return value
    raise ConfigError(
        f"tiles should be 'auto', 'off' or a number of tiles along the longer side from 1 to "
        f"{MOST_TILES}, got {value!r}."
    )


def parse_tiles(text: str) -> TileSetting:
    """Return the setting that a word on the command line means.

    Example:
        >>> [parse_tiles(text) for text in ("auto", "off", "4")]
        ['auto', 'off', 4]
    """
    return check_tiles(int(text) if text.isdecimal() and text.isascii() else text)


def plan_tiles(
    image_size: tuple[int, int], tiles: TileSetting, *, model_size: tuple[int, int]
) -> TilePlan:
    """Return where the tiles of a picture lie.

    Neighbours overlap by at least a quarter of their side and are evenly spread. The first tile
    begins and the last one ends at the border; nothing is padded.

    Args:
        image_size: (height, width) of the picture, in pixels.
        tiles: "off" and 1 make the whole picture the only tile. A number N makes the smallest
            squares of which N cover the longer side (fewer, where it has fewer pixels), cut to
            the picture where its shorter side is shorter than they are. "auto" makes squares of
            the shorter side of an oblong picture (`OBLONG`), and of the model's size where the
            longer side is more than twice that (`LARGE`), but never larger than the shorter
            side; any other picture is the only tile.
        model_size: (height, width) of the model's input, in pixels; its shorter side counts.

    Raises:
        ConfigError: the setting is none of these.
        ValueError: a picture without pixels.

    Example:
        >>> plan_tiles((10, 24), "auto", model_size=(16, 16)).boxes
        ((0, 0, 10, 10), (7, 0, 17, 10), (14, 0, 24, 10))
    """
    if min(*image_size, *model_size) < 1:
        raise ValueError(f"Pictures should have pixels, got {image_size} and {model_size}.")
    side = _tile_side(image_size, check_tiles(tiles), min(model_size))
    height, width = (min(side, length) for length in image_size)
    wanted = [
        tiles if isinstance(tiles, int) and length == max(image_size) else 1
        for length in image_size
    ]
    boxes = (
        (x0, y0, x0 + width, y0 + height)
        for y0 in _tile_starts(image_size[0], height, wanted[0])
        for x0 in _tile_starts(image_size[1], width, wanted[1])
    )
    return TilePlan(image_size, tuple(boxes))


def _tile_side(image_size: tuple[int, int], tiles: TileSetting, model_side: int) -> int:
    shorter, longer = sorted(image_size)
    if tiles == "off":
        return longer
    if tiles == "auto":
        if longer > LARGE * model_side:
            return min(model_side, shorter)
        return shorter if longer > OBLONG * shorter else longer
    side = math.ceil(longer / (1 + (1 - OVERLAP) * (tiles - 1)))
    while side + (tiles - 1) * _longest_step(side) < longer:
        side += 1
    return side


def _longest_step(side: int) -> int:
    return max(1, int((1 - OVERLAP) * side))


def _tile_starts(length: int, side: int, wanted: int) -> list[int]:
    """Return evenly spread starts of at least `wanted` tiles; the last one ends at `length`."""
    room = length - side
    gaps = max(math.ceil(room / _longest_step(side)), min(wanted - 1, room))
    return [number * room // max(1, gaps) for number in range(gaps + 1)]


def join_tile_maps(
    tile_maps: Iterable[np.ndarray], plan: TilePlan, whole_rows: MapRows | None = None
) -> np.ndarray:
    """Join the maps of tiles to one map of the picture, row of tiles by row of tiles.

    Where tiles overlap, their weighted mean counts. The result is the larger of it and of the
    whole picture's map. Equal maps give exactly that value everywhere, and a single tile gives
    its own map.

    Args:
        tile_maps: (height, width) of each box of the plan in its order, values in [0, 1]. Maps
            are taken one at a time, and none is kept.
        plan: places of the maps.
        whole_rows: called with (top, bottom); returns these rows of the whole picture's map,
            (bottom - top, width) in [0, 1]. Rows are asked for once, from top to bottom.
            `stretched_rows` makes one of a small map.

    Returns:
        (height, width) float32 in [0, 1]. Besides it, memory is taken for one row of tiles: 8
        bytes for each of its pixels.

    Raises:
        ValueError: there are more or fewer maps than boxes, a map has another size than its
            box, or a value is NaN or outside [0, 1].
    """
    joined = np.empty(plan.image_size, np.float32)
    for top, band in _mean_bands(_checked(tile_maps, plan), plan):
        for rows in _row_blocks(len(band), plan.image_size[1]):
            out = joined[top + rows.start : top + rows.stop]
            out[:] = band[rows]
            if whole_rows is not None:
                whole = whole_rows(top + rows.start, top + rows.stop)
                _check_map(whole, out.shape, "rows of the whole picture's map")
                np.maximum(out, whole, out=out)
            np.minimum(out, 1, out=out)  # the weights' sum is 1 but for rounding
    return joined


def _checked(tile_maps: Iterable[np.ndarray], plan: TilePlan) -> Iterator[tuple[Box, np.ndarray]]:
    for number, (box, tile) in enumerate(zip(plan.boxes, tile_maps, strict=True)):
        _check_map(tile, plan.tile_size, f"the map of tile {number}")
        yield box, tile


def _check_map(values: np.ndarray, size: tuple[int, ...], what: str) -> None:
    if values.shape != size:
        raise ValueError(f"{what} should be {size}, got {values.shape}.")
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # NaN compares with nothing
        raise ValueError(f"{what} should lie in [0, 1], got {low}..{high}.")


def _mean_bands(
    tiles: Iterable[tuple[Box, np.ndarray]], plan: TilePlan
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (top, rows) of the weighted mean, from top to bottom, as soon as rows are final."""
    if not plan.whole:
        yield from ((0, tile) for _, tile in tiles)
        return
    height, width = plan.image_size
    down, across = (_shares(plan, axis) for axis in (1, 0))
    tops = [*down, height]
    band = np.zeros((plan.tile_size[0], width))  # accumulates the rows from `top` on
    for number, (top, row) in enumerate(groupby(tiles, key=lambda tile: tile[0][1])):
        for (x0, _, x1, _), tile in row:
            for rows in _row_blocks(*tile.shape):
                share = down[top][rows, None] * across[x0]
                band[rows, x0:x1] += share * tile[rows]
        final = tops[number + 1] - top
        yield top, band[:final]
        kept = len(band) - final
        for rows in _row_blocks(kept, width):
            band[rows] = band[rows.start + final : rows.stop + final]
        band[kept:] = 0


def _shares(plan: TilePlan, axis: int) -> dict[int, np.ndarray]:
    """Return for each start along an axis the weights in its tile, over those of all tiles."""
    length, side = plan.image_size[1 - axis], plan.tile_size[1 - axis]
    starts = sorted({box[axis] for box in plan.boxes})
    hann = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2 + EDGE_WEIGHT
    total = np.zeros(length)
    for start in starts:
        total[start : start + side] += hann
    return {start: hann / total[start : start + side] for start in starts}


def _row_blocks(height: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK_PIXELS // width)
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def fill_masked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a copy of a picture with the masked pixels in the mean colour of the others.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool; True pixels are left out.

    Raises:
        ImageReadError: the mask leaves out every pixel.
        ValueError: the mask has another size than the picture.
    """
    if mask.shape != image.shape[:2]:
        raise ValueError(f"mask should be {image.shape[:2]} like the picture, got {mask.shape}.")
    kept = int(mask.size - np.count_nonzero(mask))
    if not kept:
        raise ImageReadError("the mask leaves out every pixel; leave some of the picture to score.")
    total = np.zeros(3, np.int64)
    for rows in _row_blocks(*mask.shape):
        total += image[rows][~mask[rows]].sum(axis=0, dtype=np.int64)
    filled = image.copy()
    filled[mask] = np.rint(total / kept).astype(np.uint8)
    return filled


def patch_mask(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return which patches of a picture are left out: those with half their area masked or more.

    Args:
        mask: (height, width) bool of the part of the picture that the model sees; True pixels
            are left out.
        grid: (rows, columns) of patches, stretched over the whole mask.

    Returns:
        (rows, columns) bool.

    Example:
        >>> patch_mask(np.array([[True, False, False, False]]), (1, 2))
        array([[ True, False]])
    """
    down, across = (_coverage(*sides) for sides in zip(mask.shape, grid, strict=True))
    share = np.empty(grid)
    for row, (first, weights) in enumerate(down):
        column_share = weights @ mask[first : first + len(weights)]
        share[row] = [part @ column_share[x0 : x0 + len(part)] for x0, part in across]
    return share >= 0.5 - 1e-9  # the shares are sums of rounded parts


def _coverage(pixels: int, patches: int) -> list[tuple[int, np.ndarray]]:
    """Return for each patch its first pixel, and the share of the patch that each pixel fills."""
    spans = []
    for patch in range(patches):
        start, stop = patch * pixels / patches, (patch + 1) * pixels / patches
        first, last = int(start), math.ceil(stop)
        edges = np.clip(np.arange(first, last + 1), start, stop)
        spans.append((first, np.diff(edges) / (stop - start)))
    return spans


def nearest_kept(left_out: np.ndarray) -> np.ndarray:
    """Return for each patch the index of the nearest patch that is not left out.

    A patch that is kept has its own index. Where all are left out, every patch has its own:
    there is nothing to replace it with.

    Args:
        left_out: (rows, columns) bool, as from `patch_mask`.

    Returns:
        (rows * columns,) int64, row-major indices.

    Example:
        >>> nearest_kept(np.array([[False, True, True, True, False]]))
        array([0, 0, 0, 4, 4])
    """
    if left_out.all() or not left_out.any():
        return np.arange(left_out.size)
    rows, columns = left_out.shape
    down, across = np.arange(rows), np.arange(columns)
    # in each column the nearest kept row, then in each row the nearest of these pixels
    gaps = (down[:, None] - down) ** 2  # (row, other row)
    gaps = np.where(left_out[None], rows**2 + columns**2, gaps[:, :, None])
    nearest_rows = gaps.argmin(axis=1)  # (row, column)
    distances = gaps.min(axis=1)[:, None, :] + (across[:, None] - across) ** 2
    nearest_columns = distances.argmin(axis=2)
    return (nearest_rows[down[:, None], nearest_columns] * columns + nearest_columns).ravel()
