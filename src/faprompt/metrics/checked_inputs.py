"""Checks of scores, labels, score maps and masks: accepted, or refused with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Maps = np.ndarray | Sequence[Any] | None  # (B, H, W), or a list of (H, W) or None
FloatType = type[np.float32] | type[np.float64] | None
Pair = tuple[np.ndarray, np.ndarray]  # score map and mask, (H, W) each


def check_fpr_limit(fpr_limit: float) -> float:
    """Check the false-positive rate where PRO ends: above 0, at most 1."""
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit should be above 0 and at most 1, got {fpr_limit}.")
    return float(fpr_limit)


def check_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (N,) as float64 and labels (N,) as bool, or raise an error."""
    values = _numbers(scores, "scores").astype(np.float64)
    truth = _numbers(labels, "labels")
    if values.ndim != 1 or values.shape != truth.shape:
        raise ValueError(
            "scores and labels should be one-dimensional and of one length, "
            f"got {values.shape} and {truth.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError("scores should be finite, got NaN or infinity.")
    _require_binary(truth, "labels")
    return values, truth.astype(bool)


def check_pairs(
    score_maps: Maps, masks: Maps, *, count: int | None = None, dtype: FloatType = None
) -> dict[int, Pair]:
    """Check score maps and masks; return the pair of each image that has both.

    Args:
        score_maps: (B, H, W), or a list of B arrays (H, W) of any sizes, or None entries.
        masks: likewise, bool or 0/1; 1 is anomalous.
        count: B, when it is known from elsewhere.
        dtype: float type the maps will be read as; None keeps float32 and float64.

    Returns:
        Number of the image -> (map, mask), (H, W) each, in their own dtypes and not copied.

    Raises:
        ValueError: anything that does not fit; the message names the image.
        TypeError: an array that holds no numbers.
    """
    maps = _one_per_image(score_maps, "score_maps", count)
    truths = _one_per_image(masks, "masks", count)
    if truths and not maps:
        raise ValueError("masks came without score_maps; pass both, or neither.")
    if maps and not truths:
        truths = [None] * len(maps)
    if len(maps) != len(truths):
        raise ValueError(f"got {len(maps)} score_maps for {len(truths)} masks.")
    checked = {}
    for number, (score_map, mask) in enumerate(zip(maps, truths, strict=True)):
        if pair := _check_pair(score_map, mask, f"[{number}]", dtype):
            checked[number] = pair
    return checked


def check_keys(keys: Sequence[Any] | None, count: int) -> list[str | int] | None:
    """Return one name or number an image, or None when none were given."""
    if keys is None:
        return None
    if isinstance(keys, (str, bytes)) or len(keys) != count:
        raise ValueError(f"keys should hold one entry per image ({count}), got {keys!r:.60}.")
    if not all(isinstance(key, (str, int, np.integer)) for key in keys):
        raise TypeError("keys should be names or whole numbers, one an image.")
    return list(keys)


def as_float(values: np.ndarray, dtype: FloatType = None) -> np.ndarray:
    """Convert to `dtype`; None keeps float32 and float64 and turns the rest into one of them."""
    if dtype is None:
        dtype = np.float32 if values.dtype in (np.float16, np.float32) else np.float64
    return values.astype(dtype, copy=False)


def _one_per_image(arrays: Maps, name: str, count: int | None) -> list[Any]:
    """`arrays` as a list with one entry an image; empty when there are none at all."""
    if arrays is None:
        return []
    if not isinstance(arrays, (list, tuple)):
        arrays = np.asarray(arrays)
        if arrays.ndim != 3:
            raise ValueError(
                f"{name} should be (B, H, W), or a list of (H, W) arrays, got shape {arrays.shape}."
            )
    if count is not None and len(arrays) != count:
        raise ValueError(f"{name} should hold one entry per image ({count}), got {len(arrays)}.")
    return list(arrays)


def _check_pair(score_map: Any, mask: Any, place: str, dtype: FloatType) -> Pair | None:
    """Check one image; None when its map or its mask is missing."""
    if score_map is None:
        if mask is not None:
            raise ValueError(f"masks{place} came without score_maps{place}; pass both, or neither.")
        return None
    values = _picture(score_map, f"score_maps{place}")
    _require_finite(values, f"score_maps{place}", dtype)
    if mask is None:
        return None
    truth = _picture(mask, f"masks{place}")
    if truth.shape != values.shape:
        raise ValueError(
            f"masks{place} is {truth.shape} but score_maps{place} is {values.shape}; "
            "resize one of them first."
        )
    _require_binary(truth, f"masks{place}")
    return values, truth


def _numbers(array: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(array)
    if values.size and values.dtype.kind not in "biuf":
        raise TypeError(f"{name} should hold real numbers, got dtype {values.dtype}.")
    return values


def _picture(array: Any, name: str) -> np.ndarray:
    values = _numbers(array, name)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{name} should be (H, W) and not empty, got shape {values.shape}.")
    return values


def _require_finite(values: np.ndarray, name: str, dtype: FloatType) -> None:
    low, high = values.min(), values.max()  # NaN and infinity always show in one of them
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} should be finite, got NaN or infinity.")
    if dtype is not None and max(-float(low), float(high)) > float(np.finfo(dtype).max):
        raise ValueError(
            f"{name} reaches from {low:.3g} to {high:.3g}, beyond {np.dtype(dtype)}; "
            'rescale it, or use mode="exact".'
        )


def _require_binary(values: np.ndarray, name: str) -> None:
    """Accept 0 and 1 only: a guessed threshold would go unnoticed."""
    if values.dtype != bool and not ((values == 0) | (values == 1)).all():
        raise ValueError(
            f"{name} should hold only 0 and 1, got values from {values.min()} to {values.max()}; "
            "threshold them first."
        )
