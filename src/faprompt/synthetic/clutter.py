"""Lawful irregularity: what a normal surface may carry without being damaged."""

from __future__ import annotations

import torch
from torch import Tensor

from faprompt.synthetic.fields import Canvas, smooth_step
from faprompt.synthetic.layouts import glyphs, line_at


def add_clutter(canvas: Canvas, image: Tensor) -> Tensor:
    """One kind of clutter on the whole batch (n, c, size, size): edges, seams, print, light."""
    maker = canvas.host.choice((_two_halves, _seams, _print, _glare, _shade))
    return image * maker(canvas)[:, None]


def _two_halves(canvas: Canvas) -> Tensor:
    """A straight border between two surfaces, from side to side."""
    u, _ = canvas.turned(_upright(canvas))
    place = canvas.uniform(-0.7, 0.7)
    step = smooth_step(u, place, place + canvas.log_uniform(0.01, 0.08))
    edge = line_at(u, place, 0.008) * canvas.uniform(-0.4, 0.3)
    return 1 + (step - 0.5) * canvas.uniform(-0.7, 0.7) + edge


def _seams(canvas: Canvas) -> Tensor:
    """One or several equal lines from side to side: joints, rails, folds."""
    u, _ = canvas.turned(_upright(canvas), canvas.log_uniform(0.4, 3))
    far = (u + canvas.uniform(0, 1)).remainder(1.0)
    width = canvas.log_uniform(0.008, 0.08)
    groove = line_at(far, 0.5, width, 0.02) * canvas.uniform(0.1, 0.7)
    lip = line_at(far, 0.5 + 1.6 * width, width * 0.4, 0.02) * canvas.uniform(-0.1, 0.4)
    return 1 - groove + lip


def _print(canvas: Canvas) -> Tensor:
    """A few lines of letters in one corner or across."""
    u, v = canvas.turned(_upright(canvas), canvas.log_uniform(5, 16))
    high, wide = canvas.uniform(0.8, 3), canvas.uniform(3, 12)
    window = ((v - canvas.uniform(-6, 6)).abs() < high) * ((u - canvas.uniform(-4, 4)).abs() < wide)
    return 1 + glyphs(canvas, u + 80, v + 80) * window * canvas.uniform(-0.8, 0.6)


def _glare(canvas: Canvas) -> Tensor:
    """A soft reflection of a lamp."""
    dx, dy = canvas.x - canvas.uniform(-0.9, 0.9), canvas.y - canvas.uniform(-0.9, 0.9)
    long = canvas.log_uniform(0.3, 3)
    far = torch.hypot(dx * long, dy / long) / canvas.uniform(0.3, 1.0)
    return 1 + torch.exp(-far.square() * 2) * canvas.uniform(0.1, 0.9)


def _shade(canvas: Canvas) -> Tensor:
    """The edge of a soft shadow."""
    u, _ = canvas.turned(canvas.uniform(0, 6.3))
    edge = canvas.uniform(-0.5, 0.8) + 0.1 * canvas.noise((0.7, 2))
    return 1 - smooth_step(u, edge, edge + canvas.log_uniform(0.05, 0.8)) * canvas.uniform(0.1, 0.6)


def _upright(canvas: Canvas) -> Tensor:
    return canvas.pick((0.0, 1.5708)) + canvas.uniform(-0.08, 0.08)
