"""Score maps in pixels from a grid of patches, by numpy alone.

Everything after the softmax is linear in the patch probabilities: upsampling, smoothing
and resizing to the picture. Each is a matrix per axis, so the whole chain is

    map = A_rows @ grid @ A_columns.T        A = resize . smooth . upsample

with matrices of (pixels, patches): exact, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np

MapRows: TypeAlias = Callable[[int, int], np.ndarray]  # (top, bottom) to (bottom - top, width)

GAUSSIAN_TRUNCATE = 4.0  # scipy.ndimage.gaussian_filter's default, in standard deviations
_ONE_THREAD = 2**18  # multiplications up to which OpenBLAS uses one thread (interface/gemm.c)
TOP_SHARE = 0.02  # share of a map's patches whose mean is its score, where a method says so


def render_grid(
    grid: np.ndarray,
    *,
    model_size: tuple[int, int],
    sigma_px: float,
    image_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Make the smoothed score map of one grid, at the model's or the picture's size.

    Upsamples to `model_size` (bilinear), smooths with a Gaussian as scipy does (reflect,
    truncate 4) and, where `image_size` is given, resizes to it (bilinear).

    Args:
        grid: (rows, columns) float in [0, 1].
        model_size: (height, width) of the model's input, pixels.
        sigma_px: standard deviation in pixels of `model_size`; 0 means no smoothing.
        image_size: (height, width) of the result; None means `model_size`.

    Returns:
        (height, width) float32 in [0, 1].
    """
    left, right = map_matrices(
        (grid.shape[0], grid.shape[1]), model_size, sigma_px, image_size or model_size
    )
    score_map = _product(_product(left, grid.astype(np.float32)), right.T)
    return np.clip(score_map, 0, 1, out=score_map)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multiply matrices in blocks so small that OpenBLAS computes each on one thread.

    Its other threads wait in a loop for more work, and for that time slow down the model's.
    """
    (rows, inner), columns = left.shape, right.shape[1]
    step = max(1, int((_ONE_THREAD / inner) ** 0.5))
    product = np.empty((rows, columns), np.float32)
    for top in range(0, rows, step):
        for start in range(0, columns, step):
            part = slice(top, top + step), slice(start, start + step)
            product[part] = left[part[0]] @ right[:, part[1]]
    return product


def map_matrices(
    grid: tuple[int, int],
    model_size: tuple[int, int],
    sigma_px: float,
    image_size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return A_rows (height, rows) and A_columns (width, columns), float32; see the module.

    `grid` is (rows, columns); the other arguments are as in `render_grid`. The arrays are
    shared between calls and cannot be written to.
    """
    sides = zip(grid, model_size, image_size, strict=True)
    left, right = (_axis_matrix(*side, float(sigma_px)) for side in sides)
    return left, right


@lru_cache(maxsize=256)
def _axis_matrix(patches: int, model_px: int, out_px: int, sigma_px: float) -> np.ndarray:
    """(out_px, patches) float32: upsample, smooth and resize along one axis."""
    matrix = _bilinear_matrix(patches, model_px)
    if sigma_px > 0:
        matrix = gaussian_smooth(matrix, sigma_px)
    if out_px != model_px:
        matrix = _bilinear_matrix(model_px, out_px) @ matrix
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def _bilinear_matrix(source: int, target: int) -> np.ndarray:
    """(target, source) weights of bilinear interpolation, align_corners False."""
    place = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, source - 1)
    matrix = np.zeros((target, source))
    rows = np.arange(target)
    np.add.at(matrix, (rows, low), 1 - (place - low))
    np.add.at(matrix, (rows, high), place - low)
    return matrix


def gaussian_smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth (n, m) float64 along the first axis, the border reflected: d c b a | a b c d.

    Args:
        values: any numbers.
        sigma: standard deviation in rows, above 0; the filter ends at 4 of them.

    Returns:
        (n, m) float64.

    Source:
        scipy.ndimage.gaussian_filter1d, mode "reflect": kernel, and order of the sum.
    """
    radius = int(GAUSSIAN_TRUNCATE * sigma + 0.5)
    kernel = np.exp(-0.5 / sigma**2 * np.arange(-radius, radius + 1) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(values, ((radius, radius), (0, 0)), mode="symmetric")
    count = len(values)
    smooth: np.ndarray = padded[radius : radius + count] * kernel[radius]
    for place in range(radius):
        mirrored = 2 * radius - place
        pair = padded[place : place + count] + padded[mirrored : mirrored + count]
        smooth += pair * kernel[place]
    return smooth


def stretched_rows(score_map: np.ndarray, image_size: tuple[int, int]) -> MapRows:
    """Return a function that resizes rows of a small map to a picture's size, when asked.

    Bilinear, pixel centres kept in place.

    Args:
        score_map: (h, w) float in [0, 1].
        image_size: (height, width) of the picture, in pixels.

    Returns:
        A function of (top, bottom) that returns (bottom - top, width) float32 in [0, 1].
    """
    low, high, part = _between(score_map.shape[1], image_size[1])
    small = np.asarray(score_map, np.float32)
    wide = _mix(small[:, low], small[:, high], part)  # (h, width)
    low_rows, high_rows, row_part = _between(score_map.shape[0], image_size[0])

    def rows(top: int, bottom: int) -> np.ndarray:
        asked = slice(top, bottom)
        mixed = _mix(wide[low_rows[asked]], wide[high_rows[asked]], row_part[asked, None])
        return np.clip(mixed, 0, 1, out=mixed)

    return rows


def _mix(first: np.ndarray, second: np.ndarray, part: np.ndarray) -> np.ndarray:
    return first + part * (second - first)


def _between(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both neighbours of each target pixel, and its distance from the lower one, 0..1."""
    place = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = place.astype(np.intp)
    return low, np.minimum(low + 1, source - 1), (place - low).astype(np.float32)


def resize_map(score_map: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Resize a score map to a picture's size, bilinearly, pixel centres kept in place.

    Args:
        score_map: (h, w) float, values in [0, 1].
        image_size: (height, width) wanted, in pixels.

    Returns:
        (height, width) float32 in [0, 1], never a view of the input.

    Raises:
        ValueError: the map has not two axes.

    Example:
        >>> resize_map(np.array([[0.0, 1.0]], np.float32), (1, 4))
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    if score_map.ndim != 2:
        raise ValueError(f"score_map should be (height, width), got {score_map.shape}.")
    if score_map.shape == tuple(image_size):
        return np.array(score_map, np.float32, order="C")
    return stretched_rows(score_map, image_size)(0, image_size[0])
