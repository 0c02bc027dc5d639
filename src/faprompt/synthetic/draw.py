"""One call, one batch: pictures, masks, labels and captions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.synthetic.captions import Finding, write_caption
from faprompt.synthetic.capture import photograph
from faprompt.synthetic.fields import Canvas
from faprompt.synthetic.kinds import KindSet, ObjectKind, defects_of, objects_of
from faprompt.synthetic.scene import damage, paint, turn_over

LEAST_SIZE = 32


@dataclass(frozen=True, slots=True)
class SyntheticBatch:
    """Drawn pictures with everything that is known about them."""

    images: Tensor  # (B, 3, size, size) float32 in 0..1
    masks: Tensor  # (B, size, size) bool, True on the defect
    labels: Tensor  # (B,) int64, 1 with a defect
    captions: tuple[str, ...]
    object_kinds: tuple[str, ...]
    defect_kinds: tuple[str, ...]  # "" for normal pictures


@dataclass(frozen=True, slots=True)
class Plan:
    """What one picture of a batch shall show."""

    kind: ObjectKind
    thing: int  # pictures with the same number show the very same thing
    defect: str  # "" for normal
    grey: bool


def draw_batch(
    count: int,
    *,
    size: int = 240,
    seed: int,
    kinds: KindSet = "train",
    device: str | torch.device = "cpu",
    anomaly_share: float = 0.5,
    views: int = 1,
) -> SyntheticBatch:
    """Draw pictures of things, about `anomaly_share` of them with one defect each.

    Args:
        count: pictures in the batch.
        size: side in pixels, at least 32.
        seed: the same seed on the same kind of device gives the same batch.
        kinds: which kinds of things and defects may appear: "train" and "aux" leave out the
            test family, "test" shows nothing else, "all" shows everything.
        device: where to draw.
        anomaly_share: chance of a defect, 0..1.
        views: pictures drawn of each single thing; they differ in defect, side up, light and
            camera. More than one saves time and sets damaged things beside their sound twins.

    Returns:
        A SyntheticBatch. A mask is empty exactly where the label is 0.

    Raises:
        ValueError: a count or views below 1, a size below 32, a share outside 0..1, an unknown set.

    Example:
        >>> batch = draw_batch(2, size=64, seed=1, anomaly_share=1.0)
        >>> batch.images.shape, batch.masks.flatten(1).any(1).tolist()
        (torch.Size([2, 3, 64, 64]), [True, True])
    """
    _check(count, size, anomaly_share, views)
    host = random.Random(f"faprompt-{seed}")
    plans = plan_batch(count, host, kinds=kinds, anomaly_share=anomaly_share, views=views)
    return draw_plans(plans, size=size, host=host, device=device)


@torch.no_grad()
def draw_plans(
    plans: Sequence[Plan], *, size: int, host: random.Random, device: str | torch.device = "cpu"
) -> SyntheticBatch:
    """Draw planned pictures; every die is thrown by `host` or by a generator that it seeds."""
    place = torch.device(device)
    words = random.Random(host.getrandbits(62))
    generator = torch.Generator(device=place).manual_seed(host.getrandbits(62))
    images = torch.empty(len(plans), 3, size, size, device=place)
    masks = torch.zeros(len(plans), size, size, dtype=torch.bool, device=place)
    for rows in _groups(plans):
        index = torch.tensor(rows, device=place)
        group = [plans[row] for row in rows]
        pictures, masks[index] = _draw_group(group, size, generator, host)
        images[index] = pictures.expand(-1, 3, -1, -1)
    return SyntheticBatch(
        images=images,
        masks=masks,
        labels=torch.tensor([int(bool(plan.defect)) for plan in plans], device=place),
        captions=_describe(plans, masks, words),
        object_kinds=tuple(plan.kind.name for plan in plans),
        defect_kinds=tuple(plan.defect for plan in plans),
    )


def _draw_group(
    group: Sequence[Plan], size: int, generator: torch.Generator, host: random.Random
) -> tuple[Tensor, Tensor]:
    """Pictures (n, c, size, size) and masks of one kind of thing, all grey or all coloured."""
    kind, channels = group[0].kind, 1 if group[0].grey else 3
    things = list(dict.fromkeys(plan.thing for plan in group))
    sheet = Canvas(len(things), size, generator=generator, host=host, channels=channels)
    content = paint(sheet, kind)
    canvas = sheet
    if len(things) < len(group):
        which = torch.tensor([things.index(plan.thing) for plan in group], device=sheet.device)
        canvas, content = sheet.take(which), content.take(which)
    scene = damage(canvas, content, [plan.defect for plan in group])
    scan = kind.sort == "scan"
    pictures, masks = turn_over(canvas, scene.damaged, scene.masks, upright=scan)
    return photograph(canvas, pictures, even=scan), masks


def _describe(plans: Sequence[Plan], masks: Tensor, host: random.Random) -> tuple[str, ...]:
    """Captions, with the place and size of each defect read from its mask."""
    inside = masks.float()
    height, width = masks.shape[1:]
    total = inside.sum((1, 2))
    rows = inside.sum(2) @ torch.arange(height, device=masks.device, dtype=torch.float32)
    columns = inside.sum(1) @ torch.arange(width, device=masks.device, dtype=torch.float32)
    centre = torch.stack((rows / height, columns / width), 1) / total.clamp(min=1)[:, None]
    facts = torch.cat((centre, total[:, None] / (height * width)), 1).tolist()
    return tuple(
        write_caption(plan.kind.name, Finding(plan.defect, *fact) if plan.defect else None, host)
        for plan, fact in zip(plans, facts, strict=True)
    )


def _check(count: int, size: int, anomaly_share: float, views: int) -> None:
    for name, value in (("count", count), ("views", views)):
        if value < 1:
            raise ValueError(f"{name} should be at least 1, got {value}.")
    if size < LEAST_SIZE:
        raise ValueError(f"size should be at least {LEAST_SIZE} pixels, got {size}.")
    if not 0 <= anomaly_share <= 1:
        raise ValueError(f"anomaly_share should be in 0..1, got {anomaly_share}.")


def plan_batch(
    count: int, host: random.Random, *, kinds: KindSet, anomaly_share: float, views: int = 1
) -> list[Plan]:
    """Choose thing, defect and colour of every picture."""
    things, defects = objects_of(kinds), defects_of(kinds)
    many = -(-count // views)
    plans: list[Plan] = []
    for number, kind in enumerate(host.choices(things, [kind.weight for kind in things], k=many)):
        fitting = [defect for defect in defects if defect.may_befall(kind)]
        weights = [defect.weight for defect in fitting]
        grey = host.random() >= kind.colourful
        for _ in range(min(views, count - len(plans))):
            chosen = host.choices(fitting, weights)[0].name
            name = chosen if host.random() < anomaly_share else ""
            plans.append(Plan(kind, number, name, grey))
    return plans


def _groups(plans: Sequence[Plan]) -> list[list[int]]:
    """Rows that show one kind of thing, all grey or all coloured, are drawn together."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for row, plan in enumerate(plans):
        groups.setdefault((plan.kind.name, plan.grey), []).append(row)
    return list(groups.values())
