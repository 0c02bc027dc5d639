"""Read the first frame of a DICOM file with pydicom (extra `dicom`).

Only technical elements are read. A damaged file may hold anything in them, so no message repeats
a value of the header, and pydicom's warnings and log are switched off: nothing on a patient
leaves the file but its pixels.
"""

from __future__ import annotations

import functools
import logging
import re
import warnings
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import Jpeg2KImagePlugin

from faprompt.errors import ImageReadError, MissingExtraError
from faprompt.imaging.decoding import (
    DICOM_EXTENSIONS,
    HEAD_BYTES,
    check_pixels,
    describe,
    identify,
)
from faprompt.imaging.dicom_levels import (
    DicomPicture,
    look_up,
    lookup_table,
    no_header_in_errors,
)
from faprompt.work import load_extra

_SIZE = ("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns")
_VALUES = (
    "BitsAllocated", "BitsStored", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth", "RescaleIntercept", "RescaleSlope",
    "VOILUTFunction", "ModalityLUTSequence", "VOILUTSequence", "PresentationLUTShape",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *(f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue")
      for part in ("Descriptor", "Data")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)  # fmt: skip
_LAST_OF_SIZE, _BEFORE_PIXELS = 0x00280011, 0x7FE00007  # tags
_PIXELS = (b"\xe0\x7f", b"\x7f\xe0")  # the group of pixel data, in both byte orders
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"
_DICOMDIR = "1.2.840.10008.1.3.10"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_JPEG = "1.2.840.10008.1.2.4."  # transfer syntaxes
_TWELVE_BITS = _JPEG + "51"
# What to install for a compression that pydicom, Pillow and NumPy alone do not decode. Packages
# under the GPL are not named.
_DECODERS = {
    **dict.fromkeys((_JPEG + "57", _JPEG + "70"), "python-gdcm"),  # lossless JPEG
    **dict.fromkeys((_JPEG + "80", _JPEG + "81"), "pyjpegls"),
    **dict.fromkeys((_JPEG + "90", _JPEG + "91"), "pylibjpeg pylibjpeg-openjpeg"),
    **dict.fromkeys((_JPEG + "201", _JPEG + "202", _JPEG + "203"), "pylibjpeg pylibjpeg-openjpeg"),
}
_PYDICOM = re.compile("pydicom")
_SIZE_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # of JPEG and JPEG-LS
_NO_PICTURE = "a DICOM file without a picture, such as a report or a plan; name the picture files."


def is_dicom(stream: IO[bytes]) -> bool:
    """Return whether a stream at its beginning holds a DICOM file; it is put back there.

    A file without the 128 bytes that DICOM files begin with counts if its name ends so.
    """
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    named = str(getattr(stream, "name", "")).lower().endswith(DICOM_EXTENSIONS)
    return head[128:132] == b"DICM" or (named and bool(head) and identify(head) is None)


def dicom_size(stream: IO[bytes]) -> tuple[int, int]:
    """Return (height, width) from the header of a DICOM file; the pixels are not read.

    Raises:
        ImageReadError: pydicom is missing, or the file is damaged or has no picture.
    """
    with no_header_in_errors():
        return _size(_header(stream, _SIZE, last=_LAST_OF_SIZE))


def read_dicom(stream: IO[bytes], *, max_pixels: int) -> DicomPicture:
    """Read the first frame of a DICOM file.

    Raises:
        ImageReadError: as `dicom_size`; or the frame has more than `max_pixels`, or is of a kind
            that no installed package decodes.
    """
    with no_header_in_errors():
        header = _header(stream, _SIZE + _VALUES)
        height, width = _size(header)
        check_pixels(width, height, max_pixels=max_pixels)
        if stream.read(2) not in _PIXELS:
            raise ImageReadError(_NO_PICTURE)
        _add_first_frame(header)
        values = _decode(stream, header)
        frames = int(header.get("NumberOfFrames") or 1)
        notes: tuple[str, ...] = (f"frame 0 of {frames}",) if frames > 1 else ()
        picture = DicomPicture(values, header, notes)
        if values.ndim == 2 and picture.inverted != (_kind(header) == "MONOCHROME1"):
            shape = "PresentationLUTShape used in place of PhotometricInterpretation"
            picture = DicomPicture(values, header, (*notes, shape))
        return picture


@functools.cache
def _pydicom(module: str) -> Any:
    """Import a part of pydicom."""
    try:
        return load_extra("dicom", module)
    except MissingExtraError:
        raise ImageReadError(
            "a DICOM file, which needs pydicom: pip install 'faprompt[dicom]'."
        ) from None


def _silence() -> None:
    """Switch the warnings and the log of pydicom off, if they are on."""
    off = ("ignore", None, Warning, _PYDICOM, 0)
    if off not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PYDICOM.pattern)
    logging.getLogger(_PYDICOM.pattern).setLevel(logging.CRITICAL + 1)


def _header(stream: IO[bytes], names: tuple[str, ...], last: int = _BEFORE_PIXELS) -> Any:
    """Return the named elements up to the tag `last`; the stream is left behind it."""
    reader, head = _pydicom("pydicom.filereader"), stream.read(4096)
    _silence()
    stream.seek(0)
    if _DEFLATED in head:  # it may grow without limit
        raise ImageReadError("a deflated DICOM file; export it uncompressed, or as JPEG 2000.")
    header = reader.read_partial(
        stream,
        lambda tag, vr, length: tag > last,
        force=head[128:132] != b"DICM",
        specific_tags=list(map(_pydicom("pydicom.tag").Tag, names)),
    )
    if header.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        raise ImageReadError("a DICOMDIR, the index of a disc; name the picture files.")
    if head[128:132] != b"DICM" and _kind(header) not in (*_GREY, *_COLOURS, _PALETTE):
        raise ImageReadError(f"its content is no DICOM file; it looks like {describe(head)}.")
    return header


def _kind(header: Any) -> str:
    return str(header.get("PhotometricInterpretation", ""))


def _size(header: Any) -> tuple[int, int]:
    if not header.get("Rows") or not header.get("Columns"):
        raise ImageReadError(_NO_PICTURE)
    return int(header.Rows), int(header.Columns)


def _add_first_frame(header: Any) -> None:
    """Add the rescale and window that enhanced files keep for all frames, or for each."""
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(name) or [()])[0]:
            if group.keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                header.update(group.value[0] if group.value else {})


def _decode(stream: IO[bytes], header: Any) -> np.ndarray:
    """Return the values of the first frame: (H, W) grey, or (H, W, 3) RGB."""
    kind, pixels = _kind(header), _pydicom("pydicom.pixels")
    if kind not in (*_GREY, *_COLOURS, _PALETTE):
        known = ", ".join((*_GREY, *_COLOURS, _PALETTE))
        raise ImageReadError(f"the colours of this DICOM file are none of {known}; export as RGB.")
    syntax = header.file_meta.get("TransferSyntaxUID") or _plain_syntax(header)
    _check_compression(stream, str(syntax), header)
    try:
        values = pixels.pixel_array(stream, index=0, transfer_syntax_uid=syntax)
    except RuntimeError:  # no decoder succeeded
        other = _DECODERS.get(str(syntax))
        raise ImageReadError(
            "its compressed picture is damaged, or of a kind that the installed decoders do not "
            f"read; export it again{f', or pip install {other}' if other else ''}."
        ) from None
    if values.shape[:2] != _size(header) or values.ndim != (3 if kind in _COLOURS else 2):
        raise ImageReadError("its pixels do not fit its header; copy or export it again.")
    if kind == _PALETTE:
        return np.asarray(pixels.apply_color_lut(values, header))[..., :3]
    if kind in _GREY and (tables := header.get("ModalityLUTSequence")):
        table, first, _ = lookup_table(tables[0], header)
        return look_up(values, table, first)
    return np.asarray(values)


def _plain_syntax(header: Any) -> Any:
    """Return the transfer syntax of a file that does not state one."""
    known, (implicit, little) = _pydicom("pydicom.uid"), header.original_encoding
    if implicit:
        return known.ImplicitVRLittleEndian
    return known.ExplicitVRLittleEndian if little else known.ExplicitVRBigEndian


def _check_compression(stream: IO[bytes], syntax: str, header: Any) -> None:
    """Refuse a compression without a decoder, and a frame larger than its header says.

    Decoders take memory by the size that is written in the compressed frame. The stream stands
    behind the first 2 bytes of the pixel data element.
    """
    try:
        decoder = _pydicom("pydicom.pixels").get_decoder(syntax)
    except NotImplementedError:
        raise ImageReadError(
            "a video, or of a compression that pydicom does not read; export pictures."
        ) from None
    if not decoder.is_encapsulated:
        return
    usable = set(decoder.available_plugins)
    if syntax == _TWELVE_BITS and header.BitsStored != 8:
        usable -= {"pillow", "gdcm"}
    if not usable:
        install = f"pip install {_DECODERS[syntax]}, or " if syntax in _DECODERS else ""
        raise ImageReadError(
            f"no decoder is installed for {decoder.UID.name}; {install}export it uncompressed."
        )
    stream.seek(10, 1)
    encaps, frames = _pydicom("pydicom.encaps"), int(header.get("NumberOfFrames") or 1)
    size = _frame_size(encaps.get_frame(stream, 0, number_of_frames=frames))
    if size not in (None, _size(header)):
        raise ImageReadError("its compressed picture does not fit its header; export it again.")


def _frame_size(frame: bytes) -> tuple[int, int] | None:
    """Return the (height, width) that a compressed frame states; None for RLE, which has none."""
    if frame.startswith((b"\xff\x4f", b"\x00\x00\x00\x0cjP")):
        width, height = Jpeg2KImagePlugin.Jpeg2KImageFile(BytesIO(frame)).size
        return height, width
    if not frame.startswith(b"\xff\xd8"):
        return None
    place = 2
    while frame[place + 1] not in _SIZE_MARKERS:
        place += 2 + int.from_bytes(frame[place + 2 : place + 4])
    height, width = (int.from_bytes(frame[place + at : place + at + 2]) for at in (5, 7))
    return height, width
