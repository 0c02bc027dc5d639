"""Rivals of the bundled model that have learned nothing: they only look at the picture.

Both take an image (height, width, 3) uint8 and give a map (SIDE, SIDE) float32, higher
where stranger; the score is the map's maximum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE = 256
PATCH = 8  # pixels, so 32 x 32 patches
FELLOWS = 5  # nearest patches of the same picture


def local_contrast(image: np.ndarray) -> np.ndarray:
    """|fine blur - coarse blur| of grey, smoothed."""
    grey = _grey(image)
    contrast = np.abs(gaussian_filter(grey, 1.5) - gaussian_filter(grey, 12))
    return gaussian_filter(contrast, 4)


def patch_self_similarity(image: np.ndarray) -> np.ndarray:
    """How far each patch's statistics lie from its nearest fellows in the same picture.

    A patch is described by mean, spread, extremes and slopes of its grey, each measured in
    standard deviations over the picture; its distance is the mean to FELLOWS others.
    """
    described = _describe(_grey(image))
    count = len(described)
    square = (described**2).sum(1)
    apart = square[:, None] + square[None] - 2 * described @ described.T
    np.fill_diagonal(apart, np.inf)
    nearest = np.partition(apart, min(FELLOWS, count - 1), axis=1)[:, :FELLOWS]
    far = np.sqrt(np.maximum(nearest, 0)).mean(axis=1).reshape(SIDE // PATCH, -1)
    wide = np.asarray(Image.fromarray(far).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return gaussian_filter(wide, 4)


RIVALS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "local contrast, nothing learned": local_contrast,
    "patch self-similarity, nothing learned": patch_self_similarity,
}


def _grey(image: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) float32 in 0..1."""
    square = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(square, dtype=np.float32).mean(axis=2) / 255


def _describe(grey: np.ndarray) -> np.ndarray:
    """(patches, 8) statistics of each patch, each with mean 0 and deviation 1."""
    down, across = np.gradient(gaussian_filter(grey, 0.7))
    parts = [_patches(plane) for plane in (grey, np.abs(down), np.abs(across))]
    light, steep, flat = parts
    columns = [light.mean(1), light.std(1), light.min(1), light.max(1)]
    columns += [steep.mean(1), flat.mean(1), steep.max(1), flat.max(1)]
    table = np.stack(columns, axis=1)
    return (table - table.mean(0)) / np.maximum(table.std(0), 1e-6)


def _patches(plane: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) -> (patches, PATCH * PATCH), row by row."""
    many = SIDE // PATCH
    cut = plane.reshape(many, PATCH, many, PATCH).transpose(0, 2, 1, 3)
    return cut.reshape(many * many, PATCH * PATCH)
