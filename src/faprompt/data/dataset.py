"""A dataset: the labelled samples of one split, with the problems and warnings of its reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from faprompt.data.picture_files import path_examples, relative_name
from faprompt.errors import DatasetError
from faprompt.files import natural_key
from faprompt.records import Sample


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Numbers of pictures in one metric group."""

    normal: int
    anomalous: int
    with_mask: int  # anomalous pictures whose mask was found


@dataclass(frozen=True, slots=True)
class Dataset:
    """One split of a labelled folder, in natural order of the relative paths.

    `problems` make metrics unreliable and stop a training or an evaluation; `warnings` do not.
    A picture or a mask without its partner is a warning: the picture counts in image-level
    metrics and is left out of pixel-level ones.
    """

    name: str
    root: Path
    samples: tuple[Sample, ...]
    split: str = "test"
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unmasked: tuple[Path, ...] = ()  # anomalous pictures without a mask, in a class with masks
    orphan_masks: tuple[Path, ...] = ()  # masks without a picture
    reason: str = ""  # why the folder was read as this dataset
    left_out_classes: tuple[str, ...] = ()  # classes that `with_classes` removed

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def normal(self) -> int:
        """Number of normal samples."""
        return sum(sample.label == 0 for sample in self.samples)

    @property
    def anomalous(self) -> int:
        """Number of anomalous samples."""
        return sum(sample.label == 1 for sample in self.samples)

    def class_names(self) -> tuple[str, ...]:
        """Return the metric groups in natural order."""
        return tuple(sorted({sample.class_name for sample in self.samples}, key=natural_key))

    def counts(self) -> dict[str, ClassCount]:
        """Return the numbers of pictures of each metric group."""
        return {name: _count(self.samples, name) for name in self.class_names()}

    def with_classes(self, names: Iterable[str]) -> Dataset:
        """Return this dataset with the samples of some classes only.

        Without any name the dataset is returned as it is. The result's `left_out_classes` lists
        the classes that were removed.

        Raises:
            DatasetError: a name is not one of `class_names()`.
            TypeError: `names` is one text instead of a list of names.
        """
        if isinstance(names, str):
            raise TypeError(f"names should be a list of class names, got the text {names!r}.")
        wanted, known = set(names), self.class_names()
        if unknown := sorted(wanted.difference(known)):
            raise DatasetError(
                f"{self.root} has no class {', '.join(map(repr, unknown))}. Its classes: "
                f"{', '.join(known)}."
            )
        if not wanted:
            return self
        samples = tuple(sample for sample in self.samples if sample.class_name in wanted)
        kept = {sample.image_path for sample in samples}
        left_out = (name for name in known if name not in wanted)
        orphans = self.orphan_lines()
        return replace(
            self,
            samples=samples,
            unmasked=tuple(path for path in self.unmasked if path in kept),
            warnings=tuple(line for line in self.warnings if line not in orphans),
            left_out_classes=(*self.left_out_classes, *left_out),
        ).with_orphan_lines()

    def with_orphan_lines(self) -> Dataset:
        """Return this dataset with `orphan_lines()` before its other warnings."""
        return replace(self, warnings=(*self.orphan_lines(), *self.warnings))

    def orphan_lines(self) -> tuple[str, ...]:
        """Return one line on pictures without a mask and one on masks without a picture."""
        titles = {
            "anomalous without a mask, left out of pixel figures": self.unmasked,
            "without a picture, among the masks": self.orphan_masks,
        }
        return tuple(
            f"{len(paths)} {title}: {path_examples(paths, self.root)}"
            for title, paths in titles.items()
            if paths
        )

    def require_usable(self) -> Dataset:
        """Return this dataset if it has no problems.

        Raises:
            DatasetError: there are problems; the message lists all of them.
        """
        if self.problems:
            raise DatasetError(f"{self.root} cannot be used yet: {'; '.join(self.problems)}.")
        return self


def sort_samples(samples: Iterable[Sample], root: Path) -> list[Sample]:
    """Sort samples naturally by relative path, and regions of one picture by left, then top."""

    def place(sample: Sample) -> tuple[object, ...]:
        return natural_key(relative_name(sample.image_path, root)), sample.region or ()

    return sorted(samples, key=place)


def rename_dataset(dataset: Dataset, name: str) -> Dataset:
    """Return the same samples under the name of another dataset."""
    samples = tuple(replace(sample, dataset=name) for sample in dataset.samples)
    return replace(dataset, name=name, samples=samples)


def by_defect_type(dataset: Dataset) -> dict[str, list[Sample]]:
    """Return the samples of each kind of defect, with all normal samples of its class.

    Metrics of one kind of defect need normal samples, which belong to no kind. The keys are the
    kinds in natural order, or `class/kind` if there are several classes. Samples keep the
    dataset's order.
    """
    several = len(dataset.class_names()) > 1
    kinds = {(sample.class_name, sample.defect_type) for sample in dataset if sample.label}
    return {
        f"{class_name}/{kind}" if several else kind: [
            sample
            for sample in dataset
            if sample.class_name == class_name and (sample.label == 0 or sample.defect_type == kind)
        ]
        for class_name, kind in sorted(kinds, key=lambda pair: natural_key("/".join(pair)))
    }


def _count(samples: tuple[Sample, ...], class_name: str) -> ClassCount:
    own = [sample for sample in samples if sample.class_name == class_name]
    anomalous = [sample for sample in own if sample.label]
    with_mask = sum(bool(sample.mask_paths) for sample in anomalous)
    return ClassCount(len(own) - len(anomalous), len(anomalous), with_mask)
