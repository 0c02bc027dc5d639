"""Made-up score maps with masks: easy, ordinary and nasty."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

Pictures = tuple[list[np.ndarray], list[np.ndarray]]


def draw_mask(rng: np.random.Generator, size: tuple[int, int], *, largest: int = 12) -> np.ndarray:
    """(height, width) bool: one time in three empty, else one to four rectangles."""
    mask = np.zeros(size, dtype=bool)
    if rng.random() < 1 / 3:
        return mask
    for _ in range(rng.integers(1, 5)):
        height, width = rng.integers(1, largest, size=2)
        top, left = rng.integers(0, size[0] - 1), rng.integers(0, size[1] - 1)
        mask[top : top + height, left : left + width] = True
    return mask


def draw_maps(
    count: int, size: tuple[int, int], *, seed: int = 0, separation: float = 2.0
) -> Pictures:
    """Smooth float64 noise about 0 with spread 1, raised by `separation` on the anomalies."""
    rng = np.random.default_rng(seed)
    masks = [draw_mask(rng, size) for _ in range(count)]
    masks[-1][2:5, 3:9] = True  # never all empty
    noise = [5 * ndimage.uniform_filter(rng.standard_normal(size), 5) for _ in masks]
    lift = [separation * ndimage.uniform_filter(mask.astype(float), 3) for mask in masks]
    return [a + b for a, b in zip(noise, lift, strict=True)], masks


def _outliers(values: np.ndarray, number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return np.where(
        rng.random(values.shape) < 1e-3, 1e30 * rng.standard_normal(values.shape), values
    )


def _clusters(values: np.ndarray, number: int) -> np.ndarray:
    centres = np.random.default_rng(number).integers(0, 20, values.shape)
    return 0.5 + 0.02 * centres + 1e-6 * values


# name -> (smooth map, number of the image) -> scores
NASTY: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "plain": lambda values, number: values,
    "sigmoid": lambda values, number: 1 / (1 + np.exp(-values)),
    "crowded about a half": lambda values, number: 0.5 + 1e-6 * values,
    "crowded about -1000": lambda values, number: -1000 + 1e-2 * values,
    "crowded about 20 places": _clusters,
    "saturated at both ends": lambda values, number: np.clip(0.5 + values, 0.1, 0.9),
    "half of all zero": lambda values, number: np.maximum(values, 0.0),
    "256 levels": lambda values, number: np.round(255 / (1 + np.exp(-values))) / 255,
    "heavy tail up": lambda values, number: np.exp(8 * values),
    "heavy tails": lambda values, number: np.sign(values) * np.abs(values) ** 15,
    "outliers of 1e30": _outliers,
    "below the normal float32": lambda values, number: 1e-42 * values,
    "each image elsewhere": lambda values, number: 3.7 * number + 0.01 * values,
    "late change of range": lambda values, number: (
        0.5 + 1e-6 * values if number % 40 < 30 else 100 + 1e-3 * values
    ),
}


def nasty_maps(name: str, *, count: int, size: tuple[int, int], separation: float) -> Pictures:
    """Maps of one kind of `NASTY`, float32, with their masks."""
    smooth, masks = draw_maps(count, size, seed=7, separation=separation)
    spread = NASTY[name]
    return [spread(m, i).astype(np.float32) for i, m in enumerate(smooth)], masks
