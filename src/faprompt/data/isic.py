"""ISIC 2016, part 1 (ISBI 2016 challenge): skin lesions; the 379 pairs of the test part.

Masks are called `<picture>_Segmentation.png`. Besides the archive's two folders there are two
prepared forms, `test/<any>/` with the archive's mask folder beside it or with
`ground_truth/<any>/`, inside `skin/` or `isic/`. Every picture shows a lesion, whatever its
folder is called. The 900 training pairs are not read.
"""

from __future__ import annotations

import re
from pathlib import Path

from faprompt.data.dataset_catalog import published_counts
from faprompt.data.files import find_folder, holds_images, list_folders, stem_key
from faprompt.data.segmented import Parts, SegmentedReader, images_and_masks

_IMAGES = "ISBI2016_ISIC_Part1_Test_Data"
_TRUTH = "ISBI2016_ISIC_Part1_Test_GroundTruth"
_STEM = re.compile(r"ISIC_[0-9]{7}")
_LATER = re.compile(r"isic[-_]?(2017|2018)", re.IGNORECASE)


def foreign_isic(root: Path) -> str | None:
    """Which later challenge this looks like, as a sentence, or None."""
    later = [folder.name for folder in list_folders(root) if _LATER.match(folder.name)]
    if not later or find_folder(root, _TRUTH):
        return None
    return f"it looks like a later challenge ({later[0]}/); the paper uses part 1 of ISIC 2016"


def _find(root: Path) -> Parts | None:
    for base in (root, root / "skin", root / "isic"):
        parts = images_and_masks(base, images=(_IMAGES,), masks=(_TRUTH,)) or _find_prepared(base)
        if parts:
            return parts
    return images_and_masks(root)


def _find_prepared(base: Path) -> Parts | None:
    kinds = tuple(folder for folder in list_folders(base / "test") if holds_images(folder))
    truth = find_folder(base, _TRUTH)
    masks = (truth,) if truth else tuple(list_folders(base / "ground_truth"))
    return Parts(kinds, masks) if kinds and masks else None


def _tell(root: Path, parts: Parts) -> str | None:
    """The archive's folder, or its file names with its way of naming masks."""
    stems = parts.stems()
    if not all(map(_STEM.fullmatch, stems)):
        return None
    if any(folder.name == _TRUTH for folder in parts.masks):
        return "by the archive's folder"
    masks = [stem_key(path) for path in parts.mask_files()]
    if masks and all(stem.endswith("_Segmentation") for stem in masks):
        return "ISIC_* with masks *_Segmentation"
    if (0, len(stems)) in published_counts("isic").values():
        return "ISIC_* with exactly the published number of pictures"
    return None


ISIC = SegmentedReader(
    "isic",
    "ISIC 2016 part 1, test: skin lesions, all 379 pictures anomalous",
    f"{_IMAGES}/*.jpg with {_TRUTH}/*_Segmentation.png, or test/<any>/* with either mask folder",
    class_name="skin",
    defect_type="lesion",
    find=_find,
    tell=_tell,
    foreign=foreign_isic,
    remarks={
        600: "this is the test part of ISIC 2017, the paper uses the 379 of ISIC 2016",
        900: "this is the training part of ISIC 2016, the paper uses its 379 test pictures",
        1000: "this is the test part of ISIC 2018, the paper uses the 379 of ISIC 2016",
    },
)
