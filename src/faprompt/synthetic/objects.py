"""Things on a ground, alone or in rows: outline, shading, parts, marks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.synthetic.canvas import TAU, Canvas
from faprompt.synthetic.fields import below, fold, in_cell, line_at, relief, round_box, smooth_step
from faprompt.synthetic.painting import Content, blend, colour, glyphs


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a thing sits: its own coordinates, about -1..1 over its body."""

    u: Tensor  # (n, size, size)
    v: Tensor
    scale: Tensor  # (n, 1, 1) physical half size


def seat(canvas: Canvas, *, repeat: float = 0.25, turn: float = 1.0) -> Seat:
    """Place one thing near the middle (sometimes cut by the frame), or rows of equal things."""
    scale = canvas.uniform(0.45, 0.95) * canvas.either(0.15, 1.6, 1.0)
    angle = canvas.uniform(-math.pi, math.pi) * turn
    angle = torch.where(canvas.chance(0.5) > 0, angle, canvas.pick((0.0, TAU / 4)) + angle * 0.02)
    u, v = canvas.turned(angle, 1 / scale)
    u, v = u + canvas.uniform(-0.3, 0.3), v + canvas.uniform(-0.3, 0.3)
    if canvas.host.random() >= repeat:
        canvas.rand(canvas.count, 1, 1)  # keeps the pictures of a seed as they are
        return Seat(u, v, scale)
    pitch, many = canvas.uniform(2.15, 2.8), canvas.uniform(2.0, 4.5)
    u, v = u * many / pitch + 40, v * many / pitch + 40
    spin = (canvas.per_cell(u, v) - 0.5) * canvas.pick((0.0, 0.05, TAU))
    u, v = (part * pitch for part in in_cell(u, v))
    cos, sin = spin.cos(), spin.sin()
    return Seat(u * cos + v * sin, v * cos - u * sin, scale / many)


def mount(
    canvas: Canvas,
    place: Seat,
    outside: Tensor,
    paint: Tensor,
    *,
    bevel: Tensor | float | None = None,
) -> Content:
    """Lay a painted body on a ground, with a shadow and a rim that is `bevel` wide.

    `outside` is the signed distance in the thing's own units, negative inside.
    """
    behind = _ground(canvas)
    edge = canvas.pixel / place.scale * canvas.uniform(0.7, 1.6)
    body = below(outside, -edge, edge)
    rim = canvas.uniform(0.05, 0.6) if bevel is None else bevel
    height = (-outside / rim).clamp(0, 1)
    height = (height * (2 - height)) * rim * place.scale / canvas.pixel
    shade = 1 + relief(height, canvas.uniform(0, TAU)).clamp(-1.5, 1.5) * canvas.uniform(0.05, 0.3)
    reach = canvas.uniform(0.02, 0.2) / (1 + canvas.chance(0.5) * 2)
    shadow = smooth_step(-outside, -reach, 0.02) * canvas.uniform(0, 0.45)
    image = behind * (1 - shadow)[:, None]
    return Content(blend(image, paint * shade[:, None], body), body, behind)


def _ground(canvas: Canvas) -> Tensor:
    """(n, 3, size, size) a plain, cloudy or brushed ground."""
    field = 1 + canvas.noise((1, 4)) * canvas.uniform(0, 0.05)
    if canvas.maybe(0.5):
        field = field + canvas.fractal((2, 30), octaves=3) * canvas.uniform(0, 0.1)
    elif canvas.maybe(0.3):
        field = field + canvas.noise((40, 110), (1, 4)) * canvas.uniform(0, 0.08)
    return colour(canvas, (0.03, 0.95), vivid=0.4) * field[:, None]


def _material(
    canvas: Canvas, light: tuple[float, float] = (0.3, 0.8), vivid: float = 0.4
) -> Tensor:
    """(n, 3, size, size) material of a body: plain, rough or brushed."""
    field = 1 + canvas.noise((2, 8)) * canvas.uniform(0, 0.06)
    if canvas.maybe(0.5):
        field = field + canvas.fractal((6, 40), octaves=2) * canvas.uniform(0, 0.12)
    elif canvas.maybe(0.4):
        field = field + canvas.noise((30, 110), (1, 6)) * canvas.uniform(0, 0.12)
    return colour(canvas, light, vivid=vivid) * field[:, None]


def plate(canvas: Canvas) -> Content:
    at = seat(canvas)
    half_v, corner = canvas.uniform(0.35, 0.95), canvas.uniform(0.02, 0.3)
    outside = round_box(at.u, at.v, 0.95, half_v, corner)
    size = canvas.uniform(0.06, 0.14)
    holes = torch.hypot(at.u.abs() - 0.72, at.v.abs() - (half_v - 0.22).clamp(min=0)) - size
    middle = torch.hypot(at.u, at.v) - half_v * canvas.uniform(0.2, 0.6)
    outside = canvas.either(0.7, torch.maximum(outside, -holes), outside)
    outside = canvas.either(0.4, torch.maximum(outside, -middle), outside)
    marks = glyphs(canvas, at.u * 9 + 40, at.v * 7 + 40) * (at.u.abs() < 0.5) * (at.v.abs() < 0.2)
    paint = _material(canvas)
    paint = paint * (1 - marks * canvas.uniform(0, 0.5) * canvas.chance(0.5))[:, None]
    return mount(canvas, at, outside, paint, bevel=canvas.uniform(0.02, 0.15))


def washer(canvas: Canvas) -> Content:
    at = seat(canvas)
    radius, inner = torch.hypot(at.u, at.v), canvas.uniform(0.3, 0.75)
    outside = torch.maximum(radius - 0.95, inner - radius)
    groove = line_at(radius, (0.95 + inner) / 2, 0.03) * canvas.uniform(0, 0.4) * canvas.chance(0.4)
    turned = (radius * canvas.uniform(40, 160)).sin() * canvas.uniform(0, 0.1)
    paint = _material(canvas) * (1 - groove + turned)[:, None]
    return mount(canvas, at, outside, paint, bevel=canvas.uniform(0.03, 0.3))


def nut(canvas: Canvas) -> Content:
    at = seat(canvas)
    angle, radius = fold(at.u, at.v, canvas.pick((4.0, 6.0, 6.0, 8.0)))
    inner = canvas.uniform(0.3, 0.55)
    outside = torch.maximum(radius * angle.cos() - 0.85, radius - 0.93)
    thread = (radius * 90).sin() * 0.25 * smooth_step(-radius, -inner - 0.12, -inner - 0.08)
    chamfer = smooth_step(radius, 0.78, 0.82) * canvas.uniform(-0.3, 0.2)
    paint = _material(canvas, vivid=0.15) * (1 + thread + chamfer)[:, None]
    return mount(canvas, at, torch.maximum(outside, inner - radius), paint, bevel=0.06)


def coin(canvas: Canvas) -> Content:
    at = seat(canvas)
    angle, radius = fold(at.u, at.v, canvas.pick((5.0, 6.0, 8.0, 12.0)))
    size = canvas.uniform(0.2, 0.4)
    petal = radius - size * (1 + 0.5 * (angle * canvas.pick((2.0, 4.0, 8.0))).cos())
    figure = smooth_step(-petal, -0.02, 0.02) * canvas.uniform(-0.4, 0.4)
    rings = line_at(radius, 0.82, 0.03) * canvas.uniform(-0.5, 0.3)
    rings = rings + line_at(radius, 0.55, 0.02) * -0.2
    beads = below(torch.hypot(angle * radius, radius - 0.7), 0.03, 0.06) * canvas.uniform(-0.5, 0.5)
    paint = _material(canvas) * (1 + figure + rings + beads)[:, None]
    return mount(canvas, at, radius - 0.95, paint, bevel=canvas.uniform(0.03, 0.2))


def bottle(canvas: Canvas) -> Content:
    """Paint a vessel from above: wall, neck, glints."""
    at = seat(canvas, repeat=0.1)
    radius = torch.hypot(at.u, at.v)
    wall, neck = canvas.uniform(0.7, 0.88), canvas.uniform(0.35, 0.6)
    paint = _material(canvas, (0.05, 0.5), 0.6)
    glass = colour(canvas, (0.2, 0.7), vivid=0.6)
    paint = blend(paint, glass, smooth_step(radius, wall - 0.03, wall + 0.03) * 0.8)
    paint = blend(paint, glass * 0.6, line_at(radius, neck, canvas.uniform(0.02, 0.06)) * 0.9)
    inside = below(radius, neck - 0.06, neck - 0.03) * 0.7
    paint = blend(paint, colour(canvas, (0.02, 0.95)), inside)
    angle = torch.atan2(at.v, at.u) + canvas.uniform(0, TAU)
    glint = smooth_step(angle.cos(), 0.8, 0.97) * line_at(radius, wall + 0.05, 0.05, 0.05)
    return mount(canvas, at, radius - 0.95, blend(paint, 0.95, glint * canvas.uniform(0, 0.8)))


def capsule(canvas: Canvas) -> Content:
    at = seat(canvas)
    outside = round_box(at.u, at.v, 0.95, 0.36, 0.355)
    split = canvas.uniform(-0.3, 0.3)
    half = smooth_step(at.u, split - 0.01, split + 0.01)
    paint = blend(_material(canvas, (0.3, 0.9), 0.7), _material(canvas, (0.2, 0.9), 0.7), half)
    paint = paint * (1 - 0.35 * line_at(at.u, split, 0.015))[:, None]
    marks = glyphs(canvas, at.u * 8 + 40, at.v * 5 + 40.5) * (at.v.abs() < 0.1) * (at.u.abs() < 0.6)
    gloss = line_at(at.v, canvas.uniform(-0.2, 0.2), 0.04, 0.06) * canvas.uniform(0, 0.4)
    paint = blend(paint * (1 - 0.5 * marks)[:, None], 1.0, gloss)
    return mount(canvas, at, outside, paint, bevel=0.36)


def biscuit(canvas: Canvas) -> Content:
    """Paint a lumpy natural thing: biscuit, nut kernel, pebble."""
    at = seat(canvas)
    radius = torch.hypot(at.u, at.v * canvas.uniform(1.0, 1.5))
    outside = radius - 0.88 + canvas.noise((1.5, 5)) * canvas.uniform(0.01, 0.08)
    spots = smooth_step(canvas.noise((10, 40)), 1.0, 1.6) * canvas.uniform(0, 0.4)
    crust = canvas.fractal((6, 30), octaves=3, gain=0.7) * canvas.uniform(0.03, 0.15)
    rim = smooth_step(radius, 0.5, 0.95) * canvas.uniform(0, 0.35)
    paint = colour(canvas, (0.35, 0.75), vivid=0.5) * (1 + crust - spots - rim)[:, None]
    return mount(canvas, at, outside, paint, bevel=canvas.uniform(0.2, 0.7))


def cable(canvas: Canvas) -> Content:
    """Paint a cable cut across: sheath, cores, strands."""
    at = seat(canvas, repeat=0.1)
    radius = torch.hypot(at.u, at.v)
    angle, _ = fold(at.u, at.v, torch.full_like(at.scale, 3.0))
    turn = torch.atan2(at.v, at.u)
    cu, cv = radius * angle.cos() - 0.44, radius * angle.sin()
    core = torch.hypot(cu, cv)
    which = ((turn / TAU * 3 + 0.5).floor().remainder(3) + 1) / 3
    strand = canvas.uniform(7, 12)
    far = torch.hypot((cu * strand).remainder(1.0) - 0.5, (cv * strand).remainder(1.0) - 0.5)
    wires = colour(canvas, (0.6, 0.95), vivid=0.5) * (1.1 - far)[:, None]
    tone = colour(canvas, (0.3, 0.8), vivid=0.8) * (0.5 + 0.7 * which)[:, None]
    paint = blend(_material(canvas, (0.2, 0.7)), 0.12, below(radius, 0.84, 0.86))
    paint = blend(paint, tone, below(core, 0.36, 0.38))
    paint = blend(paint, wires, below(core, 0.25, 0.27))
    return mount(canvas, at, radius - 0.97, paint, bevel=0.08)


def star(canvas: Canvas) -> Content:
    at = seat(canvas)
    angle, radius = fold(at.u, at.v, canvas.pick((3.0, 4.0, 5.0, 5.0, 6.0, 7.0)))
    depth = canvas.uniform(0.08, 0.35)
    sharp, lobed = angle.abs() * 1.2, 0.5 - 0.5 * (angle * 5).cos()
    reach = 0.92 - depth * canvas.either(0.5, sharp, lobed)
    bore = canvas.uniform(0.05, 0.25) * canvas.chance(0.5)
    outside = torch.maximum((radius - reach) * 0.85, bore - radius)
    return mount(canvas, at, outside, _material(canvas, vivid=0.6))


def rod(canvas: Canvas) -> Content:
    at = seat(canvas, turn=0.3)
    steps = canvas.per_cell((at.u * 2.5 + 40).floor(), torch.zeros_like(at.u)) * 0.25
    half = canvas.uniform(0.25, 0.5) - steps * canvas.chance(0.7)
    outside = torch.maximum(at.v.abs() - half, at.u.abs() - canvas.uniform(0.9, 1.8))
    across = (at.v / half.clamp(min=0.05)).clamp(-1, 1)
    light = line_at(across, canvas.uniform(-0.5, 0.5), 0.08, 0.2)
    gloss = (1 - across.square()).sqrt() * 0.7 + light * 0.4
    groove = line_at((at.u * canvas.uniform(1.5, 5)).remainder(1.0), 0.5, 0.04)
    groove = groove * canvas.chance(0.5) * 0.4
    paint = _material(canvas, vivid=0.15) * (0.3 + gloss - groove)[:, None]
    return mount(canvas, at, outside, paint, bevel=0.03)


def gear(canvas: Canvas) -> Content:
    at = seat(canvas)
    teeth = canvas.pick((10.0, 12.0, 16.0, 20.0, 24.0))
    angle, radius = fold(at.u, at.v, teeth)
    tooth = smooth_step((angle * teeth / TAU).abs(), 0.2, 0.3)
    outside = radius - 0.93 + tooth * canvas.uniform(0.08, 0.18)
    spoke, _ = fold(at.u, at.v, canvas.pick((3.0, 4.0, 5.0, 6.0)))
    window = torch.hypot(radius * spoke.sin(), radius * spoke.cos() - 0.48)
    window = window - canvas.uniform(0.08, 0.17)
    outside = canvas.either(0.6, torch.maximum(outside, -window), outside)
    outside = torch.maximum(outside, canvas.uniform(0.1, 0.25) - radius)
    return mount(canvas, at, outside, _material(canvas, vivid=0.2), bevel=0.05)


def pill(canvas: Canvas) -> Content:
    at = seat(canvas, repeat=0.4)
    long = canvas.uniform(0.5, 0.95)
    outside = round_box(at.u, at.v, 0.95, long, long - 0.01)
    line = line_at(at.u, 0.0, 0.02, 0.03) * canvas.chance(0.6) * 0.35
    marks = glyphs(canvas, at.u * 4 + 40.5, at.v * 3 + 40.4)
    marks = marks * (at.u.abs() < 0.5) * (at.v.abs() < 0.25)
    speckle = smooth_step(canvas.noise((30, 90)), 1.4, 2.0) * canvas.uniform(-0.3, 0.3)
    shade = 1 - line - marks * 0.25 + speckle * canvas.chance(0.4)
    paint = _material(canvas, (0.5, 0.95), 0.7) * shade[:, None]
    return mount(canvas, at, outside, paint, bevel=canvas.uniform(0.15, 0.5))


def screw(canvas: Canvas) -> Content:
    at = seat(canvas, turn=0.5, repeat=0.15)
    thick = canvas.uniform(0.14, 0.24)
    pitch = canvas.uniform(5, 10)
    ridge = (at.u * pitch + at.v * 0.8).remainder(1.0)
    point = ((0.95 - at.u) * 1.2).clamp(0, 1).sqrt()
    shaft = at.v.abs() - (thick + 0.05 * (ridge - 0.5).abs()) * point
    head = round_box(at.u + 0.8, at.v, 0.14, thick * canvas.uniform(1.7, 2.3), 0.06)
    outside = torch.minimum(torch.maximum(shaft, at.u.abs() - 0.95), head)
    across = (at.v / thick).clamp(-1, 1)
    gloss = 0.5 + 0.6 * (1 - across.square()).sqrt() + (ridge - 0.5) * 0.5 * (head > 0)
    return mount(canvas, at, outside, _material(canvas, vivid=0.2) * gloss[:, None], bevel=0.05)
