"""Lines and spots, stamped point by point: cheap for thin things on a large sheet."""

from __future__ import annotations

import torch
from torch import Tensor

from faprompt.synthetic.fields import Canvas


def stamp(
    canvas: Canvas, points: Tensor, radius: Tensor, strength: Tensor, *, reach: int
) -> Tensor:
    """Soft-edged discs, the strongest winning where they overlap.

    Args:
        points: (n, p, 2) as (x, y) in pixels; those outside the picture leave nothing.
        radius: (n, p) in pixels, at most `reach`.
        strength: (n, p) in 0..1; 0 leaves the point out.
        reach: half side of the stamped window in pixels.

    Returns:
        (n, size, size) coverage in 0..1.
    """
    wide = canvas.size + 2 * reach  # a margin takes what falls outside
    near = torch.arange(-reach, reach + 1, device=canvas.device)
    base = points.floor()
    apart = (near + 0.5 - (points - base)[..., None]).square()  # (n, p, 2, k)
    far = (apart[:, :, 1, :, None] + apart[:, :, 0, None, :]).sqrt()  # (n, p, k, k)
    cover = (radius[..., None, None] + 0.5 - far).clamp_(0, 1) * strength[..., None, None]
    inside = ((base >= 0) & (base < canvas.size)).all(-1)
    corner = (base.clamp(0, canvas.size - 1) + reach).long()
    shift = near[:, None] * wide + near
    index = (corner[..., 1] * wide + corner[..., 0])[..., None, None] + shift
    cover = cover * inside[..., None, None]
    sheet = torch.zeros(points.shape[0], wide * wide, device=canvas.device)
    sheet.scatter_reduce_(1, index.flatten(1), cover.flatten(1), reduce="amax")
    return sheet.reshape(-1, wide, wide)[:, reach:-reach, reach:-reach]


def walk(
    canvas: Canvas,
    start: Tensor,
    heading: Tensor,
    length: Tensor,
    *,
    wiggle: Tensor,
    bend: Tensor,
    steps: int = 256,
) -> tuple[Tensor, Tensor]:
    """A line that wanders. There may be several for each picture: n is then a multiple.

    Args:
        start: (n, 2) in pixels.
        heading: (n, 1) radians.
        length: (n, 1) pixels.
        wiggle: (n, 1) how far the heading strays at each of 24 knots, radians.
        bend: (n, 1) steady turning over the whole length, radians.

    Returns:
        points (n, steps, 2) and headings (n, steps).
    """
    knots = 24
    turns = canvas.randn(start.shape[0], knots) * wiggle
    angle = heading + torch.linspace(0, 1, knots, device=canvas.device) * bend + turns
    angle = torch.nn.functional.interpolate(angle[:, None], size=steps, mode="linear")[:, 0]
    move = torch.stack((angle.cos(), angle.sin()), dim=-1) * (length / steps)[..., None]
    return start[:, None] + move.cumsum(1), angle


def taper(canvas: Canvas, steps: int, *, ends: float = 0.25) -> Tensor:
    """(1, steps) from thin to full over the last `ends` of a line."""
    t = torch.linspace(1, 0, steps, device=canvas.device)
    return (t / ends).clamp(max=1)[None]


def to_pixels(canvas: Canvas, x: Tensor, y: Tensor) -> Tensor:
    """Physical (n, p) coordinates to pixels (n, p, 2)."""
    half = canvas.size / 2
    return torch.stack(
        ((x / canvas.wide[:, 0] + 1) * half, (y / canvas.tall[:, 0] + 1) * half), dim=-1
    )
