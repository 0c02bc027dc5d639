"""How far apart the prompts' maps of a picture lie; pure functions on arrays.

    distance        root mean square difference of two prompts' maps of one picture, mean over
                    all pairs; 0..1, as scores are
    dissimilarity   1 - Pearson correlation over the patches, likewise; 0..2. A prompt that only
                    scores everything higher has a distance and no dissimilarity.
    effective       how many prompts of wholly different maps would be as diverse as these, per
                    picture; 1 (all alike) to K (all unlike). Two groups of equals count as 2.
    silhouette      of each map among those of the other pictures, with the prompt as the
                    cluster; -1..1. Near 1 each prompt's maps keep together whatever the
                    picture; about 0 the pictures tell the maps apart and the prompts do not,
                    or some prompts are as good as equal.
    contrast        standard deviation of a map over its patches, mean over the prompts; 0..0.5.
                    No spread itself: distances grow with it, the other measures do not, so
                    distances of two models compare where their maps have like contrast.

A picture's own other maps, which lie nearest of all where prompts agree, would pull a plain
silhouette below 0, and a bootstrap's copies farther; they are no neighbours here.

Source: Rousseeuw, "Silhouettes", 1987; Leinster and Cobbold, "Measuring diversity: the
importance of species similarity", 2012, of order 2. The choice of measures is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Literal

import numpy as np

Measure = Literal["distance", "dissimilarity", "effective", "silhouette", "contrast"]
MEASURES: tuple[Measure, ...] = (
    "distance", "dissimilarity", "effective", "silhouette", "contrast",
)  # fmt: skip
RANGES: dict[Measure, tuple[float, float]] = {
    "distance": (0.0, 1.0), "dissimilarity": (0.0, 2.0), "effective": (1.0, np.inf),
    "silhouette": (-1.0, 1.0), "contrast": (0.0, 0.5),
}  # fmt: skip
_AT_ONCE = 50  # replicates


def measure(maps: np.ndarray, weights: np.ndarray) -> dict[Measure, np.ndarray]:
    """All measures of maps (P, K, N) with pictures taken `weights` (P, R) times: (R,) each."""
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return {
            "distance": pair_distance(maps) @ weights / total,
            "dissimilarity": pair_dissimilarity(maps) @ weights / total,
            "effective": effective_prompts(maps) @ weights / total,
            "silhouette": silhouettes(maps, weights),
            "contrast": contrast(maps) @ weights / total,
        }


def pair_distance(maps: np.ndarray) -> np.ndarray:
    """(P, K, N) -> (P,): mean over pairs of prompts of their root mean square difference.

    Example:
        >>> pair_distance(np.array([[[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]])).round(3)
        array([0.667])
    """
    return _pair_means(lambda one, two: np.sqrt(((one - two) ** 2).mean(axis=-1)), maps)


def pair_dissimilarity(maps: np.ndarray) -> np.ndarray:
    """(P, K, N) -> (P,): mean over pairs of 1 - correlation; a constant map is like no other.

    Example:
        >>> pair_dissimilarity(np.array([[[0.1, 0.2], [0.5, 0.9], [0.4, 0.2]]])).round(3)
        array([1.333])
    """
    ready = _standardised(maps)
    return _pair_means(lambda one, two: 1 - (one * two).sum(axis=-1), ready)


def effective_prompts(maps: np.ndarray) -> np.ndarray:
    """(P, K, N) -> (P,): 1 / the mean similarity of all K x K pairs, themselves included.

    Similar is what correlates; maps that contradict each other count as unlike, no more.

    Example:
        >>> effective_prompts(np.array([[[0.1, 0.2], [0.5, 0.9], [0.4, 0.2]]])).round(3)
        array([1.8])
    """
    ready = _standardised(maps)
    similar = np.clip(ready @ ready.swapaxes(-1, -2), 0, 1)
    places = np.arange(maps.shape[1])
    similar[:, places, places] = 1.0
    return 1 / similar.mean(axis=(1, 2))


def contrast(maps: np.ndarray) -> np.ndarray:
    """(P, K, N) -> (P,): standard deviation over the patches, mean over the prompts.

    Example:
        >>> contrast(np.array([[[0.0, 1.0], [0.4, 0.6]]])).round(3)
        array([0.3])
    """
    return maps.std(axis=-1).mean(axis=-1)


def silhouettes(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Silhouette of the prompts over pictures taken `weights` times.

    For each map this is scikit-learn's `silhouette_samples` among the maps of all other
    pictures, with prompts as labels; the mean of all is returned.

    Args:
        maps: (P, K, N), K at least 2.
        weights: (P, R) whole numbers: how often replicate R takes each picture.

    Returns:
        (R,) in -1..1; NaN where a replicate takes fewer than two different pictures.
    """
    from scipy.spatial.distance import cdist

    pictures, prompts, patches = maps.shape
    flat = maps.reshape(-1, patches).astype(np.float64)
    apart = cdist(flat, flat).reshape(pictures * prompts, pictures, prompts)
    own = np.arange(len(flat))
    apart[own, own // prompts] = 0.0
    return np.concatenate([
        _silhouettes(apart, weights[:, start : start + _AT_ONCE])
        for start in range(0, weights.shape[1], _AT_ONCE)
    ])  # fmt: skip


def _silhouettes(apart: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`silhouettes` from distances (P * K, P, K), those to the own picture 0."""
    count, pictures, prompts = apart.shape
    rows = np.arange(count)
    total, mine = weights.sum(axis=0), weights[rows // prompts]  # (R,), (P * K, R)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.einsum("iyl,yr->lir", apart, weights) / (total - mine)
        within = means[rows % prompts, rows]
        means[rows % prompts, rows] = np.inf
        nearest = means.min(axis=0)
        widest = np.maximum(within, nearest)
        each = np.where(widest > 0, (nearest - within) / widest, 0.0)
        taken = np.where(mine > 0, mine * each, 0.0).sum(axis=0)
        several = (weights > 0).sum(axis=0) > 1
        return np.where(several, taken / (prompts * total), np.nan)


def _pair_means(compare: Callable[..., np.ndarray], maps: np.ndarray) -> np.ndarray:
    """(P, K, N) -> (P,): the mean of `compare` over all pairs of prompts; NaN of one prompt."""
    pairs = [compare(maps[:, i], maps[:, j]) for i, j in combinations(range(maps.shape[1]), 2)]
    return np.mean(pairs, axis=0) if pairs else np.full(len(maps), np.nan)


def _standardised(maps: np.ndarray) -> np.ndarray:
    """Each map with mean 0 and length 1, so that products are correlations; constant ones 0."""
    centred = maps - maps.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-12)
