"""Readers of labelled folders: the interface, and the steps that all folder layouts share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from faprompt.data.dataset import Dataset, sort_samples
from faprompt.data.picture_files import Pairing, examples, list_folders, pair_masks, relative_name
from faprompt.errors import DatasetError
from faprompt.files import natural_key
from faprompt.records import Sample

Parts = TypeVar("Parts")
Masks = dict[Path, tuple[Path, ...]]  # picture -> its mask files

SUBSETS = ("paper", "all")
_SEED = 42


class Reader(ABC):
    """One layout on disk. A reader lists files; it opens a picture only if it has to."""

    name: str  # dataset id for `--dataset`
    title: str  # content of the dataset, in a few words
    layout: str  # layout of the folder, in one line

    @abstractmethod
    def recognise(self, root: Path) -> str | None:
        """Return why a folder has this layout, or None if it does not."""

    @abstractmethod
    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """Return all samples of one split.

        Raises:
            DatasetError: the folder has another layout, or there are no samples of that split.
        """


@dataclass(slots=True)
class Reading:
    """One reading of a folder: the request, and the remarks of the reader for its `Dataset`."""

    root: Path = Path()
    split: str = "test"
    subset: str = "paper"  # one of `SUBSETS`
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unmasked: list[Path] = field(default_factory=list)
    orphan_masks: list[Path] = field(default_factory=list)

    def place(self, path: Path) -> str:
        """Return a path's name for a message."""
        return relative_name(path, self.root)

    def add_warning(self, text: str, names: Iterable[Path | str]) -> None:
        """Add a warning, unless there are no names; `text` has {names} and perhaps {count}."""
        self._add(self.warnings, text, names)

    def add_problem(self, text: str, names: Iterable[Path | str]) -> None:
        """Add a problem, unless there are no names; `text` has {names} and perhaps {count}."""
        self._add(self.problems, text, names)

    def _add(self, lines: list[str], text: str, names: Iterable[Path | str]) -> None:
        every = [self.place(name) if isinstance(name, Path) else name for name in names]
        if every:
            lines.append(text.format(count=len(every), names=examples(every)))

    def pair(self, images: Sequence[Path], masks: Iterable[Path]) -> Pairing:
        """Pair masks by name and note the masks that have no picture, or several."""
        pairing = pair_masks(images, masks, root=self.root)
        self.problems += pairing.clashes
        self.orphan_masks += pairing.unclaimed
        return pairing

    def masks_of(self, pairings: Sequence[Pairing], *, place: str) -> Masks:
        """Join the pairings of one class; without any mask the class has image labels only."""
        masks = {image: files for pairing in pairings for image, files in pairing.masks.items()}
        if masks:
            self.unmasked += [path for pairing in pairings for path in pairing.unmasked]
        else:
            self.warnings.append(f"no mask in {place} belongs to a picture: image labels only")
        return masks

    def existing(self, images: Iterable[Path], *, source: str) -> set[Path]:
        """Return the listed pictures that exist; the others are noted as a problem."""
        exists = {image: image.is_file() for image in images}
        missing = [image for image in exists if not exists[image]]
        self.add_problem(f"{{count}} pictures named in {source} are not there: {{names}}", missing)
        return exists.keys() - missing

    def label_pixels(self, samples: Sequence[Sample]) -> list[Sample]:
        """Give pixel labels to the classes with masks; the others have image labels only."""
        masked = {sample.class_name for sample in samples if sample.mask_paths}
        bare = {sample.class_name for sample in samples if sample.label} - masked
        self.add_warning("no masks for {names}: image labels only", sorted(bare))
        found = [
            replace(s, has_pixel_label=s.class_name in masked and bool(s.mask_paths or not s.label))
            for s in samples
        ]
        lost = [s for s in found if s.class_name in masked and not s.has_pixel_label]
        self.unmasked += [sample.image_path for sample in lost]
        return found

    def take_subset(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return the anomalous samples and the subset's normal ones; the order decides which."""
        normal = [sample for sample in samples if sample.label == 0]
        if self.subset == "all" or not normal:
            return list(samples)
        kept = {id(normal[index]) for index in paper_normals(len(normal))}
        self.warnings.append(
            f"{len(kept)} of {len(normal)} normal samples are kept, as in the paper; "
            "subset 'all' keeps every one"
        )
        return [sample for sample in samples if sample.label or id(sample) in kept]

    def dataset(self, name: str, samples: Iterable[Sample], *, reason: str) -> Dataset:
        """Build a dataset from samples in any order.

        Raises:
            DatasetError: there are no samples; the message has the remarks.
        """
        ordered = sort_samples(samples, self.root)
        if not ordered:
            faults = "; ".join([*self.problems, *self.warnings])
            raise DatasetError(
                f"{self.root} was read as {name}, but its {self.split} split is empty."
                + (f" {faults}." if faults else "")
            )

        def in_order(paths: Iterable[Path]) -> tuple[Path, ...]:
            return tuple(sorted(set(paths), key=lambda path: natural_key(self.place(path))))

        return Dataset(
            name=name,
            root=self.root,
            samples=tuple(ordered),
            split=self.split,
            problems=tuple(self.problems),
            warnings=tuple(self.warnings),
            unmasked=in_order(self.unmasked),
            orphan_masks=in_order(self.orphan_masks),
            reason=reason,
        ).with_orphan_lines()


@dataclass(frozen=True, slots=True)
class Match(Generic[Parts]):
    """The parts of a layout on disk."""

    parts: Parts
    reason: str  # what was found
    is_certain: bool = True  # False if the same layout may hold another dataset


class LayoutReader(Reader, Generic[Parts]):
    """Base class of readers: a layout has parts on disk, and the parts give samples."""

    splits: tuple[str, ...] = ("test",)
    subsets: tuple[str, ...] = ("paper",)

    @abstractmethod
    def find(self, root: Path) -> Match[Parts] | None:
        """Return the parts below `root`; None if it has another layout."""

    @abstractmethod
    def samples(self, parts: Parts, reading: Reading) -> list[Sample]:
        """Return the samples; their dataset and split are set afterwards."""

    def foreign(self, root: Path) -> str | None:
        """Return which similar dataset or layout a folder has, as a sentence; or None."""
        return None

    def found(self, root: Path) -> str:
        """Return what a folder of another layout holds."""
        return examples(path.name for path in list_folders(root)) or "no folders"

    def recognise(self, root: Path) -> str | None:
        try:
            match = None if self.foreign(root) else self.find(root)
        except DatasetError:  # two spellings of one folder name: another reader may not mind
            return None
        return match.reason if match and match.is_certain else None

    def read(self, root: Path, *, split: str = "test", subset: str = "paper") -> Dataset:
        """Return all samples of one split; `subset` is one of `subsets`.

        Raises:
            DatasetError: the folder has another layout, or there are no samples of that split.
        """
        check_split(self.name, split, self.splits)
        if told := self.foreign(root):
            raise DatasetError(f"{root} is not {self.name}: {told}.")
        match = self.find(root)
        if match is None:
            raise DatasetError(
                f"{root} is not {self.name}: expected {self.layout}; found {self.found(root)}."
            )
        reading = Reading(root=root, split=split, subset=subset)
        found = self.samples(match.parts, reading)
        samples = [replace(sample, dataset=self.name, split=split) for sample in found]
        return reading.dataset(self.name, samples, reason=match.reason)


def make_sample(
    image: Path,
    defect: str | None,
    class_name: str,
    masks: tuple[Path, ...] = (),
    *,
    pixels: bool = False,
) -> Sample:
    """Return a sample; `defect` is None for a normal picture, `pixels` says if masks exist."""
    return Sample(
        image_path=image,
        label=int(defect is not None),
        class_name=class_name,
        defect_type=defect or "good",
        mask_paths=masks,
        has_pixel_label=pixels and (defect is None or bool(masks)),
    )


def paper_normals(count: int) -> list[int]:
    """Return the indices of the normal samples in the paper's test split of SDD, AITEX, ELPV, LAG.

    These four have no official test split. The research group's converters (InCTRL, AHL, earlier
    DRA) keep every anomalous sample and a quarter of the normal ones, which depends on their
    order. For ELPV this is the order of its CSV, so our samples are theirs. For SDD, AITEX and
    LAG it was an unsorted directory listing, so only the number of our samples is theirs.

    Returns:
        ceil(count / 4) of the indices 0 to count - 1, ascending.

    Raises:
        ValueError: `count` is below 0.

    Source:
        scikit-learn's `train_test_split(range(count), test_size=0.25, random_state=42)`: the
        first ceil(count / 4) entries of one permutation by NumPy's legacy generator.

    Example:
        >>> paper_normals(8), len(paper_normals(1143))
        ([1, 5], 286)
    """
    if count < 0:
        raise ValueError(f"count should be 0 or more, got {count}.")
    drawn = np.random.RandomState(_SEED).permutation(count)[: -(-count // 4)]
    return sorted(drawn.tolist())


def check_split(name: str, split: str, splits: Sequence[str] = ("test",)) -> None:
    """Refuse a split that a dataset does not have.

    Raises:
        DatasetError: `split` is none of `splits`.
    """
    if split in splits:
        return
    if len(splits) > 1:
        raise DatasetError(f"{name} has the splits 'test' and 'train', not {split!r}.")
    raise DatasetError(
        f"{name} has no {split!r} split: all its pictures are read with split='test'."
    )
