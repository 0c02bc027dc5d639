"""Regions of a score map above a threshold, and the verdict of a score."""

from __future__ import annotations

from numbers import Real

import numpy as np
from scipy import ndimage

from faprompt.records import Region, Verdict

STRONGEST_SHARE = 0.8  # of the map's peak, on a picture that is NG although its map stays below

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


def find_regions(score_map: np.ndarray, threshold: float) -> tuple[Region, ...]:
    """Find the 8-connected regions of pixels at or above a threshold.

    Args:
        score_map: (height, width) float in [0, 1].
        threshold: lowest score of a region's pixel.

    Returns:
        Regions by falling peak, then falling area, then from top left to bottom right.

    Raises:
        ValueError: the map has not two axes.

    Example:
        >>> score_map = np.array([[0.9, 0.0, 0.0], [0.0, 0.7, 0.0], [0.0, 0.0, 0.0]])
        >>> find_regions(score_map, 0.5)
        (Region(bbox=(0, 0, 2, 2), area_px=2, peak=0.9, mean=0.8),)
    """
    if score_map.ndim != 2:
        raise ValueError(f"score_map should be (height, width), got {score_map.shape}.")
    marked = score_map >= threshold
    if not marked.any():
        return ()
    labels, count = ndimage.label(marked, structure=_EIGHT_NEIGHBOURS)
    owner, values = labels[marked] - 1, score_map[marked].astype(np.float64)
    areas = np.bincount(owner, minlength=count)
    means = np.bincount(owner, weights=values, minlength=count) / areas
    peaks = np.zeros(count)
    np.maximum.at(peaks, owner, values)
    regions = []
    for i, (rows, columns) in enumerate(ndimage.find_objects(labels)):
        bbox = (columns.start, rows.start, columns.stop, rows.stop)
        regions.append(Region(bbox, int(areas[i]), float(peaks[i]), float(means[i])))
    return tuple(sorted(regions, key=_order))


def _order(region: Region) -> tuple[float, int, int, int]:
    x0, y0, _, _ = region.bbox
    return (-region.peak, -region.area_px, y0, x0)


def marked_regions(
    score_map: np.ndarray, score: float, threshold: float | None
) -> tuple[Region, ...]:
    """Return the regions to show for a picture of this score; none without a threshold.

    A smoothed map can stay below the threshold on a picture whose score is above it. Its
    strongest region is returned then, so that a picture that is NG always shows one.

    Example:
        >>> score_map = np.array([[0.25, 0.0]])
        >>> [len(marked_regions(score_map, score, 0.5)) for score in (0.4, 0.6)]
        [0, 1]
    """
    if threshold is None:
        return ()
    regions = find_regions(score_map, threshold)
    if regions or score < threshold:
        return regions
    return find_regions(score_map, STRONGEST_SHARE * float(score_map.max()))


def verdict(score: float, threshold: float | None, review_band: float = 0.0) -> Verdict | None:
    """Return "NG" from the threshold on, "REVIEW" in the band below it, else "OK".

    Args:
        score: of the whole image; not NaN.
        threshold: None gives no verdict.
        review_band: width of the band below the threshold, at least 0.

    Example:
        >>> [verdict(score, 0.5, 0.1) for score in (0.39, 0.45, 0.5)]
        ['OK', 'REVIEW', 'NG']
    """
    if np.isnan(score):
        raise ValueError("the score is NaN, so there is no verdict.")
    if not review_band >= 0:
        raise ValueError(f"review_band should be at least 0, got {review_band}.")
    check_threshold(threshold)
    if threshold is None:
        return None
    if score >= threshold:
        return "NG"
    return "REVIEW" if score >= threshold - review_band else "OK"


def check_threshold(threshold: float | None) -> None:
    """Refuse a threshold outside 0..1; None is allowed.

    Raises:
        TypeError: not a number.
        ValueError: NaN, infinite, below 0 or above 1.
    """
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, Real):
        raise TypeError(
            "threshold should be a number from 0 to 1, or None, "
            f"got {threshold!r} of type {type(threshold).__name__}."
        )
    if not 0 <= threshold <= 1:  # NaN compares with nothing
        raise ValueError(
            f"threshold should be from 0 to 1, got {threshold}; scores lie in that range."
        )
