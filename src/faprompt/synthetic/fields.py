"""Functions of fields (n, size, size): steps, blending, shading, blur, distances to shapes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Value = Tensor | float


def smooth_step(value: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Return 0 below `low`, 1 above `high`, an S between."""
    t = ((value - low) / (high - low)).clamp_(0, 1)
    return (t * -2).add_(3).mul_(t).mul_(t)


def below(value: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Return 1 below `low`, 0 above `high`, an S between."""
    return 1 - smooth_step(value, low, high)


def mix(field: Tensor, other: Value, share: Tensor) -> Tensor:
    """Return `field` where the share is 0, `other` where it is 1."""
    return field + (other - field) * share


def relief(height: Tensor, light: Tensor) -> Tensor:
    """Shade a height field under light from the angle `light`."""
    dx = F.pad(height[..., 2:] - height[..., :-2], (1, 1))
    dy = F.pad(height[..., 2:, :] - height[..., :-2, :], (0, 0, 1, 1))
    return dx * light.cos() + dy * light.sin()


def soften(field: Tensor, radius: int) -> Tensor:
    """Blur (n, size, size) or (n, c, size, size) by a box; radius in pixels."""
    if radius < 1:
        return field
    flat = field if field.ndim == 4 else field[:, None]
    if radius == 1:
        flat = F.pad(flat, (1, 1, 1, 1), mode="replicate")
        flat = flat[..., :-2] + flat[..., 1:-1] + flat[..., 2:]
        flat = (flat[:, :, :-2] + flat[:, :, 1:-1] + flat[:, :, 2:]) * (1 / 9)
    else:
        side = 2 * radius + 1
        total = F.pad(flat, (radius + 1, radius, 0, 0), mode="replicate").cumsum(3)
        rows = (total[..., side:] - total[..., :-side]) / side
        total = F.pad(rows, (0, 0, radius + 1, radius), mode="replicate").cumsum(2)
        flat = (total[:, :, side:] - total[:, :, :-side]) / side
    return flat if field.ndim == 4 else flat[:, 0]


def warp(image: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """Read an image (n, c, s, s) at each pixel plus a shift in pixels (n, s, s)."""
    count, _, height, width = image.shape
    xs = (torch.arange(width) + 0.5) * (2 / width) - 1
    ys = (torch.arange(height) + 0.5) * (2 / height) - 1
    across = (xs.reshape(1, 1, -1) + shift_x * (2 / width)).expand(count, height, width)
    down = (ys.reshape(1, -1, 1) + shift_y * (2 / height)).expand(count, height, width)
    grid = torch.stack((across, down), dim=-1)
    return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def in_cell(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the place of each pixel in its unit cell, -0.5..0.5 from the middle."""
    return u - u.floor() - 0.5, v - v.floor() - 0.5


def line_at(value: Tensor, place: Value, half: Value, soft: float = 0.012) -> Tensor:
    """Return 1 on a line of this half width, 0 off it."""
    return below((value - place).abs(), half - soft / 2, half + soft / 2)


def box(u: Tensor, v: Tensor, half_u: Value, half_v: Value, soft: float = 0.02) -> Tensor:
    """Return 1 inside an upright box around the origin."""
    return below(torch.maximum(u.abs() - half_u, v.abs() - half_v), -soft / 2, soft / 2)


def round_box(u: Tensor, v: Tensor, half_u: Value, half_v: Value, corner: Value) -> Tensor:
    """Return the signed distance to a box with rounded corners around the origin."""
    du, dv = u.abs() - half_u + corner, v.abs() - half_v + corner
    outer = torch.hypot(du.clamp(min=0), dv.clamp(min=0))
    return outer + torch.maximum(du, dv).clamp(max=0) - corner


def fold(u: Tensor, v: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Fold polar coordinates into `count` equal sectors: angle from the middle, radius."""
    sector = 2 * math.pi / count
    angle = torch.atan2(v, u)
    return (angle + sector / 2).remainder(sector) - sector / 2, torch.hypot(u, v)
