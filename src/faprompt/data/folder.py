"""Any plain folder: `good/` (or `normal`, `ok`, …) beside one folder per kind of defect.

Masks are optional. They lie in `masks/`, `mask/` or `ground_truth/`, there either flat or in one
subfolder per defect, or beside their pictures as `<stem>_mask.png`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset, only_split, take_pairings
from faprompt.data.files import (
    examples,
    find_folder,
    folder_name,
    holds_images,
    is_folder,
    is_normal_name,
    list_folders,
    list_images,
    relative_name,
    stem_key,
)
from faprompt.data.pairing import Pairing, mask_owner_stem, pair_masks
from faprompt.errors import DatasetError
from faprompt.records import Sample

MASK_FOLDERS = ("masks", "mask", "ground_truth")


@dataclass(frozen=True, slots=True)
class FolderReader:
    """The last resort: folders named after what they hold."""

    name: str = "folder"
    title: str = "your own pictures, normal ones in good/ beside a folder per defect"
    layout: str = "good/* beside <defect>/*, masks in masks/ or as <stem>_mask.png"

    def recognise(self, root: Path) -> str | None:
        """A normal folder with pictures in it."""
        kinds = _kind_folders(root)
        normal = [kind.name for kind in kinds if is_normal_name(kind.name)]
        if not normal:
            return None
        return _reason(normal, [kind.name for kind in kinds if kind.name not in normal])

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """Every picture of every folder; there is no train split."""
        only_split(self.name, split)
        reason = self.recognise(root)
        if reason is None:
            found = examples(path.name for path in list_folders(root)) or "no folders"
            raise DatasetError(
                f"{root} is not a folder we can label: expected {self.layout}; found {found}."
            )
        notes = Notes()
        shelves = [fill_shelf(kind) for kind in _kind_folders(root)]
        drop_beside_masks(shelves)
        pairs = pair_shelves(shelves, find_folder(root, *MASK_FOLDERS), root, notes)
        _note_surroundings(root, notes)
        class_name = folder_name(root)
        samples = [
            shelf_sample(image, shelf, pairs, class_name=class_name, dataset=self.name)
            for shelf in shelves
            for image in shelf.images
        ]
        return build_dataset(self.name, root, samples, notes, split=split, reason=reason)


@dataclass(slots=True)
class Shelf:
    """One kind's pictures, and the masks that lie among them."""

    kind: str
    normal: bool
    images: list[Path]
    masks: list[Path]


def _kind_folders(root: Path) -> list[Path]:
    return [
        folder
        for folder in list_folders(root)
        if folder.name.casefold() not in MASK_FOLDERS and holds_images(folder)
    ]


def _reason(normal: list[str], defects: list[str]) -> str:
    beside = f"beside {examples(defects)}" if defects else "alone"
    return f"normal pictures in {examples(normal)}, {beside}"


def fill_shelf(folder: Path) -> Shelf:
    """A file is a mask when its name is a picture's name with a mask's ending."""
    every = list_images(folder)
    stems = {stem_key(path) for path in every}
    is_mask = {path: mask_owner_stem(stem_key(path)) in stems for path in every}
    images = [path for path in every if not is_mask[path]]
    masks = [path for path in every if is_mask[path]]
    return Shelf(folder.name, is_normal_name(folder.name), images, masks)


def drop_beside_masks(shelves: list[Shelf]) -> None:
    """Once some masks lie beside pictures, `x_mask.png` without its `x` is a lost mask."""
    if not any(shelf.masks for shelf in shelves):
        return
    for shelf in shelves:
        owners = {path: mask_owner_stem(stem_key(path)) for path in shelf.images}
        shelf.masks += [path for path, owner in owners.items() if owner is not None]
        shelf.images = [path for path, owner in owners.items() if owner is None]


def pair_shelves(
    shelves: list[Shelf], truth: Path | None, root: Path, notes: Notes
) -> dict[Path, tuple[Path, ...]]:
    """Masks of all defects, beside them or in the folder `truth`; {} means image labels only."""
    defects = [shelf for shelf in shelves if not shelf.normal]
    if not defects or not (truth or any(shelf.masks for shelf in defects)):
        return {}
    own = {shelf.kind: shelf.masks + _masks_in(truth, shelf.kind) for shelf in defects}
    pairings = [
        pair_masks(shelf.images, own[shelf.kind], root=root) for shelf in defects if own[shelf.kind]
    ]
    others = [image for shelf in defects if not own[shelf.kind] for image in shelf.images]
    pairings.append(_pair_flat(others, _masks_in(truth), shelves, root))
    _note_strays(truth, shelves, root, notes)
    return take_pairings(pairings, notes, what=relative_name(truth or root, root))


def _pair_flat(images: list[Path], masks: list[Path], shelves: list[Shelf], root: Path) -> Pairing:
    """Masks without subfolders, for all kinds; blank ones of normal pictures are no strays."""
    pairing = pair_masks(images, masks, root=root)
    normal = [image for shelf in shelves if shelf.normal for image in shelf.images]
    return replace(pairing, unclaimed=pair_masks(normal, pairing.unclaimed, root=root).unclaimed)


def _masks_in(truth: Path | None, *kind: str) -> list[Path]:
    return list_images(truth.joinpath(*kind)) if truth else []


def _note_strays(truth: Path | None, shelves: list[Shelf], root: Path, notes: Notes) -> None:
    """Masks of kinds that have no pictures, and lost masks beside normal pictures."""
    kinds = {shelf.kind for shelf in shelves}
    for folder in list_folders(truth) if truth else []:
        if folder.name not in kinds and not is_normal_name(folder.name):
            notes.orphan_masks += list_images(folder)
    for shelf in shelves:
        if shelf.normal:
            notes.orphan_masks += pair_masks(shelf.images, shelf.masks, root=root).unclaimed


def _note_surroundings(root: Path, notes: Notes) -> None:
    read = {*_kind_folders(root), find_folder(root, *MASK_FOLDERS)}
    left_out = [folder.name for folder in list_folders(root) if folder not in read]
    if left_out:
        notes.warnings.append(f"no pictures directly in {examples(left_out)}, left out")
    if root.name == "test" and is_folder(root.parent / "ground_truth"):
        notes.warnings.append("masks seem to lie in ../ground_truth; give the folder above instead")


def shelf_sample(
    image: Path,
    shelf: Shelf,
    pairs: dict[Path, tuple[Path, ...]],
    *,
    class_name: str,
    dataset: str,
    split: str = "test",
) -> Sample:
    """One picture of a shelf with its masks."""
    masks = pairs.get(image, ())
    return Sample(
        image_path=image,
        label=0 if shelf.normal else 1,
        class_name=class_name,
        defect_type="good" if shelf.normal else shelf.kind,
        mask_paths=masks,
        has_pixel_label=bool(pairs) and (shelf.normal or bool(masks)),
        split=split,
        dataset=dataset,
    )
