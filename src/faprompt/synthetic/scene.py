"""Scenes and the camera: a thing, its defects, and the picture that is taken of both.

The camera adds borders, turns, light, blur, noise, contrast and compression.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.synthetic import defects, objects, scans, textures
from faprompt.synthetic.canvas import Canvas
from faprompt.synthetic.fields import line_at, mix, smooth_step, soften
from faprompt.synthetic.kinds import DEFECT_KINDS, OBJECT_KINDS, ObjectKind
from faprompt.synthetic.painting import (
    LEAST_ALPHA,
    MASK_ALPHA,
    Content,
    Maker,
    Painter,
    Spot,
    find_spot,
    glyphs,
)

_MODULES = {"texture": textures, "layout": textures, "object": objects, "scan": scans}
PAINTERS: dict[str, Painter] = {
    kind.name: getattr(_MODULES[kind.sort], kind.name.replace(" ", "_")) for kind in OBJECT_KINDS
}
MAKERS: dict[str, Maker] = {
    kind.name: getattr(defects, kind.name.replace(" ", "_")) for kind in DEFECT_KINDS
}
AT_EDGE = ("deformation", "missing part")  # mostly at the outline of a thing
LEAST_PIXELS = 8  # a smaller defect is replaced by a blunt spot
_BLOCK = 8


def paint(canvas: Canvas, kind: ObjectKind) -> Content:
    """Paint clean pictures of one kind of thing; some show the border of the part."""
    content = PAINTERS[kind.name](canvas)
    image = content.image
    if kind.sort == "texture":
        image = turn_texture(canvas, image, share=0.25)
    if kind.sort == "texture" and canvas.maybe(0.25):
        image = add_clutter(canvas, image)
    if kind.sort in ("texture", "layout") and canvas.maybe(0.6 if "metal" in kind.name else 0.25):
        image = cut_by_frame(canvas, image)
    return Content(image.clamp(0, 1), content.ground, content.behind)


def damage(canvas: Canvas, content: Content, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Draw the named defect on each clean picture; "" leaves it clean.

    Returns:
        Pictures (n, c, size, size) in 0..1 and masks (n, size, size) bool.
    """
    damaged = content.image.clone()
    masks = torch.zeros_like(content.ground, dtype=torch.bool)
    for name in dict.fromkeys(filter(None, names)):
        rows = torch.tensor([row for row, n in enumerate(names) if n == name])
        part, clean = canvas.take(rows), content.take(rows)
        spot = find_spot(part, clean, at_edge=0.6 if name in AT_EDGE else 0.0)
        changed, alpha = MAKERS[name](part, clean, spot)
        changed, alpha = _make_visible(part, clean.image, changed.clamp(0, 1), alpha, spot)
        damaged[rows] = torch.where((alpha > LEAST_ALPHA)[:, None], changed, clean.image)
        masks[rows] = alpha > MASK_ALPHA
    return damaged, masks


def _make_visible(
    canvas: Canvas, clean: Tensor, changed: Tensor, alpha: Tensor, spot: Spot
) -> tuple[Tensor, Tensor]:
    """Replace a defect that came out too small or invisible by a blunt spot."""
    inside = (alpha > MASK_ALPHA).float()
    pixels = inside.sum((1, 2))
    change = ((changed - clean).abs().amax(1) * inside).sum((1, 2)) / pixels.clamp(min=1)
    weak = ((pixels < LEAST_PIXELS) | (change < 0.03)).reshape(-1, 1, 1)
    if not bool(weak.any()):
        return changed, alpha
    u, v = (canvas.x - spot.x) / canvas.wide, (canvas.y - spot.y) / canvas.tall
    blunt = (1.4 - torch.hypot(u, v) / (canvas.pixel * canvas.uniform(2.5, 6))).clamp(0, 1)
    tone = torch.where(spot.level > 0.45, spot.level * 0.35, spot.level + 0.4)[:, None]
    plain = clean + (tone - clean) * blunt[:, None]
    return torch.where(weak[:, None], plain, changed), torch.where(weak, blunt, alpha)


def turn_over(
    canvas: Canvas, images: Tensor, masks: Tensor, *, upright: bool
) -> tuple[Tensor, Tensor]:
    """Mirror about half of the pictures each way, in place; upright ones only left to right."""
    for axis in (-1,) if upright else (-1, -2):
        chosen = [row for row in range(canvas.count) if canvas.host.random() < 0.5]
        if chosen:
            rows = torch.tensor(chosen)
            images[rows] = images[rows].flip(axis)
            masks[rows] = masks[rows].flip(axis)
    return images, masks


def add_clutter(canvas: Canvas, image: Tensor) -> Tensor:
    """Add one kind of clutter that is no defect to a batch (n, c, size, size)."""
    maker = canvas.host.choice((_two_halves, _seams, _print, _glare, _shade))
    return image * maker(canvas)[:, None]


def _two_halves(canvas: Canvas) -> Tensor:
    u, _ = canvas.turned(_upright(canvas))
    place = canvas.uniform(-0.7, 0.7)
    step = smooth_step(u, place, place + canvas.log_uniform(0.01, 0.08))
    edge = line_at(u, place, 0.008) * canvas.uniform(-0.4, 0.3)
    return 1 + (step - 0.5) * canvas.uniform(-0.7, 0.7) + edge


def _seams(canvas: Canvas) -> Tensor:
    """Draw equal lines from side to side: joints, rails, folds."""
    u, _ = canvas.turned(_upright(canvas), canvas.log_uniform(0.4, 3))
    far = (u + canvas.uniform(0, 1)).remainder(1.0)
    width = canvas.log_uniform(0.008, 0.08)
    groove = line_at(far, 0.5, width, 0.02) * canvas.uniform(0.1, 0.7)
    lip = line_at(far, 0.5 + 1.6 * width, width * 0.4, 0.02) * canvas.uniform(-0.1, 0.4)
    return 1 - groove + lip


def _print(canvas: Canvas) -> Tensor:
    """Print a few lines of letters in one corner or across."""
    u, v = canvas.turned(_upright(canvas), canvas.log_uniform(5, 16))
    high, wide = canvas.uniform(0.8, 3), canvas.uniform(3, 12)
    window = ((v - canvas.uniform(-6, 6)).abs() < high) * ((u - canvas.uniform(-4, 4)).abs() < wide)
    return 1 + glyphs(canvas, u + 80, v + 80) * window * canvas.uniform(-0.8, 0.6)


def _glare(canvas: Canvas) -> Tensor:
    dx, dy = canvas.x - canvas.uniform(-0.9, 0.9), canvas.y - canvas.uniform(-0.9, 0.9)
    long = canvas.log_uniform(0.3, 3)
    far = torch.hypot(dx * long, dy / long) / canvas.uniform(0.3, 1.0)
    return 1 + torch.exp(-far.square() * 2) * canvas.uniform(0.1, 0.9)


def _shade(canvas: Canvas) -> Tensor:
    u, _ = canvas.turned(canvas.uniform(0, 6.3))
    edge = canvas.uniform(-0.5, 0.8) + 0.1 * canvas.noise((0.7, 2))
    return 1 - smooth_step(u, edge, edge + canvas.log_uniform(0.05, 0.8)) * canvas.uniform(0.1, 0.6)


def _upright(canvas: Canvas) -> Tensor:
    return canvas.pick((0.0, 1.5708)) + canvas.uniform(-0.08, 0.08)


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
