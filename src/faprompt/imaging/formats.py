"""The picture files that are opened, identified by their first bytes and never by their name."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

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

IMAGE_EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp"}
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
_OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "a GIF; save it as PNG"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"\x1f\x8b", "a gzip archive (or a .nii.gz volume); unpack or export slices as PNG first"),
    (b"\x93NUMPY", "a NumPy array; load it and pass the array"),
    (b"version https://git-lfs", "a git-lfs pointer; run 'git lfs pull' first"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000 picture; convert it to PNG"),
    (b"\xff\x0a", "a JPEG XL picture; convert it to PNG"),
    (b"\x7fELF", "a program"),
)


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
    """Return "PNG", "JPEG", "TIFF", "BMP" or "WebP" from the first bytes, None for other files.

    Example:
        >>> identify(b"\\xff\\xd8\\xff\\xe0 and so on")
        'JPEG'
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((kind for kind, magic in _SIGNATURES if head.startswith(magic)), None)


def describe(head: bytes) -> str:
    """Describe bytes that are no readable picture, for an error message.

    Example:
        >>> describe(b"path,label\\n1.png,0\\n")
        "a text file that begins 'path,label'"
    """
    for magic, words in _OTHER_FILES:
        if head.startswith(magic):
            return words
    if head[128:132] == b"DICM":
        return "a DICOM file; export it as 16-bit PNG or TIFF"
    if head[4:8] == b"ftyp":
        return "a HEIF, AVIF or video file; convert it to PNG"
    text = head.decode("utf-8", errors="ignore").strip()
    if text and len(text) >= 0.9 * len(head.strip()) and b"\x00" not in head:
        return f"a text file that begins {text.splitlines()[0][:40]!r}"
    return f"unknown bytes that begin {head[:8].hex(' ')}"


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
            f"its content is none of PNG, JPEG, TIFF, BMP and WebP; it looks like {describe(head)}."
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
