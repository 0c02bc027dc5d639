"""Ground truth as pixels: mask files → one boolean array in the picture's own size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np
from PIL import Image

from faprompt.data.outlines import draw_mask
from faprompt.errors import DatasetError, ImageReadError
from faprompt.imaging.image_reading import read_luminance, read_picture_header
from faprompt.imaging.marked_pixels import MaskPolicy, read_marked_pixels
from faprompt.records import DrawnMask, Sample

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
    return _read(path, lambda file: read_marked_pixels(file, policy))
