"""Regions of a score map above a threshold, and the verdict of a score."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real

import numpy as np

from faprompt.records import Region, Verdict

STRONGEST_SHARE = 0.8  # of the map's peak, on a picture that is NG although its map stays below
BAND_PIXELS = 2**22  # worked on at once, so that a large map takes little memory besides itself


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
    runs = _find_runs(score_map, threshold)
    return tuple(sorted(_measure(runs, score_map, threshold), key=_order))


def _find_runs(score_map: np.ndarray, threshold: float) -> np.ndarray:
    """Return row, first and last column + 1 of each run of marked pixels: (3, N), row by row."""
    found = [np.zeros((3, 0), np.int64)]
    for top, band in _bands(score_map):
        marked = np.zeros((len(band), band.shape[1] + 2), np.int8)
        np.greater_equal(band, threshold, out=marked[:, 1:-1], casting="unsafe")
        steps = np.diff(marked, axis=1)
        rows, starts = np.nonzero(steps > 0)
        found.append(np.stack([rows + top, starts, np.nonzero(steps < 0)[1]]))
    return np.concatenate(found, axis=1)


def _bands(score_map: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row of each band, and its pixels."""
    step = max(1, BAND_PIXELS // max(1, score_map.shape[1]))
    return ((top, score_map[top : top + step]) for top in range(0, len(score_map), step))


def _touching(runs: np.ndarray, width: int) -> np.ndarray:
    """Return the pairs (2, M) of indices of runs that touch, one in the row below the other."""
    rows, starts, stops = runs
    row = rows * (width + 2)  # so that no run touches one of another row
    first = np.searchsorted(row + stops, row + width + 2 + starts, side="left")
    last = np.searchsorted(row + starts, row + width + 2 + stops, side="right")
    counts = last - first
    above = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(above)) - np.repeat(counts.cumsum() - counts, counts)
    return np.stack([above, first[above] + within])


def _join(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return for each of `count` runs the first run of its region, (count,)."""
    owners = np.arange(count)
    while pairs.shape[1]:
        ends = owners[pairs]
        np.minimum.at(owners, ends.max(axis=0), ends.min(axis=0))
        while (owners != owners[owners]).any():
            owners = owners[owners]
        pairs = pairs[:, owners[pairs[0]] != owners[pairs[1]]]
    return owners


def _measure(runs: np.ndarray, score_map: np.ndarray, threshold: float) -> Iterator[Region]:
    """Yield the regions in the order of their first pixels; pixels are added row by row."""
    rows, starts, stops = runs
    firsts, owners = np.unique(
        _join(len(rows), _touching(runs, score_map.shape[1])), return_inverse=True
    )
    left, top = starts[firsts], rows[firsts]
    right, bottom = stops[firsts], top + 1
    np.minimum.at(left, owners, starts)
    np.maximum.at(right, owners, stops)
    np.maximum.at(bottom, owners, rows + 1)
    areas, sums, peaks = (np.zeros(len(firsts), kind) for kind in (np.int64, float, float))
    np.add.at(areas, owners, stops - starts)
    for start, band in _bands(score_map):
        own = slice(*np.searchsorted(rows, (start, start + len(band))))
        owner = np.repeat(owners[own], stops[own] - starts[own])
        values = band[band >= threshold].astype(np.float64)
        np.add.at(sums, owner, values)
        np.maximum.at(peaks, owner, values)
    columns = (left, top, right, bottom, areas, peaks, sums / areas)
    for x0, y0, x1, y1, *rest in zip(*(column.tolist() for column in columns), strict=True):
        yield Region((x0, y0, x1, y1), *rest)


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
