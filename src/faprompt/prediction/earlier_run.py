"""Find what an earlier run left in the output folder: rows to keep, files to remove.

A hidden file records what `results.jsonl` does not: the file behind each row, and the names
of the table and the report.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from faprompt.errors import ConfigError
from faprompt.files import is_url, temporary_name, whole_name
from faprompt.prediction.picture_fetching import READERS, with_stamp
from faprompt.prediction.result_pictures import Artifacts, artifact_folders, is_artifact_name
from faprompt.prediction.result_rows import (
    FileStamp,
    ResultRow,
    read_rows,
    stamp_file,
    stamp_stored,
)
from faprompt.storage import LocalFolder, OutputFolder, StoredFile
from faprompt.work import read_ahead

RECORD_NAME = ".faprompt-inputs.jsonl"
REPORT_NAME = "report.html"
TABLE_NAMES = {"csv": "results.csv", "parquet": "results.parquet"}
_SUMMARIES = frozenset({REPORT_NAME, *TABLE_NAMES.values()})


class InputRecord:
    """The hidden file during a run: one line for the run, then one for each row.

    A line is written before its row, so that every row of `results.jsonl` has one.
    """

    def __init__(self, folder: Path, summaries: Iterable[str]) -> None:
        """Start a new file; `summaries` are the names of the table and the report."""
        self._path = folder / RECORD_NAME
        self._temporary = temporary_name(self._path)
        self._stream = self._temporary.open("wb", buffering=0)
        self._write({"summaries": sorted(summaries)})

    def __enter__(self) -> InputRecord:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._temporary.unlink(missing_ok=True)

    def append(self, path: str, stamp: FileStamp) -> None:
        """Record the file behind a row."""
        self._write({"path": path, **stamp._asdict()})

    def publish(self) -> None:
        """Replace the file of the earlier run; lines can still be appended."""
        self._stream.close()
        os.replace(self._temporary, self._path)
        self._stream = self._path.open("ab", buffering=0)

    def _write(self, values: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(values).encode() + b"\n")


class EarlierRun:
    """Rows and files of the run that last wrote into a folder, if there was one.

    `wanted` maps the absolute path or URL of every input file to the file as the user named it.
    """

    def __init__(self, folder: Path, wanted: Mapping[str, StoredFile]) -> None:
        self.folder, self.wanted = folder, wanted
        self.exists = all((folder / name).is_file() for name in ("results.jsonl", "run.json"))
        self.n_others = 0  # rows kept whose files this run was not asked for
        self.n_dropped = 0  # rows of such files that are gone or changed
        self._kept: set[str] = set()  # artifacts of kept rows, relative to the folder

    def rows(self, artifacts: Artifacts, record: InputRecord) -> Iterator[ResultRow]:
        """Yield the rows that are still valid, and count the others.

        Args:
            artifacts: pictures that this run writes.
            record: gets a line for each row.
        """
        wanted = self.wanted
        stamps = _read_stamps(self.folder)
        rows = read_rows(self.folder / "results.jsonl")
        found = ((row, stamps.pop(row.path, None)) for row in rows)
        asks = any(is_url(file.path) and not file.stamp for file in wanted.values())
        looks = read_ahead(self._look, found, workers=READERS) if asks else map(self._look, found)
        for row, stamp, file, unchanged in looks:
            if file in wanted:
                row = replace(row, path=wanted[file].path)
                if not (unchanged and artifacts.complete(row)):
                    continue
            elif unchanged:
                self.n_others += 1
                if whole_name(row.path) != file:  # named from another working directory
                    row = replace(row, path=file)
            else:
                self.n_dropped += 1
                continue
            if stamp is not None:
                record.append(row.path, stamp)
            names = (row.map, row.overlay, *artifacts.thumbnail_names(row.path))
            self._kept.update(name for name in names if name)
            yield row

    def _look(
        self, found: tuple[ResultRow, FileStamp | None]
    ) -> tuple[ResultRow, FileStamp | None, str, bool]:
        """Return a row, its stamp and its file, and whether the file is still the same."""
        row, stamp = found
        file = whole_name(row.path) if stamp is None else stamp.file
        wanted = self.wanted.get(file)
        if not is_url(file):
            now = stamp_file(file if wanted is None else wanted.path)
            return row, stamp, file, now == stamp and os.path.lexists(file)
        if wanted is None:  # nothing is asked of a storage for files that the run was not
            return row, stamp, file, stamp is not None
        known = with_stamp(wanted)
        return row, stamp, file, bool(known.stamp) and stamp_stored(known) == stamp

    def remove_stale(self) -> None:
        """Remove files of the earlier run, except those of kept rows and of inputs."""
        if not self.exists:
            return
        for name in _read_summaries(self.folder):
            (self.folder / name).unlink(missing_ok=True)
        for place in artifact_folders(self.folder):
            ours = [name for name in _list(place) if is_artifact_name(name)]
            for name in ours:
                is_input = os.path.abspath(place / name) in self.wanted
                if not is_input and f"{place.name}/{name}" not in self._kept:
                    (place / name).unlink(missing_ok=True)
            if ours and not _list(place):
                place.rmdir()


def require_same_settings(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    advice: str = "run without resume, or into another folder",
) -> None:
    """Refuse to resume a run that was made with other settings.

    Args:
        folder: output folder of the run.
        settings: those of now.
        advice: end of the message: what the user can do.

    Raises:
        ConfigError: `run.json` has other settings, or cannot be read.
    """
    earlier = read_settings(LocalFolder(folder), advice=advice)
    require_equal(earlier, settings, where=folder, advice=advice)


def read_settings(folder: OutputFolder, *, advice: str) -> dict[str, Any]:
    """Return what `run.json` records; `advice` ends the message.

    Raises:
        ConfigError: it is missing or broken.
    """
    try:
        return dict(json.loads(folder.read("run.json")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{folder.location}: run.json is missing or broken, so the settings of its results "
            f"are unknown; {advice}."
        ) from error


def require_equal(
    earlier: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    where: str | os.PathLike[str],
    advice: str,
) -> None:
    """Refuse settings that differ from those of an earlier run, by a ConfigError."""
    changed = _differences(earlier, settings)
    if changed:
        raise ConfigError(
            f"{where} cannot be resumed: {'; '.join(changed)}. {advice[:1].upper()}{advice[1:]}."
        )


def _differences(earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Return which settings differ, those of the detector by name."""
    pairs = {n: (earlier.get(n), settings.get(n)) for n in sorted({*earlier, *settings})}
    was, now = pairs.pop("decided_by", (None, None))
    if isinstance(was, dict) and isinstance(now, dict):
        pairs.pop("detector", None)
        pairs |= {f"the detector's {n}": (was.get(n), now.get(n)) for n in sorted({*was, *now})}
    return [f"{name} was {a!r} and is {b!r}" for name, (a, b) in pairs.items() if a != b]


def _list(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _read_stamps(folder: Path) -> dict[str, FileStamp]:
    """Return the file of each row by its path; the last line of a path counts."""
    return {
        line["path"]: FileStamp(**{name: line[name] for name in FileStamp._fields if name in line})
        for line in _read_lines(folder)
        if {"path", *FileStamp._fields[:-1]} <= set(line)  # older files have no version
    }


def _read_summaries(folder: Path) -> list[str]:
    found = next(_read_lines(folder), {}).get("summaries", ())
    return [name for name in found if name in _SUMMARIES]


def _read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of the hidden file; incomplete and unknown ones are skipped."""
    try:
        stream = (folder / RECORD_NAME).open("rb")
    except OSError:
        return
    with stream:
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line
