"""Pictures of a body in colour: skin close up, the inside of a bowel, the back of an eye."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from faprompt.synthetic.content import Content, colour
from faprompt.synthetic.fields import Canvas, smooth_step, soften
from faprompt.synthetic.strokes import stamp, to_pixels, walk
from faprompt.synthetic.textures import TAU, Painter


def skin(canvas: Canvas) -> Content:
    """Skin close up: pores, creases, hairs."""
    base = colour(canvas, (0.4, 0.85), vivid=0.05)
    tone = canvas.tone(1.12, 0.9, 0.8)
    u, v = canvas.turned(canvas.uniform(0, TAU), canvas.log_uniform(10, 30))
    _, border, _ = canvas.cells(u + 40, v + 40)
    crease = (1 - smooth_step(border, 0.0, 0.25)) * canvas.uniform(0, 0.12)
    field = 1 + canvas.fractal((1, 5)) * canvas.uniform(0.02, 0.08) - crease
    hair = _hairs(canvas) * canvas.uniform(0.2, 0.8) * canvas.chance(0.5)
    image = base * tone * (field * (1 - hair))[:, None]
    whole = torch.ones_like(field)
    return Content(image=image, ground=whole, behind=base * tone * 0.6)


def _hairs(canvas: Canvas) -> Tensor:
    sheet = torch.zeros(canvas.count, canvas.size, canvas.size, device=canvas.device)
    heading = canvas.uniform(0, TAU)[:, 0]
    for _ in range(5):
        start = canvas.rand(canvas.count, 2) * canvas.size
        length = (0.2 + 0.6 * canvas.rand(canvas.count, 1)) * canvas.size
        lean = heading + canvas.randn(canvas.count, 1) * 0.4
        points, _ = walk(
            canvas, start, lean, length, wiggle=torch.zeros_like(length) + 0.03,
            bend=canvas.randn(canvas.count, 1) * 0.6,
        )  # fmt: skip
        width = 0.5 + 0.5 * canvas.rand(canvas.count, 1).expand(-1, 256)
        sheet = torch.maximum(sheet, stamp(canvas, points, width, torch.ones_like(width), reach=2))
    return sheet


def bowel(canvas: Canvas) -> Content:
    """Inside of a tube: dark opening, ring folds, wet glints, vessels."""
    cx, cy = canvas.uniform(-0.4, 0.4), canvas.uniform(-0.4, 0.4)
    u, v = canvas.x - cx, canvas.y - cy
    radius = torch.hypot(u, v) + 0.12 * canvas.noise((1, 4))
    light = smooth_step(radius, 0.05, canvas.uniform(0.4, 0.9)) * 0.75 + 0.15
    fold = (
        (radius + 0.15).clamp(min=0.02).log() * canvas.uniform(6, 14) + canvas.noise((1, 3)) * 0.6
    ).sin()
    field = light * (
        1 + fold * canvas.uniform(0.03, 0.2) + 0.08 * canvas.fractal((2, 6), octaves=3)
    )
    vessel = 1 - smooth_step(canvas.fractal((2, 5), octaves=3).abs(), 0.0, 0.08)
    wet = smooth_step(canvas.noise((12, 30)), 1.7, 2.1) * smooth_step(fold, 0.2, 0.9)
    tone = canvas.tone(1.15, 0.68, 0.55)
    red = canvas.tone(0.95, 0.7, 0.7)
    image = field[:, None] * tone * colour(canvas, (0.6, 0.95), vivid=0.15)
    image = image * (1 + (red - 1) * (vessel * canvas.uniform(0, 0.8))[:, None])
    image = image + (0.95 - image) * (wet * canvas.uniform(0, 0.9))[:, None]
    corner = smooth_step((canvas.x / canvas.wide).abs() + (canvas.y / canvas.tall).abs(), 1.5, 1.56)
    inside = 1 - corner * canvas.chance(0.5)
    return Content(
        image=image * inside[:, None],
        ground=inside * smooth_step(radius, 0.2, 0.3),
        behind=image * 0.3,
    )


def eye(canvas: Canvas) -> Content:
    """The back of an eye: orange disc, bright nerve head, branching vessels, darker spot."""
    u, v = canvas.x / canvas.wide * 1.08, canvas.y / canvas.tall * 1.08
    radius = torch.hypot(u, v)
    inside = 1 - smooth_step(radius, 0.98, 1.01)
    side = canvas.sign()
    cx, cy = side * canvas.uniform(0.3, 0.5), canvas.uniform(-0.1, 0.1)
    nerve = torch.hypot(u - cx, v - cy)
    field = 0.62 - 0.25 * radius.square() + 0.04 * canvas.fractal((2, 8))
    field = field - 0.22 * torch.exp(-(torch.hypot(u + cx * 0.35, v - cy) / 0.16).square())
    vessel = soften(_vessels(canvas, cx, cy), 1)
    tone = canvas.tone(1.25, 0.72, 0.36)
    image = field[:, None] * tone * colour(canvas, (0.75, 1.1), vivid=0.15)
    disc = (1 - smooth_step(nerve, 0.13, 0.16)) * 0.8
    yellow = canvas.tone(1.0, 0.88, 0.6)
    image = image + (yellow - image) * disc[:, None]
    image = image * (1 - 0.5 * vessel)[:, None]
    return Content(
        image=image * inside[:, None],
        ground=(1 - smooth_step(radius, 0.85, 0.9)),
        behind=image * 0.3,
    )


def _vessels(canvas: Canvas, cx: Tensor, cy: Tensor) -> Tensor:
    sheet = torch.zeros(canvas.count, canvas.size, canvas.size, device=canvas.device)
    start = to_pixels(
        canvas, cx[:, 0] / 1.08 * canvas.wide[:, 0], cy[:, 0] / 1.08 * canvas.tall[:, 0]
    )[:, 0]
    toward = torch.where(cx[:, 0] > 0, math.pi, 0.0)
    for order in range(8):
        up = 1.0 if order % 2 else -1.0
        heading = toward + up * (0.5 + canvas.rand(canvas.count, 1) * 1.9)
        length = (0.4 + 0.45 * canvas.rand(canvas.count, 1)) * canvas.size
        away = torch.where(toward > 1, 1.0, -1.0) * up
        points, _ = walk(
            canvas, start, heading, length, wiggle=torch.zeros_like(length) + 0.25,
            bend=away * canvas.rand(canvas.count, 1) * 1.2,
        )  # fmt: skip
        width = torch.linspace(1.9, 0.4, 256, device=canvas.device).expand(canvas.count, -1)
        sheet = torch.maximum(sheet, stamp(canvas, points, width, torch.ones_like(width), reach=3))
    return sheet


SCOPES: dict[str, Painter] = {painter.__name__: painter for painter in (skin, bowel, eye)}
