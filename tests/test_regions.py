"""Regions against a flood fill written out, and the word for a score."""

from __future__ import annotations

import numpy as np
import pytest

from faprompt.records import Region
from faprompt.regions import find_regions, verdict


def flood_fill(score_map: np.ndarray, threshold: float) -> set[Region]:
    """The same regions, pixel by pixel."""
    left = {(int(y), int(x)) for y, x in np.argwhere(score_map >= threshold)}
    found = set()
    while left:
        queue, pixels = [left.pop()], []
        while queue:
            y, x = queue.pop()
            pixels.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            queue += near
        rows, columns = zip(*pixels, strict=True)
        values = [float(score_map[pixel]) for pixel in pixels]
        bbox = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        mean = round(sum(values) / len(values), 9)
        found.add(Region(bbox, len(pixels), max(values), mean))
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.8, 0.95])
def test_equals_flood_fill(seed, threshold):
    score_map = np.random.default_rng(seed).random((17, 23), dtype=np.float32)
    found = find_regions(score_map, threshold)
    rounded = {Region(r.bbox, r.area_px, r.peak, round(r.mean, 9)) for r in found}
    assert rounded == flood_fill(score_map, threshold)
    assert len(found) == len(rounded)


def test_order_is_peak_then_area_then_place():
    score_map = np.zeros((9, 9), np.float32)
    score_map[0, 0] = score_map[0, 4] = 0.5
    score_map[4, 0:2] = 0.5
    score_map[8, 8] = 0.9
    boxes = [region.bbox for region in find_regions(score_map, 0.5)]
    assert boxes == [(8, 8, 9, 9), (0, 4, 2, 5), (0, 0, 1, 1), (4, 0, 5, 1)]


def test_no_pixel_at_the_threshold_is_no_region():
    score_map = np.zeros((6, 6), np.float32)
    score_map[0, 0] = 1.0
    assert find_regions(score_map, 1.1) == ()


def test_threshold_itself_counts():
    assert len(find_regions(np.full((2, 2), 0.5, np.float32), 0.5)) == 1


def test_values_are_plain_python():
    (region,) = find_regions(np.full((2, 3), 0.75, np.float32), 0.5)
    assert region == Region((0, 0, 3, 2), 6, 0.75, 0.75)
    assert all(type(value) is int for value in (*region.bbox, region.area_px))
    assert type(region.peak) is float and type(region.mean) is float


def test_a_map_has_two_axes():
    with pytest.raises(ValueError, match=r"\(height, width\), got \(1, 2, 2\)"):
        find_regions(np.zeros((1, 2, 2)), 0.5)


@pytest.mark.parametrize(
    ("score", "expected"), [(0.0, "OK"), (0.29, "OK"), (0.3, "REVIEW"), (0.5, "NG"), (1.0, "NG")]
)
def test_verdict(score, expected):
    assert verdict(score, 0.5, 0.2) == expected
    assert verdict(score, None, 0.2) is None
    assert verdict(score, 0.5) == ("NG" if score >= 0.5 else "OK")


def test_verdict_refuses():
    with pytest.raises(ValueError, match="NaN"):
        verdict(float("nan"), None)
    with pytest.raises(ValueError, match="review_band"):
        verdict(0.5, 0.5, -0.1)


@pytest.mark.parametrize("threshold", [5, -0.1, float("nan"), float("inf")])
def test_a_threshold_lies_in_the_range_of_scores(threshold):
    with pytest.raises(ValueError, match="threshold should be from 0 to 1, got"):
        verdict(0.5, threshold)
