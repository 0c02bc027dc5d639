"""Open picture files by their content, and hold values as they are stored, with every bit.

Pillow keeps only the upper byte of 16-bit colours. Both bytes are read here by decoding the
file twice, once with each byte order: a decoder with the wrong order returns the lower bytes.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from faprompt.errors import ImageReadError

DICOM_EXTENSIONS = (".dcm", ".dicom")
IMAGE_EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp"}
    | {*DICOM_EXTENSIONS}
)
HEAD_BYTES = 160  # enough for every signature below, DICOM's at byte 128 included

_SIGNATURES: tuple[tuple[str, bytes], ...] = (
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("JPEG", b"\xff\xd8\xff"),
    ("TIFF", b"II*\x00"),
    ("TIFF", b"MM\x00*"),
    ("TIFF", b"II+\x00"),  # BigTIFF
    ("TIFF", b"MM\x00+"),
    ("BMP", b"BM"),
)
_EXPORT_SLICES = "export its slices as 16-bit PNG or DICOM (docs/scans.md)"
# the size of the header, 348 or 540 bytes, in both byte orders
_NIFTI = (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")
_OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "a GIF; save it as PNG"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"\x93NUMPY", "a NumPy array; load it and pass the array"),
    (b"version https://git-lfs", "a git-lfs pointer; run 'git lfs pull' first"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 picture; convert it to PNG"),
    (b"\xff\x0a", "a JPEG XL picture; convert it to PNG"),
    (b"\x7fELF", "a program"),
    (b"NRRD", f"an NRRD volume; {_EXPORT_SLICES}"),
    (b"ObjectType = Image", f"a MetaImage volume (.mha, .mhd); {_EXPORT_SLICES}"),
    (b"NDims = ", f"a MetaImage volume (.mha, .mhd); {_EXPORT_SLICES}"),
    *((size, f"a NIfTI or Analyze volume (.nii, .hdr); {_EXPORT_SLICES}") for size in _NIFTI),
)
_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
_GREY_STEP = {"L;2": 85, "L;4": 17}  # Pillow widens these PNG values to 8 bits, not their tRNS


class _Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF whose pixel limit is ours alone: Pillow applies its global one again on load."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)
        ImageFile.ImageFile.load_prepare(self)


# In place of Image.open(formats=...): its pixel limit is global to the process. It warns above
# 89 million pixels and refuses above 179 million; here every caller brings a limit.
_OPENERS: dict[str, Callable[[IO[bytes]], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.jpeg_factory,
    "TIFF": _Tiff,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}


def identify(head: bytes) -> str | None:
    """Return "PNG", "JPEG", "TIFF", "BMP" or "WebP" from the first bytes, None for other files."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((kind for kind, magic in _SIGNATURES if head.startswith(magic)), None)


def describe(head: bytes, name: str = "") -> str:
    """Describe bytes that are no readable picture, for an error message.

    `name` is that of the file: an Analyze volume without its header is known by its ending alone.

    Example:
        >>> describe(b"path,label\\n1.png,0\\n")
        "a text file that begins 'path,label'"
    """
    for magic, words in _OTHER_FILES:
        if head.startswith(magic):
            return words
    if head.startswith(b"\x1f\x8b"):
        return _describe_gzip(head)
    if head[128:132] == b"DICM":
        return "a DICOM file, which is not read for this; export it as 16-bit PNG or TIFF"
    if name.lower().endswith(".img"):
        return f"the values of a NIfTI or Analyze volume (.img); {_EXPORT_SLICES}"
    if head[4:8] == b"ftyp":
        return "a HEIF, AVIF or video file; convert it to PNG"
    text = head.decode("utf-8", errors="ignore").strip()
    if text and len(text) >= 0.9 * len(head.strip()) and b"\x00" not in head:
        return f"a text file that begins {text.splitlines()[0][:40]!r}"
    return f"unknown bytes that begin {head[:8].hex(' ')}"


def _describe_gzip(head: bytes) -> str:
    try:
        inner = zlib.decompressobj(wbits=31).decompress(head, 64)
    except zlib.error:
        inner = b""
    if inner.startswith(_NIFTI):
        return f"a compressed NIfTI volume (.nii.gz); {_EXPORT_SLICES}"
    return "a gzip archive; unpack it first"


def open_picture(stream: IO[bytes], *, max_pixels: int) -> ImageFile.ImageFile:
    """Open a picture of one of the five kinds: its header is checked, no pixel is decoded.

    Args:
        stream: a seekable binary stream at its beginning.
        max_pixels: limit of width times height.

    Raises:
        ImageReadError: empty, of no allowed kind, or above the limit.
        Exception: any error that Pillow raises on a broken header.
    """
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    if not head:
        raise ImageReadError("the file is empty (0 bytes); copy it again from its source.")
    kind = identify(head)
    if kind is None:
        raise ImageReadError(
            "its content is none of PNG, JPEG, TIFF, BMP, WebP and DICOM; it looks like "
            f"{describe(head, str(getattr(stream, 'name', '')))}."
        )
    if kind == "WebP":  # its decoder takes memory for the whole canvas when it is made
        check_pixels(*_webp_size(head), max_pixels=max_pixels)
    if head.startswith(b"MM\x00+"):
        raise SyntaxError("big-endian BigTIFF")
    # No file name is passed: with one, Pillow would map the file into memory, and a file
    # cut short while it is read would end the whole process.
    picture = _OPENERS[kind](stream)
    check_pixels(*picture.size, max_pixels=max_pixels)
    return picture


def check_pixels(width: int, height: int, *, max_pixels: int) -> None:
    """Refuse a picture of more than `max_pixels` pixels with an `ImageReadError`."""
    if width * height > max_pixels:
        raise ImageReadError(
            f"{width}x{height} is {width * height:,} pixels, above the limit of {max_pixels:,}; "
            "cut or shrink the picture, or raise max_pixels (--max-pixels on the command line)."
        )


def _webp_size(head: bytes) -> tuple[int, int]:
    """(width, height) of a WebP canvas from its first 30 bytes; (0, 0) where unknown."""
    chunk, body = head[12:16], head[20:30]
    if len(body) < 10:
        return 0, 0
    if chunk == b"VP8X":
        width, height = int.from_bytes(body[4:7], "little"), int.from_bytes(body[7:10], "little")
        return width + 1, height + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        bits = int.from_bytes(body[6:10], "little")
        return bits & 0x3FFF, bits >> 16 & 0x3FFF
    return 0, 0


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Pixel values of one picture and what is needed to show them."""

    values: np.ndarray  # (H, W) grey, (H, W, 3) RGB or (H, W, 4) CMYK; any integer or float type
    alpha: np.ndarray | None = None  # (H, W); bool (True is opaque), or the type of `values`
    bits: int | None = None  # bits per value by the file's header; None: those of the type
    white_is_zero: bool = False
    premultiplied: bool = False  # colours are already multiplied by alpha

    def upright(self, orientation: int) -> Samples:
        """Return the values turned by an EXIF orientation, 1 to 8."""
        alpha = None if self.alpha is None else upright(self.alpha, orientation)
        return replace(self, values=upright(self.values, orientation), alpha=alpha)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (H, W, ...) by an EXIF orientation; values other than 2 to 8 change nothing.

    `ImageOps.exif_transpose` does not serve here: it turns Pillow pictures only, which hold
    neither 16-bit colours nor what tifffile reads, and fails on a broken EXIF table.

    Source: EXIF 2.3, tag 274.

    Example:
        >>> upright(np.array([[1, 2, 3]]), 6).tolist()
        [[1], [2], [3]]
    """
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array


def picture_samples(picture: Image.Image) -> Samples:
    """Return the values of any decoded Pillow picture but CIELAB; palettes and CMYK as RGB."""
    samples = wide_samples(picture)
    if samples is not None:
        return samples
    refuse_lab(picture)
    if picture.has_transparency_data:
        rgba = np.asarray(picture.convert("RGBA"))
        return Samples(rgba[..., :3], alpha=rgba[..., 3])
    return Samples(np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB")))


def wide_samples(picture: Image.Image) -> Samples | None:
    """Return the values of a Pillow picture that its 8-bit conversions would change, else None."""
    if picture.mode in _GREY_16:
        return _with_key(picture, np.asarray(picture))
    if picture.mode in ("I", "F"):
        return Samples(np.asarray(picture))
    if picture.mode in ("La", "RGBa"):
        stored = np.asarray(picture)
        values = stored[..., 0] if picture.mode == "La" else stored[..., :3]
        return Samples(values, alpha=stored[..., -1], premultiplied=True)
    return None


def _with_key(picture: Image.Image, values: np.ndarray) -> Samples:
    """Values with alpha 0 where they equal the transparent grey or colour of a PNG."""
    key = picture.info.get("transparency")
    if key is None:
        return Samples(values)
    other = values != key
    return Samples(values, alpha=other if values.ndim == 2 else other.any(axis=2))


def refuse_lab(picture: Image.Image) -> None:
    """Raise an `ImageReadError` for CIELAB colours, which need a colour profile."""
    if picture.mode == "LAB":
        raise ImageReadError("CIELAB colours are not read; convert the picture to RGB.")


def widen_key(picture: Image.Image) -> None:
    """Widen the transparent grey of a 2- or 4-bit PNG as Pillow widens its pixels."""
    step = _GREY_STEP.get(raw_mode(picture)) if picture.format == "PNG" else None
    if step and "transparency" in picture.info:
        picture.info["transparency"] *= step


def raw_mode(picture: Image.Image) -> str:
    """Return how Pillow will unpack a picture that is not decoded yet; "" once it is."""
    tiles = getattr(picture, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return arguments if isinstance(arguments, str) else str((arguments or [""])[0])


def read_colours(
    picture: ImageFile.ImageFile, stream: IO[bytes], *, max_pixels: int
) -> Samples | None:
    """Decode 16-bit or premultiplied colours with every bit; None where a picture has neither.

    The picture was opened from `stream` and is not decoded yet. A TIFF is returned upright.
    """
    raw = raw_mode(picture)
    plain = raw.replace("RGBa", "RGBA")  # unpack the stored values, do not divide by alpha
    if ";16" not in raw:
        if plain == raw:
            return None
        stored = _load(picture, plain)
        return Samples(stored[..., :3], alpha=stored[..., 3], premultiplied=True)
    if raw == "LA;16B":
        pairs = _load(picture, "RGBA").view(">u2")
        return Samples(pairs[..., 0], alpha=pairs[..., 1])
    if not raw.startswith("RGB"):
        return None
    values = _both_bytes(picture, plain, stream, max_pixels)
    if values.shape[2] == 4:
        return Samples(values[..., :3], alpha=values[..., 3], premultiplied=plain != raw)
    return _with_key(picture, values)


def _both_bytes(
    picture: ImageFile.ImageFile, raw: str, stream: IO[bytes], max_pixels: int
) -> np.ndarray:
    """(H, W, 3 or 4) uint16 of colours whose raw mode ends in ;16B, ;16L or ;16N (native)."""
    high, low = "B", "L"  # the names of the orders whose unpackers return each byte
    if raw[-1] == "L" or (raw[-1] == "N" and sys.byteorder == "little"):
        high, low = low, high
    values = _load(picture, raw[:-1] + high).astype(np.uint16)
    values <<= 8
    stream.seek(0)
    values |= _load(open_picture(stream, max_pixels=max_pixels), raw[:-1] + low)
    return values


def _load(picture: ImageFile.ImageFile, raw: str) -> np.ndarray:
    tiles = []
    for tile in picture.tile:
        more = tile.args[1:] if isinstance(tile.args, tuple) else None
        tiles.append(tile._replace(args=raw if more is None else (raw, *more)))
    picture.tile = tiles
    picture.load()
    return np.asarray(picture)
