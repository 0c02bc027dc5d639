"""Outlines and run lengths as pixels: by hand, against matplotlib and an encoder of our own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faprompt.data.outlines import decode_runs, draw_mask, fill_polygon, fill_runs
from faprompt.records import DrawnMask


def encode_runs(runs: list[int]) -> str:
    """The compressed form, written from its description: no code shared with the product."""
    text = ""
    for at, run in enumerate(runs):
        value = run - runs[at - 2] if at > 2 else run
        while True:
            group, value = value & 31, value >> 5
            done = value == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if done else 32))
            if done:
                break
    return text


def runs_of(truth: np.ndarray) -> list[int]:
    """Run lengths, pixel by pixel, down the columns."""
    runs, inside = [0], False
    for pixel in truth.T.ravel():
        if bool(pixel) != inside:
            runs.append(0)
            inside = bool(pixel)
        runs[-1] += 1
    return runs


def test_a_rectangle_between_pixel_borders_holds_its_area():
    found = fill_polygon([3, 2, 8, 2, 8, 5, 3, 5], (9, 14))
    wanted = np.zeros((9, 14), bool)
    wanted[2:5, 3:8] = True
    assert found.dtype == bool
    np.testing.assert_array_equal(found, wanted)


def test_by_hand():
    """A triangle, a C, and a ring, whose middle is outside by the even-odd rule."""
    triangle = fill_polygon([0, 0, 4, 4, 0, 4], (4, 4))
    np.testing.assert_array_equal(triangle & ~np.eye(4, dtype=bool), np.tri(4, k=-1, dtype=bool))
    c_shape = fill_polygon([0, 0, 4, 0, 4, 1, 1, 1, 1, 2, 4, 2, 4, 3, 0, 3], (3, 4))
    np.testing.assert_array_equal(c_shape, [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]])
    ring = fill_polygon([0, 0, 4, 0, 4, 4, 0, 4, 0, 0, 1, 1, 3, 1, 3, 3, 1, 3, 1, 1], (4, 4))
    np.testing.assert_array_equal(ring, [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]])


def test_direction_and_first_corner_do_not_matter():
    points = np.array([[1.2, 0.7], [9.1, 2.2], [6.6, 7.9], [2.0, 6.1]])
    wanted = fill_polygon(points.ravel(), (9, 11))
    assert wanted.sum() > 20
    for turned in (points[::-1], np.roll(points, 1, axis=0), [*points, points[0]]):
        np.testing.assert_array_equal(fill_polygon(np.ravel(turned), (9, 11)), wanted)


def test_what_reaches_out_is_cut_off():
    assert fill_polygon([-5, -5, 50, -5, 50, 50, -5, 50], (3, 4)).all()
    assert not fill_polygon([5, 0, 9, 0, 9, 3], (3, 4)).any()
    np.testing.assert_array_equal(
        fill_polygon([-3, 1, 2, 1, 2, 9, -3, 9], (3, 4)),
        [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]],
    )


def test_halves_that_share_a_side_share_no_pixel():
    left, right = [0, 0, 5, 0, 3, 6, 0, 6], [5, 0, 9, 0, 9, 6, 3, 6]
    first, second = fill_polygon(left, (6, 9)), fill_polygon(right, (6, 9))
    assert not (first & second).any() and (first | second).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), corners=st.integers(3, 9))
def test_against_matplotlib(seed, corners):
    """Pixel by pixel, by their centres; the outlines do not cross themselves."""
    outline = pytest.importorskip("matplotlib.path").Path
    draw = np.random.default_rng(seed)
    angles = np.sort(draw.uniform(0, 2 * np.pi, corners))
    radii = draw.uniform(2, 10, corners)
    points = np.stack([8 + radii * np.cos(angles), 6 + radii * np.sin(angles)], axis=1)
    height, width = 13, 17
    y, x = np.mgrid[:height, :width] + 0.5
    inside = outline(points).contains_points(np.stack([x.ravel(), y.ravel()], axis=1))
    found = fill_polygon(points.ravel(), (height, width))
    np.testing.assert_array_equal(found, inside.reshape(height, width))


def test_runs_by_hand():
    """Columns first: rows first would give another picture."""
    found = fill_runs([2, 3, 1, 2, 4], (3, 4))
    np.testing.assert_array_equal(found, [[0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]])
    assert fill_runs([0, 6], (2, 3)).all() and not fill_runs([6], (2, 3)).any()


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("", ()),
        ("0", (0,)),
        ("534O0", (5, 3, 4, 2, 4)),  # fourth: 2 - 3 = -1 is "O"; fifth: 4 - 4 = 0
        ("`0", (16,)),  # the low five bits look negative, so a second group follows
        ("PP1", (1024,)),
        ("111QO", (1, 1, 1, -30)),  # "Q" is 1 and goes on with 31: 993 - 1024, then 1 more
    ],
)
def test_compressed_by_hand(text, runs):
    assert decode_runs(text) == runs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 100_000), max_size=12))
def test_compressed_against_an_encoder(runs):
    assert decode_runs(encode_runs(runs)) == tuple(runs)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 7), width=st.integers(1, 7))
def test_any_mask_survives_as_runs(seed, height, width):
    truth = np.random.default_rng(seed).random((height, width)) < 0.5
    runs = runs_of(truth)
    np.testing.assert_array_equal(fill_runs(runs, (height, width)), truth)
    packed = decode_runs(encode_runs(runs))
    np.testing.assert_array_equal(fill_runs(packed, (height, width)), truth)


def test_shapes_are_united():
    drawn = DrawnMask((3, 4), polygons=((0, 0, 2, 0, 2, 1, 0, 1),), runs=((3, 3, 6),))
    np.testing.assert_array_equal(draw_mask(drawn), [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]])
    assert not draw_mask(DrawnMask((3, 4))).any()


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ([0, 0, 1, 1], "got 4 numbers"),
        ([0, 0, 1, 1, 2, 2, 3], "got 7 numbers"),
        ([[0, 0], [1, 1], [2, 0]], "x and y of three corners"),
        ([0, 0, 1, float("nan"), 2, 2], "not finite"),
    ],
)
def test_outlines_that_cannot_be_drawn(points, told):
    with pytest.raises(ValueError, match=told):
        fill_polygon(points, (3, 3))


def test_runs_that_do_not_fit():
    with pytest.raises(ValueError, match="add up to 5 pixels, and 2x3 has 6"):
        fill_runs([2, 3], (2, 3))
    with pytest.raises(ValueError, match="not be negative, got -1"):
        fill_runs([7, -1], (2, 3))


@pytest.mark.parametrize(
    ("text", "told"), [("1 2", "' ' is no letter"), ("1p", "'p' is no letter"), ("P", "within a")]
)
def test_compressed_text_that_is_none(text, told):
    with pytest.raises(ValueError, match=told):
        decode_runs(text)
