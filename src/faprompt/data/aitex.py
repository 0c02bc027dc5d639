"""AITEX, also AFID (Silvestre-Blanes et al., Autex Research Journal 2019): strips of fabric.

`Defect_images`, `NODefect_images/<fabric>` and `Mask_images`; the Kaggle copy nests some of them
once more. Every sample is a slice of 256 columns. Slices of the strips in `NODefect_images` are
normal; of a defect strip only the slices with a marked pixel are used. The paper tests on all of
those and on a quarter of the normal ones; its quarter came from an order of files that cannot be
recovered, so the counts agree and the members do not. About a twelfth of the normal slices are
blank padding; the paper's count includes them, and `AitexReader(drop_blank=True)` leaves them out
of subset "all". Two strips have two masks each (their union
counts) and one has none (it is left out); how the authors treated these three is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faprompt.data.base import Dataset, Notes, build_dataset, only_split, sort_samples
from faprompt.data.files import (
    examples,
    find_folder,
    list_folders,
    list_images,
    relative_name,
    unnested,
)
from faprompt.data.masks import cut_region, picture_size, reason
from faprompt.data.pairing import pair_masks
from faprompt.data.slices import cut_columns, label_slices
from faprompt.data.subsample import SUBSETS, take_subset
from faprompt.errors import ConfigError, DatasetError, ImageReadError
from faprompt.imaging.image_reading import read_image
from faprompt.records import Sample

_DEFECT, _NORMAL, _MASKS = "Defect_images", "NODefect_images", "Mask_images"
_STEP = 256  # columns of a slice

# The middle part of a strip's name, such as 0001_002_00.
_KINDS = {
    "002": "Broken_end",
    "006": "Broken_yarn",
    "010": "Broken_pick",
    "016": "Weft_curling",
    "019": "Fuzzyball",
    "022": "Cut_selvage",
    "023": "Crease",
    "025": "Warp_ball",
    "027": "Knots",
    "029": "Contamination",
    "030": "Nep",
    "036": "Weft_crack",
}


@dataclass(frozen=True, slots=True)
class AitexReader:
    """AITEX as published, or as on Kaggle.

    Attributes:
        drop_blank: leave normal slices of one single grey value out of subset "all"; the paper
            has them, so with "paper" this is an error.
    """

    name: str = "aitex"
    title: str = "AITEX: strips of woven fabric in slices of 256 columns"
    layout: str = f"{_DEFECT}/*, {_NORMAL}/<fabric>/* and {_MASKS}/*_mask.png"
    subsets: tuple[str, ...] = SUBSETS
    drop_blank: bool = False

    def recognise(self, root: Path) -> str | None:
        """Two of its three folders at least."""
        try:
            found = [name for name in (_DEFECT, _NORMAL, _MASKS) if find_folder(root, name)]
        except DatasetError:  # two spellings of one name: nothing special for others
            return None
        return f"folders {examples(found)}" if len(found) > 1 else None

    def read(self, root: Path, *, split: str = "test", subset: str = "paper") -> Dataset:
        """Every slice with a defect and a quarter of the normal ones; with "all", all of them."""
        only_split(self.name, split)
        if self.drop_blank and subset != "all":
            raise ConfigError(f"drop_blank goes with subset 'all' only, got {subset!r}.")
        missing = [name for name in (_DEFECT, _NORMAL, _MASKS) if not find_folder(root, name)]
        if missing:
            found = examples(path.name for path in list_folders(root)) or "no folders"
            raise DatasetError(
                f"{root} is not {self.name}: expected {self.layout}; "
                f"{examples(missing)} missing, found {found}."
            )
        notes = Notes()
        cut = _printed_slices if self.drop_blank else _normal_slices
        normal = _cut(_normal_strips(root), cut, notes)
        anomalous = _read_defects(root, notes)
        kept = take_subset(sort_samples([*normal, *anomalous], root), subset, notes)
        reason = self.recognise(root) or ""
        return build_dataset(self.name, root, kept, notes, split=split, reason=reason)


def kind_name(stem: str) -> str:
    """The kind of defect in a strip's name; its bare code where we do not know it.

    Example:
        >>> kind_name("0001_002_00"), kind_name("0001_999_00"), kind_name("strip")
        ('Broken_end', '999', 'defect')
    """
    parts = stem.split("_")
    return _KINDS.get(parts[1], parts[1]) if len(parts) == 3 else "defect"


def _folder(root: Path, name: str) -> Path:
    folder = find_folder(root, name)
    assert folder is not None
    return unnested(folder)


def _normal_strips(root: Path) -> list[Path]:
    place = _folder(root, _NORMAL)
    return [image for folder in (place, *list_folders(place)) for image in list_images(folder)]


def _cut(strips: Iterable[Path], cut: Callable[[Path], list[Sample]], notes: Notes) -> list[Sample]:
    samples = []
    for strip in strips:
        try:
            samples += cut(strip)
        except (DatasetError, ImageReadError) as error:
            notes.problems.append(str(error).rstrip("."))
    return samples


def _normal_slices(strip: Path) -> list[Sample]:
    return [
        Sample(strip, 0, "aitex", "good", has_pixel_label=True, region=part, dataset="aitex")
        for part in cut_columns(picture_size(strip), _STEP)
    ]


def _printed_slices(strip: Path) -> list[Sample]:
    """The normal slices that show more than one grey value."""
    slices = _normal_slices(strip)
    try:
        image = read_image(strip).array
    except ImageReadError as error:
        told = reason(strip, error)
        raise ImageReadError(f"{strip} cannot be read as a picture: {told}") from error
    return [part for part in slices if np.ptp(cut_region(image, part), axis=(0, 1)).any()]


def _read_defects(root: Path, notes: Notes) -> list[Sample]:
    strips = list_images(_folder(root, _DEFECT))
    pairing = pair_masks(strips, list_images(_folder(root, _MASKS)), root=root)
    notes.problems += pairing.clashes
    notes.orphan_masks += pairing.unclaimed
    _tell("without a mask, so without labels, and left out", pairing.unmasked, root, notes)

    def slices(strip: Path) -> list[Sample]:
        return _marked_slices(strip, pairing.masks[strip])

    found = _cut(pairing.masks, slices, notes)
    unmarked = set(pairing.masks) - {sample.image_path for sample in found}
    blank = [strip for strip in strips if strip in unmarked]
    _tell("without a marked pixel, so not one slice is used", blank, root, notes)
    return found


def _marked_slices(strip: Path, masks: tuple[Path, ...]) -> list[Sample]:
    whole = Sample(
        image_path=strip,
        label=1,
        class_name="aitex",
        defect_type=kind_name(strip.stem),
        mask_paths=masks,
        has_pixel_label=True,
        dataset="aitex",
    )
    size = picture_size(strip)
    slices = label_slices(whole, cut_columns(size, _STEP), image_size=size)
    return [part for part in slices if part.label]


def _tell(what: str, strips: Iterable[Path], root: Path, notes: Notes) -> None:
    names = examples(relative_name(strip, root) for strip in strips)
    if names:
        notes.warnings.append(f"{what}: {names}")
