"""TIFF of every layout, depth and sign: the drawn picture comes back, with and without tifffile."""

from __future__ import annotations

import io
import itertools
import sys
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from faprompt.errors import ImageReadError
from faprompt.imaging import read_image
from tests.imaging.files import colours, tiff

IMAGE = colours(40, 36)
GREY = IMAGE[..., 0]
DEEP = (GREY.astype(np.int64) * 257, 65535)  # 16 bits, and the largest value

# How the 256 levels are written in each type, so that full range gives them back.
ENCODINGS = {
    "uint8": lambda v: v,
    "uint16": lambda v: v.astype("u2") * 257,
    "uint32": lambda v: v.astype("u4") * 0x01010101,
    "int8": lambda v: (v.astype(int) - 128).astype("i1"),
    "int16": lambda v: (v.astype(int) * 257 - 2**15).astype("i2"),
    "int32": lambda v: (v.astype("i8") * 0x01010101 - 2**31).astype("i4"),
    "float16": lambda v: (v / 255).astype("f2"),
    "float32": lambda v: (v / 255).astype("f4"),
    "float64": lambda v: v / 255,
}
LAYOUTS: tuple[dict[str, Any], ...] = ({}, {"rowsperstrip": 7}, {"tile": (16, 16)})
STORAGE: tuple[dict[str, Any], ...] = (
    {},
    {"compression": "lzw"},
    {"compression": "deflate", "predictor": True},
    {"compression": "packbits"},
    {"compression": "zstd"},
)


def write(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def every_way(values: np.ndarray, **options: Any) -> list[bytes]:
    """One picture in each byte order, layout and compression."""
    ways = itertools.product("<>", LAYOUTS, STORAGE)
    return [write(values, byteorder=b, **lay, **how, **options) for b, lay, how in ways]


def read_or_refuse(data: bytes, **options: Any) -> np.ndarray | None:
    """The pixels, or None where the extra is asked for."""
    try:
        return read_image(data, **options).array
    except ImageReadError as error:
        assert "install faprompt[tiff]" in str(error)
        return None


@pytest.fixture(params=["with tifffile", "without tifffile"])
def complete(request, monkeypatch) -> bool:
    """Whether every file has to be read; without the extra a clear error will do."""
    if request.param == "without tifffile":
        monkeypatch.setitem(sys.modules, "tifffile", None)
    return request.param == "with tifffile"


def assert_shows(files: list[bytes], expected: np.ndarray, complete: bool) -> None:
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    for data in files:
        read = read_or_refuse(data)
        assert read is not None or not complete
        if read is not None:
            np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey(kind, photometric, complete):
    shown = GREY if photometric == "minisblack" else 255 - GREY
    assert_shows(every_way(ENCODINGS[kind](shown), photometric=photometric), GREY, complete)


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours(kind, planar, complete):
    values = ENCODINGS[kind](IMAGE)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    assert_shows(every_way(stored, photometric="rgb", planarconfig=planar), IMAGE, complete)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "float32"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha_kind", ["unassalpha", "assocalpha", "unspecified"])
def test_alpha(kind, planar, channels, alpha_kind, complete):
    """Over white; premultiplied colours are multiplied once; an unspecified band is left out."""
    alpha = np.where(np.arange(36) < 18, 255, 51).astype(np.uint8) * np.ones((40, 1), np.uint8)
    alpha[:3] = 0
    picture = IMAGE[..., :channels]
    share = alpha[..., None] / 255.0
    stored = np.rint(picture * share).astype(np.uint8) if alpha_kind == "assocalpha" else picture
    values = ENCODINGS[kind](np.dstack([stored, alpha]))
    if planar == "separate":
        values = np.moveaxis(values, -1, 0)
    files = [
        write(
            values, byteorder=order, planarconfig=planar, compression=compression,
            photometric="rgb" if channels == 3 else "minisblack", extrasamples=[alpha_kind],
        )
        for order in "<>" for compression in (None, "lzw")
    ]  # fmt: skip
    expected = picture * 1.0 if alpha_kind == "unspecified" else picture * share + 255 * (1 - share)
    for data in files:
        read = read_or_refuse(data)
        assert read is not None or not complete
        if read is not None:
            assert np.abs(read - np.broadcast_to(expected, read.shape)).max() <= 1


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("photometric", [0, 1])
def test_depths_of_the_header(bits, order, photometric, complete):
    """The header's bits are the range, whatever library reads it; no hint asks for them again."""
    top = 2**bits - 1
    values = (np.arange(40 * 36).reshape(40, 36) * 37) % (top + 1)
    values[0, 0] = top
    packed = np.packbits((values[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype("u1")
                         .reshape(40, -1), axis=1).tobytes()  # fmt: skip
    data = tiff(packed, width=36, height=40, bits=(bits,), sample_format=1, order=order,
                photometric=photometric)  # fmt: skip
    expected = np.rint(values * 255 / top).astype(np.uint8)
    assert_shows([data], expected if photometric else 255 - expected, complete)
    if complete:
        assert not any("bit_depth" in note for note in read_image(data).notes)


def test_depth_of_the_header_as_tifffile_writes_it():
    values = GREY.astype(np.uint16) * 4 + GREY // 64
    read = read_image(write(values, bitspersample=10)).array[..., 0]
    np.testing.assert_array_equal(read, GREY)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ENCODINGS)
def test_orientation(turn, kind):
    """Against Pillow's own turn of an 8-bit picture; both routes, grey, colour and planes."""
    exif = Image.Exif()
    exif[0x0112] = turn
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).save(buffer, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    tag = [(274, "H", 1, turn, True)]
    for order in "<>":
        grey = write(ENCODINGS[kind](GREY), byteorder=order, extratags=tag)
        np.testing.assert_array_equal(read_image(grey).array[..., 0], expected[..., 0])
        for planar in ("contig", "separate"):
            values = ENCODINGS[kind](IMAGE)
            stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
            data = write(stored, photometric="rgb", planarconfig=planar, byteorder=order,
                         extratags=tag)  # fmt: skip
            np.testing.assert_array_equal(read_image(data).array, expected)


@pytest.mark.parametrize("levels", [2, 256])
def test_palettes(levels, complete):
    indices = (np.arange(40 * 36).reshape(40, 36) % levels).astype(np.uint8)
    table = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint16) * 257
    files = every_way(indices, photometric="palette", colormap=table)
    assert_shows(files, np.moveaxis(table // 257, 0, -1)[indices].astype(np.uint8), complete)


@pytest.mark.parametrize("inverted", [False, True])
def test_bilevel(inverted, complete):
    photometric = "miniswhite" if inverted else "minisblack"
    stored = (GREY > 127) ^ inverted
    assert_shows(every_way(stored, photometric=photometric), (GREY > 127) * np.uint8(255), complete)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_cmyk(kind, planar, complete):
    ink = np.dstack([IMAGE, colours(40, 36, seed=4)[..., 0]])
    values = ENCODINGS[kind](ink)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    expected = np.asarray(Image.frombytes("CMYK", (36, 40), ink.tobytes()).convert("RGB"))
    files = every_way(stored, photometric="separated", planarconfig=planar)
    assert_shows(files, expected, complete)
