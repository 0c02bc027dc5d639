"""Encode and decode parts: the rows of up to a thousand pictures as one file.

A part is Parquet, or JSON lines. Its columns are those of `results.jsonl` and the stamp of each
picture, from which a later run sees whether the picture has changed since.
"""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from faprompt.prediction.result_rows import ResultRow
from faprompt.prediction.result_tables import parquet_schema

PartKind = Literal["parquet", "jsonl"]
STAMP = "stamp"


@dataclass(frozen=True, slots=True)
class PartRow:
    """A row of a part."""

    row: ResultRow
    stamp: str  # of the picture when it was listed


def default_kind() -> PartKind:
    """Return "parquet" where pyarrow is installed."""
    return "parquet" if importlib.util.find_spec("pyarrow") else "jsonl"


def encode_part(
    rows: Sequence[ResultRow], stamps: Mapping[str, str], kind: PartKind
) -> tuple[bytes, PartKind]:
    """Return the content of a part and its kind.

    A file name that is not Unicode does not fit into Parquet, so that its part is JSON lines.

    Raises:
        MissingExtraError: Parquet without pyarrow.
    """
    values = [row.to_dict() | {STAMP: stamps[row.path]} for row in rows]
    if kind == "parquet":
        try:
            return _to_parquet(values), kind
        except UnicodeEncodeError:
            pass
    lines = (json.dumps(each, allow_nan=False) + "\n" for each in values)
    return "".join(lines).encode(), "jsonl"


def decode_part(name: str, content: bytes) -> list[PartRow]:
    """Return the rows of a part.

    Raises:
        ValueError: the content is damaged.
        MissingExtraError: Parquet without pyarrow.
    """
    try:
        if name.endswith(".parquet"):
            found = _from_parquet(content)
        else:
            if content and not content.endswith(b"\n"):
                raise ValueError("the last line is cut off")
            found = [json.loads(line) for line in content.splitlines()]
        return [PartRow(stamp=each.pop(STAMP), row=ResultRow.from_dict(each)) for each in found]
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ValueError(f"{name} is damaged ({error})") from error


def _to_parquet(values: list[dict[str, Any]]) -> bytes:
    schema = parquet_schema()
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist(values, schema=schema.append(pa.field(STAMP, pa.string())))
    stream = io.BytesIO()
    parquet.write_table(table, stream, compression="zstd", write_page_checksum=True)
    return stream.getvalue()


def _from_parquet(content: bytes) -> list[dict[str, Any]]:
    parquet_schema()  # says which extra is missing
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(content), page_checksum_verification=True)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
