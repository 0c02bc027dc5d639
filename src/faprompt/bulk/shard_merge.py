"""Check that the shards of a run are complete, and write one table, one report and one summary."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from faprompt import __version__
from faprompt.bulk.shard_files import DONE, PLAN, RUN, DoneMark, ShardFiles, fingerprint_of
from faprompt.bulk.shard_parts import PartRow
from faprompt.bulk.shard_plan import ShardPlan, read_plan
from faprompt.bulk.shard_predict import RESULTS, SUMMARY, read_run_calibration
from faprompt.bulk.shard_split import WHOLE_RUN, FileDigest, Shard, shard_of
from faprompt.errors import ShardError
from faprompt.prediction.earlier_run import REPORT_NAME, read_settings
from faprompt.prediction.html_report import report_page
from faprompt.prediction.note_tally import NoteTally
from faprompt.prediction.result_pictures import Artifacts
from faprompt.prediction.result_rows import ResultRow
from faprompt.prediction.result_tables import RowWriter, row_writer
from faprompt.storage import OutputFolder, StoredFile, is_url, open_folder
from faprompt.work import ProgressCallback, no_progress, read_ahead

MergeTable = Literal["jsonl", "csv", "parquet"]
_READERS = 16  # threads that fetch files of shards
_MOST_NAMED = 8  # shards in one message


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """What `merge_shards` found."""

    n_ok: int
    n_error: int
    shards: int  # 0 for a run as a whole
    verdicts: Mapping[str, int]  # "OK", "REVIEW", "NG"; "none" where no threshold is known
    notes: tuple[str, ...]  # one line per kind of note on the pictures, with a count
    files: tuple[str, ...]  # written, relative to the folder


def merge_shards(
    out_dir: str | os.PathLike[str],
    *,
    tables: Sequence[MergeTable] = ("jsonl",),
    report: bool | None = None,
    title: str = "",
    lock: bool = True,
    progress: ProgressCallback = no_progress,
) -> MergeSummary:
    """Write results, `report.html` and `summary.json` of a finished run, in bounded memory.

    Rows are in the order of the shards. Every part is read and compared with what its shard
    said when it was done; nothing is written unless all are whole.

    Args:
        out_dir: output folder of the run, a path or a URL.
        tables: kinds of `results.*` to write; none is allowed, since the parts are a table too.
        report: write the report; None: as the shards were asked to.
        title: heading of the report; default: the name of the folder.
        lock: hold the folder against another merge; False where the caller holds it.
        progress: gets the number of shards read.

    Raises:
        ShardError: shards are missing, damaged, of other settings or of other inputs, or rows
            are there twice or in another shard; the message says what to run again.
        ConfigError: `run.json` is missing or broken.
        MissingExtraError: Parquet parts or tables without pyarrow.
    """
    out = open_folder(out_dir)
    with ExitStack() as held:
        if lock:
            held.enter_context(out.lock())
        return _Merge(out, progress).write(tables, report, title)


class _Merge:
    """One merge: what the shards said, and what their rows add up to."""

    def __init__(self, out: OutputFolder, progress: ProgressCallback) -> None:
        self._out, self._progress = out, progress
        self._run = read_settings(out, advice="run the shards again, into another output folder")
        self._count = int(self._run.get("shards") or 0)
        if "shards" not in self._run or "options" not in self._run:
            raise ShardError(
                f"{out.location} holds no shards: its run.json is of a run without --shard."
            )
        indexes = range(1, self._count + 1)
        self._shards = [Shard(i, self._count) for i in indexes] or [WHOLE_RUN]
        self._statuses: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._notes = NoteTally(open_others=False)

    def write(self, tables: Sequence[MergeTable], report: bool | None, title: str) -> MergeSummary:
        """Check everything, then write the files."""
        marks = self._read_marks()
        options: Mapping[str, Any] = self._run["options"]
        asked = bool(options.get("report", True)) if report is None else report
        page = ""
        with ExitStack() as opened:
            writers = [
                row_writer(opened.enter_context(self._out.new_file(RESULTS[kind])), kind)
                for kind in tables
            ]
            rows = self._written(self._rows(marks), writers)
            if asked:
                page = self._page(rows, title)
            else:
                deque(rows, maxlen=0)
            for writer in writers:
                writer.finish()
        if asked:
            self._out.write(REPORT_NAME, page.encode("utf-8", errors="replace"))
        self._write_summary(marks)
        kept = [RESULTS[kind] for kind in tables] + [REPORT_NAME] * asked + [SUMMARY]
        for name in {*RESULTS.values(), REPORT_NAME} - {*kept}:
            self._out.remove(name)  # of an earlier merge
        return MergeSummary(
            n_ok=self._statuses["ok"],
            n_error=self._statuses["error"],
            shards=self._count,
            verdicts=dict(self._verdicts),
            notes=self._notes.lines(),
            files=tuple(kept),
        )

    def _read_marks(self) -> dict[Shard, DoneMark]:
        """Read what every shard says of itself, and refuse shards that do not fit together."""
        places = [ShardFiles(self._out, shard) for shard in self._shards]
        found = read_ahead(lambda place: place.read_done(), places, workers=_READERS)
        marks = {
            shard: mark for shard, mark in zip(self._shards, found, strict=True) if mark is not None
        }
        command = next((mark.command for mark in marks.values() if mark.command), "")
        faults = self._unfinished(marks) or _strangers(marks, fingerprint_of(self._run))
        faults = faults or _other_listings(marks, read_plan(self._out))
        if faults:
            shards, what = faults
            again = f": {command.replace('I/N', str(shards[0]))}" if command and shards else ""
            raise ShardError(f"{self._out.location}: {what}{again}")
        return marks

    def _unfinished(self, marks: Mapping[Shard, DoneMark]) -> tuple[list[Shard], str] | None:
        missing = [shard for shard in self._shards if shard not in marks]
        if not missing:
            return None
        if missing == [WHOLE_RUN]:
            return missing, f"the run is not finished ({DONE} is missing or damaged); run it again"
        what = f"missing or not finished: {_named(missing)} of {self._count}; run again"
        return missing, what

    def _rows(self, marks: Mapping[Shard, DoneMark]) -> Iterator[ResultRow]:
        """Yield every row, and check each shard when its last part has been read."""
        parts = ((shard, name) for shard, mark in marks.items() for name in sorted(mark.parts))
        ahead = read_ahead(self._fetch, parts, workers=_READERS, waiting=1)
        for number, (shard, mark) in enumerate(marks.items(), 1):
            seen: set[str] = set()
            pictures = FileDigest()
            for name in sorted(mark.parts):
                for each in self._part(shard, name, next(ahead), mark):
                    path = each.row.path
                    if path in seen:
                        raise ShardError(f"shard {shard}: two rows of {path}; {self._again(shard)}")
                    if not shard.holds(path):
                        raise ShardError(
                            f"shard {shard}: a row of {path}, which belongs to shard "
                            f"{shard_of(path, shard.count)}; {self._again(shard)}"
                        )
                    seen.add(path)
                    pictures.add(StoredFile(path, each.stamp))
                    yield each.row
            if pictures != mark.pictures:
                raise ShardError(
                    f"shard {shard}: {pictures.files} rows, and {mark.pictures.files} pictures "
                    f"or other ones; {self._again(shard)}"
                )
            self._progress("merge", number, len(marks))

    def _fetch(self, part: tuple[Shard, str]) -> bytes | None:
        shard, name = part
        try:
            return ShardFiles(self._out, shard).read_content(name)
        except FileNotFoundError:
            return None

    def _part(
        self, shard: Shard, name: str, content: bytes | None, mark: DoneMark
    ) -> list[PartRow]:
        if content is None:
            raise ShardError(f"shard {shard}: {name} is missing; {self._again(shard)}")
        try:
            return ShardFiles(self._out, shard).read_part(name, content, mark.parts[name])
        except ShardError as error:
            raise ShardError(f"{error}; {self._again(shard)}") from error

    def _again(self, shard: Shard) -> str:
        return "run it again" if shard.whole else f"run --shard {shard} again"

    def _written(
        self, rows: Iterable[ResultRow], writers: Sequence[RowWriter]
    ) -> Iterator[ResultRow]:
        """Write and count rows on their way to the report."""
        for row in rows:
            self._statuses[row.status] += 1
            if row.status == "ok":
                self._verdicts[row.verdict or "none"] += 1
                self._notes.add(row.path, row.notes)
            for writer in writers:
                writer.add(row)
            yield row

    def _page(self, rows: Iterable[ResultRow], title: str) -> str:
        def thumbnail_names(path: str) -> tuple[str, str, str]:
            shard = Shard(shard_of(path, self._count), self._count) if self._count else WHOLE_RUN
            names = Artifacts(self._out, prefix=shard.folder, absolute=False)
            return names.thumbnail_names(path)

        name = _folder_name(self._out.location)
        return report_page(
            rows,
            self._embed,
            model=str(self._run["model"]),
            threshold=self._run["threshold"],
            title=title or name or "Results",
            calibration=read_run_calibration(self._out),
            thumbnail_names=thumbnail_names,
        )

    def _embed(self, name: str) -> str:
        try:
            return base64.b64encode(self._out.read(name)).decode()
        except OSError:
            return ""

    def _write_summary(self, marks: Mapping[Shard, DoneMark]) -> None:
        summary = {
            "model": self._run["model"],
            "pictures": self._statuses.total(),
            "ok": self._statuses["ok"],
            "errors": self._statuses["error"],
            "verdicts": dict(sorted(self._verdicts.items())),
            "notes": list(self._notes.lines()),
            "shards": self._count,
            "seconds": round(sum(mark.seconds for mark in marks.values()), 3),
            "fingerprint": fingerprint_of(self._run),
            "version": __version__,
        }
        self._out.write(SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())


def _strangers(marks: Mapping[Shard, DoneMark], fingerprint: str) -> tuple[list[Shard], str] | None:
    """Return the shards that were made under other settings than run.json says."""
    found = [shard for shard, mark in marks.items() if mark.fingerprint != fingerprint]
    if not found:
        return None
    return found, f"{_named(found)}: made with other settings than {RUN} says; run again"


def _other_listings(
    marks: Mapping[Shard, DoneMark], plan: ShardPlan | None
) -> tuple[list[Shard], str] | None:
    """Return the shards that saw other inputs than the plan, or than the last shard did."""
    last = max(marks.values(), key=lambda mark: mark.finished)
    wanted = plan.listing if plan else last.listing
    found = [shard for shard, mark in marks.items() if mark.listing != wanted]
    if found:
        what = f"than {PLAN} says" if plan else "than the shard that was done last"
        seen = marks[found[0]].listing.files
        return found, (
            f"{_named(found)}: saw other inputs {what} ({seen} files or other stamps, not "
            f"{wanted.files}); run again"
        )
    if sum((mark.listed for mark in marks.values()), FileDigest()) != wanted:
        return [*marks], (
            "the pictures of all shards together are not those of the inputs; the inputs changed "
            "while they were listed, so run all shards again"
        )
    return None


def _named(shards: Sequence[Shard]) -> str:
    """Return "shards 3, 7 and 12 more"."""
    named = ", ".join(str(shard.index) for shard in shards[:_MOST_NAMED])
    more = len(shards) - _MOST_NAMED
    return f"shard{'s' if len(shards) > 1 else ''} {named}" + (
        f" and {more} more" if more > 0 else ""
    )


def _folder_name(location: str) -> str:
    if is_url(location):
        return location.rstrip("/").rpartition("/")[2]
    return Path(location).resolve().name
