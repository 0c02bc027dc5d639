"""95 % intervals of the metrics over images, by the online Poisson bootstrap.

Each replicate takes every image Poisson(1) times: the limit of drawing with replacement, which
needs no total number. The draw is a hash of seed, image key and replicate, so it depends on no
portion, order or interruption, and images with one key are drawn together.

Pixels are counted in cells, the upper bits of float32; cells are joined two by two, everywhere
alike, when too many are in use, so the width follows from the scores alone. All sums are of
whole numbers below 2**53, and so exact in any order.

Replicates in which a metric is undefined are left out: a share of about exp(-k) where k images
are anomalous. An interval that excludes its value is not reported, nor one without a width
although the value is neither 0 nor 1: few images give such intervals.

Source: Oza and Russell, "Online Bagging and Boosting", AISTATS 2001; Chamandy et al.,
"Estimating Uncertainty for Massive Data Streams", Google 2012; plain percentile interval.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from faprompt.metrics.labelled_pixels import LabelledPixels, State
from faprompt.metrics.score_histogram import ordered_keys
from faprompt.metrics.tally import Tally, UndefinedMetricError

Metric = Callable[[Tally], float]
Key = str | int

FEWEST_REPLICATES = 40  # the outer 2.5 % of fewer are less than one replicate
_ENDS = (2.5, 97.5)  # percent
_ROUNDING = 1e-9  # fractions closer than this are equal: sums of other orders differ by less
_UNIT = 2.0**40  # region weights are counted in whole parts of 1 / 2**40
_AT_ONCE = 32  # images, and replicates
_ROWS = 1024  # cells in one product of matrices: its result stays in the processor's cache

# P(X <= k) of Poisson(1) in parts of 2**32; k above 11 is below one part.
_POISSON = np.array(
    [int(2**32 * sum(math.exp(-1) / math.factorial(j) for j in range(k + 1))) for k in range(12)],
    dtype=np.uint64,
)


def check_replicates(replicates: int) -> int:
    """Check the number of replicates; 0 turns intervals off."""
    if replicates and replicates < FEWEST_REPLICATES:
        raise ValueError(
            f"replicates should be 0 (no intervals) or at least {FEWEST_REPLICATES}, "
            f"got {replicates}."
        )
    return replicates


def image_ids(keys: Iterable[Key], *, seed: int, kind: str = "key") -> np.ndarray:
    """Return (N,) uint64, a hash of seed and key for each image."""
    digests = (
        hashlib.blake2b(f"{seed}\0{kind}\0{key}".encode(errors="surrogateescape"), digest_size=8)
        for key in keys
    )
    return np.frombuffer(b"".join(d.digest() for d in digests), dtype="<u8").astype(np.uint64)


def poisson_weights(ids: np.ndarray, replicates: range) -> np.ndarray:
    """Draw how often each replicate takes each image: (N, len(replicates)) whole float64.

    Example:
        >>> weights = poisson_weights(image_ids(range(1000), seed=0), range(200))
        >>> round(float(weights.mean()), 2), round(float(weights.var()), 2)
        (1.0, 1.0)
    """
    step = np.arange(replicates.start + 1, replicates.stop + 1, dtype=np.uint64)
    bits = ids[:, None] + step * np.uint64(0x9E3779B97F4A7C15)  # SplitMix64, seeded by the id
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return np.searchsorted(_POISSON, bits >> np.uint64(32), side="right").astype(np.float64)


def image_tallies(
    scores: np.ndarray, labels: np.ndarray, ids: np.ndarray, replicates: int
) -> Iterator[Tally]:
    """Yield the counts of scores (N,) with labels (N,) bool in each replicate."""
    values, places = np.unique(scores, return_inverse=True)
    for part in _parts(replicates):
        for weights in poisson_weights(ids, part).T:
            total = np.bincount(places, weights, minlength=len(values))
            hits = np.bincount(places[labels], weights[labels], minlength=len(values))
            yield _tally(values, total, hits, unit="images")


def replicate_values(
    tallies: Iterable[Tally], metrics: Mapping[str, Metric]
) -> dict[str, np.ndarray]:
    """Return metric name -> (replicates,) float64; NaN where a replicate leaves it undefined."""
    rows = [[_value(metric, tally) for metric in metrics.values()] for tally in tallies]
    columns = np.array(rows, dtype=np.float64).reshape(-1, len(metrics)).T
    return dict(zip(metrics, columns, strict=True))


def percentile_intervals(
    values: Mapping[str, np.ndarray], around: Mapping[str, float] | None = None
) -> dict[str, tuple[float, float]]:
    """Return the 2.5 % and 97.5 % points of the defined replicates of each metric.

    Args:
        values: metric name -> (replicates,), NaN where undefined.
        around: metric name -> the value of the metric on the images themselves. When given,
            metrics that it lacks have no interval, nor have those whose interval excludes the
            value, or has no width although the value is neither 0 nor 1.

    Returns:
        Metric name -> (low, high). Metrics with fewer than 20 defined replicates are absent.

    Example:
        >>> drawn = {"pixel_ap": np.linspace(0.5, 0.9, 201)}
        >>> percentile_intervals(drawn, {"pixel_ap": 0.95})
        {}
    """
    intervals = {}
    for name, drawn in values.items():
        known = drawn[~np.isnan(drawn)]
        if len(known) >= FEWEST_REPLICATES // 2:
            low, high = np.percentile(known, _ENDS)
            intervals[name] = (float(low), float(high))
    if around is None:
        return intervals
    return {
        name: ends
        for name, ends in intervals.items()
        if name in around and _is_sound(ends, around[name])
    }


def _is_sound(ends: tuple[float, float], value: float) -> bool:
    """Return whether an interval contains its value and has a width, or its value is 0 or 1."""
    low, high = ends
    wide = high - low > _ROUNDING or min(abs(value), abs(1 - value)) < _ROUNDING
    return wide and _contains(ends, value)


def _contains(ends: tuple[float, float], value: float) -> bool:
    return ends[0] - _ROUNDING <= value <= ends[1] + _ROUNDING


def paired_interval(
    first: np.ndarray, second: np.ndarray, *, difference: float | None = None
) -> tuple[float, float] | None:
    """Return the 95 % interval of `first` less `second`, drawn from the same images.

    A replicate that leaves either undefined is left out. Images that are hard for both do not
    widen the interval.

    Args:
        first: (replicates,) float64, as `second`.
        difference: the difference of the two values on the images themselves.

    Returns:
        (low, high); None where fewer than 20 replicates remain, or where the interval would
        exclude `difference`.

    Example:
        >>> drawn = np.linspace(0.5, 0.9, 200)
        >>> [round(end, 3) for end in paired_interval(drawn + 0.01, drawn)]
        [0.01, 0.01]
    """
    ends = percentile_intervals({"": first - second}).get("")
    if ends is None or difference is None or _contains(ends, difference):
        return ends
    return None


def mean_replicates(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over groups, replicate by replicate; NaN when there is no group.

    Groups that share images share their draws. A replicate in which one group has no value
    takes that group's next one, so that small groups do not cost the others theirs.

    Args:
        groups: (replicates,) each, of one metric; NaN where undefined.

    Example:
        >>> mean_replicates([np.array([0.5, np.nan, 0.75]), np.array([0.5, 0.25, 0.25])])
        array([0.5, 0.5, 0.5])
    """
    filled = [_filled(drawn) for drawn in groups if not np.isnan(drawn).all()]
    return np.mean(filled, axis=0) if filled else np.full(len(groups[0]) if groups else 0, np.nan)


@dataclass(frozen=True, slots=True)
class _Counts:
    """The pixels of one image, counted per cell."""

    shift: int
    cells: np.ndarray  # (K,) int64, rising
    pixels: np.ndarray  # (3, K) float64 whole numbers: all, anomalous, region weight * _UNIT
    regions: int
    id: np.uint64


class PixelReplicates:
    """Pixels counted per cell, once for each replicate.

    Args:
        replicates: number of replicates.
        most_cells: limit of the cells, 24 bytes each for every replicate (39 MB for 200).
    """

    def __init__(self, replicates: int, *, most_cells: int = 8192) -> None:
        self.replicates = replicates
        self.most_cells = most_cells
        self._shift = 0  # lower bits of a float32 that do not count
        self._cells = np.zeros(0, dtype=np.int64)  # in use, rising
        self._row = np.zeros(0, dtype=np.int64)  # of each cell, in `_sums`
        self._sums = [np.zeros((0, replicates)) for _ in range(3)]  # columns as in `_Counts`
        self._regions = np.zeros(replicates)
        self._waiting: list[_Counts] = []

    def add(self, images: Sequence[LabelledPixels], ids: np.ndarray) -> None:
        """Count more images with their ids (N,)."""
        for image, number in zip(images, ids, strict=True):
            self._waiting.append(self._count(image, number))
            if len(self._waiting) == _AT_ONCE:
                self._add_waiting()

    def merge(self, other: PixelReplicates) -> None:
        """Add the counts of another store; the result is that of counting all images here.

        Raises:
            ValueError: the numbers of replicates or of cells differ.
        """
        if (other.replicates, other.most_cells) != (self.replicates, self.most_cells):
            raise ValueError(
                f"{self.replicates} replicates in {self.most_cells} cells and {other.replicates} "
                f"in {other.most_cells} cannot be merged; give both stores the same numbers."
            )
        self._add_waiting()
        other._add_waiting()
        self._regions += other._regions
        if len(other._cells) == 0:
            self._coarsen(other._shift)
            return
        rows = self._admit(other._cells, other._shift)
        starts = np.flatnonzero(np.diff(rows, prepend=-1))  # joined cells lie side by side
        for sums, more in zip(self._sums, other._sums, strict=True):
            sums[rows[starts]] += np.add.reduceat(more[other._row], starts, axis=0)

    def tallies(self) -> Iterator[Tally]:
        """Yield the counts of each replicate; thresholds are numbers of cells."""
        self._add_waiting()
        for part in _parts(self.replicates):
            columns = [sums[self._row, part.start : part.stop].T.copy() for sums in self._sums]
            for number, total, hits, overlap in zip(part, *columns, strict=True):
                regions = float(self._regions[number])
                yield _tally(
                    self._cells, total, hits, overlap=overlap / _UNIT, regions=regions,
                    unit="pixels",
                )  # fmt: skip

    def state(self) -> dict[str, np.ndarray]:
        """Return all counts as plain arrays."""
        self._add_waiting()
        return {
            "shift": np.array(self._shift),
            "cells": self._cells,
            "sums": np.stack([sums[self._row] for sums in self._sums]),
            "regions": self._regions,
        }

    @classmethod
    def from_state(cls, state: State) -> PixelReplicates:
        """Rebuild the store from `state()`."""
        store = cls(len(state["regions"]))
        store._shift, store._cells = int(state["shift"]), state["cells"].copy()
        store._row = np.arange(len(store._cells))
        store._sums = [sums.copy() for sums in state["sums"]]
        store._regions = state["regions"].copy()
        return store

    def _count(self, image: LabelledPixels, number: np.uint64) -> _Counts:
        with np.errstate(over="ignore"):  # beyond float32 all is one cell
            keys = ordered_keys(image.scores.astype(np.float32, copy=False))
        keys, shift = keys >> self._shift, self._shift
        cells, total = _count_values(keys)
        while len(cells) > self.most_cells:
            shift, keys, cells = shift + 1, keys >> 1, cells >> 1
            starts = np.flatnonzero(np.diff(cells, prepend=cells[0] - 1))
            cells, total = cells[starts], np.add.reduceat(total, starts)
        self._coarsen(shift)
        at = np.searchsorted(cells, keys[image.anomalous])
        hits = np.bincount(at, minlength=len(cells))
        overlap = np.bincount(at, np.rint(image.weights * _UNIT), minlength=len(cells))
        return _Counts(shift, cells, np.stack([total, hits, overlap]), image.regions, number)

    def _add_waiting(self) -> None:
        """Weigh the waiting images and add them to all replicates."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        weights = poisson_weights(np.array([item.id for item in waiting]), range(self.replicates))
        self._regions += np.array([item.regions for item in waiting]) @ weights
        shift = max(item.shift for item in waiting)
        every = [item.cells >> (shift - item.shift) for item in waiting]
        known = np.unique(np.concatenate(every))
        rows = self._admit(known, shift)
        counts = np.zeros((3, len(waiting), len(self._cells)))
        for number, (item, cells) in enumerate(zip(waiting, every, strict=True)):
            at = rows[np.searchsorted(known, cells)]
            for column, pixels in zip(counts, item.pixels, strict=True):
                column[number] = np.bincount(at, pixels, minlength=len(self._cells))
        for sums, column in zip(self._sums, counts, strict=True):
            filled = np.flatnonzero(column.any(axis=0))
            for start in range(0, len(filled), _ROWS):
                part = filled[start : start + _ROWS]
                sums[part] += column[:, part].T @ weights

    def _admit(self, cells: np.ndarray, shift: int) -> np.ndarray:
        """Make room for rising cells at a shift; return the row of each of them."""
        self._coarsen(shift)
        cells = cells >> (self._shift - shift)
        union = np.union1d(self._cells, cells)
        steps = 0
        while len(union) > self.most_cells:
            union, steps = np.unique(union >> 1), steps + 1
        self._coarsen(self._shift + steps)
        cells = cells >> steps
        rows = np.full(len(union), -1)
        rows[np.searchsorted(union, self._cells)] = self._row
        fresh = rows < 0
        rows[fresh] = len(self._cells) + np.arange(fresh.sum())
        self._cells, self._row = union, rows
        self._grow(len(union))
        return rows[np.searchsorted(union, cells)]

    def _grow(self, rows: int) -> None:
        if rows > len(self._sums[0]):
            room = min(max(rows, 2 * len(self._sums[0])), self.most_cells)
            for index, sums in enumerate(self._sums):
                self._sums[index] = np.zeros((room, self.replicates))
                self._sums[index][: len(sums)] = sums

    def _coarsen(self, shift: int) -> None:
        """Join cells until `shift` lower bits do not count."""
        if shift <= self._shift:
            return
        cells = self._cells >> (shift - self._shift)
        self._shift = shift
        if len(cells) == 0:
            return
        starts = np.flatnonzero(np.diff(cells, prepend=cells[0] - 1))
        for index, sums in enumerate(self._sums):
            self._sums[index] = np.add.reduceat(sums[self._row], starts, axis=0)
        self._cells, self._row = cells[starts], np.arange(len(starts))


def _count_values(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct int32 values, rising and as int64, and the count of each."""
    low = int(values.min())
    span = int(values.max()) - low + 1
    if span > 8 * len(values):
        distinct, counts = np.unique(values, return_counts=True)
        return distinct.astype(np.int64), counts
    counts = np.bincount(values - np.int64(low))
    filled = np.flatnonzero(counts)
    return filled + low, counts[filled]


def _tally(
    values: np.ndarray, total: np.ndarray, hits: np.ndarray, *, unit: str,
    overlap: np.ndarray | None = None, regions: float = 0.0,
) -> Tally:  # fmt: skip
    """Make a tally of the values that were drawn at all, from rising values."""
    drawn = np.flatnonzero(total > 0)[::-1]
    shares = None if overlap is None else overlap[drawn]
    normal = total[drawn] - hits[drawn]
    return Tally(values[drawn], normal, hits[drawn], shares, regions, unit=unit)


def _value(metric: Metric, tally: Tally) -> float:
    try:
        return metric(tally)
    except UndefinedMetricError:
        return math.nan


def _filled(drawn: np.ndarray) -> np.ndarray:
    """Replace each NaN by the next number, cyclically."""
    known = np.flatnonzero(~np.isnan(drawn))
    return drawn[known[np.searchsorted(known, np.arange(len(drawn))) % len(known)]]


def _parts(replicates: int) -> Iterator[range]:
    for start in range(0, replicates, _AT_ONCE):
        yield range(start, min(start + _AT_ONCE, replicates))
