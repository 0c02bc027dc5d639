"""Read and write result rows: `results.jsonl` line by line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from faprompt.files import temporary_name
from faprompt.records import Region, Verdict
from faprompt.storage import StoredFile


class FileStamp(NamedTuple):
    """Identity of a file and its content, for `resume`."""

    file: str  # absolute path, links not followed; or a URL
    target: str  # absolute path with links followed; "" where that is the same path
    size: int | None  # bytes; None when the file cannot be accessed
    mtime_ns: int | None  # modification time, nanoseconds since 1970
    version: str = ""  # of a URL: size and version as its storage tells them; "" if unknown


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One line of `results.jsonl`.

    `map` and `overlay` are relative to the folder of the results, so the folder can move.
    """

    path: str  # as the user named it
    model: str
    status: Literal["ok", "error"] = "ok"
    error: str | None = None
    score: float | None = None
    p_value: float | None = None
    verdict: Verdict | None = None
    threshold: float | None = None
    review_threshold: float | None = None
    product: str | None = None
    width: int | None = None
    height: int | None = None
    regions: tuple[Region, ...] = ()
    map: str | None = None
    overlay: str | None = None
    notes: tuple[str, ...] = ()  # what was done to the picture, one sentence each
    latency_ms: float | None = None  # decoding this picture plus its share of scoring its batch
    stamp: FileStamp | None = field(default=None, compare=False)  # not part of the line

    def to_dict(self) -> dict[str, Any]:
        """Return plain values in the order of the file format."""
        return {
            "path": self.path,
            "status": self.status,
            "error": self.error,
            "score": self.score,
            "p_value": self.p_value,
            "verdict": self.verdict,
            "threshold": self.threshold,
            "review_threshold": self.review_threshold,
            "product": self.product,
            "width": self.width,
            "height": self.height,
            "regions": [{**asdict(r), "bbox": list(r.bbox)} for r in self.regions],
            "map": self.map,
            "overlay": self.overlay,
            "notes": list(self.notes),
            "latency_ms": self.latency_ms,
            "model": self.model,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResultRow:
        """Build a row from the values of `to_dict`; KeyError or TypeError for other values."""
        regions = (
            Region(tuple(r["bbox"]), r["area_px"], r["peak"], r["mean"]) for r in values["regions"]
        )
        plain = {k: v for k, v in values.items() if k not in ("regions", "notes")}
        return cls(**plain, regions=tuple(regions), notes=tuple(values.get("notes", ())))

    def to_line(self) -> bytes:
        """Return one line of UTF-8 JSON with its line end.

        Raises:
            ValueError: a number is NaN or infinite.
        """
        values = self.to_dict()
        try:
            text = json.dumps(values, ensure_ascii=False, allow_nan=False)
            return text.encode() + b"\n"
        except UnicodeEncodeError:  # a file name that is not Unicode is escaped
            return json.dumps(values, allow_nan=False).encode() + b"\n"


def stamp_file(path: str) -> FileStamp:
    """Return the identity of a file; size and time are None when it cannot be accessed."""
    file = os.path.abspath(path)
    try:
        target, found = os.path.realpath(path), os.stat(path)
    except (OSError, ValueError):
        return FileStamp(file, "", None, None)
    return FileStamp(file, "" if target == file else target, found.st_size, found.st_mtime_ns)


def stamp_stored(file: StoredFile) -> FileStamp:
    """Return the identity of a file of an object storage, by the stamp of its listing."""
    return FileStamp(file.path, "", None, None, file.stamp)


def read_rows(path: Path) -> Iterator[ResultRow]:
    """Yield the rows of a `results.jsonl`; incomplete and unknown lines are skipped."""
    with path.open("rb") as stream:
        for line in stream:
            row = _parse(line)
            if row is not None:
                yield row


class ResultsFile:
    """`results.jsonl` during a run: rows are appended, and found again by path.

    A row is written by one call, so that at most the last line is incomplete after a crash.
    Memory holds the offsets of the rows, not the rows.
    """

    def __init__(self, path: Path, kept: Iterable[ResultRow] = ()) -> None:
        """Start a new file with the rows `kept` from an earlier run."""
        self.path = path
        self._offsets: dict[str, int] = {}
        self._end = 0
        temporary = temporary_name(path)
        with temporary.open("wb", buffering=2**20) as stream:
            for row in kept:
                stream.write(self._place(row))
        os.replace(temporary, path)
        self._stream = path.open("ab", buffering=0)

    def __contains__(self, path: object) -> bool:
        return path in self._offsets

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def append(self, row: ResultRow) -> None:
        """Append one row to the file."""
        line = self._place(row)
        if self._stream.write(line) != len(line):
            raise OSError(f"{self.path}: the line was not written whole; is the disk full?")

    def read(self, path: str) -> ResultRow:
        """Return the row of a picture; KeyError when there is none."""
        with self.path.open("rb") as stream:
            return self._read_at(stream, self._offsets[path])

    def sort(self, paths: Iterable[str]) -> None:
        """Sort the file in the order of `paths`, atomically; other rows stay in front."""
        wanted = [path for path in paths if path in self._offsets]
        known = set(wanted)
        order = [path for path in self._offsets if path not in known] + wanted
        if order == list(self._offsets):
            return
        offsets, self._offsets, self._end = self._offsets, {}, 0
        temporary = temporary_name(self.path)
        with self.path.open("rb") as old, temporary.open("wb", buffering=2**20) as new:
            for path in order:
                new.write(self._place(self._read_at(old, offsets[path])))
        self._stream.close()
        os.replace(temporary, self.path)
        self._stream = self.path.open("ab", buffering=0)

    def _place(self, row: ResultRow) -> bytes:
        line = row.to_line()
        self._offsets[row.path] = self._end
        self._end += len(line)
        return line

    @staticmethod
    def _read_at(stream: Any, offset: int) -> ResultRow:
        stream.seek(offset)
        return ResultRow.from_dict(json.loads(stream.readline()))


def _parse(line: bytes) -> ResultRow | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return ResultRow.from_dict(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
