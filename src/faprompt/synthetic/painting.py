"""Parts of a painted picture: colours, lines, boxes, letters, and the finished content."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.synthetic.canvas import Canvas, Span, below

TAU = 2 * math.pi
Value = Tensor | float


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


def mix(field: Tensor, other: Value, share: Tensor) -> Tensor:
    """Return `field` where the share is 0, `other` where it is 1."""
    return field + (other - field) * share


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


def in_cell(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the place of each pixel in its unit cell, -0.5..0.5 from the middle."""
    return u - u.floor() - 0.5, v - v.floor() - 0.5


def line_at(value: Tensor, place: Value, half: Value, soft: float = 0.012) -> Tensor:
    """Return 1 on a line of this half width, 0 off it."""
    return below((value - place).abs(), half - soft / 2, half + soft / 2)


def box(u: Tensor, v: Tensor, half_u: Value, half_v: Value, soft: float = 0.02) -> Tensor:
    """Return 1 inside an upright box around the origin."""
    return below(torch.maximum(u.abs() - half_u, v.abs() - half_v), -soft / 2, soft / 2)


def glyphs(canvas: Canvas, u: Tensor, v: Tensor) -> Tensor:
    """Draw text-like marks: one letter per unit, lines of unequal length, gaps between words."""
    column, row = u.floor(), v.floor()
    across, down = ((u - column) * 5).floor(), ((v - row) * 7).floor()
    bits = canvas.per_cell(across + column * 5, down + row * 7)
    length = canvas.per_cell(torch.zeros_like(column), row) * 10 + 3
    letter = (across < 4) & (down < 5) & (bits < 0.55)
    place = (column + 3 * row).remainder(12)
    return (letter & (place < length) & (place != 4)).float()


def round_box(u: Tensor, v: Tensor, half_u: Value, half_v: Value, corner: Value) -> Tensor:
    """Return the signed distance to a box with rounded corners around the origin."""
    du, dv = u.abs() - half_u + corner, v.abs() - half_v + corner
    outer = torch.hypot(du.clamp(min=0), dv.clamp(min=0))
    return outer + torch.maximum(du, dv).clamp(max=0) - corner


def fold(u: Tensor, v: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Fold polar coordinates into `count` equal sectors: angle from the middle, radius."""
    sector = TAU / count
    angle = torch.atan2(v, u)
    return (angle + sector / 2).remainder(sector) - sector / 2, torch.hypot(u, v)
