"""Write results as a CSV or Parquet table, row by row."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from faprompt.errors import MissingExtraError
from faprompt.files import csv_text, temporary_name
from faprompt.prediction.result_rows import ResultRow

TableKind = Literal["csv", "parquet"]

_ROWS_PER_GROUP = 20_000
_COLUMNS = (
    "path", "status", "error", "score", "verdict", "threshold", "width", "height", "regions",
    "map", "overlay", "notes", "latency_ms", "model",
)  # fmt: skip


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
        (_write_csv if kind == "csv" else _write_parquet)(temporary, rows)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_csv(path: Path, rows: Iterable[ResultRow]) -> None:
    # A file name may hold bytes that are no Unicode; they are written as \udcXX.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        writer = csv.DictWriter(stream, _COLUMNS)
        writer.writeheader()
        for row in rows:
            values = row.to_dict()
            values |= {"regions": json.dumps(values["regions"]), "notes": "; ".join(row.notes)}
            writer.writerow(
                {k: csv_text(v) if isinstance(v, str) else v for k, v in values.items()}
            )


def _write_parquet(path: Path, rows: Iterable[ResultRow]) -> None:
    pa = _pyarrow()
    from pyarrow import parquet

    schema = _schema(pa)
    with parquet.ParquetWriter(path, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _groups(rows: Iterable[ResultRow]) -> Iterator[list[dict[str, Any]]]:
    source = iter(rows)
    while group := [_parquet_values(row) for row in islice(source, _ROWS_PER_GROUP)]:
        yield group


def _parquet_values(row: ResultRow) -> dict[str, Any]:
    path = row.path.encode(errors="backslashreplace").decode()
    return row.to_dict() | {"path": path, "notes": list(row.notes)}


def _schema(pa: Any) -> Any:
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
    } | dict.fromkeys(("score", "threshold", "latency_ms"), pa.float64())
    return pa.schema([(name, special.get(name, pa.string())) for name in _COLUMNS])


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError(
            "a Parquet table needs pyarrow; pip install 'faprompt[parquet]', or ask for csv."
        ) from error
    return pyarrow
