"""A table with one row per picture: CSV, TSV, columns parted by blanks, JSON lines, a JSON list.

Columns go by any of the names that ZSAD projects use (`COLUMNS`), so VisA's `1cls.csv`,
anomalib's tabular input, AA-CLIP's JSONL and InCTRL's JSON lists are read as they are. Paths
are relative to the table's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faprompt.data.base import Dataset
from faprompt.data.files import examples, folder_name, list_files
from faprompt.data.listing import ListedPicture, Listing, as_extra
from faprompt.data.paths import PathFinder, best_root
from faprompt.data.rows import Row, read_columns, read_rows
from faprompt.errors import DatasetError

# Meaning -> the names a column may have, compared trimmed and in lower case; the first wins.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": ("image_path", "img_path", "image", "path", "filename", "file"),
    "mask": ("mask_path", "mask", "mask_file"),
    "label": ("anomaly", "label_index", "label", "target", "is_anomaly"),
    "class": ("cls_name", "class_name", "class", "object", "category", "type"),
    "split": ("split", "set", "phase"),
    "defect": ("specie_name", "specie", "defect", "anomaly_class"),
}
CROP = ("x0", "y0", "x1", "y1")
NORMAL_WORDS = ("0", "false", "normal", "good", "ok", "no", "negative")
ANOMALY_WORDS = (
    *("1", "true", "anomaly", "abnormal", "anomalous", "bad", "defect"),
    *("ko", "ng", "yes", "positive"),
)

_CERTAIN = (".csv", ".tsv", ".jsonl", ".ndjson")  # tables whatever they hold
_PERHAPS = (".txt", ".json")  # tables when their columns say so


@dataclass(frozen=True, slots=True)
class TableReader:
    """The table itself, or the one folder that holds exactly one."""

    name: str = "table"
    title: str = "a table with one row per picture: .csv, .tsv, .txt, .jsonl, .json"
    layout: str = "columns image_path and label; also mask_path, class_name, split, x0 to y1"

    def recognise(self, root: Path) -> str | None:
        """Columns for the picture and its label."""
        files = _tables(root)
        return examples(file.name for file in files) if files else None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """The rows of one split; without a split column every row belongs to `test`."""
        file = _the_table(root)
        rows = read_rows(file)
        roles = _roles(file, rows)
        chosen = _of_split(file, rows, roles, split)
        images = [_text(row, roles["image"]) for row in chosen]
        folder = best_root((file.parent, file.parent.parent), images)
        listing = Listing(
            self.name, file.name, folder, PathFinder(folder), own_classes="class" in roles
        )
        if folder != file.parent:
            listing.notes.warnings.append(f"paths are taken from the folder above {file.name}'s")
        for row in chosen:
            _add(listing, row, roles, default_class=folder_name(folder))
        return listing.dataset(split)


def parse_label(value: object) -> int:
    """0 for normal, 1 for anomalous, from a number, a truth value or a word.

    Raises:
        ValueError: neither; nothing is anomalous by default.

    Example:
        >>> parse_label("1.0"), parse_label("Good "), parse_label(True), parse_label("ng")
        (1, 0, 1, 1)
    """
    word = str(value).strip().casefold()
    word = {"0.0": "0", "1.0": "1"}.get(word, word)
    if word in NORMAL_WORDS or word in ANOMALY_WORDS:
        return int(word in ANOMALY_WORDS)
    raise ValueError(
        f"label {value!r} is none of {', '.join(NORMAL_WORDS)} (normal) and "
        f"{', '.join(ANOMALY_WORDS)} (anomalous)"
    )


def _tables(root: Path) -> list[Path]:
    if root.is_file():
        suffix = root.suffix.casefold()
        certain = suffix in _CERTAIN
        return [root] if certain or (suffix in _PERHAPS and _is_table(root)) else []
    return [file for file in list_files(root, *_CERTAIN, *_PERHAPS) if _is_table(file)]


def _is_table(file: Path) -> bool:
    """True when the columns tell picture and label; what cannot be read is no table."""
    try:
        names = read_columns(file)
    except DatasetError:
        return False
    return all(_column(names, role) for role in ("image", "label"))


def _the_table(root: Path) -> Path:
    files = _tables(root)
    if not files:
        raise DatasetError(
            f"{root} holds no table with columns for the picture ({_choices('image')}) and its "
            f"label ({_choices('label')}); give its folder or the file itself."
        )
    if len(files) > 1:
        names = examples(file.name for file in files)
        raise DatasetError(f"{root} holds several tables ({names}); give the path of one of them.")
    return files[0]


def _roles(file: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Meaning -> column, for the meanings that have one."""
    names = list(dict.fromkeys(name for row in rows for name in row.cells))
    roles = {role: column for role in COLUMNS if (column := _column(names, role))}
    for role in ("image", "label"):
        if role not in roles:
            raise DatasetError(
                f"{file} has no column for the {role} ({_choices(role)}); "
                f"its columns are {examples(names, limit=12) or 'none'}."
            )
    crop = [name for name in CROP if name in names]
    if crop and len(crop) < len(CROP):
        raise DatasetError(f"{file} has {', '.join(crop)}; a crop needs x0, y0, x1 and y1.")
    return roles


def _column(names: Sequence[str], role: str) -> str | None:
    return next((name for name in COLUMNS[role] if name in names), None)


def _choices(role: str) -> str:
    return ", ".join(COLUMNS[role])


def _of_split(file: Path, rows: Sequence[Row], roles: Mapping[str, str], split: str) -> list[Row]:
    named = [_text(row, roles.get("split")).casefold() or "test" for row in rows]
    chosen = [row for row, name in zip(rows, named, strict=True) if name == split.casefold()]
    if not chosen:
        told = ", ".join(map(repr, sorted(set(named))))
        raise DatasetError(f"{file} has no {split!r} rows; its splits are {told}.")
    return chosen


def _add(listing: Listing, row: Row, roles: Mapping[str, str], *, default_class: str) -> None:
    """Take one row, or count why it is not taken."""
    image = listing.find_image(_text(row, roles["image"]))
    if image is None:
        return
    label = _label(row, roles["label"])
    mask_text = _text(row, roles.get("mask"))
    used = {*roles.values(), *CROP}
    others = {key: value for key, value in row.cells.items() if key not in used}
    listing.pictures.append(
        ListedPicture(
            image=image,
            label=label,
            class_name=_text(row, roles.get("class")) or default_class,
            defect_type=_text(row, roles.get("defect")) or ("" if label else "good"),
            mask=listing.find_mask(mask_text, image),
            mask_named=bool(mask_text),
            region=_region(row),
            extra=as_extra(others),
        )
    )


def _text(row: Row, column: str | None) -> str:
    value = row.cells.get(column) if column else None
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        raise DatasetError(f"{row.where}: {column} should be text, got {value!r}.")
    return str(value).strip()


def _label(row: Row, column: str) -> int:
    try:
        return parse_label(row.cells.get(column, ""))
    except ValueError as error:
        raise DatasetError(f"{row.where}: {error}.") from error


def _region(row: Row) -> tuple[int, int, int, int] | None:
    given = [row.cells.get(name) for name in CROP]
    if all(value in (None, "") for value in given):
        return None
    try:
        x0, y0, x1, y1 = map(_whole, given)
    except (TypeError, ValueError, OverflowError):
        x0 = y0 = x1 = y1 = -1
    if not (0 <= x0 < x1 and 0 <= y0 < y1):
        raise DatasetError(
            f"{row.where}: x0, y0, x1, y1 should be whole pixels with 0 <= x0 < x1 and "
            f"0 <= y0 < y1, got {', '.join(map(str, given))}."
        )
    return x0, y0, x1, y1


def _whole(value: Any) -> int:
    number = float(value)
    if number != int(number):
        raise ValueError(f"{value!r} is no whole number")
    return int(number)
