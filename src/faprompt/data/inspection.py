"""One picture file, looked at from top to bottom: can it be read, and what is odd about it?"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from faprompt.errors import ImageReadError
from faprompt.imaging.formats import open_picture
from faprompt.imaging.image_reading import MAX_PIXELS, read_image, read_picture_header

_FORMAT_OF_EXTENSION = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WebP",
}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What was found in one file."""

    digest: str  # equal for files of equal content; "" when it could not be opened
    fault: str | None = None  # why it cannot be read
    size: tuple[int, int] | None = None  # (height, width) as shown
    other_format: str | None = None  # the content's format where the extension says another
    turned: bool = False  # an EXIF orientation other than upright


def inspect_picture(path: Path) -> FileFacts:
    """Read a picture file once and report what is in it. Never raises for a bad file.

    Everything is decoded as a run decodes it, since only that proves a file; JPEG at an
    eighth of its size, which still meets every byte.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        return FileFacts("", fault=f"{error.strerror or error}")
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return FileFacts(digest, fault="the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about sizes and tags that do no harm
            return _look(content, digest, path.suffix.casefold())
    except ImageReadError as error:
        told = str(error).removeprefix(f"{len(content)} bytes: ").rstrip(".")
        return FileFacts(digest, fault=told)


def _look(content: bytes, digest: str, extension: str) -> FileFacts:
    header = read_picture_header(content)
    if header.kind == "JPEG":
        _decode_small(content)
    else:
        read_image(content)
    other = header.kind if _FORMAT_OF_EXTENSION.get(extension, header.kind) != header.kind else None
    turned = header.orientation != 1
    return FileFacts(digest, size=header.image_size, other_format=other, turned=turned)


def _decode_small(content: bytes) -> None:
    picture = open_picture(io.BytesIO(content), max_pixels=MAX_PIXELS)
    picture.draft("L", (max(1, picture.width // 8), max(1, picture.height // 8)))
    try:
        picture.load()
    except Exception as error:  # libjpeg fails in many ways on broken files
        raise ImageReadError(f"the picture is truncated or corrupt ({error})") from error
