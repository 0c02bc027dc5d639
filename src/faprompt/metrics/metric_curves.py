"""Points of the ROC, precision-recall and PRO curves, thinned to what a plot can show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faprompt.metrics.region_overlap import pro_points
from faprompt.metrics.tally import Tally


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


def _from_infinity(tally: Tally) -> np.ndarray:
    return np.append(np.inf, tally.thresholds)
