"""Things laid out on a grid: solar cells, boards, connectors, printed labels."""

from __future__ import annotations

import torch
from torch import Tensor

from faprompt.synthetic.canvas import TAU, Canvas
from faprompt.synthetic.painting import (
    Content,
    below,
    blend,
    box,
    colour,
    glyphs,
    in_cell,
    line_at,
    mix,
    tint,
)


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
