"""Contact sheets: picture, map over it, and ground truth, side by side with a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from faprompt.imaging import colour_bar, overlay, shrink

SIDE = 224  # pixels of the longer side of a panel
PANELS = ("picture", "map", "ground truth")

_MARGIN, _GAP, _GUTTER = 24, 8, 32  # round the sheet, between panels, between entries
_TEXT, _TITLE, _LINE = 14, 22, 20  # font sizes and line height
_INK, _FAINT, _PAPER = (32, 32, 32), (96, 96, 96), (255, 255, 255)
_COLUMNS = 2
_OUTLINE = ((255, 255, 255), (0, 0, 0))  # white with black around it, as the boxes of overlays
_WIDTH = len(PANELS) * SIDE + (len(PANELS) - 1) * _GAP  # of an entry
_BAR = (160, 12)  # width and height of the colour scale


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture on a sheet."""

    panels: tuple[np.ndarray, ...]  # as `make_panels` gives them; empty when unreadable
    rank: int
    name: str  # its beginning is cut off when it is too long
    facts: str  # its end is


def make_panels(
    image: np.ndarray, score_map: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, map over it, and picture with the defect outlined; all of one size.

    Args:
        image: (H, W, 3) uint8. score_map: (H, W) float in 0..1. mask: (H, W) bool, or None.

    Returns:
        (h, w, 3) uint8 each, at most `SIDE` high and wide. Small pictures are enlarged by a
        whole number.
    """
    small, small_map, _ = shrink(image, score_map, (), max_side=SIDE)
    zoom = max(1, SIDE // max(small.shape[:2]))
    small, small_map = _zoomed(small, zoom), _zoomed(small_map, zoom)
    outlined = small.copy()
    if mask is not None and mask.any():
        _outline(outlined, _small_mask(mask, small.shape[:2]))
    return small, overlay(small, small_map), outlined


def draw_sheet(title: str, about: str, entries: Sequence[Entry]) -> np.ndarray:
    """All entries in two columns, row by row, under a title and the colour scale.

    Returns:
        (H, W, 3) uint8.
    """
    columns = min(_COLUMNS, len(entries))
    rows = [entries[i : i + columns] for i in range(0, len(entries), columns)]
    heights = [_row_height(row) for row in rows]
    width = 2 * _MARGIN + columns * _WIDTH + (columns - 1) * _GUTTER
    about_lines = _wrapped(about, width - 2 * _MARGIN)
    top = _MARGIN + _TITLE + 12 + _LINE * (len(about_lines) + 1) + 8
    sheet = Image.new("RGB", (width, top + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _head(sheet, draw, title, about_lines)
    for column in range(columns):
        for number, word in enumerate(PANELS):
            x = _column_left(column) + number * (SIDE + _GAP)
            draw.text((x, top - _LINE - 2), word, _FAINT, _font(_TEXT))
    for row, height in zip(rows, heights, strict=True):
        for column, entry in enumerate(row):
            _entry(sheet, draw, entry, (_column_left(column), top))
        top += height
    return np.asarray(sheet)


def _head(sheet: Image.Image, draw: Any, title: str, about: Sequence[str]) -> None:
    draw.text((_MARGIN, _MARGIN - 6), title, _INK, _font(_TITLE, bold=True))
    for number, line in enumerate(about):
        y = _MARGIN + _TITLE + 6 + number * _LINE
        draw.text((_MARGIN, y), line, _FAINT, _font(_TEXT))
    bar = np.rot90(colour_bar(_BAR[0], width=_BAR[1]), -1)  # 0 on the left
    right = sheet.width - _MARGIN
    digit = _font(_TEXT).getlength("0")
    x, y = int(right - digit - 6 - _BAR[0]), _MARGIN
    sheet.paste(Image.fromarray(np.ascontiguousarray(bar)), (x, y))
    draw.text((x - 6 - digit, y - 3), "0", _FAINT, _font(_TEXT))
    draw.text((right - digit, y - 3), "1", _FAINT, _font(_TEXT))


def _entry(sheet: Image.Image, draw: Any, entry: Entry, corner: tuple[int, int]) -> None:
    x, y = corner
    for number, panel in enumerate(entry.panels):
        sheet.paste(Image.fromarray(panel), (x + number * (SIDE + _GAP), y))
    if not entry.panels:
        draw.text((x, y), "cannot be read any more", _FAINT, _font(_TEXT))
    y += _panel_height(entry) + 4
    rank = f"{entry.rank}  "
    room = _WIDTH - _font(_TEXT, bold=True).getlength(rank)
    draw.text((x, y), rank, _INK, _font(_TEXT, bold=True))
    draw.text((x + _WIDTH - room, y), _fitting(entry.name, room, cut=0), _INK, _font(_TEXT))
    draw.text((x, y + _LINE), _fitting(entry.facts, _WIDTH, cut=-1), _FAINT, _font(_TEXT))


def _row_height(row: Sequence[Entry]) -> int:
    return max(map(_panel_height, row)) + 2 * _LINE + _MARGIN


def _panel_height(entry: Entry) -> int:
    return entry.panels[0].shape[0] if entry.panels else _LINE


def _column_left(column: int) -> int:
    return _MARGIN + column * (_WIDTH + _GUTTER)


def _zoomed(array: np.ndarray, zoom: int) -> np.ndarray:
    return array.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _small_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask at another size; a pixel that holds any of the defect is part of it."""
    shares = Image.fromarray(mask.astype(np.float32))
    return np.asarray(shares.resize((size[1], size[0]), Image.Resampling.BOX)) > 0


def _outline(image: np.ndarray, mask: np.ndarray) -> None:
    """A line around the defect, outside it, drawn in place; at the border it falls away."""
    square = np.ones((3, 3), dtype=bool)
    near = ndimage.binary_dilation(mask, square)
    far = ndimage.binary_dilation(near, square)
    for ring, colour in ((near & ~mask, _OUTLINE[0]), (far & ~near, _OUTLINE[1])):
        image[ring] = colour


def _fitting(text: str, width: float, *, cut: int) -> str:
    """The text, cut off at its beginning (0) or its end (-1) where it is too wide."""
    letters = list(text.encode(errors="replace").decode())  # a file name may be no Unicode
    shown = "".join(letters)
    while len(letters) > 1 and _font(_TEXT).getlength(shown) > width:
        del letters[cut]
        shown = "…" + "".join(letters) if cut == 0 else "".join(letters) + "…"
    return shown


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font(_TEXT).getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@lru_cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)
