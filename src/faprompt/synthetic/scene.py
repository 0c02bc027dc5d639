"""One kind of thing on a sheet, then its defects: everything before the camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.synthetic.capture import cut_by_frame, turn_texture
from faprompt.synthetic.clutter import add_clutter
from faprompt.synthetic.content import Content
from faprompt.synthetic.defects import (
    bright_lesion,
    broken_pattern,
    colour_change,
    contamination,
    crack,
    dark_lesion,
    deformation,
    dent,
    missing_part,
    pore,
    scratch,
    shifted_pattern,
    stain,
)
from faprompt.synthetic.fields import Canvas
from faprompt.synthetic.kinds import ObjectKind
from faprompt.synthetic.layouts import LAYOUTS
from faprompt.synthetic.objects import OBJECTS
from faprompt.synthetic.openings import burn, hole, swelling, tear, thread
from faprompt.synthetic.scans import SCANS
from faprompt.synthetic.scopes import SCOPES
from faprompt.synthetic.spots import LEAST_ALPHA, MASK_ALPHA, Maker, Spot, find_spot
from faprompt.synthetic.textures import TEXTURES, Painter

PAINTERS: dict[str, Painter] = {**TEXTURES, **LAYOUTS, **OBJECTS, **SCANS, **SCOPES}
MAKERS: dict[str, Maker] = {
    maker.__name__.replace("_", " "): maker
    for maker in (
        scratch, crack, pore, stain, dent, contamination, missing_part, broken_pattern,
        shifted_pattern, colour_change, deformation, bright_lesion, dark_lesion,
        hole, tear, burn, thread, swelling,
    )
}  # fmt: skip
AT_EDGE = ("deformation", "missing part")  # mostly at the outline of a thing
LEAST_PIXELS = 8  # a defect smaller than this is drawn again as a blunt spot


@dataclass(frozen=True, slots=True)
class Scene:
    """Pictures before the camera: with their defects, and their clean twins."""

    clean: Tensor  # (n, c, size, size) in 0..1
    damaged: Tensor
    masks: Tensor  # (n, size, size) bool


def paint(canvas: Canvas, kind: ObjectKind) -> Content:
    """Clean pictures of one kind of thing, cut by the frame as it may happen."""
    content = PAINTERS[kind.name](canvas)
    image = content.image
    if kind.sort == "texture":
        image = turn_texture(canvas, image, share=0.25)
    if kind.sort == "texture" and canvas.maybe(0.25):
        image = add_clutter(canvas, image)
    if kind.sort in ("texture", "layout") and canvas.maybe(0.6 if "metal" in kind.name else 0.25):
        image = cut_by_frame(canvas, image)
    return Content(image=image.clamp(0, 1), ground=content.ground, behind=content.behind)


def damage(canvas: Canvas, content: Content, defects: Sequence[str]) -> Scene:
    """Lay the named defect on each clean picture; "" leaves it clean."""
    damaged = content.image.clone()
    masks = torch.zeros_like(content.ground, dtype=torch.bool)
    for name in dict.fromkeys(name for name in defects if name):
        rows = torch.tensor(
            [row for row, n in enumerate(defects) if n == name], device=masks.device
        )
        part, clean = canvas.take(rows), content.take(rows)
        spot = find_spot(part, clean, at_edge=0.6 if name in AT_EDGE else 0.0)
        changed, alpha = MAKERS[name](part, clean, spot)
        changed, alpha = _make_sure(part, clean.image, changed.clamp(0, 1), alpha, spot)
        seen = (alpha > LEAST_ALPHA)[:, None]
        damaged[rows] = torch.where(seen, changed, clean.image)
        masks[rows] = alpha > MASK_ALPHA
    return Scene(clean=content.image, damaged=damaged, masks=masks)


def turn_over(
    canvas: Canvas, images: Tensor, masks: Tensor, *, upright: bool
) -> tuple[Tensor, Tensor]:
    """Mirror about half of the pictures each way, in place; upright ones only left to right."""
    for axis in (-1,) if upright else (-1, -2):
        chosen = [row for row in range(canvas.count) if canvas.host.random() < 0.5]
        if chosen:
            rows = torch.tensor(chosen, device=masks.device)
            images[rows] = images[rows].flip(axis)
            masks[rows] = masks[rows].flip(axis)
    return images, masks


def _make_sure(
    canvas: Canvas, clean: Tensor, changed: Tensor, alpha: Tensor, spot: Spot
) -> tuple[Tensor, Tensor]:
    """Where a defect came out too small or invisible, put a blunt spot there instead."""
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
