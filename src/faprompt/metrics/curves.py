"""The curves behind the numbers, thinned to what a plot can show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from faprompt.metrics.inputs import Maps, check_pairs, check_scores
from faprompt.metrics.pixels import ExactPixels, LabelledPixels
from faprompt.metrics.regions import pro_points
from faprompt.metrics.tally import Tally, tally_scores


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one curve, by falling threshold; item i holds when score >= thresholds[i]."""

    x: np.ndarray  # (N,) rising, 0..1
    y: np.ndarray  # (N,) 0..1
    thresholds: np.ndarray  # (N,) falling; the first is infinity: nothing is called anomalous

    def thinned(self, points: int) -> Curve:
        """At most `points` of the points, spread evenly along the drawn line; ends stay."""
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


def roc_curve(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """False-positive rate (x) and true-positive rate (y). Arguments and errors as in `auroc`.

    Example:
        >>> curve = roc_curve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        >>> curve.x, curve.y
        (array([0. , 0. , 0.5, 0.5, 1. ]), array([0. , 0.5, 0.5, 1. , 1. ]))
    """
    return roc_curve_of(tally_scores(*check_scores(scores, labels)))


def pr_curve(scores: ArrayLike, labels: ArrayLike) -> Curve:
    """Recall (x) and precision (y), from (0, 1) by convention. Arguments as in `auroc`."""
    return pr_curve_of(tally_scores(*check_scores(scores, labels)))


def pro_curve(score_maps: Maps, masks: Maps) -> Curve:
    """False-positive rate (x) and mean region overlap (y). Arguments and errors as in `aupro`."""
    pixels = ExactPixels()
    pixels.add([LabelledPixels.of(*pair) for pair in check_pairs(score_maps, masks)])
    return pro_curve_of(pixels.tally())


def roc_curve_of(tally: Tally) -> Curve:
    """ROC points of counts."""
    tally.require_two_classes()
    misses, hits = np.cumsum(tally.normal), np.cumsum(tally.anomalous)
    x, y = np.append(0, misses / misses[-1]), np.append(0, hits / hits[-1])
    return Curve(x, y, _from_infinity(tally))


def pr_curve_of(tally: Tally) -> Curve:
    """Precision-recall points of counts."""
    tally.require_two_classes()
    hits = np.cumsum(tally.anomalous)
    precision = hits / (hits + np.cumsum(tally.normal))
    return Curve(np.append(0, hits / hits[-1]), np.append(1, precision), _from_infinity(tally))


def pro_curve_of(tally: Tally) -> Curve:
    """PRO points of counts."""
    return Curve(*pro_points(tally), _from_infinity(tally))


def _from_infinity(tally: Tally) -> np.ndarray:
    return np.append(np.inf, tally.thresholds)
