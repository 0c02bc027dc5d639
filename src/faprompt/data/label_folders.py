"""Folders named after the label of their pictures: plain folders, yes/no, LAG, magnetic tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faprompt.data.dataset_catalog import published_counts
from faprompt.data.layout_reader import SUBSETS, LayoutReader, Masks, Match, Reading, make_sample
from faprompt.data.picture_files import (
    examples,
    find_folder,
    folder_name,
    folders_beside,
    holds_images,
    is_folder,
    is_normal_name,
    list_files,
    list_folders,
    list_images,
    mask_owner_stem,
    pair_masks,
    relative_name,
    stem_key,
)
from faprompt.records import Sample

_MASK_FOLDERS = ("masks", "mask", "ground_truth")
_NESTED = "brain_tumor_dataset"  # in BrainMRI's archive
_MASK_RCNN = "Br35H-Mask-RCNN"  # in Br35H's archive
_LAG_KINDS = ("non_glaucoma", "suspicious_glaucoma")
_LABEL_LENGTH = 64  # a label file of LAG holds one digit


@dataclass(slots=True)
class _Kind:
    """The pictures of one folder, and the masks among them."""

    defect: str | None  # None for normal pictures
    images: list[Path]
    masks: list[Path] = field(default_factory=list)


class FolderReader(LayoutReader[list[Path]]):
    """Any plain folder: `good/` (or `normal`, `ok`, …) beside one folder per kind of defect.

    Masks are optional. They lie in `masks/`, `mask/` or `ground_truth/`, directly or in one
    subfolder per defect, or beside their pictures as `<stem>_mask.png`.
    """

    name = "folder"
    title = "your own pictures, normal ones in good/ beside a folder per defect"
    layout = "good/* beside <defect>/*, masks in masks/ or as <stem>_mask.png"

    def find(self, root: Path) -> Match[list[Path]] | None:
        folders = [
            folder
            for folder in list_folders(root)
            if folder.name.casefold() not in _MASK_FOLDERS and holds_images(folder)
        ]
        normal = [folder.name for folder in folders if is_normal_name(folder.name)]
        defects = [folder.name for folder in folders if folder.name not in normal]
        beside = f"beside {examples(defects)}" if defects else "alone"
        reason = f"normal pictures in {examples(normal)}, {beside}"
        return Match(folders, reason) if normal else None

    def samples(self, parts: list[Path], reading: Reading) -> list[Sample]:
        root = reading.root
        truth = find_folder(root, *_MASK_FOLDERS)
        kinds = [_read_kind(folder) for folder in parts]
        if any(kind.masks for kind in kinds):
            _take_lost_masks(kinds)
        masks = _pair_kinds(kinds, truth, reading)
        others = [path for path in list_folders(root) if path not in (*parts, truth)]
        reading.add_warning("no pictures directly in {names}, left out", others)
        if root.name == "test" and is_folder(root.parent / "ground_truth"):
            reading.warnings.append(
                "masks seem to lie in ../ground_truth; give the folder above instead"
            )
        return _samples(kinds, folder_name(root), masks)


@dataclass(frozen=True)
class YesNoReader(LayoutReader[tuple[Path, Path]]):
    """`no` and `yes`: scans without and with the finding.

    BrainMRI and Br35H come from Kaggle (users navoneel and ahmedhamada0). BrainMRI's archive
    holds its pictures twice, so one level is read: `brain_tumor_dataset/` if it exists, or else
    the root. Br35H's `pred/` and `Br35H-Mask-RCNN/` have no labelled pictures and are not read.
    """

    name: str
    title: str
    layout: str = "no/* (normal) and yes/* (anomalous)"
    marker: str | None = None  # a folder that only this dataset has
    class_name: str | None = None  # None: the root folder's name

    def find(self, root: Path) -> Match[tuple[Path, Path]] | None:
        for base in (root / _NESTED, root):
            if parts := _two_folders(find_folder(base, "no"), find_folder(base, "yes")):
                mark = self._mark(root, parts)
                return Match(parts, _reason(root, parts) + (mark or ""), mark is not None)
        return None

    def _mark(self, root: Path, parts: tuple[Path, Path]) -> str | None:
        """Return what tells this dataset from others, None if nothing does."""
        published = published_counts(self.name)
        if not published:
            ours = (*parts, parts[0].parent / "pred")
            others = [path for path in list_folders(parts[0].parent) if path not in ours]
            return None if any(map(holds_images, others)) else ""
        if marker := next((name for name in (_NESTED, _MASK_RCNN) if is_folder(root / name)), None):
            return f", and {marker}/" if marker == self.marker else None
        counts = len(list_images(parts[0])), len(list_images(parts[1]))
        is_published = counts in published.values()
        return ", with exactly the published number of pictures" if is_published else None

    def samples(self, parts: tuple[Path, Path], reading: Reading) -> list[Sample]:
        root, base = reading.root, parts[0].parent
        others = [path for level in {root, base} for path in list_folders(level)]
        names = [reading.place(path) for path in others if path not in (*parts, base)]
        reading.add_warning("folders beside no and yes are left out: {names}", sorted(names))
        kinds = [_Kind(None, list_images(parts[0])), _Kind("yes", list_images(parts[1]))]
        return _samples(kinds, self.class_name or folder_name(root), {})


class LagReader(LayoutReader[tuple[Path, Path]]):
    """LAG, part 1 (Li et al., CVPR 2019): pictures of the eye's fundus, image labels only.

    `non_glaucoma/` is normal and `suspicious_glaucoma/` anomalous. Both hold `image/`,
    `attention_map/` and `label/`, or the pictures themselves. The attention maps record where
    doctors looked; they are no lesion masks and are not read. For the subset see `paper_normals`.
    """

    name = "lag"
    title = "LAG: suspected glaucoma in pictures of the fundus"
    layout = "non_glaucoma/image/* (normal) and suspicious_glaucoma/image/* (anomalous)"
    subsets = SUBSETS

    def find(self, root: Path) -> Match[tuple[Path, Path]] | None:
        normal, anomalous = (
            kind and (find_folder(kind, "image", "images") or kind)
            for kind in (find_folder(root, name) for name in _LAG_KINDS)
        )
        parts = _two_folders(normal, anomalous)
        return Match(parts, _reason(root, parts)) if parts else None

    def samples(self, parts: tuple[Path, Path], reading: Reading) -> list[Sample]:
        root = reading.root
        kinds = [_Kind(None, list_images(parts[0])), _Kind(_LAG_KINDS[1], list_images(parts[1]))]
        folders = [folder for name in _LAG_KINDS if (folder := find_folder(root, name))]
        labels = [find_folder(folder, "label", "labels") for folder in folders]
        _compare_label_files(kinds, labels, reading)
        beside = folders_beside(root, [*parts, *filter(None, labels)])
        beside += [path for part in parts if part in folders for path in list_folders(part)]
        others = [path for path in beside if path not in labels]
        reading.add_warning("left out, being no pictures with a label: {names}", others)
        return reading.take_subset(_samples(kinds, "fundus", {}))


class MagneticTileReader(LayoutReader[list[Path]]):
    """Magnetic-tile defects (Huang et al., The Visual Computer 2020): `MT_<Kind>/Imgs/`.

    Pictures are JPEG and masks PNG of the same stem, side by side. `MT_Free` is normal; every
    other folder is one kind of defect. The whole set is one class, since normal tiles belong to
    no kind. The FAPrompt paper does not use it.
    """

    name = "magnetic_tile"
    title = "magnetic tiles with blowholes, cracks and other defects"
    layout = "MT_<Kind>/Imgs/*.jpg with masks *.png beside them; MT_Free is normal"

    def find(self, root: Path) -> Match[list[Path]] | None:
        folders = [path for path in list_folders(root) if path.name.casefold().startswith("mt_")]
        folders = [folder for folder in folders if is_folder(folder / "Imgs")]
        names = examples(folder.name for folder in folders)
        return Match(folders, f"folders {names}") if folders else None

    def samples(self, parts: list[Path], reading: Reading) -> list[Sample]:
        kinds, pairings = [], []
        for folder in parts:
            files = list_images(folder / "Imgs")
            masks = [path for path in files if path.suffix.casefold() == ".png"]
            images = [path for path in files if path.suffix.casefold() != ".png"]
            is_normal = folder.name.casefold() == "mt_free"
            kinds.append(_Kind(None if is_normal else folder.name[len("MT_") :], images, masks))
            if is_normal:  # blank masks, which only have to have a picture
                reading.orphan_masks += pair_masks(images, masks, root=reading.root).unclaimed
            else:
                pairings.append(reading.pair(images, masks))
        masks_of = reading.masks_of(pairings, place="the MT_* folders") if pairings else {}
        return _samples(kinds, self.name, masks_of)


def _two_folders(normal: Path | None, anomalous: Path | None) -> tuple[Path, Path] | None:
    if normal and anomalous and holds_images(normal) and holds_images(anomalous):
        return normal, anomalous
    return None


def _reason(root: Path, folders: Sequence[Path]) -> str:
    return " and ".join(f"{relative_name(folder, root)}/" for folder in folders)


def _samples(kinds: Sequence[_Kind], class_name: str, masks: Masks) -> list[Sample]:
    return [
        make_sample(image, kind.defect, class_name, masks.get(image, ()), pixels=bool(masks))
        for kind in kinds
        for image in kind.images
    ]


def _read_kind(folder: Path) -> _Kind:
    """Return a folder's files; a mask has the name of a picture there and a mask's ending."""
    files = list_images(folder)
    stems = {stem_key(path) for path in files}
    masks = {path: None for path in files if mask_owner_stem(stem_key(path)) in stems}
    images = [path for path in files if path not in masks]
    return _Kind(None if is_normal_name(folder.name) else folder.name, images, list(masks))


def _take_lost_masks(kinds: Sequence[_Kind]) -> None:
    """Count `x_mask.png` without an `x` as a mask too, since masks lie beside the pictures."""
    for kind in kinds:
        owners = {path: mask_owner_stem(stem_key(path)) for path in kind.images}
        kind.images = [path for path, owner in owners.items() if owner is None]
        kind.masks += [path for path, owner in owners.items() if owner is not None]


def _pair_kinds(kinds: Sequence[_Kind], truth: Path | None, reading: Reading) -> Masks:
    """Return the masks of all defects; {} if there are image labels only."""
    defects = {kind.defect: kind for kind in kinds if kind.defect is not None}
    if not defects or not (truth or any(kind.masks for kind in defects.values())):
        return {}
    in_truth = {folder.name: list_images(folder) for folder in list_folders(truth)} if truth else {}
    pairings, unpaired = [], []
    for name, kind in defects.items():
        if masks := kind.masks + in_truth.get(name, []):
            pairings.append(reading.pair(kind.images, masks))
        else:
            unpaired += kind.images
    for name, masks in in_truth.items():
        if name not in defects and not is_normal_name(name):
            reading.orphan_masks += masks
    flat = pair_masks(unpaired, list_images(truth) if truth else [], root=reading.root)
    reading.problems += flat.clashes
    normal = [kind for kind in kinds if kind.defect is None]
    # normal pictures may have blank masks
    images = [image for kind in normal for image in kind.images]
    reading.orphan_masks += pair_masks(images, flat.unclaimed, root=reading.root).unclaimed
    for kind in normal:
        reading.orphan_masks += pair_masks(kind.images, kind.masks, root=reading.root).unclaimed
    place = relative_name(truth or reading.root, reading.root)
    return reading.masks_of([*pairings, flat], place=place)


def _compare_label_files(
    kinds: Sequence[_Kind], folders: Sequence[Path | None], reading: Reading
) -> None:
    """Compare the label files of LAG, which repeat the class, with the folders."""
    wrong: list[Path] = []
    unclear: list[Path] = []
    for label, (kind, folder) in enumerate(zip(kinds, folders, strict=True)):
        files = list_files(folder, ".txt") if folder else []
        stems = {stem_key(image) for image in kind.images}
        own = [file for file in files if stem_key(file) in stems]
        if files and not own:
            kinds_name = _LAG_KINDS[label]
            reading.warnings.append(f"label files of {kinds_name} are not called like its pictures")
        words = {file: _first_word(file) for file in own}
        wrong += [file for file, word in words.items() if word == str(1 - label)]
        unclear += [file for file, word in words.items() if word not in ("0", "1")]
    reading.add_problem(
        "{count} label files say another class than their folder: {names}; "
        "move the pictures, or the label folders away if they are wrong",
        wrong,
    )
    reading.add_warning("{count} label files hold no 0 or 1: {names}", unclear)


def _first_word(file: Path) -> str:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            return (stream.read(_LABEL_LENGTH).split() or [""])[0]
    except OSError:  # like an empty file
        return ""


BRAINMRI = YesNoReader(
    "brainmri", "BrainMRI: tumours in MR slices", marker=_NESTED, class_name="brain"
)
BR35H = YesNoReader("br35h", "Br35H: tumours in MR slices", marker=_MASK_RCNN, class_name="brain")
YES_NO = YesNoReader("yes_no", "your own pictures in two folders, no and yes")
