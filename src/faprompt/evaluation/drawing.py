"""What contact sheets are drawn with: pictures made to fit, outlines, lettering, the scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from faprompt.imaging import colour_bar, shrink

SIDE = 224  # pixels of the longer side of a panel
INK, FAINT, PAPER = (32, 32, 32), (96, 96, 96), (255, 255, 255)
MARGIN, GAP = 24, 8  # pixels round the sheet, and between panels

_OUTLINE = ((255, 255, 255), (0, 0, 0))  # white with black around it, as the boxes of overlays
_LARGER = 8  # letters of a title than those below it
_BAR = (160, 12)  # width and height of the colour scale


def fit(
    image: np.ndarray, score_map: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Picture, map and mask made one size that fits a panel, so that they stay aligned.

    Args:
        image: (H, W, 3) uint8. score_map: (H, W) float in 0..1. mask: (H, W) bool, or None.

    Returns:
        (h, w, 3) uint8, (h, w) float and (h, w) bool or None, at most `SIDE` high and wide.
        Small pictures are enlarged by a whole number. None also for a mask without a defect.
    """
    small, small_map, _ = shrink(image, score_map, (), max_side=SIDE)
    zoom = max(1, SIDE // max(small.shape[:2]))
    small, small_map = _zoomed(small, zoom), _zoomed(small_map, zoom)
    marked = mask is not None and mask.any()
    return small, small_map, shrink_mask(mask, small.shape[:2]) if marked else None  # type: ignore[arg-type]


def shrink_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask at another size; a pixel that holds any of the defect is part of it."""
    if mask.shape == size:
        return mask
    shares = Image.fromarray(mask.astype(np.float32))
    return np.asarray(shares.resize((size[1], size[0]), Image.Resampling.BOX)) > 0


def outlined(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """A copy with a line around the defect, outside it; at the border it falls away.

    Args:
        image: (h, w, 3) uint8. mask: (h, w) bool; None gives the copy alone.
    """
    out = image.copy()
    if mask is None:
        return out
    square = np.ones((3, 3), dtype=bool)
    near = ndimage.binary_dilation(mask, square)
    far = ndimage.binary_dilation(near, square)
    for ring, colour in ((near & ~mask, _OUTLINE[0]), (far & ~near, _OUTLINE[1])):
        out[ring] = colour
    return out


@dataclass(frozen=True, slots=True)
class Heading:
    """Title, explanation below it, and the colour scale from 0 to 1 at the upper right.

    `title` and `about` are lines that fit; `text` and `line` are the size of letters and the
    height of a line, in pixels.
    """

    title: tuple[str, ...]
    about: tuple[str, ...]
    text: int
    line: int

    @classmethod
    def fitted(cls, title: str, about: str, width: int, *, text: int, line: int) -> Heading:
        """A heading of a sheet of this width, broken into lines where it is too long."""
        digit = font(text).getlength("0")
        room = width - 2 * MARGIN - _BAR[0] - 2 * (digit + 6) - MARGIN
        titles = wrapped(title, room, size=text + _LARGER, bold=True)
        return cls(tuple(titles), tuple(wrapped(about, width - 2 * MARGIN, size=text)), text, line)

    @property
    def height(self) -> int:
        """Pixels from the top of the sheet to below the explanation."""
        return self._about_top + 6 + self.line * len(self.about)

    def draw(self, sheet: Image.Image) -> None:
        """Onto the top of a sheet."""
        draw = ImageDraw.Draw(sheet)
        large, small = font(self.text + _LARGER, bold=True), font(self.text)
        for number, words in enumerate(self.title):
            draw.text((MARGIN, MARGIN - 6 + number * self._title_line), words, INK, large)
        for number, words in enumerate(self.about):
            draw.text((MARGIN, self._about_top + number * self.line), words, FAINT, small)
        bar = np.rot90(colour_bar(_BAR[0], width=_BAR[1]), -1)  # 0 on the left
        right, digit = sheet.width - MARGIN, small.getlength("0")
        x, y = int(right - digit - 6 - _BAR[0]), MARGIN
        sheet.paste(Image.fromarray(np.ascontiguousarray(bar)), (x, y))
        draw.text((x - 6 - digit, y - 3), "0", FAINT, small)
        draw.text((right - digit, y - 3), "1", FAINT, small)

    @property
    def _title_line(self) -> int:
        return self.line + _LARGER

    @property
    def _about_top(self) -> int:
        one = MARGIN + self.text + _LARGER + 6
        return one + (len(self.title) - 1) * self._title_line


def as_unicode(text: str) -> str:
    """Return the text with question marks for what is no Unicode, as in some file names."""
    return text.encode(errors="replace").decode()


def fitting(text: str, width: float, *, cut: int, size: int) -> str:
    """The text, cut off at its beginning (0) or its end (-1) where it is too wide."""
    letters = list(as_unicode(text))
    shown = "".join(letters)
    while len(letters) > 1 and font(size).getlength(shown) > width:
        del letters[cut]
        shown = "…" + "".join(letters) if cut == 0 else "".join(letters) + "…"
    return shown


def wrapped(text: str, width: float, *, size: int, bold: bool = False) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words, long words within."""
    face, lines = font(size, bold=bold), [""]
    for word in as_unicode(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and face.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


@lru_cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of matplotlib, which every machine with this project has."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def _zoomed(array: np.ndarray, zoom: int) -> np.ndarray:
    return array.repeat(zoom, axis=0).repeat(zoom, axis=1)
