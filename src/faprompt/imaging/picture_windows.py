"""Read parts of a picture: of an array in memory, or of a large TIFF that is decoded in bands.

A TIFF is read in windows where one small part of it can be decoded alone: unsigned values of 8 or
16 bits, grey or RGB, in strips or tiles, upright. Its levels are those of `read_image`, to the
bit. Every other picture is decoded whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from faprompt.errors import ImageReadError, MissingExtraError
from faprompt.imaging.decoding import HEAD_BYTES, Samples, check_pixels, identify
from faprompt.imaging.image_reading import MAX_PIXELS, count_pixels, read_named
from faprompt.imaging.picture_sources import FileSource, errors_named, open_stream, source_name
from faprompt.imaging.picture_views import Box
from faprompt.imaging.reading_options import ReadingOptions, Window
from faprompt.imaging.rgb_levels import NOT_WINDOWED, picture_to_rgb, samples_to_rgb
from faprompt.imaging.tiff import (
    BLACK_IS_ZERO,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    TiffHeader,
    read_header,
    split_channels,
)
from faprompt.work import load_extra

WHOLE_PIXELS = 2**24  # pictures up to this size are decoded whole
MOST_BAND_BYTES = 2**28  # of one decoded row of segments; a TIFF with larger ones is decoded whole

_BLOCK_PIXELS = 2**20  # of a band that is read from uncompressed rows, or shrunk at once
_UNCOMPRESSED, _JPEG = 1, 7
_COMPRESSIONS = (_UNCOMPRESSED, 5, _JPEG, 8, 32773, 32946)  # LZW 5, deflate 8 and 32946, packbits


class PictureWindows(Protocol):
    """A picture whose parts are read when they are needed."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about how the picture is read."""

    def read(self, box: Box) -> np.ndarray:
        """Return the pixels of a box, (h, w, 3) uint8 RGB; they may share the picture's memory."""

    def thumbnail(self, max_side: int) -> np.ndarray:
        """Return the picture with its longer side at most `max_side`, (h, w, 3) uint8 RGB."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayWindows:
    """Windows of a picture in memory."""

    array: np.ndarray  # (H, W, 3) uint8 RGB
    notes: tuple[str, ...] = ()

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.array.shape[:2]
        return height, width

    def read(self, box: Box) -> np.ndarray:
        """Return a view of the pixels of a box; a box outside is a `ValueError`."""
        _check_box(box, self.image_size)
        x0, y0, x1, y1 = box
        return self.array[y0:y1, x0:x1]

    def thumbnail(self, max_side: int) -> np.ndarray:
        """Return the picture with its longer side at most `max_side`, each pixel a mean."""
        return _shrink(self, max_side)


@contextmanager
def open_windows(
    source: FileSource,
    *,
    name: str | None = None,
    bit_depth: int | None = None,
    window: Window | None = None,
    max_pixels: int = MAX_PIXELS,
    whole_pixels: int = WHOLE_PIXELS,
) -> Iterator[PictureWindows]:
    """Open a picture file for reading in windows, and close it at the end.

    16-bit values and alpha are decoded once on opening, for their range: it decides the notes,
    an automatic window, and whether `bit_depth` holds all values. `read` decodes the rows that
    a box needs, and keeps them until a box needs other rows; boxes in row-major order make it
    decode everything once.

    Args:
        source: the picture file, or its bytes.
        name: begins the errors; default: the path of the file.
        bit_depth, window, max_pixels: as for `read_image`.
        whole_pixels: a picture of up to this many pixels is decoded whole, in any case.

    Raises:
        ImageReadError: as `read_image`, also while a window is read.
        ValueError, TypeError: as `read_image`.
    """
    options = ReadingOptions(bit_depth=bit_depth, window=window, max_pixels=max_pixels)
    notes: tuple[str, ...] = ()
    windows: PictureWindows | None = None
    with ExitStack() as stack:
        named = source_name(source) if name is None else name
        with errors_named(named):
            try:
                windows = _open_tiff(source, named, stack, options, whole_pixels)
            except MissingExtraError:
                notes = ("decoded whole; faprompt[tiff] would read it in parts, with less memory",)
        if windows is None:
            picture = read_named(source, named, **options.arguments())
            windows = ArrayWindows(picture.array, picture.notes + notes)
        yield windows


def _open_tiff(
    source: FileSource,
    name: str,
    stack: ExitStack,
    options: ReadingOptions,
    whole_pixels: int,
) -> _TiffWindows | None:
    """Return the windows of a TIFF; None if it has to be decoded whole."""
    if count_pixels(source) <= whole_pixels:  # 0 for a broken header, which `read_image` reports
        return None
    stream = stack.enter_context(open_stream(source))
    if identify(stream.read(HEAD_BYTES)) != "TIFF":
        return None
    header = read_header(stream)
    check_pixels(header.width, header.height, max_pixels=options.max_pixels)
    if not _has_windows(header):
        return None
    load_extra("tiff", "imagecodecs")
    tifffile = load_extra("tiff", "tifffile")
    if stream.seek(0, 2) < header.end:
        raise ImageReadError("the picture is truncated; copy or export it again.")
    stream.seek(0)
    tiff = stack.enter_context(tifffile.TiffFile(stream))
    bands = _TiffBands(tiff.pages[0])
    if not bands.decodable or (header.big_endian and tiff.is_bigtiff):
        return None
    count = len(tiff.pages)
    notes = ("read in parts", *((f"frame 0 of {count}",) if count > 1 else ()))
    levels = _BandLevels.measured(bands, header, options)
    if levels is None:
        return None
    return _TiffWindows(name, bands, levels, notes + levels.notes)


def _has_windows(header: TiffHeader) -> bool:
    """Return whether both libraries decode this kind alike, in parts."""
    colours, extra = len(header.bits), header.extra
    if header.planar or header.orientation != 1 or header.compression not in _COMPRESSIONS:
        return False
    if set(header.bits) not in ({8}, {16}) or header.sample_format != 1:
        return False
    if header.photometric in (BLACK_IS_ZERO, WHITE_IS_ZERO):
        return colours == 1 and not extra
    if header.compression == _JPEG:
        return header.photometric in (RGB, YCBCR) and colours == 3 and set(header.bits) == {8}
    return header.photometric == RGB and colours in (3, 4) and len(extra) <= colours - 3


class _TiffBands:
    """Stored values of one TIFF page, decoded in bands as wide as the picture."""

    def __init__(self, page: Any) -> None:
        self.size = (page.imagelength, page.imagewidth)
        self._page, self._plain = page, page.is_contiguous
        side = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, None)
        self.rows = min(int(side[0]), self.size[0])  # of each band; the last may have fewer
        if self._plain:
            self.rows = max(1, _BLOCK_PIXELS // self.size[1])
        self._across = math.ceil(self.size[1] / side[1]) if side[1] else 1
        self.count = math.ceil(self.size[0] / self.rows)

    @property
    def decodable(self) -> bool:
        """Whether each band is small, and of segments that are all there."""
        page, (_, width) = self._page, self.size
        if page.dtype is None or page.imagedepth != 1 or page.fillorder != 1 or page.jpegheader:
            return False
        if page.predictor not in ((1,) if page.compression == _UNCOMPRESSED else (1, 2)):
            return False
        if self.rows * width * page.samplesperpixel * page.dtype.itemsize > MOST_BAND_BYTES:
            return False
        if self._plain:
            return bool(sum(page.databytecounts) >= page.nbytes)
        places = (page.dataoffsets, page.databytecounts)
        return all(len(p) == self.count * self._across and all(p) for p in places)

    def decode(self, band: int) -> np.ndarray:
        """Return the values of a band, (rows, width, samples) uint8 or uint16."""
        page, (height, width) = self._page, self.size
        top = band * self.rows
        shape = (min(self.rows, height - top), width, page.samplesperpixel)
        if self._plain:
            return self._read_rows(top, shape)
        values = np.empty(shape, page.dtype)
        tables = {"jpegtables": page.jpegtables} if page.compression == _JPEG else {}
        for index in range(band * self._across, (band + 1) * self._across):
            data = self._read(page.dataoffsets[index], page.databytecounts[index])
            segment, (_, _, _, left, _), _ = page.decode(data, index, **tables)
            values[:, left : left + segment.shape[2]] = segment[0, : shape[0], : width - left]
        return values

    def _read_rows(self, top: int, shape: tuple[int, int, int]) -> np.ndarray:
        page = self._page
        row_bytes = shape[1] * shape[2] * page.dtype.itemsize
        data = self._read(page.dataoffsets[0] + top * row_bytes, shape[0] * row_bytes)
        stored = np.frombuffer(data, page.dtype.newbyteorder(page.parent.byteorder))
        return stored.astype(page.dtype, copy=False).reshape(shape)

    def _read(self, offset: int, count: int) -> bytes:
        stream = self._page.parent.filehandle
        stream.seek(offset)
        data: bytes = stream.read(count)
        if len(data) < count:
            raise ImageReadError("the picture is truncated; copy or export it again.")
        return data


@dataclass(frozen=True, slots=True)
class _BandLevels:
    """How stored values become RGB bytes: the rules of `read_image`, in any part of a picture."""

    header: TiffHeader
    bit_depth: int | None
    window: Window | None
    see_through: bool  # some pixel's alpha is above 0
    notes: tuple[str, ...]

    @classmethod
    def measured(
        cls, bands: _TiffBands, header: TiffHeader, options: ReadingOptions
    ) -> _BandLevels | None:
        """Decode all bands for the range of their values, where the rules depend on it.

        Returns:
            None where `bit_depth` holds the values of some pixels' alpha, but not of all.

        Raises:
            ImageReadError: values that `bit_depth` cannot hold.
        """
        if header.compression == _JPEG and header.photometric == YCBCR:
            header = replace(header, photometric=RGB)  # tifffile converts the colours
        bit_depth, window = options.bit_depth, options.window
        levels = cls(header, bit_depth, window, False, ())
        if header.bits[0] == 8 and len(header.bits) < 4:
            return replace(levels, notes=(NOT_WINDOWED,) if window else ())
        decoded = (bands.decode(band) for band in range(bands.count))
        ends = [(values.min(axis=(0, 1)), values.max(axis=(0, 1))) for values in decoded]
        lows, peaks = (np.array(values) for values in zip(*ends, strict=True))
        samples, _ = levels._split(np.stack([lows.min(axis=0), peaks.max(axis=0)])[None])
        _, notes = samples_to_rgb(samples, bit_depth=bit_depth, window=window)
        if window == "auto":
            low, high = int(samples.values.min()), int(samples.values.max())
            window = ((low + high) / 2, high - low)
        alpha = 0 if samples.alpha is None else int(samples.alpha.max())
        if header.bits[0] == 16 and bit_depth and alpha >= 2**bit_depth:
            return None
        return replace(levels, window=window, see_through=alpha > 0, notes=notes)

    def _split(self, values: np.ndarray) -> tuple[Samples, tuple[str, ...]]:
        return split_channels(values[..., 0] if values.shape[2] == 1 else values, self.header, None)

    def to_rgb(self, values: np.ndarray) -> np.ndarray:
        """Return the RGB bytes (rows, width, 3) of stored values (rows, width, samples)."""
        samples, _ = self._split(values)
        if samples.alpha is not None and not self.see_through:
            samples = replace(samples, alpha=None, premultiplied=False)
        elif samples.alpha is not None and not samples.alpha.any():
            return np.full((*samples.alpha.shape, 3), 255, np.uint8)
        elif samples.alpha is not None and not samples.premultiplied and self.header.bits[0] == 8:
            return picture_to_rgb(Image.fromarray(values))[0]
        return samples_to_rgb(samples, bit_depth=self.bit_depth, window=self.window)[0]


class _TiffWindows:
    """Windows of a TIFF; the bands that the last box needed are kept as RGB bytes."""

    def __init__(
        self, name: str, bands: _TiffBands, levels: _BandLevels, notes: tuple[str, ...]
    ) -> None:
        self.notes, self.image_size = notes, bands.size
        self._name, self._bands, self._levels = name, bands, levels
        self._kept: dict[int, np.ndarray] = {}

    def read(self, box: Box) -> np.ndarray:
        """Return the pixels of a box; a box outside the picture is a `ValueError`."""
        _check_box(box, self.image_size)
        x0, y0, x1, y1 = box
        rows = self._bands.rows
        needed = range(y0 // rows, (y1 - 1) // rows + 1)
        self._kept = {band: kept for band, kept in self._kept.items() if band in needed}
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for band in needed:
            top = band * rows
            part = self._band(band)[max(0, y0 - top) : y1 - top, x0:x1]
            start = max(0, top - y0)
            out[start : start + len(part)] = part
        return out

    def _band(self, band: int) -> np.ndarray:
        if band not in self._kept:
            with errors_named(self._name):
                self._kept[band] = self._levels.to_rgb(self._bands.decode(band))
        return self._kept[band]

    def thumbnail(self, max_side: int) -> np.ndarray:
        """Return the picture with its longer side at most `max_side`, each pixel a mean."""
        return _shrink(self, max_side)


def _check_box(box: Box, image_size: tuple[int, int]) -> None:
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= image_size[1] and 0 <= y0 < y1 <= image_size[0]):
        raise ValueError(f"The box {box} should lie in a picture of {image_size}.")


def _shrink(windows: PictureWindows, max_side: int) -> np.ndarray:
    """Shrink a picture band by band with Pillow's box filter."""
    height, width = windows.image_size
    if max_side < 1:
        raise ValueError(f"max_side should be at least 1 pixel, got {max_side}.")
    if max_side >= max(height, width):
        return windows.read((0, 0, width, height))
    share = max_side / max(height, width)
    small = (max(1, round(height * share)), max(1, round(width * share)))
    out, scale = np.empty((*small, 3), np.uint8), height / small[0]
    step = max(1, int(_BLOCK_PIXELS / (scale * width)))
    for first in range(0, small[0], step):
        last = min(first + step, small[0])
        top, bottom = int(first * scale), min(height, math.ceil(last * scale))
        edges = (0, first * scale - top, width, min(last * scale, height) - top)
        block = Image.fromarray(windows.read((0, top, width, bottom)))
        shrunk = block.resize((small[1], last - first), Image.Resampling.BOX, box=edges)
        out[first:last] = np.asarray(shrunk)
    return out
