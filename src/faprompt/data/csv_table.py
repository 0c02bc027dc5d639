"""Tables with one row per picture: CSV, TSV, columns parted by blanks, JSON lines, a JSON list.

A column may have any of the names that other projects use (`COLUMNS`), so VisA's `1cls.csv`,
anomalib's tabular input, AA-CLIP's JSONL and InCTRL's JSON lists are read unchanged. Paths are
relative to the table's folder.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from faprompt.data.dataset import Dataset
from faprompt.data.layout_reader import Reader, Reading
from faprompt.data.listing import Listing, as_extra, as_object
from faprompt.data.picture_files import (
    PathFinder,
    best_root,
    examples,
    folder_name,
    list_files,
    only_file,
    read_json_list,
)
from faprompt.errors import DatasetError
from faprompt.records import Sample

# Meaning -> possible column names, compared trimmed and in lower case; the first one found counts.
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

_ALWAYS_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
_PERHAPS_TABLES = (".txt", ".json")  # tables if they have the columns
_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    where: str  # file and line, for messages
    cells: dict[str, Any]  # by column; text, or a JSON value

    def text(self, column: str | None) -> str:
        """Return the text of a column; "" if the row has no such column."""
        value = self.cells.get(column) if column else None
        if isinstance(value, (list, dict)):
            raise DatasetError(f"{self.where}: {column} should be text, got {value!r}.")
        return "" if value is None else str(value).strip()


class TableReader(Reader):
    """Reads a table, or the only table of a folder; without a split column all rows are `test`."""

    name = "table"
    title = "a table with one row per picture: .csv, .tsv, .txt, .jsonl, .json"
    layout = "columns image_path and label; also mask_path, class_name, split, x0 to y1"

    def recognise(self, root: Path) -> str | None:
        return examples(file.name for file in _tables(root)) or None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        image, label = (", ".join(COLUMNS[role]) for role in ("image", "label"))
        wanted = f"table with columns for the picture ({image}) and its label ({label})"
        file = only_file(_tables(root), root, kind="tables", wanted=wanted)
        rows = read_rows(file)
        roles = _roles(file, rows)
        splits = [row.text(roles.get("split")).casefold() or "test" for row in rows]
        if split.casefold() not in splits:
            told = ", ".join(map(repr, sorted(set(splits))))
            raise DatasetError(f"{file} has no {split!r} rows; its splits are {told}.")
        chosen = [row for row, own in zip(rows, splits, strict=True) if own == split.casefold()]
        images = [row.text(roles["image"]) for row in chosen]
        folder = best_root((file.parent, file.parent.parent), images)
        reading, finder = Reading(folder, split), PathFinder(folder)
        listing = Listing(self.name, file.name, finder, reading, own_classes="class" in roles)
        if folder != file.parent:
            reading.warnings.append(f"paths are taken from the folder above {file.name}'s")
        for row in chosen:
            _add(listing, row, roles, default_class=folder_name(folder))
        return listing.dataset()


def parse_label(value: object) -> int:
    """Return 0 for normal and 1 for anomalous, from a number, a truth value or a word.

    Raises:
        ValueError: the value is none of them.

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


def read_rows(file: Path) -> list[Row]:
    """Return all rows in file order; empty lines are skipped.

    Column names are trimmed and in lower case. The separator is comma, semicolon, tab or blanks.

    Raises:
        DatasetError: the file cannot be read, or a row does not fit the header.
    """
    if _is_json(file):
        return list(_json_rows(file))
    names, lines = _header_and_lines(file)
    rows = []
    for where, cells in lines:
        if len(cells) != len(names):
            raise DatasetError(
                f"{where}: {len(cells)} cells where the header has {len(names)} "
                f"({examples(cells)}); quote a cell that holds the separator."
            )
        rows.append(Row(where, dict(zip(names, cells, strict=True))))
    return rows


def read_columns(file: Path) -> list[str]:
    """Return the column names, from the header or from the first JSON object.

    Raises:
        DatasetError: the file cannot be read or does not look like a table.
    """
    if _is_json(file):
        return [name for row in islice(_json_rows(file), 1) for name in row.cells]
    return _header_and_lines(file)[0]


def _is_json(file: Path) -> bool:
    return file.suffix.casefold() in (".json", ".jsonl", ".ndjson")


def _json_rows(file: Path) -> Iterator[Row]:
    for where, item in _json_items(file):
        cells = as_object(item, where)
        yield Row(where, {name.strip().casefold(): value for name, value in cells.items()})


def _json_items(file: Path) -> Iterator[tuple[str, Any]]:
    if file.suffix.casefold() == ".json":
        content = read_json_list(file)
        if not isinstance(content, list):
            raise DatasetError(f"{file} should hold a list of objects, one per picture.")
        yield from ((f"{file}, row {at}", item) for at, item in enumerate(content, start=1))
        return
    for where, line in _lines(file):
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{where} is no JSON: {error}.") from error


def _header_and_lines(file: Path) -> tuple[list[str], Iterator[tuple[str, list[str]]]]:
    """Return the column names, and the place and the cells of the other lines."""
    lines = _split_lines(file)
    names = [name.casefold() for name in next(lines, ("", []))[1]]
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise DatasetError(f"{file} has several columns {', '.join(sorted(twice))}; keep one each.")
    return names, lines


def _split_lines(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of every line; the first line tells the separator."""
    separator: str | None = None
    for where, line in _lines(file):
        separator = separator or next((mark for mark in _SEPARATORS if mark in line), " ")
        if separator == " ":
            yield where, line.split()
            continue
        try:
            (cells,) = csv.reader([line], delimiter=separator, skipinitialspace=True)
        except csv.Error as error:
            raise DatasetError(f"{where} is no row of a table: {error}.") from error
        yield where, [cell.strip() for cell in cells]


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every line that is not empty."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{file}, line {number}", line.rstrip("\n")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} cannot be read as a table: {error}.") from error


def _tables(root: Path) -> list[Path]:
    if root.is_file():
        suffix = root.suffix.casefold()
        certain = suffix in _ALWAYS_TABLES
        return [root] if certain or (suffix in _PERHAPS_TABLES and _is_table(root)) else []
    return list(filter(_is_table, list_files(root, *_ALWAYS_TABLES, *_PERHAPS_TABLES)))


def _is_table(file: Path) -> bool:
    try:
        names = set(read_columns(file))
    except DatasetError:
        return False
    return all(names.intersection(COLUMNS[role]) for role in ("image", "label"))


def _roles(file: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Return the column of each meaning that has one."""
    names = list(dict.fromkeys(name for row in rows for name in row.cells))
    fitting = {role: [name for name in COLUMNS[role] if name in names] for role in COLUMNS}
    for role in ("image", "label"):
        if not fitting[role]:
            raise DatasetError(
                f"{file} has no column for the {role} ({', '.join(COLUMNS[role])}); "
                f"its columns are {examples(names, limit=12) or 'none'}."
            )
    crop = [name for name in CROP if name in names]
    if crop and len(crop) < len(CROP):
        raise DatasetError(f"{file} has {', '.join(crop)}; a crop needs x0, y0, x1 and y1.")
    return {role: columns[0] for role, columns in fitting.items() if columns}


def _add(listing: Listing, row: Row, roles: Mapping[str, str], *, default_class: str) -> None:
    """Add one row to the listing, unless its picture does not exist."""
    image = listing.find_image(row.text(roles["image"]))
    if image is None:
        return
    try:
        label = parse_label(row.cells.get(roles["label"], ""))
    except ValueError as error:
        raise DatasetError(f"{row.where}: {error}.") from error
    mask_text = row.text(roles.get("mask"))
    used = {*roles.values(), *CROP}
    sample = Sample(
        image,
        label,
        row.text(roles.get("class")) or default_class,
        row.text(roles.get("defect")) or ("" if label else "good"),
        listing.find_mask(mask_text, image),
        region=_region(row),
        extra=as_extra({key: value for key, value in row.cells.items() if key not in used}),
    )
    listing.add(sample, names_mask=bool(mask_text))


def _region(row: Row) -> tuple[int, int, int, int] | None:
    given: list[Any] = [row.cells.get(name) for name in CROP]
    if all(value in (None, "") for value in given):
        return None
    try:
        numbers = [float(value) for value in given]
        x0, y0, x1, y1 = map(int, numbers)
    except (TypeError, ValueError, OverflowError):
        numbers, x0, y0, x1, y1 = [], -1, -1, -1, -1
    if not (0 <= x0 < x1 and 0 <= y0 < y1) or numbers != [x0, y0, x1, y1]:
        raise DatasetError(
            f"{row.where}: x0, y0, x1, y1 should be whole pixels with 0 <= x0 < x1 and "
            f"0 <= y0 < y1, got {', '.join(map(str, given))}."
        )
    return x0, y0, x1, y1
