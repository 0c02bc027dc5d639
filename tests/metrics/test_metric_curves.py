"""Curves against scikit-learn, and against the numbers they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as rival

from faprompt.metrics import AnomalyMetrics, Curve, UndefinedMetricError, aupro
from faprompt.metrics.labelled_pixels import ExactPixels, LabelledPixels
from faprompt.metrics.tally import pr_curve_of, pro_curve_of, roc_curve_of, tally_scores
from tests.helpers.score_maps import draw_maps


def roc_curve(scores, labels):
    return roc_curve_of(tally_scores(np.asarray(scores), np.asarray(labels, bool)))


def pr_curve(scores, labels):
    return pr_curve_of(tally_scores(np.asarray(scores), np.asarray(labels, bool)))


def pro_curve(score_maps, masks):
    pixels = ExactPixels()
    pixels.add([LabelledPixels.of(*pair) for pair in zip(score_maps, masks, strict=True)])
    return pro_curve_of(pixels.tally())


@pytest.fixture
def ranked():
    rng = np.random.default_rng(0)
    labels = rng.random(300) < 0.3
    return np.round(rng.normal(labels, 1), 1), labels


def test_roc_equals_scikit_learn(ranked):
    scores, labels = ranked
    curve = roc_curve(scores, labels)
    x, y, thresholds = rival.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.x, x, atol=1e-12)
    np.testing.assert_allclose(curve.y, y, atol=1e-12)
    np.testing.assert_array_equal(curve.thresholds, thresholds)


def test_pr_equals_scikit_learn(ranked):
    scores, labels = ranked
    curve = pr_curve(scores, labels)
    precision, recall, thresholds = rival.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curve.x, recall[::-1], atol=1e-12)
    np.testing.assert_allclose(curve.y, precision[::-1], atol=1e-12)
    np.testing.assert_array_equal(curve.thresholds[1:], thresholds[::-1])


def test_pro_has_the_area_of_aupro():
    score_maps, masks = draw_maps(3, (12, 14))
    curve = pro_curve(score_maps, masks)
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(aupro(score_maps, masks, fpr_limit=1.0))
    assert (curve.x[0], curve.y[0], curve.thresholds[0]) == (0, 0, np.inf)
    assert (curve.x[-1], curve.y[-1]) == (1, pytest.approx(1))


def test_thinning_keeps_the_ends_and_the_shape(ranked):
    curve = roc_curve(np.random.default_rng(1).random(300) + ranked[1], ranked[1])
    thin = curve.thinned(50)
    assert 20 <= len(thin.x) <= 50
    assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(thin.y, thin.x) == pytest.approx(np.trapezoid(curve.y, curve.x), abs=0.01)
    assert set(zip(thin.x, thin.y, thin.thresholds, strict=True)) <= set(
        zip(curve.x, curve.y, curve.thresholds, strict=True)
    )
    assert curve.thinned(10**6) is curve


def test_thinning_refuses_less_than_two_points():
    line = Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([np.inf, 0.0]))
    with pytest.raises(ValueError, match="at least 2 points, got 1"):
        line.thinned(1)


@pytest.mark.parametrize("mode", ["binned", "exact"])
def test_stream_gives_the_same_curves(mode):
    score_maps, masks = draw_maps(3, (12, 14))
    score_maps = [m.astype(np.float32) for m in score_maps]
    scores, labels = [0.3, 0.1, 0.8], [0, 0, 1]
    metrics = AnomalyMetrics(mode)
    metrics.update(scores, labels, score_maps, masks)
    curves = metrics.curves(points=10**6)
    flat = np.concatenate([m.ravel() for m in score_maps])
    truth = np.concatenate([m.ravel() for m in masks])
    expected = {
        "image_roc": roc_curve(scores, labels),
        "image_pr": pr_curve(scores, labels),
        "pixel_roc": roc_curve(flat, truth),
        "pixel_pr": pr_curve(flat, truth),
        "pro": pro_curve(score_maps, masks),
    }
    assert curves.keys() == expected.keys()
    for name, curve in curves.items():
        np.testing.assert_allclose(curve.x, expected[name].x, atol=1e-12)
        np.testing.assert_allclose(curve.y, expected[name].y, atol=1e-12)
        np.testing.assert_array_equal(curve.thresholds, expected[name].thresholds)
    assert all(len(curve.x) <= 40 for curve in metrics.curves(points=40).values())


def test_a_curve_without_an_answer_is_absent():
    metrics = AnomalyMetrics()
    metrics.update([0.1, 0.2], [0, 1])
    assert metrics.curves().keys() == {"image_roc", "image_pr"}
    with pytest.raises(UndefinedMetricError, match="one class only"):
        roc_curve([0.1, 0.2], [1, 1])
    with pytest.raises(UndefinedMetricError, match="no region"):
        pro_curve([np.eye(2)], [np.zeros((2, 2))])
