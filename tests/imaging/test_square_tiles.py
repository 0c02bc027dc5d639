"""Square tiles of long pictures, and maps joined from them."""

import numpy as np
import pytest

from faprompt.imaging.picture_views import end_squares, join_maps, square_tiles


@pytest.mark.parametrize(
    ("size", "count"), [((7, 7), 1), ((10, 11), 2), ((30, 200), 9), ((200, 30), 9), ((1, 5), 5)]
)
def test_tiles_are_square_overlap_and_cover_the_picture(size, count):
    height, width = size
    boxes, covered, side = square_tiles(height, width), np.zeros(size, int), min(size)
    assert len(boxes) == len(set(boxes)) == count
    for x0, y0, x1, y1 in boxes:
        assert x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
        assert (x1 - x0, y1 - y0) == (side, side)
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1
    starts = sorted(max(x0, y0) for x0, y0, _, _ in boxes)
    assert all(b - a <= max(1, int(0.8 * side)) for a, b in zip(starts, starts[1:], strict=False))


@pytest.mark.parametrize("cut", [square_tiles, end_squares])
def test_tall_pictures_are_wide_ones_turned(cut):
    turned = [(y0, x0, y1, x1) for x0, y0, x1, y1 in cut(50, 20)]
    assert turned == cut(20, 50)


@pytest.mark.parametrize(
    ("size", "starts"),
    [
        ((10, 16), [0, 6]), ((7, 7), [0, 0]), ((10, 20), [0, 10]), ((10, 21), [0, 6, 11]),
        ((3, 10), [0, 2, 5, 7]), ((1, 4), [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_end_squares_start_at_both_ends_and_cover_the_picture(size, starts):
    side = size[0]
    assert end_squares(*size) == [(start, 0, start + side, side) for start in starts]
    assert starts[-1] + side == size[1]
    assert all(b - a <= side for a, b in zip(starts, starts[1:], strict=False))


@pytest.mark.parametrize("cut", [square_tiles, end_squares])
def test_a_picture_without_pixels_is_refused(cut):
    with pytest.raises(ValueError, match="should have pixels, got 0x5"):
        cut(0, 5)


def test_joined_maps_are_the_mean_of_all_tiles_that_hold_a_pixel():
    draw = np.random.default_rng(0)
    boxes = square_tiles(6, 17)
    maps = [draw.random((6, 6), dtype=np.float32) for _ in boxes]
    joined = join_maps(maps, boxes, (6, 17))
    for row in range(6):
        for column in range(17):
            held = [
                tile[row, column - x0]
                for tile, (x0, _, x1, _) in zip(maps, boxes, strict=True)
                if x0 <= column < x1
            ]
            assert joined[row, column] == pytest.approx(np.mean(held), abs=1e-6)
    assert joined.dtype == np.float32


def test_refusals():
    with pytest.raises(ValueError, match=r"map of \(2, 3\) does not fill the box \(0, 0, 2, 2\)"):
        join_maps([np.zeros((2, 3))], [(0, 0, 2, 2)], (2, 2))
    with pytest.raises(ValueError, match="leave 2 pixels of the picture uncovered"):
        join_maps([np.zeros((2, 2))], [(0, 0, 2, 2)], (2, 3))
