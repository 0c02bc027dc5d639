"""Table files -> rows: the separator is found out, column names are trimmed and in lower case."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from faprompt.data.files import read_json
from faprompt.errors import DatasetError

_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True, slots=True)
class Row:
    """One row, by column; values are text, or what JSON says."""

    where: str  # file and line, for messages
    cells: dict[str, Any]


def read_rows(file: Path) -> list[Row]:
    """All rows in file order; empty lines are passed over.

    Raises:
        DatasetError: the file cannot be read, or a row does not fit the header.
    """
    return list(_rows(file))


def read_columns(file: Path) -> list[str]:
    """The column names: of the header, or of the first JSON object.

    Raises:
        DatasetError: the file cannot be read or does not look like a table.
    """
    if _is_json(file):
        return [name for row in islice(_rows(file), 1) for name in row.cells]
    return [name for line in islice(_lines(file), 1) for name in _header(file, *line)[1]]


def _rows(file: Path) -> Iterator[Row]:
    if file.suffix.casefold() == ".json":
        content = read_json(file)
        if not isinstance(content, list):
            raise DatasetError(f"{file} should hold a list of objects, one per picture.")
        return (_object(item, f"{file}, row {at}") for at, item in enumerate(content, start=1))
    if _is_json(file):
        return _json_lines(file)
    return _separated(file)


def _is_json(file: Path) -> bool:
    return file.suffix.casefold() in (".json", ".jsonl", ".ndjson")


def _json_lines(file: Path) -> Iterator[Row]:
    for number, line in _lines(file):
        where = f"{file}, line {number}"
        try:
            yield _object(json.loads(line), where)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{where} is no JSON: {error}.") from error


def _object(item: Any, where: str) -> Row:
    if not isinstance(item, dict):
        raise DatasetError(f"{where}: should be an object, got {item!r}.")
    return Row(where, {_tidy(name): value for name, value in item.items()})


def _separated(file: Path) -> Iterator[Row]:
    separator: str | None = None
    names: list[str] | None = None
    for number, line in _lines(file):
        if names is None:
            separator, names = _header(file, number, line)
            continue
        where = f"{file}, line {number}"
        cells = _cells(line, separator, where)
        if len(cells) != len(names):
            raise DatasetError(
                f"{where}: {len(cells)} cells where the header has {len(names)} ({line[:80]!r}); "
                "quote a cell that holds the separator."
            )
        yield Row(where, dict(zip(names, cells, strict=True)))


def _header(file: Path, number: int, line: str) -> tuple[str | None, list[str]]:
    """The separator (None for runs of blanks) and the names it parts the first line into."""
    separator = next((mark for mark in _SEPARATORS if mark in line), None)
    names = [_tidy(name) for name in _cells(line, separator, f"{file}, line {number}")]
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise DatasetError(f"{file} has several columns {', '.join(sorted(twice))}; keep one each.")
    return separator, names


def _cells(line: str, separator: str | None, where: str) -> list[str]:
    if separator is None:
        return line.split()
    try:
        (cells,) = csv.reader([line], delimiter=separator, skipinitialspace=True)
    except csv.Error as error:
        raise DatasetError(f"{where} is no row of a table: {error}.") from error
    return [cell.strip() for cell in cells]


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """(line number, text) of every line that is not empty."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} cannot be read as a table: {error}.") from error


def _tidy(name: str) -> str:
    return name.strip().casefold()
