"""Defects: each changes a clean picture and says where.

A maker returns the changed picture and the alpha it used; alpha above MASK_ALPHA is the mask.
Hole, tear, burn, thread and swelling are kept for the test family.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from faprompt.synthetic.canvas import TAU, Canvas, Span, stamp, walk
from faprompt.synthetic.fields import below, relief, smooth_step, soften, warp
from faprompt.synthetic.painting import (
    LEAST_ALPHA,
    Content,
    Damage,
    Spot,
    blend,
    brighten,
    colour,
    contrast,
    region,
    size_of,
    start_of,
)


def _patch(
    canvas: Canvas, content: Content, spot: Spot, sizes: Span, *, ragged: float, soft: Span
) -> Tensor:
    """Draw a lumpy patch on the thing, its radius between two physical sizes."""
    radius = size_of(canvas, spot, *sizes)
    return region(canvas, spot, radius, ragged=ragged, soft=soft) * content.ground


def _block(canvas: Canvas, spot: Spot, half_u: Tensor, half_v: Tensor) -> Tensor:
    u, v = (canvas.x - spot.x) / half_u, (canvas.y - spot.y) / half_v
    return below(torch.maximum(u.abs(), v.abs()), 0.97, 1.03)


def _half(heading: Tensor, length: Tensor) -> Tensor:
    """(n, 2) step in pixels along the heading."""
    return torch.cat((heading.cos(), heading.sin()), 1) * length


def scratch(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    start, heading = start_of(canvas, spot), canvas.uniform(0, TAU)[:, 0]
    sheet = torch.zeros_like(content.ground)
    for order in range(canvas.host.randint(1, 3)):
        length = (canvas.log_uniform(0.06, 0.5) * spot.room)[:, 0] * canvas.size
        tilt = heading + canvas.randn(canvas.count, 1) * 0.15
        offset = canvas.randn(canvas.count, 2) * (0 if order == 0 else 8)
        first = start + offset - _half(tilt, length) / 2
        wiggle, bend = canvas.uniform(0, 0.08)[:, 0], canvas.randn(canvas.count, 1) * 0.25
        points, _ = walk(canvas, first, tilt, length, wiggle=wiggle, bend=bend)
        width = canvas.log_uniform(0.5, 1.6)[:, 0].expand(-1, 256)
        waves = canvas.uniform(0, TAU)[:, 0] + torch.linspace(0, 12, 256)
        part = 0.75 + 0.25 * torch.sin(waves)
        sheet = torch.maximum(sheet, stamp(canvas, points, width, part, reach=3))
    sheet = sheet * (content.ground > 0.5)
    step = contrast(canvas, spot, 1.5, 6) * canvas.either(0.6, 1.0, -1.0)
    return brighten(content.image, step, sheet), sheet


def crack(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    start, heading = start_of(canvas, spot), canvas.uniform(0, TAU)[:, 0]
    upright = canvas.pick((0.25, -0.25))[:, 0] * TAU + canvas.randn(canvas.count, 1) * 0.12
    heading = torch.where(canvas.chance(0.4)[:, 0] > 0, upright, heading)
    length = (canvas.log_uniform(0.1, 1.1) * spot.room)[:, 0] * canvas.size
    wiggle, steps = canvas.uniform(0.08, 0.6)[:, 0], 384
    start = start - _half(heading, length) * canvas.uniform(0, 0.5)[:, 0]
    bend = canvas.randn(canvas.count, 1) * 0.4
    points, angle = walk(canvas, start, heading, length, wiggle=wiggle, bend=bend, steps=steps)
    width = canvas.log_uniform(0.45, 1.5)[:, 0]
    thin = canvas.noise_line(steps)
    widths = width * (0.8 + 0.3 * thin).clamp(0.4, 1.5)
    sheet = stamp(canvas, points, widths, torch.ones_like(thin), reach=3)
    ends = torch.linspace(0.9, 0.5, 256)
    for _ in range(canvas.host.randint(0, 3)):
        at = (canvas.rand(canvas.count, 1) * 0.8 * steps).long()
        origin = points.gather(1, at[..., None].expand(-1, 1, 2))[:, 0]
        side = canvas.sign()[:, 0]
        lean = angle.gather(1, at) + side * (0.4 + 0.7 * canvas.rand(canvas.count, 1))
        short = length * (0.15 + 0.35 * canvas.rand(canvas.count, 1))
        twig, _ = walk(canvas, origin, lean, short, wiggle=wiggle, bend=torch.zeros_like(length))
        branch = stamp(canvas, twig, width * ends, ends.expand(canvas.count, -1), reach=3)
        sheet = torch.maximum(sheet, branch)
    sheet = sheet * (content.ground > 0.5)
    step = contrast(canvas, spot, 1.6, 6) * canvas.either(0.88, -1.0, 1.0)
    return brighten(content.image, step, sheet), sheet


def pore(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """Draw one or a few tiny dark blowholes, some with a bright rim."""
    count = canvas.host.choice((1, 1, 1, 2, 3, 5, 9))
    spread = canvas.log_uniform(4, 40)[:, 0]
    away = canvas.randn(canvas.count, count, 2) * spread[..., None]
    away[:, 0] = 0
    points = start_of(canvas, spot)[:, None] + away
    big = canvas.size / 240 * canvas.pore_zoom
    radius = canvas.log_uniform(1.4, 5.5)[:, 0] * big
    radius = (radius * (0.5 + canvas.rand(canvas.count, count)).clamp(max=1)).clamp(min=1.2)
    one = torch.ones_like(radius)
    reach = max(int(6 * big) + 2, 4)
    sheet = stamp(canvas, points, radius, one, reach=reach)
    rim = (stamp(canvas, points + 0.6, radius + 1.2, one, reach=reach + 2) - sheet).clamp(min=0)
    step = contrast(canvas, spot, 1.5, 6) * canvas.either(0.85, -1.0, 1.0)
    image = brighten(content.image, step, sheet)
    glow = canvas.uniform(0, 0.8) * canvas.chance(0.4)
    return brighten(image, -step * 0.6 * glow, rim), torch.maximum(sheet, rim * glow * 0.6)


def stain(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """Draw an even patch, often large, sometimes with a darker rim; its inside counts."""
    alpha = _patch(canvas, content, spot, (0.06, 0.6), ragged=0.6, soft=(0.03, 0.3))
    step = contrast(canvas, spot, 0.8, 3) * canvas.either(0.7, -1.0, 1.0)
    rim = (alpha * (1 - alpha) * 4) * canvas.uniform(0, 0.8) * canvas.chance(0.5)
    hue = 1 + (colour(canvas, (1.0, 1.0), vivid=0.6) - 0.8) * canvas.uniform(-1, 1)[:, None]
    return brighten(content.image, step, alpha * (1 + rim), vivid=hue), alpha


def dent(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    radius = size_of(canvas, spot, 0.05, 0.3)
    dx, dy = canvas.x - spot.x, canvas.y - spot.y
    long = canvas.log_uniform(0.6, 1.6)
    far = torch.hypot(dx * long, dy / long) / radius * (1 + 0.1 * canvas.noise((2, 6)))
    height = torch.exp(-(far * 1.3).square() * 1.2)
    slope = relief(height, canvas.uniform(0, TAU))
    slope = slope / slope.abs().amax((1, 2), keepdim=True).clamp(min=1e-4)
    alpha = below(far, 0.8, 1.1) * content.ground
    step = contrast(canvas, spot, 1.8, 5) * 1.3
    light = slope * alpha + 0.25 * height * alpha * canvas.sign()
    return brighten(content.image, step, light), alpha


def contamination(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """Add crumbs, flakes, smears or drops of something foreign."""
    patch = region(canvas, spot, size_of(canvas, spot, 0.06, 0.35), soft=(0.2, 0.5))
    fine = smooth_step(canvas.noise((12, 60)) + 1.2 * patch, 1.4, 1.7)
    crumbs = fine * smooth_step(patch, 0.1, 0.3)
    lump = region(canvas, spot, size_of(canvas, spot, 0.03, 0.12), ragged=0.9, soft=(0.03, 0.1))
    alpha = canvas.either(0.5, torch.maximum(crumbs, lump * 0.95), lump) * content.ground
    step = contrast(canvas, spot, 2, 6) * canvas.sign()
    uneven = 1 + 0.15 * canvas.fractal((10, 40), octaves=2)
    foreign = (spot.level + step)[:, None] * uneven[:, None]
    foreign = foreign * colour(canvas, (1.0, 1.0), vivid=0.8) / 0.9
    return blend(content.image, foreign.clamp(0, 1), alpha * canvas.uniform(0.75, 1)), alpha


def missing_part(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """Take a piece away: what is behind shows, or a bare patch without the pattern."""
    sharp = region(canvas, spot, size_of(canvas, spot, 0.08, 0.4), ragged=0.4, soft=(0.01, 0.04))
    half_u, half_v = size_of(canvas, spot, 0.07, 0.3), size_of(canvas, spot, 0.07, 0.3)
    square = _block(canvas, spot, half_u, half_v)
    alpha = canvas.either(0.3, square, sharp) * (content.ground > 0.3)
    behind = content.behind.expand_as(content.image)
    away = (behind.mean(1) - content.image.mean(1)).abs()
    near = ((away * alpha).sum((1, 2)) / alpha.sum((1, 2)).clamp(min=1)).reshape(-1, 1, 1, 1)
    behind = torch.where(near < 0.08, behind * 0.4 + 0.45 * (spot.level < 0.4)[:, None], behind)
    shade = relief(soften(alpha, 1), canvas.uniform(0, TAU)) * canvas.uniform(0, 0.5)
    return blend(content.image, behind, alpha) + (shade * (alpha > LEAST_ALPHA))[:, None], alpha


def _pattern_patch(canvas: Canvas, content: Content, spot: Spot) -> Tensor:
    """Draw a block or a lump in which a pattern goes wrong."""
    half_u, half_v = size_of(canvas, spot, 0.08, 0.5), size_of(canvas, spot, 0.08, 0.5)
    block = _block(canvas, spot, half_u, half_v)
    lump = region(canvas, spot, half_u, ragged=0.4, soft=(0.02, 0.08))
    return canvas.either(0.5, block, lump) * content.ground


def broken_pattern(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """Fade the pattern, turn it by a right angle or invert it."""
    alpha = _pattern_patch(canvas, content, spot)
    flat = soften(content.image, max(canvas.size // 16, 2))
    turned = content.image.transpose(2, 3) * 0.999
    turned = turned - turned.mean((2, 3), keepdim=True) + flat.mean((2, 3), keepdim=True)
    inverse = 2 * flat - content.image
    kind = canvas.rand(canvas.count, 1, 1, 1)
    other = torch.where(kind < 0.5, flat, torch.where(kind < 0.75, turned, inverse))
    step = contrast(canvas, spot, 0.2, 0.8) * canvas.sign() * canvas.chance(0.5)
    return brighten(blend(content.image, other, alpha), step, alpha), alpha


def shifted_pattern(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """Put a patch out of step with the rest."""
    alpha = _pattern_patch(canvas, content, spot)
    far, angle = canvas.log_uniform(0.02, 0.15) * canvas.size, canvas.uniform(0, TAU)
    moved = warp(content.image, far * angle.cos(), far * angle.sin())
    step = contrast(canvas, spot, 0.2, 0.6) * canvas.sign() * canvas.chance(0.5)
    return brighten(blend(content.image, moved, alpha), step, alpha), alpha


def colour_change(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    alpha = _patch(canvas, content, spot, (0.08, 0.6), ragged=0.4, soft=(0.1, 0.5))
    hue = colour(canvas, (1.0, 1.0), vivid=1.0) * 1.1
    tone = 1 + canvas.sign() * canvas.uniform(0.2, 0.6)
    other = content.image * hue * tone[:, None]
    return blend(content.image, other, alpha * canvas.uniform(0.6, 1)), alpha


def deformation(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """Pull or twist outline and pattern."""
    radius = size_of(canvas, spot, 0.12, 0.4)
    dx, dy = canvas.x - spot.x, canvas.y - spot.y
    alpha = below(torch.hypot(dx, dy) / radius, 0.35, 1.0)
    pull, angle = radius * canvas.uniform(0.25, 0.6) * canvas.size / 2, canvas.uniform(0, TAU)
    twist = canvas.uniform(0.5, 1.5) * canvas.sign() * canvas.chance(0.5)
    sx = alpha * (pull * angle.cos() - twist * dy * canvas.size / 2)
    sy = alpha * (pull * angle.sin() + twist * dx * canvas.size / 2)
    return blend(content.image, warp(content.image, sx, sy), (alpha > LEAST_ALPHA).float()), alpha


def _lesion(canvas: Canvas, content: Content, spot: Spot, *, sign: float) -> Damage:
    """Draw a round growth with an uneven inside, sometimes a ring, sometimes a halo."""
    alpha = _patch(canvas, content, spot, (0.05, 0.3), ragged=0.5, soft=(0.04, 0.35))
    halo = _patch(canvas, content, spot, (0.15, 0.4), ragged=0.8, soft=(0.2, 0.5))
    halo = halo * canvas.uniform(0, 0.5) * canvas.chance(0.4)
    step = contrast(canvas, spot, 1.5, 5) * sign
    inner = 1 + canvas.fractal((6, 20), octaves=2) * canvas.uniform(0, 0.35)
    core = smooth_step(alpha, 0.85, 1.0) * canvas.uniform(0.3, 1.2) * canvas.chance(0.3)
    image = brighten(content.image, step * 0.7 * canvas.sign(), halo * (1 - alpha))
    flat = soften(image, max(canvas.size // 60, 1))
    image = blend(image, flat, alpha * canvas.uniform(0.2, 1))
    return brighten(image, step * inner * (1 - core), alpha), torch.maximum(alpha, halo)


bright_lesion, dark_lesion = partial(_lesion, sign=1.0), partial(_lesion, sign=-1.0)


def hole(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    alpha = _patch(canvas, content, spot, (0.05, 0.25), ragged=0.25, soft=(0.02, 0.06))
    dark = (content.behind * canvas.uniform(0.1, 0.5)[:, None]).expand_as(content.image)
    pale = (spot.level < 0.25).float()[:, None] * 0.6
    lip = relief(alpha, canvas.uniform(0, TAU)) * canvas.uniform(0.1, 0.5)
    return blend(content.image, dark + pale, alpha) + (lip * (alpha > LEAST_ALPHA))[:, None], alpha


def tear(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    angle = canvas.uniform(0, TAU)
    dx, dy = canvas.x - spot.x, canvas.y - spot.y
    u, v = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    long = size_of(canvas, spot, 0.15, 0.6)
    wide = long * canvas.uniform(0.08, 0.3) * (1 - (u / long).square()).clamp(min=0)
    ragged = (canvas.noise((8, 20)) * 0.3 + canvas.noise((30, 80)) * 0.15) * long * 0.2
    away = (v + ragged).abs() - wide
    gap = below(away, -0.008, 0.012) * (u.abs() < long) * content.ground
    fray = below(away, 0.0, 0.03) * (u.abs() < long) * content.ground - gap
    dark = content.behind.expand_as(content.image) * 0.5 + 0.5 * (spot.level < 0.25)[:, None]
    image = brighten(content.image, contrast(canvas, spot) * canvas.sign(), fray.clamp(min=0))
    return blend(image, dark, gap), torch.maximum(gap, fray)


def burn(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    alpha = _patch(canvas, content, spot, (0.08, 0.4), ragged=0.6, soft=(0.3, 0.6))
    image = blend(content.image, content.image * canvas.tone(0.75, 0.5, 0.35), alpha)
    char = smooth_step(alpha, 0.4, 0.95) * canvas.uniform(0.5, 0.95)
    soot = 0.05 + 0.04 * canvas.noise((10, 40)).abs()
    ash = (spot.level < 0.2).float() * 0.5
    return blend(image, (soot + ash)[:, None], char), alpha


def thread(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    length = canvas.log_uniform(0.2, 0.9)[:, 0] * canvas.size
    heading = canvas.uniform(0, TAU)[:, 0]
    bend = canvas.randn(canvas.count, 1) * 2.5
    start = start_of(canvas, spot) - _half(heading, length) * 0.3
    wiggle = canvas.uniform(0.05, 0.35)[:, 0]
    points, _ = walk(canvas, start, heading, length, wiggle=wiggle, bend=bend, steps=384)
    width = canvas.log_uniform(0.7, 2.2)[:, 0].expand(-1, 384)
    one = torch.ones_like(width)
    sheet = stamp(canvas, points, width, one, reach=4)
    shadow = stamp(canvas, points + 1.5, width, one, reach=4) * canvas.uniform(0, 0.4)
    tone = (spot.level + contrast(canvas, spot, 2, 6) * canvas.sign()).clamp(0.03, 0.97)
    image = blend(content.image, content.image * 0.3, shadow)
    over = tone[:, None] * colour(canvas, (1.0, 1.0), vivid=0.8)
    return blend(image, over, sheet), torch.maximum(sheet, shadow)


def swelling(canvas: Canvas, content: Content, spot: Spot) -> Damage:
    """Make a bulge: what is there grows and catches the light."""
    radius = size_of(canvas, spot, 0.12, 0.4)
    dx, dy = canvas.x - spot.x, canvas.y - spot.y
    far = torch.hypot(dx, dy) / radius
    alpha = below(far, 0.5, 1.0)
    grow = canvas.uniform(0.35, 0.6) * canvas.size / 2
    image = warp(content.image, -alpha * grow * dx / canvas.wide, -alpha * grow * dy / canvas.tall)
    dome = relief((1 - far.square()).clamp(min=0), canvas.uniform(0, TAU))
    light = dome * radius * canvas.size / 8
    step = contrast(canvas, spot, 2.5, 6)
    image = brighten(image, step, (light.clamp(-1, 1) + 0.5) * alpha)
    return blend(content.image, image, (alpha > LEAST_ALPHA).float()), alpha
