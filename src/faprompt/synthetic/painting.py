"""Colours, letters, and the content that painters return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.synthetic.canvas import Canvas, Span
from faprompt.synthetic.fields import Value, mix


@dataclass(frozen=True, slots=True)
class Content:
    """Clean pictures of one kind of thing."""

    image: Tensor  # (n, c, size, size), about 0..1; c is 1 on a grey sheet, else 3
    ground: Tensor  # (n, size, size) in 0..1, where defects may lie
    behind: Tensor  # (n, c, size, size) or (n, c, 1, 1), seen where a part is missing

    def take(self, rows: Tensor) -> Content:
        """Return the pictures of these rows."""
        return Content(self.image[rows], self.ground[rows], self.behind[rows])


def colour(canvas: Canvas, light: Span, *, vivid: float = 0.35) -> Tensor:
    """Draw a colour (n, c, 1, 1) of this brightness; `vivid` bounds its distance from grey."""
    level = canvas.uniform(*light)[:, None]
    strength = canvas.rand(canvas.count, 1, 1, 1).square() * vivid
    if canvas.channels == 1:
        return level.clamp(0.01, 1)
    hue = canvas.rand(canvas.count, 3, 1, 1) * 2 - 1
    hue = hue - hue.mean(1, keepdim=True)
    return (level * (1 + strength * hue * 1.2)).clamp(0.01, 1)


def tint(field: Tensor, dark: Tensor, bright: Tensor) -> Tensor:
    """Colour a field: 0 and 1 become the two colours (n, c, 1, 1)."""
    return torch.addcmul(dark, field[:, None], bright - dark)


def blend(image: Tensor, over: Value, alpha: Tensor) -> Tensor:
    """Lay `over` on an image (n, c, size, size) where alpha (n, size, size) says so."""
    return mix(image, over, alpha[:, None])


def brighten(image: Tensor, step: Tensor, alpha: Tensor, *, vivid: Tensor | None = None) -> Tensor:
    """Brighten or darken by step, keeping the texture underneath."""
    change = (step * alpha)[:, None]
    return image + (change if vivid is None else change * vivid)


def texture(
    canvas: Canvas, field: Tensor, *, light: Span = (0.35, 0.75), vivid: float = 0.35
) -> Content:
    """Make a surface that fills the picture; `field` is its contrast, around 0."""
    middle = colour(canvas, light, vivid=vivid)
    dark = middle * canvas.uniform(0.35, 0.75)[:, None]
    return Content(middle * (1 + field[:, None]), canvas.full(1.0), dark)


Painter = Callable[[Canvas], Content]


def glyphs(canvas: Canvas, u: Tensor, v: Tensor) -> Tensor:
    """Draw text-like marks: one letter per unit, lines of unequal length, gaps between words."""
    column, row = u.floor(), v.floor()
    across, down = ((u - column) * 5).floor(), ((v - row) * 7).floor()
    bits = canvas.per_cell(across + column * 5, down + row * 7)
    length = canvas.per_cell(torch.zeros_like(column), row) * 10 + 3
    letter = (across < 4) & (down < 5) & (bits < 0.55)
    place = (column + 3 * row).remainder(12)
    return (letter & (place < length) & (place != 4)).float()
