"""AUPRO and its regions against a loop over every threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from faprompt.metrics import UndefinedMetricError, aupro
from faprompt.metrics.labelled_pixels import mask_regions
from tests.helpers.aupro_reference import aupro_by_thresholds, regions_by_flood
from tests.helpers.score_maps import draw_maps

LIMITS = (0.05, 0.3, 1.0)


@pytest.mark.parametrize("fpr_limit", LIMITS)
def test_equals_the_slow_loop(fpr_limit):
    score_maps, masks = draw_maps(4, (14, 19), seed=1)
    expected = aupro_by_thresholds(score_maps, masks, fpr_limit)
    assert aupro(score_maps, masks, fpr_limit=fpr_limit) == pytest.approx(expected, abs=1e-12)


small_picture = st.tuples(
    arrays.arrays(np.int8, (4, 5), elements=st.integers(-2, 3)),
    arrays.arrays(np.bool_, (4, 5)),
)


@given(st.lists(small_picture, min_size=1, max_size=3), st.sampled_from(LIMITS))
@settings(max_examples=60, deadline=None)
def test_equals_the_slow_loop_with_many_ties(pictures, fpr_limit):
    score_maps, masks = (list(column) for column in zip(*pictures, strict=True))
    truth = np.stack(masks)
    if not truth.any() or truth.all() or np.ptp(np.stack(score_maps)) == 0:
        with pytest.raises(UndefinedMetricError):
            aupro(score_maps, masks, fpr_limit=fpr_limit)
        return
    expected = aupro_by_thresholds(score_maps, masks, fpr_limit)
    assert aupro(score_maps, masks, fpr_limit=fpr_limit) == pytest.approx(expected, abs=1e-12)


def test_two_regions_by_hand():
    # One region of one pixel, one of four; ten normal pixels.
    mask = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
    scores = np.array([[9, 0, 0, 7, 7], [0, 0, 0, 5, 1], [8, 6, 0, 0, 0]])
    # Falling score -> (FPR, PRO): 9 (0, 1/2) · 8 (.1, 1/2) · 7 (.1, 3/4) · 6 (.2, 3/4)
    # · 5 (.2, 7/8) · 1 (.2, 1) · 0 (1, 1).
    area_to_a_fifth = 0.1 * 0.5 + 0.1 * 0.75
    assert aupro([scores], [mask], fpr_limit=0.2) == pytest.approx(area_to_a_fifth / 0.2)
    assert aupro([scores], [mask], fpr_limit=0.3) == pytest.approx((area_to_a_fifth + 0.1) / 0.3)
    # Cut between two points: from (0.1, 3/4) on, halfway to (0.2, 3/4).
    assert aupro([scores], [mask], fpr_limit=0.15) == pytest.approx((0.05 + 0.05 * 0.75) / 0.15)


def test_the_cut_is_interpolated_on_a_slope():
    # All tied but one: the curve runs from (0, 0) straight to (1, 1).
    mask = np.array([[1, 0, 0, 0], [0, 0, 0, 1]])
    scores = np.array([[2, 2, 2, 2], [2, 2, 1, 2]])
    # (0, 0) to (5/6, 1): at 0.5 the overlap is 0.6.
    assert aupro([scores], [mask], fpr_limit=0.5) == pytest.approx(0.5 * 0.6 / 2 / 0.5)


def test_small_regions_count_as_much_as_large_ones():
    mask = np.zeros((8, 20), dtype=bool)
    mask[1, 1] = True
    mask[1:7, 8:18] = True
    found_small, found_large = mask.copy(), mask.copy()
    found_small[:, 5:] = False
    found_large[:, :5] = False
    noise = np.random.default_rng(0).random(mask.shape) * 0.1
    small = aupro([found_small + noise], [mask], fpr_limit=0.01)
    large = aupro([found_large + noise], [mask], fpr_limit=0.01)
    assert small == pytest.approx(0.5, abs=0.02)
    assert large == pytest.approx(0.5, abs=0.02)


def test_only_the_order_counts():
    score_maps, masks = draw_maps(3, (12, 12))
    expected = aupro(score_maps, masks)
    assert aupro([np.exp(m) - 700 for m in score_maps], masks) == pytest.approx(expected)


def test_sizes_may_differ_and_one_array_equals_a_list():
    wide, wide_masks = draw_maps(2, (9, 15), seed=2)
    tall, tall_masks = draw_maps(2, (16, 7), seed=3)
    score_maps, masks = wide + tall, wide_masks + tall_masks
    assert aupro(score_maps, masks) == pytest.approx(aupro_by_thresholds(score_maps, masks))
    assert aupro(np.stack(wide), np.stack(wide_masks)) == aupro(wide, wide_masks)


@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
@settings(deadline=None)
def test_regions_equal_a_flood(mask):
    found = mask_regions(mask)
    grouped = [set(found.pixels[found.region == i]) for i in range(len(found.sizes))]
    flooded = [
        {row * mask.shape[1] + column for row, column in region}
        for region in regions_by_flood(mask)
    ]
    assert sorted(map(sorted, grouped)) == sorted(map(sorted, flooded))
    assert found.sizes.tolist() == [len(group) for group in grouped]
    assert found.weights.sum() == pytest.approx(len(flooded))


def test_corners_join():
    assert mask_regions(np.eye(5, dtype=bool)).sizes.tolist() == [5]


@pytest.mark.parametrize(
    ("score_map", "mask", "reason"),
    [
        ([[1, 2]], [[0, 0]], "no region"),
        ([[1, 2]], [[1, 1]], "no normal pixel"),
        ([[2, 2]], [[0, 1]], "same score"),
    ],
)
def test_undefined_with_a_reason(score_map, mask, reason):
    with pytest.raises(UndefinedMetricError, match=reason):
        aupro([np.array(score_map)], [np.array(mask)])


def test_undefined_without_any_pair():
    with pytest.raises(UndefinedMetricError, match="no image has both"):
        aupro([np.ones((2, 2))], [None])
    with pytest.raises(UndefinedMetricError, match="no image has both"):
        aupro([], [])


@pytest.mark.parametrize("fpr_limit", [0, -0.1, 1.01, np.nan])
def test_refuses_a_limit_out_of_range(fpr_limit):
    with pytest.raises(ValueError, match="fpr_limit should be above 0 and at most 1"):
        aupro([np.eye(2)], [np.eye(2)], fpr_limit=fpr_limit)


@pytest.mark.parametrize(
    ("score_maps", "masks", "message"),
    [
        (None, [np.eye(2)], "masks came without score_maps"),
        ([np.eye(2)], [np.eye(2)] * 2, "1 score_maps for 2 masks"),
        (np.eye(2), [np.eye(2)], r"score_maps should be \(B, H, W\)"),
        ([np.eye(2)], [np.eye(3)], r"masks\[0\] is \(3, 3\) but score_maps\[0\] is \(2, 2\)"),
    ],
)
def test_refuses_what_does_not_fit(score_maps, masks, message):
    with pytest.raises(ValueError, match=message):
        aupro(score_maps, masks)
