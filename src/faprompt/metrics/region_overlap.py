"""AUPRO: how well each anomalous region is covered, whatever its size.

PRO(t) is the mean, over all 8-connected ground-truth regions of all images, of the share of
the region with score >= t; FPR(t) is the share of all normal pixels with score >= t. AUPRO is
the area under PRO over FPR from 0 to a limit, divided by that limit.

Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.
"""

from __future__ import annotations

import numpy as np

from faprompt.metrics.checked_inputs import Maps, check_fpr_limit, check_pairs
from faprompt.metrics.labelled_pixels import ExactPixels, LabelledPixels
from faprompt.metrics.tally import Tally


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
    pixels = ExactPixels()
    pixels.add([LabelledPixels.of(*pair) for pair in check_pairs(score_maps, masks).values()])
    return aupro_of(pixels.tally(), fpr_limit=fpr_limit)


def aupro_of(tally: Tally, *, fpr_limit: float) -> float:
    """Return the AUPRO of counts; the curve starts at (0, 0) and is cut straight at the limit."""
    fpr, pro = pro_points(tally)
    inside = int(np.searchsorted(fpr, fpr_limit, side="right"))
    pro_at_limit = np.interp(fpr_limit, fpr[inside - 1 : inside + 1], pro[inside - 1 : inside + 1])
    x = np.append(fpr[:inside], fpr_limit)
    y = np.append(pro[:inside], pro_at_limit)
    area = np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2
    return float(min(area / fpr_limit, 1.0))


def pro_points(tally: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Return FPR and PRO, (K + 1,) each, from (0, 0) to (1, 1), one point a distinct score."""
    overlap = tally.require_regions()
    false_positives = np.cumsum(tally.normal, dtype=np.float64)
    fpr = np.append(0.0, false_positives / false_positives[-1])
    pro = np.append(0.0, np.cumsum(overlap) / tally.regions)
    return fpr, pro
