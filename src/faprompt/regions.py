"""Regions of a score map above a threshold, and the verdict of a score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from numbers import Real
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from faprompt.records import Region, Verdict

STRONGEST_SHARE = 0.8  # of the map's peak, on a picture that is NG although its map stays below
BAND_PIXELS = 2**22  # labelled at once, so that a large map takes little memory besides itself

_Band: TypeAlias = tuple[slice, np.ndarray, int]  # rows, labels of their pixels, number of labels
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
    bands: Iterable[_Band] = _label_bands(score_map, threshold)
    if score_map.size <= BAND_PIXELS:
        bands = list(bands)  # one band, labelled once
    owners = _join_bands(bands)
    if not len(owners):
        return ()
    if score_map.size > BAND_PIXELS:
        bands = _label_bands(score_map, threshold)
    return tuple(sorted(_measure(bands, owners, score_map), key=_order))


def _label_bands(score_map: np.ndarray, threshold: float) -> Iterator[_Band]:
    """Yield the rows of each band, its pixels' labels from 1 on, 0 for none, and their number."""
    step = max(1, BAND_PIXELS // max(1, score_map.shape[1]))
    for top in range(0, len(score_map), step):
        rows = slice(top, min(top + step, len(score_map)))
        marked = score_map[rows] >= threshold
        labels = (marked, 0)  # nothing to label
        if marked.any():
            labels = ndimage.label(marked, structure=_EIGHT_NEIGHBOURS)
        yield rows, *labels


def _join_bands(bands: Iterable[_Band]) -> np.ndarray:
    """Return the region of each label, of all bands one after the other.

    Regions are numbered by their first pixels, row by row.
    """
    links, above, total = [], None, 0
    for _, labels, count in bands:
        if above is not None:
            links.append(_touching(above, _number_on(labels[0], total)))
        above = _number_on(labels[-1], total)
        total += count
    if not links:
        return np.arange(total)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(pairs.shape[1], bool), tuple(pairs)), shape=(total, total))
    owners: np.ndarray = connected_components(graph, directed=False)[1]
    return owners


def _number_on(labels: np.ndarray, total: int) -> np.ndarray:
    """Return labels of one row as indices over all bands, -1 for none."""
    return np.where(labels > 0, labels + (total - 1), -1)


def _touching(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the pairs (2, N) of indices whose pixels touch across two neighbouring rows."""
    sides = ((above, below), (above[1:], below[:-1]), (above[:-1], below[1:]))
    pairs = np.concatenate([np.stack(side) for side in sides], axis=1)
    return np.unique(pairs[:, (pairs >= 0).all(axis=0)], axis=1)


def _measure(bands: Iterable[_Band], owners: np.ndarray, score_map: np.ndarray) -> Iterator[Region]:
    """Yield the regions in the order of their numbers; their pixels are added row by row."""
    count, first = int(owners.max()) + 1, 0
    areas, sums, peaks = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    starts, stops = np.full((count, 2), max(score_map.shape)), np.zeros((count, 2), np.int64)
    for rows, labels, found in bands:
        if not found:
            continue
        here = owners[first : first + found]
        first += found
        marked = labels > 0
        owner, values = here[labels[marked] - 1], score_map[rows][marked].astype(np.float64)
        areas += np.bincount(owner, minlength=count)
        np.add.at(sums, owner, values)
        np.maximum.at(peaks, owner, values)
        boxes = [[(part.start, part.stop) for part in box] for box in ndimage.find_objects(labels)]
        edges = np.array(boxes) + np.array([[rows.start], [0]])  # (found, rows and columns, 2)
        np.minimum.at(starts, here, edges[..., 0])
        np.maximum.at(stops, here, edges[..., 1])
    columns = (starts, stops, areas, peaks, sums / areas)
    for (y0, x0), (y1, x1), *rest in zip(*(c.tolist() for c in columns), strict=True):
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
