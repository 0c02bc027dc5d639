"""What all painters share: colours, letters, and places of defects.

A defect's strength is measured against the local texture: on rough ground it is stronger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.synthetic.canvas import TAU, Canvas, Span, to_pixels
from faprompt.synthetic.fields import Value, below, mix, soften

LEAST_ALPHA = 0.04  # fainter traces of a defect are wiped away
MASK_ALPHA = 0.3  # from here on a pixel counts as defective


@dataclass(frozen=True, slots=True)
class Content:
    """Clean pictures of one kind of thing."""

    image: Tensor  # (n, c, size, size), about 0..1; c is 1 on a grey sheet, else 3
    ground: Tensor  # (n, size, size) in 0..1, where defects may lie
    behind: Tensor  # (n, c, size, size) or (n, c, 1, 1), seen where a part is missing

    def take(self, rows: Tensor) -> Content:
        """Return the pictures of these rows."""
        return Content(self.image[rows], self.ground[rows], self.behind[rows])


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a defect goes and what is around it."""

    x: Tensor  # (n, 1, 1) physical
    y: Tensor
    room: Tensor  # (n, 1, 1) physical radius that the thing offers
    rough: Tensor  # (n, 1, 1) local standard deviation of brightness
    level: Tensor  # (n, 1, 1) local brightness


Painter = Callable[[Canvas], Content]
Damage = tuple[Tensor, Tensor]  # changed image (n, 3, s, s), alpha (n, s, s)
Maker = Callable[[Canvas, Content, Spot], Damage]


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


def glyphs(canvas: Canvas, u: Tensor, v: Tensor) -> Tensor:
    """Draw text-like marks: one letter per unit, lines of unequal length, gaps between words."""
    column, row = u.floor(), v.floor()
    across, down = ((u - column) * 5).floor(), ((v - row) * 7).floor()
    bits = canvas.per_cell(across + column * 5, down + row * 7)
    length = canvas.per_cell(torch.zeros_like(column), row) * 10 + 3
    letter = (across < 4) & (down < 5) & (bits < 0.55)
    place = (column + 3 * row).remainder(12)
    return (letter & (place < length) & (place != 4)).float()


def find_spot(canvas: Canvas, content: Content, *, at_edge: float = 0.0) -> Spot:
    """Choose the best of a few places on the thing; `at_edge` is the share at its outline."""
    coarse = max(canvas.size // 60, 1)
    grey = content.image.mean(1, keepdim=True)
    fields = F.avg_pool2d(torch.cat((content.ground[:, None], grey, grey * grey), 1), coarse)
    solid = soften(fields[:, 0], 1).flatten(1)
    around = soften(fields[:, 1:], 3).flatten(2)
    side = fields.shape[-1]
    tries = (canvas.rand(canvas.count, 12) * side * side).long().clamp(max=side * side - 1)
    inside = tries.gather(1, solid.gather(1, tries).clamp(max=0.9).argmax(1, keepdim=True))
    lost = solid.gather(1, inside) < 0.3  # the thing is small, and all tries missed it
    index = torch.where(lost, solid.argmax(1, keepdim=True), inside)
    if at_edge > 0:
        outline = canvas.rand(*solid.shape) * 0.2 - (solid - 0.6).abs()
        wanted = canvas.chance(at_edge)[:, 0] > 0
        index = torch.where(wanted, outline.argmax(1, keepdim=True), index)
    mean, power = around.gather(2, index[:, None].expand(-1, 2, -1)).unbind(1)
    rough = (power - mean * mean).clamp(min=0).sqrt()
    column, row = (index % side).float(), (index // side).float()
    jitter = canvas.rand(canvas.count, 2)
    x = ((column + jitter[:, :1]) / side * 2 - 1)[..., None] * canvas.wide
    y = ((row + jitter[:, 1:]) / side * 2 - 1)[..., None] * canvas.tall
    room = content.ground.mean((1, 2)).reshape(-1, 1, 1).clamp(min=0.01).sqrt()
    return Spot(x, y, room, rough[..., None], mean[..., None])


def contrast(canvas: Canvas, spot: Spot, least: float = 1.2, most: float = 5.0) -> Tensor:
    """Draw a brightness step: a multiple of the local deviation, never too faint to see."""
    step = spot.rough.clamp(min=0.015) * canvas.log_uniform(least, most)
    return torch.maximum(step, canvas.log_uniform(0.06, 0.25) * (0.4 + spot.level)).clamp(max=0.8)


def region(
    canvas: Canvas,
    spot: Spot,
    radius: Tensor,
    *,
    ragged: float = 0.5,
    soft: tuple[float, float] = (0.05, 0.3),
) -> Tensor:
    """Draw a lumpy patch (n, size, size) around the spot; the radius is physical."""
    long, angle = canvas.log_uniform(0.6, 1.7), canvas.uniform(0, TAU)
    dx, dy = canvas.x - spot.x, canvas.y - spot.y
    cos, sin = angle.cos(), angle.sin()
    far = torch.hypot((dx * cos + dy * sin) * long, (dy * cos - dx * sin) / long) / radius
    near = (far < 3).float()
    lumps = canvas.noise((2, 10)) * 0.6 + canvas.noise((10, 40)) * 0.25
    edge = canvas.uniform(*soft)
    return below(far + lumps * canvas.uniform(0, ragged) * near, 1 - edge, 1 + edge)


def size_of(canvas: Canvas, spot: Spot, least: float, most: float) -> Tensor:
    """Draw a physical radius, at most the room on the thing."""
    radius = canvas.log_uniform(least, most)
    return torch.minimum(radius, spot.room * 0.6).clamp(min=3.0 * canvas.pixel)


def start_of(canvas: Canvas, spot: Spot) -> Tensor:
    """Return the spot in pixels, (n, 2)."""
    return to_pixels(canvas, spot.x[:, 0], spot.y[:, 0])[:, 0]
