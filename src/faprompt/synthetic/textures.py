"""What fills the whole picture: surfaces, and things laid out on a grid, such as boards."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from faprompt.synthetic.canvas import TAU, Canvas, stamp, walk
from faprompt.synthetic.fields import below, box, in_cell, line_at, mix, smooth_step, soften
from faprompt.synthetic.painting import Content, blend, colour, glyphs, texture, tint


def _slant(canvas: Canvas) -> Tensor:
    """Angles: mostly upright within a few degrees, sometimes any."""
    small = canvas.uniform(-0.06, 0.06)
    return torch.where(canvas.chance(0.4) > 0, canvas.uniform(0, TAU), small)


def _lattice(canvas: Canvas, fewest: float, most: float) -> tuple[Tensor, Tensor]:
    """Slanted coordinates with this many periods across the picture, slightly warped."""
    scale = canvas.log_uniform(fewest, most) / 2
    u, v = canvas.turned(_slant(canvas), scale)
    wobble = canvas.uniform(0, 0.12) * canvas.chance(0.6)
    return u + 40 + wobble * canvas.noise((1, 4)), v + 40 + wobble * canvas.noise((1, 4))


def brushed_metal(canvas: Canvas) -> Content:
    """Paint lengthwise brushing, full-length lines, streaks of gloss, bands, marks of handling."""
    hair = canvas.streaks((8, 60)) * canvas.uniform(0.02, 0.11)
    fine = canvas.noise((50, 120), (0.5, 8)) * canvas.uniform(0.0, 0.10)
    bands = canvas.noise((3, 25), (0.3, 2)) * canvas.uniform(0.02, 0.12)
    gloss = canvas.noise((0.7, 4), (0.5, 3))
    lines = (canvas.randn(canvas.count, 1, canvas.size).abs() - 1.7).clamp(min=0)
    lines = lines * (0.6 + gloss).clamp(min=0) * canvas.uniform(-0.1, 0.25)
    streak = (canvas.streaks((4, 30)) - 0.7).clamp(min=0) * smooth_step(gloss, -0.3, 2.0)
    field = hair + fine + bands + lines + streak * canvas.uniform(0.0, 0.45)
    if canvas.maybe(0.6):
        field = field + canvas.fractal((1.5, 6), octaves=3) * canvas.uniform(0.0, 0.12)
    if canvas.maybe(0.7):
        field = field - _handling(canvas) * canvas.uniform(0.03, 0.14)
    field = field + gloss * canvas.uniform(0.04, 0.36) + canvas.grain(0.005, 0.06)
    return texture(canvas, field, light=(0.2, 0.65), vivid=0.1)


def _handling(canvas: Canvas) -> Tensor:
    """(n, size, size) faint curved marks and specks that any used surface carries."""
    count, lines, steps = canvas.count, canvas.host.randint(1, 4), 128
    many = count * lines
    start, heading = canvas.rand(many, 2) * canvas.size, canvas.rand(many, 1) * TAU
    length = 0.05 * 10 ** canvas.rand(many, 1) * canvas.size
    wiggle = 0.1 + 0.6 * canvas.rand(many, 1)
    bend = canvas.randn(many, 1) * 2
    points, _ = walk(canvas, start, heading, length, wiggle=wiggle, bend=bend, steps=steps)
    points = points.reshape(count, lines * steps, 2)
    strength = 0.4 + 0.6 * canvas.noise_line(lines * steps).clamp(0, 1)
    width = canvas.log_uniform(0.4, 1.0)[:, 0].expand(-1, lines * steps)
    marks = stamp(canvas, points, width, strength, reach=2)
    dots = canvas.host.randint(1, 12)
    shade = 0.3 + 0.6 * canvas.rand(count, dots)
    specks = canvas.rand(count, dots, 2) * canvas.size
    return torch.maximum(marks, stamp(canvas, specks, shade + 0.3, shade, reach=2))


def milled_metal(canvas: Canvas) -> Content:
    """Paint arcs or rings left by a turning tool."""
    far_x, far_y = canvas.uniform(-2.5, 2.5), canvas.uniform(-2.5, 2.5)
    radius = torch.hypot(canvas.x - far_x, canvas.y - far_y)
    phase = radius * canvas.log_uniform(60, 300) + canvas.noise((1, 4)) * canvas.uniform(0, 1.5)
    rings = phase.sin() * (0.6 + 0.4 * canvas.noise((2, 6)).clamp(-1, 1))
    field = rings * canvas.uniform(0.02, 0.15) + canvas.grain(0.01, 0.05)
    field = field + canvas.fractal((1, 4)) * canvas.uniform(0.02, 0.12)
    return texture(canvas, field, light=(0.25, 0.7), vivid=0.12)


def cast_metal(canvas: Canvas) -> Content:
    rough = canvas.fractal((12, 50), octaves=3, gain=0.8) * canvas.uniform(0.03, 0.16)
    cloud = canvas.fractal((1, 5), octaves=3) * canvas.uniform(0.02, 0.12)
    field = rough + cloud + canvas.grain(0.01, 0.08)
    return texture(canvas, field, light=(0.2, 0.7), vivid=0.12)


def stone(canvas: Canvas) -> Content:
    """Paint concrete and the like; the small pits everywhere are no defects."""
    cloud = canvas.fractal((2, 8), octaves=5, gain=0.7) * canvas.uniform(0.04, 0.18)
    pits = -smooth_step(canvas.noise((40, 110)), 1.6, 2.6) * canvas.uniform(0, 0.4)
    return texture(canvas, cloud + pits + canvas.grain(0, 0.08), vivid=0.25)


def leather(canvas: Canvas) -> Content:
    u, v = canvas.turned(_slant(canvas), canvas.log_uniform(6, 22))
    warp = canvas.uniform(0, 0.5)
    u, v = u + 40 + warp * canvas.noise((3, 12)), v + 40 + warp * canvas.noise((3, 12))
    near, border, _ = canvas.cells(u, v)
    crease = below(border, 0.0, canvas.uniform(0.1, 0.4))
    field = -crease * canvas.uniform(0.1, 0.45) - near * canvas.uniform(0, 0.25)
    field = field + canvas.fractal((1, 5), octaves=3) * 0.05 + canvas.grain(0, 0.05)
    return texture(canvas, field, light=(0.2, 0.75), vivid=0.6)


def carpet(canvas: Canvas) -> Content:
    fibre = canvas.noise((50, 110), (12, 40)) + canvas.noise((12, 40), (50, 110))
    pile = soften(canvas.white(), 1) * 3
    field = fibre * canvas.uniform(0.04, 0.16) + pile * canvas.uniform(0.03, 0.16)
    return texture(canvas, field + canvas.fractal((1, 4)) * 0.04, light=(0.2, 0.7), vivid=0.6)


def fabric(canvas: Canvas) -> Content:
    """Paint threads over and under: plain weave, twill or a check of colours."""
    u, v = _lattice(canvas, 14, 60)
    column, row = u.floor(), v.floor()
    over = ((column + row).remainder(canvas.pick((1.0, 1.0, 2.0, 3.0)) + 1) < 1).float()
    across, along = (math.pi * u).sin().abs(), (math.pi * v).sin().abs()
    thread = over * across.sqrt() * (0.6 + 0.4 * along)
    thread = thread + (1 - over) * along.sqrt() * (0.6 + 0.4 * across)
    uneven = canvas.per_cell(column, torch.zeros_like(row))
    uneven = uneven + canvas.per_cell(torch.ones_like(column), row)
    field = (thread - 0.6) * canvas.uniform(0.15, 0.7) + (uneven - 1) * canvas.uniform(0, 0.15)
    check = ((column / canvas.pick((4, 8, 16))).floor().remainder(2) * canvas.chance(0.25)) * 0.3
    field = field - check + canvas.grain(0.01, 0.08)
    return texture(canvas, field, light=(0.3, 0.75), vivid=0.6)


def mesh(canvas: Canvas) -> Content:
    u, v = _lattice(canvas, 5, 26)
    width = canvas.uniform(0.06, 0.2)
    across, along = (part.abs() for part in in_cell(u, v))
    low, high = width - 0.06, width + 0.06
    wires = torch.maximum(below(across, low, high), below(along, low, high))
    round_wire = 1 - 0.5 * (torch.minimum(across, along) / width.clamp(min=0.05)).clamp(max=1)
    ground, wire = colour(canvas, (0.05, 0.35)), colour(canvas, (0.5, 0.95))
    swap = canvas.chance(0.35)[:, None]
    dark, bright = ground + (wire - ground) * swap, wire + (ground - wire) * swap
    image = tint(wires * round_wire, dark, bright)
    image = image * (1 + canvas.fractal((1, 6), octaves=3) * 0.07)[:, None]
    return Content(image + (canvas.white() * 0.02)[:, None], torch.ones_like(wires), dark)


def ribbed_sheet(canvas: Canvas) -> Content:
    """Paint stripes, ribs, slats: smooth or sharp, even or each its own."""
    u, v = _lattice(canvas, 5, 40)
    part = u - u.floor()
    smooth = (TAU * u).sin() * 0.5
    sharp = smooth_step((part - 0.5).abs(), 0.22, 0.30) - 0.5
    kind = canvas.rand(canvas.count, 1, 1)
    wave = torch.where(kind < 0.4, smooth, torch.where(kind < 0.8, sharp, part - 0.5))
    own = canvas.per_cell(u, torch.zeros_like(v)) - 0.5
    field = wave * canvas.uniform(0.08, 0.9) + own * canvas.uniform(0, 0.25) * canvas.chance(0.5)
    field = field + canvas.fractal((2, 8), octaves=3) * 0.05 + canvas.grain(0, 0.06)
    return texture(canvas, field, light=(0.3, 0.65))


def perforated_sheet(canvas: Canvas) -> Content:
    u, v = _lattice(canvas, 5, 24)
    u = u + 0.5 * v.floor().remainder(2) * canvas.chance(0.5)
    far = torch.hypot(*in_cell(u, v))
    size = canvas.uniform(0.15, 0.38)
    rim = (1 - ((far - size) / 0.08).abs()).clamp(min=0) * canvas.uniform(0, 0.3)
    depth = canvas.uniform(0.3, 0.9) * canvas.either(0.7, -1.0, 0.7)
    field = below(far, size - 0.05, size + 0.05) * depth + rim
    field = field + canvas.fractal((1, 6)) * 0.06 + canvas.grain(0, 0.05)
    return texture(canvas, field, light=(0.3, 0.65))


def paper(canvas: Canvas) -> Content:
    field = canvas.fractal((1, 4), octaves=2) * canvas.uniform(0, 0.06)
    field = field + canvas.fractal((20, 60), octaves=2) * canvas.uniform(0, 0.05)
    return texture(canvas, field + canvas.grain(0, 0.03), light=(0.25, 0.9))


def marble(canvas: Canvas) -> Content:
    u, _ = canvas.turned(_slant(canvas), canvas.log_uniform(2, 8))
    vein = (u + canvas.fractal((1.5, 4), octaves=5) * canvas.uniform(0.8, 2.0)).sin().abs()
    line = (1 - vein).pow(6) * canvas.uniform(0.1, 0.5) * canvas.sign()
    field = line + canvas.fractal((1, 5), octaves=4) * canvas.uniform(0.03, 0.12)
    return texture(canvas, field + canvas.white() * 0.015, light=(0.3, 0.8))


def foam(canvas: Canvas) -> Content:
    u, v = canvas.turned(_slant(canvas), canvas.log_uniform(4, 24))
    near, border, tone = canvas.cells(u + 40, v + 40, jitter=0.95)
    wall = below(border, 0.02, 0.15)
    field = wall * canvas.uniform(-0.5, 0.5) + (tone - 0.5) * canvas.uniform(0.05, 0.4)
    field = field + (0.4 - near) * canvas.uniform(-0.2, 0.4)
    return texture(canvas, field + canvas.grain(0, 0.06), vivid=0.5)


def granite(canvas: Canvas) -> Content:
    first = smooth_step(canvas.fractal((18, 90), octaves=2, gain=0.8), 0.5, 1.2)
    second = smooth_step(canvas.fractal((18, 90), octaves=2, gain=0.8), 0.7, 1.3)
    field = first * canvas.uniform(0.1, 0.5) - second * canvas.uniform(0.1, 0.6)
    return texture(canvas, field + canvas.grain(0.01, 0.08), vivid=0.45)


def knit(canvas: Canvas) -> Content:
    """Paint zigzag rows: knitwear, herringbone, chevrons."""
    u, v = _lattice(canvas, 8, 34)
    slope = canvas.uniform(0.4, 1.4)
    rows = v + slope * (u - u.floor() - 0.5).abs()
    loop = (math.pi * rows).sin().abs() * (0.5 + 0.5 * (math.pi * u).sin().abs().sqrt())
    own = canvas.per_cell(u, rows) - 0.5
    field = (loop - 0.5) * canvas.uniform(0.2, 0.9) + own * canvas.uniform(0, 0.15)
    return texture(canvas, field + canvas.grain(0.01, 0.08), light=(0.3, 0.7), vivid=0.6)


def wood(canvas: Canvas) -> Content:
    turn = canvas.chance(0.5)
    across = canvas.x * turn + canvas.y * (1 - turn) + canvas.uniform(-1, 1)
    along = canvas.y * turn + canvas.x * (1 - turn)
    bow = across * canvas.uniform(4, 14) + (along * canvas.uniform(0.2, 1.0)).square()
    grain = canvas.noise((2, 5), (0.7, 1.5)) * turn + canvas.noise((0.7, 1.5), (2, 5)) * (1 - turn)
    saw = ((bow + grain * canvas.uniform(0.2, 0.9)) * 2).remainder(1.0)
    upright, level = canvas.noise((60, 120), (3, 10)), canvas.noise((3, 10), (60, 120))
    pores = upright * turn + level * (1 - turn)
    field = (smooth_step(saw, 0, 1) - 0.5) * canvas.uniform(0.1, 0.4)
    field = field + pores * canvas.uniform(0.02, 0.09)
    made = texture(canvas, field, light=(0.3, 0.65), vivid=0.1)
    brown = canvas.tone(1.25, 0.98, 0.72)
    return Content(made.image * brown, made.ground, made.behind * brown)


def tile_floor(canvas: Canvas) -> Content:
    """Paint tiles with joints; every tile has its own tone, bricks are staggered."""
    u, v = _lattice(canvas, 3, 12)
    v = v * canvas.pick((1.0, 1.0, 2.0))
    u = u + 0.5 * v.floor().remainder(2) * canvas.chance(0.5)
    edge = 0.5 - torch.maximum(*(part.abs() for part in in_cell(u, v)))
    own = canvas.per_cell(u, v) - 0.5
    joint = below(edge, 0.02, 0.06)
    field = own * canvas.uniform(0.02, 0.4) + joint * canvas.uniform(0.2, 0.6) * canvas.sign()
    field = field + canvas.fractal((3, 12)) * canvas.uniform(0.02, 0.1) + canvas.white() * 0.02
    return texture(canvas, field, vivid=0.45)


def basket(canvas: Canvas) -> Content:
    u, v = _lattice(canvas, 4, 14)
    over = (u.floor() + v.floor()).remainder(2)
    part_u, part_v = (part.abs() for part in in_cell(u, v))
    across = over * part_u + (1 - over) * part_v
    along = over * part_v + (1 - over) * part_u
    strand = below(across, 0.34, 0.46)
    field = (strand - 0.7) * canvas.uniform(0.4, 0.9) - along.square() * canvas.uniform(0.3, 1.2)
    ribs = (across * canvas.uniform(20, 40)).sin() * canvas.uniform(0, 0.1)
    return texture(canvas, field + ribs + canvas.white() * 0.03, light=(0.35, 0.7), vivid=0.5)


def _grid(
    canvas: Canvas, angle: Tensor, scale: Tensor, *, first: int = 40
) -> tuple[Tensor, Tensor]:
    """Return turned coordinates, one cell per unit, from anywhere in cell number `first`."""
    u, v = canvas.turned(angle, scale)
    return u + first + canvas.uniform(0, 1), v + first + canvas.uniform(0, 1)


def _sheet(canvas: Canvas, image: Tensor, behind: Tensor, *, rough: float = 0.04) -> Content:
    uneven = 1 + canvas.fractal((1, 5), octaves=3) * rough + canvas.grain(0, 0.04)
    whole = canvas.full(1.0)
    return Content(image * uneven[:, None], whole, behind)


def solar_cell(canvas: Canvas) -> Content:
    """Paint fingers and bus bars over crystal grains, one cell or a module of cells."""
    zoom = canvas.log_uniform(0.8, 3.0)
    angle = canvas.uniform(-0.03, 0.03) + canvas.pick((0.0, TAU / 4))
    u, v = _grid(canvas, angle, zoom * 0.5)
    cu, cv = in_cell(u, v)
    _, _, tone = canvas.cells(u * canvas.uniform(6, 14), v * canvas.uniform(6, 14))
    grain = (tone - 0.5) * canvas.uniform(0.0, 0.35) * canvas.chance(0.6)
    fingers = (TAU * u * canvas.pick((24.0, 32.0, 40.0))).sin() * canvas.uniform(0.0, 0.15)
    bars = (cv * canvas.pick((2.0, 3.0, 4.0, 5.0))).remainder(1.0)
    bars = line_at(bars, 0.5, canvas.uniform(0.02, 0.06))
    base = colour(canvas, (0.2, 0.6), vivid=0.5)
    image = base * (1 + grain + fingers)[:, None]
    silver = base * canvas.pick((0.3, 1.8, 2.2))[:, None]
    frame = base * canvas.pick((0.2, 1.7))[:, None]
    image = blend(blend(image, silver, bars * 0.8), frame, 1 - box(cu, cv, 0.485, 0.485, 0.015))
    return _sheet(canvas, image, frame, rough=0.08)


def circuit_board(canvas: Canvas) -> Content:
    u, v = canvas.turned(canvas.uniform(-0.03, 0.03), canvas.log_uniform(8, 22))
    u, v = u + 40, v + 40
    column, row = u.floor(), v.floor()
    long_row, long_column = (row / 5).floor(), (column / 6).floor()
    upright = (canvas.per_cell(column, long_row) < 0.5) * line_at(u - column, 0.5, 0.14, 0.08)
    level = (canvas.per_cell(long_column, row) < 0.4) * line_at(v - row, 0.5, 0.14, 0.08)
    far = torch.hypot(*in_cell(u, v))
    pads = (canvas.per_cell(column, row) < 0.2) * below(far, 0.30, 0.38)
    drill = below(far, 0.10, 0.16) * (pads > 0)
    board = colour(canvas, (0.12, 0.45), vivid=0.6)
    copper = board * canvas.uniform(1.3, 2.2)[:, None]
    image = tint(torch.maximum(upright, level), board, copper)
    image = blend(image, colour(canvas, (0.6, 0.9), vivid=0.3), pads)
    image = image * (1 - 0.8 * drill)[:, None]
    return _sheet(canvas, _chips(canvas, image, u, v), board)


def _chips(canvas: Canvas, image: Tensor, u: Tensor, v: Tensor) -> Tensor:
    big_u, big_v = u / 8, v / 6
    column, row = big_u.floor(), big_v.floor()
    present = canvas.per_cell(column, row) < 0.3
    cu, cv = (big_u - column - 0.5) * 8, (big_v - row - 0.5) * 6
    body = box(cu, cv, 2.4, 1.3, 0.1) * present
    legs = box(cu, cv, 2.3, 2.0, 0.1) * line_at(u - u.floor(), 0.5, 0.22, 0.1) * present
    print_ = glyphs(canvas, u * 2.2, v * 1.6) * box(cu, cv, 1.8, 0.6) * present * 0.6
    image = blend(image, colour(canvas, (0.6, 0.95), vivid=0.1), legs)
    image = blend(image, colour(canvas, (0.04, 0.2), vivid=0.2), body)
    return blend(image, 0.8, print_)


def connector(canvas: Canvas) -> Content:
    angle = canvas.uniform(-0.04, 0.04) + canvas.pick((0.0, TAU / 4))
    u, v = canvas.turned(angle, canvas.log_uniform(2.5, 9))
    u = u + 40 + canvas.uniform(0, 1)
    v = v * canvas.uniform(0.2, 1.0) + 40 + canvas.uniform(0, 1)
    cu, cv = in_cell(u, v)
    pin = box(cu, cv, canvas.uniform(0.12, 0.3), canvas.uniform(0.2, 0.45), 0.05)
    core = box(cu, cv, 0.08, 0.15, 0.08) * canvas.chance(0.5)
    shade = (1 - (cu.abs() * 3).clamp(max=1)) * 0.4 + 0.7
    house, metal = colour(canvas, (0.08, 0.5), vivid=0.5), colour(canvas, (0.55, 0.95), vivid=0.3)
    image = blend(house, metal * shade[:, None], pin) * (1 - 0.6 * core)[:, None]
    return _sheet(canvas, image, house)


def label(canvas: Canvas) -> Content:
    """Paint print: lines of letters, rules, blocks and a bar code."""
    u, v = _grid(canvas, canvas.uniform(-0.08, 0.08), canvas.log_uniform(5, 14), first=48)
    ink = glyphs(canvas, u, v * 0.8)
    block = (v / 5).floor()
    kind = canvas.per_cell(torch.zeros_like(block), block)
    bars = (canvas.per_cell((u * 4).floor(), block) < 0.5).float()
    bars = bars * ((v / 5 - block - 0.5).abs() < 0.3)
    ink = torch.where(kind < 0.25, bars, torch.where(kind < 0.45, torch.zeros_like(ink), ink))
    ink = torch.maximum(ink, line_at(v / 5 - block, 0.06, 0.012, 0.01) * canvas.chance(0.5))
    sheet, black = colour(canvas, (0.65, 0.95), vivid=0.4), colour(canvas, (0.03, 0.35), vivid=0.6)
    swap = canvas.chance(0.25)[:, None]
    ground, print_ = mix(sheet, black, swap), mix(black, sheet, swap)
    return _sheet(canvas, tint(ink * canvas.uniform(0.7, 1), ground, print_), ground)


def keypad(canvas: Canvas) -> Content:
    u, v = _grid(canvas, canvas.uniform(-0.05, 0.05), canvas.log_uniform(1.5, 4.5))
    cu, cv = in_cell(u, v)
    key, top = box(cu, cv, 0.40, 0.38, 0.06), box(cu, cv, 0.30, 0.28, 0.14)
    sign = glyphs(canvas, u * 3 + 0.1, v * 2) * box(cu, cv, 0.18, 0.18)
    house, cap = colour(canvas, (0.05, 0.3), vivid=0.3), colour(canvas, (0.2, 0.85), vivid=0.4)
    image = blend(house, cap * (0.75 + 0.25 * top)[:, None], key)
    image = blend(image, cap * canvas.pick((0.2, 1.9))[:, None], sign)
    return _sheet(canvas, image, house)
