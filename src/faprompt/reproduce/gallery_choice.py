"""Which pictures a gallery shows: drawn from a seed, never by what a method makes of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from faprompt.data import Dataset
from faprompt.data.masks import MaskPolicy, read_mask
from faprompt.errors import FapromptError
from faprompt.evaluation.causes import count_parts
from faprompt.records import Sample
from faprompt.reproduce.study_config import GalleryOptions

Group = Literal["pictures", "several"]
SPECK = 1e-4  # of a picture's area: smaller parts of a mask are a brush's slips, not defects


@dataclass(frozen=True, slots=True)
class Chosen:
    """A picture to be shown."""

    sample: Sample
    group: Group
    why: str
    parts: int | None = None  # of its mask, where they were counted


def choose_pictures(
    dataset: Dataset, options: GalleryOptions, *, policy: MaskPolicy = "any-channel"
) -> tuple[Chosen, ...]:
    """Class by class some anomalous pictures and some normal ones, then those of several defects.

    Kinds of defect take turns, in an order that the seed draws, as it draws the pictures of
    each kind. Where any of a class has a mask, only those that have one are drawn. A class
    draws for itself, so what is chosen of it does not depend on the others.

    Args:
        policy: of reading masks, see `read_mask`.
    """
    chosen: list[Chosen] = []
    for name in dataset.class_names():
        samples = [sample for sample in dataset.samples if sample.class_name == name]
        draw = random.Random(f"{options.seed}/{dataset.name}/{name}")
        chosen += _anomalous(samples, options.anomalous, draw)
        normal = [sample for sample in samples if not sample.label]
        for sample in draw.sample(normal, min(options.normal, len(normal))):
            chosen.append(Chosen(sample, "pictures", f"normal, drawn from {len(normal)} pictures"))
    return (*chosen, *_several(dataset, options.several, policy))


def _anomalous(samples: Sequence[Sample], count: int, draw: random.Random) -> list[Chosen]:
    """One of each kind in turn, until there are enough."""
    kinds: dict[str, list[Sample]] = {}
    for sample in _masked([sample for sample in samples if sample.label]):
        kinds.setdefault(sample.defect_type, []).append(sample)
    turns = list(kinds)
    draw.shuffle(turns)
    sizes = {kind: len(found) for kind, found in kinds.items()}
    for found in kinds.values():
        draw.shuffle(found)
    rounds = [
        Chosen(kinds[kind][turn], "pictures", f"{_told(kind)}, drawn from {sizes[kind]} pictures")
        for turn in range(max(sizes.values(), default=0))
        for kind in turns
        if turn < sizes[kind]
    ]
    return rounds[:count]


def _several(dataset: Dataset, count: int, policy: MaskPolicy) -> list[Chosen]:
    """Pictures whose masks fall into most parts: the first of each class, then the second."""
    if not count:
        return []
    rows: list[tuple[int, int, int, Chosen]] = []
    for place, name in enumerate(dataset.class_names()):
        own = (s for s in dataset.samples if s.class_name == name and s.label)
        found = sorted(_with_parts(own, policy), key=lambda chosen: -(chosen.parts or 0))
        rows += [(rank, -(c.parts or 0), place, c) for rank, c in enumerate(found[:count])]
    return [row[-1] for row in sorted(rows, key=lambda row: row[:-1])[:count]]


def _with_parts(samples: Iterable[Sample], policy: MaskPolicy) -> list[Chosen]:
    found = []
    for sample in samples:
        if not (sample.has_pixel_label and sample.mask_paths):
            continue
        try:
            parts = count_parts(read_mask(sample, policy=policy), least_share=SPECK)
        except FapromptError:  # neither mask nor picture to show
            continue
        if parts > 1:
            why = f"{_told(sample.defect_type)}, its mask has {parts} parts"
            found.append(Chosen(sample, "several", why, parts))
    return found


def _masked(samples: list[Sample]) -> list[Sample]:
    masked = [sample for sample in samples if sample.has_pixel_label and sample.mask_paths]
    return masked or samples


def _told(kind: str) -> str:
    return kind.replace("_", " ") or "anomalous"
