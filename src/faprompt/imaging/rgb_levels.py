"""Convert stored pixel values to (H, W, 3) uint8 RGB, each kind of value on purpose.

Nothing is clipped silently: a value that does not fit its range is an error that says
what to pass, and every guess, and every value that a window clips, is reported in a note.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
from PIL import Image

from faprompt.errors import ImageReadError
from faprompt.imaging.decoding import Samples, refuse_lab
from faprompt.imaging.reading_options import Window

DEPTHS = (8, 10, 12, 14, 16)  # bits per value that cameras deliver in 16-bit files
NO_ALPHA = "alpha is 0 everywhere: colours read as if opaque"
NOT_WINDOWED = "window not applied: the values have 8 bits"

_BLOCK_PIXELS = 2**19  # work block by block: a 108-megapixel picture must not need 2 GB
Levels = tuple[np.ndarray, tuple[str, ...]]  # (H, W, 3) uint8, notes for the user


def picture_to_rgb(picture: Image.Image) -> Levels:
    """Return the RGB bytes of a decoded Pillow picture of a mode with 8 bits.

    Transparency is composited over white. Where alpha is 0 everywhere, the colours are used,
    with a note. CIELAB colours raise an `ImageReadError`.
    """
    refuse_lab(picture)
    see_through = picture.has_transparency_data
    opaque = see_through and not any(_alpha_seen(picture.crop(box)) for box in _boxes(picture))
    width, height = picture.size
    out = np.empty((height, width, 3), np.uint8)
    for left, top, right, bottom in _boxes(picture):  # Pillow's copies have 4 bytes a pixel
        block = picture.crop((left, top, right, bottom))
        if see_through:
            block = block.convert("RGBA")
        if see_through and not opaque:
            white = Image.new("RGB", block.size, "white")
            white.paste(block, mask=block.getchannel("A"))
            block = white
        rgb = block if block.mode == "RGB" else block.convert("RGB")
        out[top:bottom, left:right] = np.asarray(rgb)
    return out, (NO_ALPHA,) if opaque else ()


def array_to_rgb(
    array: np.ndarray, *, bit_depth: int | None = None, window: Window | None = None
) -> Levels:
    """Return the RGB bytes of an array; alpha is treated as in `picture_to_rgb`.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; bool, uint8, uint16, or
            float in [0, 1]; with a window any integers or floats.
        bit_depth: bits that uint16 values really use, 16 unless given.
        window: see `samples_to_rgb`.

    Raises:
        ImageReadError: another shape or type, or values that do not fit their range.
    """
    _check_array(array, any_number=window is not None)
    alpha = None
    if array.ndim == 3 and array.shape[2] == 4:
        array, alpha = array[..., :3], array[..., 3]
    elif array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    for values in (alpha, array):
        if window is None and values is not None and values.dtype.kind == "f":
            _refuse_wide_floats(values)
    return samples_to_rgb(Samples(array, alpha), bit_depth=bit_depth, window=window)


def samples_to_rgb(
    samples: Samples, *, bit_depth: int | None = None, window: Window | None = None
) -> Levels:
    """Return the RGB bytes of stored values.

    Unsigned values are scaled by the bits of the header, or by `bit_depth`; signed 8-bit values
    by -128..127; float values in [0, 1] by that range. Wider integers that fill at least half
    the range of their type are scaled by that range. All others are scaled by their own minimum
    and maximum, with a note.

    Args:
        samples: values of any integer or float type.
        bit_depth: bits that values wider than 8 bits really use, 1 to 32.
        window: (center, width): values wider than 8 bits are scaled linearly from center - width/2
            .. center + width/2, and values outside are clipped, with a note; "auto": from
            the minimum and maximum of the picture. Alpha has no window.

    Raises:
        ImageReadError: values that `bit_depth` cannot hold, NaN, or infinite values.
    """
    if window is not None and samples.values.dtype.itemsize > 1:
        levels, notes = _through_window(samples.values, window)
    else:
        levels, notes = _to_bytes(samples.values, samples.bits, bit_depth)
        notes += (NOT_WINDOWED,) if window is not None else ()
    if samples.white_is_zero:
        levels = 255 - levels
    if levels.ndim == 3 and levels.shape[2] == 4:
        size = (levels.shape[1], levels.shape[0])
        levels, _ = picture_to_rgb(Image.frombytes("CMYK", size, levels.tobytes()))
    grey = levels.ndim == 2
    rgb = np.repeat(levels[..., None], 3, axis=2) if grey else np.ascontiguousarray(levels)
    if samples.alpha is None:
        return rgb, notes
    if not samples.alpha.any():
        return rgb, (*notes, NO_ALPHA)
    alpha = _alpha_to_bytes(samples.alpha, samples.bits, bit_depth)
    return _over_white(rgb, alpha, samples.premultiplied), notes


def _standard_depth(peak: int) -> int:
    """Return the smallest depth of cameras that holds a value."""
    return next((depth for depth in DEPTHS if peak < 2**depth), peak.bit_length())


def _check_array(array: np.ndarray, *, any_number: bool) -> None:
    channels = array.shape[2:] if array.ndim in (2, 3) else (0,)
    if not array.size or channels not in ((), (1,), (3,), (4,)):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = " Channels seem to come first: pass array.transpose(1, 2, 0)."
        elif array.ndim == 4:
            hint = " Pass the pictures of a batch one by one."
        raise ImageReadError(f"a picture is (H, W) or (H, W, 3), got an array {array.shape}.{hint}")
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind in "bf" or (kind == "u" and size <= 2) or (any_number and kind in "iu"):
        return
    advice = f" {_advice(array)}" if kind in "iu" else ""
    raise ImageReadError(
        f"pixels are uint8, uint16, bool or float in [0, 1], got {array.dtype}.{advice}"
    )


def _advice(array: np.ndarray) -> str:
    """How to convert numbers whose type or range is not read; it works when followed literally."""
    low, high = array.min(), array.max()
    if array.dtype.kind != "f" and low >= 0:
        if high <= 1:
            return "These are 0 and 1: pass array.astype(bool)."
        if high < 2**8:
            return "These fit 8 bits: pass array.astype('uint8')."
        if high < 2**16:
            depth = _standard_depth(int(high))
            hint = f", with bit_depth={depth} if the camera has {depth} bits" if depth < 16 else ""
            return f"These fit 16 bits: pass array.astype('uint16'){hint}."
    if low >= 0 and high < 2**16:
        return f"Pass array.astype(float) / {2 ** _standard_depth(int(np.ceil(high))) - 1}."
    low, span = float(low), float(high) - float(low)
    return f"Pass (array.astype(float) - {low!r}) / {span or 1.0!r}."


def _refuse_wide_floats(values: np.ndarray) -> None:
    low, high = value_range(values)
    if low < 0 or high > 1:
        raise ImageReadError(
            f"float pixels should be in [0, 1], got {low:g}..{high:g}; scale them first. "
            f"{_advice(values)}"
        )


def _to_bytes(values: np.ndarray, bits: int | None, bit_depth: int | None) -> Levels:
    kind, type_bits = values.dtype.kind, 8 * values.dtype.itemsize
    bits = min(bits or type_bits, type_bits)
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255), ()
    if kind == "f":
        low, high = value_range(values)
        if low >= 0 and high <= 1:
            return _stretch(values, 0, 1), ()
        return _stretch(values, low, high), (f"float values {low:g}..{high:g} scaled to 0..255",)
    if kind not in "iu":
        raise ImageReadError(f"values of type {values.dtype} are not read; export as 16-bit grey.")
    if type_bits == 8:
        if kind == "u":
            return (values if bits == 8 else _stretch(values, 0, 2**bits - 1)), ()
        return _stretch(values, -128, 127), ()
    if kind == "u" and (bits < type_bits or bits == 16):
        return _scale_unsigned(values, bit_depth or bits, given=bool(bit_depth))
    return _scale_integers(values, bit_depth)


def _scale_unsigned(values: np.ndarray, bits: int, *, given: bool) -> Levels:
    top, peak = 2**bits - 1, int(values.max())
    if peak > top:
        raise ImageReadError(
            f"values reach {peak}, above {top} for {bits} bits; pass "
            f"bit_depth={_standard_depth(peak)} or leave it out to scale by the whole stored range."
        )
    notes: tuple[str, ...] = ()
    if not given and bits == 16 and 0 < peak < 2**14:
        depth = _standard_depth(peak)
        notes = (f"16-bit data uses only 0..{2**depth - 1}: pass bit_depth={depth}",)
    return _stretch(values, 0, top), notes


def _scale_integers(values: np.ndarray, bit_depth: int | None) -> Levels:
    low, high = int(values.min()), int(values.max())
    if bit_depth is not None:
        first = -(2 ** (bit_depth - 1)) if low < 0 else 0
        last = first + 2**bit_depth - 1
        if low < first or high > last:
            raise ImageReadError(
                f"values span {low}..{high}, which bit_depth={bit_depth} cannot hold "
                f"({first}..{last}); leave it out to scale by the values' own range."
            )
        return _stretch(values, first, last), ()
    if low >= 0 and high < 2**16:
        return _scale_unsigned(values, 16, given=False)
    limits = np.iinfo(values.dtype)
    if 2 * (high - low) >= int(limits.max) - int(limits.min):
        return _stretch(values, int(limits.min), int(limits.max)), ()
    return _stretch(values, low, high), (f"integer values {low}..{high} scaled to 0..255",)


def _through_window(values: np.ndarray, window: Window) -> Levels:
    low, high = value_range(values)
    first, last, note = window_range(window, low, high)
    return _stretch(values, first, last), (note,)


def window_range(window: Window, low: float, high: float) -> tuple[float, float, str]:
    """Return the values that a window shows as black and white, and a note.

    Args:
        window: (center, width), or "auto" for all values.
        low, high: minimum and maximum of the picture.
    """
    if window == "auto":
        return low, high, f"values {low:g}..{high:g} scaled to 0..255"
    center, width = cast("tuple[float, float]", window)
    first, last = center - width / 2, center + width / 2
    note = f"window center {center:g}, width {width:g}"
    if low < first or high > last:
        note += f": values span {low:g}..{high:g}, those outside {first:g}..{last:g} are clipped"
    return first, last, note


def value_range(values: np.ndarray) -> tuple[float, float]:
    """Return minimum and maximum; ImageReadError if a value is NaN or infinite."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):  # also where one of them is NaN or infinite
        raise ImageReadError("some pixels are NaN or infinite; replace them before reading.")
    return low, high


def _stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """low..high to 0..255, rounded and clipped; a flat picture becomes 0."""
    scale = 255.0 / (high - low) if high > low else 0.0
    out = np.empty(values.shape, np.uint8)
    for rows in row_blocks(*values.shape[:2]):
        out[rows] = np.rint(((values[rows].astype(np.float64) - low) * scale).clip(0, 255))
    return out


def _alpha_to_bytes(alpha: np.ndarray, bits: int | None, bit_depth: int | None) -> np.ndarray:
    """Opacity 0..255; by `bit_depth` where it holds every value, else by the stored range."""
    if alpha.dtype.kind == "f":
        low, high = value_range(alpha)
        if low < 0:
            raise ImageReadError(f"alpha should be 0 or more, got {low:g}; export it again.")
        return _stretch(alpha, 0, max(1.0, high))
    if alpha.dtype.kind == "u" and alpha.dtype.itemsize > 1 and bit_depth:
        bits = bit_depth if int(alpha.max()) < 2**bit_depth else bits
    if alpha.dtype.kind == "u":
        return _stretch(alpha, 0, 2 ** (bits or 8 * alpha.dtype.itemsize) - 1)
    return _to_bytes(alpha, bits, None)[0]


def _over_white(levels: np.ndarray, alpha: np.ndarray, premultiplied: bool) -> np.ndarray:
    out = np.empty_like(levels)
    for rows in row_blocks(*alpha.shape):
        opacity = alpha[rows, :, None] / 255.0
        colours = levels[rows] if premultiplied else levels[rows] * opacity
        out[rows] = np.rint(np.minimum(colours + 255.0 * (1 - opacity), 255))
    return out


def _alpha_seen(block: Image.Image) -> bool:
    return block.convert("RGBA").getchannel("A").getextrema() != (0, 0)


def _boxes(picture: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of blocks of at most `_BLOCK_PIXELS` pixels."""
    width, height = picture.size
    step = min(width, _BLOCK_PIXELS)
    for rows in row_blocks(height, width):
        for left in range(0, width, step):
            yield left, rows.start, min(left + step, width), rows.stop


def row_blocks(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of blocks of about `_BLOCK_PIXELS` pixels."""
    step = max(1, _BLOCK_PIXELS // max(1, width))
    return (slice(top, min(top + step, height)) for top in range(0, height, step))
