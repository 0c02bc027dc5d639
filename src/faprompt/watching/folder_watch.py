"""Give every picture that appears in a folder a verdict, until somebody ends it.

Each picture goes the way of `predict_files`: the same reading, scoring, overlays and rows. It is
judged when its row is in the ledger; everything after that (the line of `results.jsonl`, the move,
the delivery) is done from the ledger, and is finished after an interruption.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from faprompt.config import check_whole_number
from faprompt.errors import ConfigError, FapromptError
from faprompt.files import unique_stem
from faprompt.imaging.reading_options import ReadingOptions
from faprompt.prediction.bulk_run import (
    PIXEL_BUDGET,
    SETTINGS_NAME,
    PredictOptions,
    settings_of_run,
    write_settings,
)
from faprompt.prediction.earlier_run import require_same_settings
from faprompt.prediction.picture_scoring import ImageScorer, PictureScoring
from faprompt.prediction.result_pictures import Artifacts, artifact_folders
from faprompt.prediction.result_rows import ResultRow, stamp_file
from faprompt.regions import check_threshold
from faprompt.storage import LocalFolder
from faprompt.watching.delivery_queue import DeliveryQueue
from faprompt.watching.folder_looks import FolderLooks, identify
from faprompt.watching.verdict_folders import VerdictFolders
from faprompt.watching.watch_ledger import LEDGER_NAME, RESULTS_NAME, Identity, WatchLedger
from faprompt.watching.webhook import Webhook
from faprompt.work import lock_folder, logger

VERDICT_FOLDERS = ("OK", "REVIEW", "NG")
_LONGEST_PAUSE = 60.0  # seconds between attempts while the disk is full or the share is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions(ReadingOptions):
    """Options of `watch_folder`, those of `read_image` included.

    Raises:
        ValueError, TypeError: an option is out of range, or of another type.
    """

    batch_size: int = 8  # most pictures scored together
    threshold: float | None = None  # score from which a picture is NG, 0..1; None: the model's
    overlays: bool = True  # a JPEG of each picture under its map
    product: str | None = None  # of all pictures; None: the nearest folder that is a product
    move: bool = False  # move judged pictures into OUT/OK, OUT/REVIEW and OUT/NG
    interval_s: float = 1.0  # seconds between two looks into the folder
    patience_s: float = 10.0  # an unreadable file is an error after so many seconds unchanged

    def __post_init__(self) -> None:
        ReadingOptions.__post_init__(self)
        check_whole_number("batch_size", self.batch_size, low=1)
        check_threshold(self.threshold)
        if not 0.05 <= self.interval_s <= 3600:
            raise ValueError(f"interval_s should be from 0.05 to 3600, got {self.interval_s}.")
        if not 0 <= self.patience_s <= 3600:
            raise ValueError(f"patience_s should be from 0 to 3600, got {self.patience_s}.")


def watch_folder(
    detector: ImageScorer,
    folder: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    options: WatchOptions | None = None,
    *,
    stop: threading.Event,
    webhook: Webhook | None = None,
    on_result: Callable[[ResultRow], None] | None = None,
    settings: Mapping[str, Any] | None = None,
    lock: bool = True,
) -> int:
    """Judge the pictures in a folder and below it, and wait for more, until `stop` is set.

    `out_dir` gets `watch.sqlite`, `results.jsonl`, `run.json` and overlays. A file is known by
    absolute path, size and modification time, and is judged once, also after a restart. A full
    disk, a share that is gone and a receiver that is down are logged, and waited for.

    Args:
        detector: scores batches of pictures.
        folder: watched folder. Hidden files and folders, and `out_dir`, are left out.
        out_dir: created when missing; one watch at a time.
        options: see `WatchOptions`.
        stop: ends the watch after the picture that is being judged.
        webhook: gets every new row, and those that an earlier watch could not deliver.
        on_result: called in this thread for every new row.
        settings: see `predict_files`; a watch goes on only under equal settings.
        lock: hold `out_dir` against other runs; False where the caller holds it already.

    Returns:
        Number of pictures that were judged by this call.

    Raises:
        ConfigError: the folders overlap, verdicts to move by are missing, or `out_dir` has
            results of another program or under other settings.
        FolderInUseError: another run is writing into `out_dir`.
    """
    asked, source, out = options or WatchOptions(), Path(folder), Path(out_dir)
    _check_folders(source, out)
    has_limits = detector.setup.calibration is not None or asked.threshold is not None
    if asked.move and not has_limits and getattr(detector, "threshold", None) is None:
        raise ConfigError("--move needs verdicts: calibrate the model, or give --threshold.")
    chosen = PredictOptions(threshold=asked.threshold, product=asked.product,
                            **asked.arguments())  # fmt: skip
    run_settings = settings_of_run(detector, chosen, settings)
    if not lock:
        out.mkdir(parents=True, exist_ok=True)
    with lock_folder(out) if lock else nullcontext():
        _check_earlier(out, run_settings)
        with closing(WatchLedger(out)) as ledger:
            ledger.complete_results()
            write_settings(out, run_settings)
            watch = _Watch(detector, source, out, asked, ledger, stop, on_result)
            _greet(ledger, webhook)
            with DeliveryQueue(ledger, webhook) if webhook else nullcontext() as queue:
                watch.run(queue)
    return watch.judged


@dataclass(frozen=True, slots=True)
class WatchArtifacts(Artifacts):
    """Pictures of a watch: file names tell apart several contents of one path."""

    identities: Mapping[str, Identity] = field(default_factory=dict)

    def stem(self, path: str) -> str:
        """Return a name made of the path, the size and the modification time."""
        file, size, mtime_ns = self.identities[path]
        place, name = os.path.split(file)
        return unique_stem(os.path.join(place, f"{size}-{mtime_ns}", name))


class _Watch:
    """The loop, and what it remembers between two looks."""

    def __init__(
        self,
        detector: ImageScorer,
        source: Path,
        out: Path,
        options: WatchOptions,
        ledger: WatchLedger,
        stop: threading.Event,
        on_result: Callable[[ResultRow], None] | None,
    ) -> None:
        self.judged = 0
        self._options, self._ledger, self._stop = options, ledger, stop
        self._on_result = on_result
        self._queue: DeliveryQueue | None = None
        self._looks = FolderLooks(source, exclude={os.path.abspath(out)})
        self._folders = VerdictFolders(source, out, ledger)
        self._failed: dict[Identity, float] = {}  # unreadable file -> time of the first attempt
        self._trouble, self._pause = "", 0.0
        self._artifacts = WatchArtifacts(
            LocalFolder(out), overlays=options.overlays, thumbnails=False
        )
        self._scoring = PictureScoring(
            detector=detector,
            artifacts=self._artifacts,
            threshold=None if options.threshold is None else float(options.threshold),
            batch_size=options.batch_size,
            reading=options,
            product=options.product,
            pixel_budget=PIXEL_BUDGET,
        )

    def run(self, queue: DeliveryQueue | None) -> None:
        """Look, judge and wait until the watch is ended."""
        self._queue = queue
        while not self._stop.is_set():
            try:
                self._look()
            except (OSError, sqlite3.OperationalError) as error:
                self._wait_out(error)
                continue
            self._stop.wait(self._options.interval_s)

    def _look(self) -> None:
        """Finish what an interruption left, and judge the pictures that are complete."""
        self._ledger.complete_results()
        self._folders.move_all()
        ready = self._looks.look(self._ledger.knows)
        self._failed = {each: self._failed[each] for each in ready.values() if each in self._failed}
        for row in self._rows(ready):
            self._take(row, ready[row.path])
        self._folders.move_all()
        if self._trouble:
            logger.info("the watch goes on.")
            self._trouble, self._pause = "", 0.0

    def _wait_out(self, error: Exception) -> None:
        """Report a full disk or a missing share once, and wait twice as long each time."""
        text = str(error)
        if text != self._trouble:
            logger.warning("the watch waits (%s): %s. Nothing is lost; it goes on when this is "
                           "mended.", self._ledger.path.parent, text)  # fmt: skip
        self._trouble = text
        self._pause = min(2 * self._pause or self._options.interval_s, _LONGEST_PAUSE)
        self._stop.wait(self._pause)

    def _rows(self, ready: Mapping[str, Identity]) -> Iterator[ResultRow]:
        """Yield rows until the watch is ended.

        A picture that makes the detector fail becomes an error, and affects no other.
        """
        artifacts = replace(self._artifacts, identities=ready)
        scoring = replace(self._scoring, artifacts=artifacts)
        left = dict.fromkeys(ready)
        try:
            with closing(scoring.rows(ready)) as rows:  # type: ignore[type-var]
                for row in rows:
                    del left[row.path]
                    yield row
                    if self._stop.is_set():
                        return
        except (OSError, sqlite3.Error, GeneratorExit):
            raise
        except Exception as error:
            logger.warning("a batch could not be scored (%s); its pictures are scored singly.",
                           error)  # fmt: skip
            for path in left:
                if self._stop.is_set():
                    return
                yield _single(scoring, path)

    def _take(self, row: ResultRow, wanted: Identity) -> None:
        """Record a row, unless the file has changed since it was found complete."""
        stamp, now = row.stamp, identify(row.path)
        unchanged = stamp is not None and (stamp.file, stamp.size, stamp.mtime_ns) == wanted
        if not unchanged or now not in (None, wanted):
            return
        if row.status == "error" and (now is None or not self._is_final(wanted)):
            return
        due = time.time() if self._queue else None
        move = self._options.move and row.verdict is not None
        if not self._ledger.record(wanted, row, move=move, due=due):
            return
        self.judged += 1
        if self._queue:
            self._queue.wake()
        if self._on_result:
            self._on_result(row)
        self._ledger.complete_results()

    def _is_final(self, identity: Identity) -> bool:
        """Return whether an unreadable file had its time; a slow writer may still complete it."""
        first = self._failed.setdefault(identity, time.monotonic())
        return time.monotonic() - first >= self._options.patience_s


def _single(scoring: PictureScoring, path: str) -> ResultRow:
    """Score one picture; whatever the detector raises becomes an error row."""
    stamp = stamp_file(path)
    try:
        (row,) = scoring.rows([path])
        return row
    except OSError:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, FapromptError) else repr(error)
        return ResultRow(path, scoring.detector.name, status="error", stamp=stamp,
                         error=f"{path}: it could not be scored: {reason}")  # fmt: skip


def _check_folders(source: Path, out: Path) -> None:
    """Refuse a watch whose own files would be judged."""
    if not source.is_dir():
        raise ConfigError(f"{source} is no folder; create it, or mount it, before it is watched.")
    watched, ours = source.resolve(), out.resolve()
    own = [ours / name for name in VERDICT_FOLDERS] + list(artifact_folders(ours))
    if watched == ours or any(watched.is_relative_to(folder) for folder in own):
        raise ConfigError(f"{source} would hold the results of {out}; choose another --out.")


def _check_earlier(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse results of another program, and of a watch under other settings."""
    if (out / LEDGER_NAME).exists() and (out / SETTINGS_NAME).exists():
        require_same_settings(out, settings, advice="choose another output folder")
    elif (out / RESULTS_NAME).exists() and not (out / LEDGER_NAME).exists():
        raise ConfigError(f"{out} has results of another run; choose another output folder.")


def _greet(ledger: WatchLedger, webhook: Webhook | None) -> None:
    """Log what an earlier watch left."""
    if count := len(ledger):
        logger.info("%d pictures were judged earlier, and are not judged again.", count)
    if waiting := ledger.waiting_deliveries():
        tail = "they are sent now" if webhook else "give --post to send them"
        logger.info("%d deliveries wait; %s.", waiting, tail)
