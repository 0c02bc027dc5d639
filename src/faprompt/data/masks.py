"""Ground truth as pixels: mask files → one boolean array in the picture's own size."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
from PIL import Image

from faprompt.data.outlines import draw_mask
from faprompt.errors import DatasetError, ImageReadError
from faprompt.imaging.decoding import Samples
from faprompt.imaging.image_reading import read_luminance, read_picture_header, read_samples
from faprompt.imaging.rgb_levels import samples_to_rgb
from faprompt.records import DrawnMask, Sample

MaskPolicy = Literal["any-channel", "reference", "strict"]
_Content = TypeVar("_Content")


def read_mask(
    sample: Sample,
    *,
    image_size: tuple[int, int] | None = None,
    policy: MaskPolicy = "any-channel",
) -> np.ndarray:
    """Read the anomalous pixels of one sample.

    Several mask files are united; outlines are drawn. A normal sample gives zeros. A sample with
    a region gives that part of the picture. Masks are never resized.

    Args:
        sample: one with `has_pixel_label`.
        image_size: (height, width) of the whole picture as shown; by default from its header.
        policy: which mask pixels are anomalous.
            "any-channel" (ours, the default): any colour channel and alpha, if the file has it,
            are above 0.
            "reference" (`convert('L') > 0`, public code of AnomalyCLIP and FAPrompt): the
            luminance, rounded to 8 bits, is above 0; alpha is ignored.
            "strict" (ours, for JPEG masks with noisy contours): the brightest channel where
            alpha is above 0 is above 127, or above 0 in a file whose maximum is 127 or less
            (masks that hold class ids).
            Under every policy palettes are looked up, white-is-zero files are inverted, EXIF
            orientation is applied, and values wider than 8 bits are never rounded to 0.

    Returns:
        (height, width) bool; True is anomalous.

    Raises:
        DatasetError: the sample has no pixel label, or a mask cannot be read or has another
            size than its picture.
        ImageReadError: the picture's size was needed and cannot be read.
    """
    if policy not in get_args(MaskPolicy):
        names = " or ".join(map(repr, get_args(MaskPolicy)))
        raise ValueError(f"policy should be {names}, got {policy!r}.")
    if not sample.has_pixel_label:
        raise DatasetError(
            f"{sample.image_path} has no pixel label, so it has no mask; "
            "keep it out of pixel figures."
        )
    size = image_size or picture_size(sample.image_path)
    if sample.drawn_mask is not None:
        return cut_region(_draw_in_size(sample, sample.drawn_mask, size), sample)
    truth = np.zeros(size, dtype=bool)
    for path in _mask_files(sample):
        marked = marked_pixels(path, policy)
        _check_size(path, marked.shape, sample.image_path, size)
        truth |= marked
    return cut_region(truth, sample)


def read_resized_mask(sample: Sample, image_size: tuple[int, int]) -> np.ndarray:
    """Read a sample's mask at a model's size, as the public code of AnomalyCLIP and FAPrompt does.

    Each mask file is resized by itself, whatever its size, and EXIF orientation is not applied.
    A pixel is marked where the luminance that Pillow computes is above 0. Several files are
    united; outlines, which that code does not know, are drawn in the picture's own size first.

    Returns:
        `image_size` bool, (height, width); True is anomalous.

    Raises:
        DatasetError: a mask cannot be read, or an anomalous sample names none.

    Source:
        dataset.py (`convert('L')`, `> 0`) and utils.py (the target transform) of
        mala-lab/FAPrompt at 7e9d9d2.
    """
    if sample.drawn_mask is not None:
        return resize_mask(cut_region(draw_mask(sample.drawn_mask), sample), image_size)
    truth = np.zeros(image_size, dtype=bool)
    for path in _mask_files(sample):
        marked = _read(path, read_luminance) > 0
        truth |= resize_mask(cut_region(marked, sample), image_size)
    return truth


def resize_mask(mask: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Resize a mask, (H, W) bool, to (height, width): bilinear with antialias, above one half.

    A defect much thinner than one pixel of the new size vanishes.

    Source:
        The target transform of AnomalyCLIP's and FAPrompt's `utils.py` and `test.py`.

    Example:
        >>> resize_mask(np.array([[True, True, False, False]]), (2, 2))
        array([[ True, False],
               [ True, False]])
    """
    height, width = image_size
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR)) > 127


def cut_region(image: np.ndarray, sample: Sample) -> np.ndarray:
    """Cut a sample's region, if it has one, out of its whole picture or mask, (H, W, ...).

    Raises:
        DatasetError: the region leaves the picture.
    """
    if sample.region is None:
        return image
    x0, y0, x1, y1 = sample.region
    height, width = image.shape[:2]
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise DatasetError(
            f"region {sample.region} (x0, y0, x1, y1) does not lie within {sample.image_path}, "
            f"which is {height}x{width} (height x width)."
        )
    return image[y0:y1, x0:x1]


def picture_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of a picture as shown, from its header.

    Raises:
        ImageReadError: the file is missing, empty or no picture.
    """
    try:
        return read_picture_header(path).image_size
    except ImageReadError as error:
        raise ImageReadError(
            f"{path} cannot be read as a picture: {reason(path, error)}"
        ) from error


def reason(path: Path, error: ImageReadError) -> str:
    """Return an error's message without the path that it begins with."""
    return str(error).removeprefix(f"{path}: ")


def is_blank_mask(path: Path) -> bool:
    """Return whether no pixel of a mask file is marked, by the policy "any-channel".

    Raises:
        DatasetError: the file cannot be read.
    """
    return not marked_pixels(path, "any-channel").any()


def _draw_in_size(sample: Sample, drawn: DrawnMask, size: tuple[int, int]) -> np.ndarray:
    if drawn.image_size != size:
        given, wanted = ("{}x{}".format(*pair) for pair in (drawn.image_size, size))
        source = f" in {sample.mask_paths[0]}" if sample.mask_paths else ""
        raise DatasetError(
            f"the annotations of {sample.image_path}{source} are for a picture of {given}, but it "
            f"is {wanted} (height x width). Use the pictures that were annotated."
        )
    return draw_mask(drawn)


def _mask_files(sample: Sample) -> tuple[Path, ...]:
    if not sample.label:
        return ()
    if not sample.mask_paths:
        raise DatasetError(
            f"{sample.image_path} should have a mask, being anomalous, but names none."
        )
    return sample.mask_paths


def _check_size(
    mask: Path, mask_size: tuple[int, ...], image: Path, image_size: tuple[int, int]
) -> None:
    if mask_size == image_size:
        return
    advice = "masks are not resized, so mend one of the two files"
    if mask_size == image_size[::-1]:
        advice = "height and width are exchanged, so look at the picture's EXIF orientation"
    raise DatasetError(
        f"mask {mask} is {mask_size[0]}x{mask_size[1]} (height x width), "
        f"its picture {image} is {image_size[0]}x{image_size[1]}; {advice}."
    )


def _read(path: Path, read: Callable[[Path], _Content]) -> _Content:
    try:
        return read(path)
    except ImageReadError as error:
        raise DatasetError(f"mask {path} cannot be read: {reason(path, error)}") from error


def marked_pixels(path: Path, policy: MaskPolicy) -> np.ndarray:
    """Return the marked pixels of one mask file, (height, width) bool."""
    shown = _read(path, lambda file: _shown(read_samples(file)))
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
