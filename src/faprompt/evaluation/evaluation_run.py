"""Many labelled pictures through one detector: metrics per class, and their mean.

Streaming: a picture's map is counted and forgotten, so memory does not grow with the
number of pictures. Pictures that cannot be read are left out and named. A run that was
interrupted goes on from its file, see `progress.py`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from faprompt.data.dataset import Dataset
from faprompt.data.masks import resize_mask
from faprompt.data.remarks import PictureFacts, dataset_remarks
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.evaluation.evaluation_config import EvaluationConfig, Resolution
from faprompt.evaluation.metric_groups import Groups, group_names
from faprompt.evaluation.overlap import map_overlap
from faprompt.evaluation.sample_batches import ReadSample, read_batches
from faprompt.evaluation.saved_progress import ImageScore, Progress, picture_key, run_identity
from faprompt.imaging.transform import resize_map
from faprompt.metrics import Curve, MetricResult, mean_replicates, percentile_intervals
from faprompt.model_folder import recorded_note, recorded_preset
from faprompt.records import AnomalyResult
from faprompt.work import ProgressCallback, logger, no_progress

_SAVE_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that was measured on one dataset."""

    dataset: str
    model: str
    method: str
    backbone: str
    config: EvaluationConfig
    classes: Mapping[str, MetricResult]
    curves: Mapping[str, Mapping[str, Curve]]
    images: tuple[ImageScore, ...]
    environment: Mapping[str, str]
    preset: str | None = None  # of the method; None where the model does not record it
    root: Path = Path()  # of the dataset
    remarks: tuple[str, ...] = ()  # on the dataset, see `dataset_remarks`
    left_out_classes: tuple[str, ...] = ()  # classes of the dataset that were not selected
    replicates: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)

    @property
    def mean(self) -> dict[str, float]:
        """Mean over the classes that have the metric, as the paper averages."""
        columns = {name: self._column(name) for name in self.config.metric_names}
        return {name: float(np.mean(values)) for name, values in columns.items() if values}

    @property
    def mean_replicates(self) -> dict[str, np.ndarray]:
        """(replicates,) of every mean: other pictures, the same classes.

        A picture counts equally often in one replicate of any detector, so that replicates
        of two detectors on the same pictures pair up. A mean has replicates only if each of
        its classes has some.
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
        """95 % intervals of the means, of those that `percentile_intervals` finds sound."""
        return percentile_intervals(self.mean_replicates, self.mean)

    @property
    def undefined(self) -> dict[str, str]:
        """Metrics that no class has, each with its reason."""
        reasons: dict[str, str] = {}
        for name in self.config.metric_names:
            if not self._column(name):
                told = {result.undefined[name] for result in self.classes.values()}
                reasons[name] = "; ".join(sorted(told)) or "no kind of defect to measure"
        return reasons

    @property
    def pixel_pictures(self) -> dict[str, tuple[int, int]]:
        """Group -> number of normal and of anomalous pictures that pixel metrics rest on."""
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
    detector: Detector,
    dataset: Dataset,
    config: EvaluationConfig | None = None,
    *,
    progress: ProgressCallback = no_progress,
    resume: Path | None = None,
    save_every_s: float = _SAVE_EVERY_S,
) -> Evaluation:
    """Measure a detector on a dataset.

    Args:
        detector: any; its own `forward` is what is measured.
        dataset: its classes are the metric groups, unless `config.by_defect`.
        progress: called with the name of the set, pictures done and pictures in all.
        resume: a file to save the run in now and then. One that is there already is gone
            on from if model, pictures, options and versions are the same, with the result
            of an uninterrupted run to the bit. Pictures and masks are the same if their
            content is. The file stays; `write_evaluation` removes it.
        save_every_s: seconds between two savings; 0 saves after every batch.

    Raises:
        DatasetError: the dataset has problems, or two sizes that should agree do not.
        ConfigError: the picture's resolution for a model that reads at its own size.
    """
    config = config or EvaluationConfig()
    dataset.require_usable()
    if detector.released_reading and config.resolution == "picture":
        raise ConfigError(
            "picture_handling=released reads pictures at the model's size; measure with "
            "resolution=model, or build the model with picture_handling=upright."
        )
    about = environment(detector)
    groups = Groups(group_names(dataset, config), config)
    model = detector.fingerprint() if resume else ""
    identity = run_identity(dataset, config, model=model, environment=about) if resume else {}
    keeper = Progress(resume, identity, every_s=save_every_s)
    images, found = keeper.load(dataset.samples, groups)
    if found:
        logger.info(found)
    rest = dataset.samples[len(images) :]
    released = detector.released_reading
    for batch in read_batches(
        rest, size=config.batch_size, policy=config.mask_policy, released=released
    ):
        images += _measure(detector, batch, groups, config, dataset.root, start=len(images))
        keeper.save_if_due(images, groups)
        progress(dataset.name, len(images), len(dataset.samples))
    closed = groups.closed()
    facts = [PictureFacts(i.sample, i.digests[0], i.marked, i.error) for i in images]
    return Evaluation(
        dataset=dataset.name,
        model=detector.name,
        method=detector.method.name,
        backbone=detector.backbone.name,
        config=config,
        classes={name: group.result for name, group in closed.items()},
        curves={name: group.curves for name, group in closed.items()},
        images=tuple(images),
        environment=about,
        preset=recorded_preset(detector.description),
        root=dataset.root,
        remarks=dataset_remarks(dataset, facts),
        left_out_classes=dataset.left_out_classes,
        replicates={name: group.replicates for name, group in closed.items()},
    )


def environment(detector: Detector) -> dict[str, str]:
    """Describe what the figures were measured with.

    "picture_handling" is there for a model that reads as public code does, and "note" where the
    preset did not run as it was published.
    """
    import faprompt

    note = recorded_note(detector.description)
    return {
        "faprompt": faprompt.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(detector.backbone.device),
        "precision": detector.backbone.precision,
        "backbone_fingerprint": detector.backbone.state_fingerprint(),
        "image_size": "x".join(map(str, detector.transform.image_size)),
        **({"picture_handling": "released"} if detector.released_reading else {}),
        **({"note": note} if note else {}),
    }


def _measure(
    detector: Detector,
    batch: Sequence[ReadSample],
    groups: Groups,
    config: EvaluationConfig,
    root: Path,
    *,
    start: int,
) -> list[ImageScore]:
    """Score and count a batch whose first picture is number `start`."""
    readable = [item for item in batch if item.image is not None]
    scored = dict(
        zip(map(id, readable), _score(detector, readable, config.resolution), strict=True)
    )
    rows = []
    for number, item in enumerate(batch, start):
        if id(item) in scored:
            rows.append(_count(item, *scored[id(item)], groups, config, root, number=number))
        else:
            names = groups.names(number)
            rows.append(
                ImageScore(item.sample, None, item.error, groups=names, digests=item.digests)
            )
        groups.passed(number)
    return rows


def _count(
    item: ReadSample,
    score: float,
    score_map: np.ndarray,
    groups: Groups,
    config: EvaluationConfig,
    root: Path,
    *,
    number: int,
) -> ImageScore:
    sample, mask = item.sample, item.mask
    marked = None if mask is None else float(mask.mean())
    if mask is not None and config.resolution == "model":
        mask = resize_mask(mask, score_map.shape)
    groups.update(
        number, sample.label, score, None if mask is None else score_map, mask,
        key=picture_key(sample.image_path, root),
    )  # fmt: skip
    found = map_overlap(score_map, mask) if mask is not None and mask.any() else None
    return ImageScore(
        sample, score, overlap=found, groups=groups.names(number), marked=marked,
        digests=item.digests,
    )  # fmt: skip


def _score(
    detector: Detector, items: Sequence[ReadSample], resolution: Resolution
) -> list[tuple[float, np.ndarray]]:
    images = [item.image for item in items if item.image is not None]
    if not images:
        return []
    names = [item.sample.class_name for item in items if item.image is not None]
    if resolution == "picture" or detector.method.tiled:
        results = detector.predict_batch(images, class_names=names)
        return [(result.score, _map_at(detector, result, resolution)) for result in results]
    found: list[tuple[float, np.ndarray]] = []
    together = 1 if detector.method.keeps_aspect else len(images)  # such pictures differ in size
    for start in range(0, len(images), together):
        part = slice(start, start + together)
        pixels = torch.stack([detector.to_pixels(image) for image in images[part]])
        with torch.inference_mode():
            scores, maps = detector(pixels, class_names=names[part])
        found += zip(scores.tolist(), maps.cpu().numpy(), strict=True)
    return found


def _map_at(detector: Detector, result: AnomalyResult, resolution: Resolution) -> np.ndarray:
    if resolution == "picture":
        return result.score_map
    return resize_map(result.score_map, detector.transform.image_size)
