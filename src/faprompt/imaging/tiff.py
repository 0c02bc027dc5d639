"""TIFF kinds that Pillow decodes wrongly without a warning, or not at all.

They are planes of 16 bits, white-is-zero values wider than 8 bits, signed bytes, and compressed
big-endian values that are signed, float or 32 bits wide. The header tells. Such a file is
corrected, read with tifffile (extra `tiff`), or refused; it is never shown wrong.

Tag numbers and values: TIFF 6.0 specification (Adobe, 1992).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import Image, TiffImagePlugin

from faprompt.errors import ImageReadError
from faprompt.imaging.decoding import Samples, check_pixels

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6  # photometric
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4}
_OTHER_COLOURS = {YCBCR: "YCbCr colours", 8: "CIELAB colours", 32803: "raw sensor values (CFA)"}
_UNSIGNED, _SIGNED = 1, 2  # sample format
_ASSOCIATED, _UNASSOCIATED = 1, 2  # extra sample: alpha, premultiplied or not
# Compressions that Pillow always decodes; when it fails on one of them, the file is broken.
_PILLOWS = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946}


@dataclass(frozen=True, slots=True)
class TiffHeader:
    """The tags of a TIFF's first picture that decide how its values are read."""

    width: int
    height: int
    bits: tuple[int, ...]  # per sample
    sample_format: int  # 1 unsigned, 2 signed, 3 float; 0 where samples differ
    photometric: int
    extra: tuple[int, ...]  # 0 unspecified, 1 premultiplied alpha, 2 alpha
    planar: bool  # each colour is stored as a plane of its own
    compression: int
    big_endian: bool
    orientation: int
    subsampling: tuple[int, ...]
    end: int  # where the last strip or tile ends, in bytes from the file's beginning

    @classmethod
    def from_tags(cls, tags: Mapping[int, Any], *, big_endian: bool) -> TiffHeader:
        """Build from Pillow's tags; a missing tag takes TIFF's default."""
        samples = int(tags.get(277, 1))
        bits = tuple(tags.get(258, (1,)))
        turn = tags.get(274, 1)
        formats = set(tags.get(339, (_UNSIGNED,)))
        starts = tags.get(273) or tags.get(324) or ()
        counts = tags.get(279) or tags.get(325) or ()
        return cls(
            width=int(tags[256]),
            height=int(tags[257]),
            bits=bits * samples if len(bits) == 1 else bits,
            sample_format=formats.pop() if len(formats) == 1 else 0,
            photometric=int(tags.get(262, WHITE_IS_ZERO)),
            extra=tuple(tags.get(338, ())),
            planar=samples > 1 and tags.get(284, 1) == 2,
            compression=int(tags.get(259, 1)),
            big_endian=big_endian,
            orientation=turn if turn in range(1, 9) else 1,
            subsampling=tuple(tags.get(530, (2, 2))),
            end=max((sum(pair) for pair in zip(starts, counts, strict=False)), default=0),
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) as shown, the orientation applied."""
        size = (self.height, self.width)
        return size[::-1] if self.orientation in (5, 6, 7, 8) else size

    def pillow_fault(self) -> str | None:
        """Name what Pillow decodes wrongly in this file; None if nothing is known."""
        deep = max(self.bits) > 8
        if self.planar and (deep or self.photometric == BLACK_IS_ZERO or 1 in self.extra):
            return f"{len(self.bits)} planes of {max(self.bits)} bits"
        swapped = deep and self.big_endian and self.compression != 1
        if swapped and (self.sample_format != _UNSIGNED or max(self.bits) > 16):
            return "compressed big-endian values"
        if self.photometric == YCBCR and self.compression == 1 and self.subsampling != (1, 1):
            return "uncompressed YCbCr with subsampled colours"
        return None


def read_header(stream: IO[bytes]) -> TiffHeader:
    """Return the header of a TIFF's first picture; raises what Pillow raises on a broken one."""
    stream.seek(0)
    head = stream.read(8)
    order, magic = head[:2], b"II*\x00"
    if 43 in head[2:4]:  # BigTIFF; Pillow knows it by the little-endian magic alone
        magic, head = b"II+\x00", head + stream.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(magic + head[4:], prefix=order)
    stream.seek(tags.next)
    tags.load(stream)
    return TiffHeader.from_tags(tags, big_endian=order == b"MM")


def picture_header(picture: Image.Image) -> TiffHeader | None:
    """Return the header of a picture that Pillow opened from a TIFF, None for other pictures."""
    tags = getattr(picture, "tag_v2", None)
    return TiffHeader.from_tags(tags, big_endian=tags.prefix == b"MM") if tags else None


def mend(picture: Image.Image, header: TiffHeader) -> Samples | None:
    """Return the values of a decoded one-channel TIFF as its header means them.

    Pillow drops the sign of bytes, adds one to unsigned 32-bit values, and applies
    white-is-zero to 8 bits alone. None where Pillow's picture is right.
    """
    bits, signed = header.bits[0], header.sample_format == _SIGNED
    if len(header.bits) > 1 or (bits <= 8 and not signed):
        return None
    values = np.asarray(picture)
    if bits == 8:
        values = values.view(np.int8)
    elif bits == 16 and signed:
        values = values.astype(np.int16)
    elif bits == 32 and header.sample_format == _UNSIGNED:
        values = values.view(np.uint32)
    return Samples(values, bits=bits, white_is_zero=header.photometric == WHITE_IS_ZERO)


def read_with_tifffile(
    stream: IO[bytes], *, max_pixels: int, reason: str
) -> tuple[Samples, tuple[str, ...]]:
    """Decode the first picture of a TIFF that Pillow does not read, for the given reason.

    Returns:
        The upright values, and notes for the user.

    Raises:
        ImageReadError: tifffile is not installed, or neither library reads this kind.
    """
    header = read_header(stream)
    check_pixels(header.width, header.height, max_pixels=max_pixels)
    if header.photometric not in _COLOURS or len(set(header.bits)) > 1:
        kind = _OTHER_COLOURS.get(header.photometric, f"photometric {header.photometric}")
        raise ImageReadError(
            f"a TIFF of {kind}, {header.bits} bits is not read; export it as grey or RGB."
        )
    if stream.seek(0, 2) < header.end:
        raise ImageReadError("the picture is truncated; copy or export it again.")
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError:
        raise ImageReadError(_missing(reason)) from None
    stream.seek(0)
    with tifffile.TiffFile(stream) as tiff:
        page, count = tiff.pages[0], len(tiff.pages)
        if len(page.dataoffsets) < math.prod(page.chunked):  # tifffile would fill in zeros
            raise ImageReadError("strips or tiles are missing; copy or export it again.")
        try:
            array = page.asarray()
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise ImageReadError(_missing(str(error))) from error
            raise
        colormap = page.colormap if header.photometric == PALETTE else None
    if array.ndim == 3 and page.axes.startswith("S"):
        array = np.moveaxis(array, 0, -1)
    samples, notes = split_channels(array, header, colormap)
    frames = (f"frame 0 of {count}",) if count > 1 else ()
    return samples.upright(header.orientation), ("read with tifffile", *frames, *notes)


def decode_failed_for_good(header: TiffHeader) -> bool:
    """Return whether no other library would decode what Pillow failed to decode."""
    return header.compression in _PILLOWS and header.pillow_fault() is None


def _missing(reason: str) -> str:
    return (
        f"this TIFF is corrupt, or of a kind Pillow does not read ({reason.rstrip('.')}); "
        "export it again as PNG, or install faprompt[tiff] for more kinds."
    )


def split_channels(
    array: np.ndarray, header: TiffHeader, colormap: np.ndarray | None
) -> tuple[Samples, tuple[str, ...]]:
    """Split (H, W) or (H, W, S) into colours and alpha, by the header."""
    colours = _COLOURS[header.photometric]
    if array.ndim not in (2, 3):
        raise ImageReadError(f"a TIFF of shape {array.shape} is not read; export slices of it.")
    bands = array if array.ndim == 3 else array[..., None]
    notes: tuple[str, ...] = ()
    further = bands.shape[2] - colours
    if further < 0:
        raise ImageReadError(
            f"{bands.shape[2]} channels where its header means {colours}; the file is damaged, so "
            "copy or export it again."
        )
    alpha_at = _alpha_index(header.extra, colours, further)
    if colours == 1 and further > 1 and alpha_at is None:
        if further > 2:
            raise ImageReadError(f"{further + 1} grey channels; export one of them, or RGB.")
        colours, further, notes = 3, 0, ("3 grey channels read as red, green, blue",)
    ignored = further - (alpha_at is not None)
    if ignored:
        notes = (f"{ignored} extra channel(s) ignored",)
    values = bands[..., 0] if colours == 1 else bands[..., :colours]
    bits = header.bits[0]
    if colormap is not None:
        values, bits = np.moveaxis(np.asarray(colormap), 0, -1)[values], 16
    samples = Samples(
        values,
        alpha=None if alpha_at is None else bands[..., alpha_at],
        bits=bits,
        white_is_zero=header.photometric == WHITE_IS_ZERO,
        premultiplied=_ASSOCIATED in header.extra,
    )
    return samples, notes


def _alpha_index(extra: tuple[int, ...], colours: int, further: int) -> int | None:
    """Return the channel that holds alpha, None without one."""
    kinds = extra[:further]
    if not extra and colours == 3 and further == 1:  # a missing tag, taken as Pillow takes it
        kinds = (_UNASSOCIATED,)
    found = [place for place, kind in enumerate(kinds) if kind in (_ASSOCIATED, _UNASSOCIATED)]
    return colours + found[0] if found else None
