"""`meta.json`, the list of a dataset that AnomalyCLIP, FAPrompt, AdaCLIP, ADer and others use.

Split → class → records with `img_path`, `mask_path`, `cls_name`, `specie_name`, `anomaly`. Files
of other projects are read unchanged: with split names in capitals, records without a picture,
paths of another machine, doubled slashes, and blank masks that stand for missing ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faprompt.data.dataset import Dataset
from faprompt.data.listing import ListedPicture, Listing, as_extra
from faprompt.data.picture_files import PathFinder, examples, only_file, read_json_list
from faprompt.errors import DatasetError
from faprompt.files import natural_key

FILE_NAME = "meta.json"

_KEYS = ("img_path", "mask_path", "cls_name", "specie_name", "anomaly")
_OTHER_KEYS = {"images", "items", "normal"}
_SHAPE = '{"test": {"<class>": [{"img_path": …, "anomaly": 0 or 1, …}, …]}}'


@dataclass(frozen=True, slots=True)
class MetaJsonReader:
    """Reads `meta.json` in a folder, the only `meta_<name>.json` there, or a file given by path."""

    name: str = "meta_json"
    title: str = "a list of labelled pictures, as AnomalyCLIP and its kin write it"
    layout: str = "meta.json at the root, or the path of such a file"

    def recognise(self, root: Path) -> str | None:
        """Return the file names, unless they are another tool's files of that name."""
        files = _meta_files(root)
        if root.is_file():
            files = [file for file in files if not _is_other_list(file)]
        return examples(file.name for file in files) or None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """Return the records of one split, under the dataset's name in the records if they agree.

        Raises:
            DatasetError: there is no such file, or its content has another shape.
        """
        own = root / FILE_NAME
        files = [own] if own.is_file() else _meta_files(root)
        file = only_file(files, root, kind="lists", wanted=FILE_NAME)
        folder = root if root.is_dir() else root.parent
        listing = Listing(self.name, file.name, folder, PathFinder(folder))
        renamed: set[tuple[str, str]] = set()
        for class_key, record, where in _records(file, split):
            image = listing.find_image(_text(record, "img_path", where))
            if image is None:
                continue
            class_name = _text(record, "cls_name", where) or class_key
            if class_name != class_key:
                renamed.add((class_key, class_name))
            mask = _text(record, "mask_path", where)
            label = record.get("anomaly")
            if label not in (0, 1, "0", "1"):
                raise DatasetError(f"{where}: anomaly should be 0 or 1, got {label!r}.")
            listing.pictures.append(
                ListedPicture(
                    image=image,
                    label=int(label),
                    class_name=class_name,
                    defect_type=_text(record, "specie_name", where),
                    mask=listing.find_mask(mask, image),
                    mask_named=bool(mask),
                    extra=as_extra({k: v for k, v in record.items() if k not in _KEYS}),
                )
            )
        if renamed:
            pairs = (f"{record} under {key}" for key, record in sorted(renamed))
            listing.notes.warnings.append(
                f"cls_name differs from the class it is listed under, and wins: {examples(pairs)}"
            )
        return listing.dataset(split)


def _meta_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.casefold() == ".json" else []
    if _has_splits(root / FILE_NAME, if_broken=True):
        return [root / FILE_NAME]
    files = sorted(root.glob("meta_*.json"), key=lambda path: natural_key(path.name))
    return [file for file in files if _has_splits(file, if_broken=False)]


def _has_splits(file: Path, *, if_broken: bool) -> bool:
    """Return whether a JSON file has our splits; other tools have a `meta.json` too."""
    if not file.is_file():
        return False
    try:
        content = read_json_list(file)
    except DatasetError:
        return if_broken
    splits = content.items() if isinstance(content, dict) else ()
    return any(key.casefold() in ("train", "test") and isinstance(v, dict) for key, v in splits)


def _is_other_list(file: Path) -> bool:
    """Return whether the file is another list: of rows, with `images`, `items` or `normal`."""
    try:
        content = read_json_list(file)
    except DatasetError:
        return False
    is_object = isinstance(content, dict)
    return isinstance(content, list) or (is_object and bool(_OTHER_KEYS & content.keys()))


def _records(file: Path, split: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the class key, the record and its place of every record of a split, in file order."""
    content = read_json_list(file)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise DatasetError(f"{file} should look like {_SHAPE}; it holds a {found}.")
    keys = [key for key in content if key.casefold() == split.casefold()]
    if len(keys) != 1:
        found = examples(map(repr, content)) or "nothing"
        raise DatasetError(f"{file} should have one {split!r} entry; its entries are {found}.")
    classes = content[keys[0]]
    if not isinstance(classes, dict):
        raise DatasetError(f"{file}, entry {keys[0]!r}: should look like {_SHAPE}.")
    for class_key, records in classes.items():
        if not isinstance(records, list):
            raise DatasetError(f"{file}, class {class_key!r}: should be a list of records.")
        for number, record in enumerate(records):
            where = f"{file}, class {class_key!r}, record {number}"
            if not isinstance(record, dict):
                raise DatasetError(f"{where}: should be an object, got {record!r}.")
            yield class_key, record, where


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DatasetError(f"{where}: {key} should be text, got {value!r}.")
    return value if value.strip() else ""
