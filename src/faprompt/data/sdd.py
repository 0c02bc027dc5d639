"""KolektorSDD (Tabernik et al., J. Intelligent Manufacturing 2019): `kosNN/Part*.jpg`.

Every picture is three samples, its horizontal bands; masks `Part*_label.bmp` lie beside the
pictures and decide about each band. Masks with a defect are palette pictures, read through their
palette. The paper tests on every anomalous band and a quarter of the normal ones; its quarter
came from an order of files that cannot be recovered, so our counts are the paper's and the
members are not. KolektorSDD2 is another dataset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset, only_split, sort_samples
from faprompt.data.files import examples, list_folders, list_images, relative_name, stem_key
from faprompt.data.masks import picture_size
from faprompt.data.pairing import mask_owner_stem, pair_masks
from faprompt.data.slices import cut_bands, label_slices
from faprompt.data.subsample import SUBSETS, take_subset
from faprompt.errors import DatasetError, ImageReadError
from faprompt.records import Sample

_FOLDER = re.compile(r"kos[0-9]+", re.IGNORECASE)
_BANDS = 3


@dataclass(frozen=True, slots=True)
class SddReader:
    """KolektorSDD as published."""

    name: str = "sdd"
    title: str = "KolektorSDD: surfaces of commutators, three bands a picture"
    layout: str = "kosNN/Part*.jpg with masks Part*_label.bmp beside them"
    subsets: tuple[str, ...] = SUBSETS

    def recognise(self, root: Path) -> str | None:
        """At least one `kosNN` folder with a mask in it."""
        folders = _folders(root)
        return f"folders {examples(folder.name for folder in folders)}" if folders else None

    def read(self, root: Path, *, split: str = "test", subset: str = "paper") -> Dataset:
        """Every anomalous band and a quarter of the normal ones; with "all", every band."""
        only_split(self.name, split)
        folders = _folders(root)
        if not folders:
            raise DatasetError(f"{root} is not {self.name}: {_what_else(root, self.layout)}.")
        notes = Notes()
        bands = [band for folder in folders for band in _read_folder(folder, root, notes)]
        kept = take_subset(sort_samples(bands, root), subset, notes)
        reason = f"folders {examples(folder.name for folder in folders)}"
        return build_dataset(self.name, root, kept, notes, split=split, reason=reason)


def _folders(root: Path) -> list[Path]:
    return [
        folder
        for folder in list_folders(root)
        if _FOLDER.fullmatch(folder.name) and any(map(_is_mask, list_images(folder)))
    ]


def _is_mask(path: Path) -> bool:
    return mask_owner_stem(stem_key(path)) is not None


def _what_else(root: Path, layout: str) -> str:
    folders = list_folders(root)
    if any(path.stem.endswith("_GT") for folder in folders for path in list_images(folder)):
        return "it looks like KolektorSDD2 (*_GT.png), which has other pictures and counts"
    found = examples(folder.name for folder in folders) or "no folders"
    return f"expected {layout}; found {found}"


def _read_folder(folder: Path, root: Path, notes: Notes) -> list[Sample]:
    files = list_images(folder)
    images = [path for path in files if not _is_mask(path)]
    pairing = pair_masks(images, filter(_is_mask, files), root=root)
    notes.problems += pairing.clashes
    notes.orphan_masks += pairing.unclaimed
    if pairing.unmasked:
        names = examples(relative_name(path, root) for path in pairing.unmasked)
        notes.warnings.append(f"without a mask, so without labels, and left out: {names}")
    return [
        band for image, masks in pairing.masks.items() for band in _read_bands(image, masks, notes)
    ]


def _read_bands(image: Path, masks: tuple[Path, ...], notes: Notes) -> list[Sample]:
    whole = Sample(
        image_path=image,
        label=1,
        class_name="sdd",
        defect_type="defect",
        mask_paths=masks,
        has_pixel_label=True,
        dataset="sdd",
    )
    try:
        size = picture_size(image)
        if size[0] < _BANDS:
            raise DatasetError(f"{image} has {size[0]} rows, too few for {_BANDS} bands.")
        return label_slices(whole, cut_bands(size, _BANDS), image_size=size)
    except (DatasetError, ImageReadError) as error:
        notes.problems.append(str(error).rstrip("."))
        return []
