"""TIFF of every layout, depth and sign: the drawn picture comes back, with and without tifffile."""

from __future__ import annotations

import io
import itertools
import struct
import sys
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from faprompt.errors import ImageReadError
from faprompt.imaging import count_pixels, read_image, read_picture_header
from tests.imaging.files import colours, tiff

IMAGE = colours(40, 36)
GREY = IMAGE[..., 0]

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
PLAIN = STORAGE[:2] + STORAGE[3:]  # no predictor, which bilevel pictures do not have


def write(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def every_way(values: np.ndarray, **options: Any) -> list[bytes]:
    """One picture in each byte order, layout and compression."""
    ways = itertools.product("<>", LAYOUTS, PLAIN if values.dtype == bool else STORAGE)
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


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("alpha_kind", ["unassalpha", "assocalpha"])
def test_alpha_of_0_everywhere(kind, alpha_kind):
    for picture in (IMAGE, IMAGE[..., :1]):
        values = ENCODINGS[kind](np.dstack([picture, np.zeros_like(GREY)]))
        photometric = "rgb" if picture.shape[2] == 3 else "minisblack"
        data = write(values, photometric=photometric, extrasamples=[alpha_kind])
        read = read_image(data)
        np.testing.assert_array_equal(read.array, np.broadcast_to(picture, IMAGE.shape))
        assert "alpha is 0 everywhere: colours read as if opaque" in read.notes


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


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_the_extra_is_not_needed_for_common_kinds(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    for photometric in ("minisblack", "miniswhite"):
        if photometric == "miniswhite" and kind.startswith("int"):
            continue
        shown = GREY if photometric == "minisblack" else 255 - GREY
        data = write(ENCODINGS[kind](shown), photometric=photometric, compression="lzw")
        np.testing.assert_array_equal(read_image(data).array[..., 0], GREY)
    if kind.startswith("uint"):
        data = write(ENCODINGS[kind](IMAGE), photometric="rgb", byteorder=">", tile=(16, 16))
        np.testing.assert_array_equal(read_image(data).array, IMAGE)


def test_missing_imagecodecs_is_named(monkeypatch):
    """tifffile reads some compressions by itself and says which package the others need."""

    def refuse(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    data = write(ENCODINGS["float16"](GREY), compression="lzw")
    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    with pytest.raises(ImageReadError, match=r"'imagecodecs' package.*install faprompt\[tiff\]"):
        read_image(data)


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused_by_both_routes(kind, share):
    planes = np.moveaxis(ENCODINGS[kind](IMAGE), -1, 0)
    for compression in (None, "lzw", "deflate"):
        options = {"compression": compression, "rowsperstrip": 7}
        for data in (
            write(ENCODINGS[kind](GREY), **options),
            write(planes, photometric="rgb", planarconfig="separate", **options),
        ):
            with pytest.raises(ImageReadError, match="truncated"):
                read_image(data[: int(share * len(data))])


def test_a_corrupt_strip_is_refused():
    for values in (ENCODINGS["uint16"](GREY), ENCODINGS["float16"](GREY)):
        data = bytearray(write(values, compression="deflate"))
        data[len(data) // 2] ^= 0xFF
        with pytest.raises(ImageReadError, match="corrupt"):
            read_image(bytes(data))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16"])
def test_bigtiff(order, kind):
    """Pillow does not open the big-endian form."""
    grey = write(ENCODINGS[kind](GREY), bigtiff=True, byteorder=order)
    np.testing.assert_array_equal(read_image(grey).array[..., 0], GREY)
    assert read_picture_header(grey).image_size == (40, 36)
    planes = np.moveaxis(ENCODINGS[kind](IMAGE), -1, 0)
    data = write(planes, photometric="rgb", planarconfig="separate", bigtiff=True, byteorder=order)
    np.testing.assert_array_equal(read_image(data).array, IMAGE)


@pytest.mark.parametrize("compression", ["lerc", "jpeg2000", "jpegxl", "webp", "png", "lzma"])
def test_compressions_that_pillow_does_not_know(compression):
    for values in (IMAGE, ENCODINGS["uint16"](IMAGE)):
        if compression == "webp" and values.dtype != np.uint8:
            continue
        lossless = {"lossless": True} if compression in ("webp", "jpegxl") else {}
        data = write(values, photometric="rgb", compression=compression, compressionargs=lossless)
        np.testing.assert_array_equal(read_image(data).array, IMAGE)


def test_frame_0_of_several_planar_pages():
    pages = np.stack([np.moveaxis(ENCODINGS["uint16"](colours(40, 36, s)), -1, 0) for s in (0, 1)])
    read = read_image(write(pages, photometric="rgb", planarconfig="separate"))
    np.testing.assert_array_equal(read.array, IMAGE)
    assert read.notes == ("read with tifffile", "frame 0 of 2")


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_channels_without_a_meaning(bits):
    """Three are taken as RGB, with a note; a microscope's five are refused."""
    values = np.moveaxis(ENCODINGS[f"uint{bits}"](IMAGE), -1, 0)
    options = {"photometric": "minisblack", "planarconfig": "separate"}
    read = read_image(write(values, **options))
    np.testing.assert_array_equal(read.array, IMAGE)
    assert "3 grey channels read as red, green, blue" in read.notes
    with pytest.raises(ImageReadError, match="5 grey channels; export one of them"):
        read_image(write(values[[0, 1, 2, 0, 1]], **options))


@pytest.mark.parametrize(
    ("photometric", "bits", "told"),
    [(6, 8, "YCbCr colours"), (8, 16, "CIELAB colours"), (32845, 16, "photometric 32845")],
)
def test_colours_that_are_not_read_are_named(photometric, bits, told):
    data = tiff(bytes(4 * 8 * 3 * bits // 8), width=8, height=4, bits=(bits,) * 3,
                sample_format=1, photometric=photometric)  # fmt: skip
    with pytest.raises(ImageReadError, match=f"a TIFF of {told}.*export it as grey or RGB"):
        read_image(data)


def test_values_without_an_order_are_refused():
    with pytest.raises(ImageReadError, match="complex64 are not read"):
        read_image(write(GREY.astype(np.complex64)))


@pytest.mark.parametrize("kind", ["uint16", "int16", "uint32", "int32", "float32"])
def test_values_of_part_of_the_range(kind):
    """Signed, 32-bit and wide float values are scaled by their own range, and a note says so."""
    low, high = {"u": (3, 2**17), "i": (-1000, 3000), "f": (-2, 6)}[kind[0]]
    if kind == "uint16":
        low, high = 0, 65535
    values = np.linspace(low, high, 40 * 36).reshape(40, 36).astype(kind)
    read = read_image(write(values))
    expected = np.rint((values.astype(float) - low) * (255 / (high - low)))
    np.testing.assert_array_equal(read.array[..., 0], expected)
    assert len(read.notes) == (0 if kind == "uint16" else 1)


@pytest.mark.parametrize("kind", ["int16", "int32", "uint32"])
def test_a_picture_that_fills_half_its_type_is_not_stretched(kind):
    """So a picture without black or white keeps its grey values."""
    narrow = (GREY // 2 + 60).astype(np.uint8)
    narrow[0, :2] = 60, 188
    read = read_image(write(ENCODINGS[kind](narrow)))
    np.testing.assert_array_equal(read.array[..., 0], narrow)
    assert read.notes == ()


def test_bit_depth_of_signed_values_is_their_signed_range():
    """One scale for every picture of a run: 13 bits are -4096..4095, which holds a CT scan."""
    scan = np.array([[-4096, -1000, 0, 3000, 4095]], np.int16)
    assert read_image(write(scan), bit_depth=13).array[0, :, 0].tolist() == [0, 96, 128, 221, 255]
    with pytest.raises(ImageReadError, match=r"-4096..4095.*bit_depth=12 cannot hold .-2048..2047"):
        read_image(write(scan), bit_depth=12)


def test_signed_bytes_ignore_the_bit_depth():
    values = ENCODINGS["int8"](GREY)
    for depth in (None, 8, 12):
        read = read_image(write(values), bit_depth=depth)
        np.testing.assert_array_equal(read.array[..., 0], GREY)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_floats_without_a_value_are_refused(bad, kind):
    values = ENCODINGS[kind](IMAGE)
    values[3, 4, 1] = bad
    for stored in (values[..., 1], values):
        photometric = "rgb" if stored.ndim == 3 else "minisblack"
        with pytest.raises(ImageReadError, match="NaN or infinite; replace them"):
            read_image(write(stored, photometric=photometric))


def test_a_range_beyond_all_floats_is_refused():
    values = np.array([[-1.7e308, 1.7e308]])
    with pytest.raises(ImageReadError, match="NaN or infinite"):
        read_image(write(values))


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "uint32", "float32"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_a_tiff_opened_with_pillow(kind, photometric, tmp_path):
    """The header counts there too, before and after decoding."""
    if photometric == "miniswhite" and kind not in ("uint8", "uint16", "float32"):
        return  # Pillow does not open these
    shown = GREY if photometric == "minisblack" else 255 - GREY
    data = write(ENCODINGS[kind](shown), photometric=photometric,
                 extratags=[(274, "H", 1, 6, True)])  # fmt: skip
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    with Image.open(path) as waiting, Image.open(io.BytesIO(data)) as loaded:
        loaded.load()
        for picture in (waiting, loaded):
            np.testing.assert_array_equal(read_image(picture).array[..., 0], np.rot90(GREY, -1))
        assert waiting.filename == str(path)


def test_a_tiff_that_pillow_would_show_wrong_is_wanted_as_a_path():
    planes = np.moveaxis(ENCODINGS["uint16"](IMAGE), -1, 0)
    data = write(planes, photometric="rgb", planarconfig="separate")
    with Image.open(io.BytesIO(data)) as picture:
        with pytest.raises(ImageReadError, match="3 planes of 16 bits; pass the path"):
            read_image(picture)
        picture.load()
        with pytest.raises(ImageReadError, match="3 planes of 16 bits; pass the path"):
            read_image(picture)


def test_16_bit_colours_opened_with_pillow_have_8_bits():
    data = write(ENCODINGS["uint16"](IMAGE), photometric="rgb")
    with Image.open(io.BytesIO(data)) as picture:
        read = read_image(picture)
    np.testing.assert_array_equal(read.array, IMAGE)
    assert read.notes == ("16-bit colours read by their upper 8 bits",)
    with (
        Image.open(io.BytesIO(data)) as picture,
        pytest.raises(ImageReadError, match="bit_depth=12 cannot be applied.*pass the path"),
    ):
        read_image(picture, bit_depth=12)


@pytest.mark.parametrize("turn", range(0, 10))
def test_header_of_every_kind(turn, tmp_path):
    """Size as shown and orientation, without the library that decodes the pixels."""
    tag = [(274, "H", 1, turn, True)]
    for data in (
        write(ENCODINGS["float16"](GREY), extratags=tag),
        write(np.moveaxis(ENCODINGS["uint16"](IMAGE), -1, 0), photometric="rgb",
              planarconfig="separate", extratags=tag),
        write(GREY, extratags=tag),
    ):  # fmt: skip
        header = read_picture_header(data)
        assert header.kind == "TIFF"
        assert header.image_size == ((36, 40) if turn in (5, 6, 7, 8) else (40, 36))
        assert header.orientation == (turn if turn in range(1, 9) else 1)
        path = tmp_path / "a.tif"
        path.write_bytes(data)
        assert count_pixels(path) == 40 * 36
        assert read_image(data).image_size == header.image_size


def test_the_limit_stands_before_tifffile_decodes():
    for values, options in (
        (ENCODINGS["float16"](GREY), {}),
        (np.moveaxis(ENCODINGS["uint16"](IMAGE), -1, 0),
         {"photometric": "rgb", "planarconfig": "separate"}),
    ):  # fmt: skip
        with pytest.raises(ImageReadError, match="36x40 is 1,440 pixels, above the limit of 1,439"):
            read_image(write(values, **options), max_pixels=1439)


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}])
def test_missing_strips_and_tiles_are_no_black_pixels(layout):
    """The header says twice the height, so half of the picture is nowhere."""
    values = ENCODINGS["float16"](GREY)
    data = write(values, **(layout or {"rowsperstrip": len(values)}))
    entry = struct.pack("<HHII", 257, 4, 1, len(values))
    if entry not in data:
        entry = struct.pack("<HHIHH", 257, 3, 1, len(values), 0)
    assert data.count(entry) == 1
    taller = entry[:8] + struct.pack("<I", 2 * len(values))
    with pytest.raises(ImageReadError, match="strips or tiles are missing"):
        read_image(data.replace(entry, taller))


def test_colours_with_too_few_channels_are_refused():
    """The tag SamplesPerPixel of an RGB file is damaged, so that tifffile reads one channel."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(buffer, "TIFF")
    content = bytearray(buffer.getvalue())
    place = content.index(struct.pack("<HHI", 277, 3, 1)) + 4
    content[place : place + 4] = struct.pack("<I", 1 << 24 | 1)
    with pytest.raises(ImageReadError, match="1 channels where its header means 3"):
        read_image(bytes(content))
