"""Remarks on a dataset: what a reader of its metrics should know, one line for each remark.

`datasets check`, `evaluate`, `train` and `benchmark` take their remarks from here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from faprompt.data.dataset import Dataset
from faprompt.data.masks import MaskPolicy, read_mask
from faprompt.data.picture_files import examples, path_examples, relative_name
from faprompt.errors import FapromptError
from faprompt.files import file_digest, natural_key
from faprompt.records import Sample

_LARGE = 0.5  # share of a picture; a mask that marks more of it may be inverted
_VERY_LARGE, _SMALL = 0.75, 0.25  # no share lies between them if a few masks are inverted


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """The facts on the files of one sample that remarks are made from."""

    sample: Sample
    digest: str = ""  # SHA-256 of the picture file; "" if it cannot be opened
    marked: float | None = None  # share of the pixels that the mask marks; None without a mask
    error: str = ""  # why the picture cannot be read


def dataset_remarks(dataset: Dataset, facts: Sequence[PictureFacts]) -> tuple[str, ...]:
    """Return all remarks on a dataset; `facts` are those on its samples, in any order."""
    root, kept, left_out = dataset.root, dataset.class_names(), dataset.left_out_classes
    lines = list(dataset.warnings)
    if left_out:
        both = len(kept) + len(left_out)
        lines.append(f"{len(kept)} of {both} classes are used: {', '.join(kept)}")
    if lost := dict.fromkeys(fact.sample.image_path for fact in facts if fact.error):
        lines.append(f"{len(lost)} unreadable, left out: {path_examples(lost, root)}")
    return (
        *lines,
        *contradiction_remarks(root, facts),
        *copy_remarks(root, facts),
        *_pixel_remarks(facts),
        *blank_remarks(root, facts),
        *inverted_remarks(facts),
    )


def read_facts(samples: Iterable[Sample], *, policy: MaskPolicy) -> list[PictureFacts]:
    """Read the facts on samples whose files are not open yet.

    Picture files are hashed, not decoded; masks are decoded. An unreadable mask counts as a
    missing one: its later use raises the error.
    """
    return [_read_facts(sample, policy) for sample in samples]


def contradiction_remarks(root: Path, facts: Iterable[PictureFacts]) -> Iterator[str]:
    """Name files of equal content that are labelled both normal and anomalous."""
    groups = [_joined(group, root) for group, labels in find_copies(facts) if len(labels) > 1]
    if groups:
        yield f"{len(groups)} with equal content, normal and anomalous at once: {examples(groups)}"


def copy_remarks(root: Path, facts: Iterable[PictureFacts]) -> Iterator[str]:
    """Name files of equal content and equal label."""
    groups = [group for group, labels in find_copies(facts) if len(labels) == 1]
    if groups:
        surplus = sum(len(group) - 1 for group in groups)
        named = examples((_joined(group, root) for group in groups), limit=3)
        yield f"{surplus} exact copies in {len(groups)} groups: {named}"


def blank_remarks(root: Path, facts: Iterable[PictureFacts]) -> Iterator[str]:
    """Name anomalous pictures whose mask marks nothing."""
    blank = [fact.sample.image_path for fact in facts if fact.sample.label and fact.marked == 0]
    if blank:
        yield f"masks without a single marked pixel: {path_examples(blank, root)}"


def inverted_remarks(facts: Iterable[PictureFacts]) -> Iterator[str]:
    """Name the classes whose masks look inverted.

    A large defect is possible: a skin lesion or a fault of a texture may fill a picture. So a
    class is named in two cases only: more than half of its masks mark more than half of their
    picture; or a few masks mark more than three quarters and all others less than one quarter.
    """
    shares: dict[str, list[float]] = defaultdict(list)
    for fact in facts:
        if fact.sample.label and fact.marked:
            shares[fact.sample.class_name].append(fact.marked)
    for name in sorted(shares, key=natural_key):
        if large := _inverted(shares[name]):
            yield (
                f"class {name}: {len(large)} of {len(shares[name])} masks mark most of their "
                f"picture ({100 * median(large):.0f} % in the median); if they are inverted, "
                "exchange black and white"
            )


def _inverted(shares: Sequence[float]) -> list[float]:
    """Return the shares of the masks of one class that look inverted."""
    large = [share for share in shares if share > _LARGE]
    if 2 * len(large) > len(shares):
        return large
    apart = all(share > _VERY_LARGE or share < _SMALL for share in shares)
    return large if apart else []


def _pixel_remarks(facts: Iterable[PictureFacts]) -> Iterator[str]:
    """Name the classes in which only some anomalous pictures have a mask."""
    masked: dict[str, list[bool]] = defaultdict(list)
    for fact in facts:
        if fact.sample.label and not fact.error:
            masked[fact.sample.class_name].append(fact.marked is not None)
    partly = [
        f"{name} {sum(masked[name])} of {len(masked[name])}"
        for name in sorted(masked, key=natural_key)
        if 0 < sum(masked[name]) < len(masked[name])
    ]
    if partly:
        named = examples(partly)
        yield f"anomalous pictures with a mask, which alone count in pixel metrics: {named}"


def _read_facts(sample: Sample, policy: MaskPolicy) -> PictureFacts:
    try:
        digest = file_digest(sample.image_path)
    except OSError as error:
        return PictureFacts(sample, error=str(error))
    if not sample.has_pixel_label:
        return PictureFacts(sample, digest)
    try:
        marked = float(read_mask(sample, policy=policy).mean()) if sample.label else 0.0
    except FapromptError:
        marked = None
    return PictureFacts(sample, digest, marked)


def find_copies(facts: Iterable[PictureFacts]) -> list[tuple[tuple[Path, ...], set[int]]]:
    """Return the groups of readable files with equal content, and the labels of each group."""
    labels: dict[str, dict[Path, int]] = defaultdict(dict)  # digest -> file -> label
    for fact in facts:
        if fact.digest and not fact.error:
            own, path = labels[fact.digest], fact.sample.image_path
            own[path] = max(fact.sample.label, own.get(path, 0))  # 1 if any region is anomalous
    return [(tuple(own), set(own.values())) for own in labels.values() if len(own) > 1]


def _joined(group: Iterable[Path], root: Path) -> str:
    return " = ".join(relative_name(path, root) for path in group)
