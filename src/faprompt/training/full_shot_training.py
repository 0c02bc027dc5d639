"""Train full-shot methods: one model for each class, from its normal pictures alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from faprompt.clip.vision import ImageFeatures
from faprompt.config import to_mapping
from faprompt.data import Dataset, read_dataset
from faprompt.errors import ConfigError, DatasetError
from faprompt.methods.full_shot import FullShotMethod
from faprompt.methods.registry import build_method
from faprompt.records import Sample
from faprompt.training.features import Encoder
from faprompt.training.training_loop import train_method
from faprompt.training.training_steps import TrainingReport, TrainingTask
from faprompt.work import logger

SPLIT = "train"  # the test split is measured
CLASSES = "classes"  # in the model folder: files of the training of each class
_ADVICE = (
    "A full-shot method learns from normal pictures that are not measured: put them into "
    "<class>/train/good of an MVTec tree, or name the split that holds them."
)


def read_normal(folder: Path, dataset: str = "auto", *, split: str = SPLIT) -> Dataset:
    """Read the normal pictures of one split of a labelled folder.

    Raises:
        DatasetError: the dataset has no such split, or no normal picture in it.
    """
    try:
        found = read_dataset(folder, dataset, split=split)
    except DatasetError as error:
        raise DatasetError(f"{error} {_ADVICE}") from error
    return only_normal(found)


def only_normal(dataset: Dataset) -> Dataset:
    """Return the dataset without its anomalous pictures; errors as in `read_normal`."""
    samples = tuple(sample for sample in dataset.samples if not sample.label)
    if not samples:
        raise DatasetError(
            f"{dataset.root} has no normal picture in its {dataset.split} split. {_ADVICE}"
        )
    return replace(dataset, samples=samples)


def train_classes(task: TrainingTask, dataset: Dataset) -> TrainingReport:
    """Train the full-shot method of a task on every class of a dataset, in place.

    Anomalous pictures are left out. Methods that take steps are trained by `train_method`,
    each class in its own folder below `out_dir/classes`; on resume, finished classes are kept.

    Raises:
        DatasetError: there is no normal picture.
        TypeError: the method is not a full-shot one.
        ConfigError: options were given that training sets.
    """
    method, backbone, config = task.method, task.backbone, task.config
    if not isinstance(method, FullShotMethod):
        raise TypeError(f"{method.name!r} is no full-shot method; use train_method.")
    given = [name for name in method.written if getattr(method.config, name)]
    if given:
        raise ConfigError(
            f"{' and '.join(given)} are set by the training of {method.name}; leave them out."
        )
    normal = only_normal(dataset)
    lacking = sorted(set(dataset.class_names()) - set(normal.class_names()))
    if lacking:
        logger.info(f"Skipped, because they have no normal picture: {', '.join(lacking)}.")
    backbone.to(config.device)
    parts, reports = [], []
    for number, name in enumerate(normal.class_names()):
        samples = [sample for sample in normal.samples if sample.class_name == name]
        if len(samples) == 1:
            logger.info(f"{name}: 1 normal picture only; how normal ones vary cannot be learned.")
        options = to_mapping(method.config)
        if not method.remembers:
            options["classes"] = (name,)
        part = build_method(method.name, backbone, options, seed=config.seed).to(config.device)
        assert isinstance(part, FullShotMethod)
        if method.remembers:
            report = _remember(replace(task, method=part), part, name, samples)
        else:
            logger.info(f"{name}: {len(samples)} normal pictures.")
            plain = re.sub(r"[^\w.-]+", "-", name)
            place = task.out_dir / CLASSES / f"{number}-{plain}"
            report = train_method(replace(task, method=part, out_dir=place), samples)
        parts.append(part)
        reports.append(report)
    method.adopt(parts)
    method.to(config.device).eval()
    return _summed(reports)


def _remember(
    task: TrainingTask, part: FullShotMethod, name: str, samples: Sequence[Sample]
) -> TrainingReport:
    encoder = Encoder(part, task.backbone, task.pictures(samples), task.config)

    def batches() -> Iterator[ImageFeatures]:
        for group, features in encoder.encode(range(len(samples))):
            task.progress("images", group[-1] + 1, len(samples))
            yield features

    logger.info(part.remember(name, batches(), seed=task.config.seed))
    nowhere = Path()
    return TrainingReport(
        epochs=0, steps=0, resumed_at=0, pictures=len(samples), normal=len(samples), anomalous=0,
        features="streamed", encoded=encoder.encoded, image_seconds=encoder.seconds,
        step_seconds=0.0, epoch_means=(), loss_csv=nowhere, loss_png=nowhere, checkpoint=nowhere,
    )  # fmt: skip


def _summed(reports: Sequence[TrainingReport]) -> TrainingReport:
    """Join the reports of all classes; losses are averaged, files are those of the last."""

    added = (
        "steps", "resumed_at", "pictures", "normal", "encoded", "image_seconds", "step_seconds",
    )  # fmt: skip
    totals: dict[str, Any] = {n: sum(getattr(report, n) for report in reports) for n in added}
    epochs = zip(*(report.epoch_means for report in reports), strict=True)
    return replace(
        reports[-1],
        **totals,
        epoch_means=tuple(
            {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
            for rows in epochs
        ),
    )
