"""Scores counted per distinct value: the input of every metric here.

Exact or binned, images or pixels: all end in a `Tally`, and each metric is a short formula
on its running sums. Going down the rows lowers the threshold: after row k every item with
score >= thresholds[k] is called anomalous.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faprompt.errors import FapromptError

_NOTHING = {
    "scores": "there are no scores",
    "images": "there are no images",
    "pixels": "no image has both a score map and a mask",
}


class UndefinedMetricError(FapromptError):
    """The data are sound but the metric has no value on them; the message is the reason.

    The pure functions raise it; `AnomalyMetrics` catches it and lists the reason under
    `undefined`, so that a missing number is never 0 and never NaN.
    """


@dataclass(frozen=True, slots=True)
class Tally:
    """Number of items at each score, highest score first; equal scores are one row."""

    thresholds: np.ndarray  # (K,) strictly falling
    normal: np.ndarray  # (K,) whole numbers, normal items at that score
    anomalous: np.ndarray  # (K,) whole numbers, anomalous items at that score
    overlap: np.ndarray | None = None  # (K,) float64, anomalous pixels weighted 1 / region size
    regions: float = 0  # number of regions behind `overlap`; whole, as all counts
    unit: str = "scores"  # what is counted, for messages: "scores", "images" or "pixels"

    def require_two_scores(self) -> None:
        """Refuse data that rank nothing: none at all, or one score for everything."""
        if len(self.thresholds) == 0:
            raise UndefinedMetricError(_NOTHING[self.unit])
        if len(self.thresholds) == 1:
            score = float(self.thresholds[0])
            raise UndefinedMetricError(
                f"all {self.unit} have the same score ({score:.6g}), so nothing is ranked"
            )

    def require_two_classes(self) -> None:
        """Refuse data of one class only, then data that rank nothing."""
        if len(self.thresholds) and not self.anomalous.any():
            raise UndefinedMetricError(f"one class only: all {self.unit} are normal")
        if len(self.thresholds) and not self.normal.any():
            raise UndefinedMetricError(f"one class only: all {self.unit} are anomalous")
        self.require_two_scores()

    def require_regions(self) -> np.ndarray:
        """Refuse data on which no PRO exists; return `overlap`."""
        if len(self.thresholds) and self.regions == 0:
            raise UndefinedMetricError("no region: no mask has an anomalous pixel")
        if len(self.thresholds) and not self.normal.any():
            raise UndefinedMetricError("no normal pixel: the masks are anomalous all over")
        self.require_two_scores()
        assert self.overlap is not None
        return self.overlap


def tally_scores(scores: np.ndarray, labels: np.ndarray, *, unit: str = "scores") -> Tally:
    """Count checked scores (N,) with labels (N,) bool by distinct value, highest first."""
    values, places = np.unique(scores, return_inverse=True)
    total = np.bincount(places, minlength=len(values))
    anomalous = np.bincount(places[labels], minlength=len(values))
    return Tally(values[::-1], (total - anomalous)[::-1], anomalous[::-1], unit=unit)


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one curve, by falling threshold; item i holds when score >= thresholds[i]."""

    x: np.ndarray  # (N,) rising, 0..1
    y: np.ndarray  # (N,) 0..1
    thresholds: np.ndarray  # (N,) falling; the first is infinity: nothing is called anomalous

    def thinned(self, points: int) -> Curve:
        """Keep at most `points` points, spread evenly along the drawn line; both ends stay."""
        if points < 2:
            raise ValueError(f"a curve needs at least 2 points, got {points}.")
        if len(self.x) <= points:
            return self
        steps = np.abs(np.diff(self.x)) + np.abs(np.diff(self.y))
        length = np.append(0.0, np.cumsum(steps))
        chosen = np.searchsorted(length, np.linspace(0.0, length[-1], points))
        chosen[-1] = len(self.x) - 1
        chosen = np.unique(np.minimum(chosen, len(self.x) - 1))
        return Curve(self.x[chosen], self.y[chosen], self.thresholds[chosen])


def roc_curve_of(tally: Tally) -> Curve:
    """Return false-positive rate (x) and true-positive rate (y)."""
    tally.require_two_classes()
    misses, hits = np.cumsum(tally.normal), np.cumsum(tally.anomalous)
    x, y = np.append(0, misses / misses[-1]), np.append(0, hits / hits[-1])
    return Curve(x, y, _from_infinity(tally))


def pr_curve_of(tally: Tally) -> Curve:
    """Return recall (x) and precision (y), from (0, 1) by convention."""
    tally.require_two_classes()
    hits = np.cumsum(tally.anomalous)
    precision = hits / (hits + np.cumsum(tally.normal))
    return Curve(np.append(0, hits / hits[-1]), np.append(1, precision), _from_infinity(tally))


def pro_curve_of(tally: Tally) -> Curve:
    """Return false-positive rate (x) and mean region overlap (y)."""
    return Curve(*pro_points(tally), _from_infinity(tally))


def pro_points(tally: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Return FPR and PRO, (K + 1,) each, from (0, 0) to (1, 1), one point a distinct score."""
    overlap = tally.require_regions()
    false_positives = np.cumsum(tally.normal, dtype=np.float64)
    fpr = np.append(0.0, false_positives / false_positives[-1])
    pro = np.append(0.0, np.cumsum(overlap) / tally.regions)
    return fpr, pro


def _from_infinity(tally: Tally) -> np.ndarray:
    return np.append(np.inf, tally.thresholds)
