"""A histogram over all of float32 with fine bins where the pixels are.

The bits of a float32 are read as a whole number that rises with the float: the upper 16 name
one of 65,536 *cells*, the lower 16 a place in it. Each cell is cut into 1 to 65,536 equal bins.
A fixed number of bins is distributed by what the cells weigh in the metrics, and again when
the weights move. So crowded scores are counted exactly, an outlier squeezes nothing, and memory
does not depend on the number of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from faprompt.metrics.labelled_pixels import (
    ExactPixels,
    LabelledPixels,
    State,
    with_prefix,
    without_prefix,
)
from faprompt.metrics.tally import Tally

_CELL_BITS = 16
_PLACE_BITS = 16
_CELLS = 1 << _CELL_BITS
_HALF = _CELLS // 2  # keys are signed; this moves the lowest cell to 0
_PLACE_MASK = (1 << _PLACE_BITS) - 1
_NEARBY = 257  # cells
_GROWTH = 4.0  # a cell has outgrown its bins when its share has grown by this factor
_ALONE = 2.0**-13  # bins are distributed again when one outgrown cell holds a larger share,
_TOGETHER = 2.0**-10  # or all of them together do

# Of each filled bin: cell, place in the cell, pixels, anomalous pixels, region weight.
Filled = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def ordered_keys(scores: np.ndarray) -> np.ndarray:
    """Return (N,) int32 that rise as the finite float32 scores do; it is its own inverse on bits.

    Example:
        >>> keys = ordered_keys(np.array([-2.0, -1.0, 0.0, 1e-40, 3.0], dtype=np.float32))
        >>> bool((np.diff(keys.astype(np.int64)) > 0).all())
        True
    """
    bits = scores.view(np.int32)
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


class ScoreHistogram:
    """Counts of normal and anomalous pixels, and region weights, per bin of float32.

    Args:
        capacity: largest number of bins, 24 bytes each; at least 131,072.
    """

    def __init__(self, *, capacity: int = 1 << 21) -> None:
        if capacity < 2 * _CELLS:
            raise ValueError(f"capacity should be at least {2 * _CELLS} bins, got {capacity}.")
        self.capacity = capacity
        self.regions = 0
        self._cell_total = np.zeros(_CELLS, dtype=np.int64)
        self._cell_anomalous = np.zeros(_CELLS, dtype=np.int64)
        self._known_place = np.zeros(_CELLS, dtype=np.int64)  # of an early pixel in each cell
        self._shared = np.zeros(_CELLS)  # each cell's share when the bins were distributed
        self._set_layout(np.full(_CELLS, _PLACE_BITS, dtype=np.int32))

    def add(self, images: Sequence[LabelledPixels]) -> None:
        """Count more images; their scores are float32."""
        keys = [ordered_keys(image.scores) for image in images]
        cells = [(key >> _PLACE_BITS) + _HALF for key in keys]
        places = [key & _PLACE_MASK for key in keys]
        for image, cell, place in zip(images, cells, places, strict=True):
            self._count_cells(cell, place, image.anomalous)
        self._distribute_if_needed()
        for image, cell, place in zip(images, cells, places, strict=True):
            bins = self._bins(cell, place)
            np.add.at(self._total, bins, 1)
            bins = bins[image.anomalous]
            np.add.at(self._anomalous, bins, 1)
            np.add.at(self._overlap, bins, image.weights)
            self.regions += image.regions

    def merge(self, other: ScoreHistogram) -> None:
        """Add the counts of another histogram, which stays as it is.

        A filled bin of `other` is counted at the one place that represents its pixels. Bins of
        two layouts lie inside one another, so a pixel never leaves the wider of its two bins.

        Raises:
            ValueError: the capacities differ.
        """
        if other.capacity != self.capacity:
            raise ValueError(
                f"histograms of {self.capacity} and {other.capacity} bins cannot be merged; "
                "give both one capacity."
            )
        new = self._cell_total == 0
        self._known_place[new] = other._known_place[new]
        self._cell_total += other._cell_total
        self._cell_anomalous += other._cell_anomalous
        self.regions += other.regions
        self._distribute_if_needed()
        self._put(other._filled())

    def tally(self) -> Tally:
        """Return the counts per filled bin; a bin's threshold is its lowest float32."""
        cells, places, total, anomalous, overlap = self._filled()
        lows = (places >> self._shift[cells]) << self._shift[cells]
        keys = (((cells - _HALF) << _PLACE_BITS) | lows).astype(np.int32)
        thresholds = ordered_keys(keys).view(np.float32)
        normal = (total - anomalous)[::-1]
        return Tally(
            thresholds[::-1], normal, anomalous[::-1], overlap[::-1], self.regions, unit="pixels"
        )

    def state(self) -> dict[str, np.ndarray]:
        """Return all counts as plain arrays; bins that are absent are zero."""
        bins = np.flatnonzero(self._total)
        return {
            "capacity": np.array(self.capacity),
            "regions": np.array(self.regions),
            "cells": np.stack([self._cell_total, self._cell_anomalous, self._known_place]),
            "shared": self._shared,
            "shift": self._shift,
            "bins": bins,
            "counts": np.stack([self._total[bins], self._anomalous[bins]]),
            "overlap": self._overlap[bins],
        }

    @classmethod
    def from_state(cls, state: State) -> ScoreHistogram:
        """Rebuild the histogram from `state()`; it continues bit by bit."""
        store = cls(capacity=int(state["capacity"]))
        store.regions = int(state["regions"])
        store._cell_total, store._cell_anomalous, store._known_place = (
            row.copy() for row in state["cells"]
        )
        store._shared = state["shared"].copy()
        store._set_layout(state["shift"].copy())
        store._total[state["bins"]], store._anomalous[state["bins"]] = state["counts"]
        store._overlap[state["bins"]] = state["overlap"]
        return store

    def _count_cells(self, cells: np.ndarray, places: np.ndarray, anomalous: np.ndarray) -> None:
        total = np.bincount(cells, minlength=_CELLS)
        new = (total > 0) & (self._cell_total == 0)
        if new.any():
            at = np.flatnonzero(new[cells])
            self._known_place[cells[at]] = places[at]
        self._cell_total += total
        self._cell_anomalous += np.bincount(cells[anomalous], minlength=_CELLS)

    # Which cell gets how many bins

    def _shares(self) -> np.ndarray:
        """(65536,) share of the normal pixels plus share of the anomalous ones, per cell.

        The first bounds the error of AUROC and AUPRO, the second that of recall.
        """
        normal = self._cell_total - self._cell_anomalous
        anomalous = self._cell_anomalous
        return normal / max(normal.sum(), 1) + anomalous / max(anomalous.sum(), 1)

    def _weights(self) -> np.ndarray:
        """(65536,) how finely each cell should be cut, up to a common factor.

        Besides its shares a cell weighs by how much it multiplies the pixels called
        anomalous: precision is sensitive near the top, where few are called anomalous. A
        part goes to cells within an octave, where later images are likely to fall.
        """
        called = np.append(0, np.cumsum(self._cell_total[::-1]))
        few = max(self._cell_anomalous.sum() / 1024, called[-1] / 1024**2, 1)
        gain = np.diff(np.log(called + few))[::-1]
        weights = self._shares() + gain / max(gain.sum(), 1)
        return weights + ndimage.uniform_filter1d(weights, _NEARBY) / 8

    def _distribute_if_needed(self) -> None:
        shares = self._shares()
        outgrown = (shares > _GROWTH * self._shared) & (self._shift > 0)
        coarse = np.where(outgrown, shares, 0.0)
        if coarse.max() > _ALONE or coarse.sum() > _TOGETHER:
            self._distribute(self._filled())

    def _distribute(self, filled: Filled) -> None:
        """Distribute the bins by weight and put the filled ones back."""
        weights = self._weights()
        steps = np.full(_CELLS, -np.inf)
        np.log2(weights, out=steps, where=weights > 0)
        boost = _PLACE_BITS + np.log2(self.capacity)
        while True:  # the largest power of two that stays within the capacity
            bits = np.clip(np.floor(steps + boost), 0, _PLACE_BITS)
            if np.exp2(bits).sum() <= self.capacity:
                break
            boost -= 1
        self._shared = self._shares()
        self._set_layout((_PLACE_BITS - bits).astype(np.int32))
        self._put(filled)

    # Where a pixel is counted

    def _set_layout(self, shift: np.ndarray) -> None:
        """Empty bins, 2 ** (16 - shift) for each cell, side by side in rising order."""
        sizes = np.int64(1) << (_PLACE_BITS - shift.astype(np.int64))
        self._shift = shift
        self._start = np.cumsum(sizes) - sizes
        bins = int(sizes.sum())
        self._total = np.zeros(bins, dtype=np.int64)
        self._anomalous = np.zeros(bins, dtype=np.int64)
        self._overlap = np.zeros(bins)

    def _bins(self, cells: np.ndarray, places: np.ndarray) -> np.ndarray:
        # "clip" only spares numpy a check: a cell is always within the table.
        shift = np.take(self._shift, cells, mode="clip")
        return np.take(self._start, cells, mode="clip") + (places >> shift)

    def _filled(self) -> Filled:
        """All filled bins, each with one place that represents its pixels.

        That is the place of an early pixel of the cell if it lies in the bin, else the
        middle. So a score that many pixels share stays one score when bins are cut finer.
        """
        bins = np.flatnonzero(self._total)
        cells = np.repeat(np.arange(_CELLS), np.int64(1) << (_PLACE_BITS - self._shift))[bins]
        shift = self._shift[cells].astype(np.int64)
        number = bins - self._start[cells]
        known = self._known_place[cells]
        middle = (number << shift) + ((1 << shift) >> 1)
        places = np.where(known >> shift == number, known, middle)
        return cells, places, self._total[bins], self._anomalous[bins], self._overlap[bins]

    def _put(self, filled: Filled) -> None:
        cells, places, *counts = filled
        bins = self._bins(cells, places)
        columns = (self._total, self._anomalous, self._overlap)
        for column, count in zip(columns, counts, strict=True):
            np.add.at(column, bins, count)


class BinnedPixels:
    """Store that is exact while small, then a `ScoreHistogram`; memory is bounded.

    Args:
        keep: pixels kept before the first layout of the bins is chosen, so that small sets
            are exact and large ones start from several images.
    """

    def __init__(self, *, keep: int = 1 << 20) -> None:
        self.keep = keep
        self._small: ExactPixels | None = ExactPixels()
        self._held = 0
        self._large = ScoreHistogram()

    def add(self, images: Sequence[LabelledPixels]) -> None:
        """Add more images; their scores are float32."""
        if self._small is None:
            self._large.add(images)
            return
        self._small.add(images)
        self._held += sum(len(image.scores) for image in images)
        if self._held > self.keep:
            self._enlarge()

    def merge(self, other: BinnedPixels) -> None:
        """Add what another store counted, which stays as it is; small stores stay exact.

        Raises:
            ValueError: the stores keep different numbers of pixels.
        """
        if other.keep != self.keep:
            raise ValueError(
                f"stores that keep {self.keep} and {other.keep} pixels cannot be merged; "
                "give both one number."
            )
        if other._small is not None:
            self.add(other._small.images)
        elif self._small is None:
            self._large.merge(other._large)
        else:  # exact pixels are best put into bins that are there already
            self._large = ScoreHistogram.from_state(other._large.state())
            self._enlarge()

    def tally(self) -> Tally:
        """Count per distinct score, or per filled bin once the set is large."""
        return self._large.tally() if self._small is None else self._small.tally()

    def state(self) -> dict[str, np.ndarray]:
        """Return all that was counted, as plain arrays."""
        if self._small is None:
            return {"keep": np.array(self.keep), **with_prefix("large/", self._large.state())}
        return {"keep": np.array(self.keep), **with_prefix("small/", self._small.state())}

    @classmethod
    def from_state(cls, state: State) -> BinnedPixels:
        """Rebuild the store from `state()`."""
        store = cls(keep=int(state["keep"]))
        if large := without_prefix("large/", state):
            store._small, store._large = None, ScoreHistogram.from_state(large)
        else:
            store._small = ExactPixels.from_state(without_prefix("small/", state))
            store._held = sum(len(image.scores) for image in store._small.images)
        return store

    def _enlarge(self) -> None:
        assert self._small is not None
        self._large.add(self._small.images)
        self._small = None
