"""The authors' PRO against their loop, step for step."""

from __future__ import annotations

import numpy as np
import pytest

from faprompt.metrics import AnomalyMetrics, UndefinedMetricError, aupro, pro_200
from tests.helpers.aupro_reference import pro_200_loop
from tests.helpers.score_maps import NASTY, draw_maps, nasty_maps


@pytest.mark.parametrize("name", ["plain", "sigmoid", "256 levels", "half of all zero"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fpr_limit", [0.3, 0.9])
def test_equals_the_authors_loop(name, dtype, fpr_limit):
    smooth, masks = draw_maps(4, (15, 18), seed=4)
    score_maps = np.stack([NASTY[name](m, i) for i, m in enumerate(smooth)]).astype(dtype)
    expected = pro_200_loop(score_maps, np.stack(masks), fpr_limit)
    ours = pro_200(score_maps, np.stack(masks), fpr_limit=fpr_limit)
    assert ours == pytest.approx(expected, abs=1e-12)


def test_equals_the_loop_where_float32_steps_collapse():
    score_maps, masks = nasty_maps("crowded about a half", count=3, size=(12, 12), separation=2)
    steps = np.arange(0, 200, dtype=np.float32)
    assert len(np.unique(np.stack(score_maps))) < len(steps)  # fewer scores than thresholds
    expected = pro_200_loop(np.stack(score_maps), np.stack(masks))
    assert pro_200(score_maps, masks) == pytest.approx(expected, abs=1e-12)


def test_two_regions_by_hand():
    # 0, 1, ..., 200 over the normal pixels, so that each step of score drops one of them.
    scores = np.arange(203, dtype=np.float64)[None]
    mask = np.zeros((1, 203), dtype=bool)
    mask[0, [200, 202]] = True  # two regions; 200 and 202 are their scores
    scores[0, 201], scores[0, 202] = 150.5, 200
    # Thresholds 0..199: both regions are above each of them, so PRO is 1 throughout.
    assert pro_200([scores], [mask]) == pytest.approx(1.0)
    scores[0, 200] = 190.5  # this region is lost from threshold 191 on
    # Of the normal scores 0..199 and 150.5, FPR < 0.3 keeps 140.. (59 + 1 above) .. 199 (0 above).
    fpr = np.array([199 - t + (t < 150.5) for t in range(140, 200)]) / 201
    pro = np.array([1.0 if t < 190.5 else 0.5 for t in range(140, 200)])
    stretched = (fpr - fpr.min()) / (fpr.max() - fpr.min())
    area = np.trapezoid(pro[::-1], stretched[::-1])
    assert pro_200([scores], [mask]) == pytest.approx(area)


def test_depends_on_the_spread_of_scores_where_aupro_does_not():
    score_maps, masks = draw_maps(4, (16, 16))
    squashed = [np.exp(m) for m in score_maps]
    assert aupro(squashed, masks) == pytest.approx(aupro(score_maps, masks))
    assert abs(pro_200(squashed, masks) - pro_200(score_maps, masks)) > 0.01


def test_sizes_and_number_types_may_differ():
    wide, wide_masks = draw_maps(2, (9, 15), seed=2)
    together = pro_200(wide, wide_masks)
    rows = [m.reshape(1, -1) for m in wide], [m.reshape(1, -1) for m in wide_masks]
    assert 0 <= together <= 1
    assert 0 <= pro_200(wide + rows[0], wide_masks + rows[1]) <= 1
    whole = [np.round(10 * m).astype(np.int16) for m in wide]
    as_floats = [m.astype(np.float64) for m in whole]
    assert pro_200(whole, wide_masks) == pro_200(as_floats, wide_masks)


@pytest.mark.parametrize(
    ("score_map", "mask", "reason"),
    [
        ([[1, 2]], [[0, 0]], "no region"),
        ([[1, 2]], [[1, 1]], "no normal pixel"),
        ([[2, 2]], [[0, 1]], "same score"),
        ([[0, 1, 1, 1]], [[1, 0, 0, 0]], "fewer than two"),  # FPR is 1 at every threshold
        ([[0, 0, 0, 1]], [[0, 0, 0, 1]], "fewer than two"),  # FPR is 0 at every threshold
    ],
)
def test_undefined_with_a_reason(score_map, mask, reason):
    with pytest.raises(UndefinedMetricError, match=reason):
        pro_200([np.array(score_map, dtype=float)], [np.array(mask)])


def test_undefined_without_any_pair():
    with pytest.raises(UndefinedMetricError, match="no image has both"):
        pro_200([np.eye(2)], [None])


def test_refuses_a_limit_out_of_range():
    with pytest.raises(ValueError, match="fpr_limit"):
        pro_200([np.eye(2)], [np.eye(2)], fpr_limit=0)


@pytest.mark.parametrize("mode", ["binned", "exact"])
@pytest.mark.parametrize("name", ["plain", "sigmoid", "256 levels", "heavy tails"])
def test_a_stream_gives_the_same(mode, name):
    score_maps, masks = nasty_maps(name, count=12, size=(20, 24), separation=1.0)
    metrics = AnomalyMetrics(mode, pro_200=True)
    for i, pair in enumerate(zip(score_maps, masks, strict=True)):
        metrics.update([i], [i % 2], *([array] for array in pair))
    result = metrics.compute()
    assert result["pro_200"] == pytest.approx(pro_200(score_maps, masks), abs=1e-9)
    assert "pro_200" not in result.intervals


def test_a_stream_too_large_for_exact_counts_stays_within_its_bins():
    score_maps, masks = nasty_maps("sigmoid", count=6, size=(500, 420), separation=1.0)
    metrics = AnomalyMetrics(pro_200=True)
    for i, pair in enumerate(zip(score_maps, masks, strict=True)):
        metrics.update([i], [i % 2], *([array] for array in pair))
    assert metrics.compute()["pro_200"] == pytest.approx(pro_200(score_maps, masks), abs=1e-4)


def test_a_stream_without_an_answer_says_why():
    metrics = AnomalyMetrics(pro_200=True)
    assert metrics.compute().undefined["pro_200"] == "no image has both a score map and a mask"
    metrics.update([0.5], [1], [np.array([[0.3, 0.3]])], [np.array([[0, 1]])])
    assert "same score" in metrics.compute().undefined["pro_200"]
    assert "pro_200" not in AnomalyMetrics().compute().undefined
