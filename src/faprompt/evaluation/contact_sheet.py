"""Draw contact sheets: pictures, maps and masks in rows, under a title and the colour scale.

Galleries of mistakes and galleries of studies are drawn here. Images are placed pixel by pixel
and never resampled, so that a sheet shows what `fit_panel` made.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from faprompt.imaging import colour_bar, overlay, shrink
from faprompt.work import load_extra

SIDE = 224  # longer side of a panel, px
MARGIN, GAP, GUTTER = 24, 8, 32  # px around the sheet, between panels, between entries
TEXT, LINE = 15, 21  # font size and line height, px
INK, FAINT = "#202020", "#606060"
_TITLE, _TITLE_LINE = 22, 29  # font size and line height of the title, px
_SPACE = 18  # px below an entry
_BAR = (160, 12)  # width and height of the colour scale, px
_DPI = 64  # a power of two: sizes in inches are then exact


@dataclass(frozen=True, slots=True)
class Panel:
    """One column of an entry: an image, or words in its place."""

    image: np.ndarray | None = None  # (h, w, 3) uint8, at most `SIDE` high and wide
    words: str = ""  # shown where there is no image
    caption: tuple[str, ...] = ()  # lines below the image; the first is bold


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of a sheet. It may have fewer panels than the sheet has columns."""

    panels: tuple[Panel, ...]
    caption: tuple[str, ...]  # lines below the first panels that have no caption of their own


def fit_panel(
    image: np.ndarray, score_map: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Scale picture, map and mask to one size that fits a panel, so that they stay aligned.

    Args:
        image: (H, W, 3) uint8.
        score_map: (H, W) float in 0..1.
        mask: (H, W) bool, or None.

    Returns:
        (h, w, 3) uint8, (h, w) float and (h, w) bool, at most `SIDE` high and wide. Small
        pictures are enlarged by a whole number. The mask is None where nothing is marked.
    """
    small, small_map, _ = shrink(image, score_map, (), max_side=SIDE)
    zoom = max(1, SIDE // max(small.shape[:2]))
    small, small_map = (each.repeat(zoom, 0).repeat(zoom, 1) for each in (small, small_map))
    if mask is None or not mask.any():
        return small, small_map, None
    return small, small_map, shrink_mask(mask, small.shape[:2])


def shrink_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the mask at another size; a pixel that covers any of the defect is marked."""
    if mask.shape == size:
        return mask
    shares = Image.fromarray(mask.astype(np.float32))
    return np.asarray(shares.resize((size[1], size[0]), Image.Resampling.BOX)) > 0


def outlined(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return a copy with a white and a black line around the defect, outside it.

    Args:
        image: (h, w, 3) uint8.
        mask: (h, w) bool; None draws no line.
    """
    out = image.copy()
    if mask is None:
        return out
    square = np.ones((3, 3), dtype=bool)
    near = ndimage.binary_dilation(mask, square)
    out[ndimage.binary_dilation(near, square) & ~near] = 0
    out[near & ~mask] = 255
    return out


def picture_panels(
    image: np.ndarray, score_map: np.ndarray, mask: np.ndarray | None
) -> tuple[Panel, ...]:
    """Return the panels picture, map over the picture, and outlined defect, all of one size."""
    small, small_map, small_mask = fit_panel(image, score_map, mask)
    images = small, overlay(small, small_map), outlined(small, small_mask)
    return tuple(Panel(each) for each in images)


def draw_sheet(
    title: str,
    about: str,
    columns: Sequence[str],
    entries: Sequence[Entry],
    *,
    beside: int = 1,
) -> np.ndarray:
    """Draw all entries, row by row: (H, W, 3) uint8. Long texts are broken into lines, never cut.

    Args:
        title: of the sheet.
        about: explanation below the title.
        columns: names of the panels of an entry.
        entries: at least one.
        beside: most entries in a row.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    canvas, across = _Canvas(), min(beside, len(entries))
    step = _width(len(columns)) + GUTTER
    lefts = [MARGIN + number * step for number in range(across)]
    width = 2 * MARGIN + across * step - GUTTER
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # they are drawn as boxes
        top = _heading(canvas, title, about, width)
        heads = [wrapped(name, SIDE, bold=True) for name in columns]
        for left in lefts:
            for place, lines in enumerate(heads):
                canvas.text(lines, left + place * (SIDE + GAP), top, bold=True)
        top += max(map(len, heads)) * LINE + 6
        for start in range(0, len(entries), across):
            row = zip(lefts, entries[start : start + across], strict=False)
            bottom = max(_entry(canvas, each, len(columns), left, top) for left, each in row)
            top = bottom + _SPACE
        return canvas.render(width, top - _SPACE + MARGIN)


def wrapped(text: str, width: float, *, size: int = TEXT, bold: bool = False) -> list[str]:
    """Break a text into lines of at most `width` px, between words, and long words within."""
    text = as_unicode(text)
    fitting = 1.2 * len(text) * width / max(1.0, _text_width(text, size, bold))
    letters = max(1, min(len(text), int(fitting)))  # at most of a line, by their mean width
    while True:
        lines = textwrap.wrap(text, letters) or [""]
        if letters == 1 or all(_text_width(line, size, bold) <= width for line in lines):
            return lines
        letters -= 1


def as_unicode(text: str) -> str:
    """Return the text with question marks in place of what some file names have beyond Unicode."""
    return text.encode(errors="replace").decode()


@dataclass(slots=True)
class _Canvas:
    """Images and lines of text, placed in pixels from the upper left corner."""

    images: list[tuple[np.ndarray, int, int]] = field(default_factory=list)
    texts: list[tuple[str, int, int, dict[str, Any]]] = field(default_factory=list)

    def image(self, image: np.ndarray, left: int, top: int) -> int:
        """Place an image and return its bottom edge."""
        self.images.append((image, left, top))
        return top + len(image)

    def text(
        self, lines: Sequence[str], left: int, top: int, *,
        color: str = INK, size: int = TEXT, line: int = LINE, bold: bool = False,
    ) -> int:  # fmt: skip
        """Place lines of text and return their bottom edge."""
        look = {"color": color, "font": _font(size, bold)}
        for number, words in enumerate(lines):
            self.texts.append((words, left, top + number * line + size, look))
        return top + len(lines) * line

    def render(self, width: int, height: int) -> np.ndarray:
        """Return the sheet: (height, width, 3) uint8."""
        canvas = _figure(width, height)
        for image, left, top in self.images:
            canvas.figure.figimage(image, left, height - top - len(image), origin="upper")
        for words, left, baseline, look in self.texts:
            place = left, height - baseline
            canvas.figure.text(*place, words, transform=None, parse_math=False, **look)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _heading(canvas: _Canvas, title: str, about: str, width: int) -> int:
    """Place title, explanation and, at the upper right, the colour scale."""
    digit = round(_text_width("0", TEXT, False))
    right = width - MARGIN - digit
    left = right - 6 - _BAR[0]
    canvas.image(np.rot90(colour_bar(_BAR[0], width=_BAR[1]), -1), left, MARGIN)  # 0 on the left
    canvas.text(["0"], left - 6 - digit, MARGIN - 3, color=FAINT)
    canvas.text(["1"], right, MARGIN - 3, color=FAINT)
    titles = wrapped(title, left - 6 - digit - 2 * MARGIN, size=_TITLE, bold=True)
    look = {"size": _TITLE, "line": _TITLE_LINE, "bold": True}
    top = canvas.text(titles, MARGIN, MARGIN - 6, **look)  # type: ignore[arg-type]
    return canvas.text(wrapped(about, width - 2 * MARGIN), MARGIN, top + 4, color=FAINT) + 10


def _entry(canvas: _Canvas, entry: Entry, columns: int, left: int, top: int) -> int:
    """Place an entry and return its bottom edge."""
    places = [left + number * (SIDE + GAP) for number in range(len(entry.panels))]
    below = top
    for number, (panel, place) in enumerate(zip(entry.panels, places, strict=True), start=1):
        if panel.image is not None:
            below = max(below, canvas.image(panel.image, place, top))
            continue
        room = SIDE if number < len(entry.panels) else _width(columns - number + 1)
        below = max(below, canvas.text(wrapped(panel.words, room), place, top, color=FAINT))
    bottom, free = below, columns
    for number, (panel, place) in enumerate(zip(entry.panels, places, strict=True)):
        if panel.caption:
            free = min(free, max(1, number))
            end = canvas.text(panel.caption[:1], place, below + 4, bold=True)
            bottom = max(bottom, canvas.text(panel.caption[1:], place, end, color=FAINT))
    end = below + 4
    for number, line in enumerate(entry.caption):
        lines = wrapped(line, _width(free))
        end = canvas.text(lines, left, end, color=FAINT if number else INK)
    return max(bottom, end)


def _width(columns: int) -> int:
    return columns * (SIDE + GAP) - GAP


def _text_width(text: str, size: int, bold: bool) -> float:
    width, _, _ = _renderer().get_text_width_height_descent(text, _font(size, bold), ismath=False)
    return float(width)


@cache
def _renderer() -> Any:
    return _figure(1, 1).get_renderer()


def _figure(width: int, height: int) -> Any:
    """Return the canvas of a new figure of this size in pixels."""
    agg = load_extra("figures", "matplotlib.backends.backend_agg")
    figure = load_extra("figures", "matplotlib.figure").Figure
    size = (width / _DPI, height / _DPI)
    return agg.FigureCanvasAgg(figure(figsize=size, dpi=_DPI, facecolor="white"))


@cache
def _font(size: int, bold: bool) -> Any:
    manager = load_extra("figures", "matplotlib.font_manager")
    weight = "bold" if bold else "normal"
    return manager.FontProperties(family="DejaVu Sans", weight=weight, size=size * 72 / _DPI)
