"""Many labelled pictures through one detector: metrics per class, and their mean.

Streaming: a picture's map is counted and forgotten, so memory does not grow with the
number of pictures. Pictures that cannot be read are left out and named.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from faprompt.data.base import Dataset, by_defect_type
from faprompt.data.masks import MaskPolicy, read_mask, resize_mask
from faprompt.detector import Detector
from faprompt.errors import DatasetError, ImageReadError
from faprompt.imaging.read import read_image
from faprompt.metrics import METRIC_NAMES, AnomalyMetrics, Curve, MetricResult
from faprompt.records import Sample

Resolution = Literal["model", "picture"]


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """How to measure. The defaults are the paper's, with exact AUPRO in place of its PRO."""

    batch_size: int = 8
    resolution: Resolution = "model"  # pixel metrics at the model's size, or the picture's own
    fpr_limit: float = 0.3  # where AUPRO ends
    mask_policy: MaskPolicy = "reference"
    by_defect: bool = False  # a group per kind of defect, each against all normals of its class

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size should be at least 1, got {self.batch_size}.")
        if self.resolution not in ("model", "picture"):
            raise ValueError(f"resolution should be model or picture, got {self.resolution!r}.")
        if not 0 < self.fpr_limit <= 1:
            raise ValueError(f"fpr_limit should be above 0 and at most 1, got {self.fpr_limit}.")


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One picture's line of `scores.csv`; `error` says why there is no score."""

    sample: Sample
    score: float | None
    error: str = ""


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

    @property
    def mean(self) -> dict[str, float]:
        """Mean over the classes that have the metric, as the paper averages."""
        columns = {name: self._column(name) for name in METRIC_NAMES}
        return {name: float(np.mean(values)) for name, values in columns.items() if values}

    @property
    def undefined(self) -> dict[str, str]:
        """Metrics that no class has, each with its reason."""
        reasons: dict[str, str] = {}
        for name in METRIC_NAMES:
            if not self._column(name):
                told = {result.undefined[name] for result in self.classes.values()}
                reasons[name] = "; ".join(sorted(told)) or "no kind of defect to measure"
        return reasons

    @property
    def unreadable(self) -> tuple[ImageScore, ...]:
        """Pictures without a score."""
        return tuple(image for image in self.images if image.score is None)

    def _column(self, name: str) -> list[float]:
        return [result.values[name] for result in self.classes.values() if name in result.values]


@dataclass(frozen=True, slots=True)
class _Read:
    sample: Sample
    image: np.ndarray | None
    mask: np.ndarray | None
    error: str = ""


def evaluate(
    detector: Detector,
    dataset: Dataset,
    config: EvaluationConfig | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a detector on a dataset.

    Args:
        detector: any; its own `forward` is what is measured.
        dataset: its classes are the metric groups, unless `config.by_defect`.
        progress: called with (done, total) pictures.

    Raises:
        DatasetError: the dataset has problems, or two sizes that should agree do not.
    """
    config = config or EvaluationConfig()
    dataset.require_usable()
    groups = _groups(dataset, config)
    classes = {
        name: AnomalyMetrics(fpr_limit=config.fpr_limit)
        for name in dict.fromkeys(name for names in groups.values() for name in names)
    }
    images: list[ImageScore] = []
    for batch in _batches(dataset.samples, config):
        images += _measure(detector, batch, classes, groups, config)
        if progress:
            progress(len(images), len(dataset.samples))
    return Evaluation(
        dataset=dataset.name,
        model=detector.name,
        method=detector.method.name,
        backbone=detector.backbone.name,
        config=config,
        classes={name: metrics.compute() for name, metrics in classes.items()},
        curves={name: metrics.curves() for name, metrics in classes.items()},
        images=tuple(images),
        environment=environment(detector),
    )


def environment(detector: Detector) -> dict[str, str]:
    """What the figures were measured with."""
    import faprompt

    return {
        "faprompt": faprompt.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(detector.backbone.device),
        "precision": detector.backbone.precision,
        "backbone_fingerprint": detector.backbone.state_fingerprint(),
        "image_size": "x".join(map(str, detector.transform.image_size)),
    }


def _groups(dataset: Dataset, config: EvaluationConfig) -> dict[int, tuple[str, ...]]:
    """id of a sample -> the metric groups it counts in."""
    if not config.by_defect:
        return {id(sample): (sample.class_name,) for sample in dataset.samples}
    found: dict[int, tuple[str, ...]] = {id(sample): () for sample in dataset.samples}
    for name, samples in by_defect_type(dataset).items():
        for sample in samples:
            found[id(sample)] += (name,)
    return found


def _measure(
    detector: Detector,
    batch: Sequence[_Read],
    classes: Mapping[str, AnomalyMetrics],
    groups: Mapping[int, tuple[str, ...]],
    config: EvaluationConfig,
) -> list[ImageScore]:
    readable = [item for item in batch if item.image is not None]
    scored = dict(
        zip(map(id, readable), _score(detector, readable, config.resolution), strict=True)
    )
    rows = []
    for item in batch:
        if id(item) not in scored:
            rows.append(ImageScore(item.sample, None, item.error))
            continue
        score, score_map = scored[id(item)]
        mask = None
        if item.mask is not None:
            mask = item.mask
            if config.resolution == "model":
                mask = resize_mask(mask, score_map.shape)
        for name in groups[id(item.sample)]:
            classes[name].update(
                [score], [item.sample.label], [None if mask is None else score_map], [mask]
            )
        rows.append(ImageScore(item.sample, score))
    return rows


def _score(
    detector: Detector, items: Sequence[_Read], resolution: Resolution
) -> list[tuple[float, np.ndarray]]:
    images = [item.image for item in items if item.image is not None]
    if not images:
        return []
    if resolution == "picture":
        results = detector.predict_batch(images)
        return [(result.score, result.score_map) for result in results]
    pixels = torch.stack([detector.transform.to_pixels(image) for image in images])
    with torch.inference_mode():
        scores, maps = detector(pixels)
    return list(zip(scores.tolist(), maps.cpu().numpy(), strict=True))


def _batches(samples: Sequence[Sample], config: EvaluationConfig) -> Iterator[list[_Read]]:
    """Pictures in order; the next batch is read while one is scored."""
    size = config.batch_size
    chunks = [samples[i : i + size] for i in range(0, len(samples), size)]
    with ThreadPoolExecutor(2) as pool:
        waiting = [[pool.submit(_read, s, config) for s in chunk] for chunk in chunks[:1]]
        for following in [*chunks[1:], ()]:
            waiting.append([pool.submit(_read, sample, config) for sample in following])
            yield [future.result() for future in waiting.pop(0)]


def _read(sample: Sample, config: EvaluationConfig) -> _Read:
    try:
        image = read_image(sample.image_path).array
    except ImageReadError as error:
        return _Read(sample, None, None, str(error))
    mask = None
    if sample.has_pixel_label and (sample.mask_paths or not sample.label):
        mask = read_mask(sample, image_size=image.shape[:2], policy=config.mask_policy)
    return _Read(sample, _crop(image, sample), mask)


def _crop(image: np.ndarray, sample: Sample) -> np.ndarray:
    if sample.region is None:
        return image
    x0, y0, x1, y1 = sample.region
    height, width = image.shape[:2]
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise DatasetError(
            f"region {sample.region} (x0, y0, x1, y1) does not lie within {sample.image_path}, "
            f"which is {height}x{width} (height x width)."
        )
    return image[y0:y1, x0:x1]
