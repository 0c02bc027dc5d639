"""Places of tiles, their joined maps, and what a mask leaves out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from faprompt.errors import ConfigError, ImageReadError
from faprompt.imaging import tiles
from faprompt.imaging.map_rendering import stretched_rows
from faprompt.imaging.tiles import (
    check_tiles,
    fill_masked,
    join_tile_maps,
    nearest_kept,
    parse_tiles,
    patch_mask,
    plan_tiles,
)

SIZES = [(1, 1), (1, 9), (40, 40), (40, 61), (61, 40), (40, 59), (90, 200), (333, 64), (257, 300)]
SETTINGS = ["off", "auto", 1, 2, 3, 7, 64]


def plans():
    return [
        (plan_tiles(size, setting, model_size=(32, 32)), setting)
        for size in SIZES
        for setting in SETTINGS
    ]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_evenly_spread_overlap_and_cover_the_picture(size, setting):
    plan = plan_tiles(size, setting, model_size=(32, 32))
    height, width = plan.tile_size
    assert {(y1 - y0, x1 - x0) for x0, y0, x1, y1 in plan.boxes} == {(height, width)}
    assert height == width or height == size[0] or width == size[1]
    assert list(plan.boxes) == sorted(plan.boxes, key=lambda box: (box[1], box[0]))
    assert plan.whole == (len(plan.boxes) > 1)
    for axis, side, length in ((0, width, size[1]), (1, height, size[0])):
        starts = sorted({box[axis] for box in plan.boxes})
        assert starts[0] == 0 and starts[-1] + side == length
        gaps = [b - a for a, b in pairwise(starts)]
        assert all(gap <= max(1, 0.75 * side) for gap in gaps)
        assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("size", [(400, 1000), (1000, 400), (700, 777), (300, 300)])
def test_a_number_of_tiles_covers_the_longer_side(size):
    longer = 1 if size[0] > size[1] else 0
    for count in range(1, 65):
        plan = plan_tiles(size, count, model_size=(32, 32))
        assert len({box[longer] for box in plan.boxes}) == count
        assert max(plan.tile_size) < max(size) / (1 + 0.75 * (count - 1)) + 4


@pytest.mark.parametrize(
    ("size", "tile"),
    [
        ((512, 512), (512, 512)), ((512, 400), (512, 400)), ((100, 150), (100, 150)),
        ((100, 151), (100, 100)), ((151, 100), (100, 100)), ((513, 513), (256, 256)),
        ((513, 300), (256, 256)), ((600, 200), (200, 200)), ((20, 4000), (20, 20)),
    ],
)  # fmt: skip
def test_auto_cuts_oblong_and_large_pictures(size, tile):
    assert plan_tiles(size, "auto", model_size=(256, 256)).tile_size == tile
    assert plan_tiles(size, "auto", model_size=(256, 300)).tile_size == tile


@pytest.mark.parametrize("value", [0, 65, -1, True, "4", "on", 2.0, None])
def test_other_settings_are_refused(value):
    with pytest.raises(ConfigError, match="tiles should be 'auto', 'off' or a number"):
        check_tiles(value)
    with pytest.raises(ConfigError):
        plan_tiles((9, 9), value, model_size=(4, 4))


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "2.5", "Auto", "²", "٣"])
def test_other_words_are_refused(text):
    with pytest.raises(ConfigError, match="tiles should be"):
        parse_tiles(text)


def test_pictures_without_pixels_are_refused():
    with pytest.raises(ValueError, match="should have pixels"):
        plan_tiles((0, 5), "auto", model_size=(4, 4))


def dense_join(maps, plan, whole=None):
    """The weighted mean of all maps in arrays of the picture's size."""
    total, weight = np.zeros(plan.image_size), np.zeros(plan.image_size)
    height, width = (
        np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2 + 1e-3 for side in plan.tile_size
    )
    for tile, (x0, y0, x1, y1) in zip(maps, plan.boxes, strict=True):
        total[y0:y1, x0:x1] += np.outer(height, width) * tile
        weight[y0:y1, x0:x1] += np.outer(height, width)
    joined = total / weight
    return joined if whole is None else np.maximum(joined, whole)


@pytest.mark.parametrize("block", [50, 2**18])
def test_joined_maps_equal_a_dense_join(block, monkeypatch):
    monkeypatch.setattr(tiles, "_BLOCK_PIXELS", block)
    draw = np.random.default_rng(0)
    for plan, _ in plans():
        if len(plan.boxes) > 400:
            continue
        maps = draw.random((len(plan.boxes), *plan.tile_size), dtype=np.float32)
        whole = draw.random(plan.image_size, dtype=np.float32) ** 3
        asked = []

        def rows(top, bottom, whole=whole, asked=asked):
            asked.append((top, bottom))
            return whole[top:bottom]

        joined = join_tile_maps(iter(maps), plan)
        assert joined.dtype == np.float32 and joined.shape == plan.image_size
        np.testing.assert_allclose(joined, dense_join(maps, plan), rtol=1e-6)
        joined = join_tile_maps(maps, plan, rows)
        np.testing.assert_allclose(joined, dense_join(maps, plan, whole), rtol=1e-6)
        edges = [0, *(bottom for _, bottom in asked)]
        assert asked == list(pairwise(edges)) and edges[-1] == plan.image_size[0]


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.1, 0.7, 1.0])
def test_constant_maps_join_to_that_constant(value):
    for plan, _ in plans():
        tile = np.full(plan.tile_size, value, np.float32)
        joined = join_tile_maps((tile for _ in plan.boxes), plan)
        assert (joined == np.float32(value)).all()


@pytest.mark.parametrize("setting", ["off", 1, "auto"])
def test_one_tile_is_its_own_map_to_the_bit(setting):
    plan = plan_tiles((40, 50), setting, model_size=(32, 32))
    tile = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    joined = join_tile_maps([tile], plan)
    assert joined.tobytes() == tile.tobytes()
    assert not np.shares_memory(joined, tile)


def test_rows_are_finished_as_soon_as_no_later_tile_touches_them():
    plan = plan_tiles((300, 100), "auto", model_size=(32, 32))
    finished = [0]
    held = []

    def maps():
        for _, y0, _, _ in plan.boxes:
            yield np.zeros(plan.tile_size, np.float32)
            held.append((y0, finished[-1]))  # the row of this tile, and what is done by now

    def rows(top, bottom):
        finished.append(bottom)
        return np.zeros((bottom - top, 100), np.float32)

    join_tile_maps(maps(), plan, rows)
    assert all(done == y0 for y0, done in held) and len(held) == len(plan.boxes)
    assert finished == [*sorted({y0 for y0, _ in held}), 300]


def test_maps_that_do_not_fit_are_refused():
    plan = plan_tiles((10, 20), "auto", model_size=(32, 32))
    good = np.zeros(plan.tile_size, np.float32)
    for number, bad in enumerate((good + 2, good - 1, good * np.nan)):
        maps = [good] * len(plan.boxes)
        maps[number % len(maps)] = bad
        with pytest.raises(ValueError, match=rf"tile {number % len(maps)} should lie in \[0, 1\]"):
            join_tile_maps(maps, plan)
    with pytest.raises(ValueError, match=r"tile 0 should be \(10, 10\), got \(9, 10\)"):
        join_tile_maps([good[1:]] * len(plan.boxes), plan)
    for count in (len(plan.boxes) - 1, len(plan.boxes) + 1):
        with pytest.raises(ValueError, match="zip"):
            join_tile_maps([good] * count, plan)
    with pytest.raises(ValueError, match="rows of the whole picture's map should be"):
        join_tile_maps([good] * len(plan.boxes), plan, lambda top, bottom: good)


@pytest.mark.parametrize("size", [(37, 37), (400, 111), (20, 90), (1, 7)])
def test_stretched_rows_are_those_of_torchs_interpolation(size):
    score_map = np.random.default_rng(0).random((37, 29), dtype=np.float32)
    rows = stretched_rows(score_map, size)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(score_map)[None, None], size=size, mode="bilinear"
    )[0, 0].numpy()
    np.testing.assert_allclose(rows(0, size[0]), expected, rtol=1e-5, atol=1e-5)
    for top in range(0, size[0], 7):
        part = rows(top, min(top + 7, size[0]))
        assert (
            part.dtype == np.float32 and part.tobytes() == rows(0, size[0])[top : top + 7].tobytes()
        )


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_a_constant_map_is_stretched_to_that_constant(value):
    rows = stretched_rows(np.full((5, 7), value, np.float32), (90, 40))
    assert (rows(0, 90) == np.float32(value)).all()


def test_masked_pixels_get_the_mean_colour_of_the_others():
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    mask = draw.random((30, 40)) < 0.3
    before = image.copy()
    filled = fill_masked(image, mask)
    np.testing.assert_array_equal(filled[~mask], image[~mask])
    mean = np.round(image[~mask].astype(float).mean(axis=0)).astype(np.uint8)
    assert (filled[mask] == mean).all()
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(fill_masked(image, np.zeros_like(mask)), image)


def test_masks_that_do_not_fit_are_refused():
    image = np.zeros((3, 4, 3), np.uint8)
    with pytest.raises(ImageReadError, match="the mask leaves out every pixel"):
        fill_masked(image, np.ones((3, 4), bool))
    with pytest.raises(ValueError, match=r"mask should be \(3, 4\) like the picture, got \(4, 3\)"):
        fill_masked(image, np.ones((4, 3), bool))


@pytest.mark.parametrize("size", [(12, 20), (13, 21), (3, 2), (100, 7)])
@pytest.mark.parametrize("grid", [(4, 5), (7, 3), (1, 1)])
def test_a_patch_is_left_out_when_half_its_area_is_masked(size, grid):
    """Against the mask with every pixel repeated, so that patches end between pixels."""
    mask = np.random.default_rng(1).random(size) < 0.5
    fine = np.repeat(np.repeat(mask, grid[0], axis=0), grid[1], axis=1)
    shares = fine.reshape(grid[0], size[0], grid[1], size[1]).mean(axis=(1, 3))
    np.testing.assert_array_equal(patch_mask(mask, grid), shares >= 0.5)


def test_exactly_half_a_patch_leaves_it_out():
    mask = np.zeros((6, 6), bool)
    mask[:, :1] = mask[0, 2] = True
    assert patch_mask(mask, (3, 3)).tolist() == [[True, False, False]] * 3


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_left_out_patches_point_to_the_nearest_that_is_kept(share):
    left_out = np.random.default_rng(2).random((9, 13)) < share
    nearest = nearest_kept(left_out)
    kept = np.argwhere(~left_out)
    for index, place in enumerate(np.ndindex(9, 13)):
        target = np.array(divmod(nearest[index], 13))
        assert not left_out[tuple(target)]
        distances = ((kept - place) ** 2).sum(axis=1)
        assert ((target - place) ** 2).sum() == distances.min()


@pytest.mark.parametrize("value", [False, True])
def test_nothing_or_everything_left_out_points_to_itself(value):
    assert nearest_kept(np.full((3, 4), value)).tolist() == list(range(12))
