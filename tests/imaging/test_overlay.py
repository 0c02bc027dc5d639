"""Colours on a fixed scale, boxes in the right place, encoded files that decode again."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from faprompt.imaging import (
    colour_bar,
    colour_table,
    encode_jpeg,
    encode_map_png,
    encode_png,
    overlay,
    overlay_layer,
    region_level,
    shrink,
    thumbnail,
)
from faprompt.records import Region
from faprompt.regions import find_regions
from tests.imaging.files import colours


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB bytes."""
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126729, 0.7151522, 0.0721750])
    return np.where(
        luminance > (6 / 29) ** 3, 116 * np.cbrt(luminance) - 16, luminance * (29 / 3) ** 3
    )


def test_lightness_rises_evenly():
    steps = np.diff(lightness(colour_table()))
    assert len(steps) == 255
    assert steps.min() > 0 and steps.max() < 0.7  # 82 in all, 0.32 a step


def test_colours_equal_mixing_by_hand():
    image, score_map = colours(), np.random.default_rng(3).random((24, 36))
    level = np.rint(score_map * 255).astype(int)
    opacity = 0.6 * level[..., None] / 255
    expected = image * (1 - opacity) + colour_table()[level] * opacity
    np.testing.assert_allclose(overlay(image, score_map, alpha=0.6), expected, atol=1.5)


def test_the_scale_is_fixed_not_stretched():
    grey = np.full((4, 4, 3), 120, np.uint8)
    low = np.full((4, 4), 0.2)
    one_high = low.copy()
    one_high[0, 0] = 1.0
    np.testing.assert_array_equal(overlay(grey, low)[1:], overlay(grey, one_high)[1:])


def test_score_0_leaves_the_picture_and_the_input_is_untouched():
    image = colours()
    before = image.copy()
    marked = overlay(image, np.zeros((24, 36)))
    np.testing.assert_array_equal(marked, image)
    overlay(image, np.ones((24, 36)), regions=[Region((3, 3, 9, 9), 36, 1.0, 1.0)])
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(marked, image)


def test_blocks_make_no_difference(monkeypatch):
    image, score_map = colours(), np.random.default_rng(4).random((24, 36))
    whole = overlay(image, score_map)
    module = sys.modules["faprompt.imaging.overlay"]  # its function hides it in the package
    monkeypatch.setattr(module, "_BLOCK_PIXELS", 100)
    np.testing.assert_array_equal(overlay(image, score_map), whole)


def test_a_box_surrounds_its_region_and_spares_it():
    image = np.full((40, 60, 3), 100, np.uint8)
    marked = overlay(image, np.zeros((40, 60)), regions=[Region((20, 10, 30, 16), 60, 1.0, 1.0)])
    changed = (marked != 100).any(axis=2)
    assert not changed[10:16, 20:30].any()
    white = (marked == 255).all(axis=2)
    assert white[9, 19:31].all() and white[16, 19:31].all()
    assert white[9:17, 19].all() and white[9:17, 30].all()
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (8, 17, 18, 31)


@pytest.mark.parametrize("bbox", [(0, 0, 60, 40), (0, 0, 1, 1), (59, 39, 60, 40)])
def test_boxes_at_the_edge(bbox):
    image = np.full((40, 60, 3), 100, np.uint8)
    marked = overlay(image, np.zeros((40, 60)), regions=[Region(bbox, 1, 1.0, 1.0)])
    assert marked.shape == image.shape and (marked != image).any()


def outlined_map() -> np.ndarray:
    score_map = np.full((60, 100), 0.1, np.float32)
    score_map[20:40, 30:70] = 0.6
    score_map[25:30, 40:45] = 0.9
    return score_map


def test_an_outline_surrounds_its_pixels_and_leaves_the_defect_visible():
    image = np.random.default_rng(5).integers(60, 200, (60, 100, 3)).astype(np.uint8)
    marked = overlay(image, outlined_map(), level=0.6)
    tinted = marked[20:40, 30:70].astype(int) - image[20:40, 30:70]
    assert 0 < np.abs(tinted).max() < 40  # a faint tint
    original, seen = image[20:40, 30:70].ravel(), marked[20:40, 30:70].ravel()
    assert np.corrcoef(original, seen)[0, 1] > 0.9
    yellow, dark = (marked == (255, 233, 100)).all(axis=2), marked[..., 1] < 30
    assert yellow[19, 30:70].all() and yellow[40, 30:70].all() and yellow[20:40, 29].all()
    assert dark[18, 30:70].all() and dark[20:40, 28].all()
    outside = np.ones((60, 100), bool)
    outside[18:42, 28:72] = False
    np.testing.assert_array_equal(marked[outside], image[outside])


def test_a_small_region_has_a_box_around_it_and_a_large_one_has_none():
    image = np.full((300, 500, 3), 90, np.uint8)
    score_map = np.zeros((300, 500), np.float32)
    score_map[100:102, 200:202] = 0.8
    score_map[200:230, 300:340] = 0.8
    regions = find_regions(score_map, 0.5)
    plain = overlay(image, score_map, level=0.8)
    added = (overlay(image, score_map, regions=regions, level=0.8) != plain).any(axis=2)
    rows, columns = np.nonzero(added)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (89, 112, 189, 212)


@pytest.mark.parametrize("level", [None, 0.6])
def test_the_layer_over_the_picture_is_the_overlay(level):
    image, score_map = colours(60, 100), outlined_map()
    layer = Image.open(io.BytesIO(overlay_layer(score_map, alpha=0.5, level=level)))
    over = Image.alpha_composite(Image.fromarray(image).convert("RGBA"), layer.convert("RGBA"))
    expected = overlay(image, score_map, alpha=0.5, level=level)
    np.testing.assert_allclose(np.asarray(over)[..., :3], expected.astype(int), atol=2)


def test_a_layer_of_outlines_is_small():
    assert len(overlay_layer(outlined_map(), level=0.6)) < 1000


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.85])
def test_the_level_of_regions_marks_just_their_pixels(threshold):
    score_map = np.random.default_rng(6).random((40, 50)).astype(np.float32)
    area = sum(region.area_px for region in find_regions(score_map, threshold))
    level = region_level(score_map, area)
    np.testing.assert_array_equal(score_map >= level, score_map >= threshold)
    assert region_level(score_map, 0) is None


def test_one_pixel():
    image = np.full((1, 1, 3), 10, np.uint8)
    assert overlay(image, np.ones((1, 1)), alpha=1.0).tolist() == [[[255, 233, 100]]]


def test_overlay_refuses():
    with pytest.raises(ValueError, match="does not fit the image"):
        overlay(colours(), np.zeros((36, 24)))
    with pytest.raises(ValueError, match="alpha should be in"):
        overlay(colours(), np.zeros((24, 36)), alpha=1.5)
    with pytest.raises(ValueError, match="alpha should be in"):
        overlay_layer(np.zeros((24, 36)), alpha=-0.5)


def test_colour_bar_runs_from_1_down_to_0():
    bar = colour_bar(256, width=3)
    assert bar.shape == (256, 3, 3)
    np.testing.assert_array_equal(bar[:, 1], colour_table()[::-1])
    with pytest.raises(ValueError, match="height >= 2"):
        colour_bar(1)


def test_encoded_files_decode_again():
    image = colours()
    decoded = Image.open(io.BytesIO(encode_png(image)))
    np.testing.assert_array_equal(np.asarray(decoded), image)
    flat = np.full((32, 32, 3), (200, 30, 60), np.uint8)
    jpeg = np.asarray(Image.open(io.BytesIO(encode_jpeg(flat))))
    assert np.abs(jpeg.astype(int) - flat).max() <= 3


def test_map_png_holds_16_bits():
    score_map = np.array([[0.0, 0.25, 1.0, 1 / 65535]], np.float32)
    decoded = Image.open(io.BytesIO(encode_map_png(score_map)))
    assert decoded.mode.startswith("I;16")
    assert np.asarray(decoded).tolist() == [[0, 16384, 65535, 1]]


def test_thumbnail_is_bounded_and_never_enlarged():
    assert thumbnail(colours(100, 300), max_side=60).shape == (20, 60, 3)
    assert thumbnail(colours(3000, 2), max_side=50).shape == (50, 1, 3)
    small = colours(10, 12)
    np.testing.assert_array_equal(thumbnail(small, max_side=12), small)
    with pytest.raises(ValueError, match="max_side"):
        thumbnail(small, max_side=0)


def test_shrink_keeps_picture_map_and_boxes_aligned():
    image = np.zeros((200, 400, 3), np.uint8)
    image[40:80, 100:200] = 255
    score_map = (image[..., 0] / 255).astype(np.float32)
    region = Region((100, 40, 200, 80), 4000, 1.0, 1.0)
    small, small_map, (box,) = shrink(image, score_map, [region], max_side=100)
    assert small.shape == (50, 100, 3) and small_map.shape == (50, 100)
    assert box == Region((25, 10, 50, 20), 250, 1.0, 1.0)
    assert small[11:19, 26:49].min() == 255 and small_map[11:19, 26:49].min() == 1
    assert small[22:].max() == 0 and small_map[22:].max() == 0
    assert shrink(image, score_map, [region], max_side=400)[0] is image
    speck = Region((399, 199, 400, 200), 1, 1.0, 1.0)
    assert shrink(image, score_map, [speck], max_side=10)[2][0].bbox == (9, 4, 10, 5)


def test_a_large_map_is_shrunk_in_bands_to_the_means_of_its_pixels(monkeypatch):
    module = sys.modules["faprompt.imaging.overlay"]  # the package has a function of that name
    monkeypatch.setattr(module, "_WHOLE_MAP_PIXELS", 1)
    monkeypatch.setattr(module, "_BLOCK_PIXELS", 600)
    score_map = np.random.default_rng(3).random((120, 90), np.float32)
    image, small, _ = shrink(np.zeros((120, 90, 3), np.uint8), score_map, (), max_side=40)
    assert image.shape[:2] == small.shape == (40, 30)
    means = score_map.reshape(40, 3, 30, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(small, means, atol=1e-6)
