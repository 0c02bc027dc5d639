"""How long and how large a benchmark would be, before it runs.

Assumed figures are the paper's for FAPrompt on one RTX 3090 (Table 3); `measure` puts those
of this machine in their place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faprompt.benchmark.identity import resolved_options
from faprompt.benchmark.plan import Cell, Column, Plan, Source
from faprompt.data.published_counts import published_counts
from faprompt.errors import DatasetError, ModelError

if TYPE_CHECKING:
    from faprompt.detector import Detector

_BATCH, _REPEATS = 2, 3  # of a measurement
_BYTES_PER_RESULT = 400  # of scores.csv and curves, per picture
_MODEL_BYTES = 80e6  # weights and checkpoint of FAPrompt's 4.1 million parameters


@dataclass(frozen=True, slots=True)
class Rate:
    """What one picture costs."""

    score_seconds: float = 0.2147  # Table 3: inference
    step_seconds: float = 1.3541 / 8  # Table 3: training, batches of 8; per epoch
    token_bytes: float = 1370 * 768 * 4.0  # cached tokens of ViT-L/14 at 518 pixels
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of all cells that could run, or only lack their data. Seconds and bytes."""

    cells: int
    evaluations: int  # cells with equal settings share one
    trainings: int  # and so do the models they need
    pictures: int  # scored
    seconds: float
    cache_bytes: float  # of the training's features, in the user's cache
    out_bytes: float
    uncounted: tuple[str, ...]  # datasets whose size is not known
    measured: bool


def estimate(plan: Plan, rates: Mapping[str, Rate] | None = None) -> Estimate:
    """Time and disk of a plan.

    `rates` is of `measure`; columns without one are assumed to cost what FAPrompt does.
    Cells of methods that this version lacks are left out.
    """
    rates = rates or {}
    counts = {source.key: count_pictures(source) for source in _sources(plan)}
    there = [cell for cell in plan.cells if not cell.column.missing]
    cells = list({(_detector_key(cell, plan), cell.source.key): cell for cell in there}.values())
    trainings = {_detector_key(cell, plan): cell for cell in cells if cell.trained_on is not None}
    scored = sum(counts[cell.source.key] or 0 for cell in cells)
    seconds = sum(
        (counts[cell.source.key] or 0) * rates.get(cell.column.title, Rate()).score_seconds
        for cell in cells
    )
    caches: dict[tuple[str, ...], float] = {}
    for cell in trainings.values():
        rate, pictures = rates.get(cell.column.title, Rate()), _trained_pictures(cell, counts)
        epochs = plan.config.training_of(cell.column.method).epochs
        seconds += pictures * (rate.score_seconds + epochs * rate.step_seconds)
        assert cell.trained_on is not None
        caches[cell.column.backbone, cell.trained_on.key] = pictures * rate.token_bytes
    return Estimate(
        cells=len(there),
        evaluations=len(cells),
        trainings=len(trainings),
        pictures=scored,
        seconds=seconds,
        cache_bytes=sum(caches.values()),
        out_bytes=scored * _BYTES_PER_RESULT + len(trainings) * _MODEL_BYTES,
        uncounted=tuple(name for name, count in counts.items() if count is None),
        measured=any(rate.measured for rate in rates.values()),
    )


def count_pictures(source: Source) -> int | None:
    """Pictures of a set: those that are there, else the published number, else None."""
    if not source.missing:
        try:
            return len(source.read())
        except DatasetError:
            return None
    counts = published_counts(source.entry.id)
    names = source.entry.classes or counts
    return sum(sum(counts.get(name, (0, 0))) for name in names) or None


def measure(
    plan: Plan, *, device: str, precision: str, notify: Callable[[str], None]
) -> dict[str, Rate]:
    """Time a few drawn pictures through every detector that can be built here.

    What a trained method learned does not change its speed, so it is measured untrained.
    """
    rates: dict[str, Rate] = {}
    for column in plan.columns:
        if column.missing:
            continue
        if column.method.full_shot:
            notify(f"{column.title} is not measured: it has no memory before it is trained.")
            continue
        try:
            detector = _untrained(column, device, precision)
            rates[column.title] = _rate(detector, learns=column.learns)
        except ModelError as error:
            notify(f"{column.title} cannot be measured: {error}")
    return rates


def absent_weights(plan: Plan) -> list[str]:
    """Backbones whose weights are not on this machine, in words; they are fetched when used."""
    names = {column.backbone: None for column in plan.columns if not column.method.model}
    return [told for name in names if (told := _absent(name))]


def _absent(backbone: str) -> str:
    from faprompt.clip.catalog import BUNDLED, split_name
    from faprompt.clip.wide_resnet import WIDE_RESNET, wide_resnet_file

    absent = f"{backbone} is not on this machine and would be downloaded"
    if backbone == WIDE_RESNET:
        return "" if wide_resnet_file().is_file() else absent
    if backbone in (*BUNDLED, "test-tiny") or Path(backbone.split(":")[0]).exists():
        return ""
    found = split_name(backbone)
    if found is None:
        return f"{backbone} is no backbone we know, and no file or folder here"
    return "" if _cached(*found) else absent


def _cached(model: str, tag: str) -> bool:
    """Whether open_clip's own cache or the hub's has the weights."""
    from huggingface_hub import try_to_load_from_cache
    from open_clip import get_pretrained_cfg

    from faprompt.clip.catalog import HUB_FILES

    record = get_pretrained_cfg(model, tag)
    file = Path.home() / ".cache" / "clip" / Path(record.get("url", "")).name
    if record.get("url") and file.is_file():
        return True
    repository, _, name = record.get("hf_hub", "").rpartition("/")
    names = [name] if name else HUB_FILES
    return bool(repository) and any(
        isinstance(try_to_load_from_cache(repository, each), str) for each in names
    )


def describe_estimate(found: Estimate) -> str:
    """A few lines for a person."""
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


def _sources(plan: Plan) -> list[Source]:
    trained = [cell.trained_on for cell in plan.cells if cell.trained_on is not None]
    return list({source.key: source for source in (*plan.sources, *trained)}.values())


def _detector_key(cell: Cell, plan: Plan) -> tuple[Any, ...]:
    """Return what tells a cell's detector from others before any file is read."""
    method = cell.column.method
    if method.model:
        return method.name, method.model
    options = repr(sorted(resolved_options(method).items()))
    if cell.trained_on is None:
        return method.name, options, cell.column.backbone, method.preset
    training = plan.config.training_of(method, seed=cell.seed)
    return method.name, options, cell.column.backbone, cell.trained_on.key, training


def _trained_pictures(cell: Cell, counts: Mapping[str, int | None]) -> int:
    assert cell.trained_on is not None
    return counts[cell.trained_on.key] or 0


def _untrained(column: Column, device: str, precision: Any) -> Detector:
    from faprompt.clip.weights import load_backbone
    from faprompt.detector import Detector
    from faprompt.methods.registry import build_method, fit_to_backbone
    from faprompt.models import load_detector

    method = column.method
    if method.model:
        return load_detector(method.model, device=device, precision=precision)
    backbone = load_backbone(column.backbone)
    chosen = fit_to_backbone(method.name, backbone, method.options, preset=method.preset)
    built = build_method(method.name, backbone, chosen, preset=method.preset)
    backbone.to(device).set_precision(precision)
    return Detector(backbone, built.to(device), name=column.title)


def _rate(detector: Detector, *, learns: bool) -> Rate:
    import torch

    height, width = detector.transform.image_size
    pixels = torch.randn(_BATCH, 3, height, width, device=detector.backbone.device)

    def score() -> None:
        with torch.inference_mode():
            detector(pixels)[0].tolist()  # waits for the device

    with torch.no_grad():
        features = detector.method.encode_image(detector.backbone, pixels)
    label = torch.arange(_BATCH, device=pixels.device) % 2
    mask = torch.zeros(_BATCH, height, width, dtype=torch.bool, device=pixels.device)
    mask[1:, : height // 4] = True

    def step() -> None:
        output = detector.method(features, detector.backbone.text)
        torch.stack(list(detector.method.loss(output, label, mask).values())).sum().backward()

    tokens = sum(t.numel() for t in features.patch_tokens.values()) + features.class_token.numel()
    return Rate(
        score_seconds=_seconds(score) / _BATCH,
        step_seconds=_seconds(step) / _BATCH if learns else 0.0,
        token_bytes=4.0 * tokens / _BATCH,
        measured=True,
    )


def _seconds(work: Callable[[], None]) -> float:
    """The quickest of a few, after one to warm up."""
    work()
    found = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
