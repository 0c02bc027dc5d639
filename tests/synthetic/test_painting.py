"""Where defects go, how large and how strong."""

import random

import pytest
import torch

from faprompt.synthetic.canvas import Canvas
from faprompt.synthetic.painting import (
    Content,
    Spot,
    blend,
    colour,
    contrast,
    find_spot,
    region,
    size_of,
    start_of,
    tint,
)

SIZE = 80


def new_canvas(count=16, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Canvas(count, SIZE, generator=generator, host=random.Random(seed), channels=channels)


def content_with(ground, image=None):
    image = torch.full((ground.shape[0], 1, SIZE, SIZE), 0.5) if image is None else image
    return Content(image, ground, torch.zeros(ground.shape[0], 1, 1, 1))


def spot_of(count, *, rough=0.0, level=0.5):
    one = torch.ones(count, 1, 1)
    return Spot(0 * one, 0 * one, one, rough * one, level * one)


def pixels_of(canvas, spot):
    return start_of(canvas, spot).long().clamp(0, SIZE - 1)


def test_spots_lie_on_the_thing_even_when_it_is_small():
    canvas = new_canvas()
    ground = torch.zeros(16, SIZE, SIZE)
    ground[:, 30:42, 60:70] = 1
    at = pixels_of(canvas, find_spot(canvas, content_with(ground)))
    assert ((at[:, 0] >= 58) & (at[:, 0] < 72) & (at[:, 1] >= 28) & (at[:, 1] < 44)).all()


def test_spots_on_the_outline_when_asked():
    ground = torch.zeros(40, SIZE, SIZE)
    ground[:, :, 40:] = 1
    distance = []
    for at_edge in (0.0, 1.0):
        canvas = new_canvas(40)
        at = pixels_of(canvas, find_spot(canvas, content_with(ground), at_edge=at_edge))
        distance.append((at[:, 0] - 40).abs().float().mean())
    assert distance[1] < 0.5 * distance[0]


def test_roughness_and_level_are_measured_around_the_spot():
    canvas = new_canvas()
    image = torch.full((16, 1, SIZE, SIZE), 0.25)
    noise = torch.randn(16, 1, SIZE, 40, generator=torch.Generator().manual_seed(0))
    image[:, :, :, 40:] = 0.75 + 0.2 * noise
    ground = torch.ones(16, SIZE, SIZE)
    spot = find_spot(canvas, content_with(ground, image))
    column = pixels_of(canvas, spot)[:, 0]
    rough, level = spot.rough.flatten(), spot.level.flatten()
    left, right = column < 32, column > 48
    assert left.any() and right.any()
    assert (rough[left] < 0.01).all() and (rough[right] - 0.2).abs().max() < 0.08
    assert (level[left] - 0.25).abs().max() < 0.01 and (level[right] - 0.75).abs().max() < 0.1


def test_contrast_grows_with_roughness_and_never_vanishes():
    canvas = new_canvas(400)
    smooth, rough = contrast(canvas, spot_of(400)), contrast(canvas, spot_of(400, rough=0.15))
    assert rough.mean() > 2 * smooth.mean()
    assert smooth.min() >= 0.05 and rough.max() <= 0.8 + 1e-6
    assert rough.min() >= 1.2 * 0.15 - 1e-6


def test_sizes_keep_to_the_room_and_stay_visible():
    canvas = new_canvas(300)
    wide = size_of(canvas, spot_of(300), 0.05, 0.5)
    assert wide.min() >= 0.05 and wide.max() <= 0.5 + 1e-6
    narrow = spot_of(300)
    narrow = Spot(narrow.x, narrow.y, narrow.room * 0.2, narrow.rough, narrow.level)
    held = size_of(canvas, narrow, 0.05, 0.5)
    assert held.max() <= 0.12 + 1e-6 and held.min() >= 3 * canvas.pixel - 1e-6


def test_regions_have_the_area_of_their_radius():
    canvas = new_canvas(60)
    radius = torch.full((60, 1, 1), 0.4)
    area = region(canvas, spot_of(60), radius, ragged=0.0, soft=(0.02, 0.04)).mean((1, 2)) * 4
    torch.testing.assert_close(area, torch.full((60,), 3.1416 * 0.16), atol=0.05, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_and_blends(channels):
    canvas = new_canvas(channels=channels)
    made = colour(canvas, (0.2, 0.6), vivid=0.5)
    assert made.shape == (16, channels, 1, 1)
    assert made.min() >= 0.01 and made.max() <= 1
    ramp = torch.linspace(0, 1, SIZE).expand(16, SIZE, SIZE)
    painted = tint(ramp, made, made * 0.5)
    torch.testing.assert_close(painted[..., 0], made[..., 0].expand(-1, -1, SIZE))
    torch.testing.assert_close(painted[..., -1], (made * 0.5)[..., 0].expand(-1, -1, SIZE))
    half = blend(torch.zeros(16, channels, SIZE, SIZE), 1.0, ramp)
    torch.testing.assert_close(half, ramp[:, None].expand_as(half))
