"""Read a file, bytes, a Pillow picture or an array as one (H, W, 3) uint8 RGB array."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from faprompt.errors import ImageReadError
from faprompt.imaging.decoding import (
    HEAD_BYTES,
    Samples,
    check_pixels,
    identify,
    open_picture,
    picture_samples,
    raw_mode,
    read_colours,
    upright,
    wide_samples,
    widen_key,
)
from faprompt.imaging.dicom import dicom_size, is_dicom, read_dicom
from faprompt.imaging.dicom_levels import DicomPicture
from faprompt.imaging.picture_sources import (
    FileSource,
    ImageSource,
    errors_named,
    open_stream,
    reason_of,
    source_name,
)
from faprompt.imaging.reading_options import MAX_PIXELS, ReadingOptions, Window
from faprompt.imaging.rgb_levels import NOT_WINDOWED, array_to_rgb, picture_to_rgb, samples_to_rgb
from faprompt.imaging.tiff import (
    decode_failed_for_good,
    mend,
    picture_header,
    read_header,
    read_with_tifffile,
)
from faprompt.imaging.transform import FILTERS, Transform

PictureHandling = Literal["upright", "released"]  # `read_image`, or `read_resized`

_ORIENTATION = 0x0112  # EXIF tag
_UPPER_BITS = "16-bit colours read by their upper 8 bits"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ReadImage:
    """Hold a picture in memory, and what the user should know about how it was read.

    Attributes:
        array: (height, width, 3) uint8 RGB, upright.
        notes: what was done to the picture, one sentence each.
    """

    array: np.ndarray
    notes: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ReadImage):
            return NotImplemented
        return self.notes == other.notes and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.array.shape, self.notes))

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"<ReadImage {width}x{height} px, {len(self.notes)} notes>"

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.array.shape[:2]
        return height, width


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """Facts from the first bytes of a picture file."""

    kind: str  # "PNG", "JPEG", "TIFF", "BMP", "WebP" or "DICOM"
    image_size: tuple[int, int]  # (height, width) as shown, the orientation applied
    orientation: int  # EXIF orientation, 1 (upright) to 8; 1 where the file has none


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """A decoded file before its values become bytes."""

    content: Image.Image | Samples | DicomPicture
    orientation: int  # still to be applied
    notes: tuple[str, ...]


def read_image(
    source: ImageSource,
    *,
    bit_depth: int | None = None,
    window: Window | None = None,
    max_pixels: int = MAX_PIXELS,
) -> ReadImage:
    """Read one picture, upright, as RGB bytes.

    Files are identified by their content: PNG, JPEG, TIFF, BMP, WebP, and DICOM with the extra
    `dicom`; a DICOM file without its preamble, by elements and ending. EXIF orientation is
    applied, colour profiles are not. Transparency is composited over white; where alpha is 0
    everywhere the colours are used, with a note. Of several frames the first is read, with a
    note; of a Pillow picture, its current frame.

    Unsigned values of up to 16 bits are scaled by their range, never clipped: the bits of
    the file's header, or `bit_depth`. A note suggests a `bit_depth` of 8, 10, 12 or 14 where
    16-bit values leave the upper bits unused. `samples_to_rgb` describes signed, 32-bit and
    float values. A float array must lie in [0, 1]. NaN and infinite values are refused.

    Grey DICOM values are rescaled and go through the file's first window or its table. Without
    both, values of more than 8 bits are scaled by the minimum and maximum of the picture, padding
    excepted, with a note.

    Args:
        source: a path, a URL of an object storage (extra `storage`), the bytes of a file, a
            Pillow picture, or an array (H, W) or
            (H, W, 3) of uint8, uint16, bool or float in [0, 1], in RGB order; with a window,
            of any integers or floats.
        bit_depth: bits the camera really used in values stored with more than 8, for
            example 12; 1 to 32. The whole stored range unless given. Negative values are
            then scaled by the signed range of that many bits. 8-bit pictures and float
            pictures ignore it.
        window: (center, width), in place of the range: values from center - width/2 to
            center + width/2 are scaled to 0..255, and those outside are clipped, with a note.
            "auto" scales from the minimum to the maximum of each picture. The unit is that of
            the stored values, of DICOM that of the rescaled values. 8-bit pictures other than
            grey DICOM, and colour DICOM, ignore it, with a note.
        max_pixels: limit of width times height; checked before decoding.

    Returns:
        The picture, with notes.

    Raises:
        ImageReadError: the file is missing, empty, no picture of the kinds above, broken,
            too large, or its values do not fit; the message names it and says what to do.
        ConfigError: both `bit_depth` and `window` are given.
        ValueError: an option is out of range.
        TypeError: the source is none of the kinds above, or an option is of another type.

    Example:
        >>> read_image(np.array([[0, 65535]], np.uint16)).array[0, :, 0]
        array([  0, 255], dtype=uint8)
    """
    return read_named(
        source, source_name(source), bit_depth=bit_depth, window=window, max_pixels=max_pixels
    )


def read_named(
    source: ImageSource,
    name: str,
    *,
    bit_depth: int | None = None,
    window: Window | None = None,
    max_pixels: int = MAX_PIXELS,
) -> ReadImage:
    """Read one picture as `read_image` does; its errors begin with `name`."""
    options = ReadingOptions(bit_depth=bit_depth, window=window, max_pixels=max_pixels)
    with errors_named(name):
        if isinstance(source, np.ndarray):
            if source.ndim >= 2:
                check_pixels(source.shape[1], source.shape[0], max_pixels=max_pixels)
            return ReadImage(*array_to_rgb(source, bit_depth=bit_depth, window=options.window))
        return _to_image(_read_stored(source, max_pixels), options)


def read_resized(
    path: str | os.PathLike[str],
    transform: Transform,
    *,
    region: tuple[int, int, int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Read one picture at a model's size, as the public code of AnomalyCLIP and FAPrompt does.

    Pillow resizes the picture in the mode of its file and converts it to RGB afterwards. So
    alpha weighs the colours while they are resized and is dropped then, a palette keeps its
    entries (nearest neighbour), wide values are clipped, and EXIF orientation is not applied.
    Grey and RGB files without such features give what `read_image` and `Transform` give.

    Args:
        path: the picture file.
        transform: gives the size of the result and the interpolation.
        region: (x0, y0, x1, y1) in pixels of the file; only this part is resized.
        max_pixels: as for `read_image`.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        ImageReadError: as `read_image`.

    Source:
        dataset.py (`Image.open`) and utils.py (`Resize`, then `_convert_to_rgb`) of
        mala-lab/FAPrompt at 7e9d9d2.
    """
    with errors_named(source_name(path)), open_stream(path) as stream:
        picture = open_picture(stream, max_pixels=max_pixels)
        part = picture.crop(region) if region else picture
        resized = part.resize(transform.image_size[::-1], FILTERS[transform.interpolation])
        return np.array(resized.convert("RGB"))


def read_luminance(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a file by Pillow's `convert("L")`: (H, W) uint8, EXIF orientation ignored.

    Raises:
        ImageReadError: as `read_image`.
    """
    with errors_named(source_name(path)), open_stream(path) as stream:
        return np.array(open_picture(stream, max_pixels=max_pixels).convert("L"))


def read_samples(source: FileSource, *, max_pixels: int = MAX_PIXELS) -> Samples:
    """Read the upright values of a picture file as they are stored, for example of a mask.

    Palettes are resolved; 8-bit CMYK and YCbCr are converted to RGB. Alpha is kept apart. DICOM
    values are neither rescaled nor windowed.

    Raises:
        ImageReadError: as `read_image`, except that no value is refused.
    """
    with errors_named(source_name(source)):
        stored = _read_stored(source, max_pixels)
        content = stored.content
        if isinstance(content, DicomPicture):
            return content.samples()
        samples = content if isinstance(content, Samples) else picture_samples(content)
        return samples.upright(stored.orientation)


def read_picture_header(source: FileSource, *, max_pixels: int = MAX_PIXELS) -> PictureHeader:
    """Read kind, size and orientation of a picture file.

    A PNG without EXIF data before its pixels is decoded, since the data may follow them.

    Raises:
        ImageReadError: as `read_image`.
    """
    with errors_named(source_name(source)), open_stream(source) as stream:
        if is_dicom(stream):
            size = dicom_size(stream)
            check_pixels(size[1], size[0], max_pixels=max_pixels)
            return PictureHeader("DICOM", size, 1)
        if identify(stream.read(HEAD_BYTES)) == "TIFF":
            header = read_header(stream)
            check_pixels(header.width, header.height, max_pixels=max_pixels)
            return PictureHeader("TIFF", header.image_size, header.orientation)
        stream.seek(0)
        picture = open_picture(stream, max_pixels=max_pixels)
        turn, _ = _orientation(picture)
        width, height = picture.size
        size = (width, height) if turn in (5, 6, 7, 8) else (height, width)
        kind = {"WEBP": "WebP", "MPO": "JPEG"}.get(str(picture.format), str(picture.format))
        return PictureHeader(kind, size, turn)


def count_pixels(source: FileSource) -> int:
    """Return width times height by the header alone; 0 where the header cannot be read."""
    try:
        with open_stream(source) as stream:
            if is_dicom(stream):
                height, width = dicom_size(stream)
                return height * width
            if identify(stream.read(HEAD_BYTES)) == "TIFF":
                header = read_header(stream)
                return header.width * header.height
            stream.seek(0)
            width, height = open_picture(stream, max_pixels=2**62).size
    except Exception:  # whoever decodes the file reports the fault
        return 0
    return width * height


def _read_stored(source: FileSource | Image.Image, max_pixels: int) -> _Stored:
    if not isinstance(source, Image.Image):
        with open_stream(source) as stream:
            return _read_stream(stream, max_pixels)
    check_pixels(*source.size, max_pixels=max_pixels)
    if fault := _pillow_fault(source):
        raise ImageReadError(f"Pillow does not decode {fault}; pass the path of the TIFF file.")
    return _decode(source)


def _read_stream(stream: IO[bytes], max_pixels: int) -> _Stored:
    if is_dicom(stream):
        return _Stored(read_dicom(stream, max_pixels=max_pixels), 1, ())
    picture: ImageFile.ImageFile | None = None
    try:
        picture = open_picture(stream, max_pixels=max_pixels)
        reason = _pillow_fault(picture)
        if reason is None:
            return _decode(picture, stream, max_pixels=max_pixels)
    except (ImageReadError, MemoryError):
        raise
    except Exception as error:  # perhaps a TIFF kind that Pillow does not know: float colours
        header = picture_header(picture) if picture else None
        if picture and (header is None or decode_failed_for_good(header)):
            raise
        stream.seek(0)
        if identify(stream.read(HEAD_BYTES)) != "TIFF":
            raise
        reason = reason_of(error)
    samples, notes = read_with_tifffile(stream, max_pixels=max_pixels, reason=reason)
    return _Stored(samples, 1, notes)


def _pillow_fault(picture: Image.Image) -> str | None:
    header = picture_header(picture)
    return header.pillow_fault() if header else None


def _decode(
    picture: Image.Image, stream: IO[bytes] | None = None, *, max_pixels: int = MAX_PIXELS
) -> _Stored:
    """Decode a picture; from its stream also 16-bit and premultiplied colours with every bit."""
    count = getattr(picture, "n_frames", 1)
    notes: tuple[str, ...] = (f"frame {picture.tell()} of {count}",) if count > 1 else ()
    samples = None
    if stream is not None and isinstance(picture, ImageFile.ImageFile):
        samples = read_colours(picture, stream, max_pixels=max_pixels)
    if samples is None:
        if re.match("(RGB|LA|CMYK).*;16", raw_mode(picture)):
            notes += (_UPPER_BITS,)
        header = picture_header(picture)
        widen_key(picture)
        _load(picture)
        samples = (mend(picture, header) if header else None) or wide_samples(picture)
    turn, turn_notes = _orientation(picture)
    return _Stored(samples or picture, turn, notes + turn_notes)


def _load(picture: Image.Image) -> None:
    """Decode a picture; Pillow 13.0 shears a TIFF that it maps into memory and turns by EXIF."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        picture.load()
        return
    name, picture.filename = picture.filename, ""  # without a name there is no memory map
    try:
        picture.load()
    finally:
        picture.filename = name


def _to_image(stored: _Stored, options: ReadingOptions) -> ReadImage:
    content, depth, window = stored.content, options.bit_depth, options.window
    if _UPPER_BITS in stored.notes and (depth not in (None, 16) or window is not None):
        given = f"bit_depth={depth}" if window is None else "a window"
        raise ImageReadError(
            f"{given} cannot be applied to 16-bit colours of which only the upper 8 bits are read; "
            "pass the path of an RGB file."
        )
    if isinstance(content, DicomPicture):
        array, notes = content.to_rgb(options)
    elif isinstance(content, Samples):
        array, notes = samples_to_rgb(content, bit_depth=depth, window=window)
    else:
        array, notes = picture_to_rgb(content)
        notes += (NOT_WINDOWED,) if window is not None else ()
    array = np.ascontiguousarray(upright(array, stored.orientation))
    return ReadImage(array, stored.notes + notes)


def _orientation(picture: Image.Image) -> tuple[int, tuple[str, ...]]:
    """Return the EXIF orientation to apply after decoding, and a note where it is broken."""
    if picture.format == "TIFF":  # Pillow turns these while loading
        return 1, ()
    try:
        turn = picture.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # a broken side note is no reason to refuse the pixels
        return 1, (f"EXIF could not be read, orientation not applied ({reason_of(error)})",)
    return (turn if turn in range(1, 9) else 1), ()
