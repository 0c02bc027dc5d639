"""Pictures of a body: grey scans, skin close up, the inside of a bowel, the back of an eye."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from faprompt.synthetic.canvas import TAU, Canvas, stamp, to_pixels, walk
from faprompt.synthetic.fields import below, line_at, mix, smooth_step, soften
from faprompt.synthetic.painting import Content, blend, colour, glyphs


def _mirror(field: Tensor, canvas: Canvas) -> Tensor:
    """Make a field nearly the same left and right."""
    half = torch.where(canvas.x < 0, field, field.flip(-1))
    return half * 0.85 + field * 0.15


def _body(canvas: Canvas, wide: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Coordinates of an upright oval body, 1 at its border; slightly lumpy, slightly off centre."""
    turn = canvas.uniform(-0.08, 0.08)
    u, v = canvas.turned(turn, 1 / canvas.uniform(0.75, 1.08))
    u = u / canvas.wide + canvas.uniform(-0.06, 0.06)
    v = v / canvas.tall + canvas.uniform(-0.06, 0.06)
    lump = 1 + 0.025 * canvas.noise((1, 3))
    return u / canvas.uniform(*wide) * lump, v * lump


def _finish(canvas: Canvas, field: Tensor, inside: Tensor, ground: Tensor) -> Content:
    """Add speckle and haze, and at the edge of some scans letters and a frame."""
    speckle = 1 + canvas.grain(0.0, 0.10)
    image = field * speckle * inside + canvas.uniform(0, 0.07) * canvas.chance(0.4)
    u, v = canvas.x / canvas.wide, canvas.y / canvas.tall
    bright = canvas.uniform(0.5, 1)
    if canvas.maybe(0.08):
        image = torch.maximum(image, (torch.maximum(u.abs(), v.abs()) > 0.975) * bright)
    if not canvas.maybe(0.7):
        fine = canvas.uniform(12, 20)
        letters = glyphs(canvas, canvas.x * fine + 80, canvas.y * fine * 0.8 + 80)
        corner = (v.abs() > 0.86) * (u * canvas.sign() > canvas.uniform(0.4, 0.8))
        image = torch.maximum(image, letters * corner * bright)
    dark = torch.full((canvas.count, 1, 1, 1), 0.03)
    return Content(image[:, None].expand(-1, canvas.channels, -1, -1), ground, dark)


def head_scan(canvas: Canvas) -> Content:
    """Paint scalp, skull, folded cortex, ventricles, midline; several weightings."""
    u, v = _body(canvas, (0.70, 0.92))
    radius = torch.hypot(u, v)
    rim = canvas.uniform(0.76, 0.90)  # where the brain ends
    tissue, fluid = canvas.uniform(0.22, 0.55), canvas.pick((0.05, 0.08, 0.12, 0.85, 0.95))
    field = tissue * (1 + _white_matter(canvas, rim - radius))
    field = field + (fluid - field) * _folds(canvas, u, v, radius / rim) * canvas.uniform(0.3, 1)
    field = mix(field, fluid, _ventricles(canvas, u, v))
    middle = line_at(u, 0.0, 0.008, 0.02)
    middle = middle * smooth_step(v.abs(), 0.15, 0.5) * canvas.uniform(0, 0.8)
    field = mix(field, canvas.pick((0.08, 0.8)), middle)
    uneven = _mirror(canvas.fractal((4, 16), octaves=3, gain=0.7), canvas)
    field = _skull(canvas, field + uneven * canvas.uniform(0.01, 0.1), radius, rim)
    inside = below(radius, 0.97, 1.0)
    return _finish(canvas, field.clamp(0, 1), inside, below(radius, rim - 0.1, rim - 0.05))


def _white_matter(canvas: Canvas, depth: Tensor) -> Tensor:
    fingers = _mirror(canvas.noise((4, 10)), canvas) * canvas.uniform(0.04, 0.14)
    inner = smooth_step(depth + fingers, 0.05, canvas.uniform(0.15, 0.4))
    return inner * canvas.uniform(-0.35, 0.4)


def _folds(canvas: Canvas, u: Tensor, v: Tensor, radius: Tensor) -> Tensor:
    """Sulci: thin lines that wind and run inwards, denser towards the surface."""
    wide = canvas.uniform(0.1, 0.45)
    coarse = below(_mirror(canvas.noise((6, 13)), canvas).abs(), 0.03, wide)
    winding = _mirror(canvas.noise((3, 9)), canvas)
    spokes = torch.atan2(v, u.abs() + 0.02) * canvas.uniform(5, 14)
    spokes = spokes + winding * canvas.uniform(0.5, 2)
    inward = below(spokes.sin().abs(), 0.04, wide)
    depth = canvas.uniform(0.45, 0.85) + 0.12 * _mirror(canvas.noise((5, 14)), canvas)
    inward = inward * smooth_step(radius, depth, depth + 0.1)
    outer = smooth_step(radius, canvas.uniform(0.2, 0.6), canvas.uniform(0.65, 0.95))
    return torch.maximum(coarse * canvas.uniform(0, 1) * outer, inward * canvas.uniform(0.3, 1))


def _skull(canvas: Canvas, field: Tensor, radius: Tensor, rim: Tensor) -> Tensor:
    """Fluid, bone and scalp around the brain, each with its own brightness."""
    lumpy, uneven = rim + 0.015 * canvas.noise((3, 14)), canvas.noise((2, 14))
    bone_from = rim + canvas.uniform(0.01, 0.04)
    scalp_from = bone_from + canvas.uniform(0.02, 0.5) * (0.97 - bone_from)
    bone, scalp = canvas.pick((0.03, 0.05, 0.08, 0.12, 0.95)), canvas.uniform(0.3, 1.0)
    layers = (
        (lumpy - 0.01, canvas.pick((0.06, 0.1, 0.9))),
        (bone_from, bone),
        (scalp_from + 0.01 * uneven, scalp * (1 + 0.15 * uneven)),
    )
    for start, tone in layers:
        field = mix(field, tone, smooth_step(radius, start - 0.012, start + 0.012))
    return field


def _ventricles(canvas: Canvas, u: Tensor, v: Tensor) -> Tensor:
    """Draw a butterfly in the middle, from slits to wide; some slices miss it."""
    bow, shift = canvas.uniform(0.1, 0.9), canvas.uniform(-0.12, 0.12)
    v = v - shift
    centre = 0.03 + bow * v.square()
    half = canvas.log_uniform(0.12, 0.42)
    width = canvas.uniform(0.015, 0.11) * (1 - (v / half).square()).clamp(min=0).sqrt()
    horns = below((u.abs() - centre).abs(), width - 0.02, width + 0.02)
    third = line_at(u, 0.0, 0.012, 0.02) * (v.abs() < half * 0.4) * canvas.chance(0.4)
    return torch.maximum(horns * (width > 0.01), third) * canvas.chance(0.85)


def body_scan(canvas: Canvas) -> Content:
    """Paint a slice through the trunk: fat, muscle, organs, spine."""
    u, v = _body(canvas, (1.05, 1.25))
    u, v = u * canvas.uniform(0.95, 1.2), v * canvas.uniform(1.1, 1.5)
    radius = torch.hypot(u, v)
    fat, soft = canvas.uniform(0.1, 0.35), canvas.uniform(0.35, 0.6)
    field = mix(fat, soft, below(radius, 0.84, 0.88))
    field = mix(field, fat * 1.1, below(radius, 0.72, 0.78) * canvas.chance(0.6))
    lumps = canvas.noise((2, 8))
    for order in range(7):
        cx, cy = canvas.uniform(-0.55, 0.55), canvas.uniform(-0.4, 0.3)
        size, long = canvas.uniform(0.1, 0.38), canvas.uniform(0.6, 1.6)
        organ = torch.hypot((u - cx) * long, (v - cy) / long)
        organ = organ + 0.05 * (lumps.flip(-1) if order % 2 else lumps)
        tone = canvas.uniform(0.3, 0.75)
        field = mix(field, tone, below(organ, size - 0.02, size + 0.02) * (radius < 0.78))
    field = mix(field, 0.92, below(torch.hypot(u, (v - 0.55) * 1.1), 0.13, 0.16))
    field = mix(field, 0.4, below(torch.hypot(u, v - 0.62), 0.04, 0.06))
    ribs = smooth_step((torch.atan2(v, u) * 9).cos(), 0.75, 0.9)
    field = mix(field, 0.9, ribs * line_at(radius, 0.81, 0.025, 0.02))
    field = field + canvas.fractal((6, 20), octaves=3) * 0.02
    inside = below(radius, 0.97, 1.0)
    return _finish(canvas, field.clamp(0, 1), inside, below(radius, 0.7, 0.75))


def chest_scan(canvas: Canvas) -> Content:
    """Paint a front view: two dark lungs, ribs, heart, collar bones."""
    u = canvas.x / canvas.wide * canvas.uniform(1.0, 1.2)
    v = canvas.y / canvas.tall * canvas.uniform(1.0, 1.2)
    side = u.abs() + 0.02 * canvas.noise((1, 4))
    lung_u = (side - 0.46) / canvas.uniform(0.27, 0.34)
    lung_v = (v + 0.02) / canvas.uniform(0.6, 0.78)
    lung = below(torch.hypot(lung_u, lung_v) + 0.12 * lung_v * lung_u, 0.9, 1.05)
    body, air = canvas.uniform(0.55, 0.8), canvas.uniform(0.12, 0.35)
    field = body - 0.25 * (side - 0.1).clamp(min=0) + (air - body) * lung
    ribs = ((v * canvas.uniform(9, 13) - 2.5 * side * side + canvas.uniform(0, 1)) * TAU / 2).sin()
    ribs = smooth_step(ribs, 0.4, 0.9) * canvas.uniform(0.04, 0.15)
    field = field + ribs * smooth_step(side, 0.1, 0.2)
    vessels = canvas.fractal((8, 20), octaves=3, gain=0.7).abs() * lung
    vessels = vessels * (1 - lung_u.abs()).clamp(min=0)
    field = field + vessels * canvas.uniform(0.03, 0.12)
    field = mix(field, body, below(torch.hypot((u - 0.12) / 0.32, (v - 0.3) / 0.3), 0.85, 1.05))
    collar = line_at(v + 0.62 - 0.25 * (side - 0.4), 0.0, 0.025, 0.02)
    field = field + collar * (side > 0.08) * (side < 0.75) * 0.15
    return _finish(canvas, field.clamp(0, 1), torch.ones_like(field), lung)


def ultrasound(canvas: Canvas) -> Content:
    """Paint a fan of speckle with layers and soft shadows."""
    u, v = canvas.x / canvas.wide, canvas.y / canvas.tall + 1.25
    radius, angle = torch.hypot(u, v), torch.atan2(u, v.expand_as(u + v))
    fan = smooth_step(radius, 0.28, 0.30) * below(radius, 2.1, 2.13)
    fan = fan * below(angle.abs(), 0.62, 0.64)
    whole = canvas.chance(0.5)
    inside = whole + (1 - whole) * fan
    depth = v + 0.15 * canvas.noise((1, 3))
    layers = (depth * canvas.uniform(4, 14)).sin() * smooth_step(-depth, -1.2, -0.4)
    layers = layers * canvas.uniform(0, 0.3)
    tissue = 0.35 + 0.12 * canvas.fractal((2, 6), octaves=3) + layers
    beams = 1 - 0.35 * smooth_step(canvas.noise((3, 10), (0.5, 1)), 0.3, 1.5)
    real, wave = canvas.noise((60, 110), (80, 120)), canvas.noise((60, 110), (80, 120))
    speckle = torch.hypot(real, wave) * canvas.uniform(0.5, 0.9) + 0.1
    field = tissue * beams * speckle.clamp(max=2.2) * canvas.uniform(0.8, 1.3)
    return _finish(canvas, field.clamp(0, 1), inside, inside * (radius > 0.45))


def skin(canvas: Canvas) -> Content:
    """Paint skin close up: pores, creases, hairs."""
    base = colour(canvas, (0.4, 0.85), vivid=0.05)
    tone = canvas.tone(1.12, 0.9, 0.8)
    u, v = canvas.turned(canvas.uniform(0, TAU), canvas.log_uniform(10, 30))
    _, border, _ = canvas.cells(u + 40, v + 40)
    crease = below(border, 0.0, 0.25) * canvas.uniform(0, 0.12)
    field = 1 + canvas.fractal((1, 5)) * canvas.uniform(0.02, 0.08) - crease
    hair = _hairs(canvas) * canvas.uniform(0.2, 0.8) * canvas.chance(0.5)
    image = base * tone * (field * (1 - hair))[:, None]
    return Content(image, torch.ones_like(field), base * tone * 0.6)


def _hairs(canvas: Canvas) -> Tensor:
    sheet = canvas.full(0.0)
    heading = canvas.uniform(0, TAU)[:, 0]
    for _ in range(5):
        start = canvas.rand(canvas.count, 2) * canvas.size
        length = (0.2 + 0.6 * canvas.rand(canvas.count, 1)) * canvas.size
        lean = heading + canvas.randn(canvas.count, 1) * 0.4
        wiggle, bend = torch.full_like(length, 0.03), canvas.randn(canvas.count, 1) * 0.6
        points, _ = walk(canvas, start, lean, length, wiggle=wiggle, bend=bend)
        width = 0.5 + 0.5 * canvas.rand(canvas.count, 1).expand(-1, 256)
        sheet = torch.maximum(sheet, stamp(canvas, points, width, torch.ones_like(width), reach=2))
    return sheet


def bowel(canvas: Canvas) -> Content:
    """Paint the inside of a tube: dark opening, ring folds, wet glints, vessels."""
    cx, cy = canvas.uniform(-0.4, 0.4), canvas.uniform(-0.4, 0.4)
    radius = torch.hypot(canvas.x - cx, canvas.y - cy) + 0.12 * canvas.noise((1, 4))
    light = smooth_step(radius, 0.05, canvas.uniform(0.4, 0.9)) * 0.75 + 0.15
    rings = (radius + 0.15).clamp(min=0.02).log() * canvas.uniform(6, 14)
    rings = (rings + canvas.noise((1, 3)) * 0.6).sin()
    uneven = 1 + rings * canvas.uniform(0.03, 0.2) + 0.08 * canvas.fractal((2, 6), octaves=3)
    field = light * uneven
    vessel = below(canvas.fractal((2, 5), octaves=3).abs(), 0.0, 0.08)
    wet = smooth_step(canvas.noise((12, 30)), 1.7, 2.1) * smooth_step(rings, 0.2, 0.9)
    tone = canvas.tone(1.15, 0.68, 0.55)
    red = canvas.tone(0.95, 0.7, 0.7)
    image = field[:, None] * tone * colour(canvas, (0.6, 0.95), vivid=0.15)
    image = image * (1 + (red - 1) * (vessel * canvas.uniform(0, 0.8))[:, None])
    image = blend(image, 0.95, wet * canvas.uniform(0, 0.9))
    corner = smooth_step((canvas.x / canvas.wide).abs() + (canvas.y / canvas.tall).abs(), 1.5, 1.56)
    inside = 1 - corner * canvas.chance(0.5)
    ground = inside * smooth_step(radius, 0.2, 0.3)
    return Content(image * inside[:, None], ground, image * 0.3)


def eye(canvas: Canvas) -> Content:
    """Paint the back of an eye: orange disc, bright nerve head, branching vessels, darker spot."""
    u, v = canvas.x / canvas.wide * 1.08, canvas.y / canvas.tall * 1.08
    radius = torch.hypot(u, v)
    side = canvas.sign()
    cx, cy = side * canvas.uniform(0.3, 0.5), canvas.uniform(-0.1, 0.1)
    field = 0.62 - 0.25 * radius.square() + 0.04 * canvas.fractal((2, 8))
    field = field - 0.22 * torch.exp(-(torch.hypot(u + cx * 0.35, v - cy) / 0.16).square())
    vessel = soften(_vessels(canvas, cx, cy), 1)
    tone = canvas.tone(1.25, 0.72, 0.36)
    image = field[:, None] * tone * colour(canvas, (0.75, 1.1), vivid=0.15)
    disc = below(torch.hypot(u - cx, v - cy), 0.13, 0.16) * 0.8
    image = blend(image, canvas.tone(1.0, 0.88, 0.6), disc)
    image = image * (1 - 0.5 * vessel)[:, None]
    inside = below(radius, 0.98, 1.01)
    return Content(image * inside[:, None], below(radius, 0.85, 0.9), image * 0.3)


def _vessels(canvas: Canvas, cx: Tensor, cy: Tensor) -> Tensor:
    sheet = canvas.full(0.0)
    x, y = cx[:, 0] / 1.08 * canvas.wide[:, 0], cy[:, 0] / 1.08 * canvas.tall[:, 0]
    start = to_pixels(canvas, x, y)[:, 0]
    toward = torch.where(cx[:, 0] > 0, math.pi, 0.0)
    for order in range(8):
        up = 1.0 if order % 2 else -1.0
        heading = toward + up * (0.5 + canvas.rand(canvas.count, 1) * 1.9)
        length = (0.4 + 0.45 * canvas.rand(canvas.count, 1)) * canvas.size
        away = torch.where(toward > 1, 1.0, -1.0) * up
        wiggle, bend = torch.full_like(length, 0.25), away * canvas.rand(canvas.count, 1) * 1.2
        points, _ = walk(canvas, start, heading, length, wiggle=wiggle, bend=bend)
        width = torch.linspace(1.9, 0.4, 256).expand(canvas.count, -1)
        sheet = torch.maximum(sheet, stamp(canvas, points, width, torch.ones_like(width), reach=3))
    return sheet
