"""Measure a detector on labelled pictures: metrics for each class, and their mean.

Pictures are streamed: a map is dropped after it was counted, so memory does not grow with the
number of pictures. Pictures that cannot be read are left out and named. An interrupted run can
be resumed, see `saved_progress.py`; several processes can share one, see `evaluation_shards.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import numpy as np

from faprompt.data.dataset import Dataset
from faprompt.data.remarks import PictureFacts, dataset_remarks
from faprompt.evaluation.evaluation_config import EvaluationConfig
from faprompt.evaluation.measurement import MeasuredModel, Measurement
from faprompt.evaluation.metric_groups import Groups
from faprompt.evaluation.saved_progress import ImageScore, Progress
from faprompt.evaluation.verdict_rates import VerdictRates, own_picture_remarks, verdict_rates
from faprompt.metrics import Curve, MetricResult, mean_replicates, percentile_intervals
from faprompt.picture_detector import PictureDetector
from faprompt.work import ProgressCallback, logger, no_progress


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """Hold the result of an evaluation on one dataset. All metrics are from 0 to 1.

    Evaluations are equal if all their values are; `curves` and `replicates` are not compared,
    since they follow from the pictures.

    Attributes:
        dataset, model, method, backbone: names.
        config: the options.
        classes: metrics of each class, with 95 % intervals, or why there is none.
        curves: points of the curves of each class, by the name of the curve.
        images: the score of each picture, or why it has none.
        environment: versions, device and precision.
        preset: of the method; None if the model does not record it.
        root: folder of the dataset.
        remarks: sentences on the dataset that a reader should know.
        left_out_classes: classes of the dataset that were not selected.
        replicates: bootstrap replicates (replicates,) of each class and metric.
        verdicts: rates at the calibrated thresholds; None for a detector without calibration.
    """

    dataset: str
    model: str
    method: str
    backbone: str
    config: EvaluationConfig
    classes: Mapping[str, MetricResult] = field(hash=False)
    curves: Mapping[str, Mapping[str, Curve]] = field(compare=False)
    images: tuple[ImageScore, ...]
    environment: Mapping[str, str] = field(hash=False)
    preset: str | None = None
    root: Path = Path()
    remarks: tuple[str, ...] = ()
    left_out_classes: tuple[str, ...] = ()
    replicates: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict, compare=False)
    verdicts: VerdictRates | None = field(default=None, hash=False)

    def __repr__(self) -> str:
        means = ", ".join(f"{name}={value:.4f}" for name, value in self.mean.items())
        counts = f"{len(self.images)} pictures in {len(self.classes)} classes"
        return (
            f"<Evaluation of {self.model!r} on {self.dataset!r}, {counts}: {means or 'no metric'}>"
        )

    @property
    def mean(self) -> dict[str, float]:
        """Mean of each metric over the classes that have it, as in the paper."""
        columns = {name: self._column(name) for name in self.config.metric_names}
        return {name: float(np.mean(values)) for name, values in columns.items() if values}

    @property
    def mean_replicates(self) -> dict[str, np.ndarray]:
        """Replicates of every mean, (replicates,): other pictures, the same classes.

        A replicate draws each picture equally often for every detector, so replicates of two
        detectors on the same pictures form pairs. A mean without replicates in one of its
        classes has none.
        """
        drawn: dict[str, np.ndarray] = {}
        for name in self.mean:
            classes = [key for key, result in self.classes.items() if name in result.values]
            rows = [self.replicates.get(key, {}).get(name) for key in classes]
            known = [row for row in rows if row is not None and not np.isnan(row).all()]
            if len(known) == len(classes):
                drawn[name] = mean_replicates(known)
        return drawn

    @property
    def mean_intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the means, see `percentile_intervals`."""
        return percentile_intervals(self.mean_replicates, self.mean)

    @property
    def undefined(self) -> dict[str, str]:
        """Metrics that no class has, each with its reason."""
        missing = [name for name in self.config.metric_names if not self._column(name)]
        reasons = {name: {r.undefined[name] for r in self.classes.values()} for name in missing}
        return {
            name: "; ".join(sorted(lines)) or "no kind of defect to measure"
            for name, lines in reasons.items()
        }

    @property
    def pixel_pictures(self) -> dict[str, tuple[int, int]]:
        """Number of normal and of anomalous pictures with a mask, by class."""
        counts = {name: [0, 0] for name in self.classes}
        for image in self.images:
            if image.marked is not None:
                for name in counts.keys() & set(image.groups):
                    counts[name][image.sample.label] += 1
        return {name: (normal, anomalous) for name, (normal, anomalous) in counts.items()}

    @property
    def unreadable(self) -> tuple[ImageScore, ...]:
        """Pictures without a score."""
        return tuple(image for image in self.images if image.score is None)

    def _column(self, name: str) -> list[float]:
        return [result.values[name] for result in self.classes.values() if name in result.values]


def evaluate(
    detector: PictureDetector,
    dataset: Dataset,
    config: EvaluationConfig | None = None,
    *,
    progress: ProgressCallback = no_progress,
    resume: Path | None = None,
    save_every_s: float = 30.0,
) -> Evaluation:
    """Measure a detector on a dataset.

    Args:
        detector: a detector of any method. Its scores are those of `predict`; a calibrated one
            also gets false-alarm and detection rates at its thresholds.
        dataset: its classes are the metric groups, unless `config.by_defect`.
        config: options; None takes the defaults.
        progress: called with the dataset's name, pictures done and pictures in all.
        resume: file in which the run is saved from time to time. The run of an existing file
            is continued when model, options, versions and the content of its pictures and
            masks are the same; the result is equal to the bit. `write_evaluation` removes it.
        save_every_s: seconds between two writes of that file; 0 writes after every batch.

    Raises:
        DatasetError: the dataset has problems, or two sizes that should agree do not.
        ConfigError: resolution "picture" for a model that reads at its own size, or a class of
            no product of the calibration.
    """
    config = config or EvaluationConfig()
    measurement = Measurement(detector, dataset, config)
    order = [number for chunk in measurement.chunks for number in chunk]
    samples = [dataset.samples[number] for number in order]
    ends = accumulate(map(len, measurement.chunks))
    groups = Groups([measurement.names[number] for number in order], config, ends)
    saved = Progress(resume, measurement.identity() if resume else {}, every_s=save_every_s)
    images = saved.load(samples, groups)
    if images:
        logger.info(f"going on after {len(images)} of {len(samples)} pictures")
    for rows in measurement.measure(measurement.chunks, groups, done=len(images)):
        images += rows
        saved.save_if_due(images, groups)
        progress(dataset.name, len(images), len(samples))
    in_order = [image for _, image in sorted(zip(order, images, strict=True), key=_number)]
    return conclude(measurement.model, dataset, config, in_order, groups)


def _number(pair: tuple[int, ImageScore]) -> int:
    return pair[0]


def conclude(
    model: MeasuredModel,
    dataset: Dataset,
    config: EvaluationConfig,
    images: Sequence[ImageScore],
    groups: Groups,
) -> Evaluation:
    """Return the result of a run whose pictures are all counted.

    Args:
        model: of the run.
        dataset: the measured one. Outlines of its samples are not used.
        config: options of the run.
        images: scores in the order of the dataset.
        groups: all closed.
    """
    closed = groups.closed()
    verdicts = verdict_rates(model.setup, images, config.product, references=model.reference_paths)
    facts = [PictureFacts(i.sample, i.digests[0], i.marked, i.error) for i in images]
    return Evaluation(
        dataset=dataset.name,
        model=model.name,
        method=model.method,
        backbone=model.backbone,
        config=config,
        classes={name: group.result for name, group in closed.items()},
        curves={name: group.curves for name, group in closed.items()},
        images=tuple(images),
        environment=model.environment,
        preset=model.preset,
        root=dataset.root,
        remarks=(*dataset_remarks(dataset, facts), *own_picture_remarks(verdicts)),
        left_out_classes=dataset.left_out_classes,
        replicates={name: group.replicates for name, group in closed.items()},
        verdicts=verdicts,
    )
