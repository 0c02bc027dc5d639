"""Image and pixel metrics over a stream of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike

from faprompt.metrics.curves import Curve, pr_curve_of, pro_curve_of, roc_curve_of
from faprompt.metrics.histogram import BinnedPixels
from faprompt.metrics.inputs import Maps, check_fpr_limit, check_pairs, check_scores
from faprompt.metrics.pixels import ExactPixels, LabelledPixels
from faprompt.metrics.ranking import auroc_of, average_precision_of, f1_max_of
from faprompt.metrics.regions import aupro_of
from faprompt.metrics.result import MetricResult
from faprompt.metrics.tally import Tally, tally_scores
from faprompt.metrics.undefined import UndefinedMetricError

Mode = Literal["binned", "exact"]
T = TypeVar("T")

_AT_ONCE = 8  # images


class PixelStore(Protocol):
    """What takes labelled pixels in and can count them by score."""

    def add(self, images: Sequence[LabelledPixels]) -> None: ...

    def merge(self, other: Any) -> None: ...

    def tally(self) -> Tally: ...


class AnomalyMetrics:
    """All metrics of one group of images (a class, a dataset), fed in any portions.

    Image metrics are exact in both modes, for there are few image scores. Pixel metrics
    use the images that have both a score map and a mask.

    Args:
        mode: "binned" keeps a histogram: bounded memory, scores read as float32, within
            1e-4 of exact. "exact" keeps every pixel.
        fpr_limit: the false-positive rate where AUPRO ends, in (0, 1].

    Raises:
        ValueError: unknown mode, or a limit out of range.

    Example:
        >>> metrics = AnomalyMetrics()
        >>> metrics.update([0.2, 0.9], [0, 1])
        >>> metrics.update([0.4], [1], [np.array([[0.1, 0.7]])], [np.array([[0, 1]])])
        >>> result = metrics.compute()
        >>> result["image_auroc"], result["pixel_ap"], result.undefined
        (1.0, 1.0, {})
    """

    def __init__(self, mode: Mode = "binned", fpr_limit: float = 0.3) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f'mode should be "binned" or "exact", got {mode!r}.')
        self._mode: Mode = mode
        self._fpr_limit = check_fpr_limit(fpr_limit)
        self.reset()

    @property
    def mode(self) -> Mode:
        """ "binned" or "exact"."""
        return self._mode

    @property
    def fpr_limit(self) -> float:
        """The false-positive rate where AUPRO ends."""
        return self._fpr_limit

    def reset(self) -> None:
        """Forget everything seen."""
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._pixels: PixelStore = BinnedPixels() if self._mode == "binned" else ExactPixels()

    def update(
        self,
        scores: ArrayLike,
        labels: ArrayLike,
        score_maps: Maps = None,
        masks: Maps = None,
    ) -> None:
        """Take in B images. Nothing is taken in when any of them is refused.

        Args:
            scores: (B,) finite, any range; higher is more anomalous.
            labels: (B,) bool or 0/1; 1 is anomalous.
            score_maps: (B, H, W), or a list of B arrays (H, W) of any sizes; finite, any
                range. None, or None entries, for images without one.
            masks: likewise, bool or 0/1, each of its map's size. An all-zero mask says
                "no defect anywhere"; None says "nobody drew one".

        Raises:
            ValueError: anything that does not fit; the message names the image.
            TypeError: an array that holds no numbers.
        """
        values, truth = check_scores(scores, labels)
        dtype = np.float32 if self._mode == "binned" else None
        pairs = check_pairs(score_maps, masks, count=len(values), dtype=dtype)
        self._scores.append(values)
        self._labels.append(truth)
        for start in range(0, len(pairs), _AT_ONCE):  # a large update needs no large copies
            few = pairs[start : start + _AT_ONCE]
            self._pixels.add([LabelledPixels.of(*pair, dtype=dtype) for pair in few])

    def merge(self, other: AnomalyMetrics) -> None:
        """Take in all that `other` has seen; `other` stays as it is.

        Raises:
            ValueError: the two differ in mode or fpr_limit.
        """
        if (self.mode, self.fpr_limit) != (other.mode, other.fpr_limit):
            raise ValueError(
                f"cannot merge mode={other.mode!r}, fpr_limit={other.fpr_limit} "
                f"into mode={self.mode!r}, fpr_limit={self.fpr_limit}."
            )
        self._scores.extend(list(other._scores))
        self._labels.extend(list(other._labels))
        self._pixels.merge(other._pixels)

    def compute(self) -> MetricResult:
        """All seven metrics over what was seen so far; may be called again and again.

        Returns:
            Values for the metrics that exist, a reason for each that does not, and the
            numbers of normal and anomalous images.
        """
        images, pixels = self._image_tally(), self._pixels.tally()
        jobs: list[tuple[str, Tally, Callable[[Tally], float]]] = []
        for level, tally in (("image", images), ("pixel", pixels)):
            jobs.append((f"{level}_auroc", tally, auroc_of))
            jobs.append((f"{level}_ap", tally, average_precision_of))
            jobs.append((f"{level}_f1_max", tally, f1_max_of))
        jobs.append(("aupro", pixels, partial(aupro_of, fpr_limit=self._fpr_limit)))
        values, undefined = _attempt(jobs)
        normal, anomalous = int(images.normal.sum()), int(images.anomalous.sum())
        return MetricResult(values, undefined, normal, anomalous)

    def curves(self, *, points: int = 1000) -> dict[str, Curve]:
        """Curves for plotting, at most `points` points each; one that is undefined is absent.

        Returns:
            "image_roc", "image_pr", "pixel_roc", "pixel_pr" and "pro".
        """
        images, pixels = self._image_tally(), self._pixels.tally()
        jobs: list[tuple[str, Tally, Callable[[Tally], Curve]]] = [
            ("image_roc", images, roc_curve_of),
            ("image_pr", images, pr_curve_of),
            ("pixel_roc", pixels, roc_curve_of),
            ("pixel_pr", pixels, pr_curve_of),
            ("pro", pixels, pro_curve_of),
        ]
        curves, _ = _attempt(jobs)
        return {name: curve.thinned(points) for name, curve in curves.items()}

    def _image_tally(self) -> Tally:
        scores = np.concatenate([np.zeros(0), *self._scores])
        labels = np.concatenate([np.zeros(0, dtype=bool), *self._labels])
        return tally_scores(scores, labels, unit="images")


def _attempt(
    jobs: Sequence[tuple[str, Tally, Callable[[Tally], T]]],
) -> tuple[dict[str, T], dict[str, str]]:
    """Run each job on its tally; what has no answer is listed with its reason."""
    values: dict[str, T] = {}
    undefined: dict[str, str] = {}
    for name, tally, road in jobs:
        try:
            values[name] = road(tally)
        except UndefinedMetricError as reason:
            undefined[name] = str(reason)
    return values, undefined
