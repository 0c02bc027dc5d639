"""From a file, bytes, a Pillow picture or an array to one (H, W, 3) uint8 RGB array."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import Image

from faprompt.errors import ImageReadError
from faprompt.imaging.formats import HEAD_BYTES, check_pixels, identify, open_picture
from faprompt.imaging.levels import array_to_rgb, picture_to_rgb

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray"
MAX_PIXELS = 200_000_000

_BITS_PER_SAMPLE = 258  # TIFF tag
_ORIENTATION = 0x0112  # EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, eq=False)
class ReadImage:
    """A picture in memory, and what the user should know about how it was read."""

    array: np.ndarray  # (H, W, 3) uint8, RGB, upright
    notes: tuple[str, ...] = ()

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.array.shape[:2]
        return height, width


def read_image(
    source: ImageSource, *, bit_depth: int | None = None, max_pixels: int = MAX_PIXELS
) -> ReadImage:
    """Read one picture, upright, as RGB bytes.

    Files are told by their content, whatever their name: PNG, JPEG, TIFF, BMP and WebP.
    EXIF orientation comes first. Palettes are resolved, grey is repeated, CMYK and YCbCr
    are converted, and transparency is composited over white (a fully opaque alpha channel
    changes nothing). 16-bit values are scaled by their range, never clipped. Float values
    in [0, 1] are taken as they are; a float file outside it is scaled by its minimum and
    maximum, with a note. Colour profiles are not applied. Of several frames the first is
    read, with a note; of a Pillow picture, the one it stands at.

    Args:
        source: a path, the bytes of a file, a Pillow picture, or an array (H, W) or
            (H, W, 3) of uint8, uint16, bool or float in [0, 1], in RGB order.
        bit_depth: bits the camera really used in values stored with more than 8, for
            example 12; 1 to 32. The whole stored range unless told. 8-bit pictures and
            float pictures pay no heed to it.
        max_pixels: width times height may not exceed this; checked before decoding.

    Returns:
        The picture, with notes.

    Raises:
        ImageReadError: the file is missing, empty, no picture of the five kinds, broken,
            too large, or its values do not fit; the message names it and says what to do.
        ValueError: `bit_depth` or `max_pixels` is out of range.
        TypeError: the source is none of the kinds above.

    Example:
        >>> read_image(np.array([[0, 65535]], np.uint16)).array[0, :, 0]
        array([  0, 255], dtype=uint8)
    """
    _check_options(bit_depth, max_pixels)
    name = _name(source)
    try:
        if isinstance(source, np.ndarray):
            return _read_array(source, bit_depth, max_pixels)
        if isinstance(source, Image.Image):
            check_pixels(*source.size, max_pixels=max_pixels)
            return _decode(source, bit_depth)
        with _open_stream(source) as stream:
            return _read_stream(stream, bit_depth, max_pixels)
    except ImageReadError as error:
        raise ImageReadError(f"{name}: {error}") from error.__cause__
    except MemoryError as error:
        raise ImageReadError(
            f"{name}: not enough memory to decode it; lower max_pixels or use smaller pictures."
        ) from error
    except Exception as error:  # decoders fail in many ways on broken files
        raise ImageReadError(
            f"{name}: the picture is truncated or corrupt ({_reason(error)}); "
            "copy or export it again."
        ) from error


def count_pixels(source: str | os.PathLike[str]) -> int:
    """Width times height by the header alone, in microseconds; 0 where it cannot be told."""
    try:
        with _open_stream(source) as stream:
            width, height = open_picture(stream, max_pixels=2**62).size
    except Exception:  # whoever decodes the file tells what is wrong with it
        return 0
    return width * height


def _check_options(bit_depth: int | None, max_pixels: int) -> None:
    if bit_depth is not None and not 1 <= bit_depth <= 32:
        raise ValueError(f"bit_depth should be 1 to 32, or None, got {bit_depth}.")
    if max_pixels < 1:
        raise ValueError(f"max_pixels should be at least 1, got {max_pixels}.")


def _name(source: ImageSource) -> str:
    if isinstance(source, np.ndarray):
        return f"array {source.shape} {source.dtype}"
    if isinstance(source, Image.Image):
        return f"Pillow picture {source.size[0]}x{source.size[1]} {source.mode}"
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    raise TypeError(
        "a picture is a path, bytes, a Pillow picture or an array, "
        f"got {type(source).__name__}; of a stream, pass stream.read()."
    )


@contextmanager
def _open_stream(source: str | os.PathLike[str] | bytes) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
        return
    if os.fspath(source).startswith(("http://", "https://")):
        raise ImageReadError("web addresses are not read; download the picture first.")
    try:
        stream = Path(source).open("rb")  # noqa: SIM115 (closed by the last lines below)
    except FileNotFoundError as error:
        raise ImageReadError("no such file; check the path.") from error
    except IsADirectoryError as error:
        raise ImageReadError("this is a folder; name a picture in it.") from error
    except (OSError, ValueError) as error:
        raise ImageReadError(f"cannot be opened ({_reason(error)}).") from error
    with stream:
        yield stream


def _read_stream(stream: IO[bytes], bit_depth: int | None, max_pixels: int) -> ReadImage:
    try:
        return _decode(open_picture(stream, max_pixels=max_pixels), bit_depth)
    except (ImageReadError, MemoryError):
        raise
    except Exception as error:
        stream.seek(0)
        if identify(stream.read(HEAD_BYTES)) != "TIFF":
            raise
        return _read_with_tifffile(stream, bit_depth, max_pixels, error)


def _read_array(array: np.ndarray, bit_depth: int | None, max_pixels: int) -> ReadImage:
    if array.ndim >= 2:
        check_pixels(array.shape[1], array.shape[0], max_pixels=max_pixels)
    return ReadImage(*array_to_rgb(array, bit_depth=bit_depth))


def _decode(picture: Image.Image, bit_depth: int | None) -> ReadImage:
    notes = _frame_notes(picture) + _colour_depth_notes(picture, bit_depth)
    stored_bits = _stored_bits(picture)
    picture.load()
    upright, turn_notes = _turn_upright(picture)
    array, level_notes = picture_to_rgb(upright, bit_depth=bit_depth, stored_bits=stored_bits)
    return ReadImage(array, notes + turn_notes + level_notes)


def _frame_notes(picture: Image.Image) -> tuple[str, ...]:
    count = getattr(picture, "n_frames", 1)
    return (f"frame {picture.tell()} of {count}",) if count > 1 else ()


def _colour_depth_notes(picture: Image.Image, bit_depth: int | None) -> tuple[str, ...]:
    """Pillow keeps the upper 8 bits of 16-bit colours; the raw mode of its tiles tells so."""
    tiles = getattr(picture, "tile", None) or []
    if picture.mode.startswith("I") or not any(";16" in str(tile[3]) for tile in tiles):
        return ()
    if bit_depth not in (None, 16):
        raise ImageReadError(
            f"bit_depth={bit_depth} cannot be applied to 16-bit colours, of which only the "
            "upper 8 bits are read; convert the picture to grey or to 8 bits."
        )
    return ("16-bit colours read by their upper 8 bits",)


def _stored_bits(picture: Image.Image) -> int:
    tags = getattr(picture, "tag_v2", None)
    bits = tags.get(_BITS_PER_SAMPLE) if tags is not None else None
    return bits[0] if bits and 8 < bits[0] < 16 else 16


def _turn_upright(picture: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    if picture.format == "TIFF":  # Pillow turns these while loading
        return picture, ()
    try:
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception as error:  # a broken side note is no reason to refuse the pixels
        return picture, (f"EXIF could not be read, orientation not applied ({_reason(error)})",)
    return (picture if turn is None else picture.transpose(turn)), ()


def _read_with_tifffile(
    stream: IO[bytes], bit_depth: int | None, max_pixels: int, reason: Exception
) -> ReadImage:
    """Second chance for TIFF kinds that Pillow does not know, such as float colours."""
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError:
        raise ImageReadError(
            f"this TIFF is corrupt, or of a kind Pillow does not read ({_reason(reason)}); "
            "export it again as PNG, or install faprompt[tiff] for more kinds."
        ) from reason
    stream.seek(0)
    with tifffile.TiffFile(stream) as tiff:
        page = tiff.pages[0]
        check_pixels(page.imagewidth, page.imagelength, max_pixels=max_pixels)
        array, count = page.asarray(), len(tiff.pages)
    if array.ndim == 3 and page.axes.startswith("S"):
        array = np.moveaxis(array, 0, -1)
    image, notes = array_to_rgb(array, bit_depth=bit_depth, stretch_floats=True)
    frames = (f"frame 0 of {count}",) if count > 1 else ()
    return ReadImage(image, ("read with tifffile", *frames, *notes))


def _reason(error: BaseException) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
