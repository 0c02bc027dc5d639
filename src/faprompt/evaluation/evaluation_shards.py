"""Measure a part of a dataset in each process; `merged_evaluation.py` joins the parts.

    evaluation-shards/run.json                 model, options and pictures of the run
    evaluation-shards/calibration.safetensors  of a calibrated model
    evaluation-shards/00002-of-00003/chunk-00004.safetensors

A chunk is what `plan_chunks` says; chunk k of a dataset belongs to shard k % N + 1, both counted
as in the names. Its file is that of an evaluation's progress, see `saved_progress.py`: it is
complete when it holds all pictures of the chunk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faprompt.calibration import Calibration, read_calibration, save_calibration
from faprompt.config import ShardNumber
from faprompt.data.dataset import Dataset
from faprompt.detector_setup import DetectorSetup
from faprompt.errors import ShardError
from faprompt.evaluation.evaluation_config import EvaluationConfig
from faprompt.evaluation.measurement import MeasuredModel, Measurement
from faprompt.evaluation.metric_groups import Groups
from faprompt.evaluation.saved_progress import Progress, picture_key, text_digest
from faprompt.files import write_atomically
from faprompt.picture_detector import PictureDetector
from faprompt.records import Sample
from faprompt.work import ProgressCallback, lock_folder, logger, no_progress

SHARDS_FOLDER = "evaluation-shards"
_RUN = "run.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class EvaluationShard(ShardNumber):
    """One of `count` parts of an evaluation, counted from 1."""

    @classmethod
    def of_chunk(cls, chunk: int, count: int) -> EvaluationShard:
        """Return the shard that a chunk belongs to."""
        return cls(chunk % count + 1, count)

    def chunk_path(self, folder: Path, chunk: int) -> Path:
        """Return the file of one of its chunks; `folder` is that of the evaluation."""
        return folder / SHARDS_FOLDER / self.name / f"chunk-{chunk:05}.safetensors"


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What `evaluate_shard` measured, now and before.

    Attributes:
        shard: which one.
        chunks: of the shard; none where there are more shards than chunks.
        pictures: of the shard, those without a score included.
        unreadable: pictures without a score.
        kept: chunks that an earlier run had measured.
    """

    shard: EvaluationShard
    chunks: int
    pictures: int
    unreadable: int
    kept: int


@dataclass(frozen=True, slots=True)
class ShardedRun:
    """What all shards of an evaluation have in common: the content of `run.json`."""

    shards: int
    identity: Mapping[str, str]  # see `run_identity`
    model: MeasuredModel
    dataset: Dataset  # without the outlines of drawn masks
    config: EvaluationConfig

    def chunk_identity(self, chunk: int) -> dict[str, str]:
        """Return the identity of a chunk's file."""
        return {**self.identity, "shards": str(self.shards), "chunk": str(chunk)}


def evaluate_shard(
    detector: PictureDetector,
    dataset: Dataset,
    config: EvaluationConfig | None,
    folder: Path,
    shard: EvaluationShard,
    *,
    progress: ProgressCallback = no_progress,
    resume: bool = True,
    save_every_s: float = 30.0,
) -> ShardResult:
    """Measure one shard of an evaluation and save its counts below `folder`.

    Chunks that are measured already are kept if their pictures and masks still have the same
    content; an interrupted chunk goes on. `merge_evaluation` joins the shards.

    Args:
        detector, dataset, config: as for `evaluate`, equal in all shards. The dataset may lie
            elsewhere on each machine.
        folder: output folder of the evaluation, the same for all shards.
        shard: which one.
        progress: called with the dataset's name, pictures of the shard done, and in all.
        resume: False measures all chunks of the shard anew.
        save_every_s: as for `evaluate`.

    Raises:
        ShardError: the folder holds shards of another run; the message says what differs.
        FolderInUseError: another process measures this shard.
        DatasetError, ConfigError: as for `evaluate`.
    """
    config = config or EvaluationConfig()
    measurement = Measurement(detector, dataset, config)
    identity = {
        **measurement.identity(),
        "thresholds": _thresholds_digest(detector.setup.calibration),
    }
    run = ShardedRun(shard.count, identity, measurement.model, dataset, config)
    own = list(enumerate(measurement.chunks))[shard.index - 1 :: shard.count]
    total = sum(len(numbers) for _, numbers in own)
    done = unreadable = kept = 0
    with lock_folder(folder / SHARDS_FOLDER / shard.name):
        _agree(run, folder / SHARDS_FOLDER)
        for chunk, numbers in own:
            path = shard.chunk_path(folder, chunk)
            if not resume:
                path.unlink(missing_ok=True)
            groups = Groups([measurement.names[number] for number in numbers], config)
            saved = Progress(path, run.chunk_identity(chunk), every_s=save_every_s)
            images = saved.load([dataset.samples[number] for number in numbers], groups)
            complete = len(images) == len(numbers)
            kept += complete
            progress(dataset.name, done + len(images), total)
            for rows in measurement.measure([numbers], groups, done=len(images)):
                images += rows
                saved.save_if_due(images, groups)
                progress(dataset.name, done + len(images), total)
            if not complete:
                saved.save(images, groups)
            done += len(images)
            unreadable += sum(image.score is None for image in images)
    if kept:
        logger.info(f"shard {shard}: {kept} of {len(own)} chunks were measured already")
    return ShardResult(shard, len(own), total, unreadable, kept)


def read_run(folder: Path) -> ShardedRun:
    """Read what all shards have in common; `folder` is that of the evaluation.

    Raises:
        ShardError: the file is missing or damaged.
        ModelError: the file of the calibration is damaged.
    """
    path = folder / SHARDS_FOLDER / _RUN
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != _FORMAT:
            raise ValueError(f"format {values['format']!r}, this version reads {_FORMAT}")
        return _from_json(values, read_calibration(path.parent))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(
            f"{path} cannot be used ({error}); remove {path.parent} and run all shards again."
        ) from error


def _agree(run: ShardedRun, place: Path) -> None:
    """Write `run.json`, or refuse a folder whose `run.json` is of another run."""
    if not (place / _RUN).is_file():
        if run.model.setup.calibration is not None:
            save_calibration(run.model.setup.calibration, place)
        write_atomically(place / _RUN, json.dumps(_to_json(run)).encode())
        return
    first = read_run(place.parent)
    if first.shards != run.shards:
        raise ShardError(
            f"{place} holds a run of {first.shards} shards, got {run.shards}; use "
            f"--shard I/{first.shards}, or another --out."
        )
    if differing := _differences(first, run):
        raise ShardError(
            f"{place} holds shards of another run: other {differing}. Use the same model, data "
            "and options for all shards, or another --out."
        )


def _differences(first: ShardedRun, run: ShardedRun) -> str:
    """Return the names of what differs, each value of the environment by itself."""
    names = [name for name, text in run.identity.items() if first.identity.get(name) != text]
    old, new = first.model.environment, run.model.environment
    words = [
        f"{name} ({old.get(name, 'none')} and {new.get(name, 'none')})"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    return ", ".join([name for name in names if name != "environment"] + words)


def _thresholds_digest(calibration: Calibration | None) -> str:
    """Return a digest of what the rates of verdicts depend on; "" without a calibration."""
    if calibration is None:
        return ""
    limits = {name: asdict(calibration.limits(name)) for name in calibration.products}
    pictures = {name: dict(each) for name, each in calibration.pictures.items()}
    rates = [calibration.target_fpr, calibration.review_fpr]
    return text_digest([limits, rates, calibration.group, pictures])


def _to_json(run: ShardedRun) -> dict[str, Any]:
    model, dataset = run.model, run.dataset
    return {
        "format": _FORMAT,
        "shards": run.shards,
        "identity": dict(run.identity),
        "model": {
            "name": model.name,
            "method": model.method,
            "backbone": model.backbone,
            "preset": model.preset,
            "environment": dict(model.environment),
        },
        "reference_paths": sorted(model.reference_paths),
        "options": asdict(run.config),
        "dataset": {
            "name": dataset.name,
            "split": dataset.split,
            "warnings": dataset.warnings,
            "left_out_classes": dataset.left_out_classes,
        },
        "root": str(dataset.root),
        "samples": [_sample_facts(sample, dataset.root) for sample in dataset.samples],
    }


def _from_json(values: Mapping[str, Any], calibration: Calibration | None) -> ShardedRun:
    dataset, root = values["dataset"], Path(values["root"])
    samples = tuple(_sample(facts, root) for facts in values["samples"])
    return ShardedRun(
        shards=int(values["shards"]),
        identity=values["identity"],
        model=MeasuredModel(
            **values["model"],
            setup=DetectorSetup(calibration=calibration),
            reference_paths=frozenset(values["reference_paths"]),
        ),
        dataset=Dataset(
            name=dataset["name"],
            root=root,
            samples=samples,
            split=dataset["split"],
            warnings=tuple(dataset["warnings"]),
            left_out_classes=tuple(dataset["left_out_classes"]),
        ),
        config=EvaluationConfig(**values["options"]),
    )


def _sample_facts(sample: Sample, root: Path) -> list[Any]:
    """Return the facts on a sample as plain values, its files below the dataset."""
    return [
        picture_key(sample.image_path, root),
        [picture_key(path, root) for path in sample.mask_paths],
        [sample.label, sample.class_name, sample.defect_type],
        sample.has_pixel_label,
        sample.region,
        [sample.split, sample.dataset, dict(sample.extra)],
    ]


def _sample(facts: Sequence[Any], root: Path) -> Sample:
    picture, masks, (label, class_name, defect_type), has_pixel_label, region, others = facts
    split, dataset, extra = others
    return Sample(
        image_path=root / picture,
        label=label,
        class_name=class_name,
        defect_type=defect_type,
        mask_paths=tuple(root / mask for mask in masks),
        has_pixel_label=has_pixel_label,
        region=None if region is None else tuple(region),
        split=split,
        dataset=dataset,
        extra=extra,
    )
