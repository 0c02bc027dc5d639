"""What a folder looks like to us, file by file: the work behind `faprompt datasets check`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faprompt.data.dataset import ClassCount, Dataset
from faprompt.data.facts import DatasetFacts, dataset_facts
from faprompt.data.inspection import FileFacts, inspect_picture
from faprompt.data.masks import read_mask
from faprompt.data.picture_files import examples, relative_name
from faprompt.data.published_counts import MISPRINTS, compare_counts, published_counts
from faprompt.data.registry import read_dataset
from faprompt.data.remarks import (
    PictureFacts,
    blank_remarks,
    contradiction_remarks,
    copy_remarks,
    find_copies,
    inverted_remarks,
)
from faprompt.errors import FapromptError
from faprompt.files import natural_key
from faprompt.records import Sample

Progress = Callable[[int, int], None]  # (pictures done, pictures in all)


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """A dataset's bill of health."""

    dataset: str
    root: Path
    split: str
    reason: str  # what it was recognised by
    classes: Mapping[str, ClassCount]
    published: Mapping[str, tuple[int, int]]  # class -> (normal, anomalous); {} if unpublished
    matches_paper: bool | None  # None where the paper has no such dataset
    problems: tuple[str, ...]  # to be mended; not all of them stand in the way
    warnings: tuple[str, ...]  # to be known
    usable: bool  # figures can be computed from it as it is
    unmasked: tuple[str, ...] = ()  # pictures that miss their mask, all of them
    orphan_masks: tuple[str, ...] = ()  # masks that miss their picture, all of them
    copies: tuple[tuple[str, ...], ...] = ()  # groups of files with equal content
    facts: DatasetFacts | None = None  # source and licence; None for your own pictures

    @property
    def normal(self) -> int:
        """Number of normal pictures."""
        return sum(count.normal for count in self.classes.values())

    @property
    def anomalous(self) -> int:
        """Number of anomalous pictures."""
        return sum(count.anomalous for count in self.classes.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "recognised_by": self.reason,
            "normal": self.normal,
            "anomalous": self.anomalous,
            "classes": {
                name: {
                    "normal": count.normal,
                    "anomalous": count.anomalous,
                    "with_mask": count.with_mask,
                }
                for name, count in self.classes.items()
            },
            "published": {
                name: {"normal": normal, "anomalous": anomalous}
                for name, (normal, anomalous) in self.published.items()
            },
            "matches_paper": self.matches_paper,
            "usable": self.usable,
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "unmasked": list(self.unmasked),
            "orphan_masks": list(self.orphan_masks),
            "copies": [list(group) for group in self.copies],
            "licence": self.facts.licence if self.facts else None,
        }


def check_dataset(
    root: str | Path,
    *,
    dataset: str = "auto",
    split: str = "test",
    subset: str = "paper",
    progress: Progress | None = None,
) -> DatasetCheck:
    """Read a folder as `read_dataset` does, then open every picture and every mask.

    Args:
        root: the dataset's folder, or a list of pictures, as for `read_dataset`.
        dataset: a name of `list_datasets()`, or "auto".
        split: "test" or "train".
        subset: "paper" or "all", as for `read_dataset`.
        progress: called after each picture with (done, all).

    Returns:
        Counts, the paper's beside ours, and what is wrong or odd: lost masks and pictures,
        masks of another size, unreadable files, copies, empty masks, masks that look inverted.

    Raises:
        ConfigError: `dataset` is no name we know.
        DatasetError: the folder cannot be read as a dataset at all.
    """
    found = read_dataset(root, dataset, split=split, subset=subset)
    ledger = _Ledger(found.root)
    for done, sample in enumerate(found.samples, start=1):
        ledger.look_at(sample)
        if progress:
            progress(done, len(found))
    orphans = found.orphan_lines()
    undefined = _undefined(found)
    blocking = found.problems + ledger.mask_problems()
    return DatasetCheck(
        dataset=found.name,
        root=found.root,
        split=split,
        reason=found.reason,
        classes=found.counts(),
        published=published_counts(found.name) if split == "test" else {},
        matches_paper=compare_counts(found.name, found.counts(), split=split).matches,
        problems=blocking + orphans + ledger.picture_problems(),
        warnings=tuple(line for line in found.warnings if line not in orphans)
        + undefined
        + ledger.warnings(found.name),
        usable=not blocking and _has_figures(found, ledger.unreadable),
        unmasked=tuple(relative_name(path, found.root) for path in found.unmasked),
        orphan_masks=tuple(relative_name(path, found.root) for path in found.orphan_masks),
        copies=ledger.copies(),
        facts=dataset_facts(found.name),
    )


def describe(check: DatasetCheck) -> str:
    """The check as plain lines for a terminal."""
    lines = [
        f"{check.dataset}: {check.normal} normal and {check.anomalous} anomalous pictures "
        f"({check.split} split)",
        f"recognised by {check.reason}",
        "",
        *_table(check),
        "",
        f"equals the paper's counts: {_ANSWERS[check.matches_paper]}",
        f"can be evaluated: {_ANSWERS[check.usable]}",
    ]
    if check.facts:
        lines.append(f"licence: {check.facts.licence}")
    for title, found in (("problems", check.problems), ("warnings", check.warnings)):
        lines += [f"{title}:", *(f"  - {line}" for line in found)] if found else []
    return "\n".join(lines)


_ANSWERS = {True: "yes", False: "no", None: "the paper does not have it"}


def _table(check: DatasetCheck) -> list[str]:
    rows: list[tuple[str, ...]] = [("class", "normal", "anomalous", "masks", "paper")]
    names = dict.fromkeys((*check.classes, *_published_classes(check)))
    for name in names:
        count = check.classes.get(name, ClassCount(0, 0, 0))
        numbers = map(str, (count.normal, count.anomalous, count.with_mask))
        rows.append((name, *numbers, _published_cell(check, name)))
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + _aligned(row, wide) for row in rows]


def _aligned(row: tuple[str, ...], wide: list[int]) -> str:
    first, *middle, last = row
    cells = [first.ljust(wide[0])]
    cells += [cell.rjust(width) for cell, width in zip(middle, wide[1:-1], strict=True)]
    return "  ".join([*cells, last]).rstrip()


def _published_classes(check: DatasetCheck) -> tuple[str, ...]:
    """Classes to list even when they are not here; a pooled set has no class names to miss."""
    return tuple(check.published) if len(check.published) > 1 else ()


def _published_cell(check: DatasetCheck, name: str) -> str:
    pooled = len(check.published) == 1 and len(check.classes) == 1
    counts = next(iter(check.published.values())) if pooled else check.published.get(name)
    remark = MISPRINTS.get((check.dataset, name))
    cell = f"{counts[0]} + {counts[1]}" if counts else ""
    return f"{cell} ({remark})" if remark and cell else cell


@dataclass(slots=True)
class _Ledger:
    """What the files themselves turned out to be."""

    root: Path
    facts: dict[Path, FileFacts] = field(default_factory=dict)
    samples: list[PictureFacts] = field(default_factory=list)
    bad_masks: list[str] = field(default_factory=list)
    turned_with_mask: list[Path] = field(default_factory=list)

    def look_at(self, sample: Sample) -> None:
        """Open the picture once, however many regions of it are samples, and its masks."""
        path = sample.image_path
        if path not in self.facts:
            self.facts[path] = inspect_picture(path)
        facts, marked = self.facts[path], None
        if (sample.mask_paths or sample.drawn_mask) and not facts.fault:
            marked = self._look_at_masks(sample)
        self.samples.append(PictureFacts(sample, facts.digest, marked, facts.fault or ""))

    def _look_at_masks(self, sample: Sample) -> float | None:
        """Return the share of marked pixels; None where the mask cannot be used."""
        if self.facts[sample.image_path].turned:
            self.turned_with_mask.append(sample.image_path)
        try:
            truth = read_mask(sample, image_size=self.facts[sample.image_path].size)
        except FapromptError as error:
            self.bad_masks.append(str(error).rstrip("."))
            return None
        return float(truth.mean())

    @property
    def unreadable(self) -> set[Path]:
        return {path for path, facts in self.facts.items() if facts.fault}

    def mask_problems(self) -> tuple[str, ...]:
        """Masks that would stop the pixel figures."""
        return tuple(dict.fromkeys(self.bad_masks))  # slices of one picture say the same

    def picture_problems(self) -> tuple[str, ...]:
        """Pictures to be mended that a run would leave out or count twice over."""
        ordered = sorted(self.unreadable, key=lambda path: natural_key(self._name(path)))
        lines = [f"{self._name(path)} cannot be read: {self.facts[path].fault}" for path in ordered]
        return (*lines, *contradiction_remarks(self.root, self.samples))

    def warnings(self, dataset: str) -> tuple[str, ...]:
        """What does no harm, or none that is certain."""
        lines = copy_remarks(self.root, self.samples)
        other = [path for path, facts in self.facts.items() if facts.other_format]
        if other:
            told = examples(f"{self._name(p)} ({self.facts[p].other_format})" for p in other)
            lines.append(f"{len(other)} hold another format than their name says: {told}")
        if blank := blank_remarks(self.root, self.samples):
            lines += blank
            if dataset == "visa":
                lines.append("VisA's masks hold small class ids and look black; these hold only 0")
        lines += inverted_remarks(self.samples)
        if self.turned_with_mask:
            told = self._names(self.turned_with_mask)
            lines.append(f"turned by EXIF, so the mask has to be drawn as shown: {told}")
        return tuple(lines)

    def copies(self) -> tuple[tuple[str, ...], ...]:
        """All groups of pictures with equal content."""
        return tuple(tuple(map(self._name, group)) for group in find_copies(self.samples))

    def _name(self, path: Path) -> str:
        return relative_name(path, self.root)

    def _names(self, paths: Iterable[Path]) -> str:
        return examples(self._name(path) for path in paths)


def _undefined(dataset: Dataset) -> tuple[str, ...]:
    """Figures that no class can give, or that some cannot."""
    counts = dataset.counts()
    one_sided = [name for name, count in counts.items() if not (count.normal and count.anomalous)]
    lines = []
    if one_sided and dataset.split == "test":
        lines.append(f"image figures are undefined, one label only, for {examples(one_sided)}")
    if dataset.split == "test" and not any(count.with_mask for count in counts.values()):
        lines.append("pixel figures are undefined: there are no masks")
    return tuple(lines)


def _has_figures(dataset: Dataset, unreadable: set[Path]) -> bool:
    """True when some class still has both labels, or a mask; a train split needs only pictures."""
    readable = [sample for sample in dataset if sample.image_path not in unreadable]
    if dataset.split != "test":
        return bool(readable)
    labels: dict[str, set[int]] = defaultdict(set)
    for sample in readable:
        labels[sample.class_name].add(sample.label)
    both = any(len(found) == 2 for found in labels.values())
    return both or any(sample.mask_paths for sample in readable)
