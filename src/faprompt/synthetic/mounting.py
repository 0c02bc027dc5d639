"""How a thing sits in its picture: seat, ground, material, outline, rim and shadow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.synthetic.content import Content, colour
from faprompt.synthetic.fields import Canvas, relief, smooth_step
from faprompt.synthetic.textures import TAU


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a thing sits: its own coordinates, about -1..1 over its body."""

    u: Tensor  # (n, size, size)
    v: Tensor
    scale: Tensor  # (n, 1, 1) physical half size
    own: Tensor  # (n, size, size) or (n, 1, 1), one random number per thing


def seat(canvas: Canvas, *, repeat: float = 0.25, turn: float = 1.0) -> Seat:
    """One thing somewhere near the middle (sometimes cut by the frame), or rows of equal things."""
    scale = canvas.uniform(0.45, 0.95) * torch.where(canvas.chance(0.15) > 0, 1.6, 1.0)
    angle = canvas.uniform(-math.pi, math.pi) * turn
    angle = torch.where(canvas.chance(0.5) > 0, angle, canvas.pick((0.0, TAU / 4)) + angle * 0.02)
    u, v = canvas.turned(angle, 1 / scale)
    u, v = u + canvas.uniform(-0.3, 0.3), v + canvas.uniform(-0.3, 0.3)
    if canvas.host.random() >= repeat:
        return Seat(u, v, scale, canvas.rand(canvas.count, 1, 1))
    pitch, many = canvas.uniform(2.15, 2.8), canvas.uniform(2.0, 4.5)
    u, v = u * many / pitch + 40, v * many / pitch + 40
    own = canvas.per_cell(u, v)
    u, v = (u - u.floor() - 0.5) * pitch, (v - v.floor() - 0.5) * pitch
    spin = (own - 0.5) * canvas.pick((0.0, 0.05, TAU))
    cos, sin = spin.cos(), spin.sin()
    return Seat(u * cos + v * sin, v * cos - u * sin, scale / many, own)


def ground_of(canvas: Canvas) -> Tensor:
    """(n, 3, size, size) a plain, cloudy or brushed ground."""
    field = 1 + canvas.noise((1, 4)) * canvas.uniform(0, 0.05)
    if canvas.maybe(0.5):
        field = field + canvas.fractal((2, 30), octaves=3) * canvas.uniform(0, 0.1)
    elif canvas.maybe(0.3):
        field = field + canvas.noise((40, 110), (1, 4)) * canvas.uniform(0, 0.08)
    return colour(canvas, (0.03, 0.95), vivid=0.4) * field[:, None]


def mount(
    canvas: Canvas,
    place: Seat,
    outside: Tensor,
    paint: Tensor,
    *,
    bevel: Tensor | float | None = None,
) -> Content:
    """Lay a painted body on a ground.

    Args:
        outside: (n, size, size) signed distance in the thing's own units, negative inside.
        paint: (n, 3, size, size) the body's colours before shading.
        bevel: width of the rounded rim in own units.
    """
    behind = ground_of(canvas)
    edge = canvas.pixel / place.scale * canvas.uniform(0.7, 1.6)
    body = 1 - smooth_step(outside, -edge, edge)
    rim = canvas.uniform(0.05, 0.6) if bevel is None else bevel
    height = (-outside / rim).clamp(0, 1)
    height = (height * (2 - height)) * rim * place.scale / canvas.pixel
    shade = 1 + relief(height, canvas.uniform(0, TAU)).clamp(-1.5, 1.5) * canvas.uniform(0.05, 0.3)
    reach = canvas.uniform(0.02, 0.2) / (1 + canvas.chance(0.5) * 2)
    shadow = smooth_step(-outside, -reach, 0.02) * canvas.uniform(0, 0.45)
    image = behind * (1 - shadow)[:, None]
    image = image + (paint * shade[:, None] - image) * body[:, None]
    return Content(image=image, ground=body, behind=behind)


def material(canvas: Canvas, light: tuple[float, float] = (0.3, 0.8), vivid: float = 0.4) -> Tensor:
    """(n, 3, size, size) material of a body: plain, rough or brushed."""
    field = 1 + canvas.noise((2, 8)) * canvas.uniform(0, 0.06)
    if canvas.maybe(0.5):
        field = field + canvas.fractal((6, 40), octaves=2) * canvas.uniform(0, 0.12)
    elif canvas.maybe(0.4):
        field = field + canvas.noise((30, 110), (1, 6)) * canvas.uniform(0, 0.12)
    return colour(canvas, light, vivid=vivid) * field[:, None]


def round_box(
    u: Tensor, v: Tensor, half_u: Tensor | float, half_v: Tensor | float, corner: Tensor | float
) -> Tensor:
    """Signed distance to a box with rounded corners around the origin."""
    du, dv = u.abs() - half_u + corner, v.abs() - half_v + corner
    return (
        torch.hypot(du.clamp(min=0), dv.clamp(min=0)) + torch.maximum(du, dv).clamp(max=0) - corner
    )


def fold(canvas: Canvas, u: Tensor, v: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Polar coordinates folded into one of `count` equal sectors: angle from its middle, radius."""
    sector = TAU / count
    angle = torch.atan2(v, u)
    return (angle + sector / 2).remainder(sector) - sector / 2, torch.hypot(u, v)
