"""Run the cells of a plan: what is finished is kept, what fails is written down.

WORK/models/<method>__<backbone>__<trained on>__<key>   trainings, shared between cells
WORK/cells/<method>__<backbone>__<dataset>[__seedN]__<key>   what `evaluate` writes, and cell.json

A key is a digest of all that decides the figures, so that several experiments may share WORK and
none takes or overwrites what another one made with other settings.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from faprompt.config import to_mapping
from faprompt.data import Dataset
from faprompt.data.dataset_catalog import compare_counts
from faprompt.detector import Detector
from faprompt.errors import FapromptError, ModelError
from faprompt.evaluation import PROGRESS_NAME, evaluate, read_replicates, write_evaluation
from faprompt.folder_config import CONFIG, recorded_note
from faprompt.model_folder import read_config
from faprompt.models import build_detector, find_model, load_detector, require_torch
from faprompt.reproduce.cell_identity import (
    backbone_stamp,
    content_digest,
    digest,
    model_digest,
    read_record,
    resolved_options,
    sources_stamp,
    write_record,
)
from faprompt.reproduce.cells import Cell, Plan, Source, resolve, slug
from faprompt.reproduce.experiment import PAPER_SEED
from faprompt.reproduce.tested_tokens import TestedTokens
from faprompt.training.checkpoint import CHECKPOINT_NAME
from faprompt.training.training_config import run_options
from faprompt.training.training_session import TrainOptions, train
from faprompt.training.training_steps import TrainingReport
from faprompt.work import ProgressCallback, logger, no_progress, pick_device, pick_precision

Status = Literal["done", "failed", "missing", "waiting"]
CELL_FILE = "cell.json"
_NO_FIGURES = ("batch_size", "gallery")  # options of an evaluation that change no figure


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """Where and how an experiment runs."""

    out: Path  # gets tables, figures and pages
    work: Path | None = None  # gets cells and models; experiments may share one. Default: `out`
    device: str = "auto"  # replaced by the device that is picked
    precision: str = ""  # of the image tower, see `pick_precision`; "" for the experiment's own
    progress: ProgressCallback = no_progress  # its stage is the name of a cell or training

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", pick_device(self.device))

    @property
    def work_folder(self) -> Path:
        """Folder of cells and models."""
        return self.work or self.out


@dataclass(frozen=True, slots=True)
class CellResult:
    """What became of one cell. `metrics` is its metrics.json, where it is done.

    replicates: metric name -> (replicates,) float64 of the mean, from `replicates.csv`.
    """

    cell: Cell
    status: Status
    reason: str = ""  # why there are no metrics
    record: Mapping[str, Any] | None = None  # cell.json
    metrics: Mapping[str, Any] | None = None
    kept: bool = False  # finished by an earlier run
    replicates: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)
    folder: Path | None = None  # of its files; None before its turn

    @property
    def complete(self) -> bool:
        """Whether it ended and all its pictures could be read."""
        return self.status == "done" and not (self.record or {})["unreadable"]


def run_benchmark(
    plan: Plan,
    context: RunContext,
    *,
    results: dict[str, CellResult] | None = None,
    tokens: TestedTokens | None = None,
    trained: Callable[[Cell, TrainingReport], None] = lambda cell, report: None,
) -> tuple[CellResult, ...]:
    """Run what is not finished yet, and return a result per cell, in the plan's order.

    A cell that fails does not stop the others. The same call continues an interrupted run.

    Args:
        plan: from `build_plan`.
        context: where and how.
        results: filled as cells end, so that an interrupted caller has them too.
        tokens: shared by the detectors; None encodes pictures for each.
        trained: called after every training, with the first cell that wanted it.
    """
    results = {} if results is None else results
    results |= {cell.name: waiting(cell) for cell in plan.cells}
    runner = CellRunner(plan, context, tokens=tokens, trained=trained)
    for number, cell in enumerate(plan.cells, start=1):
        results[cell.name] = runner.run(cell)
        logger.info(f"[{number}/{len(plan.cells)}] {describe(results[cell.name])}")
    return tuple(results.values())


def waiting(cell: Cell) -> CellResult:
    """Return the result of a cell that has not had its turn."""
    if cell.missing:
        return CellResult(cell, "missing", "; ".join(cell.missing))
    return CellResult(cell, "waiting", "not run yet")


def describe(result: CellResult) -> str:
    """Return a line with the means of a finished cell in percent, or why there are none."""
    if result.metrics is None:
        return f"{result.cell.name}: - ({result.reason})"
    means = ", ".join(f"{k} {100 * v:.1f}" for k, v in result.metrics["mean"].items())
    seconds = "kept" if result.kept else f"{(result.record or {}).get('seconds', 0):.1f} s"
    return f"{result.cell.name}: {means or 'no metric is defined'} ({seconds})"


class CellRunner:
    """One pass over a plan; remembers datasets, the last detector and failed trainings."""

    def __init__(
        self,
        plan: Plan,
        context: RunContext,
        *,
        tokens: TestedTokens | None = None,
        trained: Callable[[Cell, TrainingReport], None] = lambda cell, report: None,
    ) -> None:
        self.plan, self.context, self.tokens, self.trained = plan, context, tokens, trained
        self.work, self.device = context.work_folder, context.device
        self.precision = pick_precision(context.precision or plan.config.precision, self.device)
        self._read = cache(_read)
        self._backbone = cache(backbone_stamp)
        self._failed_trainings: dict[str, str] = {}
        self._noted: set[str] = set()
        self._last: tuple[str, Detector] | None = None  # one at a time: they are large

    def run(self, cell: Cell) -> CellResult:
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
            record = _describe_cell(cell) | failed | _timing(fingerprint, began)
            write_record(folder / CELL_FILE, record)
            return CellResult(cell, "failed", f"failed: {failed['error']}", record, folder=folder)
        record |= {"identity": identity} | _timing(fingerprint, began)
        write_record(folder / CELL_FILE, record)
        done = read_finished(cell, folder, fingerprint)
        assert done is not None, "a cell that was just written is finished"
        return replace(done, kept=False)

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Return all that decides a cell's figures, as plain data."""
        settings = asdict(self.plan.config.evaluation)
        return {
            "detector": self._detector_identity(cell),
            "dataset": self._read(cell.source)[1],
            "evaluation": {k: v for k, v in settings.items() if k not in _NO_FIGURES},
        }

    def detector(self, cell: Cell) -> Detector:
        """Return a cell's detector; it is trained where no finished model is in `models`."""
        key = digest(self._detector_identity(cell))
        if self._last is None or self._last[0] != key:
            self._last = None  # free the last one before the next is loaded
            self._last = (key, self._build_detector(cell, key))
        detector = self._last[1]
        if self.tokens is not None:
            self.tokens.serve(detector, slug(cell.source.entry.key))
        return detector

    def _folder(self, cell: Cell, fingerprint: str) -> Path:
        """Cells of one method with equal settings share a folder, whatever their labels."""
        names = (cell.column.method.name, cell.column.backbone or "model", cell.source.entry.key)
        seed = () if cell.seed in (None, PAPER_SEED) else (f"seed{cell.seed}",)
        key = fingerprint[:12] or "unidentified"
        return self.work / "cells" / "__".join((*map(slug, names), *seed, key))

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
            "trained_on": self._read(cell.trained_on)[1],
        }

    def _measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        dataset = self._read(cell.source)[0].require_usable()
        result = evaluate(
            self.detector(cell), dataset, self.plan.config.evaluation,
            progress=self._named(cell.name), resume=folder / PROGRESS_NAME,
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

    def _build_detector(self, cell: Cell, key: str) -> Detector:
        where: dict[str, Any] = {"device": self.device, "precision": self.precision}
        method, backbone = cell.column.method, cell.column.backbone
        if method.model:
            return require_torch(load_detector(self._model(cell), **where))
        if cell.trained_on is not None:
            folder = self._trained_model(cell, key)
            return require_torch(load_detector(folder, backbone=backbone, **where))
        built = build_detector(
            method.name, backbone, options=method.options, preset=method.preset, **where
        )
        note = recorded_note(built.description)
        line = f"{cell.column.title}: {note}"
        if note and line not in self._noted:
            self._noted.add(line)
            logger.info(line)
        return built

    def _model(self, cell: Cell) -> Path:
        return find_model(resolve(cell.column.method.model, self.plan.config.base))

    def _trained_model(self, cell: Cell, key: str) -> Path:
        """Return the model folder; start or resume its training where it is not finished."""
        assert cell.trained_on is not None
        names = (cell.column.method.name, cell.column.backbone, cell.trained_on.entry.key, key[:12])
        folder = self.work / "models" / "__".join(slug(name) for name in names)
        if (folder / CONFIG).is_file():
            read_config(folder)
            return folder
        if key in self._failed_trainings:
            raise ModelError(self._failed_trainings[key])
        try:
            self._train(cell, folder)
        except Exception as error:
            self._failed_trainings[key] = f"its training failed: {_failure(error)['error']}"
            raise ModelError(self._failed_trainings[key]) from error
        return folder

    def _train(self, cell: Cell, folder: Path) -> None:
        assert cell.trained_on is not None and cell.seed is not None
        method = cell.column.method
        config = self.plan.config.training_of(method, seed=cell.seed, device=self.device)
        options = TrainOptions(
            method=method.name,
            preset=method.preset,
            backbone=cell.column.backbone,
            options=method.options,
            training=to_mapping(config),
            precision=self.precision,
            resume=(folder / CHECKPOINT_NAME).is_file(),
        )
        named = self._named(f"train {folder.name}")
        report = train(self._read(cell.trained_on)[0], folder, options, progress=named)
        self.trained(cell, report)

    def _named(self, name: str) -> ProgressCallback:
        """Return the caller's `progress` with the name of a cell in place of a stage."""
        return lambda stage, done, total: self.context.progress(name, done, total)


def read_finished(cell: Cell, folder: Path, fingerprint: str) -> CellResult | None:
    """Return a cell that an earlier run finished with this fingerprint, or None."""
    record = read_record(folder / CELL_FILE, status="done", fingerprint=fingerprint)
    metrics = read_record(folder / "metrics.json")
    if record is None or metrics is None:
        return None
    try:
        replicates = read_replicates(folder)
    except (OSError, ValueError, KeyError, TypeError):  # as in `read_record`
        return None
    return CellResult(
        cell, "done", "", record, metrics, kept=True, replicates=replicates, folder=folder
    )


def _read(source: Source) -> tuple[Dataset, str]:
    """Read a dataset; also return the digest of its content."""
    dataset = source.read()
    return dataset, content_digest(dataset)


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
    """Record an error of ours by its text; another one with its kind and where it came from."""
    if isinstance(error, (FapromptError, OSError)):
        return {"status": "failed", "error": str(error)}
    text = f"{type(error).__name__}: {error}"
    return {"status": "failed", "error": text, "traceback": traceback.format_exc()}


def _timing(fingerprint: str, began: float) -> dict[str, Any]:
    return {"fingerprint": fingerprint, "seconds": round(time.perf_counter() - began, 3)}
