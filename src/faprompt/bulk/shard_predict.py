"""Score one shard of a run, or a run as a whole, into any output folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from faprompt.bulk.device_pool import pooled_rows
from faprompt.bulk.shard_files import DONE, RUN, ShardFiles
from faprompt.bulk.shard_run import PART_ROWS, RowSource, ShardSummary, run_shard
from faprompt.bulk.shard_split import WHOLE_RUN, Shard
from faprompt.calibration import CALIBRATION, Calibration, read_calibration, save_calibration
from faprompt.errors import ConfigError
from faprompt.prediction.bulk_run import PredictOptions, settings_of_run
from faprompt.prediction.earlier_run import REPORT_NAME, TABLE_NAMES
from faprompt.prediction.picture_scoring import ImageScorer, PictureScoring
from faprompt.prediction.result_pictures import Artifacts, is_artifact_name
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import OutputFolder, StoredFile, open_folder

SUMMARY = "summary.json"
RESULTS = {"jsonl": "results.jsonl", **TABLE_NAMES}


class ShardScorer(ImageScorer, Protocol):
    """A detector, as shards need it."""

    def fingerprint(self) -> str:
        """SHA-256 of everything that decides a score."""
        ...

    def decided_by(self) -> Mapping[str, str]:
        """Name -> value of everything that decides a score."""
        ...


def predict_shard(
    load: Callable[[str], ShardScorer],
    files: Iterable[StoredFile],
    out_dir: str | os.PathLike[str],
    shard: Shard = WHOLE_RUN,
    options: PredictOptions | None = None,
    *,
    devices: Sequence[str] = ("auto",),
    asked: Mapping[str, Any] | None = None,
    command: str = "",
    source: Callable[[ScoringPlan], RowSource] | None = None,
    part_rows: int = PART_ROWS,
    retry_errors: bool = False,
    on_row: Callable[[ResultRow, int, int], None] | None = None,
    lock: bool = True,
) -> ShardSummary:
    """Score the pictures of a shard and write rows in parts, maps and overlays.

    A shard always goes on where it ended. A run as a whole does so with `options.resume`; else
    what an earlier one wrote is removed. `merge_shards` then writes table, report and summary.

    Args:
        load: returns the detector for a device. It is called only if pictures have to be
            scored; with several devices it must be picklable.
        files: all pictures of the run, in one pass.
        out_dir: local path or URL.
        shard: which pictures to take; default: all of them.
        options: as of `predict_files`; `strict`, `title` and `table` do not belong here.
        devices: of this machine. With several, each is used by a process of its own.
        asked: options as the user gave them, as of `run_shard`.
        command: as of `run_shard`.
        source: who scores in place of this machine, given what there is to do.
        part_rows: most rows of a part, after which an interrupted shard goes on.
        retry_errors: score again what could not be read.
        on_row: as of `run_shard`.
        lock: hold the folder against other runs; False where the caller holds it.

    Raises:
        ConfigError: an option that does not belong here, or settings of another run.
        FolderInUseError: another process on this machine does this shard.
    """
    chosen = options or PredictOptions()
    if chosen.strict or chosen.title or chosen.table:
        raise ConfigError("strict, title and table do not belong to a shard; see merge_shards.")
    out = open_folder(out_dir)
    plan = ScoringPlan(load, out, shard, chosen, tuple(devices))
    with out.lock(shard.folder) if lock else nullcontext():
        if shard.whole and not chosen.resume:
            files = list(files)
            _remove_earlier(out, files)
        return run_shard(
            source(plan) if source else plan.rows, files, out, shard, settings=plan.settings,
            asked=asked, command=command, part_rows=part_rows, retry_errors=retry_errors,
            on_row=on_row, lock=False,
        )  # fmt: skip


class ScoringPlan:
    """How the pictures of a shard are scored; the detector is loaded when it is first needed."""

    def __init__(
        self,
        load: Callable[[str], ShardScorer],
        out: OutputFolder,
        shard: Shard,
        options: PredictOptions,
        devices: tuple[str, ...],
    ) -> None:
        self.load, self.out, self.shard, self.options = load, out, shard, options
        self.devices = devices

    @cached_property
    def detector(self) -> ShardScorer:
        """The detector on the first device."""
        return self.load(self.devices[0])

    def settings(self) -> dict[str, Any]:
        """Return what `run.json` records, and write the calibration for the report."""
        found = self.detector
        more = {"detector": found.fingerprint(), "decided_by": dict(found.decided_by())}
        settings = settings_of_run(found, self.options, more)
        calibration = found.setup.calibration
        if calibration is not None and not self.out.exists(RUN):
            self.out.write(CALIBRATION, _calibration_bytes(calibration))
        return settings

    def rows(self, files: Sequence[StoredFile]) -> Iterator[ResultRow]:
        """Yield the row of each picture, in order."""
        if len(self.devices) == 1:
            return scoring_of(self.detector, self.out, self.shard, self.options).rows(files)
        return pooled_rows(self._worker_rows, self.devices, files)

    def _worker_rows(self, device: str, files: Iterable[StoredFile]) -> Iterator[ResultRow]:
        detector = self.load(device)
        return scoring_of(detector, self.out, self.shard, self.options).rows(files)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the detector out: a worker loads its own."""
        state = {name: value for name, value in vars(self).items() if name != "detector"}
        return state | {"out": self.out.location}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"out": open_folder(state["out"])})


def scoring_of(
    detector: ImageScorer, out: OutputFolder, shard: Shard, options: PredictOptions
) -> PictureScoring:
    """Return what scores the pictures of a shard with a detector."""
    return PictureScoring(
        detector=detector,
        artifacts=artifacts_of(out, shard, options),
        threshold=None if options.threshold is None else float(options.threshold),
        batch_size=options.batch_size,
        reading=options,
        product=options.product,
        pixel_budget=options.pixel_budget,
    )


def artifacts_of(out: OutputFolder, shard: Shard, options: PredictOptions) -> Artifacts:
    """Return what writes the maps, overlays and thumbnails of a shard."""
    return Artifacts(
        out,
        maps=options.maps,
        overlays=options.overlays,
        thumbnails=options.report,
        prefix=shard.folder,
        absolute=False,
    )


def read_run_calibration(out: OutputFolder) -> Calibration | None:
    """Return the calibration that judged the pictures of a run, if there was one."""
    if not out.exists(CALIBRATION):
        return None
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, CALIBRATION).write_bytes(out.read(CALIBRATION))
        return read_calibration(Path(folder))


def _calibration_bytes(calibration: Calibration) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_calibration(calibration, Path(folder))
        return Path(folder, CALIBRATION).read_bytes()


def _remove_earlier(out: OutputFolder, files: Iterable[StoredFile]) -> None:
    """Remove what an earlier run as a whole wrote, except inputs."""
    place = ShardFiles(out, WHOLE_RUN)
    parts = place.part_names()
    if not parts and not out.exists(RUN):
        return
    for name in (DONE, RUN, CALIBRATION, SUMMARY, REPORT_NAME, *RESULTS.values()):
        out.remove(name)
    for name in parts:
        place.remove_part(name)
    inputs = {file.path for file in files}
    for folder in ("maps", "overlays", "thumbs"):
        for name in filter(is_artifact_name, out.names(folder)):
            if os.path.join(out.location, folder, name) not in inputs:
                out.remove(f"{folder}/{name}")
