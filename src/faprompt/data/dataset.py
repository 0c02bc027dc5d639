"""What every reader gives back, and what every reader is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from faprompt.data.files import examples, natural_key, relative_name
from faprompt.data.pairing import Pairing
from faprompt.errors import DatasetError
from faprompt.records import Sample

Split = Literal["test", "train"]


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many pictures one metric group holds."""

    normal: int
    anomalous: int
    with_mask: int  # anomalous pictures whose mask was found


@dataclass(frozen=True, slots=True)
class Dataset:
    """One split of a labelled folder, in natural order of the relative paths.

    `problems` stand in the way of honest figures and stop a training or an evaluation;
    `warnings` do not. Pictures and masks that miss their partner are warnings: the pictures
    stay in the image-level figures and leave the pixel-level ones.
    """

    name: str
    root: Path
    samples: tuple[Sample, ...]
    split: str = "test"
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unmasked: tuple[Path, ...] = ()  # anomalous pictures of a class with masks, without theirs
    orphan_masks: tuple[Path, ...] = ()  # masks without a picture
    reason: str = ""  # what the folder was recognised by
    left_out_classes: tuple[str, ...] = ()  # classes that `with_classes` removed

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def normal(self) -> int:
        """Number of normal pictures."""
        return sum(sample.label == 0 for sample in self.samples)

    @property
    def anomalous(self) -> int:
        """Number of anomalous pictures."""
        return sum(sample.label == 1 for sample in self.samples)

    def class_names(self) -> tuple[str, ...]:
        """The metric groups in natural order."""
        return tuple(sorted({sample.class_name for sample in self.samples}, key=natural_key))

    def counts(self) -> dict[str, ClassCount]:
        """Pictures per metric group."""
        return {name: _count(self.samples, name) for name in self.class_names()}

    def with_classes(self, names: Iterable[str]) -> Dataset:
        """Return this dataset with the samples of some classes only.

        Args:
            names: class names, spelled as `class_names()` gives them; their order and
                repetitions do not matter. Without any name the dataset is returned as it is.

        Returns:
            A dataset whose `left_out_classes` lists the classes that were removed.

        Raises:
            DatasetError: a name is not a class of this dataset; the message lists the classes.
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
        unmasked = tuple(path for path in self.unmasked if path in kept)
        others = [line for line in self.warnings if line not in self.orphan_lines()]
        return replace(
            self,
            samples=samples,
            unmasked=unmasked,
            warnings=(*_orphan_lines(unmasked, self.orphan_masks, self.root), *others),
            left_out_classes=(
                *self.left_out_classes,
                *(name for name in known if name not in wanted),
            ),
        )

    def orphan_lines(self) -> tuple[str, ...]:
        """One line for pictures without a mask and one for masks without a picture."""
        return _orphan_lines(self.unmasked, self.orphan_masks, self.root)

    def require_usable(self) -> Dataset:
        """This dataset, if nothing blocks its use.

        Raises:
            DatasetError: there are problems; the message lists them all.
        """
        if self.problems:
            raise DatasetError(f"{self.root} cannot be used yet: {'; '.join(self.problems)}.")
        return self


class Reader(Protocol):
    """One layout on disk. A reader lists files; it opens a picture only where it has to."""

    @property
    def name(self) -> str:
        """The id a user writes after `--dataset`."""
        ...

    @property
    def title(self) -> str:
        """What the dataset is, in a few words."""
        ...

    @property
    def layout(self) -> str:
        """What its folder looks like, in one line."""
        ...

    def recognise(self, root: Path) -> str | None:
        """Why this folder looks like ours, or None when it does not."""
        ...

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """All samples of one split.

        Raises:
            DatasetError: the folder is something else, or holds nothing of that split.
        """
        ...


@dataclass(slots=True)
class Notes:
    """What a reader collects on its way and hands over at the end."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unmasked: list[Path] = field(default_factory=list)
    orphan_masks: list[Path] = field(default_factory=list)

    def add_pairing(self, pairing: Pairing) -> None:
        """Take over what a pairing left alone or could not decide."""
        self.problems += pairing.clashes
        self.unmasked += pairing.unmasked
        self.orphan_masks += pairing.unclaimed


def take_pairings(
    pairings: list[Pairing], notes: Notes, *, what: str
) -> dict[Path, tuple[Path, ...]]:
    """Join the pairings of one class; without a single good mask it has image labels only."""
    masks = {image: files for pairing in pairings for image, files in pairing.masks.items()}
    for pairing in pairings:
        if masks:
            notes.add_pairing(pairing)
        else:
            notes.problems += pairing.clashes
            notes.orphan_masks += pairing.unclaimed
    if not masks:
        notes.warnings.append(f"no mask in {what} belongs to a picture: image labels only")
    return masks


def build_dataset(
    name: str,
    root: Path,
    samples: Iterable[Sample],
    notes: Notes,
    *,
    split: str,
    reason: str,
) -> Dataset:
    """Put the samples in order and the notes in words.

    Raises:
        DatasetError: there is not a single sample.
    """
    ordered = sort_samples(samples, root)
    if not ordered:
        faults = [*notes.problems, *notes.warnings]
        told = f" {'; '.join(faults)}." if faults else ""
        raise DatasetError(f"{root} was read as {name}, but its {split} split is empty.{told}")
    unmasked = _ordered_paths(notes.unmasked, root)
    orphan_masks = _ordered_paths(notes.orphan_masks, root)
    return Dataset(
        name=name,
        root=root,
        samples=tuple(ordered),
        split=split,
        problems=tuple(notes.problems),
        warnings=(*_orphan_lines(unmasked, orphan_masks, root), *notes.warnings),
        unmasked=unmasked,
        orphan_masks=orphan_masks,
        reason=reason,
    )


def sort_samples(samples: Iterable[Sample], root: Path) -> list[Sample]:
    """In natural order of the relative paths; regions of one picture from left, then top."""
    return sorted(samples, key=lambda sample: _place(sample, root))


def rename_dataset(dataset: Dataset, name: str) -> Dataset:
    """The same samples under another dataset's name."""
    samples = tuple(replace(sample, dataset=name) for sample in dataset.samples)
    return replace(dataset, name=name, samples=samples)


def by_defect_type(dataset: Dataset) -> dict[str, list[Sample]]:
    """Each kind of defect together with all normal pictures of its class.

    Figures per defect kind are measured against the same normal pictures, which belong to
    no kind. Keys are the defect kinds in natural order; with several classes they read
    `class/kind`. Samples keep the dataset's order.
    """
    several = len(dataset.class_names()) > 1
    groups: dict[str, list[Sample]] = {}
    for class_name, kind in sorted(_kinds(dataset), key=lambda pair: natural_key("/".join(pair))):
        key = f"{class_name}/{kind}" if several else kind
        groups[key] = [
            sample
            for sample in dataset.samples
            if sample.class_name == class_name and (sample.label == 0 or sample.defect_type == kind)
        ]
    return groups


def only_split(name: str, split: str, wanted: str = "test") -> None:
    """Refuse a split that the dataset does not have.

    Raises:
        DatasetError: `split` is not `wanted`.
    """
    if split != wanted:
        raise DatasetError(
            f"{name} has no {split!r} split: all its pictures are read with split={wanted!r}."
        )


def _kinds(dataset: Dataset) -> set[tuple[str, str]]:
    return {(sample.class_name, sample.defect_type) for sample in dataset.samples if sample.label}


def _count(samples: tuple[Sample, ...], class_name: str) -> ClassCount:
    own = [sample for sample in samples if sample.class_name == class_name]
    anomalous = [sample for sample in own if sample.label]
    with_mask = sum(bool(sample.mask_paths) for sample in anomalous)
    return ClassCount(len(own) - len(anomalous), len(anomalous), with_mask)


def _place(sample: Sample, root: Path) -> tuple[object, ...]:
    return natural_key(relative_name(sample.image_path, root)), sample.region or ()


def _ordered_paths(paths: Iterable[Path], root: Path) -> tuple[Path, ...]:
    return tuple(sorted(set(paths), key=lambda path: natural_key(relative_name(path, root))))


def _orphan_lines(
    unmasked: tuple[Path, ...], orphan_masks: tuple[Path, ...], root: Path
) -> tuple[str, ...]:
    lines = []
    if unmasked:
        lines.append(
            f"{len(unmasked)} anomalous without a mask, left out of pixel figures: "
            f"{examples(relative_name(path, root) for path in unmasked)}"
        )
    if orphan_masks:
        lines.append(
            f"{len(orphan_masks)} without a picture, among the masks: "
            f"{examples(relative_name(path, root) for path in orphan_masks)}"
        )
    return tuple(lines)
