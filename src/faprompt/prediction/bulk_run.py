"""Score many files with one detector and write the results into one folder.

Threads read files ahead of the detector and write results behind it. Rows appear in
`results.jsonl` in the order of the input, each after its pictures are on disk, so that an
interrupted run can be resumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from faprompt.config import check_whole_number
from faprompt.detector_setup import DetectorSetup
from faprompt.errors import ConfigError, ImageReadError
from faprompt.files import is_url, whole_name, write_atomically
from faprompt.imaging.reading_options import ReadingOptions, window_text
from faprompt.prediction.earlier_run import (
    REPORT_NAME,
    TABLE_NAMES,
    EarlierRun,
    InputRecord,
    require_same_settings,
)
from faprompt.prediction.html_report import write_report
from faprompt.prediction.note_tally import NoteTally
from faprompt.prediction.picture_scoring import ImageScorer, PictureScoring
from faprompt.prediction.result_pictures import Artifacts
from faprompt.prediction.result_rows import ResultRow, ResultsFile, read_rows
from faprompt.prediction.result_tables import TableKind, check_table_kind, write_table
from faprompt.regions import check_threshold
from faprompt.storage import LocalFolder, StoredFile, local_path
from faprompt.work import lock_folder

SETTINGS_NAME = "run.json"
PIXEL_BUDGET = 128_000_000  # pixels read ahead at one time, at 3 bytes each


@dataclass(frozen=True, slots=True)
class PredictionSummary:
    """Summarise a run of `predict_files`. The counts cover every file, resumed ones included.

    Attributes:
        n_ok: number of files that have a score.
        n_error: number of files that could not be read or scored.
        n_resumed: number of files whose rows an earlier run had written.
        verdicts: number of files by verdict: "OK", "REVIEW", "NG"; "none" where no threshold is
            known.
        seconds: duration of the run.
        results: path of `results.jsonl`.
        report: path of `report.html`; None where none was asked for.
        table: path of the CSV or Parquet table; None where none was asked for.
        n_others: number of earlier rows kept on resume, of files that were not asked for.
        n_dropped: number of such rows that were dropped, because their files are gone or changed.
        notes: one line for each kind of note on the pictures, with its count.
    """

    n_ok: int
    n_error: int
    n_resumed: int
    verdicts: Mapping[str, int] = field(hash=False)
    seconds: float
    results: Path
    report: Path | None = None
    table: Path | None = None
    n_others: int = 0
    n_dropped: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions(ReadingOptions):
    """Hold the options of `predict_files`.

    Args:
        batch_size: most pictures scored together; large pictures make smaller batches.
        threshold: score from which a picture is NG, 0 to 1; None takes the model's.
        maps: also write score maps: "npy" is float32 in 0 to 1, "png" is 16-bit grey, which is
            the score times 65535; None writes none.
        overlays: write a JPEG of each picture under its map, at most 4096 px a side.
        report: write report.html; its thumbnails are kept in `thumbs`.
        title: heading of the report, such as a lot number; "" takes the name of the folder.
        table: also write results.csv ("csv") or results.parquet ("parquet").
        resume: keep the rows of unchanged pictures; see `predict_files`.
        strict: stop at the first file that cannot be read.
        bit_depth, window, max_pixels: see `ReadingOptions`.
        product: of all pictures; None takes the nearest folder that is a product.
        pixel_budget: most pixels of pictures in memory at one time, at 3 bytes each.

    Raises:
        MissingExtraError: Parquet without pyarrow.
        ValueError, TypeError: an option is out of range, or of another type.
    """

    batch_size: int = 8
    threshold: float | None = None
    maps: Literal["npy", "png"] | None = None
    overlays: bool = True
    report: bool = True
    title: str = ""
    table: TableKind | None = None
    resume: bool = False
    strict: bool = False
    product: str | None = None
    pixel_budget: int = PIXEL_BUDGET

    def __post_init__(self) -> None:
        ReadingOptions.__post_init__(self)
        check_whole_number("batch_size", self.batch_size, low=1)
        check_whole_number("pixel_budget", self.pixel_budget, low=1)
        check_threshold(self.threshold)
        if self.maps not in (None, "npy", "png"):
            raise ValueError(f"maps should be 'npy', 'png' or None, got {self.maps!r}.")
        if self.table is not None:
            check_table_kind(self.table)


def predict_files(
    detector: ImageScorer,
    paths: Iterable[str | os.PathLike[str] | StoredFile],
    out_dir: str | os.PathLike[str],
    options: PredictOptions | None = None,
    *,
    on_result: Callable[[ResultRow], None] | None = None,
    settings: Mapping[str, Any] | None = None,
    model_card: str = "",
    lock: bool = True,
) -> PredictionSummary:
    """Score files and write `results.jsonl`, and what the options ask for, into a folder.

    A file that cannot be read is a row with status "error", and the run goes on. Without
    `resume` the results of an earlier run in the folder are replaced, and its maps, overlays,
    thumbnails, table and report are removed. With it, the rows of unchanged pictures (same
    absolute path, size and modification time; of a URL, same size and version) whose maps and
    overlays exist are kept, also those of pictures that are not in `paths`; all other pictures
    are scored. URLs that are not in `paths` are not checked for changes.

    Args:
        detector: scores batches of pictures.
        paths: files and URLs in the order wanted (see `list_inputs`); a repeated one counts once.
            URLs are read by up to 16 requests at one time.
        out_dir: created when missing.
        options: see `PredictOptions`.
        on_result: called in this thread for every file, in order, resumed ones included.
        settings: anything else that changes scores, as plain JSON values, such as tiles or
            precision; a run is resumed only under equal settings.
        model_card: one line on the model for the report.
        lock: hold the folder against other runs; False where the caller holds it already.

    Returns:
        Counts and the paths of the files written.

    Raises:
        ImageReadError: a file could not be read and `strict` is set.
        ConfigError: the run to resume had another model, threshold or setting.
        FolderInUseError: another run is writing into `out_dir`.
    """
    asked = options or PredictOptions()
    threshold = None if asked.threshold is None else float(asked.threshold)
    started, folder = time.perf_counter(), Path(out_dir)
    wanted = _each_once(paths)
    named = [file.path for file in wanted.values()]
    artifacts = Artifacts(
        LocalFolder(folder), maps=asked.maps, overlays=asked.overlays, thumbnails=asked.report
    )
    run_settings = settings_of_run(detector, asked, settings)
    table_path = folder / TABLE_NAMES[asked.table] if asked.table else None
    report_path = folder / REPORT_NAME if asked.report else None
    summaries = [path.name for path in (table_path, report_path) if path]

    if not lock:
        folder.mkdir(parents=True, exist_ok=True)
    hold = lock_folder(folder) if lock else nullcontext()
    with hold, InputRecord(folder, summaries) as record:
        earlier = EarlierRun(folder, wanted)
        kept: Iterable[ResultRow] = ()
        if asked.resume and (folder / "results.jsonl").exists():
            require_same_settings(folder, run_settings)
            kept = earlier.rows(artifacts, record)
        with ResultsFile(folder / "results.jsonl", kept) as results:
            earlier.remove_stale()
            record.publish()
            write_settings(folder, run_settings)
            tally = _Tally(results, record, named, on_result, strict=asked.strict)
            todo = [file for file in wanted.values() if file.path not in results]
            scoring = PictureScoring(
                detector=detector,
                artifacts=artifacts,
                threshold=threshold,
                batch_size=asked.batch_size,
                reading=asked,
                product=asked.product,
                pixel_budget=asked.pixel_budget,
            )
            for row in scoring.rows(todo):
                tally.add(row)
            tally.finish()
            results.sort(named)
        if asked.table and table_path:
            write_table(table_path, read_rows(results.path), asked.table)
        if report_path:
            write_report(
                report_path,
                read_rows(results.path),
                model=detector.name,
                threshold=tally.threshold,
                model_card=model_card,
                calibration=detector.setup.calibration,
                title=asked.title,
            )
    seconds = time.perf_counter() - started
    return tally.summary(seconds, earlier, report=report_path, table=table_path)


def _each_once(paths: Iterable[str | os.PathLike[str] | StoredFile]) -> dict[str, StoredFile]:
    """Return files by absolute path or URL; a `file://` URL is a local path."""
    wanted: dict[str, StoredFile] = {}
    for path in paths:
        file = path if isinstance(path, StoredFile) else StoredFile(os.fspath(path), "")
        if is_url(file.path):
            file = StoredFile(local_path(file.path), file.stamp)
        wanted.setdefault(whole_name(file.path), file)
    return wanted


def settings_of_run(
    detector: ImageScorer, options: PredictOptions, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Check product, bit depth and window; return what `run.json` records and a resumed run keeps.

    Args:
        detector: scores the pictures.
        options: of the run.
        settings: anything else that changes scores, as plain JSON values.

    Raises:
        ConfigError: no such product, or a bit depth or window that differs from the calibrated one.
    """
    if options.product is not None:
        detector.setup.check_product(options.product)
    bit_depth = None if options.bit_depth is None else int(options.bit_depth)
    threshold = None if options.threshold is None else float(options.threshold)
    detector.setup.reading(options)
    chosen = {"model": detector.name, "threshold": threshold, "bit_depth": bit_depth}
    if options.window is not None:  # left out otherwise, so that older runs resume
        chosen["window"] = window_text(options.window)
    chosen |= _calibration_settings(detector.setup, options.product)
    return dict(json.loads(json.dumps({**(settings or {}), **chosen})))


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write `run.json`, atomically."""
    write_atomically(folder / SETTINGS_NAME, (json.dumps(settings, indent=2) + "\n").encode())


def _calibration_settings(setup: DetectorSetup, product: str | None) -> dict[str, Any]:
    """Return the rates, the good scores and the product as settings that a resumed run keeps."""
    calibration = setup.calibration
    if calibration is None:
        return {}
    scores = hashlib.sha256()
    for name, good in sorted(calibration.products.items()):
        scores.update(name.encode(errors="surrogateescape") + good.scores.tobytes())
    return {
        "target_fpr": calibration.target_fpr,
        "review_fpr": calibration.review_fpr,
        "good_scores": scores.hexdigest(),
        "product": product,
    }


class _Tally:
    """Write the rows of a run in order, pass them to the caller, and count them."""

    def __init__(
        self,
        results: ResultsFile,
        record: InputRecord,
        wanted: list[str],
        on_result: Callable[[ResultRow], None] | None,
        *,
        strict: bool,
    ) -> None:
        self._results, self._record = results, record
        self._ahead = iter(wanted)
        self._on_result = on_result
        self._strict = strict
        self._counts: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._notes = NoteTally()
        self._thresholds: dict[str | None, float | None] = {}  # by product

    @property
    def threshold(self) -> float | None:
        """Return the threshold of the run; None without one, or where products have several."""
        known = set(self._thresholds.values())
        return known.pop() if len(known) == 1 else None

    def add(self, row: ResultRow) -> None:
        """Take a new row, after the resumed rows that come before it in the input."""
        for path in self._ahead:
            if path == row.path:
                break
            self._take_resumed(path)
        self._check_threshold(row)
        if row.stamp is not None:
            self._record.append(row.path, row.stamp)
        self._results.append(row)
        self._take(row)
        if row.status == "error" and self._strict:
            raise ImageReadError(row.error or row.path)

    def finish(self) -> None:
        """Take the resumed rows after the last new one."""
        for path in self._ahead:
            self._take_resumed(path)

    def summary(
        self, seconds: float, earlier: EarlierRun, *, report: Path | None, table: Path | None
    ) -> PredictionSummary:
        return PredictionSummary(
            n_ok=self._counts["ok"],
            n_error=self._counts["error"],
            n_resumed=self._counts["resumed"],
            verdicts=dict(self._verdicts),
            seconds=seconds,
            results=self._results.path,
            report=report,
            table=table,
            n_others=earlier.n_others,
            n_dropped=earlier.n_dropped,
            notes=self._notes.lines(),
        )

    def _take_resumed(self, path: str) -> None:
        row = self._results.read(path)
        self._check_threshold(row)
        self._counts["resumed"] += 1
        self._take(row)

    def _take(self, row: ResultRow) -> None:
        self._counts[row.status] += 1
        if row.status == "ok":
            self._verdicts[row.verdict or "none"] += 1
            self._notes.add(row.path, row.notes)
        if self._on_result is not None:
            self._on_result(row)

    def _check_threshold(self, row: ResultRow) -> None:
        """Refuse a threshold that changed between two sessions of a run."""
        if row.status != "ok":
            return
        known = self._thresholds.setdefault(row.product, row.threshold)
        if row.threshold != known:
            raise ConfigError(
                f"{self._results.path} has rows made with threshold {known}, and the "
                f"model now uses {row.threshold}; run again without resume."
            )
