"""Exact intervals of a share against scipy's test of a binomial count."""

from __future__ import annotations

import pytest
from scipy import stats

from faprompt.metrics import share_interval


@pytest.mark.parametrize("total", [1, 2, 19, 150])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_intervals_are_those_of_scipy(total, confidence):
    for count in {0, 1, total // 3, total - 1, total}:
        ends = stats.binomtest(count, total).proportion_ci(confidence, method="exact")
        found = share_interval(count, total, confidence=confidence)
        assert found == pytest.approx((ends.low, ends.high), rel=1e-9, abs=1e-12)


def test_the_interval_contains_the_share_and_narrows_with_more_cases():
    few, many = share_interval(1, 20), share_interval(50, 1000)
    assert few[0] < many[0] < 0.05 < many[1] < few[1]


def test_the_true_share_is_contained_at_least_as_often_as_promised():
    total = 30
    for share in (0.01, 0.2, 0.5):
        inside = sum(
            stats.binom.pmf(count, total, share)
            for count in range(total + 1)
            if (ends := share_interval(count, total))[0] <= share <= ends[1]
        )
        assert inside >= 0.95


@pytest.mark.parametrize(("count", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_counts_that_do_not_fit_are_refused(count, total):
    with pytest.raises(ValueError, match=f"got {count}, {total}"):
        share_interval(count, total)
