"""What sheets are drawn with: lettering that fits, outlines that lie on their defect."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faprompt.evaluation.drawing import SIDE, fit, font, outlined, shrink_mask, wrapped


@given(text=st.text(max_size=80), width=st.integers(40, 300), bold=st.booleans())
@settings(max_examples=60, deadline=None)
def test_wrapped_text_fits_and_loses_nothing(text, width, bold):
    lines = wrapped(text, width, size=18, bold=bold)
    for line in lines:
        assert font(18, bold=bold).getlength(line) <= width or len(line) == 1
    assert "".join("".join(lines).split()) == "".join(
        text.encode(errors="replace").decode().split()
    )


def test_words_stay_whole_where_they_fit():
    assert wrapped("one two", 1000, size=18) == ["one two"]
    assert wrapped("one two", font(18).getlength("one t"), size=18) == ["one", "two"]
    assert wrapped("", 50, size=18) == [""]


@pytest.mark.parametrize("size", [(900, 700), (SIDE, 130), (60, 64), (31, 500)])
def test_picture_map_and_mask_stay_aligned(size):
    """A drawn defect: after fitting, its outline lies around the bright pixels, map and all."""
    height, width = size
    image, score_map = np.zeros((*size, 3), np.uint8), np.zeros(size, np.float32)
    place = (slice(height // 3, height * 2 // 3), slice(width // 4, width // 2))
    image[place], score_map[place] = 200, 1.0
    panel, small_map, mask = fit(image, score_map, score_map > 0)
    assert panel.shape[:2] == small_map.shape == mask.shape and max(mask.shape) <= SIDE
    bright, hot = panel[..., 0] > 100, small_map > 0.5
    for found in (bright, hot):
        assert mask[found].all(), "the mask covers what is drawn"
        assert np.count_nonzero(mask & ~found) <= mask.sum() * 0.2 + 2 * sum(mask.shape)
    ring = (outlined(panel, mask) == 255).all(-1)
    assert ring.any() and not (ring & mask).any()
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    found_rows, found_columns = np.flatnonzero(ring.any(1)), np.flatnonzero(ring.any(0))
    for inner, outer in ((rows, found_rows), (columns, found_columns)):
        assert inner[0] - 3 <= outer[0] < inner[0] and inner[-1] < outer[-1] <= inner[-1] + 3


def test_no_defect_no_mask():
    image, score_map = np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.float32)
    assert fit(image, score_map, np.zeros((8, 9), bool))[2] is None
    assert fit(image, score_map, None)[2] is None
    panel = np.full((8, 9, 3), 7, np.uint8)
    copy = outlined(panel, None)
    assert np.array_equal(copy, panel) and copy is not panel


def test_a_single_pixel_is_never_lost():
    mask = np.zeros((1000, 777), bool)
    mask[613, 500] = True
    small = shrink_mask(mask, (100, 78))
    (place,) = np.argwhere(small)
    assert tuple(place) == (61, 50)
