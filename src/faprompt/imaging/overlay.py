"""Show score maps: colours on a fixed scale, outlines of regions, and encoded pictures.

The colour of a score never depends on the other scores of its picture. The ramp rises evenly in
lightness (CIE L* 10 to 92), so it also reads in grey and with any kind of colour blindness.
Where regions are known, their outline and a faint tint take the place of the colours, so that
the defect itself stays visible.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from faprompt.records import Region

# Equal steps of score, equal steps of lightness; chosen in CIE LCh by this project.
RAMP = (
    (0x00, 0x18, 0x4C), (0x3E, 0x1B, 0x73), (0x84, 0x02, 0x7E),
    (0xBD, 0x00, 0x73), (0xE6, 0x2B, 0x57), (0xFF, 0x5E, 0x44),
    (0xFF, 0x8F, 0x35), (0xFF, 0xBE, 0x39), (0xFF, 0xE9, 0x64),
)  # fmt: skip
_BOX_COLOURS = ((255, 255, 255), (0, 0, 0))  # a white line with a black one around it
# Red, green, blue, opacity of a pixel: left alone, in a region, on its outline, around that.
_MARKS = ((0, 0, 0, 0), (230, 43, 87, 38), (255, 233, 100, 255), (24, 0, 40, 230))
_TINT, _LINE, _EDGE = 1, 2, 3
_SMALL = 50  # a region shorter than 1/50 of the picture's longer side gets a box, to be found
MAP_ALPHA = 0.5  # opacity of a score of 1 in reports
MOST_BOXES = 50  # in reports; more would hide the picture
_BLOCK_PIXELS = 2**20
_WHOLE_MAP_PIXELS = 2**26


def colour_table() -> np.ndarray:
    """Return (256, 3) uint8: row i is the colour of the score i / 255."""
    stops, scores = np.linspace(0, 1, len(RAMP)), np.linspace(0, 1, 256)
    ramp = np.asarray(RAMP, np.float64)
    channels = [np.interp(scores, stops, ramp[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def ramp_css() -> str:
    """Return the colours as the stops of a CSS gradient."""
    return ", ".join(f"rgb({r} {g} {b})" for r, g, b in RAMP)


def overlay(
    image: np.ndarray,
    score_map: np.ndarray,
    *,
    alpha: float = 0.75,
    regions: Sequence[Region] = (),
    level: float | None = None,
) -> np.ndarray:
    """Lay a score map, or the outlines of its regions, over its picture.

    Without `level`, a score of 0 leaves the picture as it is, and opacity grows with the score up
    to `alpha`. With `level`, pixels from that score on have a faint tint and a line around them.

    Args:
        image: (H, W, 3) uint8 RGB.
        score_map: (H, W) float in [0, 1]; the scale is fixed, never stretched.
        alpha: opacity of a score of 1, in [0, 1].
        regions: drawn as boxes, in pixels of this picture; with `level` only the small ones.
        level: lowest score inside an outline; see `region_level`.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        ValueError: the map does not fit the picture, or alpha is out of range.

    Example:
        >>> grey = np.full((1, 2, 3), 128, np.uint8)
        >>> overlay(grey, np.array([[0.0, 1.0]]), alpha=1.0)[0].tolist()
        [[128, 128, 128], [255, 233, 100]]
    """
    if image.shape[:2] != score_map.shape:
        raise ValueError(f"score_map {score_map.shape} does not fit the image {image.shape[:2]}.")
    palette = _ramp_palette(alpha) if level is None else _mark_palette()
    marks = None if level is None else _marks(score_map, level, regions)
    out = np.empty_like(image)
    height, width = score_map.shape
    step = max(1, _BLOCK_PIXELS // max(1, width))
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        codes = _ramp_codes(score_map[rows]) if marks is None else marks[rows]
        out[rows] = _blend(image[rows], codes, palette)
    if marks is None:
        line = _line_width(score_map)
        for region in regions:
            _draw_box(out, region.bbox, _BOX_COLOURS, line)
    return out


def overlay_layer(
    score_map: np.ndarray,
    *,
    alpha: float = 0.75,
    regions: Sequence[Region] = (),
    level: float | None = None,
) -> bytes:
    """Return what `overlay` lays over a picture as a transparent PNG of the map's size.

    A browser stretches it over the picture at any size, so that it can be switched off.
    Boxes are drawn with `level` only.
    """
    palette = _ramp_palette(alpha) if level is None else _mark_palette()
    codes = _ramp_codes(score_map) if level is None else _marks(score_map, level, regions)
    picture = Image.fromarray(codes)
    picture.putpalette(palette[:, :3].tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=palette[:, 3].tobytes(), compress_level=6)
    return buffer.getvalue()


def region_level(score_map: np.ndarray, area: float) -> float | None:
    """Return the lowest score in the regions of a map, None without regions.

    Regions hold every pixel from a threshold on, so it is the k-th highest score, where k is
    their area in pixels. This also holds, nearly, in a shrunken map.

    Args:
        score_map: (H, W) float.
        area: of all regions, in pixels of the map.
    """
    if not area:
        return None
    rank = min(max(1, round(area)), score_map.size)
    return float(np.partition(score_map, -rank, axis=None)[-rank])


def colour_bar(height: int, *, width: int = 16) -> np.ndarray:
    """Return the scale as a picture (height, width, 3) uint8: score 1 on top, 0 at the bottom."""
    if height < 2 or width < 1:
        raise ValueError(f"a colour bar needs height >= 2 and width >= 1, got {height}x{width}.")
    levels = np.rint(np.linspace(255, 0, height)).astype(np.uint8)
    return np.repeat(colour_table()[levels][:, None], width, axis=1)


def shrink(
    image: np.ndarray, score_map: np.ndarray, regions: Sequence[Region], *, max_side: int
) -> tuple[np.ndarray, np.ndarray, tuple[Region, ...]]:
    """Shrink a picture, its map and its boxes together, so that they stay aligned.

    Args:
        image: (H, W, 3) uint8, or already of the smaller size.
        score_map: (H, W) float32.
        regions: in pixels of the map.
        max_side: limit of the longer side, in pixels; smaller pictures are left alone.
    """
    height, width = score_map.shape
    size = _fitting_size(score_map, max_side)
    if size is None:
        return image, score_map, tuple(regions)
    across, down = size[0] / width, size[1] / height
    boxes = tuple(_scale_region(region, across, down) for region in regions)
    return thumbnail(image, max_side=max_side), _shrink_map(score_map, size), boxes


def _shrink_map(score_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink a map to (width, height); a large one in bands, since Pillow copies what it reads."""
    height, width = score_map.shape
    if score_map.size <= _WHOLE_MAP_PIXELS:
        values = Image.fromarray(np.asarray(score_map, np.float32))
        small = values.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.clip(np.asarray(small), 0, 1)
    out, scale = np.empty((size[1], size[0]), np.float32), height / size[1]
    step = max(1, int(_BLOCK_PIXELS / (scale * width)))
    for first in range(0, size[1], step):
        last = min(first + step, size[1])
        top, bottom = int(first * scale), min(height, math.ceil(last * scale))
        edges = (0, first * scale - top, width, min(last * scale, height) - top)
        band = Image.fromarray(np.asarray(score_map[top:bottom], np.float32))
        shrunk = band.resize((size[0], last - first), Image.Resampling.BOX, box=edges)
        out[first:last] = np.asarray(shrunk)
    return np.clip(out, 0, 1, out=out)


def thumbnail(image: np.ndarray, *, max_side: int) -> np.ndarray:
    """Return (h, w, 3) uint8 with the longer side at most `max_side` pixels, never enlarged."""
    if max_side < 1:
        raise ValueError(f"max_side should be at least 1, got {max_side}.")
    size = _fitting_size(image, max_side)
    if size is None:
        return image
    picture = Image.fromarray(image)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def _fitting_size(image: np.ndarray, max_side: int) -> tuple[int, int] | None:
    """(width, height) within the limit, None where the picture already fits."""
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    return None if scale >= 1 else (max(1, round(width * scale)), max(1, round(height * scale)))


def encode_jpeg(image: np.ndarray, *, quality: int = 90) -> bytes:
    """Encode an (H, W, 3) or (H, W) uint8 array as JPEG, colours not subsampled."""
    return _encode(image, "JPEG", quality=quality, subsampling=0)


def encode_png(image: np.ndarray) -> bytes:
    """Encode an (H, W, 3) or (H, W) uint8 array, or an (H, W) uint16 array, as PNG."""
    return _encode(image, "PNG", compress_level=1)  # level 6: half the speed, a tenth less


def encode_map_png(score_map: np.ndarray) -> bytes:
    """Encode a score map in [0, 1] as 16-bit grey PNG: a value is the score times 65535."""
    values = np.rint(np.clip(score_map, 0, 1) * np.float32(65535)).astype(np.uint16)
    return encode_png(values)


def _encode(image: np.ndarray, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def _ramp_palette(alpha: float) -> np.ndarray:
    """Return (256, 4) uint8: red, green, blue and opacity of the score i / 255."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha should be in [0, 1], got {alpha}.")
    opacity = np.array([round(alpha * score) for score in range(256)], np.uint8)
    return np.column_stack([colour_table(), opacity])


def _mark_palette() -> np.ndarray:
    return np.array(_MARKS, np.uint8)


def _ramp_codes(score_map: np.ndarray) -> np.ndarray:
    return (np.clip(score_map, 0, 1) * 255 + 0.5).astype(np.uint8)


def _marks(score_map: np.ndarray, level: float, regions: Sequence[Region]) -> np.ndarray:
    """Return (H, W) uint8 rows of `_MARKS`: a line outside the pixels from `level` on."""
    inside = score_map >= level
    line = _line_width(score_map)
    filled = Image.fromarray(inside.astype(np.uint8) * np.uint8(255))
    marks = np.zeros(score_map.shape, np.uint8)
    for distance, mark in ((2 * line, _EDGE), (line, _LINE)):
        marks[np.asarray(filled.filter(ImageFilter.BoxBlur(distance))) > 0] = mark
    marks[inside] = _TINT
    for region in regions:
        if bbox := _finder(region, max(score_map.shape)):
            _draw_box(marks, bbox, (np.uint8(_LINE), np.uint8(_EDGE)), line)
    return marks


def _finder(region: Region, longest: int) -> tuple[int, int, int, int] | None:
    """Return the box that helps to find a small region, None for a large one."""
    x0, y0, x1, y1 = region.bbox
    half = longest // _SMALL
    if max(x1 - x0, y1 - y0) >= half:
        return None
    x, y = (x0 + x1) // 2, (y0 + y1) // 2
    return max(0, x - half), max(0, y - half), x + half, y + half


def _blend(image: np.ndarray, codes: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Mix a block of the overlay by Pillow, which is three times as fast as array lookups."""
    opacity = [*palette[:, 3].tolist(), *[0] * (256 - len(palette))]
    colours = Image.fromarray(codes)
    mask = colours.point(opacity)
    colours.putpalette(palette[:, :3].tobytes())
    return np.asarray(Image.composite(colours.convert("RGB"), Image.fromarray(image), mask))


def _scale_region(region: Region, across: float, down: float) -> Region:
    x0, y0, x1, y1 = region.bbox
    left, top = int(x0 * across), int(y0 * down)
    right, bottom = max(left + 1, round(x1 * across)), max(top + 1, round(y1 * down))
    area = max(1, round(region.area_px * across * down))
    return Region((left, top, right, bottom), area, region.peak, region.mean)


def _line_width(score_map: np.ndarray) -> int:
    return max(1, round(max(score_map.shape) / 500))


def _draw_box(
    canvas: np.ndarray,
    bbox: tuple[int, int, int, int],
    colours: tuple[Any, Any],
    line: int,
) -> None:
    """Draw a frame around the box in place, outside it where the picture has room.

    `colours` are those of the line and of the one around it.
    """
    x0, y0, x1, y1 = bbox
    for distance, colour in ((2 * line, colours[1]), (line, colours[0])):
        left, top = max(0, x0 - distance), max(0, y0 - distance)
        box = canvas[top : y1 + distance, left : x1 + distance]
        box[:line] = box[-line:] = colour
        box[:, :line] = box[:, -line:] = colour
