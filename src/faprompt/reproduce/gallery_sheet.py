"""A sheet of a gallery: a picture a row, its ground truth, and the map of every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
    font,
    outlined,
    wrapped,
)
from faprompt.imaging import overlay

FIRST = ("picture", "ground truth")
ABOUT = (
    "White line: the defect as it was marked. Colours: each method's map from 0 to 1, never "
    "stretched. Below: the picture's score; scores of different methods have no common scale. "
    "Overlap: of as many highest pixels of the map as the defect has, the share inside it."
)
_TEXT, _LINE = 18, 24  # font size and line height
_SPACE = 20  # below a row


@dataclass(frozen=True, slots=True)
class View:
    """What one method made of a picture."""

    score: float
    overlap: float | None  # 0..1, None without a mask
    levels: np.ndarray  # (h, w) uint8: its map at the panel's size, 255 is 1


@dataclass(slots=True)
class Row:
    """A picture of a sheet. What could not be read has no panel, and `error` says why."""

    name: str
    why: str
    label: int
    panel: np.ndarray | None = None  # (h, w, 3) uint8, as `fit` makes it
    mask: np.ndarray | None = None  # (h, w) bool of the same size
    views: dict[str, View] = field(default_factory=dict)  # by method
    error: str = ""


def draw_gallery(title: str, methods: Sequence[str], rows: Sequence[Row]) -> np.ndarray:
    """The rows under a title, the colour scale and the methods' names, which are never cut.

    Args:
        methods: columns after picture and ground truth; a row without a view of one says so.
        rows: at least one.

    Returns:
        (H, W, 3) uint8.
    """
    columns = (*FIRST, *methods)
    width = 2 * MARGIN + len(columns) * SIDE + (len(columns) - 1) * GAP
    heading = Heading.fitted(title, ABOUT, width, text=_TEXT, line=_LINE)
    heads = [wrapped(name, SIDE, size=_TEXT, bold=True) for name in columns]
    names_top = heading.height + 6
    top = names_top + max(map(len, heads)) * _LINE + 4
    heights = [_panel_height(row) + _caption_lines(row) * _LINE + _SPACE for row in rows]
    sheet = Image.new("RGB", (width, top + sum(heights) + MARGIN - _SPACE), PAPER)
    draw = ImageDraw.Draw(sheet)
    heading.draw(sheet)
    for column, lines in enumerate(heads):
        _lines(draw, (_left(column), names_top), lines, INK, bold=True)
    for row, height in zip(rows, heights, strict=True):
        _draw_row(sheet, draw, row, methods, top)
        top += height
    return np.asarray(sheet)


def _draw_row(sheet: Image.Image, draw: Any, row: Row, methods: Sequence[str], top: int) -> None:
    if row.panel is None:
        _lines(draw, (_left(0), top), _error_lines(row), FAINT)
    else:
        below = top + _panel_height(row) + 2
        sheet.paste(Image.fromarray(row.panel), (_left(0), top))
        if row.mask is not None:
            sheet.paste(Image.fromarray(outlined(row.panel, row.mask)), (_left(1), top))
        else:
            told = "anomalous, but nobody drew a mask" if row.label else "normal, nothing is marked"
            _lines(draw, (_left(1), top), wrapped(told, SIDE, size=_TEXT), FAINT)
        for column, name in enumerate(methods, len(FIRST)):
            _draw_view(sheet, draw, row, row.views.get(name), (_left(column), top), below)
    names, why = _caption(row)
    below = top + _panel_height(row) + 2
    _lines(draw, (_left(0), below), names, INK)
    _lines(draw, (_left(0), below + len(names) * _LINE), why, FAINT)


def _draw_view(
    sheet: Image.Image, draw: Any, row: Row, view: View | None, corner: tuple[int, int], below: int
) -> None:
    assert row.panel is not None
    if view is None:
        _lines(draw, corner, ["not there"], FAINT)
        return
    marked = outlined(overlay(row.panel, view.levels.astype(np.float32) / 255), row.mask)
    sheet.paste(Image.fromarray(marked), corner)
    _lines(draw, (corner[0], below), [f"{view.score:.3f}"], INK, bold=True)
    if view.overlap is not None:
        told = f"overlap {100 * view.overlap:.0f} %"
        _lines(draw, (corner[0], below + _LINE), [told], FAINT)


def _caption(row: Row) -> tuple[list[str], list[str]]:
    """The picture's name and why it was chosen, below the first two columns."""
    room = len(FIRST) * SIDE
    return wrapped(row.name, room, size=_TEXT), wrapped(row.why, room, size=_TEXT)


def _caption_lines(row: Row) -> int:
    return max(2, sum(map(len, _caption(row))))


def _panel_height(row: Row) -> int:
    """Of a row's panels; never so low that words in the place of one would not fit."""
    if row.panel is None:
        return len(_error_lines(row)) * _LINE
    return max(row.panel.shape[0], 2 * _LINE)


def _error_lines(row: Row) -> list[str]:
    return wrapped(f"cannot be read: {row.error}", len(FIRST) * SIDE, size=_TEXT)


def _lines(
    draw: Any, at: tuple[int, int], lines: Sequence[str], colour: Any, *, bold: bool = False
) -> None:
    for number, words in enumerate(lines):
        draw.text((at[0], at[1] + number * _LINE), words, colour, font(_TEXT, bold=bold))


def _left(column: int) -> int:
    return MARGIN + column * (SIDE + GAP)
