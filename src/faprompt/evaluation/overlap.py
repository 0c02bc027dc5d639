"""How much of one picture's defect its map finds, without a threshold."""

from __future__ import annotations

import numpy as np


def map_overlap(score_map: np.ndarray, mask: np.ndarray) -> float:
    """Of as many highest pixels of the map as the mask has, the share inside the mask.

    Pixels that share the last score count by the share of them inside.

    Args:
        score_map: (H, W) float.
        mask: (H, W) bool with at least one True.

    Returns:
        0..1, higher is better: precision, recall and F1 at the threshold where map and
        mask are equally large.

    Example:
        >>> map_overlap(np.array([[0.9, 0.8, 0.1, 0.3]]), np.array([[True, False, False, True]]))
        0.5
    """
    size = int(mask.sum())
    if size == 0:
        raise ValueError("the mask is empty, so there is nothing to find.")
    scores, truth = score_map.ravel(), mask.ravel()
    last = np.partition(scores, len(scores) - size)[len(scores) - size]
    above, level = scores > last, scores == last
    inside = np.count_nonzero(above & truth)
    share = np.count_nonzero(level & truth) / np.count_nonzero(level)
    return float((inside + share * (size - np.count_nonzero(above))) / size)
