"""What is said of a prompt spread: intervals against scipy, verdicts and cautions by reason."""

from __future__ import annotations

import numpy as np
import pytest
from faprompt.reproduce.spread import MapPoint, PromptSpread, SpreadRow, over_models
from faprompt.reproduce.spread_measures import MEASURES
from faprompt.reproduce.spread_words import compare, judge_spread, spread_sections
from scipy import stats

PAIR = ("FAPrompt", "Ensemble*")
WIDE = dict(zip(MEASURES, (0.30, 0.50, 4.0, 0.6, 0.20), strict=True))
NARROW = dict(zip(MEASURES, (0.10, 0.05, 1.2, 0.1, 0.10), strict=True))


def seeds(value, count, *, step=0.01):
    return [value * (1 + step * (n - (count - 1) / 2)) for n in range(count)]


def spread(wide=WIDE, narrow=NARROW, *, count=5, other=3, step=0.01):
    """A spread of `count` and `other` seeds about these values."""
    rows = []
    for method, told, number in ((PAIR[0], wide, count), (PAIR[1], narrow, other)):
        for measure, value in told.items():
            for seed, each in enumerate(seeds(value, number, step=step)):
                for kind, pictures in (("all", 40), ("normal", 20), ("anomalous", 20)):
                    ends = (0.9 * each, 1.1 * each)
                    rows.append(
                        SpreadRow(method, f"seed {seed}", kind, pictures, 10, measure, each, *ends)
                    )
    point = MapPoint(PAIR[0], "seed 0", "a.png", 0, 1, 0.0, 0.0)
    return PromptSpread("shelf", (*rows, *over_models(rows)), (point,))


def page(found):
    return "\n\n".join(spread_sections({"shelf": found}, PAIR))


@pytest.mark.parametrize("measure", ["distance", "silhouette"])
def test_intervals_over_seeds_are_scipys(measure):
    (found,) = [each for each in compare(spread(), PAIR) if each.measure == measure]
    both = seeds(WIDE[measure], 5), seeds(NARROW[measure], 3)
    for row, drawn in zip((found.wide, found.narrow), both, strict=True):
        wanted = stats.ttest_1samp(drawn, 0).confidence_interval(0.95)
        assert (row.low, row.high) == pytest.approx((wanted.low, wanted.high))
        assert row.value == pytest.approx(np.mean(drawn)) and row.count == len(drawn)
    wanted = stats.ttest_ind(*both, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.value == pytest.approx(np.mean(both[0]) - np.mean(both[1]))


def test_every_number_and_interval_stands_in_the_table():
    text = page(spread())
    for each in compare(spread(), PAIR):
        if each.measure == "effective":
            low, high = each.wide.low, each.wide.high
            assert f"| {each.wide.value:.3f} [{low:.3f}, {high:.3f}] |" in text
            assert f"| {each.value:+.3f} [{each.low:+.3f}, {each.high:+.3f}] |" in text
            continue
        assert f"{each.value:+.3g} [{each.low:+.3g}, {each.high:+.3g}] |" in text
        assert f"| {each.wide.value:.3g} [{each.wide.low:.3g}, {each.wide.high:.3g}] |" in text
    assert "Measured on 20 normal and 20 anomalous pictures." in text
    assert "Student's t over its seeds, of a difference by Welch's" in text


def test_what_spreads_by_all_measures_agrees_with_the_paper():
    verdict = judge_spread(compare(spread(), PAIR))
    assert (verdict.word, verdict.held, verdict.places, verdict.beyond) == ("agrees", 4, 4, 4)
    assert "they do by 4 of 4 measures, 4 of them beyond seeds." in page(spread())


def test_contrast_alone_is_no_spread():
    same = spread({**NARROW, "contrast": 0.4}, NARROW, count=3)
    assert judge_spread(compare(same, PAIR)).word == "disagrees"


def test_what_does_not_is_told_by_name():
    found = spread({**WIDE, "silhouette": 0.05}, count=3)
    verdict = judge_spread(compare(found, PAIR))
    assert (verdict.word, verdict.against) == ("agrees in part", ("silhouette",))
    assert "This run agrees in part: they do by 3 of 4 measures" in page(found)
    assert "; not by silhouette." in page(found)


def test_within_what_seeds_make_of_it():
    near = {name: 1.01 * value for name, value in NARROW.items()}
    found = spread(near, count=3, step=0.3)
    verdict = judge_spread(compare(found, PAIR))
    assert (verdict.held, verdict.beyond) == (4, 0) and verdict.tested
    assert "in the same order, though within what seeds make of it." in page(found)


@pytest.mark.parametrize(
    ("unlike", "distance", "told"),
    [
        (0.5, 0.3, "Correlation has the two in the same order."),
        (0.01, 0.01, "Correlation has the two in the same order."),
        (0.01, 0.3, "the larger distance of FAPrompt's could come from scale alone; by "
         "correlation FAPrompt's prompts do not lie farther apart."),
        (0.5, 0.01, "the larger distance of Ensemble*'s could come from scale alone; by "
         "correlation FAPrompt's prompts do lie farther apart."),
    ],
)  # fmt: skip
def test_the_caution_is_for_distances_that_scale_could_make(unlike, distance, told):
    text = page(spread({**WIDE, "dissimilarity": unlike, "distance": distance}))
    assert told in text and ("scale alone" in text) == ("scale alone" in told)
    assert "FAPrompt's has 2.00 times the contrast of one of Ensemble*'s" in text
    alone = 0.2 * (2 * unlike) ** 0.5
    assert f"distances of about {alone:.2g} and {0.1 * 0.1**0.5:.2g} at these contrasts" in text
    assert ("less than half of FAPrompt's distance" in text) == (alone < distance / 2)


def test_what_correlation_alone_makes_of_a_distance_is_exact_for_equal_levels_and_contrasts():
    from faprompt.reproduce.spread_measures import contrast, pair_dissimilarity, pair_distance

    one, two = np.random.default_rng(0).normal(size=(2, 500))
    one, two = ((each - each.mean()) / each.std() for each in (one, 0.9 * one + 0.3 * two))
    maps = 0.5 + 0.1 * np.stack([one, two])[None]
    alone = contrast(maps) * np.sqrt(2 * pair_dissimilarity(maps))
    assert alone == pytest.approx(pair_distance(maps))


def test_one_seed_has_no_interval_of_the_difference():
    found = spread(count=1, other=1)
    for each in compare(found, PAIR):
        assert each.low is None and not each.beyond_seeds
        assert each.wide.low == pytest.approx(0.9 * WIDE[each.measure]), "over pictures"
    text = page(found)
    assert (
        "A method has one seed only, so differences have no interval." in text
        and "beyond seeds" not in text
    )
    assert "| +0.2 |" in text


def test_nothing_to_compare_is_said():
    alone = PromptSpread("shelf", (), (MapPoint("AnomalyCLIP", "seed 0", "a", 0, 1, 0.0, 0.0),))
    text = page(alone)
    assert "Of FAPrompt and Ensemble*, one was not mapped or has one prompt" in text
    assert "prompt-maps.svg" in text and "prompt-spread.svg" not in text
    assert spread_sections({}, PAIR) == ["The prompts' maps: nothing yet, no run has ended."]
