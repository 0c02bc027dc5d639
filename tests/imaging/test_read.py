"""Reading pictures: every kind of file and value, and every refusal."""

from __future__ import annotations

import re
import struct
import sys
import types
import zlib

import numpy as np
import pytest
from PIL import Image

from faprompt.errors import ImageReadError
from faprompt.imaging import read_image
from tests.imaging.files import LOSSLESS, colours, encode, png, png_rgb16, tiff


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_lossless_files_come_back_exactly(kind, options, tmp_path):
    image = colours()
    data = encode(Image.fromarray(image), kind, **options)
    path = tmp_path / "part.jpg"  # the name says nothing about the content
    path.write_bytes(data)
    for source in (path, str(path), data):
        read = read_image(source)
        np.testing.assert_array_equal(read.array, image)
        assert read.array.dtype == np.uint8
        assert read.notes == ()
        assert read.image_size == (24, 36)


def test_jpeg_equals_what_was_drawn_but_for_compression():
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, :24] = (200, 40, 90)
    read = read_image(encode(Image.fromarray(image), "JPEG", quality=95)).array
    assert np.abs(read.astype(int) - image).mean() < 3


def test_one_pixel_is_a_picture():
    assert read_image(encode(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG")).array.tolist() == [
        [[9, 8, 7]]
    ]


def test_names_outside_ascii(tmp_path):
    path = tmp_path / "Prüfteil 検査 №3.png"
    path.write_bytes(encode(Image.new("L", (2, 3), 77), "PNG"))
    assert read_image(path).array.shape == (3, 2, 3)


# --- values -------------------------------------------------------------------------------


def test_bilevel():
    picture = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert read_image(encode(picture, "PNG")).array[0, :, 0].tolist() == [0, 255]


def test_grey_is_repeated():
    grey = colours()[..., 0]
    read = read_image(encode(Image.fromarray(grey), "PNG")).array
    np.testing.assert_array_equal(read, np.stack([grey] * 3, axis=2))


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255.0
    return rgb * share + 255 * (1 - share)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_is_composited_over_white(kind):
    rgba = np.dstack([colours(), colours(seed=1)[..., 0]])
    read = read_image(encode(Image.fromarray(rgba), kind)).array
    np.testing.assert_allclose(read, over_white(rgba[..., :3], rgba[..., 3]), atol=1)


def test_opaque_alpha_equals_no_alpha():
    image = colours()
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(rgba), "PNG")).array, image)


def test_grey_with_alpha():
    data = np.array([[[100, 255], [100, 0], [0, 128]]], np.uint8)
    read = read_image(encode(Image.fromarray(data), "PNG")).array
    assert read[0, :, 0].tolist() == [100, 255, 127]


def test_palette_is_looked_up():
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode=None).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert read_image(encode(picture, "PNG")).array.tolist() == [
        [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    ]


def test_palette_with_transparency():
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    data = encode(picture, "PNG", transparency=b"\xff\x00")
    assert read_image(data).array.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_transparent_colour_of_an_rgb_png():
    picture = Image.new("RGB", (2, 1), (1, 2, 3))
    picture.putpixel((1, 0), (9, 9, 9))
    data = encode(picture, "PNG", transparency=(9, 9, 9))
    assert read_image(data).array.tolist() == [[[1, 2, 3], [255, 255, 255]]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_transparent_grey_of_a_png(bits):
    """Every depth is composited alike; the key is compared before values are widened."""
    top = 2**bits - 1
    values = np.array([0, top, top // 2, top // 2 + 1])
    key = top // 2
    if bits == 16:
        data = png_rgb16(values.astype(np.uint16)[None, :, None], key=(key,))
    else:
        ones = (values[:, None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)
        data = png(np.packbits(ones)[None], 4, bits=bits, kind=0, key=(key,))
    read = read_image(data)
    expected = [255 if v == key else round(v * 255 / top) for v in values.tolist()]
    assert read.array[0, :, 0].tolist() == expected
    assert read.notes == ()


def test_transparent_colour_of_a_16_bit_png():
    """Both bytes of the key count: the neighbour that shares its upper byte stays."""
    values = np.array([[[257, 514, 771], [257, 514, 772], [0, 65535, 514]]], np.uint16)
    read = read_image(png_rgb16(values, key=(257, 514, 771)))
    assert read.array.tolist() == [[[255, 255, 255], [1, 2, 3], [0, 255, 2]]]


OPEN = "alpha is 0 everywhere: colours read as if opaque"


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})],
)
def test_alpha_of_0_everywhere_shows_the_colours(kind, options):
    """As some camera software and OpenCV's BGRA buffers leave it."""
    image = colours()
    rgba = np.dstack([image, np.zeros(image.shape[:2], np.uint8)])
    for source in (encode(Image.fromarray(rgba), kind, **options), rgba, Image.fromarray(rgba)):
        read = read_image(source)
        np.testing.assert_array_equal(read.array, image)
        assert read.notes == (OPEN,)
    rgba[3, 4, 3] = 1  # one pixel that is not fully transparent: alpha means something
    read = read_image(encode(Image.fromarray(rgba), kind, **options))
    assert read.notes == () and read.array.min() >= 254


def test_alpha_of_0_everywhere_in_other_modes():
    image = colours()
    grey = image[..., 0]
    clear = np.zeros_like(grey)
    palette = Image.fromarray(grey).convert("P")
    sources = [
        (encode(Image.fromarray(np.dstack([grey, clear])), "PNG"), grey),
        (encode(Image.fromarray(np.dstack([grey, clear])), "TIFF"), grey),
        (Image.fromarray(np.dstack([grey, clear])), grey),
        (png_rgb16(np.dstack([grey, clear]).astype(np.uint16) * 257), grey),
        (png_rgb16(np.dstack([image, clear]).astype(np.uint16) * 257), image),
        (np.dstack([image, clear]).astype(np.uint16) * 257, image),
        (np.dstack([image, clear]) / 255, image),
        (encode(palette, "PNG", transparency=bytes(256)), grey),
        (encode(Image.new("L", (36, 24), 9), "PNG", transparency=9), np.full_like(grey, 9)),
    ]
    for source, expected in sources:
        read = read_image(source)
        shown = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
        np.testing.assert_array_equal(read.array, shown)
        assert read.notes == (OPEN,)


def test_a_bmp_of_32_bits_without_alpha():
    """Pillow takes the fourth byte as alpha where the header has a mask for it."""
    image = colours()
    for fourth in (0, 255):
        bgra = np.dstack([image[..., ::-1], np.full(image.shape[:2], fourth, np.uint8)])
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        info = struct.pack("<IiiHHIIiiII", 108, 36, -24, 1, 32, 3, bgra.size, 0, 0, 0, 0)
        info += masks + bytes(108 - len(info) - len(masks))
        data = b"BM" + struct.pack("<IHHI", 14 + 108 + bgra.size, 0, 0, 14 + 108) + info
        read = read_image(data + bgra.tobytes())
        np.testing.assert_array_equal(read.array, image)
        assert read.notes == ((OPEN,) if fourth == 0 else ())


def test_a_bmp_of_16_bits_a_pixel_has_no_16_bit_colours():
    """5, 6 and 5 bits for the three colours, each scaled by its own range and rounded down."""
    pixels = struct.pack("<2H", 31 << 11 | 63 << 5 | 31, 16 << 11 | 32 << 5 | 16)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    info = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 66 + len(pixels), 0, 0, 66) + info + masks + pixels
    read = read_image(data, bit_depth=12)
    assert read.array.tolist() == [[[255, 255, 255], [131, 129, 131]]]
    assert read.notes == ()


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk(kind):
    ink = (0, 128, 255, 51)  # of 255
    picture = Image.new("CMYK", (16, 16), ink)
    options = {"quality": 100} if kind == "JPEG" else {}
    expected = [(255 - i) * (255 - ink[3]) / 255 for i in ink[:3]]
    read = read_image(encode(picture, kind, **options)).array
    np.testing.assert_allclose(read[8, 8], expected, atol=3)


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_16_bit_grey_is_scaled_by_its_range(byte_order):
    values = np.array([[0, 257, 128 * 257, 40000, 65535]], byte_order)
    kind = "PNG" if byte_order == "<u2" else "TIFF"
    read = read_image(encode(Image.fromarray(values), kind))
    assert read.array[0, :, 0].tolist() == [0, 1, 128, 156, 255]
    assert read.notes == ()


def test_16_bit_grey_that_uses_12_bits():
    values = np.array([[0, 2048, 4095]], np.uint16)
    data = encode(Image.fromarray(values), "PNG")
    plain, told = read_image(data), read_image(data, bit_depth=12)
    assert plain.array[0, :, 0].tolist() == [0, 8, 16]
    assert plain.notes == ("16-bit data uses only 0..4095: pass bit_depth=12",)
    assert told.array[0, :, 0].tolist() == [0, 128, 255]
    assert told.notes == ()
    with pytest.raises(ImageReadError, match="reach 4095, above 1023 for 10 bits.*bit_depth=12"):
        read_image(data, bit_depth=10)


def test_12_bit_tiff_is_scaled_by_the_header():
    pair = bytes([0xFF, 0xF8, 0x00])  # 4095 and 2048, twelve bits each
    data = tiff(pair, width=2, height=1, bits=(12,), sample_format=1)
    assert read_image(data).array[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize("depth", [8, 12, 16, 24])
def test_bit_depth_leaves_8_bit_pictures_alone(depth):
    image = colours()
    read = read_image(encode(Image.fromarray(image), "PNG"), bit_depth=depth).array
    np.testing.assert_array_equal(read, image)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_is_scaled_by_all_its_bits(channels):
    values = np.random.default_rng(2).integers(0, 65536, (24, 36, channels), dtype=np.uint16)
    colour_count = 1 if channels < 3 else 3
    share = values[..., -1:] / 65535 if channels in (2, 4) else 1.0
    expected = values[..., :colour_count] / 257 * share + 255 * (1 - share)
    read = read_image(png_rgb16(values))
    # colour, alpha and result are rounded, each by at most one half
    assert np.abs(read.array - expected).max() <= (1.5 if channels in (2, 4) else 0.5)
    assert read.notes == ()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_12_bit_values_in_a_16_bit_png(channels):
    """An opaque alpha is full whether it has 12 bits or 16."""
    values = np.random.default_rng(2).integers(0, 4096, (24, 36, channels), dtype=np.uint16)
    values[0, 0] = 4095
    expected = values[..., : 1 if channels < 3 else 3] * (255 / 4095)
    for opaque in (4095, 65535):
        if channels in (2, 4):
            values[..., -1] = opaque
        data = png_rgb16(values)
        assert np.abs(read_image(data, bit_depth=12).array - expected).max() <= 0.5
        plain = read_image(data)
        assert plain.notes == ("16-bit data uses only 0..4095: pass bit_depth=12",)


@pytest.mark.parametrize(
    ("peak", "bits"),
    [(0, None), (1, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (2047, 12), (4095, 12),
     (4096, 14), (16383, 14), (16384, 16), (65535, 16)],
)  # fmt: skip
def test_the_hint_names_a_depth_that_cameras_have(peak, bits):
    """Never 9, 11 or 13, so that a dark picture asks for no depth that its neighbours exceed."""
    values = np.array([[0, peak]], np.uint16)
    for source in (values, encode(Image.fromarray(values), "PNG"), np.dstack([values] * 3)):
        read = read_image(source)
        if bits in (None, 16):
            assert read.notes == ()
            continue
        assert read.notes == (f"16-bit data uses only 0..{2**bits - 1}: pass bit_depth={bits}",)
        assert read_image(source, bit_depth=bits).notes == ()


def test_a_value_above_the_bit_depth_is_refused_naming_both():
    values = np.array([[0, 5000]], np.uint16)
    for source in (values, np.dstack([values] * 3), encode(Image.fromarray(values), "PNG")):
        with pytest.raises(ImageReadError, match="reach 5000, above 4095 for 12.*bit_depth=14"):
            read_image(source, bit_depth=12)


def test_signed_and_32_bit_integers():
    def read(values: list[int], code: str, **options: int):
        array = np.array(values, code)
        sample_format = 2 if array.dtype.kind == "i" else 1
        bits = (8 * array.itemsize,)
        size = {"width": len(values), "height": 1}
        data = tiff(array.tobytes(), **size, bits=bits, sample_format=sample_format)
        image = read_image(data, **options)
        return image.array[0, :, 0].tolist(), image.notes

    scan, notes = read([-1000, 0, 3000], "<i2")  # as a CT scan stores it
    assert scan == [0, 64, 255]
    assert notes == ("integer values -1000..3000 scaled to 0..255",)
    assert read([0, 65535], "<i4") == ([0, 255], ())
    assert read([0, 2**20 - 1], "<i4", bit_depth=20) == ([0, 255], ())
    with pytest.raises(ImageReadError, match="bit_depth=8 cannot hold"):
        read([0, 300], "<i4", bit_depth=8)


def test_float_tiff():
    def read(values: list[float]):
        data = encode(Image.fromarray(np.array([values], np.float32)), "TIFF")
        image = read_image(data)
        return image.array[0, :, 0].tolist(), image.notes

    assert read([0.0, 0.5, 1.0]) == ([0, 128, 255], ())
    assert read([0.25, 0.5]) == ([64, 128], ())  # inside [0, 1] nothing is stretched
    assert read([-2.0, 0.0, 2.0]) == ([0, 128, 255], ("float values -2..2 scaled to 0..255",))
    assert read([7.0, 7.0])[0] == [0, 0]
    with pytest.raises(ImageReadError, match="NaN or infinite"):
        read([0.0, float("nan")])
    with pytest.raises(ImageReadError, match="NaN or infinite"):
        read([0.0, float("inf")])


def test_lab_is_refused():
    with pytest.raises(ImageReadError, match="CIELAB.*convert the picture to RGB"):
        read_image(encode(Image.new("LAB", (2, 2)), "TIFF"))


# --- orientation and frames ---------------------------------------------------------------

UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("value", UPRIGHT)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_exif_orientation_of_a_16_bit_png(value, channels):
    """The tag stands in a chunk of its own, before the pixels."""
    stored = colours()[..., :1] if channels < 3 else colours()
    alpha = [np.full((24, 36), 255)] if channels in (2, 4) else []
    data = png_rgb16(np.dstack([stored, *alpha]).astype(np.uint16) * 257)
    tag = orientation(value).tobytes().removeprefix(b"Exif\x00\x00")
    chunk = struct.pack(">I", len(tag)) + b"eXIf" + tag
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + tag))
    data = data[:33] + chunk + data[33:]  # after the signature and the header chunk
    shown = np.broadcast_to(UPRIGHT[value](stored), (*UPRIGHT[value](stored).shape[:2], 3))
    np.testing.assert_array_equal(read_image(data).array, shown)


@pytest.mark.parametrize("value", UPRIGHT)
@pytest.mark.parametrize(("kind", "options"), [LOSSLESS[0], LOSSLESS[2], LOSSLESS[-1]])
def test_exif_orientation_is_applied(value, kind, options):
    stored = colours()
    data = encode(Image.fromarray(stored), kind, exif=orientation(value), **options)
    np.testing.assert_array_equal(read_image(data).array, UPRIGHT[value](stored))


def test_exif_orientation_of_a_jpeg_and_of_a_pillow_picture(tmp_path):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16] = 255  # left half white; upright after a quarter turn: top half white
    path = tmp_path / "phone.jpg"
    path.write_bytes(encode(Image.fromarray(stored), "JPEG", exif=orientation(6)))
    with Image.open(path) as picture:
        for read in (read_image(path), read_image(picture)):
            assert read.image_size == (32, 16)
            assert read.array[:14].mean() > 250 and read.array[18:].mean() < 5


def test_orientation_applies_to_16_bit_grey_too():
    values = np.array([[0, 65535, 65535]], np.uint16)
    data = encode(Image.fromarray(values), "PNG", exif=orientation(6))
    assert read_image(data).array[:, 0, 0].tolist() == [0, 255, 255]


def test_broken_exif_is_a_note_not_a_refusal():
    image = colours()
    data = encode(Image.fromarray(image), "PNG", exif=b"Exif\x00\x00not a table at all")
    read = read_image(data)
    np.testing.assert_array_equal(read.array, image)
    assert len(read.notes) == 1 and "orientation not applied" in read.notes[0]


@pytest.mark.parametrize(("kind", "options"), [("TIFF", {}), ("PNG", {}), LOSSLESS[-1]])
def test_frame_0_of_several(kind, options):
    frames = [Image.fromarray(colours(seed=seed)) for seed in range(3)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    read = read_image(data)
    np.testing.assert_array_equal(read.array, colours(seed=0))
    assert read.notes == ("frame 0 of 3",)


def test_multi_picture_jpeg_of_a_phone():
    frames = [Image.new("RGB", (16, 16), shade) for shade in ("white", "black")]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    read = read_image(data)
    assert read.array.min() > 250 and read.notes == ("frame 0 of 2",)


# --- arrays and Pillow pictures -----------------------------------------------------------


def test_arrays():
    image = colours()
    np.testing.assert_array_equal(read_image(image).array, image)
    np.testing.assert_array_equal(read_image(image[..., 0]).array, image[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(read_image(image[..., :1]).array, image[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(read_image(image[:, ::-2]).array, image[:, ::-2])
    np.testing.assert_array_equal(read_image(image.astype(np.uint16) * 257).array, image)
    for kind in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(read_image((image / 255).astype(kind)).array, image)
    assert read_image(np.array([[False, True]])).array[0, :, 0].tolist() == [0, 255]


def test_array_with_alpha():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    assert read_image(rgba).array.tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"array \(3, 8, 8\).*transpose\(1, 2, 0\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "one by one"),
        (np.zeros((4, 4, 2), np.uint8), r"\(H, W\) or \(H, W, 3\)"),
        (np.zeros((0, 4), np.uint8), r"\(H, W\) or \(H, W, 3\)"),
        (np.zeros(4, np.uint8), r"\(H, W\) or \(H, W, 3\)"),
        (np.zeros((4, 4), np.int32), "got int32"),
        (np.zeros((4, 4), complex), "got complex128"),
        (np.full((4, 4), 200.0), r"should be in \[0, 1\], got 200..200; scale them"),
        (np.full((4, 4), -0.1), r"should be in \[0, 1\]"),
        (np.full((4, 4), np.nan), "NaN"),
    ],
)
def test_arrays_that_are_refused(array, message):
    with pytest.raises(ImageReadError, match=message):
        read_image(array)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(256).reshape(16, 16),
        np.arange(256, dtype=np.int32).reshape(16, 16),
        np.arange(256, dtype=np.uint64).reshape(16, 16),
        np.arange(256, dtype=np.float64).reshape(16, 16),
        np.arange(256, dtype=np.float32).reshape(16, 16),
        (np.arange(256) - 128).astype(np.int8).reshape(16, 16),
        np.arange(256).reshape(16, 16) * 257,
        np.arange(256).reshape(16, 16) * 257.0,
        np.arange(256).reshape(16, 16) * 257 - 32768,
        np.arange(256).reshape(16, 16) * (2**62 // 128),
        -np.arange(256.0).reshape(16, 16)[::-1, ::-1] * 1e-3,
        np.arange(256).reshape(16, 16).repeat(3).reshape(16, 16, 3),
    ],
    ids=lambda array: f"{array.dtype}-{array.min()}..{array.max()}",
)
def test_the_advice_on_other_arrays_works_when_followed(array):
    with pytest.raises(ImageReadError) as told:
        read_image(array)
    advice = re.search(r"[Pp]ass (.*array.*?)\.?(, with.*)?$", str(told.value)).group(1)
    followed = eval(advice, {"array": array})  # as a reader would type it
    read = read_image(followed).array
    wanted = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(read, np.repeat(wanted[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.array([[0, 1]]), [0, 255]),  # a mask
        (np.array([[7, 7]]), [7, 7]),
        (np.array([[-7, -7]]), [0, 0]),  # nothing to tell apart
        (np.array([[0, 4095]]), [0, 16]),
        (np.array([[0.0, 4095.0]]), [0, 255]),
        (np.array([[-(2**63), 2**63 - 1]]), [0, 255]),
    ],
)
def test_the_advice_at_the_edges(array, shown):
    with pytest.raises(ImageReadError) as told:
        read_image(array)
    advice = re.search(r"[Pp]ass (.*array.*?)\.?(, with.*)?$", str(told.value)).group(1)
    assert read_image(eval(advice, {"array": array})).array[0, :, 0].tolist() == shown
    if array.max() == 4095 and array.dtype.kind == "i":
        assert "with bit_depth=12 if the camera has 12 bits" in str(told.value)


def test_pillow_pictures_are_read_and_not_changed():
    rgba = Image.fromarray(np.dstack([colours(), colours(seed=2)[..., 0]]))
    before = rgba.copy()
    assert read_image(rgba).array.shape == (24, 36, 3)
    assert rgba == before
    hsv = Image.fromarray(colours()).convert("HSV")
    assert np.abs(read_image(hsv).array.astype(int) - colours()).mean() < 3


# --- TIFF kinds that Pillow does not know -------------------------------------------------


def float_colour_tiff(values: np.ndarray) -> bytes:
    height, width = values.shape[:2]
    data = values.astype("<f4").tobytes()
    return tiff(data, width=width, height=height, bits=(32, 32, 32), sample_format=3)


class FakeTifffile(types.ModuleType):
    """Enough of tifffile's documented surface to see that it is used rightly."""

    def __init__(self, array: np.ndarray, axes: str, *, pages: int = 1) -> None:
        super().__init__("tifffile")
        height, width = array.shape[axes.index("Y")], array.shape[axes.index("X")]
        page = types.SimpleNamespace(
            imagewidth=width, imagelength=height, axes=axes, asarray=lambda: array,
            chunked=(1, 1, 1), dataoffsets=(8,),
        )  # fmt: skip
        self.pages = [page] * pages

    def TiffFile(self, stream):  # noqa: N802 (tifffile's own name)
        assert stream.read(4) == b"II*\x00"
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_unknown_tiff_without_tifffile_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImageReadError, match=r"install faprompt\[tiff\]"):
        read_image(float_colour_tiff(np.zeros((2, 3, 3))))


def test_unknown_tiff_with_tifffile(monkeypatch):
    values = np.array([[[0.0, 0.5, 1.0], [1.0, 0.2, 0.0]]], np.float32)
    expected = [[[0, 128, 255], [255, 51, 0]]]
    data = float_colour_tiff(values)
    monkeypatch.setitem(sys.modules, "tifffile", FakeTifffile(values, "YXS", pages=2))
    read = read_image(data)
    assert read.array.tolist() == expected
    assert read.notes == ("read with tifffile", "frame 0 of 2")
    planes = np.moveaxis(values, -1, 0)
    monkeypatch.setitem(sys.modules, "tifffile", FakeTifffile(planes, "SYX"))
    assert read_image(data).array.tolist() == expected
    with pytest.raises(ImageReadError, match="above the limit of 1"):
        read_image(data, max_pixels=1)


def test_unknown_tiff_with_the_real_tifffile():
    pytest.importorskip("tifffile", reason="tifffile is optional")
    values = np.array([[[0.0, 0.5, 1.0], [1.0, 0.2, 0.0]]], np.float32)
    assert read_image(float_colour_tiff(values)).array.tolist() == [[[0, 128, 255], [255, 51, 0]]]
