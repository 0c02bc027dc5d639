"""DAGM 2007 (Wieler and Hahn, HCI Heidelberg): `Class1` to `Class10` with `Train` and `Test`.

A picture is anomalous if `Label/` holds a mask of it; `Label/Labels.txt`, if it exists, is
compared with the masks. Both parts hold normal and anomalous pictures; the paper uses `Test`. The
masks are coarse ellipses around the defects, which limits every pixel metric.
"""

from __future__ import annotations

import re
from pathlib import Path

from faprompt.data.layout_reader import LayoutReader, Match, Reading, make_sample
from faprompt.data.picture_files import (
    examples,
    find_folder,
    holds_images,
    list_folders,
    list_images,
    unnested,
)
from faprompt.records import Sample

_CLASS = re.compile(r"class([0-9]+)", re.IGNORECASE)
_LIST = "Labels.txt"


class DagmReader(LayoutReader[dict[str, Path]]):
    """DAGM as on Zenodo or Kaggle, all ten classes or some of them."""

    name = "dagm"
    title = "DAGM 2007: ten artificial textures, coarse masks"
    layout = "Class<n>/Test/*.PNG with masks in Class<n>/Test/Label/*_label.PNG"
    splits = ("test", "train")

    def find(self, root: Path) -> Match[dict[str, Path]] | None:
        found: dict[str, Path] = {}
        for folder in list_folders(root):
            if match := _CLASS.fullmatch(folder.name):
                place = unnested(folder)
                parts = [part for split in self.splits if (part := find_folder(place, split))]
                if any(holds_images(part) and find_folder(part, "Label") for part in parts):
                    found[f"Class{int(match[1])}"] = place
        return Match(found, f"folders {examples(found)} with Label/") if found else None

    def samples(self, parts: dict[str, Path], reading: Reading) -> list[Sample]:
        return [
            sample
            for class_name, folder in parts.items()
            for sample in _read_class(class_name, folder, reading)
        ]


def _read_class(class_name: str, folder: Path, reading: Reading) -> list[Sample]:
    part = find_folder(folder, reading.split)
    if part is None or not holds_images(part):
        reading.add_warning(f"no {reading.split} pictures in {{names}}", [folder])
        return []
    images, labels = list_images(part), find_folder(part, "Label")
    pairing = reading.pair(images, list_images(labels) if labels else ())
    flags = _read_flags(labels / _LIST, reading) if labels else {}
    if not pairing.masks and not flags:
        reading.add_problem("nothing in {names}/Label says which pictures have a defect", [part])
        return []
    contradicted = [image for image in pairing.masks if flags.get(image.name.casefold()) is False]
    reading.add_warning(
        "with a mask, but without a defect by Labels.txt; masks win: {names}", contradicted
    )
    lost = [image for image in pairing.unmasked if flags.get(image.name.casefold())]
    if pairing.masks:
        reading.unmasked += lost
    else:
        reading.warnings.append(f"no masks for {class_name}: image labels only")
    normal = set(pairing.unmasked).difference(lost)
    samples = []
    for image in images:
        defect, masks = None if image in normal else "defect", pairing.masks.get(image, ())
        samples.append(make_sample(image, defect, class_name, masks, pixels=bool(pairing.masks)))
    return samples


def _read_flags(file: Path, reading: Reading) -> dict[str, bool]:
    """Return picture -> is it defective, from lines of: index, flag, picture, 0, mask or 0."""
    if not file.is_file():
        return {}
    try:
        rows = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reading.warnings.append(f"{reading.place(file)} cannot be read: {error}")
        return {}
    return {
        row[2].casefold(): row[1] == "1" for row in rows if len(row) > 2 and row[1] in ("0", "1")
    }
