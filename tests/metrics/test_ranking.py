"""AUROC, average precision and best F1 against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as rival

from faprompt.metrics import (
    UndefinedMetricError,
    auroc,
    average_precision,
    f1_max,
    f1_max_threshold,
)

ROADS = (auroc, average_precision, f1_max)


def rival_f1_max(labels, scores):
    precision, recall, _ = rival.precision_recall_curve(labels, scores)
    return np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))


def rivals(scores, labels):
    return (
        rival.roc_auc_score(labels, scores),
        rival.average_precision_score(labels, scores),
        rival_f1_max(labels, scores),
    )


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("levels", [2, 5, 40, None])
def test_equals_scikit_learn(share, levels):
    rng = np.random.default_rng(3)
    labels = (rng.random(500) < share).astype(int)
    labels[:2] = 0, 1
    scores = rng.normal(labels, 1.5)
    if levels:
        scores = np.digitize(scores, np.linspace(-2, 2, levels - 1)).astype(float)
    ours = [road(scores, labels) for road in ROADS]
    np.testing.assert_allclose(ours, rivals(scores, labels), rtol=0, atol=1e-12)


few_levels = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2 and len({score for score, _ in rows}) > 1
)


@given(few_levels)
@settings(max_examples=50, deadline=None)
def test_equals_scikit_learn_with_many_ties(rows):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    ours = [road(scores, labels) for road in ROADS]
    np.testing.assert_allclose(ours, rivals(scores, labels), rtol=0, atol=1e-12)


@given(few_levels, st.sampled_from([np.exp, np.cbrt, lambda s: 1e30 * s - 5e29, np.arctan]))
@settings(max_examples=30, deadline=None)
def test_only_the_order_counts(rows, rising):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    for road in ROADS:
        assert road(rising(scores.astype(float)), labels) == pytest.approx(road(scores, labels))


@given(few_levels, st.randoms())
@settings(max_examples=30, deadline=None)
def test_the_order_of_items_does_not_count(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    for road in ROADS:
        assert road(*zip(*shuffled, strict=True)) == pytest.approx(road(*zip(*rows, strict=True)))


def test_values_known_by_hand():
    # Falling: anomalous, then a tie of one each, then normal.
    scores, labels = [3, 2, 2, 1], [1, 1, 0, 0]
    assert auroc(scores, labels) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert average_precision(scores, labels) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert f1_max(scores, labels) == pytest.approx(2 * 2 / (3 + 2))


def test_perfect_and_reversed():
    scores = np.array([1.0, 2.0, 3.0, 4.0])
    assert [road(scores, [0, 0, 1, 1]) for road in ROADS] == [1.0, 1.0, 1.0]
    assert auroc(-scores, [0, 0, 1, 1]) == 0.0


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(
    ("scores", "labels", "reason"),
    [
        ([], [], "there are no scores"),
        ([1.0, 2.0], [0, 0], "one class only: all scores are normal"),
        ([1.0, 2.0], [1, 1], "one class only: all scores are anomalous"),
        ([0.3, 0.3], [0, 1], r"same score \(0.3\)"),
        ([0.0, -0.0], [0, 1], "same score"),
    ],
)
def test_undefined_with_a_reason(road, scores, labels, reason):
    with pytest.raises(UndefinedMetricError, match=reason):
        road(scores, labels)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        ([1.0, np.nan], [0, 1], ValueError, "finite"),
        ([1.0, -np.inf], [0, 1], ValueError, "finite"),
        ([1.0, 2.0], [0, 1, 1], ValueError, r"one length, got \(2,\) and \(3,\)"),
        ([[1.0, 2.0]], [[0, 1]], ValueError, "one-dimensional"),
        (1.0, 1, ValueError, "one-dimensional"),
        ([1.0, 2.0], [0, 2], ValueError, "only 0 and 1, got values from 0 to 2"),
        ([1.0, 2.0], [0, 0.5], ValueError, "only 0 and 1"),
        ([1.0, 2.0], [-1, 1], ValueError, "only 0 and 1"),
        (["a", "b"], [0, 1], TypeError, "real numbers"),
        ([1.0, 2.0], ["0", "1"], TypeError, "real numbers"),
        ([1j, 2.0], [0, 1], TypeError, "real numbers"),
    ],
)
def test_refusals(road, scores, labels, error, message):
    with pytest.raises(error, match=message):
        road(scores, labels)


@pytest.mark.parametrize("levels", [3, 20, None])
def test_the_threshold_of_the_best_f1_gives_it(levels):
    rng = np.random.default_rng(4)
    labels = rng.random(60) < 0.3
    scores = rng.standard_normal(60) + labels
    if levels:
        scores = np.round(scores * levels / 6)
    called = scores >= f1_max_threshold(scores, labels)
    assert rival.f1_score(labels, called) == pytest.approx(f1_max(scores, labels))


def test_of_several_thresholds_the_highest():
    """From 0.8 on one of two is found and nothing else; from 0.2 on both, with two alarms."""
    scores, labels = [0.8, 0.6, 0.4, 0.2], [1, 0, 0, 1]
    assert f1_max(scores, labels) == pytest.approx(2 / 3)
    assert f1_max_threshold(scores, labels) == 0.8
    with pytest.raises(UndefinedMetricError, match="one class only"):
        f1_max_threshold(scores, [0, 0, 0, 0])
