"""Connected regions of a ground-truth mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

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


def find_regions(mask: np.ndarray) -> MaskRegions:
    """8-connected regions of a mask (H, W) of 0 and 1; pixels that touch at a corner are together.

    Example:
        >>> mask = np.array([[1, 0, 0, 0], [0, 1, 0, 1]], dtype=bool)
        >>> find_regions(mask).sizes
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
