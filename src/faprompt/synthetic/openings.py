"""The defects kept for the test family: holes, tears, burns, threads, swellings."""

from __future__ import annotations

import torch

from faprompt.synthetic.content import Content, blend, colour
from faprompt.synthetic.fields import Canvas, relief, smooth_step, warp
from faprompt.synthetic.spots import (
    LEAST_ALPHA,
    Damage,
    Spot,
    brighten,
    contrast,
    region,
    size_of,
    start_of,
)
from faprompt.synthetic.strokes import stamp, walk
from faprompt.synthetic.textures import TAU


def hole(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """A sharp opening, dark or showing what is behind, with a lit lip."""
    alpha = region(canvas, spot, size_of(canvas, spot, 0.05, 0.25), ragged=0.25, soft=(0.02, 0.06))
    alpha = alpha * content.ground
    dark = (content.behind * canvas.uniform(0.1, 0.5)[:, None]).expand_as(content.image)
    pale = (spot.level < 0.25).float()[:, None] * 0.6
    lip = relief(alpha, canvas.uniform(0, TAU)) * canvas.uniform(0.1, 0.5)
    return blend(content.image, dark + pale, alpha) + (lip * (alpha > LEAST_ALPHA))[:, None], alpha


def tear(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """A jagged gap, wide in the middle, frayed at the edge."""
    angle = canvas.uniform(0, TAU)
    dx, dy = canvas.x - spot.x, canvas.y - spot.y
    u, v = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    long = size_of(canvas, spot, 0.15, 0.6)
    wide = long * canvas.uniform(0.08, 0.3) * (1 - (u / long).square()).clamp(min=0)
    ragged = (canvas.noise((8, 20)) * 0.3 + canvas.noise((30, 80)) * 0.15) * long * 0.2
    gap = (
        (1 - smooth_step((v + ragged).abs() - wide, -0.008, 0.012))
        * (u.abs() < long)
        * content.ground
    )
    fray = (1 - smooth_step((v + ragged).abs() - wide, 0.0, 0.03)) * (
        u.abs() < long
    ) * content.ground - gap
    dark = content.behind.expand_as(content.image) * 0.5 + 0.5 * (spot.level < 0.25)[:, None]
    image = brighten(content.image, contrast(canvas, spot) * canvas.sign(), fray.clamp(min=0))
    return blend(image, dark, gap), torch.maximum(gap, fray)


def burn(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """Charred in the middle, brown around."""
    alpha = (
        region(canvas, spot, size_of(canvas, spot, 0.08, 0.4), ragged=0.6, soft=(0.3, 0.6))
        * content.ground
    )
    brown = canvas.tone(0.75, 0.5, 0.35)
    image = blend(content.image, content.image * brown, alpha)
    char = smooth_step(alpha, 0.4, 0.95) * canvas.uniform(0.5, 0.95)
    soot = 0.05 + 0.04 * canvas.noise((10, 40)).abs()
    ash = (spot.level < 0.2).float() * 0.5
    return blend(image, (soot + ash)[:, None], char), alpha


def thread(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """A hair or thread lying on the thing, with its shadow."""
    length = canvas.log_uniform(0.2, 0.9)[:, 0] * canvas.size
    heading = canvas.uniform(0, TAU)[:, 0]
    half = torch.cat((heading.cos(), heading.sin()), 1) * length * 0.3
    bend = canvas.randn(canvas.count, 1) * 2.5
    points, _ = walk(
        canvas,
        start_of(canvas, spot) - half,
        heading,
        length,
        wiggle=canvas.uniform(0.05, 0.35)[:, 0],
        bend=bend,
        steps=384,
    )
    width = canvas.log_uniform(0.7, 2.2)[:, 0].expand(-1, 384)
    sheet = stamp(canvas, points, width, torch.ones_like(width), reach=4)
    shadow = stamp(canvas, points + 1.5, width, torch.ones_like(width), reach=4) * canvas.uniform(
        0, 0.4
    )
    tone = (spot.level + contrast(canvas, spot, 2, 6) * canvas.sign()).clamp(0.03, 0.97)
    image = blend(content.image, content.image * 0.3, shadow)
    over = tone[:, None] * colour(canvas, (1.0, 1.0), vivid=0.8)
    return blend(image, over, sheet), torch.maximum(sheet, shadow)


def swelling(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """A bulge: what is there grows and catches the light."""
    radius = size_of(canvas, spot, 0.12, 0.4)
    dx, dy = canvas.x - spot.x, canvas.y - spot.y
    far = torch.hypot(dx, dy) / radius
    alpha = 1 - smooth_step(far, 0.5, 1.0)
    grow = canvas.uniform(0.35, 0.6) * canvas.size / 2
    image = warp(content.image, -alpha * grow * dx / canvas.wide, -alpha * grow * dy / canvas.tall)
    light = (
        relief((1 - far.square()).clamp(min=0), canvas.uniform(0, TAU)) * radius * canvas.size / 8
    )
    step = contrast(canvas, spot, 2.5, 6)
    image = brighten(image, step, (light.clamp(-1, 1) + 0.5) * alpha)
    return blend(content.image, image, (alpha > LEAST_ALPHA).float()), alpha
