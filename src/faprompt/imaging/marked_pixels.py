"""Read which pixels of one mask file are marked; palettes, inverted and wide files included."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from faprompt.errors import ImageReadError
from faprompt.imaging.decoding import Samples
from faprompt.imaging.image_reading import read_samples
from faprompt.imaging.rgb_levels import samples_to_rgb

MaskPolicy = Literal["any-channel", "reference", "strict"]


def read_marked_pixels(path: Path, policy: MaskPolicy = "any-channel") -> np.ndarray:
    """Return the marked pixels of one mask file, (height, width) bool.

    The policies are those of `faprompt.data.read_mask`.

    Raises:
        ImageReadError: the file cannot be read, or holds negative values or NaN.
    """
    shown = _shown(read_samples(path))
    if policy == "reference":
        levels = _scaled_to_8_bit(shown.values)
        grey = levels if levels.ndim == 2 else Image.fromarray(levels).convert("L")
        return np.asarray(grey) > 0
    bands = np.moveaxis(shown.values, -1, 0) if shown.values.ndim == 3 else [shown.values]
    brightest = reduce(np.maximum, bands)  # four times as fast as max(axis=2)
    if shown.alpha is not None:
        brightest = np.where(shown.alpha > 0, brightest, 0)
    if policy == "strict":
        levels = _scaled_to_8_bit(brightest)
        return levels > (127 if levels.max(initial=0) > 127 else 0)
    return brightest > 0


def _shown(samples: Samples) -> Samples:
    """Return grey or RGB values where 0 is black; refuse negative values and NaN."""
    values = samples.values
    if values.ndim == 3 and values.shape[2] == 4:  # CMYK
        values = samples_to_rgb(Samples(values, bits=samples.bits))[0]
    if values.dtype.kind in "if":
        low, high = values.min(initial=0), values.max(initial=0)
        if low < 0 or not np.isfinite(high):  # NaN compares false with both
            raise ImageReadError("it holds negative or non-finite values; export it as 8-bit grey.")
    if samples.white_is_zero:
        bilevel = values.dtype == np.bool_
        values = ~values if bilevel else _full(values, samples.bits) - values
    return Samples(values, samples.alpha)


def _full(values: np.ndarray, bits: int | None) -> float | np.integer:
    """Return the highest value of a white-is-zero file, in the type of `values`."""
    if values.dtype.kind == "f":
        return max(1.0, float(values.max(initial=0)))
    widest = np.iinfo(values.dtype).max
    return values.dtype.type(min(2 ** (bits or 64) - 1, int(widest)))


def _scaled_to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale 16-bit or float values to 0..255 and round up, so that no value above 0 becomes 0."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    top = float(values.max(initial=0))
    fraction = top <= 1 and bool(np.any(values % 1))
    # values up to 255 in a wide file are 8-bit values, such as class ids
    full = 1.0 if fraction else 255.0 if top <= 255 else max(top, 65535.0)
    return np.minimum(np.ceil(values.astype(np.float64) * (255 / full)), 255).astype(np.uint8)
