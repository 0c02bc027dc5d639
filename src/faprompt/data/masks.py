"""Ground truth as pixels: mask files → one boolean array in the picture's own size."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from faprompt.data.shapes import draw_mask
from faprompt.errors import DatasetError, ImageReadError
from faprompt.records import DrawnMask, Sample

MaskPolicy = Literal["reference", "strict"]

# The product's allow-list in PIL's words.
PICTURE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")

_ORIENTATION = 0x0112  # EXIF tag
_SIDEWAYS = (5, 6, 7, 8)  # its values that swap height and width
_WIDE_MODES = ("I", "F")  # and their byte-order variants: more than 8 bits per pixel

# What PIL raises on a damaged or hostile file, depending on format and damage.
PICTURE_FAULTS = (
    OSError,
    SyntaxError,
    struct.error,
    ValueError,
    EOFError,
    UnidentifiedImageError,
    Image.DecompressionBombError,
)


def read_mask(
    sample: Sample,
    *,
    image_size: tuple[int, int] | None = None,
    policy: MaskPolicy = "reference",
) -> np.ndarray:
    """The anomalous pixels of one sample.

    Several mask files are united; outlines are drawn. A normal picture of a pixel-labelled
    dataset gives zeros. A sample with a region gives that part of the picture.

    Args:
        sample: one with `has_pixel_label`.
        image_size: (height, width) of the whole picture as shown, EXIF orientation applied;
            read from its header when not given.
        policy: "reference" takes every grey value above 0, as the published code does;
            "strict" takes values above 127, or above 0 in a file whose maximum is 127 or
            less (masks that hold class ids). They differ on JPEG masks, whose contours are noisy.

    Returns:
        (height, width) bool; True is anomalous.

    Raises:
        DatasetError: the sample has no pixel label, a mask cannot be read, or its size is
            not the picture's. Masks are never resized.
        ImageReadError: the picture's size was needed and cannot be read.
    """
    if policy not in get_args(MaskPolicy):
        raise ValueError(f"policy should be 'reference' or 'strict', got {policy!r}.")
    if not sample.has_pixel_label:
        raise DatasetError(
            f"{sample.image_path} has no pixel label, so it has no mask; "
            "keep it out of pixel figures."
        )
    size = image_size or picture_size(sample.image_path)
    truth = np.zeros(size, dtype=bool)
    if sample.drawn_mask is not None:
        truth |= _drawn(sample, sample.drawn_mask, size)
    elif sample.label:
        truth |= _union(sample, size, policy)
    return cut_region(truth, sample)


def resize_mask(mask: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """A mask at another size, such as a model's: bilinear with antialias, above one half is True.

    A defect much thinner than one pixel of the new size vanishes.

    Args:
        mask: (H, W) bool.
        image_size: (height, width) wanted.

    Returns:
        (height, width) bool.

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
    """The part of a picture, or of its mask, that a sample means: all, where it has no region.

    Args:
        image: (H, W, ...), the whole picture.

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
    """(height, width) of a picture as shown, from its header alone.

    Raises:
        ImageReadError: the file is missing, empty or no picture.
    """
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as picture:
            return shown_size(picture)
    except PICTURE_FAULTS as error:
        raise ImageReadError(f"{path} cannot be read as a picture: {error}.") from error


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """(height, width) of an opened picture once its EXIF orientation is applied."""
    width, height = picture.size
    # PIL turns the size of a TIFF as it opens, and of nothing else
    sideways = picture.format != "TIFF" and orientation(picture) in _SIDEWAYS
    return (width, height) if sideways else (height, width)


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 where the file says nothing sensible."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, KeyError, struct.error):  # a side note, not a broken file
        return 1
    return value if value in range(1, 9) else 1


def is_blank_mask(path: Path) -> bool:
    """True when no pixel of the mask file is above 0.

    Raises:
        DatasetError: the file cannot be read.
    """
    return not _read_grey(path).any()


def _drawn(sample: Sample, drawn: DrawnMask, size: tuple[int, int]) -> np.ndarray:
    if drawn.image_size != size:
        given, wanted = ("{}x{}".format(*pair) for pair in (drawn.image_size, size))
        source = f" in {sample.mask_paths[0]}" if sample.mask_paths else ""
        raise DatasetError(
            f"the annotations of {sample.image_path}{source} are for a picture of {given}, but it "
            f"is {wanted} (height x width). Use the pictures that were annotated."
        )
    return draw_mask(drawn)


def _union(sample: Sample, size: tuple[int, int], policy: MaskPolicy) -> np.ndarray:
    if not sample.mask_paths:
        raise DatasetError(
            f"{sample.image_path} should have a mask, being anomalous, but names none."
        )
    truth = np.zeros(size, dtype=bool)
    for path in sample.mask_paths:
        grey = _read_grey(path)
        if grey.shape != size:
            raise DatasetError(_size_clash(path, grey.shape, sample.image_path, size))
        truth |= _binarise(grey, policy)
    return truth


def _size_clash(
    mask: Path, mask_size: tuple[int, ...], image: Path, image_size: tuple[int, int]
) -> str:
    told = (
        f"mask {mask} is {mask_size[0]}x{mask_size[1]} (height x width), "
        f"its picture {image} is {image_size[0]}x{image_size[1]}"
    )
    if mask_size == image_size[::-1]:
        return f"{told}; height and width are exchanged, so look at the picture's EXIF orientation."
    return f"{told}; masks are not resized, so mend one of the two files."


def _binarise(grey: np.ndarray, policy: MaskPolicy) -> np.ndarray:
    if policy == "reference" or grey.max(initial=0) <= 127:
        return grey > 0
    return grey > 127


def _read_grey(path: Path) -> np.ndarray:
    """(height, width) uint8; a palette is looked up, alpha dropped, wide values scaled."""
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as stored:
            picture = ImageOps.exif_transpose(stored)
            if picture.mode.split(";")[0] in _WIDE_MODES:
                return _scaled_to_8_bit(np.asarray(picture, dtype=np.float64))
            return np.asarray(picture.convert("L"))
    except PICTURE_FAULTS as error:
        raise DatasetError(f"mask {path} cannot be read: {error}.") from error


def _scaled_to_8_bit(values: np.ndarray) -> np.ndarray:
    """Stretch 16-bit or float values to 0..255, rounding up so that nothing above 0 gets lost.

    Values up to 255 count as 8-bit values in a wide file (class ids, for one); floats up
    to 1 and anything up to 65535 by those ranges; more than that by their own maximum.
    """
    top = values.max(initial=0)
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise ValueError("it holds negative or non-finite values")
    fraction = top <= 1 and bool(np.any(values % 1))
    full = 1.0 if fraction else 255.0 if top <= 255 else max(top, 65535.0)
    return np.minimum(np.ceil(values * (255 / full)), 255).astype(np.uint8)
