"""Masks as pixels: every kind of file, both policies, sizes, orientation, regions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from faprompt.data import picture_size, read_mask, resize_mask
from faprompt.data.masks import is_blank_mask
from faprompt.errors import DatasetError, ImageReadError
from faprompt.imaging import Samples
from faprompt.records import Sample
from tests.helpers import folders
from tests.imaging.files import png_rgb16

SQUARE = np.zeros((6, 8), dtype=bool)
SQUARE[1:3, 2:6] = True


def sample(image: Path, *masks: Path, **facts) -> Sample:
    options = {"label": 1, "class_name": "mug", "has_pixel_label": True, **facts}
    return Sample(image_path=image, mask_paths=masks, **options)


def truth_of(tmp_path, picture: Image.Image, name: str = "m.png", **options) -> np.ndarray:
    """Save a mask, read it back beside a picture of the same size."""
    picture.save(tmp_path / name)
    return read_mask(
        sample(tmp_path / "absent.png", tmp_path / name),
        image_size=(picture.height, picture.width),
        **options,
    )


def grey(low: int, high: int) -> np.ndarray:
    return np.where(SQUARE, high, low).astype(np.uint8)


@pytest.mark.parametrize("policy", ["any-channel", "reference", "strict"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_modes_of_a_black_and_white_mask(tmp_path, mode, policy):
    picture = Image.fromarray(grey(0, 255)).convert(mode)
    np.testing.assert_array_equal(truth_of(tmp_path, picture, policy=policy), SQUARE)


def test_the_authors_rule_drops_alpha(tmp_path):
    """By it a see-through white is white; a solid black is black. Ours marks what can be seen."""
    rgba = np.zeros((*SQUARE.shape, 4), dtype=np.uint8)
    rgba[SQUARE] = (255, 255, 255, 0)
    rgba[~SQUARE] = (0, 0, 0, 255)
    picture = Image.fromarray(rgba)
    np.testing.assert_array_equal(truth_of(tmp_path, picture, policy="reference"), SQUARE)
    assert not truth_of(tmp_path, picture).any()
    assert not truth_of(tmp_path, picture, policy="strict").any()


@pytest.mark.parametrize("name", ["m.png", "m.tif", "m.webp"])
@pytest.mark.parametrize("policy", [None, "strict"])
def test_a_stroke_on_a_transparent_ground(tmp_path, name, policy):
    """As drawing programs save it: the ground is white with alpha 0, the stroke is solid red."""
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[:] = (255, 255, 255, 0)
    rgba[5:35, 5:55] = (255, 0, 0, 255)
    save = {"lossless": True, "exact": True} if name == "m.webp" else {}
    Image.fromarray(rgba).save(tmp_path / name, **save)
    chosen = {"policy": policy} if policy else {}
    one = sample(tmp_path / "i.png", tmp_path / name)
    assert read_mask(one, image_size=(40, 60), **chosen).sum() == 1500
    assert read_mask(one, image_size=(40, 60), policy="reference").sum() == 2400


def other_alphas():
    """Masks whose ground is transparent white, in every other mode that has transparency."""
    clear = np.where(SQUARE, 255, 0).astype(np.uint8)
    white = np.full_like(clear, 255)
    yield "LA", Image.fromarray(np.dstack([white, clear])), "m.png", {}
    yield "LA in TIFF", Image.fromarray(np.dstack([white, clear])), "m.tif", {}
    palette = Image.fromarray(SQUARE.astype(np.uint8))
    palette.putpalette([255, 255, 255, 255, 0, 0])
    yield "P, one index", palette, "m.png", {"transparency": 0}
    yield "P, alpha table", palette, "m.png", {"transparency": b"\x00\xff"}
    keyed = Image.fromarray(np.where(SQUARE[..., None], (200, 0, 0), (255, 255, 255)).astype("u1"))
    yield "RGB, colour key", keyed, "m.png", {"transparency": (255, 255, 255)}
    grey = Image.fromarray(np.where(SQUARE, 9, 255).astype(np.uint8))
    yield "L, grey key", grey, "m.png", {"transparency": 255}
    wide = Image.fromarray(np.where(SQUARE, 1, 65535).astype(np.uint16))
    yield "16-bit grey key", wide, "m.png", {"transparency": 65535}
    pa = Image.merge("PA", [palette, Image.fromarray(clear)])
    pa.putpalette([255, 255, 255, 255, 0, 0])
    yield "PA", pa, "m.tif", {}


@pytest.mark.parametrize(("picture", "name", "save"), [case[1:] for case in other_alphas()],
                         ids=[case[0] for case in other_alphas()])  # fmt: skip
def test_every_mode_with_transparency(tmp_path, picture, name, save):
    picture.save(tmp_path / name, **save)
    one = sample(tmp_path / "i.png", tmp_path / name)
    np.testing.assert_array_equal(read_mask(one, image_size=SQUARE.shape), SQUARE)


@pytest.mark.parametrize("colour", [(1, 0, 0), (0, 0, 1), (0, 0, 4), (0, 1, 0), (1, 1, 1)])
def test_a_weak_colour_counts(tmp_path, colour):
    """Class ids in one channel: the luminance of (1, 0, 0) rounds to 0."""
    rgb = np.zeros((*SQUARE.shape, 3), np.uint8)
    rgb[SQUARE] = colour
    wide = png_rgb16(rgb.astype(np.uint16))
    for policy in ("any-channel", "strict"):
        for name in ("m.png", "m.tif", "m.bmp"):
            found = truth_of(tmp_path, Image.fromarray(rgb), name, policy=policy)
            np.testing.assert_array_equal(found, SQUARE)
        (tmp_path / "wide.png").write_bytes(wide)  # 1 of 65535
        one = sample(tmp_path / "i.png", tmp_path / "wide.png")
        found = read_mask(one, image_size=SQUARE.shape, policy=policy)
        np.testing.assert_array_equal(found, SQUARE)


def test_the_authors_rule_is_their_grey_conversion(tmp_path):
    """Against Pillow's own conversion, for every weak colour."""
    red, green, blue = np.meshgrid(*[np.arange(5, dtype=np.uint8)] * 3, indexing="ij")
    picture = Image.fromarray(np.dstack([c.reshape(5, 25) for c in (red, green, blue)]))
    found = truth_of(tmp_path, picture, policy="reference")
    np.testing.assert_array_equal(found, np.asarray(picture.convert("L")) > 0)
    ours = truth_of(tmp_path, picture)
    np.testing.assert_array_equal(ours, np.asarray(picture).any(axis=2))
    assert found.sum() < ours.sum() == 124


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_tiff_masks_of_every_type_and_layout(tmp_path, kind, planar, compression):
    """The smallest value above 0 counts, in one channel of three, in either byte order."""
    rgb = np.zeros((*SQUARE.shape, 3), kind)
    rgb[SQUARE, 1] = 1
    stored = rgb if planar == "contig" else np.moveaxis(rgb, -1, 0)
    for order in "<>":
        tifffile.imwrite(tmp_path / "m.tif", stored, photometric="rgb", planarconfig=planar,
                         compression=compression, byteorder=order)  # fmt: skip
        tifffile.imwrite(tmp_path / "g.tif", rgb[..., 1], compression=compression,
                         byteorder=order)  # fmt: skip
        for name in ("m.tif", "g.tif"):
            one = sample(tmp_path / "i.png", tmp_path / name)
            for policy in ("any-channel", "strict"):
                found = read_mask(one, image_size=SQUARE.shape, policy=policy)
                np.testing.assert_array_equal(found, SQUARE)


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "f4"])
def test_white_is_zero_masks_are_read_as_shown(tmp_path, kind):
    top = 1 if kind == "f4" else np.iinfo(kind).max
    values = np.where(SQUARE, 0, top).astype(kind)
    tifffile.imwrite(tmp_path / "m.tif", values, photometric="miniswhite")
    one = sample(tmp_path / "i.png", tmp_path / "m.tif")
    for policy in ("any-channel", "reference", "strict"):
        found = read_mask(one, image_size=SQUARE.shape, policy=policy)
        np.testing.assert_array_equal(found, SQUARE)


def test_cmyk_masks_are_read_as_shown(tmp_path):
    """No ink is white."""
    ink = np.zeros((*SQUARE.shape, 4), np.uint8)
    ink[~SQUARE] = (0, 0, 0, 255)
    picture = Image.frombytes("CMYK", (8, 6), ink.tobytes())
    for name in ("m.tif", "m.jpg"):
        picture.save(tmp_path / name, **({"quality": 100} if name == "m.jpg" else {}))
        one = sample(tmp_path / "i.png", tmp_path / name)
        found = read_mask(one, image_size=SQUARE.shape, policy="strict")
        np.testing.assert_array_equal(found, SQUARE)


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_of_every_route(tmp_path, turn):
    """8-bit PNG, JPEG and TIFF through Pillow, half floats through tifffile: all turned alike."""
    values = np.zeros((16, 32), np.uint8)
    values[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    for name in ("m.png", "m.jpg", "m.webp"):
        save = {"lossless": True} if name == "m.webp" else {}
        Image.fromarray(values).save(tmp_path / name, exif=exif, **save)
    tag = [(274, "H", 1, turn, True)]
    tifffile.imwrite(tmp_path / "m8.tif", values, extratags=tag)
    tifffile.imwrite(tmp_path / "m16.tif", values.astype("u2"), extratags=tag)
    tifffile.imwrite(tmp_path / "half.tif", (values / 255).astype("f2"), extratags=tag)
    with Image.open(tmp_path / "m.png") as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture)) > 0
    for name in ("m.png", "m.jpg", "m.webp", "m8.tif", "m16.tif", "half.tif"):
        one = sample(tmp_path / "i.png", tmp_path / name)
        found = read_mask(one, image_size=shown.shape, policy="strict")
        np.testing.assert_array_equal(found, shown)
        assert picture_size(tmp_path / name) == shown.shape


def test_blank_means_nothing_marked_by_our_rule(tmp_path):
    ground = np.zeros((6, 8, 4), np.uint8)
    ground[..., :3] = 255
    Image.fromarray(ground).save(tmp_path / "clear.png")
    assert is_blank_mask(tmp_path / "clear.png")
    ground[0, 0] = (0, 0, 1, 1)
    Image.fromarray(ground).save(tmp_path / "faint.png")
    assert not is_blank_mask(tmp_path / "faint.png")


def test_palette_is_looked_up_and_not_read_as_numbers(tmp_path):
    """KolektorSDD: indices 0, 1, 2 whose palette says 0, 85, 255. Here index 0 is the white."""
    picture = Image.fromarray(np.where(SQUARE, 0, 2).astype(np.uint8))
    picture.putpalette([255] * 3 + [85] * 3 + [0] * 3)
    assert picture.mode == "P"
    for name in ("m.png", "m.bmp"):
        np.testing.assert_array_equal(truth_of(tmp_path, picture, name), SQUARE)


def test_the_two_policies_differ_on_noisy_masks_only(tmp_path):
    noisy = grey(0, 255)
    noisy[4, :] = 90  # a JPEG's echo
    as_published = truth_of(tmp_path, Image.fromarray(noisy))
    strict = truth_of(tmp_path, Image.fromarray(noisy), policy="strict")
    np.testing.assert_array_equal(as_published, noisy > 0)
    np.testing.assert_array_equal(strict, SQUARE)
    assert as_published.sum() == strict.sum() + 8


@pytest.mark.parametrize(
    ("highest", "marked"), [(1, True), (9, True), (127, True), (128, False), (255, False)]
)
def test_strict_takes_low_values_only_in_masks_of_low_values(tmp_path, highest, marked):
    values = grey(0, 1)
    values[5, 7] = highest
    found = truth_of(tmp_path, Image.fromarray(values), policy="strict")
    assert found[5, 7]
    assert found[1, 2] == marked


def test_a_jpeg_mask_is_larger_under_the_published_rule(tmp_path):
    values = np.zeros((32, 32), dtype=np.uint8)
    values[10:21, 9:22] = 255
    reference = truth_of(tmp_path, Image.fromarray(values), "m.jpg")
    strict = truth_of(tmp_path, Image.fromarray(values), "m.jpg", policy="strict")
    np.testing.assert_array_equal(strict, values > 0)
    assert reference.sum() > strict.sum()
    assert (reference | strict == reference).all()


@pytest.mark.parametrize(
    ("values", "policy_marks"),
    [
        (np.where(SQUARE, 65535, 0).astype(np.uint16), (8, 8)),
        (np.where(SQUARE, 256, 0).astype(np.uint16), (8, 8)),  # would wrap to 0 in 8 bits
        (np.where(SQUARE, 3, 0).astype(np.uint16), (8, 8)),  # class ids in a wide file
        (np.where(SQUARE, 60000, 200).astype(np.uint16), (48, 8)),
        (np.where(SQUARE, 1.0, 0.0).astype(np.float32), (8, 8)),
        (np.where(SQUARE, 0.9, 0.2).astype(np.float32), (48, 8)),
        (np.where(SQUARE, 0.001, 0.0).astype(np.float32), (8, 8)),
        (np.where(SQUARE, 200.0, 0.0).astype(np.float32), (8, 8)),
        (np.where(SQUARE, 70000, 0).astype(np.int32), (8, 8)),
    ],
)
def test_wide_values_are_scaled_and_never_lost(tmp_path, values, policy_marks):
    picture = Image.fromarray(values)
    found = [
        int(truth_of(tmp_path, picture, "m.tif", policy=policy).sum())
        for policy in ("reference", "strict")
    ]
    assert tuple(found) == policy_marks


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_values_without_a_meaning_are_refused(tmp_path, bad):
    values = np.zeros((6, 8), dtype=np.float32)
    values[0, 0] = bad
    with pytest.raises(DatasetError, match="m.tif cannot be read.*negative or non-finite"):
        truth_of(tmp_path, Image.fromarray(values), "m.tif")


def test_several_masks_are_united(tmp_path):
    one, two = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    one[0, 0] = two[5, 7] = 255
    paths = []
    for name, values in (("1.png", one), ("2.png", two)):
        Image.fromarray(values).save(tmp_path / name)
        paths.append(tmp_path / name)
    truth = read_mask(sample(tmp_path / "absent.png", *paths), image_size=(6, 8))
    np.testing.assert_array_equal(truth, (one | two) > 0)


def test_normal_picture_is_all_zero_in_its_own_size(tmp_path):
    image = folders.picture(tmp_path / "good.png", size=(5, 11))
    normal = sample(image, label=0)
    assert read_mask(normal).shape == (5, 11)
    assert read_mask(normal, image_size=(3, 4)).shape == (3, 4)
    assert not read_mask(normal).any()


def test_region_is_cut_out_of_the_mask(tmp_path):
    path = folders.mask(tmp_path / "m.png")
    part = sample(tmp_path / "i.png", path, region=(6, 3, 14, 9))
    truth = read_mask(part, image_size=folders.SIZE)
    whole = read_mask(sample(tmp_path / "i.png", path), image_size=folders.SIZE)
    np.testing.assert_array_equal(truth, whole[3:9, 6:14])
    assert truth.sum() == 2 * 2
    normal = sample(tmp_path / "i.png", label=0, region=(6, 3, 14, 9))
    assert read_mask(normal, image_size=folders.SIZE).shape == (6, 8)


@pytest.mark.parametrize("region", [(0, 0, 15, 9), (-1, 0, 3, 3), (4, 4, 4, 8), (0, 0, 3, 10)])
def test_region_beyond_the_picture_is_refused(tmp_path, region):
    part = sample(tmp_path / "i.png", label=0, region=region)
    with pytest.raises(DatasetError, match="does not lie within"):
        read_mask(part, image_size=folders.SIZE)


def test_another_size_is_refused_naming_both_files(tmp_path):
    image = folders.picture(tmp_path / "image.png", size=(9, 14))
    path = folders.mask(tmp_path / "truth.png", size=(9, 13))
    with pytest.raises(DatasetError) as told:
        read_mask(sample(image, path))
    for part in ("truth.png is 9x13", "image.png is 9x14", "not resized"):
        assert part in str(told.value)


def test_exchanged_sides_hint_at_exif(tmp_path):
    """The picture is stored lying and shown standing; its mask was drawn as stored."""
    image = folders.picture(tmp_path / "i.jpg", size=(9, 14), turn=6)
    lying = folders.mask(tmp_path / "lying.png", size=(9, 14))
    with pytest.raises(DatasetError, match="exchanged.*EXIF"):
        read_mask(sample(image, lying))
    standing = folders.mask(tmp_path / "standing.png", size=(14, 9))
    assert read_mask(sample(image, standing)).shape == (14, 9)


def test_a_masks_own_orientation_is_applied(tmp_path):
    values = np.zeros((9, 14), np.uint8)
    values[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter clockwise
    Image.fromarray(values).save(tmp_path / "m.png", exif=exif)
    truth = read_mask(sample(tmp_path / "i.png", tmp_path / "m.png"), image_size=(14, 9))
    assert np.argwhere(truth).tolist() == [[0, 8]]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", [None, 1, 2, 3, 4, 5, 6, 7, 8])
def test_size_as_shown_equals_pils_own_turn(tmp_path, kind, turn):
    image = folders.picture(tmp_path / "picture", size=(7, 12), kind=kind, turn=turn)
    with Image.open(image) as opened:
        shown = ImageOps.exif_transpose(opened)
    assert picture_size(image) == (shown.height, shown.width)
    assert picture_size(image) == ((12, 7) if (turn or 1) > 4 else (7, 12))


def test_nonsense_orientation_counts_as_upright(tmp_path):
    image = folders.picture(tmp_path / "a.jpg", size=(7, 12), turn=77)
    assert picture_size(image) == (7, 12)


def test_size_of_a_camera_file_with_two_frames(tmp_path):
    one, two = Image.new("RGB", (12, 7)), Image.new("RGB", (3, 3))
    one.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[two])
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.format == "MPO"
    assert picture_size(tmp_path / "a.jpg") == (7, 12)


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"GIF89a"])
def test_size_of_what_is_no_picture_is_refused(tmp_path, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageReadError, match="a.png cannot be read"):
        picture_size(path)


def test_a_gif_is_no_mask(tmp_path):
    Image.new("L", (8, 6)).save(tmp_path / "m.png", "GIF")
    with pytest.raises(DatasetError, match="m.png cannot be read"):
        is_blank_mask(tmp_path / "m.png")


def test_blank_masks(tmp_path):
    assert is_blank_mask(folders.mask(tmp_path / "0.png", value=0))
    assert not is_blank_mask(folders.mask(tmp_path / "1.png", value=1))


def test_a_cut_off_mask_is_refused(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(
        whole, "PNG"
    )
    (tmp_path / "m.png").write_bytes(whole.getvalue()[:-200])
    with pytest.raises(DatasetError, match="m.png cannot be read"):
        read_mask(sample(tmp_path / "i.png", tmp_path / "m.png"), image_size=(40, 40))


def test_samples_without_pixel_labels_are_refused(tmp_path):
    plain = sample(tmp_path / "i.png", label=0, has_pixel_label=False)
    with pytest.raises(DatasetError, match="no pixel label"):
        read_mask(plain, image_size=(6, 8))
    with pytest.raises(DatasetError, match="names none"):
        read_mask(sample(tmp_path / "i.png"), image_size=(6, 8))


def test_unknown_policy_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'any-channel' or 'reference' or 'strict', got 'loose'"):
        read_mask(sample(tmp_path / "i.png"), policy="loose")


def test_resized_by_the_share_of_each_pixel():
    """Halving with a triangle filter: weights 1, 3, 3, 1 of eight along each side."""
    truth = np.random.default_rng(5).random((40, 60)) > 0.5
    small = resize_mask(truth, (20, 30))

    def halved(values):  # along the last axis, edges weighted anew
        padded = np.pad(values, ((0, 0), (1, 1)))
        known = np.pad(np.ones(values.shape), ((0, 0), (1, 1)))
        four = [slice(start, start + values.shape[1], 2) for start in range(4)]
        total = sum(w * padded[:, s] for w, s in zip((1, 3, 3, 1), four, strict=True))
        return total / sum(w * known[:, s] for w, s in zip((1, 3, 3, 1), four, strict=True))

    share = halved(halved(truth.astype(float)).T).T
    clear = np.abs(share - 0.5) > 0.01  # the filter works in 8 bits, so ties may fall either way
    assert small.shape == (20, 30) and small.dtype == bool
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(small[clear], share[clear] > 0.5)


def test_same_size_changes_nothing():
    truth = np.random.default_rng(3).random((7, 11)) > 0.5
    np.testing.assert_array_equal(resize_mask(truth, (7, 11)), truth)


@pytest.mark.parametrize("policy", ["any-channel", "reference", "strict"])
def test_bits_of_which_zero_is_white(tmp_path, monkeypatch, policy):
    """As tifffile returns them: the marked pixels are False."""
    read = "faprompt.imaging.marked_pixels.read_samples"
    monkeypatch.setattr(read, lambda path: Samples(~SQUARE, white_is_zero=True))
    picture = Image.fromarray(grey(0, 255))
    np.testing.assert_array_equal(truth_of(tmp_path, picture, policy=policy), SQUARE)
