"""Datumaro exports: `annotations/<subset>.json` with a label per picture, `images/<subset>/`.

Image labels only. The first label of a picture is its class of defect, or normal when the label
says so; outlines and boxes of this format are not read (export as COCO for those).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faprompt.data.base import Dataset, only_split
from faprompt.data.coco import NORMAL_CATEGORIES, picture_folders
from faprompt.data.files import examples, list_files, read_json
from faprompt.data.listing import ListedPicture, Listing
from faprompt.data.paths import PathFinder, best_root
from faprompt.errors import DatasetError

_Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DatumaroReader:
    """Reads the file itself, or the one such file of a folder's `annotations/`."""

    name: str = "datumaro"
    title: str = "a Datumaro export with one label per picture"
    layout: str = "annotations/<subset>.json beside images/<subset>/"
    class_name: str | None = None  # None: the file's stem
    normal_labels: frozenset[str] = NORMAL_CATEGORIES  # all others are kinds of defect

    def recognise(self, root: Path) -> str | None:
        """`items` and the table of labels among the `categories`."""
        files = _files(root)
        return examples(file.name for file in files) if files else None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """Every labelled picture that is there; a file is one split."""
        only_split(self.name, split)
        file = _the_file(root)
        content = read_json(file)
        labels = [str(label.get("name", "")) for label in content["categories"]["label"]["labels"]]
        items = [_item(file, at, item) for at, item in enumerate(content["items"])]
        place = best_root(picture_folders(file), [_image_name(item) for item in items])
        base = root if root.is_dir() else root.parent
        folder = base if place.is_relative_to(base) else place
        listing = Listing(self.name, file.name, folder, PathFinder(place), own_classes=False)
        unlabelled = sum(not self._add(listing, file, item, labels) for item in items)
        if unlabelled:
            listing.notes.warnings.append(f"{unlabelled} pictures without a label are left out")
        return listing.dataset(split)

    def _add(self, listing: Listing, file: Path, item: _Record, labels: list[str]) -> bool:
        """Take one item; False when it has no label."""
        kind = _kind(file, item, labels)
        if kind is None:
            return False
        image = listing.find_image(_image_name(item))
        normal = kind.strip().casefold() in {name.casefold() for name in self.normal_labels}
        if image is not None:
            class_name = self.class_name or file.stem
            defect = "good" if normal else kind
            listing.pictures.append(ListedPicture(image, int(not normal), class_name, defect))
        return True


def _kind(file: Path, item: _Record, labels: list[str]) -> str | None:
    """The name of an item's first label; None when it has none."""
    annotations = item.get("annotations") or ()
    numbers = [annotation.get("label_id") for annotation in annotations if _is_label(annotation)]
    if not numbers:
        return None
    number = numbers[0]
    if not isinstance(number, int) or not 0 <= number < len(labels):
        raise DatasetError(
            f"{file}, item {item.get('id')!r}: there is no label {number!r}; "
            f"the labels are {examples(labels) or 'none'}, counted from 0."
        )
    return labels[number]


def _is_label(annotation: Any) -> bool:
    return isinstance(annotation, dict) and annotation.get("type") == "label"


def _item(file: Path, at: int, item: Any) -> _Record:
    if not isinstance(item, dict) or not _image_name(item):
        raise DatasetError(f"{file}, item {at}: should have an id or an image path, got {item!r}.")
    return item


def _image_name(item: _Record) -> str:
    image = item.get("image") or item.get("media")  # younger versions say "media"
    path = image.get("path") if isinstance(image, dict) else None
    return str(path or item.get("id") or "")


def _files(root: Path) -> list[Path]:
    if root.is_file():
        files = [root] if root.suffix.casefold() == ".json" else []
    else:
        files = list_files(root / "annotations", ".json")
    return [file for file in files if _holds_items(file)]


def _holds_items(file: Path) -> bool:
    try:
        content = read_json(file)
    except DatasetError:
        return False
    if not isinstance(content, dict) or not isinstance(content.get("items"), list):
        return False
    categories = content.get("categories")
    table = categories.get("label") if isinstance(categories, dict) else None
    labels = table.get("labels") if isinstance(table, dict) else None
    return isinstance(labels, list) and all(isinstance(label, dict) for label in labels)


def _the_file(root: Path) -> Path:
    files = _files(root)
    if not files:
        raise DatasetError(
            f"{root} holds no Datumaro export (items and categories in annotations/*.json); "
            "give its folder or the file itself."
        )
    if len(files) > 1:
        names = examples(file.name for file in files)
        raise DatasetError(f"{root} holds several exports ({names}); give the path of one of them.")
    return files[0]
