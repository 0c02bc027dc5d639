"""One picture file, looked at from top to bottom: can it be read, and what is odd about it?"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from faprompt.data.masks import PICTURE_FAULTS, PICTURE_FORMATS, orientation, shown_size

_FORMAT_OF_EXTENSION = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
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
    """Read a picture file once and say what is in it. Never raises for a bad file.

    Everything is decoded, since only that proves a file; JPEG at an eighth of its size, which
    still meets every byte.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        return FileFacts("", fault=f"{error.strerror or error}")
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return FileFacts(digest, fault="the file is empty")
    try:
        return _look(content, digest, path.suffix.casefold())
    except PICTURE_FAULTS as error:
        return FileFacts(digest, fault=_reason(error))


def _look(content: bytes, digest: str, extension: str) -> FileFacts:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns about sizes and tags that do no harm here
        with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as picture:
            # a camera's JPEG with a second frame in it comes back as "MPO"
            kind = "JPEG" if picture.format == "MPO" else str(picture.format)
            size, turned = shown_size(picture), orientation(picture) != 1
            picture.draft("L", (max(1, picture.width // 8), max(1, picture.height // 8)))
            picture.load()
    other = kind if _FORMAT_OF_EXTENSION.get(extension, kind) != kind else None
    return FileFacts(digest, size=size, other_format=other, turned=turned)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its content is none of PNG, JPEG, TIFF, BMP and WebP"
    return str(error) or type(error).__name__
