"""Polyps in pictures of the bowel: CVC-ColonDB, CVC-ClinicDB, Kvasir-SEG and EndoTect's test set.

All four come as `images/` and `masks/` of equal names, and so do sets that the paper does not
use. What tells them apart is how the files are called (numbers in both CVC sets, ids such as
`cju0qkwl…` in Kvasir-SEG, UUIDs in EndoTect) and then the folder's name or the published count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from faprompt.data.dataset_catalog import published_counts
from faprompt.data.files import find_folder, holds_images, list_folders
from faprompt.data.segmented import (
    Parts,
    SegmentedReader,
    images_and_masks,
    own_levels,
    plain_name,
)

_NUMBER = re.compile(r"[0-9]+")
_KVASIR_ID = re.compile(r"c[jk][0-9a-z]{23}")  # most begin with cju, the others with cjy to ck2
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

_CLINIC_TRUTH = ("Ground Truth", "Ground_Truth", "GroundTruth")
_HYPER_KVASIR = frozenset({"labeled-images", "unlabeled-images", "segmented-images"})
_HYPER_SEGMENTED = 1000  # pictures in HyperKvasir's segmented-images/, named by UUIDs
_PLAIN_KVASIR = frozenset(
    {
        "dyed-lifted-polyps",
        "dyed-resection-margins",
        "esophagitis",
        "normal-cecum",
        "normal-pylorus",
        "normal-z-line",
        "polyps",
        "ulcerative-colitis",
    }
)


def foreign_polyps(root: Path) -> str | None:
    """Which neighbour of these sets this looks like, as a sentence, or None."""
    inside = {folder.name.casefold() for folder in list_folders(root)}
    if len(inside & _PLAIN_KVASIR) > 2:
        return (
            "it looks like the plain Kvasir set, eight classes without masks; "
            "Kvasir-SEG, with images/ and masks/, is another download"
        )
    if inside & _HYPER_KVASIR or plain_name(root) == "segmentedimages":
        return _HYPER_HINT
    if plain_name(root) == "cvc300":
        return "it looks like CVC-300, another set than CVC-ColonDB and not in the paper"
    parts = images_and_masks(root)
    return _foreign_files(parts.stems()) if parts else None


_HYPER_HINT = (
    "it looks like HyperKvasir, another set; the paper uses Kvasir-SEG and EndoTect's test"
)


def _foreign_files(stems: list[str]) -> str | None:
    if _all(_UUID, stems) and len(stems) == _HYPER_SEGMENTED:
        return _HYPER_HINT
    if _any(_NUMBER, stems) and _any(_KVASIR_ID, stems):
        return (
            "its pictures are called by numbers and by Kvasir's ids, so it looks like PraNet's "
            "TrainDataset, which mixes CVC-ClinicDB and Kvasir-SEG; give one set by itself"
        )
    return None


def _find(root: Path) -> Parts | None:
    return next(filter(None, map(images_and_masks, own_levels(root))), None)


def _find_clinic(root: Path) -> Parts | None:
    """The package's form or the archive's; of `PNG/` and `TIF/`, which hold the same, the first."""
    for base in own_levels(root):
        for place in (base, find_folder(base, "PNG"), find_folder(base, "TIF", "TIFF")):
            parts = place and (
                images_and_masks(place)
                or images_and_masks(place, images=("Original",), masks=_CLINIC_TRUTH)
            )
            if parts:
                return parts
    return None


def _find_endo(root: Path) -> Parts | None:
    """`masks/` beside `images/`, or beside the one folder with pictures, whatever its name."""
    for base in own_levels(root):
        masks = find_folder(base, "masks")
        others = [path for path in list_folders(base) if path != masks and holds_images(path)]
        if masks and len(others) == 1:
            return Parts((others[0],), (masks,))
    return _find(root)


def _tell_colon(root: Path, parts: Parts) -> str | None:
    return _tell("cvc_colondb", _NUMBER, root, parts, names=("cvccolondb", "colondb"))


def _tell_clinic(root: Path, parts: Parts) -> str | None:
    return _tell("cvc_clinicdb", _NUMBER, root, parts, names=("cvcclinicdb", "clinicdb"))


def _tell_kvasir(root: Path, parts: Parts) -> str | None:
    return "named by Kvasir-SEG's ids" if _all(_KVASIR_ID, parts.stems()) else None


def _tell_endo(root: Path, parts: Parts) -> str | None:
    names = ("endotect2020segmentationtestdataset", "endotect", "endo")
    return _tell("endo", _UUID, root, parts, names=names)


def _tell(
    name: str, pattern: re.Pattern[str], root: Path, parts: Parts, *, names: tuple[str, ...]
) -> str | None:
    """File names as they should be, and the folder's name or the published count."""
    stems = parts.stems()
    if not _all(pattern, stems):
        return None
    if plain_name(root) in names:
        return "by the folder's name"
    if (0, len(stems)) in published_counts(name).values():
        return "with exactly the published number of pictures"
    return None


def _all(pattern: re.Pattern[str], stems: Iterable[str]) -> bool:
    return all(pattern.fullmatch(stem) for stem in stems)


def _any(pattern: re.Pattern[str], stems: Iterable[str]) -> bool:
    return any(pattern.fullmatch(stem) for stem in stems)


_LAYOUT = "images/* with masks of the same names in masks/*"
_PRANET = "this is PraNet's {} part, the paper uses all {}"

CVC_COLONDB = SegmentedReader(
    "cvc_colondb",
    "CVC-ColonDB: polyps, all 380 pictures anomalous",
    _LAYOUT,
    class_name="colon",
    defect_type="polyp",
    find=_find,
    tell=_tell_colon,
    foreign=foreign_polyps,
    remarks={
        60: "this may be CVC-300, another set; the paper uses the 380 of the polyp packages",
        300: "this is the older official release, the paper uses the 380 of the polyp packages",
    },
)
CVC_CLINICDB = SegmentedReader(
    "cvc_clinicdb",
    "CVC-ClinicDB: polyps, all 612 pictures anomalous",
    f'{_LAYOUT}, or Original/* and "Ground Truth"/*, also below PNG/ or TIF/',
    class_name="colon",
    defect_type="polyp",
    find=_find_clinic,
    tell=_tell_clinic,
    foreign=foreign_polyps,
    remarks={62: _PRANET.format("test", 612), 550: _PRANET.format("training", 612)},
)
KVASIR = SegmentedReader(
    "kvasir",
    "Kvasir-SEG: polyps, all 1000 pictures anomalous",
    f"{_LAYOUT}, named by ids such as cju0qkwl35piu0993l0dewei2",
    class_name="colon",
    defect_type="polyp",
    find=_find,
    tell=_tell_kvasir,
    foreign=foreign_polyps,
    remarks={100: _PRANET.format("test", 1000), 900: _PRANET.format("training", 1000)},
)
ENDO = SegmentedReader(
    "endo",
    "EndoTect 2020, segmentation test: polyps, all 200 pictures anomalous",
    f"{_LAYOUT}, named by UUIDs",
    class_name="colon",
    defect_type="polyp",
    find=_find_endo,
    tell=_tell_endo,
    foreign=foreign_polyps,
)
