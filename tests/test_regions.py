"""Regions against a flood fill written out, and the word for a score."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from faprompt import regions
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


def label_at_once(score_map: np.ndarray, threshold: float) -> tuple[Region, ...]:
    """The same regions by scipy's labels of the whole map, added in the same order."""
    labels, count = ndimage.label(score_map >= threshold, structure=np.ones((3, 3)))
    owner, values = labels[labels > 0] - 1, score_map[labels > 0].astype(float)
    sums = np.bincount(owner, weights=values, minlength=count)
    found = []
    for i, (rows, columns) in enumerate(ndimage.find_objects(labels)):
        own = values[owner == i]
        bbox = (columns.start, rows.start, columns.stop, rows.stop)
        found.append(Region(bbox, own.size, float(own.max()), float(sums[i] / own.size)))
    return tuple(sorted(found, key=lambda r: (-r.peak, -r.area_px, r.bbox[1], r.bbox[0])))


@pytest.mark.parametrize("band_rows", [1, 2, 7, 40])
@pytest.mark.parametrize("sigma", [0, 1, 4])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.6, 0.9, 1.0])
def test_bands_change_nothing(band_rows, sigma, share, monkeypatch):
    """Every value is the same, also where regions cross many bands and meet further down."""
    draw = np.random.default_rng(band_rows + 10 * sigma)
    score_map = ndimage.gaussian_filter(draw.random((61, 47)), sigma).astype(np.float32)
    threshold = float(np.quantile(score_map, 1 - share))
    assert find_regions(score_map, threshold) == label_at_once(score_map, threshold)
    monkeypatch.setattr(regions, "BAND_PIXELS", 47 * band_rows)
    assert find_regions(score_map, threshold) == label_at_once(score_map, threshold)
    assert find_regions(score_map.T, threshold) == label_at_once(score_map.T, threshold)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.7]])
def test_regions_that_meet_across_bands_are_one(values, monkeypatch):
    """Nested rings that may touch at one corner, turned, and the corners of a chessboard."""
    monkeypatch.setattr(regions, "BAND_PIXELS", 1)
    rings = np.zeros((11, 11), np.float32)
    for ring in (1, 3, 5):
        rings[ring - 1 : 12 - ring, [ring - 1, 11 - ring]] = 0.5
        rings[[ring - 1, 11 - ring], ring - 1 : 12 - ring] = values[-1]
    rings[1, 1] = 0.5
    chessboard = (np.indices((9, 9)).sum(axis=0) % 2).astype(np.float32)
    for score_map in (rings, rings[:, ::-1], rings[::-1], chessboard):
        assert find_regions(score_map, 0.5) == label_at_once(score_map, 0.5)
    assert len(find_regions(chessboard, 0.5)) == 1


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


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_a_map_without_pixels_has_no_region(shape):
    assert find_regions(np.zeros(shape, np.float32), 0.5) == ()


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
