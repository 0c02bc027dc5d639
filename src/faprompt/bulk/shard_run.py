"""Do one shard of a run: find what is missing, have it scored, and write it in parts.

A run that was ended at any moment goes on where its last part ended. A part counts if it can be
read, was made under the settings of the run, and its pictures still have the stamps that they
had. `run_shard` does not know who scores: threads of this process, other processes, or Ray.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from faprompt import __version__
from faprompt.bulk.shard_files import (
    RUN,
    DoneMark,
    PartFact,
    ShardFiles,
    fingerprint_in,
    fingerprint_of,
    number_in,
    write_run,
)
from faprompt.bulk.shard_parts import PartKind, PartRow, decode_part, default_kind
from faprompt.bulk.shard_plan import read_plan
from faprompt.bulk.shard_split import WHOLE_RUN, FileDigest, Shard
from faprompt.prediction.earlier_run import read_settings, require_equal
from faprompt.prediction.note_tally import NoteTally
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import OutputFolder, StoredFile, is_url, local_path
from faprompt.work import logger

PART_ROWS = 1_000
PART_SECONDS = 60.0
_ADVICE = "use the options of the other shards, or another output folder"

RowSource = Callable[[Sequence[StoredFile]], Iterator[ResultRow]]


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What a shard holds after its run."""

    n_ok: int  # rows of scored pictures, earlier ones included
    n_error: int  # rows of pictures that could not be read
    n_kept: int  # rows that earlier runs had written
    n_dropped: int  # rows of earlier runs whose pictures changed or are no longer named
    seconds: float
    notes: tuple[str, ...]  # one line per kind of note on the pictures scored now


def run_shard(
    rows: RowSource,
    files: Iterable[StoredFile],
    out: OutputFolder,
    shard: Shard = WHOLE_RUN,
    *,
    settings: Callable[[], Mapping[str, Any]],
    asked: Mapping[str, Any] | None = None,
    command: str = "",
    kind: PartKind | None = None,
    part_rows: int = PART_ROWS,
    part_seconds: float = PART_SECONDS,
    retry_errors: bool = False,
    on_row: Callable[[ResultRow, int, int], None] | None = None,
    lock: bool = True,
) -> ShardSummary:
    """Score the pictures of a shard that have no row yet, and mark the shard as done.

    Args:
        rows: called once with the pictures to score, in the order of the inputs, and only if
            there are any. It yields one row for each, in any order; an unreadable picture is a
            row with status "error". Rows name pictures as `StoredFile.path` does.
        files: all pictures of the run, in one pass; not read if the run was planned.
        out: output folder of the run.
        shard: which pictures to take.
        settings: returns all that decides a score, as plain JSON values. It is called only if
            pictures have to be scored, before `rows`, so that a finished shard loads no model.
        asked: options as the user gave them, plain JSON values; compared with those of the
            other shards before anything else.
        command: with which merge advises to run missing shards again; has "I/N" for the shard.
        kind: of the parts; None: Parquet where pyarrow is installed.
        part_rows: most rows of a part.
        part_seconds: time after which a part is written though it has fewer rows.
        retry_errors: score again what could not be read.
        on_row: gets each new row, how many are done, and how many there are.
        lock: hold the folder of the shard; False where the caller holds it.

    Raises:
        ConfigError: the output folder belongs to a run with other settings or shards.
        FolderInUseError: another process on this machine does this shard.
        ShardError: the planned list of pictures is missing or damaged.
        ValueError: `rows` left out a picture, or named one twice or another one.
    """
    with out.lock(shard.folder) if lock else nullcontext():
        started = time.perf_counter()
        work = _ShardWork(ShardFiles(out, shard), asked or {}, kind or default_kind())
        work.read_inputs(files)
        work.keep_parts(retry_errors=retry_errors)
        todo = [StoredFile(p, stamp) for p, stamp in work.stamps.items() if p not in work.kept]
        if todo:
            work.place.remove_done()
        if todo or work.run is None:
            work.agree_on_settings(settings())
        notes = NoteTally(open_others=False)
        found = rows(todo) if todo else iter(())
        for number, row in enumerate(work.write(found, todo, part_rows, part_seconds), 1):
            notes.add(row.path, row.notes if row.status == "ok" else ())
            if on_row is not None:
                on_row(row, number, len(todo))
        seconds = time.perf_counter() - started
        work.mark_done(seconds, command)
        return ShardSummary(
            n_ok=work.statuses["ok"],
            n_error=work.statuses["error"],
            n_kept=len(work.kept),
            n_dropped=work.n_dropped,
            seconds=seconds,
            notes=notes.lines(),
        )


class _ShardWork:
    """State of one run of a shard."""

    def __init__(self, place: ShardFiles, asked: Mapping[str, Any], kind: PartKind) -> None:
        self.place, self.kind = place, kind
        self.own = {
            "shards": 0 if place.shard.whole else place.shard.count,
            "options": json.loads(json.dumps({**asked})),
        }
        self.run: dict[str, Any] | None = None  # what run.json says
        if place.out.exists(RUN):
            self.run = read_settings(place.out, advice=_ADVICE)
            self._require_equal({name: self.run.get(name) for name in self.own}, self.own)
        self.stamps: dict[str, str] = {}  # of the pictures of this shard, in order
        self.listed, self.listing = FileDigest(), FileDigest()
        self.kept: set[str] = set()  # pictures with a row
        self.parts: dict[str, PartFact] = {}  # that count
        self.statuses: Counter[str] = Counter()
        self.n_dropped = 0
        self._number = 0  # of the next part

    def read_inputs(self, files: Iterable[StoredFile]) -> None:
        """Find the pictures of this shard and their stamps."""
        shard, plan = self.place.shard, read_plan(self.place.out)
        if plan is not None:
            plan.check(shard)
            files = self.place.read_manifest()
        for file in files:
            self.listing.add(file)
            if shard.holds(file.path):
                self.listed.add(file)
                self.stamps.setdefault(file.path, file.stamp)
        if plan is not None:
            self.listing = plan.listing
        self.stamps = {path: stamp or _local_stamp(path) for path, stamp in self.stamps.items()}

    def keep_parts(self, *, retry_errors: bool) -> None:
        """Keep the rows that still hold; parts with others are written again without them."""
        names = self.place.part_names()
        if names and self.run is None:
            self.run = read_settings(self.place.out, advice=_ADVICE)  # says that it is missing
        fingerprint = fingerprint_of(self.run or {})
        for name in names:
            self._number = max(self._number, number_in(name) + 1)
            content = self.place.read_content(name)
            try:
                found = decode_part(name, content)
            except ValueError as error:
                logger.warning("shard %s: %s; it is made again", self.place.shard, error)
                self.place.remove_done()
                self.place.remove_part(name)
                continue
            known = fingerprint.startswith(fingerprint_in(name))
            good = [each for each in found if known and self._holds(each, retry_errors)]
            if len(good) == len(found):
                self._count(name, PartFact.of(len(good), content), [each.row for each in good])
                continue
            self.n_dropped += len(found) - len(good)
            self.place.remove_done()
            if good:
                self._write_part([each.row for each in good])
            self.place.remove_part(name)

    def agree_on_settings(self, settings: Mapping[str, Any]) -> None:
        """Compare the settings with those of `run.json`; write it if this shard is the first."""
        mine = {**settings, **self.own}
        if self.run is None:
            write_run(self.place.out, mine)
            self.run = read_settings(self.place.out, advice=_ADVICE)  # who was first may be another
        self._require_equal(self.run, mine)

    def write(
        self, rows: Iterable[ResultRow], todo: Sequence[StoredFile], most: int, seconds: float
    ) -> Iterator[ResultRow]:
        """Write new rows in parts, and yield them."""
        missing = {file.path for file in todo}
        waiting: list[ResultRow] = []
        begin = time.monotonic()
        for row in rows:
            if row.path not in missing:
                raise ValueError(f"{row.path}: a row that was not asked for, or the second one.")
            missing.remove(row.path)
            waiting.append(row)
            yield row
            if len(waiting) >= most or time.monotonic() - begin > seconds:
                self._write_part(waiting)
                waiting, begin = [], time.monotonic()
        if waiting:
            self._write_part(waiting)
        if missing:
            raise ValueError(f"{len(missing)} pictures got no row, such as {min(missing)}.")

    def mark_done(self, seconds: float, command: str) -> None:
        """Write `done.json`, unless it says the same already."""
        assert self.run is not None
        pictures = FileDigest()
        for path, stamp in self.stamps.items():
            pictures.add(StoredFile(path, stamp))
        mark = DoneMark(
            fingerprint=fingerprint_of(self.run), pictures=pictures, listed=self.listed,
            listing=self.listing, errors=self.statuses["error"], parts=self.parts,
            seconds=round(seconds, 3), version=__version__,
            finished=datetime.now(UTC).isoformat(timespec="seconds"), command=command,
        )  # fmt: skip
        if mark != self.place.read_done():
            self.place.write_done(mark)

    def _holds(self, found: PartRow, retry_errors: bool) -> bool:
        """Return whether a row of a part is still that of its picture, and is the first."""
        path = found.row.path
        if self.stamps.get(path) != found.stamp or path in self.kept:
            return False
        if retry_errors and found.row.status == "error":
            return False
        self.kept.add(path)
        return True

    def _write_part(self, rows: Sequence[ResultRow]) -> None:
        assert self.run is not None
        name, fact = self.place.write_part(
            self._number, fingerprint_of(self.run), rows, self.stamps, self.kind
        )
        self._number += 1
        self._count(name, fact, rows)

    def _count(self, name: str, fact: PartFact, rows: Iterable[ResultRow]) -> None:
        self.parts[name] = fact
        self.statuses.update(row.status for row in rows)

    def _require_equal(self, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        flat = [{**each.get("options", {}), **each} for each in (earlier, now)]
        for each in flat:
            each.pop("options", None)
        require_equal(*flat, where=self.place.out.location, advice=_ADVICE)


def _local_stamp(path: str) -> str:
    """Return size and time of a local file; "" for another one, or where there is none."""
    place = local_path(path)
    try:
        found = None if is_url(place) else os.stat(place)
    except (OSError, ValueError):
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}" if found else ""
