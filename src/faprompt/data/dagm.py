"""DAGM 2007 (Wieler and Hahn, HCI Heidelberg): `Class1` to `Class10` with `Train` and `Test`.

A picture is anomalous when `Label/` holds a mask of it; `Label/Labels.txt` says the same in words
and is compared where it exists. Both parts hold normal and anomalous pictures; the paper uses
`Test`. The masks are coarse ellipses around the defects, which bounds every pixel figure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset
from faprompt.data.files import (
    examples,
    find_folder,
    holds_images,
    list_folders,
    list_images,
    relative_name,
    unnested,
)
from faprompt.data.pairing import Pairing, pair_masks
from faprompt.errors import DatasetError
from faprompt.records import Sample

_CLASS = re.compile(r"class([0-9]+)", re.IGNORECASE)
_LABELS, _LIST = "Label", "Labels.txt"
_SPLITS = ("test", "train")


@dataclass(frozen=True, slots=True)
class DagmReader:
    """DAGM as on Zenodo or Kaggle, all ten classes or some of them."""

    name: str = "dagm"
    title: str = "DAGM 2007: ten artificial textures, coarse masks"
    layout: str = "Class<n>/Test/*.PNG with masks in Class<n>/Test/Label/*_label.PNG"

    def recognise(self, root: Path) -> str | None:
        """At least one `Class<n>` with pictures in `Test` or `Train` and a `Label` beside them."""
        try:
            names = _class_folders(root)
        except DatasetError:  # `Test` beside `test`: nothing special for others
            return None
        return f"folders {examples(names)} with {_LABELS}/" if names else None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """Every picture of `Test`, or of `Train`."""
        if split not in _SPLITS:
            raise DatasetError(f"{self.name} has the splits 'test' and 'train', not {split!r}.")
        classes = _class_folders(root)
        if not classes:
            found = examples(path.name for path in list_folders(root)) or "no folders"
            raise DatasetError(f"{root} is not {self.name}: expected {self.layout}; found {found}.")
        notes = Notes()
        samples = [
            sample
            for class_name, folder in classes.items()
            for sample in _read_class(class_name, folder, root, split, notes)
        ]
        reason = f"folders {examples(classes)} with {_LABELS}/"
        return build_dataset(self.name, root, samples, notes, split=split, reason=reason)


def _class_folders(root: Path) -> dict[str, Path]:
    """`Class1` -> the folder with its `Train` and `Test`."""
    found: dict[str, Path] = {}
    for folder in list_folders(root):
        match = _CLASS.fullmatch(folder.name)
        if match and any(_is_part(find_folder(unnested(folder), split)) for split in _SPLITS):
            found[f"Class{int(match[1])}"] = unnested(folder)
    return found


def _is_part(part: Path | None) -> bool:
    return part is not None and holds_images(part) and find_folder(part, _LABELS) is not None


def _read_class(
    class_name: str, folder: Path, root: Path, split: str, notes: Notes
) -> list[Sample]:
    part = find_folder(folder, split)
    if part is None or not holds_images(part):
        notes.warnings.append(f"no {split} pictures in {relative_name(folder, root)}")
        return []
    images, labels = list_images(part), find_folder(part, _LABELS)
    pairing = pair_masks(images, list_images(labels) if labels else (), root=root)
    notes.problems += pairing.clashes
    notes.orphan_masks += pairing.unclaimed
    flags = _read_flags(labels / _LIST, root, notes) if labels else {}
    if not pairing.masks and not flags:
        place = relative_name(part, root)
        notes.problems.append(f"nothing in {place}/{_LABELS} says which pictures have a defect")
        return []
    sound = _sound(pairing, flags, root, notes)
    lost = [image for image in pairing.unmasked if image not in sound]
    if pairing.masks:
        notes.unmasked += lost
    else:
        notes.warnings.append(f"no masks for {class_name}: image labels only")
    return [_sample(image, class_name, split, image in sound, pairing) for image in images]


def _sound(pairing: Pairing, flags: dict[str, bool], root: Path, notes: Notes) -> set[Path]:
    """Pictures without a defect: no mask, and not called defective by the list."""
    torn = [image for image in pairing.masks if flags.get(image.name.casefold()) is False]
    if torn:
        names = examples(relative_name(image, root) for image in torn)
        notes.warnings.append(f"with a mask, but without a defect by {_LIST}; masks win: {names}")
    return {image for image in pairing.unmasked if not flags.get(image.name.casefold())}


def _sample(image: Path, class_name: str, split: str, sound: bool, pairing: Pairing) -> Sample:
    masks = pairing.masks.get(image, ())
    return Sample(
        image_path=image,
        label=0 if sound else 1,
        class_name=class_name,
        defect_type="good" if sound else "defect",
        mask_paths=masks,
        has_pixel_label=bool(pairing.masks) and (sound or bool(masks)),
        split=split,
        dataset="dagm",
    )


def _read_flags(file: Path, root: Path, notes: Notes) -> dict[str, bool]:
    """Picture -> is it defective, from lines of: index, flag, picture, 0, mask or 0."""
    if not file.is_file():
        return {}
    try:
        rows = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        notes.warnings.append(f"{relative_name(file, root)} cannot be read: {error}")
        return {}
    return {
        row[2].casefold(): row[1] == "1" for row in rows if len(row) > 2 and row[1] in ("0", "1")
    }
