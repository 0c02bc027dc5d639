"""Read the paths of pictures from a list: a text file, a CSV table, or a Parquet table."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from faprompt.errors import ConfigError, ImageReadError
from faprompt.files import is_url
from faprompt.storage import local_copy
from faprompt.work import load_extra

NO_PATH = "list row without a path"
_COLUMN = "path"
_PARQUET_ROWS = 65_536  # in memory at one time
_DELIMITERS = ",;\t"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # PowerShell 5 writes it


def list_of(named: str) -> str | None:
    """Return the place of the list that an input such as `@parts.txt` names; None for others.

    A file or folder whose name begins with @ is no list, unless the list exists too.
    """
    if not named.startswith("@"):
        return None
    place = named[1:]
    if not is_url(place) and os.path.lexists(named) and not os.path.lexists(place):
        return None
    return place


def read_list(place: str, column: str | None, left_out: Counter[str]) -> Iterator[str]:
    """Yield the paths and URLs that a list names, in its order; it is read in parts.

    Args:
        place: path or URL of the list: `.txt` with one path a line, `.csv` with a header, or
            `.parquet`. A list in an object storage is copied into a temporary file first.
        column: of the table; None: `path`. A text file has none.
        left_out: gets the number of rows without a path.

    Raises:
        ConfigError: another kind of file, no such column, or a column of another type.
        ImageReadError: the list is missing or cannot be read.
        MissingExtraError: Parquet without pyarrow, or a URL without the extra `storage`.
    """
    ending = os.path.splitext(place)[1].lower()
    readers = {".csv": _csv_column, ".parquet": _parquet_column}
    if ending not in (".txt", *readers):
        raise ConfigError(
            f"@{place}: a list should be .txt (one path a line), .csv or .parquet, got "
            f"{ending or 'no ending'!r}."
        )
    if ending == ".txt" and column is not None:
        raise ConfigError(
            f"@{place}: --column is of .csv and .parquet lists; a .txt has no columns."
        )
    with _readable(place) as path:
        if ending == ".txt":
            yield from _lines(path)
            return
        for value in readers[ending](path, place, column or _COLUMN):
            if value:
                yield value
            else:
                left_out[NO_PATH] += 1


@contextmanager
def _readable(place: str) -> Iterator[Path]:
    """Yield a local path of the list; whatever prevents reading it is an `ImageReadError`."""
    try:
        with local_copy(place) as path:
            yield path
    except FileNotFoundError as error:
        raise ImageReadError(f"@{place}: there is no such list; check the path.") from error
    except (OSError, UnicodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ImageReadError(f"@{place}: the list cannot be read ({reason}).") from error


@contextmanager
def _text(path: Path, newline: str | None) -> Iterator[IO[str]]:
    """Open UTF-8 or UTF-16 text; names of files that are no Unicode keep their bytes."""
    with path.open("rb") as stream:
        encoding = "utf-16" if stream.read(2) in _UTF_16 else "utf-8-sig"
        stream.seek(0)
        errors = "strict" if encoding == "utf-16" else "surrogateescape"
        with io.TextIOWrapper(stream, encoding, errors=errors, newline=newline) as text:
            yield text


def _lines(path: Path) -> Iterator[str]:
    with _text(path, None) as text:
        for line in text:
            if line.strip():
                yield line.removesuffix("\n")


def _csv_column(path: Path, place: str, column: str) -> Iterator[str | None]:
    with _text(path, "") as text:
        header = text.readline()
        delimiter = next((mark for mark in _DELIMITERS if mark in header), ",")
        names = next(csv.reader([header], delimiter=delimiter), [])
        _check_column(column, names, place)
        at = names.index(column)
        for row in csv.reader(text, delimiter=delimiter):
            if row:
                yield row[at] if at < len(row) else None


def _parquet_column(path: Path, place: str, column: str) -> Iterator[str | None]:
    pyarrow: Any = load_extra("parquet", "pyarrow")
    parquet: Any = load_extra("parquet", "pyarrow.parquet")
    try:
        table = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ImageReadError(f"@{place}: this is no Parquet file ({error}).") from error
    with table:
        _check_column(column, table.schema_arrow.names, place)
        kind = table.schema_arrow.field(column).type
        if "string" not in str(kind):  # also large strings, and dictionaries of strings
            raise ConfigError(
                f"@{place}: the column {column!r} should be text, got {kind}; choose another one "
                "by --column."
            )
        for batch in table.iter_batches(_PARQUET_ROWS, columns=[column]):
            yield from batch.column(0).to_pylist()


def _check_column(column: str, names: list[str], place: str) -> None:
    if column not in names:
        raise ConfigError(
            f"@{place}: there is no column {column!r}; it has {', '.join(names) or 'none'}. Choose "
            "one by --column."
        )
