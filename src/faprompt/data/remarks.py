"""Remarks on a dataset: what to know before trusting its figures, one line for each remark.

`datasets check`, `evaluate`, `train` and `benchmark` all take their remarks from here. The
functions are pure: they judge facts on the files that the caller has read anyway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from faprompt.data.dataset import Dataset
from faprompt.data.masks import MaskPolicy, read_mask
from faprompt.data.picture_files import examples, relative_name
from faprompt.errors import FapromptError
from faprompt.files import file_digest, natural_key
from faprompt.records import Sample

LARGE = 0.5  # share of a picture; a mask that marks more of it may be inverted
_VERY_LARGE, _SMALL = 0.75, 0.25  # shares between which no mask lies when a few are inverted


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """The facts on the files of one sample that remarks are made from."""

    sample: Sample
    digest: str = ""  # SHA-256 of the picture file; "" if it could not be opened
    marked: float | None = None  # share of the pixels that the mask marks; None without a mask
    error: str = ""  # why the picture cannot be read


def dataset_remarks(dataset: Dataset, facts: Sequence[PictureFacts]) -> tuple[str, ...]:
    """List everything worth knowing about a dataset, one line for each remark.

    Args:
        dataset: the dataset that is used.
        facts: of its samples, in any order.
    """
    return (
        *dataset.warnings,
        *class_remarks(dataset),
        *_unreadable_remarks(dataset.root, facts),
        *contradiction_remarks(dataset.root, facts),
        *copy_remarks(dataset.root, facts),
        *_pixel_remarks(facts),
        *blank_remarks(dataset.root, facts),
        *inverted_remarks(facts),
    )


def read_facts(samples: Iterable[Sample], *, policy: MaskPolicy) -> list[PictureFacts]:
    """Read the facts of samples for a caller who has not opened the files yet.

    Picture files are hashed, not decoded; masks are decoded. A mask that cannot be read counts
    as none: whoever uses it raises the error.
    """
    return [_read_facts(sample, policy) for sample in samples]


def _read_facts(sample: Sample, policy: MaskPolicy) -> PictureFacts:
    try:
        digest = file_digest(sample.image_path)
    except OSError as error:
        return PictureFacts(sample, error=str(error))
    return PictureFacts(sample, digest, _marked_share(sample, policy))


def _marked_share(sample: Sample, policy: MaskPolicy) -> float | None:
    if not sample.has_pixel_label:
        return None
    try:
        return float(read_mask(sample, policy=policy).mean()) if sample.label else 0.0
    except FapromptError:
        return None


def class_remarks(dataset: Dataset) -> list[str]:
    """Name the classes that were selected, if some were left out."""
    kept, left_out = dataset.class_names(), dataset.left_out_classes
    if not left_out:
        return []
    return [f"{len(kept)} of {len(kept) + len(left_out)} classes are used: {', '.join(kept)}"]


def contradiction_remarks(root: Path, facts: Iterable[PictureFacts]) -> list[str]:
    """Name files of equal content that are labelled normal here and anomalous there."""
    torn = [group for group, labels in _copies(facts) if len(labels) > 1]
    if not torn:
        return []
    told = examples(" = ".join(relative_name(path, root) for path in group) for group in torn)
    return [f"{len(torn)} with equal content, normal and anomalous at once: {told}"]


def copy_remarks(root: Path, facts: Iterable[PictureFacts]) -> list[str]:
    """Name files of equal content and equal label."""
    copies = [group for group, labels in _copies(facts) if len(labels) == 1]
    if not copies:
        return []
    surplus = sum(len(group) - 1 for group in copies)
    named = (" = ".join(relative_name(path, root) for path in group) for group in copies)
    return [f"{surplus} exact copies in {len(copies)} groups: {examples(named, limit=3)}"]


def find_copies(facts: Iterable[PictureFacts]) -> list[tuple[Path, ...]]:
    """Return the groups of picture files with equal content, unreadable files left out."""
    return [group for group, _ in _copies(facts)]


def blank_remarks(root: Path, facts: Iterable[PictureFacts]) -> list[str]:
    """Name anomalous pictures whose mask marks nothing."""
    blank = [fact for fact in facts if fact.sample.label and fact.marked == 0]
    if not blank:
        return []
    told = examples(relative_name(fact.sample.image_path, root) for fact in blank)
    return [f"masks without a single marked pixel: {told}"]


def inverted_remarks(facts: Iterable[PictureFacts]) -> list[str]:
    """Name the classes whose masks look inverted: class, number of masks and share marked.

    Large defects are real: a skin lesion or a fault of a texture may fill a picture. So a class
    is named in two cases only. Either more than half of its masks mark more than half of their
    picture, or a few masks mark more than three quarters while all others mark less than one
    quarter. Where defects of every size occur, neither holds.
    """
    shares: dict[str, list[float]] = defaultdict(list)
    for fact in facts:
        if fact.sample.label and fact.marked:
            shares[fact.sample.class_name].append(fact.marked)
    lines = []
    for name in sorted(shares, key=natural_key):
        large = _inverted(shares[name])
        if large:
            lines.append(
                f"class {name}: {len(large)} of {len(shares[name])} masks mark most of their "
                f"picture ({100 * median(large):.0f} % in the median); if they are inverted, "
                "exchange black and white"
            )
    return lines


def _inverted(shares: Sequence[float]) -> list[float]:
    """Return the shares of the masks of one class that look inverted."""
    large = [share for share in shares if share > LARGE]
    if 2 * len(large) > len(shares):
        return large
    apart = all(share > _VERY_LARGE or share < _SMALL for share in shares)
    return large if apart else []


def _pixel_remarks(facts: Iterable[PictureFacts]) -> list[str]:
    """Name the classes some of whose anomalous pictures have no mask."""
    masked: dict[str, list[bool]] = defaultdict(list)
    for fact in facts:
        if fact.sample.label and not fact.error:
            masked[fact.sample.class_name].append(fact.marked is not None)
    told = [
        f"{name} {sum(known)} of {len(known)}"
        for name, known in sorted(masked.items(), key=lambda item: natural_key(item[0]))
        if 0 < sum(known) < len(known)
    ]
    if not told:
        return []
    return [f"anomalous pictures with a mask, which alone count in pixel metrics: {examples(told)}"]


def _unreadable_remarks(root: Path, facts: Iterable[PictureFacts]) -> list[str]:
    lost = dict.fromkeys(
        relative_name(fact.sample.image_path, root) for fact in facts if fact.error
    )
    if not lost:
        return []
    return [f"{len(lost)} unreadable, left out: {examples(lost)}"]


def _copies(facts: Iterable[PictureFacts]) -> list[tuple[tuple[Path, ...], set[int]]]:
    """Return groups of files with equal content, and the labels that each group has."""
    labels: dict[Path, int] = {}
    digests: dict[Path, str] = {}
    for fact in facts:
        if fact.digest and not fact.error:
            path = fact.sample.image_path
            digests[path] = fact.digest
            # a picture with one anomalous region is anomalous
            labels[path] = max(fact.sample.label, labels.get(path, 0))
    groups: dict[str, list[Path]] = defaultdict(list)
    for path, digest in digests.items():
        groups[digest].append(path)
    return [
        (tuple(group), {labels[path] for path in group})
        for group in groups.values()
        if len(group) > 1
    ]
