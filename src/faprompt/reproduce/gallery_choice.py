"""Choose the pictures of a gallery: drawn from a seed, never by how a method scores them."""

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
from faprompt.reproduce.experiment_parts import GalleryOptions

Group = Literal["pictures", "several"]
SPECK = 1e-4  # of a picture's area: smaller parts of a mask are slips of a brush, not defects


@dataclass(frozen=True, slots=True)
class Chosen:
    """A picture to show."""

    sample: Sample
    group: Group
    why: str
    parts: int | None = None  # of its mask, where they were counted


def choose_pictures(
    dataset: Dataset, options: GalleryOptions, *, policy: MaskPolicy = "any-channel"
) -> tuple[Chosen, ...]:
    """Choose anomalous and normal pictures of each class, then those with several defects.

    Kinds of defect take turns. The seed draws their order and the pictures of each kind. Where
    any picture of a class has a mask, only pictures with a mask are drawn. Each class draws for
    itself, so its choice does not depend on the other classes. `policy` is that of `read_mask`.
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
    """Draw one picture of each kind of defect in turn, until there are enough."""
    anomalous = [sample for sample in samples if sample.label]
    kinds: dict[str, list[Sample]] = {}
    for sample in [s for s in anomalous if _has_mask(s)] or anomalous:
        kinds.setdefault(sample.defect_type, []).append(sample)
    turns = list(kinds)
    draw.shuffle(turns)
    for members in kinds.values():
        draw.shuffle(members)
    rounds = [
        Chosen(
            kinds[kind][turn], "pictures", f"{_words(kind)}, drawn from {len(kinds[kind])} pictures"
        )
        for turn in range(max(map(len, kinds.values()), default=0))
        for kind in turns
        if turn < len(kinds[kind])
    ]
    return rounds[:count]


def _several(dataset: Dataset, count: int, policy: MaskPolicy) -> list[Chosen]:
    """Choose masks with most parts: the first of each class, then the second, and so on."""
    if not count:
        return []
    rows: list[tuple[int, int, int, Chosen]] = []
    for place, name in enumerate(dataset.class_names()):
        own = (s for s in dataset.samples if s.class_name == name and s.label and _has_mask(s))
        ranked = sorted(_with_parts(own, policy), key=lambda chosen: -(chosen.parts or 0))
        rows += [(rank, -(c.parts or 0), place, c) for rank, c in enumerate(ranked[:count])]
    return [row[-1] for row in sorted(rows, key=lambda row: row[:-1])[:count]]


def _with_parts(samples: Iterable[Sample], policy: MaskPolicy) -> list[Chosen]:
    chosen = []
    for sample in samples:
        try:
            parts = count_parts(read_mask(sample, policy=policy), least_share=SPECK)
        except FapromptError:  # neither mask nor picture to show
            continue
        if parts > 1:
            why = f"{_words(sample.defect_type)}, its mask has {parts} parts"
            chosen.append(Chosen(sample, "several", why, parts))
    return chosen


def _has_mask(sample: Sample) -> bool:
    return sample.has_pixel_label and bool(sample.mask_paths)


def _words(kind: str) -> str:
    return kind.replace("_", " ") or "anomalous"
