"""KolektorSDD and AITEX, whose samples are slices of pictures; nothing is written to disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from faprompt.data.dataset import sort_samples
from faprompt.data.layout_reader import SUBSETS, LayoutReader, Match, Reading, make_sample
from faprompt.data.masks import picture_size, read_mask
from faprompt.data.picture_files import (
    examples,
    find_folder,
    list_folders,
    list_images,
    mask_owner_stem,
    stem_key,
    unnested,
)
from faprompt.errors import DatasetError, ImageReadError
from faprompt.records import Sample

Slice = tuple[int, int, int, int]  # x0, y0, x1, y1 in image pixels, ends exclusive

_KOS = re.compile(r"kos[0-9]+", re.IGNORECASE)
_BANDS = 3  # of a picture of KolektorSDD
_STEP = 256  # columns of a slice of AITEX
_WITHOUT_MASK = "without a mask, so without labels, and left out: {names}"
_AITEX_FOLDERS = ("Defect_images", "NODefect_images", "Mask_images")
_AITEX_KINDS = {  # middle part of a strip's name -> kind of defect
    **{"002": "Broken_end", "006": "Broken_yarn", "010": "Broken_pick", "016": "Weft_curling"},
    **{"019": "Fuzzyball", "022": "Cut_selvage", "023": "Crease", "025": "Warp_ball"},
    **{"027": "Knots", "029": "Contamination", "030": "Nep", "036": "Weft_crack"},
}


class SddReader(LayoutReader[list[Path]]):
    """KolektorSDD (Tabernik et al., J. Intelligent Manufacturing 2019): `kosNN/Part*.jpg`.

    Every picture is three samples, its horizontal bands. Masks `Part*_label.bmp` lie beside the
    pictures and label each band. For the subset see `paper_normals`. KolektorSDD2 is another
    dataset.
    """

    name = "sdd"
    title = "KolektorSDD: surfaces of commutators, three bands a picture"
    layout = "kosNN/Part*.jpg with masks Part*_label.bmp beside them"
    subsets = SUBSETS

    def find(self, root: Path) -> Match[list[Path]] | None:
        folders = [path for path in list_folders(root) if _KOS.fullmatch(path.name)]
        folders = [folder for folder in folders if any(map(_is_mask, list_images(folder)))]
        names = examples(folder.name for folder in folders)
        return Match(folders, f"folders {names}") if folders else None

    def found(self, root: Path) -> str:
        images = (path for folder in list_folders(root) for path in list_images(folder))
        is_second = any(path.stem.endswith("_GT") for path in images)
        told = "; it looks like KolektorSDD2 (*_GT.png), another dataset" if is_second else ""
        return super().found(root) + told

    def samples(self, parts: list[Path], reading: Reading) -> list[Sample]:
        bands: list[Sample] = []
        for folder in parts:
            files = list_images(folder)
            images = [path for path in files if not _is_mask(path)]
            pairing = reading.pair(images, filter(_is_mask, files))
            reading.add_warning(_WITHOUT_MASK, pairing.unmasked)
            for image, masks in pairing.masks.items():
                whole = make_sample(image, "defect", "sdd", masks, pixels=True)
                bands += _slices(whole, cut_bands, reading)
        return reading.take_subset(sort_samples(bands, reading.root))


class AitexReader(LayoutReader[dict[str, Path]]):
    """AITEX, also AFID (Silvestre-Blanes et al., Autex Research Journal 2019): strips of fabric.

    Every sample is a slice of 256 columns. Slices of the strips in `NODefect_images` are normal;
    of a defect strip only the slices with a marked pixel are used. For the subset see
    `paper_normals`. About a twelfth of the normal slices are blank padding, which the paper's
    count includes. Two strips have two masks, whose union counts; one has none and is left out.
    How the authors treated these three is not known. The Kaggle copy nests some folders.
    """

    name = "aitex"
    title = "AITEX: strips of woven fabric in slices of 256 columns"
    layout = "Defect_images/*, NODefect_images/<fabric>/* and Mask_images/*_mask.png"
    subsets = SUBSETS

    def find(self, root: Path) -> Match[dict[str, Path]] | None:
        """Return at least two of the three folders, by their names."""
        found = {name: path for name in _AITEX_FOLDERS if (path := find_folder(root, name))}
        return Match(found, f"folders {examples(found)}") if len(found) > 1 else None

    def found(self, root: Path) -> str:
        missing = [name for name in _AITEX_FOLDERS if not find_folder(root, name)]
        return f"{super().found(root)}; {examples(missing)} missing"

    def samples(self, parts: dict[str, Path], reading: Reading) -> list[Sample]:
        if len(parts) < len(_AITEX_FOLDERS):
            raise DatasetError(
                f"{reading.root} is not {self.name}: expected {self.layout}; "
                f"found {self.found(reading.root)}."
            )
        defects, normal, truth = (unnested(parts[name]) for name in _AITEX_FOLDERS)
        slices = []
        for folder in (normal, *list_folders(normal)):
            for strip in list_images(folder):
                whole = make_sample(strip, None, "aitex", pixels=True)
                slices += _slices(whole, cut_columns, reading)
        strips = list_images(defects)
        pairing = reading.pair(strips, list_images(truth))
        reading.add_warning(_WITHOUT_MASK, pairing.unmasked)
        blank = []
        for strip in strips:
            if masks := pairing.masks.get(strip):
                whole = make_sample(strip, kind_name(strip.stem), "aitex", masks, pixels=True)
                marked = [part for part in _slices(whole, cut_columns, reading) if part.label]
                slices += marked
                blank += [] if marked else [strip]
        reading.add_warning("without a marked pixel, so not one slice is used: {names}", blank)
        return reading.take_subset(sort_samples(slices, reading.root))


def cut_bands(image_size: tuple[int, int], count: int = _BANDS) -> list[Slice]:
    """Cut a picture into horizontal bands of equal height; the last one takes the rest.

    Raises:
        ValueError: there are fewer rows than bands.

    Example:
        >>> cut_bands((11, 4), 3)
        [(0, 0, 4, 3), (0, 3, 4, 6), (0, 6, 4, 11)]
    """
    height, width = image_size
    rows = height // count
    if rows == 0:
        raise ValueError(f"{height} rows cannot be cut into {count} bands.")
    ends = [*(rows * band for band in range(1, count)), height]
    return [(0, top, width, end) for top, end in zip([0, *ends[:-1]], ends, strict=True)]


def cut_columns(image_size: tuple[int, int], step: int = _STEP) -> list[Slice]:
    """Cut a picture into slices of `step` columns; the last one may be narrower.

    Example:
        >>> cut_columns((4, 10), 4)
        [(0, 0, 4, 4), (4, 0, 8, 4), (8, 0, 10, 4)]
    """
    height, width = image_size
    return [(left, 0, min(left + step, width), height) for left in range(0, width, step)]


def label_slices(
    whole: Sample, slices: Iterable[Slice], *, image_size: tuple[int, int]
) -> list[Sample]:
    """Return one sample per slice of a whole picture: anomalous if a mask pixel is marked.

    Raises:
        DatasetError: a mask cannot be read, or its size is not the picture's.
    """
    truth = read_mask(whole, image_size=image_size)
    normal = replace(whole, label=0, defect_type="good", mask_paths=())
    return [
        replace(whole if truth[y0:y1, x0:x1].any() else normal, region=(x0, y0, x1, y1))
        for x0, y0, x1, y1 in slices
    ]


def kind_name(stem: str) -> str:
    """Return the kind of defect in the name of an AITEX strip; its code if it is unknown.

    Example:
        >>> kind_name("0001_002_00"), kind_name("0001_999_00"), kind_name("strip")
        ('Broken_end', '999', 'defect')
    """
    parts = stem.split("_")
    return _AITEX_KINDS.get(parts[1], parts[1]) if len(parts) == 3 else "defect"


def _is_mask(path: Path) -> bool:
    return mask_owner_stem(stem_key(path)) is not None


def _slices(
    whole: Sample, cut: Callable[[tuple[int, int]], list[Slice]], reading: Reading
) -> list[Sample]:
    """Return the labelled slices of a picture; [] and a problem if it cannot be cut."""
    try:
        size = picture_size(whole.image_path)
        return label_slices(whole, cut(size), image_size=size)
    except ValueError as error:
        reading.problems.append(f"{whole.image_path}: {str(error).rstrip('.')}")
    except (DatasetError, ImageReadError) as error:
        reading.problems.append(str(error).rstrip("."))
    return []
