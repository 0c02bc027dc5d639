"""Estimate the time and disk of a benchmark before it runs.

By default each method is assumed to cost what the paper measured for FAPrompt on one RTX 3090
(Table 3); `measure` times this machine instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faprompt.clip.known_backbones import (
    BUNDLED,
    cached_weights,
    pretrained_record,
    split_name,
    wide_resnet_file,
)
from faprompt.clip.weights import load_backbone
from faprompt.clip.wide_resnet import WIDE_RESNET
from faprompt.data.dataset_catalog import published_counts
from faprompt.detector import Detector
from faprompt.errors import DatasetError, ModelError
from faprompt.methods.registry import build_method, fit_to_backbone
from faprompt.models import load_detector, require_torch
from faprompt.reproduce.cell_identity import resolved_options
from faprompt.reproduce.cells import Cell, Column, Plan, Source
from faprompt.reproduce.complexity import build_call, time_call
from faprompt.reproduce.experiment_parts import CostOptions
from faprompt.token_cache import token_shape
from faprompt.work import logger

_BATCH, _CALLS = 2, CostOptions(warmup=1, repeats=3)  # of a measured step, and how often
_BYTES_PER_RESULT = 400  # of scores.csv and curves, per picture
_MODEL_BYTES = 80e6  # weights and checkpoint of FAPrompt's 4.1 million parameters


@dataclass(frozen=True, slots=True)
class Rate:
    """Cost of one picture."""

    score_seconds: float = 0.2147  # Table 3: inference
    step_seconds: float = 1.3541 / 8  # Table 3: training, batches of 8; per epoch
    token_bytes: float = 1370 * 768 * 4.0  # cached tokens of ViT-L/14 at 518 pixels
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cost of all cells that could run, or only lack their data. Seconds and bytes."""

    cells: int
    evaluations: int  # cells with equal settings share one
    trainings: int
    pictures: int  # scored
    seconds: float
    cache_bytes: float  # of the training's features, in the user's cache
    out_bytes: float
    uncounted: tuple[str, ...]  # datasets whose size is not known
    measured: bool


def estimate(plan: Plan, rates: Mapping[str, Rate] | None = None) -> Estimate:
    """Estimate time and disk of a plan; cells of methods that this version lacks are left out.

    `rates` is from `measure`; by default a column costs what FAPrompt does.
    """
    rates = rates or {}
    there = [cell for cell in plan.cells if not cell.column.missing]
    cells = list({(_detector_key(cell, plan), cell.source.key): cell for cell in there}.values())
    trainings = {_detector_key(cell, plan): cell for cell in cells if cell.trained_on is not None}
    trained = [cell.trained_on for cell in plan.cells if cell.trained_on is not None]
    sources = {source.key: source for source in (*plan.sources, *trained)}
    counts = {key: count_pictures(source) for key, source in sources.items()}
    scored, seconds = 0, 0.0
    for cell in cells:
        pictures = counts[cell.source.key] or 0
        scored += pictures
        seconds += pictures * rates.get(cell.column.title, Rate()).score_seconds
    caches: dict[tuple[str, str], float] = {}
    for cell in trainings.values():
        assert cell.trained_on is not None
        rate, pictures = rates.get(cell.column.title, Rate()), counts[cell.trained_on.key] or 0
        epochs = plan.config.training_of(cell.column.method).epochs
        seconds += pictures * (rate.score_seconds + epochs * rate.step_seconds)
        caches[cell.column.backbone, cell.trained_on.key] = pictures * rate.token_bytes
    return Estimate(
        cells=len(there),
        evaluations=len(cells),
        trainings=len(trainings),
        pictures=scored,
        seconds=seconds,
        cache_bytes=sum(caches.values()),
        out_bytes=scored * _BYTES_PER_RESULT + len(trainings) * _MODEL_BYTES,
        uncounted=tuple(key for key, count in counts.items() if count is None),
        measured=any(rate.measured for rate in rates.values()),
    )


def count_pictures(source: Source) -> int | None:
    """Return the pictures of a set: those that are there, else the published number, else None."""
    if not source.missing:
        try:
            return len(source.read())
        except DatasetError:
            return None
    counts = published_counts(source.entry.id)
    names = source.entry.classes or counts
    return sum(sum(counts.get(name, (0, 0))) for name in names) or None


def measure(plan: Plan, *, device: str, precision: str) -> dict[str, Rate]:
    """Time drawn pictures through every detector that can be built here, by column.

    Training does not change a method's speed, so it is measured untrained.
    """
    rates: dict[str, Rate] = {}
    for column in plan.columns:
        if column.missing:
            continue
        if column.method.full_shot:
            logger.info(f"{column.title} is not measured: it has no memory before it is trained.")
            continue
        try:
            detector = _untrained(column, device, precision)
        except ModelError as error:
            logger.info(f"{column.title} cannot be measured: {error}")
            continue
        milliseconds = {
            part: time_call(build_call(part, detector, _BATCH), _CALLS, column.title).median
            for part in ("inference", *(("cached_step",) if column.method.learns else ()))
        }
        options, size = detector.method.image_options, detector.transform.image_size
        rates[column.title] = Rate(
            score_seconds=milliseconds["inference"] / 1000,
            step_seconds=milliseconds.get("cached_step", 0.0) / 1000 / _BATCH,
            token_bytes=token_shape(detector.backbone, options, size, 1).total_bytes,
            measured=True,
        )
    return rates


def absent_weights(plan: Plan) -> list[str]:
    """Return a line for each backbone whose weights are not on this machine."""
    names = {column.backbone: None for column in plan.columns if not column.method.model}
    return [line for name in names if (line := _absent(name))]


def _absent(backbone: str) -> str:
    absent = f"{backbone} is not on this machine and would be downloaded"
    if backbone == WIDE_RESNET:
        return "" if wide_resnet_file().is_file() else absent
    if backbone in (*BUNDLED, "test-tiny") or Path(backbone.split(":")[0]).exists():
        return ""
    found = split_name(backbone)
    if found is None:
        return f"{backbone} is no known backbone, and no file or folder here"
    return "" if cached_weights(pretrained_record(*found)) else absent


def describe_estimate(found: Estimate) -> str:
    """Return the estimate as a few lines."""
    basis = (
        "measured on this machine"
        if found.measured
        else "assumed: the paper's for FAPrompt on an RTX 3090; --measure takes this machine's"
    )
    lines = [
        f"{found.cells} cells: {found.evaluations} evaluations of {found.pictures:,} pictures in "
        f"all, {found.trainings} trainings",
        f"time: about {_duration(found.seconds)} ({basis})",
        f"disk: {found.out_bytes / 1e9:.2f} GB of results, "
        f"{found.cache_bytes / 1e9:.2f} GB of cached features",
    ]
    if found.uncounted:
        lines.append(f"not counted, their size is not known: {', '.join(found.uncounted)}")
    return "\n".join(lines)


def _detector_key(cell: Cell, plan: Plan) -> tuple[Any, ...]:
    """Return what identifies a cell's detector before any file is read."""
    method = cell.column.method
    if method.model:
        return method.name, method.model
    options = repr(sorted(resolved_options(method).items()))
    if cell.trained_on is None:
        return method.name, options, cell.column.backbone, method.preset
    training = plan.config.training_of(method, seed=cell.seed)
    return method.name, options, cell.column.backbone, cell.trained_on.key, training


def _untrained(column: Column, device: str, precision: Any) -> Detector:
    method = column.method
    if method.model:
        return require_torch(load_detector(method.model, device=device, precision=precision))
    backbone = load_backbone(column.backbone)
    chosen = fit_to_backbone(method.name, backbone, method.options, preset=method.preset)
    built = build_method(method.name, backbone, chosen, preset=method.preset)
    backbone.to(device).set_precision(precision)
    return Detector(backbone, built.to(device), name=column.title)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
