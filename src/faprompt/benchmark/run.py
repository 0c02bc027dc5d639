"""The cells of a plan, one after another: what is finished is kept, what fails is written down.

OUT/models/<method>__<backbone>__<trained on>__<key>   trainings, shared between cells
OUT/cells/<method>__<backbone>__<dataset>[__seedN]__<key>   what `evaluate` writes, and cell.json

A key is a digest of all that decides the figures, so that several benchmarks may share OUT and
none takes or overwrites what another one made with other settings.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from faprompt.benchmark.config import PAPER_SEED
from faprompt.benchmark.identity import (
    backbone_stamp,
    content_digest,
    digest,
    model_digest,
    resolved_options,
    sources_stamp,
)
from faprompt.benchmark.plan import Cell, Plan, Source, resolve, slug
from faprompt.clip.backbone import pick_precision
from faprompt.data import Dataset
from faprompt.data.published_counts import compare_counts
from faprompt.detector import Detector
from faprompt.errors import FapromptError, ModelError
from faprompt.evaluation import PROGRESS_NAME, evaluate, read_replicates, write_evaluation
from faprompt.files import write_atomically
from faprompt.model_folder import CONFIG, read_config, recorded_note
from faprompt.models import build_detector, find_model, load_detector
from faprompt.training.checkpoint import CHECKPOINT_NAME
from faprompt.training.config import run_options
from faprompt.training.progress import Progress
from faprompt.training.run import TrainingReport
from faprompt.training.session import train_model

Status = Literal["done", "failed", "missing", "waiting"]
Advance = Callable[[int, int], None]
ProgressBar = Callable[[str], AbstractContextManager[Advance]]
CELL_FILE = "cell.json"
_NO_FIGURES = ("batch_size", "gallery")  # options of an evaluation that move no figure


@dataclass(frozen=True, slots=True)
class CellResult:
    """What became of one cell. `metrics` is its metrics.json, where it is done.

    replicates: metric name -> (replicates,) float64 of the mean, of `replicates.csv`.
    folder: where its files are; None before it had its turn.
    """

    cell: Cell
    status: Status
    reason: str = ""  # why there are no metrics
    record: Mapping[str, Any] | None = None  # cell.json
    metrics: Mapping[str, Any] | None = None
    kept: bool = False  # finished by an earlier run
    replicates: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)
    folder: Path | None = None


def silent_bar(what: str) -> AbstractContextManager[Advance]:
    """The progress bar of a caller who does not look."""
    return nullcontext(lambda done, total: None)


def run_benchmark(
    plan: Plan,
    out: Path,
    *,
    device: str = "cpu",
    precision: str = "",
    notify: Callable[[str], None] | None = None,
    progress_bar: ProgressBar = silent_bar,
    results: dict[str, CellResult] | None = None,
    prepare: Callable[[Cell, Detector], None] | None = None,
    trained: Callable[[Cell, TrainingReport], None] | None = None,
) -> tuple[CellResult, ...]:
    """Run what is not finished yet; a cell that fails does not stop the others.

    Args:
        plan: of `build_plan`.
        out: gets `cells` and `models`. A later run with the same folder goes on.
        device: any torch device.
        precision: of the image tower: "fp32", "bf16", "fp16", or "auto" (bf16 on a CUDA device,
            fp32 elsewhere); part of a cell's fingerprint. Default: the benchmark's own.
        notify: takes a line per cell, and the notes of trainings.
        progress_bar: called with a title; gives a context of an `advance(done, total)`.
        results: filled as cells end, so that an interrupted caller has them too.
        prepare: called with every detector that is built or loaded, and its first cell.
        trained: called after every training, with the first cell that wanted it.

    Returns:
        A result per cell, in the plan's order.

    Raises:
        KeyboardInterrupt: passed on; the same call goes on from there.
    """
    results = {} if results is None else results
    results |= {cell.name: waiting(cell) for cell in plan.cells}
    run = BenchmarkRun(plan, out, device, precision, notify or (lambda line: None), progress_bar)
    run.prepare, run.trained = prepare or run.prepare, trained or run.trained
    for number, cell in enumerate(plan.cells, start=1):
        results[cell.name] = run.cell(cell)
        run.notify(f"[{number}/{len(plan.cells)}] {describe(results[cell.name])}")
    return tuple(results.values())


def waiting(cell: Cell) -> CellResult:
    """A cell that has not had its turn."""
    if cell.missing:
        return CellResult(cell, "missing", "; ".join(cell.missing))
    return CellResult(cell, "waiting", "not run yet")


def describe(result: CellResult) -> str:
    """One line for a person.

    The means of a finished cell in percent, or why there are none.
    """
    if result.metrics is None:
        return f"{result.cell.name}: - ({result.reason})"
    means = ", ".join(f"{k} {100 * v:.1f}" for k, v in result.metrics["mean"].items())
    seconds = "kept" if result.kept else f"{(result.record or {}).get('seconds', 0):.1f} s"
    return f"{result.cell.name}: {means or 'no metric is defined'} ({seconds})"


class BenchmarkRun:
    """One pass over a plan; remembers datasets, the last detector and failed trainings."""

    def __init__(
        self,
        plan: Plan,
        out: Path,
        device: str,
        precision: str,
        notify: Callable[[str], None],
        progress_bar: ProgressBar,
    ) -> None:
        self.plan, self.out, self.device = plan, out, device
        self.precision = pick_precision(precision or plan.config.precision, device)
        self.notify, self.progress_bar = notify, progress_bar
        self.datasets: dict[Source, tuple[Dataset, str]] = {}
        self.backbones: dict[str, dict[str, str]] = {}  # name -> its stamp
        self.failed_trainings: dict[str, str] = {}
        self.told: set[str] = set()
        self.detector: tuple[str, Detector] | None = None  # one at a time: they are large
        self.prepare: Callable[[Cell, Detector], None] = lambda cell, detector: None
        self.trained: Callable[[Cell, TrainingReport], None] = lambda cell, report: None

    def cell(self, cell: Cell) -> CellResult:
        """Run one cell, or take what an earlier run left."""
        if cell.missing:
            return waiting(cell)
        began, fingerprint = time.perf_counter(), ""
        folder = self._folder(cell, fingerprint)
        try:
            identity = self.identity(cell)
            fingerprint = digest(identity)
            folder = self._folder(cell, fingerprint)
            kept = read_finished(cell, folder, fingerprint)
            if kept:
                return kept
            record = self._measure(cell, folder)
        except Exception as error:
            failed = _failure(error)
            told = _describe_cell(cell) | failed | _timing(fingerprint, began)
            _write_json(folder / CELL_FILE, told)
            return CellResult(cell, "failed", f"failed: {failed['error']}", told, folder=folder)
        record |= {"identity": identity} | _timing(fingerprint, began)
        _write_json(folder / CELL_FILE, record)
        done = read_finished(cell, folder, fingerprint)
        assert done is not None, "a cell that was just written is finished"
        return replace(done, kept=False)

    def _folder(self, cell: Cell, fingerprint: str) -> Path:
        """Cells of one method with equal settings share a folder, whatever their labels."""
        names = (cell.column.method.name, cell.column.backbone or "model", cell.source.entry.key)
        seed = () if cell.seed in (None, PAPER_SEED) else (f"seed{cell.seed}",)
        key = fingerprint[:12] or "unidentified"
        return self.out / "cells" / "__".join((*map(slug, names), *seed, key))

    def identity(self, cell: Cell) -> dict[str, Any]:
        """All that decides a cell's figures."""
        settings = asdict(self.plan.config.evaluation)
        return {
            "detector": self._detector_identity(cell),
            "dataset": self._dataset(cell.source)[1],
            "evaluation": {k: v for k, v in settings.items() if k not in _NO_FIGURES},
        }

    def _dataset(self, source: Source) -> tuple[Dataset, str]:
        """A dataset and the digest of its content, read once per run."""
        if source not in self.datasets:
            dataset = source.read()
            self.datasets[source] = dataset, content_digest(dataset)
        return self.datasets[source]

    def _backbone(self, name: str) -> dict[str, str]:
        """Return the stamp of a backbone, whose files are read once per run."""
        if name not in self.backbones:
            self.backbones[name] = backbone_stamp(name)
        return self.backbones[name]

    def _detector_identity(self, cell: Cell) -> dict[str, Any]:
        method = cell.column.method
        common: dict[str, Any] = {"method": method.name, "precision": self.precision}
        if method.model:
            return common | {"model": model_digest(self._model(cell))}
        common |= {
            "options": resolved_options(method),
            "backbone": self._backbone(cell.column.backbone),
        } | sources_stamp(method.name, method.all_options)
        if cell.trained_on is None:
            return common | {"preset": method.preset}  # its note says which one was run
        config = self.plan.config.training_of(method, seed=cell.seed)
        return common | {
            "training": run_options(config) | {"epochs": config.epochs},
            "trained_on": self._dataset(cell.trained_on)[1],
        }

    def _measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        dataset = self._dataset(cell.source)[0].require_usable()
        detector = self.pick_detector(cell)
        with self.progress_bar(cell.name) as advance:
            result = evaluate(
                detector, dataset, self.plan.config.evaluation, progress=advance,
                resume=folder / PROGRESS_NAME, note=self.notify,
            )  # fmt: skip
        write_evaluation(result, folder)
        counts = compare_counts(dataset.name, dataset.counts(), left_out=dataset.left_out_classes)
        return _describe_cell(cell) | {
            "status": "done",
            "error": "",
            "normal": dataset.normal,
            "anomalous": dataset.anomalous,
            "unreadable": len(result.unreadable),
            "matches_paper": counts.matches,
        }

    def pick_detector(self, cell: Cell) -> Detector:
        """A cell's detector, trained where no finished model lies in `models`."""
        key = digest(self._detector_identity(cell))
        if self.detector is None or self.detector[0] != key:
            self.detector = None  # let go of the last one before the next is loaded
            self.detector = (key, self._build_detector(cell, key))
            self.prepare(cell, self.detector[1])
        return self.detector[1]

    def _build_detector(self, cell: Cell, key: str) -> Detector:
        where: dict[str, Any] = {"device": self.device, "precision": self.precision}
        method = cell.column.method
        if method.model:
            return load_detector(self._model(cell), **where)
        if cell.trained_on is None:
            built = build_detector(
                method.name, cell.column.backbone, options=method.options, preset=method.preset,
                **where,
            )  # fmt: skip
            self._tell(cell, recorded_note(built.description))
            return built
        return load_detector(self._trained_model(cell, key), backbone=cell.column.backbone, **where)

    def _tell(self, cell: Cell, note: str) -> None:
        """A note on a column's preset, once."""
        line = f"{cell.column.title}: {note}"
        if note and line not in self.told:
            self.told.add(line)
            self.notify(line)

    def _model(self, cell: Cell) -> Path:
        return find_model(resolve(cell.column.method.model, self.plan.config.base))

    def _trained_model(self, cell: Cell, key: str) -> Path:
        """The model folder, trained or gone on with where it is not finished."""
        assert cell.trained_on is not None
        names = (cell.column.method.name, cell.column.backbone, cell.trained_on.entry.key, key[:12])
        folder = self.out / "models" / "__".join(slug(name) for name in names)
        if (folder / CONFIG).is_file():
            read_config(folder)
            return folder
        if key in self.failed_trainings:
            raise ModelError(self.failed_trainings[key])
        try:
            self._train(cell, folder)
        except Exception as error:
            self.failed_trainings[key] = f"its training failed: {_failure(error)['error']}"
            raise ModelError(self.failed_trainings[key]) from error
        return folder

    def _train(self, cell: Cell, folder: Path) -> None:
        assert cell.trained_on is not None and cell.seed is not None
        method = cell.column.method
        config = self.plan.config.training_of(method, seed=cell.seed, device=self.device)
        with self.progress_bar(f"train {folder.name}") as advance:

            def show(sign: Progress) -> None:
                advance(sign.done, sign.total)

            report = train_model(
                self._dataset(cell.trained_on)[0],
                method=method.name,
                preset=method.preset,
                backbone=cell.column.backbone,
                options=method.options,
                config=config,
                out=folder,
                name=folder.name,
                precision=self.precision,
                resume=(folder / CHECKPOINT_NAME).is_file(),
                progress=show,
                notify=self.notify,
            )
        self.trained(cell, report)


def read_finished(cell: Cell, folder: Path, fingerprint: str) -> CellResult | None:
    """A cell that an earlier run finished with this fingerprint, or None."""
    try:
        record = json.loads((folder / CELL_FILE).read_text(encoding="utf-8"))
        if (record["status"], record["fingerprint"]) != ("done", fingerprint):
            return None
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        replicates = read_replicates(folder)
    except (OSError, ValueError, KeyError, TypeError):  # absent, cut off or another program's
        return None
    return CellResult(
        cell, "done", "", record, metrics, kept=True, replicates=replicates, folder=folder
    )


def _describe_cell(cell: Cell) -> dict[str, Any]:
    return {
        "format": 1,
        "method": cell.column.method.name,
        "label": cell.column.method.title,
        "backbone": cell.column.backbone,
        "dataset": cell.source.entry.key,
        "trained_on": cell.trained_on.entry.key if cell.trained_on else "",
        "seed": cell.seed,
    }


def _failure(error: Exception) -> dict[str, str]:
    """An error of ours in its own words; another one with its kind and where it came from."""
    if isinstance(error, (FapromptError, OSError)):
        return {"status": "failed", "error": str(error)}
    told = f"{type(error).__name__}: {error}"
    return {"status": "failed", "error": told, "traceback": traceback.format_exc()}


def _timing(fingerprint: str, began: float) -> dict[str, Any]:
    return {"fingerprint": fingerprint, "seconds": round(time.perf_counter() - began, 3)}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n"
    write_atomically(path, text.encode("utf-8", errors="replace"))
