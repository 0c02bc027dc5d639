"""Sets where every picture is anomalous and has a mask: polyps, skin lesions, thyroid nodules.

They come as a folder of pictures and a folder of masks of equal names. What tells them apart is
how the folders and the files are named, or the published number of pictures: the rows at the end
of this file. Without normal pictures they give pixel metrics only.

Polyps: CVC-ColonDB, CVC-ClinicDB, Kvasir-SEG, EndoTect's test set. ISIC 2016, part 1 (ISBI 2016
challenge): the 379 pairs of the test part. TN3K (Gong et al., TRFE-Net): the 614 pairs of the test
part; its `label4test.csv` says benign or malignant, not normal or anomalous, and is not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from faprompt.data.dataset_catalog import published_counts
from faprompt.data.layout_reader import LayoutReader, Match, Reading, make_sample
from faprompt.data.picture_files import (
    examples,
    find_folder,
    folder_name,
    folders_beside,
    holds_images,
    list_folders,
    list_images,
    relative_name,
    stem_key,
)
from faprompt.records import Sample

_NUMBER = re.compile(r"[0-9]+")
_KVASIR_ID = re.compile(r"c[jk][0-9a-z]{23}")  # most begin with cju, the others with cjy to ck2
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ISIC_ID = re.compile(r"ISIC_[0-9]{7}")
_LATER_ISIC = re.compile(r"isic[-_]?(2017|2018)", re.IGNORECASE)

_CLINIC_TRUTH = ("Ground Truth", "Ground_Truth", "GroundTruth")
_ISIC_IMAGES = "ISBI2016_ISIC_Part1_Test_Data"
_ISIC_TRUTH = "ISBI2016_ISIC_Part1_Test_GroundTruth"

_HYPER_KVASIR = frozenset({"labeled-images", "unlabeled-images", "segmented-images"})
_HYPER_SEGMENTED = 1000  # pictures in HyperKvasir's segmented-images/, named by UUIDs
_HYPER_HINT = (
    "it looks like HyperKvasir, another set; the paper uses Kvasir-SEG and EndoTect's test"
)
_PLAIN_KVASIR = frozenset(
    {
        *("dyed-lifted-polyps", "dyed-resection-margins", "esophagitis", "normal-cecum"),
        *("normal-pylorus", "normal-z-line", "polyps", "ulcerative-colitis"),
    }
)


@dataclass(frozen=True, slots=True)
class Parts:
    """The folders of one set: pictures in some, their masks in others."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]

    def pictures(self) -> list[Path]:
        return [path for folder in self.images for path in list_images(folder)]

    def mask_files(self) -> list[Path]:
        return [path for folder in self.masks for path in list_images(folder)]

    def stems(self) -> list[str]:
        return [stem_key(path) for path in self.pictures()]


Form = Callable[[Path], Parts | None]  # finds the parts below a folder


def images_and_masks(
    base: Path,
    *,
    images: tuple[str, ...] = ("images",),
    masks: tuple[str, ...] = ("masks",),
    below: tuple[str, ...] = (),
) -> Parts | None:
    """Return two folders side by side, the first with pictures in it, by their possible names.

    `below` are possible names of a folder in `base` that holds the two.

    Raises:
        DatasetError: several folders have one of the names but for their case.
    """
    place = find_folder(base, *below) if below else base
    if place is None:
        return None
    pictures, truth = find_folder(place, *images), find_folder(place, *masks)
    if pictures is None or truth is None or not holds_images(pictures):
        return None
    return Parts((pictures,), (truth,))


@dataclass(frozen=True)
class SegmentedReader(LayoutReader[Parts]):
    """One row of the table: reads pictures with masks; every picture is anomalous."""

    name: str
    title: str
    layout: str
    class_name: str
    defect_type: str
    forms: tuple[Form, ...] = (images_and_masks,)  # tried in this order
    stems: re.Pattern[str] | None = None  # form of all file names
    stems_suffice: str = ""  # the reason, if no other set has such file names
    root_names: tuple[str, ...] = ()  # names of the set's folder, letters and digits only
    mask_folder: str = ""  # a mask folder that only this set has
    mask_suffix: str = ""  # an ending of mask names that only this set has
    similar: Callable[[Path], str | None] = field(default=lambda root: None)
    remarks: Mapping[int, str] = field(default_factory=dict)  # number of pictures -> what it is

    def foreign(self, root: Path) -> str | None:
        return self.similar(root)

    def find(self, root: Path) -> Match[Parts] | None:
        for base in (root, root / folder_name(root)):  # archives bring a folder of their own name
            for form in self.forms:
                if parts := form(base):
                    formats = sorted({path.suffix[1:].upper() for path in parts.mask_files()})
                    images, masks = (_names(kind, root) for kind in (parts.images, parts.masks))
                    told = f"{images} with {' and '.join(formats) or 'no'} masks in {masks}"
                    mark = self._mark(root, parts)
                    return Match(parts, f"{told}, {mark}" if mark else told, mark is not None)
        return None

    def _mark(self, root: Path, parts: Parts) -> str | None:
        stems = parts.stems()
        if self.stems and not all(map(self.stems.fullmatch, stems)):
            return None
        if self.stems_suffice:
            return self.stems_suffice
        if plain_name(root) in self.root_names:
            return "by the folder's name"
        if any(folder.name.casefold() == self.mask_folder.casefold() for folder in parts.masks):
            return f"by the name of {self.mask_folder}/"
        masks = [stem_key(path) for path in parts.mask_files()] if self.mask_suffix else []
        if masks and all(stem.endswith(self.mask_suffix) for stem in masks):
            return f"with masks *{self.mask_suffix}"
        if self.stems and (0, len(stems)) in published_counts(self.name).values():
            return "with exactly the published number of pictures"
        return None

    def samples(self, parts: Parts, reading: Reading) -> list[Sample]:
        pictures, mask_files = parts.pictures(), parts.mask_files()
        if remark := self.remarks.get(len(pictures)):
            reading.warnings.append(f"{len(pictures)} pictures: {remark}")
        if any(path.suffix.casefold() in (".jpg", ".jpeg") for path in mask_files):
            reading.warnings.append(
                "the masks are JPEG, noisy around their contours: pixel figures differ between "
                "the mask policies 'reference' and 'strict', and from those of a PNG copy"
            )
        beside = folders_beside(reading.root, parts.images + parts.masks)
        reading.add_warning("folders that are no part of it are left out: {names}", beside)
        pairing = reading.pair(pictures, mask_files)
        masks = reading.masks_of([pairing], place=_names(parts.masks, reading.root))
        return [
            make_sample(image, self.defect_type, self.class_name, masks.get(image, ()), pixels=True)
            for image in pictures
        ]


def plain_name(root: Path) -> str:
    """Return a folder's name as letters and digits only.

    Example:
        >>> plain_name(Path("data/CVC-ClinicDB"))
        'cvcclinicdb'
    """
    return "".join(letter for letter in folder_name(root).casefold() if letter.isalnum())


def foreign_polyps(root: Path) -> str | None:
    """Return which set similar to the polyp sets a folder looks like, as a sentence; or None."""
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
    stems = parts.stems() if parts else []
    if len(stems) == _HYPER_SEGMENTED and all(map(_UUID.fullmatch, stems)):
        return _HYPER_HINT
    if any(map(_NUMBER.fullmatch, stems)) and any(map(_KVASIR_ID.fullmatch, stems)):
        return (
            "its pictures are called by numbers and by Kvasir's ids, so it looks like PraNet's "
            "TrainDataset, which mixes CVC-ClinicDB and Kvasir-SEG; give one set by itself"
        )
    return None


def _later_isic(root: Path) -> str | None:
    later = [folder.name for folder in list_folders(root) if _LATER_ISIC.match(folder.name)]
    if not later or find_folder(root, _ISIC_TRUTH):
        return None
    return f"it looks like a later challenge ({later[0]}/); the paper uses part 1 of ISIC 2016"


def _any_folder_beside_masks(base: Path) -> Parts | None:
    """Return `masks/` and the only other folder with pictures, as AnomalyCLIP finds EndoTect."""
    masks = find_folder(base, "masks")
    others = [path for path in list_folders(base) if path != masks and holds_images(path)]
    return Parts((others[0],), (masks,)) if masks and len(others) == 1 else None


def _archive_or_prepared_isic(base: Path) -> Parts | None:
    """Return the archive's folders; or those in `test/` with its masks or `ground_truth/*`."""
    for place in (base, base / "skin", base / "isic"):
        parts = images_and_masks(place, images=(_ISIC_IMAGES,), masks=(_ISIC_TRUTH,))
        if parts:
            return parts
        kinds = tuple(folder for folder in list_folders(place / "test") if holds_images(folder))
        truth = find_folder(place, _ISIC_TRUTH)
        masks = (truth,) if truth else tuple(list_folders(place / "ground_truth"))
        if kinds and masks:
            return Parts(kinds, masks)
    return None


def _names(folders: tuple[Path, ...], root: Path) -> str:
    return examples(f"{relative_name(folder, root)}/" for folder in folders)


_LAYOUT = "images/* with masks of the same names in masks/*"
_PRANET = "this is PraNet's {} part, the paper uses all {}"
_polyps = partial(SegmentedReader, class_name="colon", defect_type="polyp", similar=foreign_polyps)

CVC_COLONDB = _polyps(
    "cvc_colondb",
    "CVC-ColonDB: polyps, all 380 pictures anomalous",
    _LAYOUT,
    stems=_NUMBER,
    root_names=("cvccolondb", "colondb"),
    remarks={
        60: "this may be CVC-300, another set; the paper uses the 380 of the polyp packages",
        300: "this is the older official release, the paper uses the 380 of the polyp packages",
    },
)
CVC_CLINICDB = _polyps(
    "cvc_clinicdb",
    "CVC-ClinicDB: polyps, all 612 pictures anomalous",
    f'{_LAYOUT}, or Original/* and "Ground Truth"/*, also below PNG/ or TIF/',
    forms=tuple(
        partial(images_and_masks, images=images, masks=masks, below=below)
        for below in ((), ("PNG",), ("TIF", "TIFF"))
        for images, masks in ((("images",), ("masks",)), (("Original",), _CLINIC_TRUTH))
    ),
    stems=_NUMBER,
    root_names=("cvcclinicdb", "clinicdb"),
    remarks={62: _PRANET.format("test", 612), 550: _PRANET.format("training", 612)},
)
KVASIR = _polyps(
    "kvasir",
    "Kvasir-SEG: polyps, all 1000 pictures anomalous",
    f"{_LAYOUT}, named by ids such as cju0qkwl35piu0993l0dewei2",
    stems=_KVASIR_ID,
    stems_suffice="named by Kvasir-SEG's ids",
    remarks={100: _PRANET.format("test", 1000), 900: _PRANET.format("training", 1000)},
)
ENDO = _polyps(
    "endo",
    "EndoTect 2020, segmentation test: polyps, all 200 pictures anomalous",
    f"{_LAYOUT}, named by UUIDs",
    forms=(_any_folder_beside_masks, images_and_masks),
    stems=_UUID,
    root_names=("endotect2020segmentationtestdataset", "endotect", "endo"),
)
ISIC = SegmentedReader(
    "isic",
    "ISIC 2016 part 1, test: skin lesions, all 379 pictures anomalous",
    f"{_ISIC_IMAGES}/*.jpg with {_ISIC_TRUTH}/*_Segmentation.png, "
    "or test/<any>/* with either mask folder",
    class_name="skin",
    defect_type="lesion",
    forms=(_archive_or_prepared_isic, images_and_masks),
    stems=_ISIC_ID,
    mask_folder=_ISIC_TRUTH,
    mask_suffix="_Segmentation",
    similar=_later_isic,
    remarks={
        600: "this is the test part of ISIC 2017, the paper uses the 379 of ISIC 2016",
        900: "this is the training part of ISIC 2016, the paper uses its 379 test pictures",
        1000: "this is the test part of ISIC 2018, the paper uses the 379 of ISIC 2016",
    },
)
TN3K = SegmentedReader(
    "tn3k",
    "TN3K, test: thyroid nodules in ultrasound, all 614 pictures anomalous",
    "test-image/* with masks of the same names in test-mask/*",
    class_name="thyroid",
    defect_type="nodule",
    forms=(
        partial(images_and_masks, images=("test-image",), masks=("test-mask",)),
        images_and_masks,
    ),
    mask_folder="test-mask",
    remarks={2879: "this is the trainval part, the paper uses the 614 test pictures"},
)
