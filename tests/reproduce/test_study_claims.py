"""Claims counted by hand, and intervals against formulas of their own."""

from __future__ import annotations

import warnings
from statistics import fmean, variance

import numpy as np
import pytest
from scipy import stats

from faprompt.reproduce.experiment_parts import Claim
from faprompt.reproduce.study_claims import (
    LEGEND,
    claims_section,
    compare,
    mean_interval,
    to_markdown,
    welch_interval,
)
from tests.reproduce import study_toys as toys
from tests.reproduce.study_toys import dot

CLAIM = Claim(text="two are better than one", better="K = 2", than=("K = 1",))
WON = [dot("K = 1", 0.7), dot("K = 2", 0.8)]
LOST = [dot("K = 1", 0.9, metric="PRO"), dot("K = 2", 0.875, metric="PRO")]
TIED = [dot("K = 1", 0.5, series="drawer"), dot("K = 2", 0.5, series="drawer")]


def section(dots):
    return "\n\n".join(claims_section(toys.config(), dots))


@pytest.mark.parametrize(
    ("dots", "values", "summary"),
    [
        (WON, [0.1], "1 of 1"),
        (LOST, [-0.025], "0 of 1"),
        (TIED, [0.0], "0 of 1"),
        ([*WON, *LOST], [0.1, -0.025], "1 of 2"),
        (WON[:1], [], "cannot be decided"),
    ],
)
def test_a_claim_is_counted_place_by_place(dots, values, summary):
    differences = compare(CLAIM, dots)
    assert [each.value for each in differences] == pytest.approx(values)
    assert not any(each.significant for each in differences)
    assert f"| two are better than one | {summary} |  | - |" in section(dots)


def test_backbones_and_sources_are_not_mixed():
    dots = [dot("K = 1", 0.9, backbone="a"), dot("K = 2", 0.8, backbone="b"),
            dot("K = 2", 0.95, backbone="a", source="published")]  # fmt: skip
    assert compare(CLAIM, dots) == []
    dots.append(dot("K = 2", 0.7, backbone="a"))
    (only,) = compare(CLAIM, dots)
    assert only.where == "shelf image AUROC: K = 2 (a) less K = 1 (a)"
    assert only.value == pytest.approx(-0.2)


def test_settings_of_several_axes_are_compared():
    (only,) = compare(CLAIM, [dot("K = 1", 0.5, axis="prompts K"), dot("K = 2", 0.6, axis="other")])
    assert only.value == pytest.approx(0.1)


def test_the_table_says_what_disagrees_and_what_the_paper_prints():
    theirs = [dot("K = 1", 0.6, source="published"), dot("K = 2", 0.7, source="published")]
    parts = claims_section(toys.config(), [*WON, *LOST, *theirs])
    assert parts == [
        "The paper: more is better.",
        "| claim | holds | difference (95 % interval) | holds in the paper's numbers |\n"
        "| --- | --- | --- | --- |\n"
        "| two are better than one | 1 of 2 |  | 1 of 1 |\n"
        "| · shelf image AUROC: K = 2 less K = 1 | yes | +10.0 |  |\n"
        "| · shelf PRO: K = 2 less K = 1 | no | -2.5 |  |",
        LEGEND,
    ]
    assert claims_section(toys.config(), theirs)[1:] == ["No run has ended yet."]


def test_notes_of_shown_points_are_there():
    methods = [
        {**toys.method("K = 1"), "note": "a note"},
        {**toys.method("K = 2"), "note": "unseen"},
    ]
    config = toys.config(**toys.one_axis(methods))
    assert claims_section(config, WON[:1])[-1] == "K = 1: a note."


@pytest.mark.parametrize("counts", [(3, 3), (5, 2)])
def test_welch_by_its_formula(counts):
    draw = np.random.default_rng(7)
    first, second = (draw.normal(k, 1 + k, n).tolist() for k, n in enumerate(counts))
    shares = [variance(values) / len(values) for values in (first, second)]
    freedom = sum(shares) ** 2 / sum(s**2 / (n - 1) for s, n in zip(shares, counts, strict=True))
    reach = stats.t.ppf(0.975, freedom) * sum(shares) ** 0.5
    value = fmean(first) - fmean(second)
    assert welch_interval(first, second) == pytest.approx((value - reach, value + reach))


def test_student_by_its_formula():
    values = [0.2, 0.3, 0.4]
    reach = 4.302653 * 0.1 / 3**0.5  # t of two degrees of freedom
    assert mean_interval(values) == pytest.approx((0.3 - reach, 0.3 + reach))


def test_what_does_not_vary_has_a_point_for_an_interval_and_too_few_have_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert welch_interval([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25)
        low, high = welch_interval([0.5, 0.5, 0.5], [0.25, 0.35])
        assert mean_interval([0.5, 0.5]) == (0.5, 0.5)
    assert low == pytest.approx(0.2 - 12.7062 * 0.05, abs=1e-4), "one degree of freedom"
    assert high == pytest.approx(0.2 + 12.7062 * 0.05, abs=1e-4)
    assert welch_interval([1.0], [1.0] * 5) is None and welch_interval([1.0] * 5, [1.0]) is None
    assert mean_interval([1.0]) is None


def test_a_difference_is_held_against_the_seeds():
    def seeds(label, values):
        return [dot(label, value, source="seed") for value in values]

    for other, significant in ((0.5, 0.9, 0.6), False), ((0.1, 0.11, 0.12), True):
        ours = (0.6, 0.7, 0.8)
        dots = [*seeds("K = 2", ours), *seeds("K = 1", other)]
        dots += [dot("K = 2", fmean(ours)), dot("K = 1", fmean(other))]
        (found,) = compare(CLAIM, dots)
        assert found.interval == pytest.approx(welch_interval(ours, other))
        assert (found.significant, found.over) == (significant, "seeds")
    assert "| 1 of 1, 1 significantly |" in section(dots)
    assert "| yes, significantly | +59.0 [" in section(dots) and "] over seeds |" in section(dots)


def drawn(label, value, wobble, **changes):
    """A dot with replicates: luck that both share, and its own."""
    luck = np.linspace(-0.2, 0.2, 200)
    own = wobble * np.where(np.arange(200) % 2, 1, -1)
    return dot(label, value, replicates=value + luck + own, **changes)


def test_a_claim_says_what_is_significant_over_pictures():
    sure = [drawn("K = 1", 0.7, 0.0), drawn("K = 2", 0.71, 0.0)]
    unsure = [drawn("K = 1", 0.7, 0.0, metric="PRO"), drawn("K = 2", 0.71, 0.05, metric="PRO")]
    lost = [drawn("K = 1", 0.8, 0, metric="AP"), drawn("K = 2", 0.7, 0, metric="AP")]
    differences = compare(CLAIM, [*sure, *unsure, *lost])
    assert [each.value > 0 for each in differences] == [True, True, False]
    assert [each.significant for each in differences] == [True, False, True]
    assert {each.over for each in differences} == {"pictures"}
    assert differences[0].interval == pytest.approx((0.01, 0.01)), "they are paired"
    page = section([*sure, *unsure, *lost])
    assert "| 2 of 3, 1 significantly |" in page
    assert "| no, significantly | -10.0 [-10.0, -10.0] over pictures |" in page
    (half,) = compare(CLAIM, [dot("K = 1", 0.7), drawn("K = 2", 0.8, 0.0)])
    assert half.interval is None


def test_titles_do_not_break_a_table():
    assert to_markdown([("a|b", "Ensemble*")]) == "| a\\|b | Ensemble\\* |\n| --- | --- |"
