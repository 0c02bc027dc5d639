"""The camera: borders and turned surfaces, light, blur, noise, contrast, compression."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.synthetic.canvas import Canvas
from faprompt.synthetic.fields import mix, smooth_step, soften

_BLOCK = 8


def photograph(canvas: Canvas, scene: Tensor, *, even: bool = False) -> Tensor:
    """Turn scenes (n, c, size, size), about 0..1, into pictures in 0..1; scans have even light."""
    image = scene * _light(canvas, even)[:, None]
    image = _focus(canvas, image)
    image = image + canvas.white()[:, None] * canvas.log_uniform(0.002, 0.022)[:, None]
    image = _grade(canvas, image, even)
    return _compress(canvas, image).clamp(0, 1)


def _light(canvas: Canvas, even: bool) -> Tensor:
    u, v = canvas.x / canvas.wide, canvas.y / canvas.tall
    angle = canvas.uniform(0, 2 * math.pi)
    slope = (u * angle.cos() + v * angle.sin()) * canvas.uniform(0, 0.35)
    cloud = canvas.noise((0.6, 2)) * canvas.uniform(0, 0.15)
    dark = (u.square() + v.square()) * canvas.uniform(0, 0.3) * canvas.chance(0.4)
    return (1 + (slope + cloud - dark) * (0.15 if even else 1.0)).clamp(min=0.1)


def _focus(canvas: Canvas, image: Tensor) -> Tensor:
    if canvas.host.random() < 0.35:
        return image
    return mix(image, soften(image, 1), canvas.uniform(0, 1)[:, None])


def _grade(canvas: Canvas, image: Tensor, even: bool) -> Tensor:
    """Contrast around the mean, exposure without burnt highlights, a bent tone curve."""
    sample = image[..., ::3, ::3]
    mean = sample.mean((1, 2, 3), keepdim=True)
    spread = (sample - mean).square_().mean((1, 2, 3), keepdim=True).sqrt_()
    gain = canvas.log_uniform(0.75, 1.3 if even else 1.6)[:, None]
    dim = canvas.chance(0.2) > 0
    level = torch.where(dim, canvas.uniform(0.55, 0.85), canvas.uniform(0.85, 1.2))
    brightest = (mean + 2.3 * gain * spread) * level[:, None]
    level = level[:, None] * (canvas.uniform(0.85, 1.1)[:, None] / brightest).clamp(max=1)
    image = (((image - mean) * gain + mean) * level).clamp(0, 1)
    return image + canvas.uniform(-0.35, 0.35)[:, None] * image * (1 - image)


def _compress(canvas: Canvas, image: Tensor) -> Tensor:
    """Round the 8 x 8 cosine coefficients, as JPEG does, in a share of the batches."""
    size = canvas.size
    if size % _BLOCK or canvas.host.random() > 0.2:
        return image
    basis = _cosines()
    rows = (-1, _BLOCK, size)  # strips of eight lines
    waves = (basis @ image.reshape(rows)).reshape(-1, _BLOCK) @ basis.T
    index = torch.arange(_BLOCK)
    coarse = (1 + index[:, None] + index) * canvas.log_uniform(0.004, 0.03)
    coarse = coarse.repeat(1, 1, size // _BLOCK)[:, None]  # (n, 1, 8, size)
    strips = waves.reshape(canvas.count, -1, _BLOCK, size)
    strips = (strips / coarse).round_() * coarse
    back = (strips.reshape(-1, _BLOCK) @ basis).reshape(rows)
    return (basis.T @ back).reshape(image.shape)


def _cosines() -> Tensor:
    k = torch.arange(_BLOCK, dtype=torch.float32)
    basis = torch.cos(math.pi / _BLOCK * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    return basis


def cut_by_frame(canvas: Canvas, image: Tensor) -> Tensor:
    """Draw dark seams, lit rims and worn ends at the border of a part; they are no defects."""
    u, v = canvas.x / canvas.wide, canvas.y / canvas.tall
    out = image
    for value, other in ((u, v), (-u, v), (v, u), (-v, u)):
        depth = canvas.log_uniform(0.01, 0.14)
        sag = depth * (0.35 * canvas.noise((0.7, 4)) + canvas.uniform(-0.5, 0.5) * other)
        seam = smooth_step(value + sag, 1 - depth, 1 - depth + canvas.log_uniform(0.006, 0.06))
        rim = smooth_step(value + sag, 1 - depth * 2.2, 1 - depth) * (1 - seam)
        on = canvas.chance(0.3)
        out = out * (1 + rim * on * canvas.uniform(-0.3, 0.5))[:, None]
        out = out * (1 - seam * on * canvas.uniform(0.4, 0.95))[:, None]
    return out


def turn_texture(canvas: Canvas, image: Tensor, *, share: float) -> Tensor:
    """Turn a share of the surfaces by any angle, enlarged so that no corner is left empty."""
    chosen = [row for row in range(canvas.count) if canvas.maybe(share)]
    if not chosen:
        return image
    rows = torch.tensor(chosen)
    angle = canvas.rand(len(chosen), 1) * (math.pi / 2)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.cat((cos, -sin, zero, sin, cos, zero), 1) / (cos + sin).repeat(1, 6)
    picked = image[rows]
    grid = F.affine_grid(turn.reshape(-1, 2, 3), list(picked.shape), align_corners=False)
    turned = F.grid_sample(picked, grid, padding_mode="reflection", align_corners=False)
    return image.index_copy(0, rows, turned)
