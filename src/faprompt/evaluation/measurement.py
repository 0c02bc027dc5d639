"""Measure pictures chunk by chunk: what one process and the shards of a run have in common."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from faprompt.data.dataset import Dataset
from faprompt.data.masks import resize_mask
from faprompt.detector_setup import DetectorSetup
from faprompt.errors import ConfigError
from faprompt.evaluation.evaluation_config import EvaluationConfig
from faprompt.evaluation.metric_groups import Groups, group_names, plan_chunks
from faprompt.evaluation.sample_batches import ReadSample, plan_batches, read_batches
from faprompt.evaluation.sample_scoring import check_products, released_reading, score_samples
from faprompt.evaluation.saved_progress import ImageScore, picture_key, run_identity
from faprompt.evaluation.verdict_rates import reference_paths
from faprompt.folder_config import recorded_note, recorded_preset
from faprompt.picture_detector import PictureDetector


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """What a result tells of its detector; of the setup it needs the calibration alone."""

    name: str
    method: str
    backbone: str
    preset: str | None
    environment: Mapping[str, str]
    setup: DetectorSetup
    reference_paths: frozenset[str]  # absolute

    @classmethod
    def of(cls, detector: PictureDetector) -> MeasuredModel:
        """Return the facts on a detector."""
        return cls(
            name=detector.name,
            method=detector.identity.method,
            backbone=detector.identity.backbone,
            preset=recorded_preset(detector.description),
            environment=_environment(detector),
            setup=detector.setup,
            reference_paths=reference_paths(detector.setup),
        )


class Measurement:
    """A detector, a dataset and options that fit each other.

    Attributes:
        model: facts on the detector.
        names: metric groups of each sample, in the order of the dataset.
        chunks: numbers of the samples that are counted together, see `plan_chunks`.

    Raises:
        DatasetError: the dataset has problems.
        ConfigError: resolution "picture" for a model that reads at its own size, or a class of
            no product of the calibration.
    """

    def __init__(
        self, detector: PictureDetector, dataset: Dataset, config: EvaluationConfig
    ) -> None:
        dataset.require_usable()
        self._released = released_reading(detector)
        check_products(detector.setup, dataset.samples, config.product)
        if self._released and config.resolution == "picture":
            raise ConfigError(
                "picture_handling=released reads pictures at the model's size; measure with "
                "resolution=model, or build the model with picture_handling=upright."
            )
        self._detector, self._dataset, self._config = detector, dataset, config
        self.model = MeasuredModel.of(detector)
        self.names = group_names(dataset, config)
        self.chunks = plan_chunks(dataset.samples)

    def identity(self) -> dict[str, str]:
        """Return what the result depends on, see `run_identity`; it digests the weights."""
        return run_identity(
            self._dataset, self._config, model=self._detector.fingerprint(),
            environment=self.model.environment,
        )  # fmt: skip

    def measure(
        self, chunks: Sequence[Sequence[int]], groups: Groups, *, done: int = 0
    ) -> Iterator[list[ImageScore]]:
        """Score and count the samples of some chunks; yield each batch in order.

        Args:
            chunks: numbers of samples.
            groups: of these samples, numbered from 0 in the order of the chunks.
            done: samples that were measured already; a batch ended there.
        """
        samples = [[self._dataset.samples[number] for number in chunk] for chunk in chunks]
        batches = plan_batches(samples, size=self._config.batch_size)
        starts = list(accumulate(map(len, batches), initial=0))
        rest = starts.index(done)
        read = read_batches(
            batches[rest:], policy=self._config.mask_policy, released=self._released,
            setup=self._detector.setup,
        )  # fmt: skip
        for start, batch in zip(starts[rest:], read, strict=False):
            yield self._measure_batch(batch, groups, start)

    def _measure_batch(
        self, batch: Sequence[ReadSample], groups: Groups, start: int
    ) -> list[ImageScore]:
        """Score and count a batch whose first picture has the number `start`."""
        scored = score_samples(self._detector, batch, self._config)
        rows = []
        for number, item in enumerate(batch, start):
            sample, mask, names = item.sample, item.mask, groups.names(number)
            row = ImageScore(sample, None, item.error, groups=names, digests=item.digests)
            if item.image is not None:
                score, score_map = next(scored)
                marked = None if mask is None else float(mask.mean())
                if mask is not None and self._config.resolution == "model":
                    mask = resize_mask(mask, score_map.shape)
                groups.update(
                    number, sample.label, score, None if mask is None else score_map, mask,
                    key=picture_key(sample.image_path, self._dataset.root),
                )  # fmt: skip
                overlap = map_overlap(score_map, mask) if mask is not None and mask.any() else None
                row = replace(row, score=score, overlap=overlap, marked=marked)
            rows.append(row)
            groups.passed(number)
        return rows


def map_overlap(score_map: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of the mask that the map's highest pixels cover.

    As many pixels of the map are taken as the mask marks; pixels that share the last score
    count in part.

    Args:
        score_map: (H, W) float.
        mask: (H, W) bool with at least one True.

    Returns:
        0..1, higher is better: precision, recall and F1 at the threshold at which the map
        marks as many pixels as the mask.

    Raises:
        ValueError: the mask is empty.

    Example:
        >>> map_overlap(np.array([[0.9, 0.8, 0.1, 0.3]]), np.array([[True, False, False, True]]))
        0.5
    """
    size = int(mask.sum())
    if size == 0:
        raise ValueError("the mask is empty; pass a mask with at least one True.")
    scores, truth = score_map.ravel(), mask.ravel()
    last = np.partition(scores, len(scores) - size)[len(scores) - size]
    above, level = scores > last, scores == last
    inside = np.count_nonzero(above & truth)
    share = np.count_nonzero(level & truth) / np.count_nonzero(level)
    return float((inside + share * (size - np.count_nonzero(above))) / size)


def _environment(detector: PictureDetector) -> dict[str, str]:
    """Return versions, device and model facts; "note" where the preset was changed."""
    import faprompt

    note, calibration = recorded_note(detector.description), detector.setup.calibration
    model = detector.identity
    runtime, version = model.runtime
    return {
        "faprompt": faprompt.__version__,
        "python": platform.python_version(),
        runtime: version,
        "device": model.device,
        "precision": model.precision,
        "backbone_fingerprint": model.backbone_fingerprint,
        "image_size": "x".join(map(str, detector.geometry.transform.image_size)),
        **({"picture_handling": "released"} if released_reading(detector) else {}),
        **({"calibration": calibration.fingerprint} if calibration else {}),
        **({"note": note} if note else {}),
    }
