"""Pixels with their ground truth: regions of a mask, and a store that keeps every pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from faprompt.metrics.checked_inputs import FloatType, as_float
from faprompt.metrics.tally import Tally

State = Mapping[str, np.ndarray]  # one flat dict of arrays that any file format can hold
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, slots=True)
class MaskRegions:
    """The anomalous pixels of one mask, each with the region it belongs to."""

    pixels: np.ndarray  # (M,) positions in the flattened mask, rising
    region: np.ndarray  # (M,) number of the region of each pixel, from 0
    sizes: np.ndarray  # (R,) pixels in each region

    @property
    def weights(self) -> np.ndarray:
        """(M,) float64, 1 / size of the pixel's region; each region sums to one."""
        return (1.0 / self.sizes)[self.region]


def mask_regions(mask: np.ndarray) -> MaskRegions:
    """Find the 8-connected regions of a mask (H, W) of 0 and 1; corners connect.

    Example:
        >>> mask = np.array([[1, 0, 0, 0], [0, 1, 0, 1]], dtype=bool)
        >>> mask_regions(mask).sizes
        array([2, 1])
    """
    pixels = np.flatnonzero(mask)
    if len(pixels) == 0:
        return MaskRegions(pixels, pixels, np.zeros(0, dtype=np.int64))
    rows, columns = np.divmod(pixels, mask.shape[1])
    # Only the box around the anomaly is searched: most masks are nearly empty.
    box = (slice(rows[0], rows[-1] + 1), slice(columns.min(), columns.max() + 1))
    inside = mask[box].astype(bool)
    numbered, _ = ndimage.label(inside, structure=_EIGHT_NEIGHBOURS)
    region = numbered[inside].astype(np.int64) - 1
    return MaskRegions(pixels, region, np.bincount(region))


@dataclass(frozen=True, slots=True)
class LabelledPixels:
    """One image, flattened: all scores, and which of them are anomalous."""

    scores: np.ndarray  # (N,) float
    anomalous: np.ndarray  # (M,) positions in `scores`
    weights: np.ndarray  # (M,) 1 / size of the region of each anomalous pixel
    regions: int

    @classmethod
    def of(
        cls, score_map: np.ndarray, mask: np.ndarray, *, dtype: FloatType = None
    ) -> LabelledPixels:
        """Copy a checked map with its mask, (H, W) each."""
        found = mask_regions(mask)
        scores = as_float(score_map, dtype).ravel()
        # Adding zero copies, and turns -0.0 into 0.0: the two are one score.
        return cls(scores + scores.dtype.type(0), found.pixels, found.weights, len(found.sizes))


class ExactPixels:
    """Store of all pixels: 4 or 8 bytes a pixel, and ten times that to count them."""

    def __init__(self) -> None:
        self.images: list[LabelledPixels] = []

    def add(self, images: Sequence[LabelledPixels]) -> None:
        """Add more images."""
        self.images.extend(images)

    def merge(self, other: ExactPixels) -> None:
        """Add the images of another store after those of this one."""
        self.images.extend(other.images)

    def tally(self) -> Tally:
        """Count all images per distinct score."""
        if not self.images:
            nothing = np.zeros(0)
            return Tally(nothing, nothing, nothing, nothing, unit="pixels")
        scores = np.concatenate([image.scores for image in self.images])
        weights = np.concatenate([image.weights for image in self.images])
        starts = np.cumsum([0] + [len(image.scores) for image in self.images])
        anomalous = np.concatenate(
            [image.anomalous + start for image, start in zip(self.images, starts[:-1], strict=True)]
        )
        values, total = np.unique(scores, return_counts=True)
        places = np.searchsorted(values, scores[anomalous])
        hits = np.bincount(places, minlength=len(values))
        overlap = np.bincount(places, weights=weights, minlength=len(values))
        regions = sum(image.regions for image in self.images)
        return Tally(
            values[::-1], (total - hits)[::-1], hits[::-1], overlap[::-1], regions, unit="pixels"
        )

    def state(self) -> dict[str, np.ndarray]:
        """Return all that was kept, as plain arrays."""
        images = self.images
        sizes = [(len(i.scores), len(i.anomalous), i.regions) for i in images]
        return {
            "scores": np.concatenate([i.scores for i in images] or [np.zeros(0)]),
            "wide": np.array([i.scores.dtype == np.float64 for i in images], dtype=bool),
            "anomalous": np.concatenate([np.zeros(0, np.int64), *(i.anomalous for i in images)]),
            "weights": np.concatenate([np.zeros(0), *(i.weights for i in images)]),
            "sizes": np.array(sizes, dtype=np.int64).reshape(-1, 3),
        }

    @classmethod
    def from_state(cls, state: State) -> ExactPixels:
        """Rebuild the store from `state()`."""
        store = cls()
        ends = np.cumsum(state["sizes"], axis=0)[:-1]
        parts = zip(
            np.split(state["scores"], ends[:, 0]),
            np.split(state["anomalous"], ends[:, 1]),
            np.split(state["weights"], ends[:, 1]),
            state["sizes"][:, 2].tolist(),
            state["wide"],
            strict=False,  # without any image `split` still gives one empty part
        )
        for scores, anomalous, weights, regions, wide in parts:
            dtype = np.float64 if wide else np.float32
            store.images.append(LabelledPixels(scores.astype(dtype), anomalous, weights, regions))
        return store


def with_prefix(prefix: str, state: State) -> dict[str, np.ndarray]:
    """Put a prefix before the names of arrays."""
    return {prefix + name: array for name, array in state.items()}


def without_prefix(prefix: str, state: State) -> dict[str, np.ndarray]:
    """Return the arrays whose names have a prefix, without it.

    Example:
        >>> without_prefix("a/", with_prefix("a/", {"b": np.zeros(1)}))
        {'b': array([0.])}
    """
    return {
        name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)
    }
