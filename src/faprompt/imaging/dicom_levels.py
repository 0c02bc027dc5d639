"""Scale the stored values of a DICOM picture to bytes, as its header or a given window says.

Grey values are rescaled, or replaced by the modality table; then the window or the table of the
file (or a given window) makes them black to white; then MONOCHROME1 is inverted.

Source: DICOM PS3.3 C.7.6.3, C.11.1 and C.11.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from faprompt.errors import ImageReadError
from faprompt.imaging.decoding import Samples
from faprompt.imaging.reading_options import ReadingOptions
from faprompt.imaging.rgb_levels import (
    Levels,
    row_blocks,
    samples_to_rgb,
    value_range,
    window_range,
)

Curve: TypeAlias = Callable[[np.ndarray], np.ndarray]  # values to 0..255; the rest is clipped
_COLOURS = "window not applied: the picture has colours"


@contextmanager
def no_header_in_errors() -> Iterator[None]:
    """Make any failure an `ImageReadError` that repeats nothing of the file."""
    try:
        yield
    except (ImageReadError, MemoryError):
        raise
    except Exception as error:
        raise ImageReadError(
            f"the DICOM file is truncated or corrupt ({type(error).__name__}); copy or export it "
            "again."
        ) from None


@dataclass(frozen=True, slots=True, eq=False)
class DicomPicture:
    """The stored values of a frame, and the header that says how to show them."""

    values: np.ndarray  # (H, W) grey, or (H, W, 3) RGB; a modality table is applied
    header: Any  # pydicom's dataset of technical elements, those of the frame included
    notes: tuple[str, ...] = ()

    @property
    def inverted(self) -> bool:
        """Whether low values are bright."""
        shape = self.header.get("PresentationLUTShape")
        if shape in ("IDENTITY", "INVERSE"):
            return bool(shape == "INVERSE")
        return bool(self.header.PhotometricInterpretation == "MONOCHROME1")

    def samples(self) -> Samples:
        """Return the values without rescale and window."""
        return Samples(self.values, white_is_zero=self.values.ndim == 2 and self.inverted)

    def to_rgb(self, options: ReadingOptions) -> Levels:
        """Return the RGB bytes (H, W, 3), and notes for the user.

        Raises:
            ImageReadError: values or rescale that are no numbers; or a bit depth for grey values
                of more than 8 bits, because the header states the bits.
        """
        if self.values.ndim == 3:
            palette = self.header.PhotometricInterpretation == "PALETTE COLOR"
            bits = 8 * self.values.dtype.itemsize if palette else int(self.header.BitsStored)
            levels, _ = samples_to_rgb(Samples(self.values, bits=bits), bit_depth=bits)
            return levels, (*self.notes, *((_COLOURS,) if options.window else ()))
        with no_header_in_errors():
            levels, notes = self._grey(options)
        return levels, self.notes + notes

    def _grey(self, options: ReadingOptions) -> Levels:
        if options.bit_depth is not None and self._bits > 8:
            raise ImageReadError(
                "bit_depth does not apply to a DICOM file, whose header states the bits; leave it "
                "out, or give a window."
            )
        padding, rescaled = self._padding(), self._rescale()
        seen = self.values if padding is None else self.values[~padding]
        show, notes = self._curve(options, *sorted(map(rescaled, value_range(seen))))
        grey = np.empty(self.values.shape, np.uint8)
        for rows in row_blocks(*self.values.shape):
            block = rescaled(self.values[rows].astype(np.float64))
            grey[rows] = np.rint(show(block).clip(0, 255))
        if self.inverted:
            grey = 255 - grey
        if padding is not None:
            grey[padding] = 0
            notes += ("padding pixels are black",)
        return np.repeat(grey[..., None], 3, axis=2), notes

    @property
    def _bits(self) -> int:
        """Bits of a grey value; those of its type where it has a modality table or is a float."""
        if self.header.get("ModalityLUTSequence") or self.values.dtype.kind == "f":
            return 8 * self.values.dtype.itemsize
        return int(self.header.BitsStored)

    def _padding(self) -> np.ndarray | None:
        """Return which pixels have no value, (H, W) bool; None if all or none of them."""
        first = self.header.get("PixelPaddingValue")
        if first is None or self.header.get("ModalityLUTSequence"):
            return None
        ends = [int(first), int(self.header.get("PixelPaddingRangeLimit", first))]
        low, high = np.sort(np.array(ends).astype(self.values.dtype))  # 63536 may mean -2000
        padding = (self.values >= low) & (self.values <= high)
        return padding if padding.any() and not padding.all() else None

    def _rescale(self) -> Callable[[Any], Any]:
        """Return the function from stored to rescaled values."""
        if self.header.get("ModalityLUTSequence"):
            return lambda values: values
        slope = float(self.header.get("RescaleSlope", 1))
        intercept = float(self.header.get("RescaleIntercept", 0))
        if not math.isfinite(slope * intercept) or slope == 0:
            raise ImageReadError("its rescale slope and intercept are no usable numbers.")
        return lambda values: values * slope + intercept

    def _curve(
        self, options: ReadingOptions, low: float, high: float
    ) -> tuple[Curve, tuple[str, ...]]:
        """Return what makes rescaled values 0..255, and notes; `low` and `high` are their range."""
        if options.window is not None:
            first, last, note = window_range(options.window, low, high)
            return _line(first, last), (note,)
        if window := _file_window(self.header):
            return window
        if tables := self.header.get("VOILUTSequence"):
            table, start, bits = lookup_table(tables[0], self.header)
            step = 255 / (2**bits - 1)
            return lambda x: look_up(np.rint(x), table, start) * step, ("table of the file",)
        if self._bits <= 8:
            bottom = -(2 ** (self._bits - 1)) if self.header.get("PixelRepresentation") else 0
            ends = bottom, bottom + 2**self._bits - 1
            if not self.header.get("ModalityLUTSequence"):
                ends = tuple(sorted(map(self._rescale(), ends)))
            return _line(*ends), ()
        note = (
            f"no window in the file: values {low:g}..{high:g} scaled to 0..255; give all files one "
            "by window=CENTER,WIDTH"
        )
        return _line(low, high), (note,)


def _line(first: float, last: float) -> Curve:
    scale = 255.0 / (last - first) if last > first else 0.0
    return lambda values: (values - first) * scale


def _file_window(header: Any) -> tuple[Curve, tuple[str, ...]] | None:
    """Return the first window of a file, and its note; None without a usable one."""
    center, width = (_first_number(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    kind = str(header.get("VOILUTFunction") or "LINEAR")
    if center is None or width is None or kind not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        return None
    if width < 1 if kind == "LINEAR" else width <= 0:
        return None
    notes = (f"window of the file: center {center:g}, width {width:g}, {kind}",)
    if kind == "SIGMOID":
        return lambda x: 255 / (1 + np.exp((-4 * (x - center) / width).clip(-700, 700))), notes
    if kind == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:  # a step
        return lambda x: np.where(x > center, 255.0, 0.0), notes
    return _line(center - width / 2, center + width / 2), notes


def _first_number(value: Any) -> float | None:
    """Return a number, or the first of several; None where it is missing or not finite."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def lookup_table(item: Any, header: Any) -> tuple[np.ndarray, int, int]:
    """Return the entries of a lookup table, the value that the first is for, and its bits.

    Raises:
        ImageReadError: the table is empty, or its bits are not 8 to 16.
    """
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    data, count = item.LUTData, count or 2**16
    if isinstance(data, bytes):
        order = "<" if header.original_encoding[1] else ">"
        data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * count else np.uint8)
    table = np.asarray(data)[:count].astype(np.uint16)
    if not len(table) or not 8 <= bits <= 16:
        raise ImageReadError("its lookup table is damaged; export the picture again.")
    return table, first, bits


def look_up(values: np.ndarray, table: np.ndarray, first: int) -> np.ndarray:
    """Return the entries of a table; the first and the last serve for values outside it."""
    return table[(values.astype(np.int64) - first).clip(0, len(table) - 1)]
