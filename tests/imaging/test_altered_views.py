"""Altered copies of pictures: how many, and each against an independent way to make it."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from faprompt.imaging.picture_views import ANGLES, SHIFTS, altered_views


def draw(height=9, width=9):
    return torch.from_numpy(np.random.default_rng(0).random((2, 3, height, width))).float()


def sample(plane, matrix):
    """scipy's bilinear sampling at matrix @ (x, y, 1), reflected at the border pixels."""
    height, width = plane.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(float)
    x, y = 2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1
    (a, b, c), (d, e, f) = matrix
    there = [
        ((d * x + e * y + f) + 1) * (height - 1) / 2,
        ((a * x + b * y + c) + 1) * (width - 1) / 2,
    ]
    return map_coordinates(plane, there, order=1, mode="mirror")


def test_there_are_21_besides_the_picture():
    views = list(altered_views(draw()))
    assert len(views) == 21
    assert len({tuple(view.flatten().tolist()) for view in views}) == 21
    assert sorted(ANGLES) == pytest.approx([k * math.pi / 16 for k in (-4, -3, -2, -1, 1, 2, 3, 4)])


@pytest.mark.parametrize("size", [(9, 9), (7, 12)])
def test_rotations_and_shifts_sample_the_picture(size):
    pixels = draw(*size)
    views = list(altered_views(pixels))
    matrices = [((math.cos(t), -math.sin(t), 0), (math.sin(t), math.cos(t), 0)) for t in ANGLES]
    matrices += [((1, 0, x), (0, 1, y)) for x, y in SHIFTS]
    assert len(set(SHIFTS)) == 8 and {abs(x) for x, _ in SHIFTS} == {0.1, 0.2}
    for view, matrix in zip(views, matrices, strict=False):
        wanted = sample(pixels[1, 2].double().numpy(), matrix)
        np.testing.assert_allclose(view[1, 2], wanted, atol=1e-5)


def test_mirror_grey_and_quarter_turns():
    pixels = draw(5, 8)
    mirror, grey, left, half, right = list(altered_views(pixels))[-5:]
    assert torch.equal(mirror, torch.from_numpy(pixels.numpy()[..., ::-1].copy()))
    red, green, blue = pixels.unbind(dim=1)
    torch.testing.assert_close(grey[:, 0], 0.299 * red + 0.587 * green + 0.114 * blue)
    assert torch.equal(grey[:, 0], grey[:, 2]) and grey.shape == pixels.shape
    for view, turns in ((left, 1), (half, 2), (right, 3)):
        assert np.array_equal(view, np.rot90(pixels.numpy(), turns, axes=(2, 3)))
