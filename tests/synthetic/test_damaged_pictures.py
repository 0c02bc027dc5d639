"""Defects drawn onto given pictures: size, place, strength, what stays, what is refused."""

import hashlib

import numpy as np
import pytest
import torch

from faprompt.errors import ConfigError
from faprompt.synthetic import DEFECT_KINDS, ONTO_KINDS, damaged_pictures, draw_defect, draw_defects
from faprompt.synthetic.damaged_pictures import _free_corners, _window
from faprompt.synthetic.defect_shapes import longest_extent


def picture(height=90, width=120, *, colour=True, seed=0):
    """An uneven surface: slow shading and grain."""
    random = np.random.default_rng(seed)
    shade = 120 + 40 * np.sin(np.arange(width) / 17)[None] * np.cos(np.arange(height) / 23)[:, None]
    grain = random.normal(0, 4, (height, width, 3 if colour else 1))
    tint = np.array([1.0, 0.8, 0.6]) if colour else np.ones(1)
    return np.broadcast_to(
        (shade[..., None] * tint + grain).clip(0, 255).astype(np.uint8), (height, width, 3)
    ).copy()


def farthest(mask):
    """Longest distance between two pixels of a mask, by looking at every pair, plus one."""
    points = np.argwhere(mask)
    apart = points[:, None] - points[None]
    return float(np.sqrt((apart**2).sum(-1)).max()) + 1


def boundary(mask):
    """Pixels of a mask with a neighbour outside it; the farthest pair lies there."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def test_every_kind_is_one_that_can_be_drawn():
    assert set(ONTO_KINDS) <= {kind.name for kind in DEFECT_KINDS}
    assert not any("pattern" in kind or "lesion" in kind for kind in ONTO_KINDS)


@pytest.mark.parametrize("size_px", [4, 20, 40])
@pytest.mark.parametrize("kind", ONTO_KINDS)
def test_the_mask_has_the_wanted_size(kind, size_px):
    image = picture()
    drawn = draw_defect(image, kind, size_px=size_px, strength=1.0, seed=3)
    assert abs(farthest(boundary(drawn.mask)) - size_px) <= max(1.0, 0.1 * size_px) + 0.01 * size_px
    assert (drawn.kind, drawn.size_px, drawn.strength) == (kind, size_px, 1.0)
    changed = np.abs(drawn.image.astype(int) - image).max(-1)
    assert changed[drawn.mask].mean() >= 0.055 * 255, "it can be seen"


def test_the_extent_is_that_of_the_farthest_pair():
    random = np.random.default_rng(1)
    for _ in range(20):
        mask = np.zeros((30, 40), bool)
        mask[random.integers(0, 30, 6), random.integers(0, 40, 6)] = True
        assert longest_extent(mask) == pytest.approx(farthest(mask), rel=0.005)
    assert longest_extent(np.zeros((4, 4), bool)) == 0


@pytest.mark.parametrize("kind", ["crack", "stain", "hole", "dent"])
def test_pixels_away_from_the_mask_stay(kind):
    image = picture()
    before = image.copy()
    drawn = draw_defect(image, kind, size_px=16, strength=1.0, seed=1)
    assert np.array_equal(image, before), "the picture of the caller"
    rows, columns = drawn.mask.nonzero()
    near = np.zeros_like(drawn.mask)
    reach = 8  # half the size: soft edges
    near[
        max(rows.min() - reach, 0) : rows.max() + reach + 1,
        max(columns.min() - reach, 0) : columns.max() + reach + 1,
    ] = True
    assert np.array_equal(drawn.image[~near], image[~near])
    assert drawn.image.dtype == np.uint8 and drawn.mask.dtype == bool


@pytest.mark.parametrize("kind", ONTO_KINDS)
def test_a_stronger_defect_changes_more_and_covers_the_same(kind):
    image = picture()
    drawn = [
        draw_defect(image, kind, size_px=16, strength=strength, seed=5)
        for strength in (0.25, 0.5, 1.0)
    ]
    change = [np.abs(one.image.astype(float) - image).mean() for one in drawn]
    assert change[0] < change[1] < change[2]
    assert change[1] == pytest.approx(change[2] / 2, rel=0.2)
    assert all(np.array_equal(one.mask, drawn[0].mask) for one in drawn)


def test_a_seed_decides_every_pixel_at_any_number_of_threads():
    def prints(threads):
        torch.set_num_threads(threads)
        drawn = [
            draw_defect(picture(), kind, size_px=24, strength=1.0, seed=2) for kind in ONTO_KINDS
        ]
        return [hashlib.sha256(one.image.tobytes() + one.mask.tobytes()).digest() for one in drawn]

    before = torch.get_num_threads()
    try:
        assert prints(1) == prints(2)
    finally:
        torch.set_num_threads(before)
    one, other = (draw_defect(picture(), "stain", size_px=24, strength=1.0, seed=s) for s in (2, 3))
    assert not np.array_equal(one.mask, other.mask)


def test_global_random_numbers_are_not_touched():
    torch.manual_seed(4)
    state = torch.get_rng_state()
    draw_defect(picture(), "hole", size_px=8, strength=1.0, seed=0)
    assert torch.equal(state, torch.get_rng_state())


def test_nothing_is_drawn_on_what_is_kept_out():
    image, keep_out = picture(), np.ones((90, 120), bool)
    keep_out[50:80, 10:50] = False
    for kind in ("stain", "hole", "crack"):
        for seed in range(4):
            drawn = draw_defect(image, kind, size_px=12, strength=1.0, seed=seed, keep_out=keep_out)
            assert np.array_equal(drawn.image[keep_out], image[keep_out])
            assert not drawn.mask[keep_out].any() and drawn.mask.any()


def test_free_corners_are_those_of_empty_boxes():
    keep_out = np.random.default_rng(0).random((14, 17)) > 0.9
    free = _free_corners(keep_out, 3, 4)
    expected = [[not keep_out[y : y + 3, x : x + 4].any() for x in range(14)] for y in range(12)]
    assert np.array_equal(free, expected)


def test_a_window_beyond_the_picture_is_mirrored():
    image = picture(7, 5)
    padded = np.pad(image, ((20, 20), (20, 20), (0, 0)), mode="symmetric")
    assert np.array_equal(_window(image, -20, -20, 30), padded[:30, :30])
    assert np.array_equal(_window(image, 2, -9, 20), padded[22:42, 11:31])


def test_an_empty_background_is_avoided():
    image = np.full((200, 200, 3), 10, np.uint8)
    image[50:150, 40:160] = picture(100, 120)
    inside = 0
    for seed in range(20):
        rows, columns = draw_defect(
            image, "hole", size_px=6, strength=1.0, seed=seed
        ).mask.nonzero()
        inside += 48 <= rows.mean() <= 152 and 38 <= columns.mean() <= 162
    assert inside >= 18  # by chance it would be 6


def test_grey_pictures_stay_grey_and_coloured_ones_get_colour():
    grey = picture(colour=False)
    for kind in ("stain", "contamination", "burn", "colour change"):
        drawn = draw_defect(grey, kind, size_px=20, strength=1.0, seed=6).image
        assert np.array_equal(drawn, np.repeat(drawn[..., :1], 3, axis=2))
    burnt = draw_defect(picture(), "contamination", size_px=20, strength=1.0, seed=6)
    assert np.ptp(burnt.image[burnt.mask].astype(int), axis=-1).max() > 0


@pytest.mark.parametrize("shape", [(16, 300), (300, 16), (9, 9)])
def test_small_and_oblong_pictures(shape):
    image = picture(*shape)
    drawn = draw_defect(image, "hole", size_px=8, strength=1.0, seed=0)
    assert drawn.image.shape == image.shape and drawn.mask.shape == shape
    assert abs(longest_extent(drawn.mask) - 8) <= 1


def test_what_cannot_be_drawn_is_refused(monkeypatch):
    monkeypatch.setattr(damaged_pictures, "_TRIES", 3)
    image = picture(40, 60)
    fine = {"size_px": 8, "strength": 1.0, "seed": 0}
    with pytest.raises(ConfigError, match="41 px does not fit a picture of 60 x 40 pixels"):
        draw_defect(image, "hole", **(fine | {"size_px": 41}))
    with pytest.raises(ConfigError, match="kind 'rust'.*some of: scratch"):
        draw_defect(image, "rust", **fine)
    with pytest.raises(ConfigError, match="size 2 px, strength 1.5"):
        draw_defect(image, "hole", size_px=2, strength=1.5, seed=0)
    for bad in (0.0, float("nan")):
        with pytest.raises(ConfigError, match="strength"):
            draw_defect(image, "hole", **(fine | {"strength": bad}))
    with pytest.raises(ConfigError, match="no free place"):
        draw_defect(image, "tear", **fine, keep_out=np.ones((40, 60), bool))
    with pytest.raises(ConfigError, match="could not be seen"):
        draw_defect(np.zeros((40, 60, 3), np.uint8), "colour change", **fine)
    for wrong in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(ValueError, match="image should be"):
            draw_defect(wrong, "hole", **fine)
    for wrong in (np.ones((60, 40), bool), np.ones((40, 60), np.uint8)):
        with pytest.raises(ValueError, match="keep_out should be"):
            draw_defect(image, "hole", **fine, keep_out=wrong)


def test_a_design_has_every_cell_and_uses_the_pictures_in_turn():
    images = [picture(40, 50, seed=0), picture(12, 50, seed=1), picture(40, 50, seed=2)]
    drawn = list(draw_defects(images, ["hole", "tear"], [6, 20], [0.5, 1.0], per_cell=3, seed=1))
    cells = [(one.kind, one.size_px, one.strength) for _, one in drawn]
    assert len(cells) == 24 and all(cells.count(cell) == 3 for cell in set(cells))
    assert len(set(cells)) == 8
    for (first, weak), (second, strong) in zip(drawn[::2], drawn[1::2], strict=True):
        assert first == second and (weak.strength, strong.strength) == (0.5, 1.0)
        assert np.array_equal(weak.mask, strong.mask)
    assert [number for number, _ in drawn[:6:2]] == [0, 1, 2]
    assert {number for number, one in drawn if one.size_px == 20} == {0, 2}, "1 is too small"
    for number, one in drawn:
        assert one.image.shape == images[number].shape
    masks = {one.mask.tobytes() for number, one in drawn if number == 0 and one.size_px == 20}
    assert len(masks) == sum(n == 0 and one.size_px == 20 for n, one in drawn) / 2


def test_a_design_keeps_out_of_each_pictures_own_mask():
    images, left = [picture(40, 50), picture(40, 50, seed=1)], np.zeros((40, 50), bool)
    left[:, :25] = True
    design = ["hole", "stain"], [6], [1.0]
    drawn = draw_defects(images, *design, per_cell=6, seed=2, keep_out=[left, None])
    masks: list[list[np.ndarray]] = [[], []]
    for number, one in drawn:
        masks[number].append(one.mask)
    assert len(masks[0]) == len(masks[1]) == 6
    assert not any(mask[left].any() for mask in masks[0])
    assert any(mask[left].any() for mask in masks[1])


def test_a_design_that_cannot_be_drawn_is_refused():
    def first(**changes):
        options = {"images": [picture(30, 30)], "kinds": ["hole"], "sizes_px": [8]}
        options |= {"strengths": [1.0], "per_cell": 1, "seed": 0} | changes
        images, kinds, sizes, strengths = (
            options.pop(name) for name in ("images", "kinds", "sizes_px", "strengths")
        )
        return next(draw_defects(images, kinds, sizes, strengths, **options))

    assert first()[0] == 0
    with pytest.raises(ConfigError, match="None of 1 pictures is as large as a defect of 31 px"):
        first(sizes_px=[31])
    with pytest.raises(ConfigError, match="no kind"):
        first(kinds=[])
    with pytest.raises(ConfigError, match="strength 2"):
        first(strengths=[0.5, 2])
    with pytest.raises(ValueError, match="at least 1"):
        first(per_cell=0)
    with pytest.raises(ValueError, match="Got 0 pictures"):
        first(images=[])
    with pytest.raises(ValueError, match="Got 2 keep_out for 1 pictures"):
        first(keep_out=[None, None])
