"""Write result rows as a table: CSV, Parquet, or JSON lines as in `results.jsonl`."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from faprompt.errors import MissingExtraError
from faprompt.files import csv_text, temporary_name
from faprompt.prediction.result_rows import ResultRow

TableKind = Literal["csv", "parquet"]
_ROWS_PER_GROUP = 20_000
_COLUMNS = tuple(ResultRow("", "").to_dict())
_NUMBERS = ("score", "p_value", "threshold", "review_threshold", "latency_ms")


class RowWriter(Protocol):
    """Takes rows one by one; the table is whole after `finish`."""

    def add(self, row: ResultRow) -> None:
        """Write one row."""

    def finish(self) -> None:
        """Write what is left; the stream stays open."""


def check_table_kind(kind: TableKind) -> None:
    """Refuse a kind of table that cannot be written.

    Raises:
        ValueError: neither "csv" nor "parquet".
        MissingExtraError: Parquet without pyarrow.
    """
    if kind not in ("csv", "parquet"):
        raise ValueError(f"table should be 'csv' or 'parquet', got {kind!r}.")
    if kind == "parquet":
        _pyarrow()


def write_table(path: Path, rows: Iterable[ResultRow], kind: TableKind) -> None:
    """Write rows as a table, atomically.

    Every field of `results.jsonl` is a column. In CSV the regions are JSON text, notes are
    joined by "; ", and text that a spreadsheet would run as a formula starts with a ' (see
    `csv_text`). In Parquet regions and notes are lists.
    """
    check_table_kind(kind)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as stream:
            writer = row_writer(stream, kind)
            for row in rows:
                writer.add(row)
            writer.finish()
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def row_writer(stream: IO[bytes], kind: Literal["csv", "parquet", "jsonl"]) -> RowWriter:
    """Return the writer of one table, in bounded memory; see `write_table`.

    Raises:
        MissingExtraError: Parquet without pyarrow.
    """
    if kind == "jsonl":
        return _LineWriter(stream)
    return _CsvWriter(stream) if kind == "csv" else _ParquetWriter(stream)


class _LineWriter:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def add(self, row: ResultRow) -> None:
        self._stream.write(row.to_line())

    def finish(self) -> None:
        pass


class _CsvWriter:
    def __init__(self, stream: IO[bytes]) -> None:
        # A file name may hold bytes that are no Unicode; they are written as \udcXX.
        self._text = io.TextIOWrapper(
            stream, encoding="utf-8", errors="backslashreplace", newline=""
        )
        self._writer = csv.DictWriter(self._text, _COLUMNS)
        self._writer.writeheader()

    def add(self, row: ResultRow) -> None:
        values = row.to_dict()
        values |= {"regions": json.dumps(values["regions"]), "notes": "; ".join(row.notes)}
        self._writer.writerow(
            {k: csv_text(v) if isinstance(v, str) else v for k, v in values.items()}
        )

    def finish(self) -> None:
        self._text.flush()
        self._text.detach()


class _ParquetWriter:
    def __init__(self, stream: IO[bytes]) -> None:
        self._pyarrow, self._schema = _pyarrow(), parquet_schema()
        from pyarrow import parquet

        self._writer = parquet.ParquetWriter(stream, self._schema)
        self._waiting: list[dict[str, Any]] = []

    def add(self, row: ResultRow) -> None:
        path = row.path.encode(errors="backslashreplace").decode()
        self._waiting.append(row.to_dict() | {"path": path})
        if len(self._waiting) == _ROWS_PER_GROUP:
            self._write()

    def finish(self) -> None:
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if self._waiting:
            table = self._pyarrow.Table.from_pylist(self._waiting, schema=self._schema)
            self._writer.write_table(table)
            self._waiting = []


def parquet_schema() -> Any:
    """Return the pyarrow schema of the columns of `results.jsonl`.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa = _pyarrow()
    region = pa.struct(
        {
            "bbox": pa.list_(pa.int32()),
            "area_px": pa.int64(),
            "peak": pa.float64(),
            "mean": pa.float64(),
        }
    )
    special = {
        "regions": pa.list_(region),
        "notes": pa.list_(pa.string()),
        "width": pa.int32(),
        "height": pa.int32(),
    } | dict.fromkeys(_NUMBERS, pa.float64())
    return pa.schema([(name, special.get(name, pa.string())) for name in _COLUMNS])


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError(
            "a Parquet table needs pyarrow; pip install 'faprompt[parquet]', or ask for csv."
        ) from error
    return pyarrow
