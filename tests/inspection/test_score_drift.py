"""Drift of scores: values against slow rivals, what it finds, and what it refuses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import beta, betabinom, chi2, ks_2samp

from faprompt.calibration import Calibration, GoodScores
from faprompt.errors import ConfigError
from faprompt.inspection import measure_drift
from faprompt.inspection.drift_figure import text_histogram
from faprompt.inspection.score_drift import WARNING, decile_edges, lower_half, stability_index

GOOD = beta(2, 8).ppf((np.arange(200) + 0.5) / 200)  # good scores without chance
DEFECTS = beta(9, 4).ppf((np.arange(60) + 0.5) / 60)  # nearly all above the good ones


def calibrated(*products: str, good=GOOD, **options) -> Calibration:
    made = {name: GoodScores(good, good) for name in products or ("",)}
    return Calibration(products=made, decided_by={}, **options)


def drift_of(today, **options):
    (found,) = measure_drift({"": np.asarray(today)}, calibrated(**options)).products
    return found


def test_the_same_scores_have_no_drift():
    found = drift_of(GOOD[::-1])
    assert (found.level, found.ks, found.p_value, found.psi) == ("none", 0, 1, 0)
    assert found.shares_good == found.shares_today == pytest.approx([0.1] * 10)
    assert found.median_good == found.median_today and found.defects_needed == 0
    assert found.ng.count == 1 and found.ng.share == 0.005 and found.ng.stated == 0.01
    assert found.ng_or_review.count == 9 and found.ng_or_review.stated == 0.05
    assert found.words == "No difference from the good pictures was found."


def test_values_of_a_shifted_run():
    today = GOOD[:50] + 0.1
    found = drift_of(today, target_fpr=0.02, review_fpr=0.1)
    rival = ks_2samp(GOOD, today)
    assert (found.ks, found.p_value) == (rival.statistic, rival.pvalue)
    assert found.ks == pytest.approx(
        max(abs((x >= GOOD).mean() - (today <= x).mean()) for x in [*GOOD, *today])
    )
    ends = [-math.inf, *found.edges, math.inf]
    counts = np.array([
        [((s > a) & (s <= b)).sum() for a, b in zip(ends, ends[1:], strict=False)]
        for s in (GOOD, today)
    ])  # fmt: skip
    assert counts[0].tolist() == [20] * 10
    p, q = (counts[0] + 0.5) / 205, (counts[1] + 0.5) / 55
    slow = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert found.psi == pytest.approx(slow, rel=1e-12)
    assert found.shares_today == pytest.approx(counts[1] / 50)
    assert found.psi_without_drift == pytest.approx((1 / 200 + 1 / 50) * chi2.ppf(0.95, 9))
    assert found.median_today == pytest.approx(np.median(GOOD[:50]) + 0.1)
    limit = np.sort(GOOD)[196]  # rank 197 of 200: ceil(201 * 0.98)
    assert found.ng.count == (today > limit).sum() and found.ng.stated == 0.02


def test_rates_have_exact_intervals():
    today = np.r_[GOOD[:92], [0.9] * 8]
    found = drift_of(today).ng
    assert (found.count, found.share) == (8, 0.08)
    assert found.low == pytest.approx(beta.ppf(0.025, 8, 93))
    assert found.high == pytest.approx(beta.ppf(0.975, 9, 92))
    assert found.p_value == pytest.approx(betabinom.sf(7, 100, 2, 199))
    none = drift_of(GOOD[:60]).ng
    assert none.p_value == 1
    assert none.low == 0 and none.high == pytest.approx(1 - 0.025 ** (1 / 60))


def test_the_chance_of_so_many_alarms_holds_in_a_simulation():
    """Good pictures reach a p-value of at most q in at most a share q of all runs."""
    draw = np.random.default_rng(5)
    above = [draw.beta(1, 99) for _ in range(4000)]  # true rates of the largest of 99
    counts = draw.binomial(80, above)
    chances = betabinom.sf(counts - 1, 80, 1, 99)
    for share in (0.01, 0.05, 0.2):
        assert (chances <= share).mean() <= share + 4 * math.sqrt(share / 4000)


@pytest.mark.parametrize(
    ("today", "level", "words"),
    [
        (GOOD + 0.1, "strong", "higher. The lower half has another shape"),
        (GOOD * 0.5, "strong", "lower. Defective parts do not explain lower scores"),
        (GOOD + 0.6, "strong", "No score is as low as the lower half"),
        (np.r_[GOOD, DEFECTS], "strong", "23 % of defective parts would explain it too"),
        (np.r_[GOOD, GOOD[:40], GOOD[:40]], "moderate", "lower. The lower half has another shape"),
        (np.r_[GOOD[::2], DEFECTS[::5]], "none", "more pictures are NG or REVIEW than good parts"),
        (GOOD[::34] + 0.1, "none", "The run is small: a PSI up to 2.90 means nothing."),
    ],
    ids=["shift", "half", "all above", "defects", "more low ones", "few defects", "few"],
)
def test_what_is_said(today, level, words):
    found = drift_of(today)
    assert found.level == level and words in found.words, found


def test_levels_are_those_of_the_psi_where_the_test_finds_a_difference():
    many = beta(2, 8).ppf((np.arange(5000) + 0.5) / 5000)
    found = [drift_of(many * factor, good=many) for factor in (1.01, 1.1, 1.25, 1.6)]
    assert [one.level for one in found] == ["none", "slight", "moderate", "strong"]
    assert [one.psi for one in found] == sorted(one.psi for one in found)


def test_defects_leave_the_shape_of_the_lower_half():
    for count in (0, 10, 60):
        p_value, needed = lower_half(GOOD, np.sort(np.r_[GOOD, DEFECTS[:count] + 0.3]))
        assert p_value == 1 and needed == pytest.approx(count / (200 + count))
    assert lower_half(GOOD, GOOD + 1) == (None, 1)
    p_value, needed = lower_half(GOOD, GOOD[:50])
    assert needed == 0 and p_value is not None and p_value < 1e-6


def test_a_scale_of_the_scores_changes_nothing():
    first = drift_of(np.r_[GOOD, DEFECTS])
    second = drift_of(np.r_[GOOD, DEFECTS] ** 3, good=GOOD**3)
    for name in ("ks", "p_value", "psi", "lower_p_value", "level", "ng", "shares_today"):
        assert getattr(first, name) == getattr(second, name)


def test_ties_and_few_good_scores_make_fewer_bins():
    assert decile_edges(np.array([0.0] * 15 + [1.0] * 5)).tolist() == [0, 1]
    assert decile_edges(np.full(20, 0.5)).tolist() == [0.5]
    assert decile_edges(np.array([1.0, 2.0, 3.0])).tolist() == [1, 2, 3]
    constant = drift_of(np.full(30, 0.5), good=np.full(200, 0.5))
    assert constant.level == "none" and constant.psi == pytest.approx(0, abs=0.05)
    assert drift_of(np.full(30, 0.6), good=np.full(200, 0.5)).level == "strong"
    assert sum(drift_of([0.5], good=np.arange(19.0), target_fpr=0.05).shares_today) == 1


def test_the_index_has_no_sign_and_no_infinity():
    draw = np.random.default_rng(0)
    for _ in range(50):
        first, second = draw.integers(0, 5, (2, 10))
        index = stability_index(first, second)
        assert 0 <= index < math.inf and index == pytest.approx(stability_index(second, first))
    assert stability_index(first, first) == 0


def test_runs_without_drift_seldom_look_drifted():
    draw = np.random.default_rng(0)
    found = [drift_of(draw.beta(2, 8, 60), good=draw.beta(2, 8, 120)) for _ in range(60)]
    assert sum(one.level != "none" for one in found) <= 4  # 0.6 expected
    assert sum(one.psi > one.psi_without_drift for one in found) <= 10  # 3 expected


def test_products_share_the_chance_of_a_false_finding():
    names = [f"part {number}" for number in range(20)]
    today = GOOD[60:]
    alone = measure_drift({"": today[::4]}, calibrated())
    assert 0.01 / 20 < alone.products[0].p_value < 0.01 and alone.level != "none"
    many = measure_drift({n: today[::4] if n == "part 3" else GOOD for n in names},
                         calibrated(*names))  # fmt: skip
    assert many.level == "none" and [one.product for one in many.products] == sorted(names)


def test_products_are_compared_each_with_its_own():
    two = Calibration(
        products={"nut": GoodScores(GOOD, GOOD), "cup": GoodScores(GOOD + 1, GOOD)}, decided_by={}
    )
    found = measure_drift({"nut": GOOD + 1}, two)
    assert found.absent == ("cup",) and found.level == "strong"
    found = measure_drift({"nut": GOOD, "cup": GOOD + 1}, two)
    assert found.absent == () and found.level == "none"
    assert measure_drift({"nut": GOOD, "cup": GOOD}, two).level == "strong"
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["level"] == "none" and plain["warning"] == WARNING
    assert plain["products"][0]["product"] == "cup" and plain["products"][0]["ng"]["count"] == 1


@pytest.mark.parametrize("today", [[], [0.1, math.nan], [[0.1]], [math.inf]])
def test_what_is_no_score_is_refused(today):
    with pytest.raises(ValueError, match="scores should be"):
        drift_of(today)


def test_nothing_and_unknown_products_are_refused():
    with pytest.raises(ValueError, match="no scores"):
        measure_drift({}, calibrated())
    with pytest.raises(ConfigError, match="calibrated for the products cup, got product 'nut'"):
        measure_drift({"nut": GOOD}, calibrated("cup"))


def test_the_histogram_in_text():
    lines = text_histogram(drift_of(np.r_[GOOD[:100], [0.9] * 100]))
    assert len(lines) == 10
    assert lines[0].split() == ["<=", f"{GOOD[19]:.4f}", "10.0%", "10.0%", "####|"]
    assert lines[7].split()[2:] == ["10.0%", "0.0%", "|"]
    assert lines[9].split()[2:] == ["10.0%", "50.0%", "####|" + 15 * "#"]
