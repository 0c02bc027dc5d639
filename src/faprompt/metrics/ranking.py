"""AUROC, average precision and the best F1, equal to scikit-learn on ties as well.

`auroc(scores, labels)` checks and counts plain arrays; `auroc_of(tally)` takes counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from faprompt.metrics.checked_inputs import check_scores
from faprompt.metrics.tally import Tally, tally_scores


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the chance that an anomalous item scores above a normal one; a tie counts half.

    Args:
        scores: (N,) finite, any range; higher is more anomalous.
        labels: (N,) bool or 0/1; 1 is anomalous.

    Returns:
        0..1, higher is better; equal to scikit-learn's `roc_auc_score`.

    Raises:
        ValueError: shapes differ, a score is not finite, a label is not 0 or 1.
        UndefinedMetricError: one class only, or one score for everything.

    Example:
        >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.75
    """
    return auroc_of(tally_scores(*check_scores(scores, labels)))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the area under the precision-recall steps: each gain in recall times precision.

    No interpolation between the steps, as in scikit-learn's `average_precision_score`.
    Arguments, range and errors as in `auroc`.

    Example:
        >>> round(average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
        0.8333
    """
    return average_precision_of(tally_scores(*check_scores(scores, labels)))


def f1_max(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the highest F1 over all thresholds; score >= threshold is called anomalous.

    Equal to the maximum of F1 over scikit-learn's `precision_recall_curve`.
    Arguments, range and errors as in `auroc`.

    Example:
        >>> f1_max([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.8
    """
    return f1_max_of(tally_scores(*check_scores(scores, labels)))


def auroc_of(tally: Tally) -> float:
    """Return the AUROC of counts: the trapezoid under true over false positives."""
    tally.require_two_classes()
    hits = np.cumsum(tally.anomalous, dtype=np.float64)
    normal_total = tally.normal.sum(dtype=np.float64)
    area = np.sum(tally.normal * (hits - tally.anomalous / 2))
    return float(area / (normal_total * hits[-1]))


def average_precision_of(tally: Tally) -> float:
    """Return the average precision of counts."""
    hits, flagged = _called_anomalous(tally)
    return float(np.sum(tally.anomalous * (hits / flagged)) / hits[-1])


def f1_max_of(tally: Tally) -> float:
    """Return the best F1 of counts."""
    return float(np.max(_f1(tally)))


def f1_max_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the threshold of the highest F1; of several, the highest.

    Arguments and errors as in `auroc`.

    Example:
        >>> f1_max_threshold([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.35
    """
    tally = tally_scores(*check_scores(scores, labels))
    return float(tally.thresholds[np.argmax(_f1(tally))])


def _f1(tally: Tally) -> np.ndarray:
    """(K,) F1 per threshold: 2 TP / (TP + FP + all anomalous)."""
    hits, flagged = _called_anomalous(tally)
    return 2 * hits / (flagged + hits[-1])


def _called_anomalous(tally: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Return (K,) true positives and (K,) items called anomalous, per threshold."""
    tally.require_two_classes()
    hits = np.cumsum(tally.anomalous, dtype=np.float64)
    return hits, np.cumsum(tally.normal, dtype=np.float64) + hits
