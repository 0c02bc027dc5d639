"""What cannot be read: every refusal names the source, says what came and what to do."""

from __future__ import annotations

import gzip
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from faprompt.errors import ImageReadError
from faprompt.imaging import count_pixels, read_image
from tests.imaging.files import LOSSLESS, colours, encode, png_header, webp_header


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"name,label\r\na.png,0\r\n", "a text file that begins 'name,label'"),
        ("Prüfbericht\n".encode(), "a text file that begins 'Prüfbericht'"),
        (b"GIF89a" + bytes(60), "a GIF"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04" + bytes(60), "a ZIP archive"),
        (bytes(128) + b"DICM" + bytes(90), "a DICOM file"),
        (b"\x5c\x01\0\0" + bytes(344), "a NIfTI or Analyze volume.*16-bit PNG or DICOM"),
        (b"\x1c\x02\0\0n+2\0" + bytes(90), "a NIfTI or Analyze volume"),
        (
            gzip.compress(b"\x5c\x01\0\0" + bytes(4000), mtime=0),
            r"a compressed NIfTI volume \(.nii.gz\)",
        ),
        (gzip.compress(bytes(4000), mtime=0), "a gzip archive; unpack it first"),
        (b"\x1f\x8b", "a gzip archive; unpack it first"),
        (b"NRRD0005\n# Complete", "an NRRD volume; export its slices"),
        (b"ObjectType = Image\nNDims = 3\n", r"a MetaImage volume \(.mha, .mhd\)"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(60), "a HEIF, AVIF or video file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (bytes(range(200, 256)), "unknown bytes that begin c8 c9"),
    ],
)
def test_files_that_are_no_picture(content, message, tmp_path):
    path = tmp_path / "part.png"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=message) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))


def test_the_values_of_a_volume_are_known_by_their_ending(tmp_path):
    (tmp_path / "head.IMG").write_bytes(bytes(range(200, 256)))
    with pytest.raises(ImageReadError, match=r"NIfTI or Analyze volume \(.img\); export its"):
        read_image(tmp_path / "head.IMG")


def test_what_is_not_there(tmp_path):
    with pytest.raises(ImageReadError, match="nowhere.png: no such file"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageReadError, match="this is a folder"):
        read_image(tmp_path)
    with pytest.raises(ImageReadError, match="cannot be opened"):
        read_image("a\x00b.png")
    with pytest.raises(ImageReadError, match="download the picture first"):
        read_image("https://example.org/a.png")


@pytest.mark.parametrize(("kind", "options"), [*LOSSLESS, ("JPEG", {})])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_files(kind, options, share, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    data = encode(Image.fromarray(colours(64, 64)), kind, **options)
    with pytest.raises(ImageReadError, match="truncated|corrupt"):
        read_image(data[: int(share * len(data))])


def test_a_flipped_byte_in_a_png():
    data = bytearray(encode(Image.fromarray(colours(64, 64)), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageReadError, match="truncated or corrupt"):
        read_image(bytes(data))


@pytest.mark.parametrize(
    "data",
    [png_header(100_000, 90_000), webp_header(16_000, 16_000)],
    ids=["png", "webp"],
)
def test_the_limit_stands_before_decoding(data):
    with pytest.raises(ImageReadError, match="pixels, above the limit of 200,000,000"):
        read_image(data)  # there is not one pixel in these files


def test_the_limit_is_the_callers():
    image = colours(20, 30)
    for source in (encode(Image.fromarray(image), "PNG"), image, Image.fromarray(image)):
        with pytest.raises(ImageReadError, match=r"raise max_pixels \(--max-pixels on the command"):
            read_image(source, max_pixels=599)
        assert read_image(source, max_pixels=600).image_size == (20, 30)
        with pytest.raises(ImageReadError, match="30x20 is 600 pixels, above the limit of 599"):
            read_image(source, max_pixels=599)


@pytest.mark.parametrize(("kind", "options"), [*LOSSLESS, ("JPEG", {})])
def test_pillows_own_limit_neither_warns_nor_changes(kind, options, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600_000)
    if kind == "WEBP":  # its decoder refuses at twice the limit by itself; 1.05 million is below
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700_000)
    picture = Image.new("RGB", (1300, 1000), (50, 60, 70))
    data = encode(picture, kind, **options)
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(data).image_size == (1000, 1300)
    assert before == Image.MAX_IMAGE_PIXELS


def test_wide_pictures_are_converted_in_blocks(monkeypatch):
    monkeypatch.setattr("faprompt.imaging.rgb_levels._BLOCK_PIXELS", 100)
    for shape in ((7, 33), (1, 250), (250, 1)):
        image = colours(*shape)
        np.testing.assert_array_equal(
            read_image(encode(Image.fromarray(image), "PNG")).array, image
        )
        deep = image[..., 0].astype(np.uint16) * 257
        np.testing.assert_array_equal(read_image(deep).array[..., 0], image[..., 0])


@pytest.mark.parametrize("depth", [0, -1, 33])
def test_bit_depth_out_of_range(depth):
    with pytest.raises(ValueError, match="bit_depth should be 1 to 32"):
        read_image(colours(), bit_depth=depth)


def test_options_and_sources_that_are_no_such_thing():
    with pytest.raises(ValueError, match="max_pixels should be at least 1"):
        read_image(colours(), max_pixels=0)
    with pytest.raises(TypeError, match="got list"):
        read_image([[1, 2]])


def test_count_pixels(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(300, 200))
    assert count_pixels(path) == 60_000
    path.write_bytes(b"no picture")
    assert count_pixels(path) == 0
    assert count_pixels(tmp_path / "nowhere.png") == 0
