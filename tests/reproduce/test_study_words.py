"""Verdicts counted by hand, and Welch's interval against scipy's own test."""

from __future__ import annotations

import numpy as np
import pytest
from faprompt.reproduce.differences import picture_differences, seed_differences, welch_interval
from faprompt.reproduce.study_config import Claim
from faprompt.reproduce.study_words import judge, paragraph, seed_sentences
from scipy import stats

from tests.reproduce import study_toys as toys
from tests.reproduce.study_toys import dot

CLAIM = Claim(text="two are better than one", better="K = 2", than=("K = 1",))
WON = [dot("K = 1", 0.7), dot("K = 2", 0.8)]
LOST = [dot("K = 1", 0.9, metric="PRO"), dot("K = 2", 0.875, metric="PRO")]
TIED = [dot("K = 1", 0.5, series="drawer"), dot("K = 2", 0.5, series="drawer")]


@pytest.mark.parametrize(
    ("dots", "held", "places", "word"),
    [
        (WON, 1, 1, "agrees"),
        (LOST, 0, 1, "disagrees"),
        (TIED, 0, 1, "disagrees"),
        ([*WON, *LOST], 1, 2, "agrees in part"),
        (WON[:1], 0, 0, "cannot be told"),
        ([], 0, 0, "cannot be told"),
    ],
)
def test_a_claim_is_counted_place_by_place(dots, held, places, word):
    verdict = judge(CLAIM, dots, "ours")
    assert (verdict.held, verdict.places, verdict.word) == (held, places, word)


def test_backbones_and_sources_are_not_mixed():
    dots = [dot("K = 1", 0.9, backbone="a"), dot("K = 2", 0.8, backbone="b"),
            dot("K = 2", 0.95, backbone="a", source="published")]  # fmt: skip
    assert judge(CLAIM, dots, "ours").places == 0
    dots.append(dot("K = 2", 0.7, backbone="a"))
    assert judge(CLAIM, dots, "ours").against == ("shelf image AUROC: K = 1 is 20.0 points above",)


def test_the_paragraph_says_what_disagrees():
    theirs = [dot("K = 1", 0.6, source="published"), dot("K = 2", 0.7, source="published")]
    lines = paragraph(toys.config(), [*WON, *LOST, *theirs], ["test-tiny"])
    assert lines == [
        "The paper: more is better.",
        "Seen, on test-tiny: prompts K: best are shelf image AUROC K = 2 (80.0, 10.0 points above "
        "the worst, K = 1); shelf PRO K = 1 (90.0, 2.5 points above the worst, K = 2).",
        "Claim: two are better than one. This run agrees in part: it holds in 1 of 2 comparisons; "
        "not in shelf PRO: K = 1 is 2.5 points above (in the paper's own numbers: 1 of 1).",
        "Of one seed; the study `seeds` tells what another would make of it.",
    ]
    assert paragraph(toys.config(), theirs, ["x"])[1] == "Seen: nothing yet, no run has ended."
    assert "is 50.0 for all settings" in paragraph(toys.config(), TIED, ["x"])[1]


@pytest.mark.parametrize("counts", [(3, 3), (5, 2)])
def test_welch_is_scipys(counts):
    draw = np.random.default_rng(7)
    first, second = (draw.normal(k, 1 + k, n).tolist() for k, n in enumerate(counts))
    rival = stats.ttest_ind(first, second, equal_var=False)
    span = rival.confidence_interval(0.95)
    assert welch_interval(first, second) == pytest.approx(
        (np.mean(first) - np.mean(second), span.low, span.high)
    )
    with pytest.raises(ValueError, match="at least two values each, got 1 and 5"):
        welch_interval([1.0], [1.0] * 5)


def test_a_difference_is_held_against_the_seeds():
    def seeds(label, values):
        return [dot(label, value, source="seed") for value in values]

    near, far = seeds("b", (0.5, 0.9, 0.6)), seeds("c", (0.1, 0.11, 0.12))
    found = {(d.first, d.second): d.beyond_chance for d in
             seed_differences([*seeds("a", (0.6, 0.7, 0.8)), *near, *far])}  # fmt: skip
    assert found == {("a", "b"): False, ("a", "c"): True, ("b", "c"): True}
    (line,) = seed_sentences([*seeds("a", (0.6, 0.7, 0.8)), *far])
    assert line.startswith("shelf image AUROC: a less c is +59.0 points [")
    assert line.endswith("larger than what seeds make of it (95 %, Welch).")
    assert seed_sentences(WON) == []


def drawn(label, value, wobble, **changes):
    """A dot with replicates: luck that both share, and its own."""
    luck = np.linspace(-0.2, 0.2, 200)
    own = wobble * np.where(np.arange(200) % 2, 1, -1)
    return dot(label, value, replicates=value + luck + own, **changes)


def test_a_claim_says_what_is_beyond_chance():
    sure = [drawn("K = 1", 0.7, 0.0), drawn("K = 2", 0.71, 0.0)]
    unsure = [drawn("K = 1", 0.7, 0.0, metric="PRO"), drawn("K = 2", 0.71, 0.05, metric="PRO")]
    lost = [drawn("K = 1", 0.8, 0, metric="AP"), drawn("K = 2", 0.7, 0, metric="AP")]
    verdict = judge(CLAIM, [*sure, *unsure, *lost], "ours")
    assert (verdict.held, verdict.beyond, verdict.places) == (2, 1, 3)
    assert verdict.against == ("shelf AP: K = 1 is 10.0 points above, beyond chance",)
    lines = paragraph(toys.config(), [*sure, *unsure], ["x"])
    assert "it holds in 2 of 2 comparisons, 1 of them beyond chance." in lines[2]
    assert lines[3].startswith("Beyond chance: the 95 % interval of the difference")
    assert "shelf PRO K = 2 (71.0, 1.0 points above the worst, K = 1, within chance)" in lines[1]
    assert "shelf image AUROC K = 2 (71.0, 1.0 points above the worst, K = 1)" in lines[1]


def test_differences_over_pictures_are_paired():
    (found,) = picture_differences([drawn("a", 0.7, 0.0), drawn("b", 0.69, 0.0)])
    assert (found.first, found.second, found.over) == ("a", "b", "pictures")
    assert (found.value, found.low, found.high) == pytest.approx((0.01, 0.01, 0.01))
    assert found.beyond_chance
    assert picture_differences([dot("a", 0.7), drawn("b", 0.6, 0.0)]) == ()
