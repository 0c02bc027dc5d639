"""Which mask belongs to which picture: by exact stem, never by position."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from faprompt.data.files import examples, relative_name, stem_key

MASK_EXTENSIONS = frozenset({".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff"})

_NUMBERED = re.compile(r"(?P<image>.*)_mask(?P<number>[0-9]+)", re.DOTALL)
_SUFFIXES = ("", "_mask", "_label", "_Segmentation", "_segmentation")


@dataclass(frozen=True, slots=True)
class Pairing:
    """Pictures and masks, matched; what stayed alone on either side is listed."""

    masks: dict[Path, tuple[Path, ...]]  # picture -> its mask files, whose union is the truth
    unmasked: tuple[Path, ...]  # pictures without a mask
    unclaimed: tuple[Path, ...]  # masks without a picture
    clashes: tuple[str, ...]  # pictures with several candidates, masks with several pictures


def pair_masks(images: Sequence[Path], masks: Iterable[Path], *, root: Path) -> Pairing:
    """Match each picture `S` with `S`, `S_mask`, `S_mask1..n`, `S_label` or `S_Segmentation`.

    Stems have to be equal, so `1` never meets `10`. Numbered masks are taken together. More
    than one candidate otherwise (`0.png` beside `0.bmp`, `0.png` beside `0_mask.png`) is a
    clash: the picture stays without a mask and the clash is reported, because any choice may
    be wrong. The same goes for one mask that two pictures could claim.

    Args:
        images: the pictures that should have masks.
        masks: every picture file of the mask folder; those that are no mask by their
            extension come back as unclaimed.
        root: the dataset's folder; names in messages are relative to it.
    """
    every = tuple(masks)
    shelf = _Shelf(mask for mask in every if mask.suffix.casefold() in MASK_EXTENSIONS)
    found = {image: shelf.candidates(stem_key(image)) for image in images}
    clashes = [
        _several(image, some.files, root) for image, some in found.items() if _is_clash(some)
    ]
    disputed = _disputed(found)
    clashes += [
        f"{relative_name(mask, root)} could be the mask of {_names(rivals, root)}"
        for mask, rivals in disputed.items()
    ]
    good = {
        image: some.files
        for image, some in found.items()
        if some.files and not _is_clash(some) and not disputed.keys() & set(some.files)
    }
    touched = {mask for some in found.values() for mask in some.files}
    return Pairing(
        masks=good,
        unmasked=tuple(image for image, some in found.items() if not some.files),
        unclaimed=tuple(mask for mask in every if mask not in touched),
        clashes=tuple(clashes),
    )


def mask_owner_stem(stem: str) -> str | None:
    """The picture's stem inside a mask's name, or None when the name does not look like a mask's.

    Example:
        >>> mask_owner_stem("007_mask"), mask_owner_stem("007_mask2"), mask_owner_stem("007")
        ('007', '007', None)
    """
    numbered = _NUMBERED.fullmatch(stem)
    if numbered:
        return numbered["image"]
    for suffix in _SUFFIXES[1:]:
        if stem.endswith(suffix):
            return stem.removesuffix(suffix)
    return None


@dataclass(frozen=True, slots=True)
class _Candidates:
    files: tuple[Path, ...]
    readings: int  # 0: none, 1: one way to read them, more: a clash


class _Shelf:
    """Mask files looked up by stem."""

    def __init__(self, masks: Iterable[Path]) -> None:
        self._plain: dict[str, list[Path]] = defaultdict(list)
        self._numbered: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for mask in masks:
            stem = stem_key(mask)
            self._plain[stem].append(mask)
            numbered = _NUMBERED.fullmatch(stem)
            if numbered:
                self._numbered[numbered["image"]][int(numbered["number"])].append(mask)

    def candidates(self, stem: str) -> _Candidates:
        single = [mask for suffix in _SUFFIXES for mask in self._plain.get(stem + suffix, ())]
        series = self._numbered.get(stem, {})
        readings = len(single) + max((len(files) for files in series.values()), default=0)
        numbered = [mask for number in sorted(series) for mask in series[number]]
        return _Candidates(tuple(single + numbered), readings)


def _is_clash(some: _Candidates) -> bool:
    return some.readings > 1


def _several(image: Path, masks: Sequence[Path], root: Path) -> str:
    return f"{relative_name(image, root)} has several masks: {_names(masks, root)}"


def _names(paths: Sequence[Path], root: Path) -> str:
    return examples(relative_name(path, root) for path in paths)


def _disputed(found: dict[Path, _Candidates]) -> dict[Path, list[Path]]:
    claims: dict[Path, list[Path]] = defaultdict(list)
    for image, some in found.items():
        for mask in some.files:
            claims[mask].append(image)
    return {mask: images for mask, images in claims.items() if len(images) > 1}
