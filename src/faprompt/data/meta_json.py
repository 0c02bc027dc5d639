"""`meta.json`, the list that AnomalyCLIP, FAPrompt, AdaCLIP, ADer and others keep of a dataset.

Split → class → records with `img_path`, `mask_path`, `cls_name`, `specie_name`, `anomaly`. Files
made by other projects work unchanged: split names in capitals, dummy records, paths of another
machine, doubled slashes and backslashes, masks that are all blank because there are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faprompt.data.base import Dataset
from faprompt.data.files import examples, natural_key, read_json
from faprompt.data.listing import ListedPicture, Listing, as_extra
from faprompt.data.paths import PathFinder
from faprompt.errors import DatasetError

FILE_NAME = "meta.json"
RECORD_KEYS = ("img_path", "mask_path", "cls_name", "specie_name", "anomaly")
_SHAPE = '{"test": {"<class>": [{"img_path": …, "anomaly": 0 or 1, …}, …]}}'


@dataclass(frozen=True, slots=True)
class MetaJsonReader:
    """Reads the list at a folder's root, a `meta_<name>.json` there, or the file itself."""

    name: str = "meta_json"
    title: str = "a list of labelled pictures, as AnomalyCLIP and its kin write it"
    layout: str = "meta.json at the root, or the path of such a file"

    def recognise(self, root: Path) -> str | None:
        """The list itself; not another tool's file of that name."""
        files = _meta_files(root)
        if root.is_file():
            files = [file for file in files if not _is_others(file)]
        return examples(file.name for file in files) if files else None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """The records of one split, named after what the records say they are."""
        file = _the_file(root)
        folder = root if root.is_dir() else root.parent
        listing = Listing(self.name, file.name, folder, PathFinder(folder))
        renamed: set[tuple[str, str]] = set()
        for class_key, record, where in _records(file, split):
            _add(listing, class_key, record, where, renamed)
        if renamed:
            pairs = (f"{record} under {key}" for key, record in sorted(renamed))
            listing.notes.warnings.append(
                f"cls_name differs from the class it is listed under, and wins: {examples(pairs)}"
            )
        return listing.dataset(split)


def _add(
    listing: Listing,
    class_key: str,
    record: dict[str, Any],
    where: str,
    renamed: set[tuple[str, str]],
) -> None:
    """Take one record, or count why it is not taken."""
    image = listing.find_image(_text(record, "img_path", where))
    if image is None:
        return
    class_name = _text(record, "cls_name", where) or class_key
    if class_name != class_key:
        renamed.add((class_key, class_name))
    mask_text = _text(record, "mask_path", where)
    listing.pictures.append(
        ListedPicture(
            image=image,
            label=_label(record, where),
            class_name=class_name,
            defect_type=_text(record, "specie_name", where),
            mask=listing.find_mask(mask_text, image),
            mask_named=bool(mask_text),
            extra=_extra(record),
        )
    )


def _meta_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.casefold() == ".json" else []
    if _is_list(root / FILE_NAME, if_broken=True):
        return [root / FILE_NAME]
    names = sorted(root.glob("meta_*.json"), key=lambda path: natural_key(path.name))
    return [path for path in names if _is_list(path, if_broken=False)]


def _is_list(file: Path, *, if_broken: bool) -> bool:
    """True when a JSON file has our splits; other tools call their files `meta.json` too."""
    if not file.is_file():
        return False
    try:
        content = read_json(file)
    except DatasetError:
        return if_broken
    if not isinstance(content, dict):
        return False
    splits = [value for key, value in content.items() if key.casefold() in ("train", "test")]
    return any(isinstance(value, dict) for value in splits)


def _is_others(file: Path) -> bool:
    """True for JSON that another reader would take: a list of rows, `images` or `items`."""
    try:
        content = read_json(file)
    except DatasetError:
        return False
    return isinstance(content, list) or (
        isinstance(content, dict) and bool({"images", "items"} & content.keys())
    )


def _the_file(root: Path) -> Path:
    files = [root / FILE_NAME] if (root / FILE_NAME).is_file() else _meta_files(root)
    if not files:
        raise DatasetError(f"{root} holds no {FILE_NAME}; give its folder or the file itself.")
    if len(files) > 1:
        names = examples(file.name for file in files)
        raise DatasetError(f"{root} holds several lists ({names}); give the path of one of them.")
    return files[0]


def _records(file: Path, split: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(class key, record, place for messages) of one split, in file order."""
    classes = _split_of(file, _load(file), split)
    for class_key, records in classes.items():
        if not isinstance(records, list):
            raise DatasetError(f"{file}, class {class_key!r}: should be a list of records.")
        for number, record in enumerate(records):
            where = f"{file}, class {class_key!r}, record {number}"
            if not isinstance(record, dict):
                raise DatasetError(f"{where}: should be an object, got {record!r}.")
            yield class_key, record, where


def _load(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise DatasetError(f"{file} should look like {_SHAPE}; it holds a {found}.")
    return content


def _split_of(file: Path, content: dict[str, Any], split: str) -> dict[str, Any]:
    keys = [key for key in content if key.casefold() == split.casefold()]
    if len(keys) != 1:
        found = examples(map(repr, content)) or "nothing"
        raise DatasetError(f"{file} should have one {split!r} entry; its entries are {found}.")
    classes = content[keys[0]]
    if not isinstance(classes, dict):
        raise DatasetError(f"{file}, entry {keys[0]!r}: should look like {_SHAPE}.")
    return classes


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DatasetError(f"{where}: {key} should be text, got {value!r}.")
    return value if value.strip() else ""


def _label(record: dict[str, Any], where: str) -> int:
    value = record.get("anomaly")
    if value not in (0, 1, "0", "1"):
        raise DatasetError(f"{where}: anomaly should be 0 or 1, got {value!r}.")
    return int(value)


def _extra(record: dict[str, Any]) -> dict[str, str]:
    others = {key: value for key, value in record.items() if key not in RECORD_KEYS}
    return as_extra(others)
