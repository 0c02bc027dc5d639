"""Contact sheets: picture, map over it, and ground truth, side by side with a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from faprompt.evaluation.drawing import (
    FAINT,
    GAP,
    INK,
    MARGIN,
    PAPER,
    SIDE,
    Heading,
    fit,
    fitting,
    font,
    outlined,
)
from faprompt.imaging import overlay

PANELS = ("picture", "map", "ground truth")

_GUTTER = 32  # between entries
_TEXT, _LINE = 14, 20  # font size and line height
_COLUMNS = 2
_WIDTH = len(PANELS) * SIDE + (len(PANELS) - 1) * GAP  # of an entry


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture on a sheet."""

    panels: tuple[np.ndarray, ...]  # as `make_panels` gives them; empty when unreadable
    rank: int
    name: str  # its beginning is cut off when it is too long
    facts: str  # its end is
    cause: str = ""  # a line of its own, where there is one; its end too


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
    small, small_map, small_mask = fit(image, score_map, mask)
    return small, overlay(small, small_map), outlined(small, small_mask)


def draw_sheet(title: str, about: str, entries: Sequence[Entry]) -> np.ndarray:
    """All entries in two columns, row by row, under a title and the colour scale.

    Returns:
        (H, W, 3) uint8.
    """
    columns = min(_COLUMNS, len(entries))
    rows = [entries[i : i + columns] for i in range(0, len(entries), columns)]
    heights = [_row_height(row) for row in rows]
    width = 2 * MARGIN + columns * _WIDTH + (columns - 1) * _GUTTER
    heading = Heading.fitted(title, about, width, text=_TEXT, line=_LINE)
    top = heading.height + _LINE + 8
    sheet = Image.new("RGB", (width, top + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    heading.draw(sheet)
    for column in range(columns):
        for number, word in enumerate(PANELS):
            x = _column_left(column) + number * (SIDE + GAP)
            draw.text((x, top - _LINE - 2), word, FAINT, font(_TEXT))
    for row, height in zip(rows, heights, strict=True):
        for column, entry in enumerate(row):
            _entry(sheet, draw, entry, (_column_left(column), top))
        top += height
    return np.asarray(sheet)


def _entry(sheet: Image.Image, draw: Any, entry: Entry, corner: tuple[int, int]) -> None:
    x, y = corner
    for number, panel in enumerate(entry.panels):
        sheet.paste(Image.fromarray(panel), (x + number * (SIDE + GAP), y))
    if not entry.panels:
        draw.text((x, y), "cannot be read any more", FAINT, font(_TEXT))
    y += _panel_height(entry) + 4
    rank = f"{entry.rank}  "
    room = _WIDTH - font(_TEXT, bold=True).getlength(rank)
    name = fitting(entry.name, room, cut=0, size=_TEXT)
    draw.text((x, y), rank, INK, font(_TEXT, bold=True))
    draw.text((x + _WIDTH - room, y), name, INK, font(_TEXT))
    for number, words in enumerate((entry.facts, entry.cause), 1):
        shown = fitting(words, _WIDTH, cut=-1, size=_TEXT)
        draw.text((x, y + number * _LINE), shown, FAINT, font(_TEXT))


def _row_height(row: Sequence[Entry]) -> int:
    lines = 3 if any(entry.cause for entry in row) else 2
    return max(map(_panel_height, row)) + lines * _LINE + MARGIN


def _panel_height(entry: Entry) -> int:
    return entry.panels[0].shape[0] if entry.panels else _LINE


def _column_left(column: int) -> int:
    return MARGIN + column * (_WIDTH + _GUTTER)
