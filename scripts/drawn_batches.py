"""Draw batches of pictures with captions, for the pretraining of `tiny` and the demo pictures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from faprompt.synthetic.drawn_set import LEAST_SIZE, DrawnBatch, Plan, draw_plans
from faprompt.synthetic.kinds import KindSet, defects_of, objects_of
from scripts.caption_grammar import Finding, write_caption


@dataclass(frozen=True, slots=True)
class CaptionedBatch(DrawnBatch):
    """Drawn pictures with a sentence about each."""

    captions: tuple[str, ...]


def draw_batch(
    count: int,
    *,
    size: int = 240,
    seed: int,
    kinds: KindSet = "train",
    anomaly_share: float = 0.5,
    views: int = 1,
) -> CaptionedBatch:
    """Draw pictures of things, about `anomaly_share` of them with one defect each.

    Args:
        count: pictures in the batch.
        size: side in pixels, at least 32.
        seed: the same seed gives the same batch.
        kinds: which things and defects may appear, see `objects_of`.
        anomaly_share: chance of a defect, 0..1.
        views: pictures drawn of each single thing; they differ in defect, side up, light and
            camera. More than one saves time and sets damaged things beside their sound twins.

    Returns:
        A batch whose masks are empty exactly where the label is 0.

    Raises:
        ValueError: a count or views below 1, a size below 32, a share outside 0..1, an unknown set.

    Example:
        >>> batch = draw_batch(2, size=64, seed=1, anomaly_share=1.0)
        >>> batch.images.shape, batch.masks.flatten(1).any(1).tolist()
        (torch.Size([2, 3, 64, 64]), [True, True])
    """
    for name, value in (("count", count), ("views", views)):
        if value < 1:
            raise ValueError(f"{name} should be at least 1, got {value}.")
    if size < LEAST_SIZE:
        raise ValueError(f"size should be at least {LEAST_SIZE} pixels, got {size}.")
    if not 0 <= anomaly_share <= 1:
        raise ValueError(f"anomaly_share should be in 0..1, got {anomaly_share}.")
    host = random.Random(f"faprompt-{seed}")
    plans = plan_batch(count, host, kinds=kinds, anomaly_share=anomaly_share, views=views)
    words = random.Random(copy(host).getrandbits(62))  # the number that `draw_plans` leaves unused
    batch = draw_plans(plans, size=size, host=host)
    known = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return CaptionedBatch(**known, captions=_captions(plans, batch.masks, words))


def plan_batch(
    count: int, host: random.Random, *, kinds: KindSet, anomaly_share: float, views: int = 1
) -> list[Plan]:
    """Choose thing, defect and colour of every picture."""
    things, defects = objects_of(kinds), defects_of(kinds)
    many = -(-count // views)
    plans: list[Plan] = []
    for number, kind in enumerate(host.choices(things, [kind.weight for kind in things], k=many)):
        fitting = [defect for defect in defects if defect.fits(kind)]
        weights = [defect.weight for defect in fitting]
        grey = host.random() >= kind.colourful
        for _ in range(min(views, count - len(plans))):
            chosen = host.choices(fitting, weights)[0].name
            name = chosen if host.random() < anomaly_share else ""
            plans.append(Plan(kind, number, name, grey))
    return plans


def _captions(plans: Sequence[Plan], masks: Tensor, host: random.Random) -> tuple[str, ...]:
    """One sentence a picture; place and size of each defect are read from its mask."""
    inside = masks.float()
    height, width = masks.shape[1:]
    total = inside.sum((1, 2))
    rows = inside.sum(2) @ torch.arange(height, dtype=torch.float32)
    columns = inside.sum(1) @ torch.arange(width, dtype=torch.float32)
    centre = torch.stack((rows / height, columns / width), 1) / total.clamp(min=1)[:, None]
    facts = torch.cat((centre, total[:, None] / (height * width)), 1).tolist()
    return tuple(
        write_caption(plan.kind.name, Finding(plan.defect, *fact) if plan.defect else None, host)
        for plan, fact in zip(plans, facts, strict=True)
    )
