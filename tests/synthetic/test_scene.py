"""Every thing and every defect, drawn; a defect against its clean twin."""

import random

import pytest
import torch
import torch.nn.functional as F

from faprompt.synthetic import DEFECT_KINDS, OBJECT_KINDS
from faprompt.synthetic.canvas import Canvas
from faprompt.synthetic.scene import LEAST_PIXELS, MAKERS, damage, paint, photograph, turn_over

SIZE = 72


def new_canvas(count=3, seed=0, channels=3):
    return Canvas(
        count,
        SIZE,
        generator=torch.Generator().manual_seed(seed),
        host=random.Random(seed),
        channels=channels,
    )


def thing_for(defect):
    return next(thing for thing in OBJECT_KINDS if defect.fits(thing))


@pytest.mark.parametrize("kind", OBJECT_KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_thing_can_be_drawn(kind, channels):
    content = paint(new_canvas(channels=channels), kind)
    assert content.image.shape == (3, channels, SIZE, SIZE)
    assert content.image.min() >= 0 and content.image.max() <= 1
    assert content.image.flatten(1).std(1).min() > 0
    assert content.ground.shape == (3, SIZE, SIZE)
    assert (content.ground.flatten(1).amax(1) > 0.5).all()  # somewhere a defect can lie
    assert content.behind.expand_as(content.image).isfinite().all()


@pytest.mark.parametrize("defect", DEFECT_KINDS, ids=lambda kind: kind.name)
def test_a_defect_changes_its_mask_and_nothing_far_from_it(defect):
    for seed in range(4):
        canvas = new_canvas(count=4, seed=seed)
        content = paint(canvas, thing_for(defect))
        damaged, masks = damage(canvas, content, [defect.name] * 4)
        change = (damaged - content.image).abs().amax(1)
        inside = masks.float()
        assert (inside.sum((1, 2)) >= LEAST_PIXELS).all()
        mean_change = (change * inside).sum((1, 2)) / inside.sum((1, 2))
        assert (mean_change > 0.02).all()
        # soft rims and halos may reach out, but faintly, and never across the picture
        near = F.max_pool2d(inside[:, None], 9, 1, 4)[:, 0] > 0
        assert (change * ~near).amax((1, 2)).max() < 0.5 * change.amax()
        assert ((change > 0) & ~near).float().mean() < 0.25


@pytest.mark.parametrize("name", ["scratch", "crack", "pore", "dent", "missing part", "hole"])
def test_sharp_defects_leave_everything_else_untouched(name):
    defect = next(kind for kind in DEFECT_KINDS if kind.name == name)
    canvas = new_canvas(count=4, seed=3)
    content = paint(canvas, thing_for(defect))
    damaged, masks = damage(canvas, content, [name] * 4)
    near = F.max_pool2d(masks[:, None].float(), 11, 1, 5) > 0
    assert torch.equal(damaged * ~near, content.image * ~near)


def test_normal_pictures_stay_as_they_were_painted():
    canvas = new_canvas(count=3, seed=1)
    content = paint(canvas, OBJECT_KINDS[0])
    damaged, masks = damage(canvas, content, ["", "crack", ""])
    changed = (damaged != content.image).flatten(1).any(1)
    assert changed.tolist() == [False, True, False]
    assert masks.flatten(1).any(1).tolist() == [False, True, False]


def test_defects_of_objects_lie_on_the_object():
    washer = next(kind for kind in OBJECT_KINDS if kind.name == "washer")
    canvas = new_canvas(count=8, seed=2)
    content = paint(canvas, washer)
    _, masks = damage(canvas, content, ["stain"] * 8)
    around = F.max_pool2d(content.ground[:, None], 9, 1, 4)[:, 0] > 0.3
    assert (masks & around).sum() > 0.95 * masks.sum()


def test_a_defect_nobody_would_see_is_replaced_by_a_plain_spot(monkeypatch):
    monkeypatch.setitem(
        MAKERS,
        "stain",
        lambda canvas, content, spot: (content.image, torch.zeros_like(content.ground)),
    )
    canvas = new_canvas(count=3, seed=4)
    content = paint(canvas, OBJECT_KINDS[0])
    damaged, masks = damage(canvas, content, ["stain"] * 3)
    assert (masks.sum((1, 2)) >= LEAST_PIXELS).all()
    change = (damaged - content.image).abs().amax(1)
    assert (change[masks] > 0.02).float().mean() > 0.9


@pytest.mark.parametrize("upright", [True, False])
def test_turning_over_keeps_mask_and_picture_together(upright):
    canvas = new_canvas(count=16)
    images = torch.rand(16, 1, SIZE, SIZE)
    masks = images[:, 0] > 0.7
    turned, turned_masks = turn_over(canvas, images.clone(), masks.clone(), upright=upright)
    assert torch.equal(turned[:, 0] > 0.7, turned_masks)
    same_rows = torch.equal(turned.sort(-1).values, images.sort(-1).values)
    assert same_rows == upright  # upright pictures are mirrored within their rows only
    assert not torch.equal(turned, images)


def test_the_camera_stays_in_range_and_moves_nothing():
    canvas = new_canvas(count=6, channels=1)
    scene = torch.zeros(6, 1, SIZE, SIZE) + 0.3
    scene[:, :, 20:40, 20:40] = 0.7
    picture = photograph(canvas, scene)
    assert picture.min() >= 0 and picture.max() <= 1
    inside, outside = picture[:, :, 22:38, 22:38], picture[:, :, 22:38, 42:58]
    assert (inside.mean((1, 2, 3)) > outside.mean((1, 2, 3)) + 0.1).all()
