"""DICOM pictures, made with pydicom, against the formulas of PS3.3 and against pydicom."""

from __future__ import annotations

import io
import logging
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faprompt.errors import ImageReadError
from faprompt.imaging import count_pixels, dicom, read_image, read_picture_header
from faprompt.imaging.image_reading import read_luminance, read_samples
from faprompt.imaging.picture_windows import open_windows
from tests.helpers.dicom_files import PATIENT, dicom_file, lookup_table

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")
processing = pytest.importorskip("pydicom.pixels")

JPEG, JPEG_LOSSLESS, JPEG_LS, TWELVE, J2K, RLE, VIDEO, DEFLATED, BIG, IMPLICIT = (
    f"1.2.840.10008.1.2{end}"
    for end in (".4.50", ".4.70", ".4.80", ".4.51", ".4.90", ".5", ".4.102", ".1.99", ".2", "")
)
RAMP = np.arange(0, 4096, 7, np.uint16)[:576].reshape(24, 24)
CT = (RAMP.astype(np.int32) - 1024).astype(np.int16)


def grey(data: bytes, **options) -> np.ndarray:
    """Read bytes; return one channel, (H, W) int."""
    array = read_image(data, **options).array
    assert (array == array[..., :1]).all()
    return array[..., 0].astype(int)


def expected(x: np.ndarray, center: float, width: float, kind: str = "LINEAR") -> np.ndarray:
    """Return the formulas of PS3.3 C.11.2.1.2.1, C.11.2.1.3.2 and C.11.2.1.3.1, y in 0..255."""
    x = x.astype(float)
    if kind == "SIGMOID":
        with np.errstate(over="ignore"):
            return 255 / (1 + np.exp(-4 * (x - center) / width))
    c, w = (center - 0.5, width - 1) if kind == "LINEAR" else (center, width)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = ((x - c) / w + 0.5) * 255
    return np.where(x <= c - w / 2, 0, np.where(x > c + w / 2, 255, between))


def assert_rounded(found: np.ndarray, wanted: np.ndarray) -> None:
    """Check that bytes are values rounded to the nearest one, ties to either side."""
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 0.5 + 1e-6


def notes(data: bytes, **options) -> tuple[str, ...]:
    return read_image(data, **options).notes


class TestWindows:
    @pytest.mark.parametrize("kind", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
    @pytest.mark.parametrize(
        ("center", "width"), [(40, 400), (1000.5, 37.25), (2000, 1), (0, 9000)]
    )
    def test_the_windows_of_the_file(self, kind, center, width):
        data = dicom_file(CT, WindowCenter=center, WindowWidth=width, VOILUTFunction=kind)
        assert_rounded(grey(data), expected(CT, center, width, kind))
        (note,) = notes(data)
        assert note == f"window of the file: center {center:g}, width {width:g}, {kind}"

    @pytest.mark.parametrize("kind", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
    @pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.5, 100), (-2, 7)])
    def test_rescaled_values_against_pydicom(self, kind, slope, intercept):
        elements = {"WindowCenter": 300, "WindowWidth": 900, "VOILUTFunction": kind}
        data = dicom_file(RAMP, RescaleSlope=slope, RescaleIntercept=intercept, **elements)
        header = pydicom.dcmread(io.BytesIO(data))
        rescaled = processing.apply_modality_lut(header.pixel_array, header)
        shown = processing.apply_windowing(rescaled, header)
        first, last = intercept, 65535 * slope + intercept  # pydicom's range of the result
        rival = (shown - first) / (last - first) * 255
        assert np.abs(grey(data) - rival).max() <= 0.5 + 1e-6
        assert_rounded(grey(data), expected(rescaled, 300, 900, kind))

    def test_linear_is_the_default_and_the_first_window_counts(self):
        data = dicom_file(CT, WindowCenter=[40, 600], WindowWidth=[400, 1600])
        assert_rounded(grey(data), expected(CT, 40, 400))

    def test_a_given_window_replaces_that_of_the_file(self):
        data = dicom_file(RAMP, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=0,
                          WindowWidth=1, VOILUTFunction="SIGMOID")  # fmt: skip
        exact = expected(CT, 40, 400, "LINEAR_EXACT")
        assert_rounded(grey(data, window=(40, 400)), exact)
        note = "window center 40, width 400: values span -1024..3001, those outside -160..240 are"
        assert notes(data, window=(40, 400)) == (f"{note} clipped",)
        assert notes(data, window=(1000, 9000)) == ("window center 1000, width 9000",)

    def test_auto_is_minimum_to_maximum(self):
        data = dicom_file(RAMP, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=0,
                          WindowWidth=1)  # fmt: skip
        x = RAMP.astype(float)
        wanted = np.rint((x - x.min()) / (x.max() - x.min()) * 255)
        np.testing.assert_array_equal(grey(data, window="auto"), wanted)
        assert notes(data, window="auto") == ("values -1024..7026 scaled to 0..255",)

    @pytest.mark.parametrize(
        "elements",
        [{}, {"WindowCenter": 40, "WindowWidth": 0}, {"WindowCenter": 40},
         {"WindowCenter": 4, "WindowWidth": 9, "VOILUTFunction": "OTHER"}],
    )  # fmt: skip
    def test_without_a_usable_window(self, elements):
        np.testing.assert_array_equal(
            grey(dicom_file(CT, **elements)), grey(dicom_file(CT), window="auto")
        )
        (note,) = notes(dicom_file(CT, **elements))
        assert note == (
            "no window in the file: values -1024..3001 scaled to 0..255; "
            "give all files one by window=CENTER,WIDTH"
        )

    def test_eight_bits_without_a_window_keep_their_values(self):
        values = np.arange(64, dtype=np.uint8).reshape(8, 8)
        assert notes(dicom_file(values)) == ()
        np.testing.assert_array_equal(grey(dicom_file(values)), values)
        signed = values.astype(np.int8) - 40
        np.testing.assert_array_equal(grey(dicom_file(signed)), signed.astype(int) + 128)
        six = grey(dicom_file(values, BitsStored=6, HighBit=5, RescaleSlope=3, RescaleIntercept=1))
        np.testing.assert_array_equal(six, np.rint(values / 63 * 255))
        np.testing.assert_array_equal(
            grey(dicom_file(values, RescaleSlope=-1, RescaleIntercept=0)), 255 - values.astype(int)
        )
        assert_rounded(
            grey(dicom_file(values), window=(10, 20)), expected(values, 10, 20, "LINEAR_EXACT")
        )

    def test_a_flat_picture(self):
        flat = np.full((4, 4), 900, np.uint16)
        assert not grey(dicom_file(flat)).any()
        assert not grey(dicom_file(flat), window="auto").any()

    def test_the_table_of_the_file_against_pydicom(self):
        entries = (np.linspace(0, 1, 500) ** 2 * 4095).astype(np.uint16)
        data = dicom_file(RAMP, VOILUTSequence=lookup_table(entries, 1000, 12))
        header = pydicom.dcmread(io.BytesIO(data))
        rival = processing.apply_voi(header.pixel_array.astype(np.int64), header)
        np.testing.assert_array_equal(grey(data), np.rint(rival * (255 / 4095)))
        assert notes(data) == ("table of the file",)
        both = dicom_file(RAMP, VOILUTSequence=lookup_table(entries, 1000, 12), WindowCenter=900,
                          WindowWidth=500)  # fmt: skip
        assert_rounded(grey(both), expected(RAMP, 900, 500))

    def test_a_modality_table_against_pydicom(self):
        entries = np.arange(3000, 0, -1).astype(np.uint16)
        data = dicom_file(RAMP, ModalityLUTSequence=lookup_table(entries, 100, 16),
                          WindowCenter=1500, WindowWidth=2000)  # fmt: skip
        header = pydicom.dcmread(io.BytesIO(data))
        rescaled = processing.apply_modality_lut(header.pixel_array, header)
        assert_rounded(grey(data), expected(rescaled, 1500, 2000))

    def test_enhanced_files_keep_rescale_and_window_for_each_frame(self):
        def group(**elements):
            outer = pydicom.Dataset()
            for name, values in elements.items():
                item = pydicom.Dataset()
                item.update(values)
                setattr(outer, name, [item])
            return outer

        shared = group(PixelValueTransformationSequence={
            "RescaleSlope": "2", "RescaleIntercept": "-100"})  # fmt: skip
        per_frame = [group(FrameVOILUTSequence={"WindowCenter": c, "WindowWidth": "900"})
                     for c in ("300", "600")]  # fmt: skip
        data = dicom_file(RAMP, frames=2, SharedFunctionalGroupsSequence=[shared],
                          PerFrameFunctionalGroupsSequence=per_frame)  # fmt: skip
        assert_rounded(grey(data), expected(RAMP * 2.0 - 100, 300, 900))
        assert notes(data)[0] == "frame 0 of 2"


class TestGrey:
    def test_monochrome1_is_inverted(self):
        window = {"WindowCenter": 40, "WindowWidth": 400}
        dark, bright = dicom_file(CT, **window), dicom_file(CT, photometric="MONOCHROME1", **window)
        np.testing.assert_array_equal(grey(bright), 255 - grey(dark))
        np.testing.assert_array_equal(grey(bright, window="auto"), 255 - grey(dark, window="auto"))

    @pytest.mark.parametrize(
        ("photometric", "shape", "inverted", "noted"),
        [("MONOCHROME2", "IDENTITY", False, False), ("MONOCHROME1", "INVERSE", True, False),
         ("MONOCHROME1", "IDENTITY", False, True), ("MONOCHROME2", "INVERSE", True, True)],
    )  # fmt: skip
    def test_the_presentation_shape_decides(self, photometric, shape, inverted, noted):
        data = dicom_file(CT, photometric=photometric, PresentationLUTShape=shape)
        plain = grey(dicom_file(CT))
        np.testing.assert_array_equal(grey(data), 255 - plain if inverted else plain)
        assert ("PresentationLUTShape used in place of PhotometricInterpretation"
                in notes(data)) is noted  # fmt: skip

    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    @pytest.mark.parametrize(
        ("padding", "hole"),
        [({"PixelPaddingValue": -2000}, -2000),
         ({"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990}, -1995)],
    )  # fmt: skip
    def test_padding_is_black_and_has_no_part_in_the_range(self, photometric, padding, hole):
        holed = CT.copy()
        holed[:3] = hole
        data = dicom_file(holed, photometric=photometric, **padding)
        found = grey(data, window="auto")
        assert not found[:3].any()
        plain = grey(dicom_file(CT[3:], photometric=photometric), window="auto")
        np.testing.assert_array_equal(found[3:], plain)
        assert notes(data, window="auto")[-1] == "padding pixels are black"
        assert "padding pixels are black" not in notes(dicom_file(CT, **padding))

    def test_padding_of_all_pixels_is_none(self):
        flat = np.full((4, 4), 7, np.uint16)
        assert "padding pixels are black" not in notes(dicom_file(flat, PixelPaddingValue=7))

    def test_unused_upper_bits_are_ignored(self):
        """12 of 16 bits are used; the others may hold anything, such as an overlay."""
        dirty = RAMP | (np.arange(24, dtype=np.uint16) << 12)
        elements = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
        assert_rounded(grey(dicom_file(dirty, **elements)), expected(RAMP, 2048, 4096))
        signed = np.where(RAMP > 2047, RAMP.astype(int) - 4096, RAMP)
        found = grey(dicom_file(dirty.view(np.int16), **elements | {"WindowCenter": 0}))
        assert_rounded(found, expected(signed, 0, 4096))

    @pytest.mark.parametrize("syntax", [BIG, IMPLICIT])
    def test_other_byte_orders(self, syntax):
        data = dicom_file(CT, syntax=syntax, WindowCenter=40, WindowWidth=400)
        assert_rounded(grey(data), expected(CT, 40, 400))

    def test_floats(self):
        values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
        ramp = np.rint((values.astype(float) + 1) / 2 * 255)
        assert np.abs(grey(dicom_file(values)) - ramp).max() <= 1
        found = grey(dicom_file(values), window=(0, 1))
        assert np.abs(found - np.rint((values.astype(float) + 0.5) * 255).clip(0, 255)).max() <= 1
        values[0, 0] = np.nan
        with pytest.raises(ImageReadError, match="NaN or infinite"):
            read_image(dicom_file(values))

    def test_bits_are_those_of_the_header(self):
        with pytest.raises(ImageReadError, match="bit_depth does not apply to a DICOM file"):
            read_image(dicom_file(CT), bit_depth=12)
        eight = np.arange(64, dtype=np.uint8).reshape(8, 8)
        np.testing.assert_array_equal(grey(dicom_file(eight), bit_depth=12), eight)

    @pytest.mark.parametrize("slope", [0, 1e308])
    def test_a_rescale_that_is_none(self, slope):
        with pytest.raises(ImageReadError, match="rescale slope and intercept are no usable"):
            read_image(dicom_file(CT, RescaleSlope=slope, RescaleIntercept=1e308))

    def test_a_damaged_table(self):
        with pytest.raises(ImageReadError, match="lookup table is damaged"):
            read_image(dicom_file(RAMP, VOILUTSequence=lookup_table(np.zeros(4), 0, 99)))
        with pytest.raises(ImageReadError, match="truncated or corrupt"):
            read_image(dicom_file(RAMP, VOILUTSequence=lookup_table(np.zeros(0), 0, 16)))


def colours(height: int = 12, width: int = 16) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 20, columns * 15, 250 - rows * 10], axis=2).astype(np.uint8)


class TestColours:
    def test_interleaved_and_planar(self):
        rgb = colours()
        np.testing.assert_array_equal(read_image(dicom_file(rgb, photometric="RGB")).array, rgb)
        planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)).reshape(rgb.shape)
        data = dicom_file(planes, photometric="RGB", PlanarConfiguration=1)
        np.testing.assert_array_equal(read_image(data).array, rgb)

    def test_ybr(self):
        rgb = colours()
        ybr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
        found = read_image(dicom_file(ybr, photometric="YBR_FULL")).array
        assert np.abs(found.astype(int) - rgb).max() <= 2

    def test_ybr_with_half_the_colours(self):
        flat = np.full((4, 4, 3), (200, 90, 30), np.uint8)
        y, cb, cr = np.asarray(Image.fromarray(flat).convert("YCbCr"))[0, 0]
        half = np.array([y, y, cb, cr] * 8, np.uint8)
        data = dicom_file(flat, photometric="YBR_FULL_422", PixelData=half.tobytes())
        assert np.abs(read_image(data).array.astype(int) - flat).max() <= 2

    @pytest.mark.parametrize("bits", [8, 16])
    def test_palettes(self, bits):
        indices = np.arange(64, dtype=np.uint8).reshape(8, 8)
        tables = np.stack([np.arange(64) * 4, 255 - np.arange(64), np.full(64, 9)]).astype("<u2")
        elements = {}
        for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
            stem = f"{name}PaletteColorLookupTable"
            wide = table * (257 if bits == 16 else 1)
            elements[f"{stem}Descriptor"] = [64, 0, bits]
            elements[f"{stem}Data"] = wide.astype("<u2" if bits == 16 else np.uint8).tobytes()
        data = dicom_file(indices, photometric="PALETTE COLOR", **elements)
        np.testing.assert_array_equal(read_image(data).array, tables.T[indices])

    def test_sixteen_bits(self):
        deep = colours().astype(np.uint16) * 16
        data = dicom_file(deep, photometric="RGB", BitsStored=12, HighBit=11)
        np.testing.assert_array_equal(read_image(data).array, np.rint(deep / 4095 * 255))

    def test_a_window_is_for_grey_values(self):
        data = dicom_file(colours(), photometric="RGB")
        read = read_image(data, window=(40, 80))
        np.testing.assert_array_equal(read.array, colours())
        assert read.notes == ("window not applied: the picture has colours",)

    def test_other_colours_are_refused(self):
        with pytest.raises(ImageReadError, match="are none of MONOCHROME1, .*; export as RGB"):
            read_image(dicom_file(colours(), photometric="YBR_PARTIAL_420"))
        with pytest.raises(ImageReadError, match="pixels do not fit its header"):
            read_image(dicom_file(colours(), photometric="MONOCHROME2"))


def encoded(array: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


class TestCompression:
    def test_jpeg(self):
        smooth = np.add.outer(np.arange(32) * 3, np.arange(40) * 2).astype(np.uint8)
        frame = encoded(smooth, "JPEG", quality=95)
        data = dicom_file(smooth, syntax=JPEG, encapsulated=[frame])
        np.testing.assert_array_equal(grey(data), np.asarray(Image.open(io.BytesIO(frame))))
        assert np.abs(grey(data) - smooth).max() <= 3

    def test_jpeg_colours(self):
        rgb = colours(32, 40)
        rgb = np.asarray(Image.fromarray(rgb).resize((40, 32)))
        frame = encoded(rgb, "JPEG", quality=95, subsampling=0)
        data = dicom_file(rgb, photometric="YBR_FULL_422", syntax=JPEG, encapsulated=[frame])
        wanted = np.asarray(Image.open(io.BytesIO(frame))).astype(int)
        assert np.abs(read_image(data).array - wanted).max() <= 2

    @pytest.mark.parametrize("values", [RAMP, RAMP.astype(np.uint8)], ids=["16 bits", "8 bits"])
    def test_jpeg_2000(self, values):
        frame = encoded(values, "JPEG2000", no_jp2=True, irreversible=False)
        data = dicom_file(values, syntax=J2K, encapsulated=[frame], WindowCenter=200,
                          WindowWidth=300)  # fmt: skip
        assert_rounded(grey(data), expected(values, 200, 300))

    def test_rle(self):
        header = pydicom.dcmread(io.BytesIO(dicom_file(CT, WindowCenter=40, WindowWidth=400)))
        header.compress(RLE)
        stream = io.BytesIO()
        header.save_as(stream)
        assert_rounded(grey(stream.getvalue()), expected(CT, 40, 400))

    @pytest.mark.parametrize(
        ("syntax", "told"),
        [(JPEG_LOSSLESS, "pip install python-gdcm, or export it uncompressed"),
         (JPEG_LS, "pip install pyjpegls, or export it uncompressed"),
         (TWELVE, r"JPEG Extended .*; export it uncompressed"),
         (VIDEO, "a video, or of a compression")],
    )  # fmt: skip
    def test_what_no_installed_decoder_reads_says_what_to_install(self, syntax, told, monkeypatch):
        from pydicom.pixels.decoders.base import Decoder

        plugins = property(lambda self: ("pillow",) if self.UID == TWELVE else ())
        monkeypatch.setattr(Decoder, "available_plugins", plugins)
        data = dicom_file(CT, syntax=syntax, encapsulated=[b"\xff\xd8\xff\xd9"], BitsStored=12)
        with pytest.raises(ImageReadError, match=told):
            read_image(data)

    @pytest.mark.parametrize(("kind", "syntax"), [("JPEG", JPEG), ("JPEG2000", J2K)])
    def test_a_frame_larger_than_its_header_says_is_not_decoded(self, kind, syntax):
        """A few bytes may state a picture that takes all memory."""
        frame = bytearray(encoded(np.zeros((16, 16), np.uint8), kind,
                                  **({"no_jp2": True} if kind == "JPEG2000" else {})))  # fmt: skip
        if kind == "JPEG":
            place = frame.index(b"\xff\xc0") + 5
            frame[place : place + 4] = struct.pack(">HH", 60_000, 60_000)
        else:
            place = frame.index(b"\xff\x51") + 6
            frame[place : place + 8] = struct.pack(">II", 60_000, 60_000)
        data = dicom_file(np.zeros((16, 16), np.uint8), syntax=syntax, encapsulated=[bytes(frame)])
        with pytest.raises(ImageReadError, match="compressed picture does not fit its header"):
            read_image(data)

    def test_a_damaged_frame(self):
        frame = encoded(RAMP, "JPEG2000", no_jp2=True)
        data = dicom_file(RAMP, syntax=J2K, encapsulated=[frame[: len(frame) // 2]])
        with pytest.raises(ImageReadError, match="damaged, or of a kind .*pylibjpeg-openjpeg"):
            read_image(data)


class TestFiles:
    def test_every_reader_knows_the_file(self, tmp_path):
        path = tmp_path / "scan"  # no ending: the content tells
        path.write_bytes(dicom_file(CT, WindowCenter=40, WindowWidth=400))
        wanted = read_image(path)
        header = read_picture_header(path)
        assert (header.kind, header.image_size, header.orientation) == ("DICOM", (24, 24), 1)
        assert count_pixels(path) == 24 * 24
        np.testing.assert_array_equal(read_samples(path).values, CT)
        with open_windows(path, whole_pixels=1) as windows:
            np.testing.assert_array_equal(windows.read((2, 3, 9, 9)), wanted.array[3:9, 2:9])
            assert windows.notes == wanted.notes
        with open_windows(path, window=(40, 80)) as windows:
            read = read_image(path, window=(40, 80))
            np.testing.assert_array_equal(windows.read((0, 0, 24, 24)), read.array)
        with pytest.raises(ImageReadError, match="a DICOM file, which is not read for this"):
            read_luminance(path)

    def test_samples_of_monochrome1_are_marked(self):
        stored = read_samples(dicom_file(CT, photometric="MONOCHROME1", RescaleSlope=2,
                                         RescaleIntercept=0))  # fmt: skip
        assert stored.white_is_zero
        np.testing.assert_array_equal(stored.values, CT)

    def test_of_several_frames_only_the_first_is_read(self):
        data = dicom_file(CT, frames=5, WindowCenter=40, WindowWidth=400)
        cut = data[: -3 * CT.nbytes]  # the last three frames are missing
        assert_rounded(grey(cut), expected(CT, 40, 400))
        assert notes(cut)[0] == "frame 0 of 5"

    @pytest.mark.parametrize("syntax", [IMPLICIT, ""])
    def test_without_preamble_the_ending_and_the_elements_tell(self, tmp_path, syntax):
        whole = dicom_file(CT, syntax=syntax, WindowCenter=40, WindowWidth=400)
        bare = whole[whole.index(b"\x08\x00\x16\x00") :]
        (tmp_path / "a.dcm").write_bytes(bare)
        read = read_image(tmp_path / "a.dcm")
        assert_rounded(read.array[..., 0], expected(CT, 40, 400))
        assert count_pixels(tmp_path / "a.dcm") == 24 * 24
        (tmp_path / "a.bin").write_bytes(bare)
        with pytest.raises(ImageReadError, match="looks like unknown bytes"):
            read_image(tmp_path / "a.bin")
        (tmp_path / "b.dcm").write_bytes(b"not a scan")
        with pytest.raises(ImageReadError, match="no DICOM file; it looks like a text file"):
            read_image(tmp_path / "b.dcm")
        (tmp_path / "c.dcm").write_bytes(encoded(colours(), "PNG"))  # a wrong ending is no fault
        np.testing.assert_array_equal(read_image(tmp_path / "c.dcm").array, colours())

    @pytest.mark.parametrize(
        ("change", "told"),
        [({"PixelData": None}, "without a picture"), ({"Rows": None}, "without a picture"),
         ({"Rows": 0}, "without a picture"), ({"Rows": 25}, "truncated or corrupt"),
         ({"BitsStored": None}, "truncated or corrupt"),
         ({"PhotometricInterpretation": None}, "are none of MONOCHROME1")],
    )  # fmt: skip
    def test_files_without_a_sound_picture(self, change, told):
        with pytest.raises(ImageReadError, match=told):
            read_image(dicom_file(CT, **change))

    @pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.95])
    def test_truncated(self, share):
        data = dicom_file(CT)
        with pytest.raises(ImageReadError, match="truncated|without a picture|corrupt"):
            read_image(data[: int(share * len(data))])

    def test_a_huge_picture_is_refused_by_its_header(self):
        data = dicom_file(CT, Rows=60_000, Columns=60_000)
        for reader in (read_image, read_picture_header, read_samples):
            with pytest.raises(ImageReadError, match="60000x60000 is 3,600,000,000 pixels, above"):
                reader(data)
        assert read_image(dicom_file(CT, frames=3), max_pixels=576).image_size == (24, 24)

    def test_the_index_of_a_disc(self):
        data = dicom_file(CT)
        there, index = b"1.2.840.10008.5.1.4.1.1.7\0", b"1.2.840.10008.1.3.10"
        data = data.replace(there, index.ljust(len(there), b"\0"), 1)
        with pytest.raises(ImageReadError, match="a DICOMDIR, the index of a disc"):
            read_image(data)

    def test_a_deflated_file_is_refused_before_it_grows(self):
        with pytest.raises(ImageReadError, match="a deflated DICOM file; export it"):
            read_image(dicom_file(CT, syntax=DEFLATED))

    def test_without_the_extra(self, tmp_path, monkeypatch):
        path = tmp_path / "scan.dcm"
        path.write_bytes(dicom_file(CT))
        for name in [name for name in sys.modules if name.split(".")[0] == "pydicom"]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, "pydicom", None)
        dicom._pydicom.cache_clear()
        with pytest.raises(ImageReadError, match=r"scan.dcm: .*pip install 'faprompt\[dicom\]'"):
            read_image(path)
        assert count_pixels(path) == 0

    @pytest.mark.parametrize(
        "change",
        [{"WindowCenter": "40"}, {"Rows": 25}, {"PhotometricInterpretation": PATIENT},
         {"RescaleSlope": "1", "RescaleIntercept": "0"}, {"NumberOfFrames": "7"},
         {"PixelData": None}],
    )  # fmt: skip
    @pytest.mark.filterwarnings("ignore:Invalid value for VR")  # while the file is made
    def test_nothing_on_the_patient_comes_out(self, change, caplog, capfd):
        """Neither by notes and errors nor by warnings and logs, whatever is damaged."""
        data = dicom_file(CT, **change)
        for wrong in (b"40", b"MONOCHROME2", b"1 ", b"0 ", b"7 "):
            damaged = data.replace(wrong, PATIENT.encode()[: len(wrong)])
            with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                try:
                    said = str(read_image(damaged).notes)
                except ImageReadError as error:
                    said = str(error)
            printed = "".join(capfd.readouterr())
            told = [said, printed, caplog.text, *(str(each.message) for each in warned)]
            assert not any(part in text for text in told for part in (PATIENT, "Doe", "Jane"))


def shipped(name: str):
    """A file of pydicom's own tests, which it installs."""
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    if not path.is_file():
        pytest.skip(f"this pydicom ships no {name}")
    return path


class TestShippedFiles:
    """Files of scanners and of other programs."""

    @pytest.mark.parametrize("kind", ["_RLE", "_bigendian", "_expb", "_implicit", "_jp2klossless",
                                      "_padded"])  # fmt: skip
    def test_one_picture_in_many_encodings(self, kind):
        plain = read_image(shipped("MR_small.dcm"))
        header = pydicom.dcmread(shipped("MR_small.dcm"))
        wanted = expected(header.pixel_array, header.WindowCenter, header.WindowWidth)
        assert_rounded(plain.array[..., 0].astype(int), wanted)
        np.testing.assert_array_equal(read_image(shipped(f"MR_small{kind}.dcm")).array, plain.array)

    @pytest.mark.parametrize(
        "name", ["+eb+cr", "+eb+cy+n1", "+eb+cy+n2", "+eb+cy+np", "+eb+cy+s2", "+eb+cy+s4"]
    )
    def test_jpegs_with_different_colours(self, name):
        """One picture: RGB, YBR with and without reduced colours, by another program."""
        plain = read_image(shipped("SC_rgb_rle.dcm")).array.astype(int)
        found = read_image(shipped(f"SC_rgb_dcmtk_{name}.dcm")).array
        assert np.median(np.abs(found - plain)) <= 2

    def test_every_file_is_read_or_refused(self):
        folder = shipped("MR_small.dcm").parent
        for path in sorted(folder.glob("*.dcm")):
            try:
                assert read_image(path).image_size == read_picture_header(path).image_size, path
            except ImageReadError as error:
                assert str(error).startswith(str(path))
