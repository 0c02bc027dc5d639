"""LAG, part 1 (Li et al., CVPR 2019): pictures of the eye's fundus, image labels only.

`non_glaucoma/` is normal and `suspicious_glaucoma/` anomalous; both hold `image/`,
`attention_map/` and `label/`, or the pictures themselves. The attention maps record where
doctors looked. They are no lesion masks and are never read.

There is no official test split: the paper tests on every anomalous picture and a quarter of the
normal ones. It drew from the order of a directory listing, which cannot be recovered; ours is
the natural order of the names, so the counts are the paper's and the members are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset, only_split
from faprompt.data.files import (
    examples,
    find_folder,
    folders_beside,
    holds_images,
    list_files,
    list_folders,
    list_images,
    relative_name,
    stem_key,
)
from faprompt.data.subsample import SUBSETS, take_subset
from faprompt.errors import DatasetError
from faprompt.records import Sample

_KINDS = ("non_glaucoma", "suspicious_glaucoma")  # normal, anomalous
_LABELS = ("label", "labels")
_LABEL_BYTES = 64  # a label file holds one digit


@dataclass(frozen=True, slots=True)
class LagReader:
    """LAG with or without the `image/` level."""

    name: str = "lag"
    title: str = "LAG: suspected glaucoma in pictures of the fundus"
    layout: str = "non_glaucoma/image/* (normal) and suspicious_glaucoma/image/* (anomalous)"
    subsets: tuple[str, ...] = SUBSETS

    def recognise(self, root: Path) -> str | None:
        """The two folders, both with pictures."""
        try:
            places = _places(root)
        except DatasetError:  # two spellings of one name: nothing special for others
            return None
        return _reason(root, places) if places else None

    def read(self, root: Path, *, split: str = "test", subset: str = "paper") -> Dataset:
        """Every anomalous picture and a quarter of the normal ones; with "all", every picture."""
        only_split(self.name, split)
        places = _places(root)
        if places is None:
            found = examples(path.name for path in list_folders(root)) or "no folders"
            raise DatasetError(f"{root} is not {self.name}: expected {self.layout}; found {found}.")
        notes = Notes()
        samples = [
            _sample(image, label)
            for label, place in enumerate(places)
            for image in list_images(place)
        ]
        _cross_check(root, samples, notes)
        _note_left_out(root, places, notes)
        kept = take_subset(samples, subset, notes)
        reason = _reason(root, places)
        return build_dataset(self.name, root, kept, notes, split=split, reason=reason)


def _places(root: Path) -> tuple[Path, Path] | None:
    """Where the normal and the anomalous pictures lie."""
    kinds = [find_folder(root, kind) for kind in _KINDS]
    places = [kind and (find_folder(kind, "image", "images") or kind) for kind in kinds]
    normal, anomalous = places
    if normal and anomalous and holds_images(normal) and holds_images(anomalous):
        return normal, anomalous
    return None


def _sample(image: Path, label: int) -> Sample:
    kind = _KINDS[1] if label else "good"
    return Sample(image, label, "fundus", kind, dataset="lag")


def _cross_check(root: Path, samples: list[Sample], notes: Notes) -> None:
    """`label/<stem>.txt` repeats the class; one that differs is a reported problem."""
    torn, unclear = [], []
    for label, kind in enumerate(_KINDS):
        stems = {stem_key(sample.image_path) for sample in samples if sample.label == label}
        files = _label_files(find_folder(root, kind))
        own = [file for file in files if stem_key(file) in stems]
        if files and not own:
            notes.warnings.append(f"label files of {kind} are not called like its pictures")
        told = {relative_name(file, root): _first_word(file) for file in own}
        torn += [name for name, word in told.items() if word == str(1 - label)]
        unclear += [name for name, word in told.items() if word not in ("0", "1")]
    if torn:
        notes.problems.append(
            f"{len(torn)} label files say another class than their folder: {examples(torn)}; "
            "move the pictures, or the label folders away if they are wrong"
        )
    if unclear:
        notes.warnings.append(f"{len(unclear)} label files hold no 0 or 1: {examples(unclear)}")


def _label_files(kind: Path | None) -> list[Path]:
    folder = find_folder(kind, *_LABELS) if kind else None
    return list_files(folder, ".txt") if folder else []


def _first_word(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            words = stream.read(_LABEL_BYTES).decode("utf-8-sig", "replace").split()
    except OSError:  # says as little as an empty one
        return ""
    return words[0] if words else ""


def _note_left_out(root: Path, places: tuple[Path, Path], notes: Notes) -> None:
    kinds = [find_folder(root, kind) for kind in _KINDS]
    labels = [find_folder(kind, *_LABELS) for kind in kinds if kind]
    beside = folders_beside(root, [*places, *filter(None, labels)])
    beside += [path for place in places if place in kinds for path in list_folders(place)]
    names = [relative_name(path, root) for path in beside if path not in labels]
    if names:
        notes.warnings.append(f"left out, being no pictures with a label: {examples(names)}")


def _reason(root: Path, places: tuple[Path, Path]) -> str:
    return " and ".join(f"{relative_name(place, root)}/" for place in places)
