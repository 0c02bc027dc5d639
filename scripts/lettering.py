"""Ink, paper and font of the pictures that these scripts draw with Pillow."""

from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

INK, FAINT, PAPER = (32, 32, 32), (96, 96, 96), (255, 255, 255)


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)
