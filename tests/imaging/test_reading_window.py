"""Windows for 16-bit and float pictures, and the options that all readers share."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from faprompt.errors import ConfigError, ImageReadError
from faprompt.imaging import read_image
from faprompt.imaging.reading_options import ReadingOptions, parse_window, window_text
from faprompt.imaging.rgb_levels import NOT_WINDOWED
from tests.imaging.files import colours, encode, png_rgb16

RAMP = np.arange(0, 65536, 113, np.uint16)[:576].reshape(24, 24)


def shown(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Values from center - width/2 to center + width/2 as 0 to 255, clipped."""
    return np.rint(((values.astype(float) - center) / width + 0.5).clip(0, 1) * 255)


def differ(found: np.ndarray, wanted: np.ndarray) -> int:
    return int(np.abs(found[..., 0].astype(int) - wanted).max())  # 1 where a tie is rounded


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits(kind):
    data = encode(Image.fromarray(RAMP), kind)
    read = read_image(data, window=(20_000, 10_000))
    assert differ(read.array, shown(RAMP, 20_000, 10_000)) <= 1
    assert read.notes == (
        "window center 20000, width 10000: values span 0..64975, those outside 15000..25000 are "
        "clipped",
    )
    assert read_image(data, window=(32_000, 70_000)).notes == ("window center 32000, width 70000",)
    auto = read_image(data, window="auto")
    assert differ(auto.array, shown(RAMP, 64975 / 2, 64975)) <= 1
    assert auto.notes == ("values 0..64975 scaled to 0..255",)


def test_float_and_signed_files():
    for values in (np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8),
                   np.arange(-3000, 5000, 125, np.int32).reshape(8, 8)):  # fmt: skip
        data = encode(Image.fromarray(values), "TIFF")
        center, width = values.max() / 5, values.max() / 2
        read = read_image(data, window=(center, width))
        assert differ(read.array, shown(values, center, width)) <= 1
        assert "are clipped" in read.notes[0]


def test_colours_and_alpha():
    """All channels have one window; alpha has none."""
    rgba = np.concatenate([colours().astype(np.uint16) * 257, np.full((24, 36, 1), 65535)], axis=2)
    read = read_image(png_rgb16(rgba.astype(np.uint16)), window=(32767.5, 65535))
    np.testing.assert_array_equal(read.array, colours())
    half = rgba.astype(np.uint16)
    half[..., 3] = 32768
    read = read_image(png_rgb16(half), window=(-10, 1))
    assert set(np.unique(read.array)) <= {254, 255}  # white over white


def test_arrays_of_any_numbers_have_windows():
    hounsfield = np.arange(-1024, 3072, 64, np.int16).reshape(8, 8)
    for values in (hounsfield, hounsfield.astype(np.int64), hounsfield.astype(float)):
        read = read_image(values, window=(40, 400))
        assert differ(read.array, shown(hounsfield, 40, 400)) <= 1
        assert differ(read_image(values, window="auto").array, shown(hounsfield, 992, 4032)) <= 1
        with pytest.raises(ImageReadError, match="pixels are uint8|should be in"):
            read_image(values)
    with pytest.raises(ImageReadError, match="NaN or infinite"):
        read_image(np.full((4, 4), np.nan), window=(0, 1))
    with pytest.raises(ImageReadError, match="got complex128"):
        read_image(np.zeros((4, 4), complex), window=(0, 1))


def test_a_flat_picture_is_black():
    assert not read_image(np.full((4, 4), 900, np.uint16), window="auto").array.any()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "array", "Pillow"])
def test_eight_bits_have_no_window(kind):
    source = Image.fromarray(colours())
    if kind not in ("array", "Pillow"):
        source = encode(source, kind)
    elif kind == "array":
        source = colours()
    plain, read = read_image(source), read_image(source, window=(40, 80))
    np.testing.assert_array_equal(read.array, plain.array)
    assert read.notes == (*plain.notes, NOT_WINDOWED)


def test_colours_of_which_only_the_upper_bits_are_read():
    picture = Image.open(io.BytesIO(png_rgb16(colours().astype(np.uint16) * 257)))
    with pytest.raises(ImageReadError, match="a window cannot be applied to 16-bit colours"):
        read_image(picture, window="auto")


class TestOptions:
    def test_lists_and_whole_numbers_are_windows_too(self):
        assert ReadingOptions(window=[40, 80]).window == (40.0, 80.0)
        assert ReadingOptions(window="auto").window == "auto"
        assert ReadingOptions(window=np.array([1, 2])) == ReadingOptions(window=(1, 2))

    @pytest.mark.parametrize(
        "window", [(40, 0), (40, -1), (40,), (1, 2, 3), 40, "40,80", "wide", (np.nan, 1),
                   (0, np.inf), ("a", "b"), ()]
    )  # fmt: skip
    def test_what_is_no_window(self, window):
        with pytest.raises(ValueError, match=r"window should be \(center, width\) .*, or 'auto'"):
            read_image(RAMP, window=window)

    def test_a_bit_depth_and_a_window_contradict_each_other(self):
        with pytest.raises(ConfigError, match="bit_depth and window exclude each other"):
            read_image(RAMP, bit_depth=12, window="auto")

    @pytest.mark.parametrize(
        ("text", "window"), [("auto", "auto"), ("40,400", (40, 400)), ("-600,1.5e3", (-600, 1500))]
    )
    def test_windows_as_text(self, text, window):
        assert parse_window(text) == window
        assert parse_window(window_text(parse_window(text))) == window

    @pytest.mark.parametrize("text", ["", "40", "40,0", "a,b", "1,2,3", "nan,1", "AUTO"])
    def test_other_texts(self, text):
        with pytest.raises(ValueError, match="should be CENTER,WIDTH with a width above 0"):
            parse_window(text)
