"""Layouts of other tools that we do not read; they are recognised so that an error can name them.

Detection exports hold boxes, and trees of classes have no normal class. Read as an MVTec tree,
their folders would pass for defects.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from faprompt.data.picture_files import (
    examples,
    find_folder,
    is_folder,
    is_normal_name,
    json_object,
    list_files,
    list_folders,
    list_images,
    stem_key,
)
from faprompt.errors import DatasetError

_SPLITS = ("train", "test", "val", "valid", "validation")
_TO_FOLDERS = "put the pictures into good/ and a folder per defect"
_TO_TABLE = "write a table with the columns image, label and mask"
_ADVICE = (
    "export it as COCO instances (a picture without an annotation is normal), or " + _TO_FOLDERS
)
_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_YAML_KEYS = (re.compile(r"^names\s*:", re.M), re.compile(r"^(train|val|test)\s*:", re.M))
_YOLO_ROW = re.compile(r"\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}\s*", re.IGNORECASE)
_OPENED = 20  # files that are opened at most to recognise a layout


def foreign_layout(folder: Path) -> str | None:
    """Return which layout of another tool a folder has, and what to do; None for any other."""
    levels = [folder, *(path for path in list_folders(folder) if path.name in _SPLITS)]
    for level in levels:
        place = "" if level == folder else f"{level.name}/"
        if told := _annotated_level(level, place):
            return f"it looks like {told}; {_ADVICE}"
        if place and is_folder(level / "images") and is_folder(level / "masks"):
            return (
                f"it holds pictures and masks by split ({place}images, {place}masks) without "
                f"labels; {_TO_TABLE}, or {_TO_FOLDERS}"
            )
    if _has_yolo_config(folder):
        return f"it looks like a YOLO export, described in a data.yaml; {_ADVICE}"
    if is_folder(folder / "leftImg8bit"):
        return f"it looks like Cityscapes (leftImg8bit/), whose labels are no defects; {_ADVICE}"
    return None


def unread_list(root: Path) -> str | None:
    """Return which list of pictures a path holds that only earlier versions read; or None."""
    if root.is_file():
        files = [root]
    else:
        named = [root / name for name in ("folders.toml", "folders.json")]
        files = [file for file in named if file.is_file()]
        files += list_files(root / "annotations", ".json")
    for file in files[:_OPENED]:
        if file.suffix.casefold() == ".toml" or _has_keys(file, "normal"):
            return f"{file.name} describes folders, which is not read; {_TO_TABLE}"
        if _has_keys(file, "items", "categories"):
            return f"{file.name} looks like a Datumaro export, which is not read; {_TO_TABLE}"
    return None


def classes_without_normal(folder: Path) -> str | None:
    """Return that a tree with a `test/` has neither normal pictures nor masks, and what to do.

    Trees of classes for classifiers (ImageFolder) look like this. A class of an MVTec tree has
    normal pictures in `test/` or `train/`, or masks in `ground_truth/`.
    """
    kinds = [path.name for path in list_folders(folder / "test")]
    others = [path.name for split in _SPLITS for path in list_folders(folder / split)]
    if not kinds or is_folder(folder / "ground_truth") or any(map(is_normal_name, others)):
        return None
    return (
        f"test/ holds {examples(kinds)} and no folder of normal pictures, like a tree of classes "
        "for a classifier (ImageFolder); name the folder of the normal pictures good, and the "
        "other folders by their defects"
    )


def _annotated_level(level: Path, place: str) -> str | None:
    """Return the annotations in a folder, as a noun; `place` is printed before names."""
    images, labels = _folder(level, "images"), _folder(level, "labels")
    if images and labels and _holds(labels, ".txt"):
        return f"a YOLO export ({place}{images.name} with {place}{labels.name}/*.txt)"
    notes = _folder(level, "annotations")
    if notes and list_files(notes, ".xml"):
        return f"Pascal VOC ({place}{notes.name}/*.xml)"
    if is_folder(level / "img") and is_folder(level / "ann"):
        return f"a Supervisely export ({place}img with {place}ann)"
    if (level / "annotations.xml").is_file():
        return f"a CVAT export ({place}annotations.xml)"
    darknet = level / "obj_train_data"
    return _annotated_files(darknet if is_folder(darknet) else level, place)


def _annotated_files(folder: Path, place: str) -> str | None:
    """Return the annotations that lie beside pictures of the same names, as a noun."""
    stems = {stem_key(path) for path in list_images(folder)}
    if not stems:
        return None
    labels = list_files(folder, ".txt", ".xml", ".json")
    beside = [path for path in labels if stem_key(path) in stems]
    for path in beside[:_OPENED]:
        text = _beginning(path)
        if path.suffix.casefold() == ".txt" and _YOLO_ROW.fullmatch(text.partition("\n")[0]):
            return f"a YOLO export ({place}*.txt beside the pictures)"
        if path.suffix.casefold() == ".xml" and "<annotation" in text:
            return f"Pascal VOC ({place}*.xml beside the pictures)"
        if path.suffix.casefold() == ".json" and _has_keys(path, "shapes", "imagePath"):
            return f"a LabelMe folder ({place}*.json beside the pictures)"
    return None


def _folder(level: Path, name: str) -> Path | None:
    try:
        return find_folder(level, name)
    except DatasetError:  # `images` beside `Images`
        return None


def _holds(folder: Path, extension: str) -> bool:
    """Return whether such a file lies in the folder or one level below it."""
    return any(list_files(place, extension) for place in (folder, *list_folders(folder)))


def _has_yolo_config(folder: Path) -> bool:
    texts = (_beginning(folder / name) for name in _YAML)
    return any(all(key.search(text) for key in _YAML_KEYS) for text in texts)


def _has_keys(file: Path, *keys: str) -> bool:
    return json_object(file).keys() >= set(keys)


def _beginning(path: Path, *, lines: int = 200) -> str:
    """Return the first lines of a text file; "" if it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "".join(islice(file, lines))
    except OSError:
        return ""
