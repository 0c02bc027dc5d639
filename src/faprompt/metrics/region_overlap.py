"""AUPRO: how well each anomalous region is covered; and `pro_200`, the authors' own PRO.

PRO(t) is the mean, over all 8-connected regions of all masks, of the share of the region with
score >= t; FPR(t) is the share of all normal pixels with score >= t. AUPRO is the area under
PRO over FPR from 0 to a limit, divided by that limit.

`pro_200` is not AUPRO and serves the comparison with published tables. Its thresholds are 200
equal steps of *score*, so a monotonic change of the scores changes it, and its FPR axis is
stretched to the sampled range instead of being cut at the limit.

Sources: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5; `pro_200`
is `cal_pro_score` in the public code of APRIL-GAN, AnomalyCLIP, AnoVL, FAPrompt and FiLo.
"""

from __future__ import annotations

import numpy as np

from faprompt.metrics.checked_inputs import Maps, check_fpr_limit, check_pairs
from faprompt.metrics.labelled_pixels import ExactPixels, LabelledPixels
from faprompt.metrics.tally import Tally, UndefinedMetricError, pro_points

_STEPS = 200


def aupro(score_maps: Maps, masks: Maps, *, fpr_limit: float = 0.3) -> float:
    """Return the exact area under the per-region overlap curve: every score is a threshold.

    Args:
        score_maps: (B, H, W), or a list of (H, W) of any sizes; finite, any range.
        masks: likewise, bool or 0/1; 1 is anomalous.
        fpr_limit: the false-positive rate where the integral ends, in (0, 1].

    Returns:
        0..1, higher is better. Chance level is fpr_limit / 2.

    Raises:
        ValueError: maps or masks that do not fit, or a limit out of range.
        UndefinedMetricError: no region, no normal pixel, or one score for everything.

    Example:
        >>> mask = np.array([[1, 0, 0, 0]])
        >>> round(aupro([np.array([[0.9, 0.2, 0.3, 0.1]])], [mask]), 4)
        1.0
        >>> round(aupro([np.array([[0.2, 0.9, 0.1, 0.0]])], [mask], fpr_limit=0.5), 4)
        0.3333
    """
    fpr_limit = check_fpr_limit(fpr_limit)
    return aupro_of(_count_pixels(score_maps, masks), fpr_limit=fpr_limit)


def aupro_of(tally: Tally, *, fpr_limit: float) -> float:
    """Return the AUPRO of counts; the curve starts at (0, 0) and is cut straight at the limit."""
    fpr, pro = pro_points(tally)
    inside = int(np.searchsorted(fpr, fpr_limit, side="right"))
    pro_at_limit = np.interp(fpr_limit, fpr[inside - 1 : inside + 1], pro[inside - 1 : inside + 1])
    x = np.append(fpr[:inside], fpr_limit)
    y = np.append(pro[:inside], pro_at_limit)
    area = np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2
    return float(min(area / fpr_limit, 1.0))


def pro_200(score_maps: Maps, masks: Maps, *, fpr_limit: float = 0.3) -> float:
    """Return PRO as the authors compute it, from one count of the pixels instead of 200.

    Per threshold from the lowest score to just below the highest: a pixel is called
    anomalous when score > threshold; PRO is the mean overlap of all regions and FPR the
    share of normal pixels called anomalous. Points with FPR < fpr_limit stay, their FPR is
    stretched to 0..1, and the trapezoid under them is the value.

    Args:
        score_maps: (B, H, W), or a list of (H, W) of any sizes; one class, all its images.
        masks: likewise, bool or 0/1; 1 is anomalous.
        fpr_limit: points at or above this false-positive rate are dropped; in (0, 1].

    Returns:
        0..1, higher is better. Not comparable with `aupro`.

    Raises:
        ValueError: maps or masks that do not fit, or a limit out of range.
        UndefinedMetricError: no region, no normal pixel, one score for everything, or
            fewer than two different false-positive rates below the limit (NaN there).
    """
    fpr_limit = check_fpr_limit(fpr_limit)
    tally = _count_pixels(score_maps, masks)
    tally.require_regions()
    low, high = tally.thresholds[-1], tally.thresholds[0]  # in the maps' own precision
    return pro_200_of(tally, low=low, high=high, fpr_limit=fpr_limit)


def pro_200_of(tally: Tally, *, low: float, high: float, fpr_limit: float) -> float:
    """Return `pro_200` of counts: the mean overlap of the regions is their weights, summed.

    Args:
        tally: pixels with region weights. Binned, it adds the error of its bins.
        low: the lowest score of all pixels, float32 or float64, which is the precision of
            the steps; `high` is the highest.
        fpr_limit: as in `pro_200`.
    """
    overlap = tally.require_regions()
    # The number of scores above each threshold; the rows of a tally fall.
    above = np.searchsorted(
        -tally.thresholds, -np.arange(low, high, (high - low) / _STEPS), side="left"
    )
    false_positives = np.append(0, np.cumsum(tally.normal))
    pro = np.append(0, np.cumsum(overlap))[above] / tally.regions
    return _area(false_positives[above] / false_positives[-1], pro, fpr_limit)


def _area(fpr: np.ndarray, pro: np.ndarray, fpr_limit: float) -> float:
    """Area under PRO over the points below the limit, its axis stretched to 0..1."""
    kept = fpr < fpr_limit
    if kept.sum() < 2 or np.ptp(fpr[kept]) == 0:
        raise UndefinedMetricError(
            f"of {len(fpr)} thresholds fewer than two give different false-positive rates "
            f"below {fpr_limit:g}, so there is no axis to stretch"
        )
    x = fpr[kept] - fpr[kept].min()
    x, y = x / x.max(), pro[kept]
    return float(np.sum(-np.diff(x) * (y[1:] + y[:-1])) / 2)


def _count_pixels(score_maps: Maps, masks: Maps) -> Tally:
    pixels = ExactPixels()
    pixels.add([LabelledPixels.of(*pair) for pair in check_pairs(score_maps, masks).values()])
    return pixels.tally()
