"""From whatever a picture stores to (H, W, 3) uint8 RGB, each kind of value on purpose.

Nothing is clipped silently: a value that does not fit its range is an error that says
what to pass, and every guess is told in a note.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from faprompt.errors import ImageReadError

_BLOCK_PIXELS = 2**19  # work block by block: a 108-megapixel picture must not need 2 GB
_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")


def picture_to_rgb(
    picture: Image.Image, *, bit_depth: int | None = None, stored_bits: int = 16
) -> tuple[np.ndarray, tuple[str, ...]]:
    """RGB bytes of a decoded Pillow picture.

    Args:
        picture: any mode; EXIF orientation already applied.
        bit_depth: bits that the camera really used in 16-bit or 32-bit grey values.
        stored_bits: bits per value by the file's header, where it says less than 16.

    Returns:
        (H, W, 3) uint8 and notes for the user. Transparency is composited over white, so
        a fully opaque alpha channel equals no alpha channel.

    Raises:
        ImageReadError: values that do not fit the range, or not a number.
    """
    if picture.mode in _GREY_16:
        grey = np.asarray(picture)
        return _grey_to_rgb(*_scale_uint16(grey, bit_depth or stored_bits, told=bool(bit_depth)))
    if picture.mode == "I":
        return _grey_to_rgb(*_scale_integers(np.asarray(picture), bit_depth))
    if picture.mode == "F":
        return _grey_to_rgb(*_scale_floats(np.asarray(picture), stretch=True))
    if picture.mode == "LAB":
        raise ImageReadError("CIELAB colours are not read; convert the picture to RGB.")
    return _convert_to_rgb(picture), ()


def array_to_rgb(
    array: np.ndarray, *, bit_depth: int | None = None, stretch_floats: bool = False
) -> tuple[np.ndarray, tuple[str, ...]]:
    """RGB bytes of an array.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; bool, uint8, uint16, or
            float in [0, 1].
        bit_depth: bits that uint16 values really use, 16 unless told.
        stretch_floats: scale floats outside [0, 1] by their own minimum and maximum (files),
            instead of refusing them (arrays).

    Returns:
        (H, W, 3) uint8 and notes for the user. Alpha is composited over white.

    Raises:
        ImageReadError: another shape or dtype, or values that do not fit their range.
    """
    _check_array_shape(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    values, notes = _array_to_bytes(array, bit_depth, stretch_floats)
    if values.ndim == 2:
        return _grey_to_rgb(values, notes)
    if values.shape[2] == 4:
        return _convert_to_rgb(Image.fromarray(np.ascontiguousarray(values))), notes
    return np.ascontiguousarray(values), notes


def _check_array_shape(array: np.ndarray) -> None:
    channels = array.shape[2:] if array.ndim in (2, 3) else (0,)
    if array.size and channels in ((), (1,), (3,), (4,)):
        return
    hint = ""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        hint = " Channels seem to come first: pass array.transpose(1, 2, 0)."
    elif array.ndim == 4:
        hint = " Pass the pictures of a batch one by one."
    raise ImageReadError(f"a picture is (H, W) or (H, W, 3), got an array {array.shape}.{hint}")


def _array_to_bytes(
    array: np.ndarray, bit_depth: int | None, stretch: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    if array.dtype == np.uint8:
        return array, ()
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255), ()
    if array.dtype == np.uint16:
        return _scale_uint16(array, bit_depth or 16, told=bool(bit_depth))
    if array.dtype.kind == "f":
        return _scale_floats(array, stretch=stretch)
    if array.dtype.kind in "iu" and stretch:
        return _scale_integers(array, bit_depth)
    raise ImageReadError(
        f"pixels are uint8, uint16, bool or float in [0, 1], got {array.dtype}; "
        "convert them first, for example array.astype('uint16')."
    )


def _scale_uint16(
    values: np.ndarray, bits: int, *, told: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    top, peak = 2**bits - 1, int(values.max())
    if peak > top:
        raise ImageReadError(
            f"values reach {peak}, above {top} for {bits} bits; pass bit_depth={peak.bit_length()} "
            "or leave it out to scale by the whole 16-bit range."
        )
    notes: tuple[str, ...] = ()
    if not told and bits == 16 and 0 < peak < 2**14:
        likely = max(8, peak.bit_length())
        notes = (f"16-bit data uses only 0..{2**likely - 1}: pass bit_depth={likely}",)
    return _stretch(values, 0, top), notes


def _scale_integers(
    values: np.ndarray, bit_depth: int | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    low, high = int(values.min()), int(values.max())
    if bit_depth is not None:
        if low < 0 or high > 2**bit_depth - 1:
            raise ImageReadError(
                f"values span {low}..{high}, which bit_depth={bit_depth} cannot hold; "
                "leave it out to scale by the values' own range."
            )
        return _stretch(values, 0, 2**bit_depth - 1), ()
    if low >= 0 and high < 2**16:
        return _scale_uint16(values, 16, told=False)
    return _stretch(values, low, high), (f"integer values {low}..{high} scaled to 0..255",)


def _scale_floats(values: np.ndarray, *, stretch: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageReadError("some pixels are NaN or infinite; replace them before reading.")
    if low >= 0 and high <= 1:
        return _stretch(values, 0, 1), ()
    if not stretch:
        raise ImageReadError(
            f"float pixels should be in [0, 1], got {low:g}..{high:g}; scale them first, "
            "for example array / 255, or pass uint8 or uint16."
        )
    return _stretch(values, low, high), (f"float values {low:g}..{high:g} scaled to 0..255",)


def _stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """low..high to 0..255, rounded; a flat picture becomes 0."""
    scale = 255.0 / (high - low) if high > low else 0.0
    out = np.empty(values.shape, np.uint8)
    for rows in _row_blocks(*values.shape[:2]):
        out[rows] = np.rint((values[rows].astype(np.float64) - low) * scale)
    return out


def _grey_to_rgb(grey: np.ndarray, notes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    return np.repeat(grey[..., None], 3, axis=2), notes


def _convert_to_rgb(picture: Image.Image) -> np.ndarray:
    """8-bit modes, block by block: Pillow holds 4 bytes a pixel, and a second copy adds up."""
    width, height = picture.size
    out = np.empty((height, width, 3), np.uint8)
    step = min(width, _BLOCK_PIXELS)
    for rows in _row_blocks(height, width):
        for left in range(0, width, step):
            right = min(left + step, width)
            block = picture.crop((left, rows.start, right, rows.stop))
            out[rows, left:right] = np.asarray(_composite(block))
    return out


def _composite(block: Image.Image) -> Image.Image:
    """RGB of a picture, over white where it is transparent."""
    if not block.has_transparency_data:
        return block if block.mode == "RGB" else block.convert("RGB")
    rgba = block.convert("RGBA")
    white = Image.new("RGB", block.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _row_blocks(height: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK_PIXELS // max(1, width))
    return (slice(top, min(top + step, height)) for top in range(0, height, step))
