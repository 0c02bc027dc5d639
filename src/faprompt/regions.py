"""From a score map to marked areas, and from a score to a word."""

from __future__ import annotations

from numbers import Real

import numpy as np
from scipy import ndimage

from faprompt.records import Region, Verdict

STRONGEST_SHARE = 0.8  # of the map's peak, where a picture is NG and its map stays below

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


def find_regions(
    score_map: np.ndarray, threshold: float, *, min_area_px: int = 1
) -> tuple[Region, ...]:
    """Connected areas at or above a threshold; corners touch too (8-connected).

    Args:
        score_map: (height, width) float in [0, 1].
        threshold: a pixel belongs to a region when its score is at least this.
        min_area_px: smaller regions are left out.

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
    regions = [
        Region(_bbox(window), int(areas[i]), float(peaks[i]), float(means[i]))
        for i, window in enumerate(ndimage.find_objects(labels))
        if areas[i] >= min_area_px
    ]
    return tuple(sorted(regions, key=_order))


def marked_regions(
    score_map: np.ndarray, score: float, threshold: float | None
) -> tuple[Region, ...]:
    """Areas to show for a picture of this score: at or above the threshold; none without one.

    Score and map share a range but not a scale: a smoothed map can stay below the threshold
    on a picture whose score is above it. Its strongest area is shown then, so that no
    picture is NG for nothing to be seen.

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
    """A word for a score: "NG" from the threshold on, "REVIEW" in the band below it, else "OK".

    Args:
        score: of the whole image; not NaN.
        threshold: None while no threshold is known, and then there is no verdict.
        review_band: width of the band below the threshold, at least 0.

    Example:
        >>> [verdict(score, 0.5, 0.1) for score in (0.39, 0.45, 0.5)]
        ['OK', 'REVIEW', 'NG']
    """
    if np.isnan(score):
        raise ValueError("the score is NaN; no verdict can be drawn from it.")
    if not review_band >= 0:
        raise ValueError(f"review_band should be at least 0, got {review_band}.")
    check_threshold(threshold)
    if threshold is None:
        return None
    if score >= threshold:
        return "NG"
    return "REVIEW" if score >= threshold - review_band else "OK"


def check_threshold(threshold: float | None) -> None:
    """Refuse a threshold that no score can be compared with; None is allowed.

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


def _bbox(window: tuple[slice, slice]) -> tuple[int, int, int, int]:
    rows, columns = window
    return (columns.start, rows.start, columns.stop, rows.stop)


def _order(region: Region) -> tuple[float, int, int, int]:
    x0, y0, _, _ = region.bbox
    return (-region.peak, -region.area_px, y0, x0)
