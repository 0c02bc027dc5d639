"""Windows of large pictures: the bytes of `read_image`, read in parts."""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from faprompt.errors import ImageReadError
from faprompt.imaging import picture_windows, read_image
from faprompt.imaging.picture_windows import ArrayWindows, open_windows
from tests.imaging.files import colours

IMAGE = colours(75, 61)
DEEP = (IMAGE.astype(np.uint16) << 8) + colours(75, 61, seed=1)
LAYOUTS: tuple[dict[str, Any], ...] = (
    {}, {"rowsperstrip": 16}, {"rowsperstrip": 1}, {"tile": (32, 16)}, {"tile": (80, 64)}
)  # fmt: skip
LOSSLESS: tuple[dict[str, Any], ...] = (
    {}, {"compression": "lzw"}, {"compression": "deflate", "predictor": True},
    {"compression": "packbits"},
)  # fmt: skip
FILES = [dict(a, **b) for a, b in product(LAYOUTS, LOSSLESS)]
LIBRARY = "read with tifffile"  # a note of `read_image`


def with_alpha(image: np.ndarray, *, seen: bool = True) -> np.ndarray:
    """The picture with an alpha channel of 0 in its first rows, or everywhere."""
    top = 255 if image.dtype == np.uint8 else 65535
    alpha = np.full((*image.shape[:2], 1), 0, image.dtype)
    if seen:
        alpha[20:] = np.linspace(0, top, 55)[:, None, None].astype(image.dtype)
    return np.concatenate([image, alpha], axis=2)


def check_windows(path, *, whole: bool = False, **options: Any) -> None:
    """Boxes, rows and notes against the picture that is read whole."""
    expected = read_image(path, **options)
    height, width = expected.image_size
    with open_windows(path, whole_pixels=0, **options) as windows:
        assert isinstance(windows, ArrayWindows) == whole
        assert windows.image_size == (height, width)
        read_as = () if whole else ("read in parts",)
        assert windows.notes == (*read_as, *(n for n in expected.notes if whole or n != LIBRARY))
        for x0, y0, x1, y1 in ((0, 0, width, height), (3, 30, 40, 41), (0, 74, 61, 75)):
            np.testing.assert_array_equal(
                windows.read((x0, y0, x1, y1)), expected.array[y0:y1, x0:x1]
            )


@pytest.fixture
def file(tmp_path):
    def write(values: np.ndarray, **options: Any):
        tifffile.imwrite(tmp_path / "a.tif", values, **options)
        return tmp_path / "a.tif"

    return write


@pytest.mark.parametrize("options", FILES, ids=str)
@pytest.mark.parametrize("byteorder", "<>")
def test_grey_and_colours_equal_read_image(file, options, byteorder):
    for values in (IMAGE, DEEP):
        check_windows(file(values, photometric="rgb", byteorder=byteorder, **options))
        for photometric in ("minisblack", "miniswhite"):
            grey = values[..., 0]
            check_windows(file(grey, photometric=photometric, byteorder=byteorder, **options))


@pytest.mark.parametrize("options", [*FILES[:2], FILES[-2]], ids=str)
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("byteorder", "<>")
def test_alpha_equals_read_image(file, options, kind, seen, byteorder):
    for values in (IMAGE, DEEP):
        stored = with_alpha(values, seen=seen)
        check_windows(
            file(stored, photometric="rgb", extrasamples=[kind], byteorder=byteorder, **options)
        )


@pytest.mark.parametrize("layout", LAYOUTS[1:2] + LAYOUTS[3:], ids=str)
@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_jpeg_equals_read_image(file, layout, photometric):
    values = IMAGE if photometric == "rgb" else IMAGE[..., 0]
    check_windows(file(values, photometric=photometric, compression="jpeg", **layout))


def test_big_tiff_equals_read_image(file):
    check_windows(file(DEEP, photometric="rgb", bigtiff=True, compression="lzw", rowsperstrip=16))


def test_the_bit_depth_is_checked_on_the_whole_picture(file):
    values = DEEP >> 4
    path = file(values, photometric="rgb", rowsperstrip=16, compression="lzw")
    check_windows(path, bit_depth=12)
    with open_windows(path, whole_pixels=0) as windows:
        assert windows.notes[1:] == ("16-bit data uses only 0..4095: pass bit_depth=12",)
    values[60, 5] = 4096
    path = file(values, photometric="rgb", rowsperstrip=16, compression="lzw")
    with (
        pytest.raises(ImageReadError, match=r"a\.tif: values reach 4096, above 4095"),
        open_windows(path, bit_depth=12, whole_pixels=0),
    ):
        pass


@pytest.mark.parametrize("peak", [4095, 60000])
def test_alpha_above_the_bit_depth_is_read_whole(file, peak):
    values = with_alpha(DEEP >> 4)
    values[..., 3] = np.minimum(values[..., 3], 4000)
    values[70, :, 3] = peak
    path = file(values, photometric="rgb", extrasamples=["unassalpha"], rowsperstrip=16)
    check_windows(path, bit_depth=12, whole=peak > 4095)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (IMAGE, {"planarconfig": "separate", "photometric": "rgb"}),
        (IMAGE, {"photometric": "rgb", "extratags": [(274, "H", 1, 6, True)]}),
        (IMAGE[..., 0].astype(np.float32) / 255, {}),
        (IMAGE[..., 0].astype(np.int16), {}),
        (IMAGE[..., 0] > 99, {}),
        (IMAGE, {"photometric": "rgb", "compression": "zstd"}),
        (IMAGE[..., :2], {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
        (with_alpha(IMAGE), {"photometric": "rgb", "bigtiff": True, "byteorder": ">"}),
    ],
    ids=str,
)
def test_other_kinds_are_decoded_whole(file, values, options):
    if options.get("planarconfig"):
        values = np.moveaxis(values, -1, 0)
    path = file(values, **options)
    expected = read_image(path)
    with open_windows(path, whole_pixels=0) as windows:
        assert isinstance(windows, ArrayWindows)
        np.testing.assert_array_equal(windows.array, expected.array)
        assert windows.notes == expected.notes


def test_a_large_compressed_strip_is_decoded_whole(file, monkeypatch):
    monkeypatch.setattr(picture_windows, "MOST_BAND_BYTES", 16 * 61 * 3)
    check_windows(file(IMAGE, photometric="rgb", compression="lzw", rowsperstrip=16))
    check_windows(file(IMAGE, photometric="rgb", compression="lzw", rowsperstrip=17), whole=True)


def test_small_pictures_and_other_formats_are_decoded_whole(file, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", file(IMAGE, photometric="rgb")):
        with open_windows(path) as windows:
            assert isinstance(windows, ArrayWindows)
            np.testing.assert_array_equal(windows.read((1, 2, 9, 5)), IMAGE[2:5, 1:9])


def test_without_the_extra_a_note_tells_of_it(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with open_windows(file(IMAGE, photometric="rgb"), whole_pixels=0) as windows:
        assert isinstance(windows, ArrayWindows)
        assert "faprompt[tiff]" in windows.notes[-1]
        np.testing.assert_array_equal(windows.array, IMAGE)


@pytest.mark.parametrize("options", FILES, ids=str)
def test_rows_of_boxes_decode_every_band_once(file, options, monkeypatch):
    decoded: list[int] = []
    decode = picture_windows._TiffBands.decode
    monkeypatch.setattr(
        picture_windows._TiffBands, "decode",
        lambda self, band: (decoded.append(band), decode(self, band))[1],
    )  # fmt: skip
    monkeypatch.setattr(picture_windows, "_BLOCK_PIXELS", 7 * 61)
    with open_windows(file(IMAGE, photometric="rgb", **options), whole_pixels=0) as windows:
        for top in (0, 15, 30, 45, 55):
            for left in (0, 15, 30, 41):
                windows.read((left, top, left + 20, top + 20))
            assert sum(len(band) for band in windows._kept.values()) < 20 + 2 * windows._bands.rows
        bands, last_boxes = windows._bands.count, list(windows._kept)
        assert decoded == list(range(bands))
        windows.thumbnail(20)
        again = decoded[bands:]
        assert again == sorted(set(again))
        assert {*again, *last_boxes} == {*range(bands)}


@pytest.mark.parametrize("max_side", [1, 7, 20, 25, 60, 74])
def test_thumbnails_are_those_of_pillow(file, max_side, monkeypatch):
    monkeypatch.setattr(picture_windows, "_BLOCK_PIXELS", 9 * 61)
    with open_windows(file(IMAGE, photometric="rgb"), whole_pixels=0) as windows:
        thumbnail = windows.thumbnail(max_side)
    size = (max(1, round(61 * max_side / 75)), max_side)
    expected = Image.fromarray(IMAGE).resize(size, Image.Resampling.BOX)
    np.testing.assert_array_equal(thumbnail, np.asarray(expected))
    np.testing.assert_array_equal(ArrayWindows(IMAGE).thumbnail(max_side), thumbnail)


def test_a_thumbnail_is_never_larger_than_the_picture():
    np.testing.assert_array_equal(ArrayWindows(IMAGE).thumbnail(75), IMAGE)
    with pytest.raises(ValueError, match="max_side should be at least 1"):
        ArrayWindows(IMAGE).thumbnail(0)


def test_refusals(file, tmp_path):
    path = file(IMAGE, photometric="rgb", compression="lzw", rowsperstrip=16)
    with open_windows(path, whole_pixels=0) as windows:
        for picture, box in product((windows, ArrayWindows(IMAGE)), ((0, 0, 62, 5), (5, 5, 5, 9))):
            with pytest.raises(ValueError, match="should lie in a picture of"):
                picture.read(box)
    with pytest.raises(ValueError, match="bit_depth"), open_windows(path, bit_depth=40):
        pass
    for limit in (0, picture_windows.WHOLE_PIXELS):
        with (
            pytest.raises(ImageReadError, match=r"a\.tif: 61x75 is 4,575 pixels, above the limit"),
            open_windows(path, max_pixels=4574, whole_pixels=limit),
        ):
            pass
    with pytest.raises(ImageReadError, match="no such file"), open_windows(tmp_path / "b.tif"):
        pass


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
def test_broken_files_are_named(file, compression):
    path = file(IMAGE, photometric="rgb", compression=compression, rowsperstrip=16)
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        place, count = tiff.pages[0].dataoffsets[3], tiff.pages[0].databytecounts[3]
    if compression:
        path.write_bytes(data[:place] + b"\xff" * count + data[place + count :])
        with open_windows(path, whole_pixels=0) as windows:
            windows.read((0, 0, 61, 40))
            with pytest.raises(ImageReadError, match=r"a\.tif: the picture is truncated or corr"):
                windows.read((0, 48, 61, 60))
    path.write_bytes(data[: place + count])
    with pytest.raises(ImageReadError, match="truncated"), open_windows(path, whole_pixels=0):
        pass
    path.write_bytes(data[:9])
    with pytest.raises(ImageReadError, match="corrupt") as error:
        read_image(path)
    with pytest.raises(ImageReadError) as same, open_windows(path, whole_pixels=0):
        pass
    assert str(same.value) == str(error.value)


@pytest.mark.parametrize("window", [(20_000, 10_000), (0, 500_000), "auto"])
@pytest.mark.parametrize("layout", LAYOUTS[:4], ids=str)
def test_windows_of_values_equal_read_image(file, window, layout):
    options = {"compression": "lzw", **layout} if layout else {}
    for photometric in ("minisblack", "miniswhite"):
        check_windows(file(DEEP[..., 0], photometric=photometric, **options), window=window)
    check_windows(file(DEEP, photometric="rgb", **options), window=window)
    check_windows(file(with_alpha(DEEP), photometric="rgb", extrasamples=["unassalpha"],
                       **options), window=window)  # fmt: skip
    check_windows(file(IMAGE, photometric="rgb", **options), window=window)
    check_windows(file(np.full((75, 61), 900, np.uint16), **options), window=window)
