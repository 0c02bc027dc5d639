"""Labelled pixels, and the road that keeps every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from faprompt.metrics.components import find_regions
from faprompt.metrics.inputs import FloatType, as_float
from faprompt.metrics.tally import Tally


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
        """A checked map with its mask, (H, W) each. Keeps no hold on either."""
        found = find_regions(mask)
        scores = as_float(score_map, dtype).ravel()
        # Adding zero copies, and turns -0.0 into 0.0: the two are one score.
        return cls(scores + scores.dtype.type(0), found.pixels, found.weights, len(found.sizes))


class ExactPixels:
    """Keeps all pixels: exact, and hungry (4 or 8 bytes a pixel, and ten times that to count)."""

    def __init__(self) -> None:
        self.images: list[LabelledPixels] = []

    def add(self, images: Sequence[LabelledPixels]) -> None:
        """Take more images in."""
        self.images.extend(images)

    def merge(self, other: ExactPixels) -> None:
        """Take in all that `other` has seen; `other` stays as it is."""
        self.images.extend(list(other.images))

    def tally(self) -> Tally:
        """Counts per distinct score over all images."""
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
        """All that was kept, as plain arrays."""
        images = self.images
        scores = [image.scores for image in images] or [np.zeros(0)]
        return {
            "scores": np.concatenate(scores),
            "wide": np.array([image.scores.dtype == np.float64 for image in images], dtype=bool),
            "anomalous": np.concatenate([np.zeros(0, np.int64), *(i.anomalous for i in images)]),
            "weights": np.concatenate([np.zeros(0), *(i.weights for i in images)]),
            "sizes": np.array(
                [(len(i.scores), len(i.anomalous), i.regions) for i in images], dtype=np.int64
            ).reshape(-1, 3),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> ExactPixels:
        """The store that `state()` was taken from."""
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
