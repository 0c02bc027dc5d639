"""Thresholds, bounds and p-values against slow rivals, and every refusal of a calibration."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.stats import beta, binom

from faprompt.calibration import (
    CALIBRATION,
    Calibration,
    GoodScores,
    Limits,
    false_alarm_bound,
    fingerprint_of,
    highest_by_part,
    order_statistic,
    p_value,
    parts_of,
    pictures_needed,
    read_calibration,
    save_calibration,
)
from faprompt.errors import ConfigError, ModelError
from tests.test_damaged_models import outcomes

RATES = [Fraction(1, n) for n in (2, 3, 7, 10, 19, 20, 100, 300, 1000)]
RATES += [Fraction(text) for text in ("0.03", "0.07", "0.15", "0.29", "0.57", "0.9", "0.999")]
COUNTS = [1, 2, 3, 6, 8, 9, 19, 20, 29, 49, 50, 98, 99, 100, 106, 199, 299, 300, 999, 1000, 9999]
DECIDED = {"detector": "a" * 64, "precision": "fp32", "tiles": "off"}


def scores(count: int, *, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).random(count))


def calibration(products=("",), *, count: int = 120, **options) -> Calibration:
    made = {
        name: GoodScores(scores(count, seed=i) + i, scores(count, seed=i + 50))
        for i, name in enumerate(products)
    }
    return Calibration(products=made, decided_by=DECIDED, **options)


def slow_threshold(values: np.ndarray, rate: Fraction) -> float | None:
    """The lowest score such that a new one would rank above it at most that often.

    A new score has each of n + 1 ranks with equal chance, and lies above s_j on n + 1 - j.
    """
    count = len(values)
    allowed = [j for j in range(1, count + 1) if Fraction(count + 1 - j, count + 1) <= rate]
    return float(values[allowed[0] - 1]) if allowed else None


@pytest.mark.parametrize("count", COUNTS)
def test_the_threshold_is_the_one_that_counting_gives(count):
    values = scores(count, seed=count)
    for rate in RATES:
        slow = slow_threshold(values, rate)
        if slow is None:
            with pytest.raises(ConfigError):
                order_statistic(values, float(rate))
        else:
            assert order_statistic(values, float(rate)) == slow


def test_whole_numbers_that_binary_fractions_miss():
    """(n + 1)(1 - a) is whole for these n and a; as floats it often is a little more or less."""
    missed = 0
    for percent in range(1, 100):
        for hundreds in (1, 2, 3, 7, 10):
            count, rate = 100 * hundreds - 1, percent / 100
            rank = hundreds * (100 - percent)
            missed += math.ceil((count + 1) * (1 - rate)) != rank
            assert order_statistic(np.arange(1.0, count + 1), rate) == rank
    assert missed > 20  # the trap is real


def test_a_larger_rate_never_has_a_higher_threshold():
    values = scores(137)
    found = [order_statistic(values, rate) for rate in np.linspace(0.01, 0.99, 197).tolist()]
    assert found == sorted(found, reverse=True)
    share = [(values > limit).mean() for limit in found]
    assert all(s <= r for s, r in zip(share, np.linspace(0.01, 0.99, 197), strict=True))


def test_the_pictures_needed_are_the_fewest_that_are_not_refused():
    assert [pictures_needed(r) for r in (0.01, 0.05, 0.02, 0.001, 0.5)] == [99, 19, 49, 999, 1]
    rates = np.exp(np.random.default_rng(3).uniform(math.log(1e-4), 0, 300)).tolist()
    for rate in [*rates, *map(float, RATES), *(1 / n for n in range(2, 2000, 7))]:
        least = pictures_needed(rate)
        order_statistic(np.zeros(least), rate)
        if least > 1:
            with pytest.raises(ConfigError, match=f"at least {least} good pictures, got"):
                order_statistic(np.zeros(least - 1), rate)


@pytest.mark.parametrize("call", [lambda n, r: order_statistic(np.zeros(n), r), false_alarm_bound])
def test_too_few_pictures_are_refused_with_a_rate_that_works(call):
    with pytest.raises(ConfigError) as refused:
        call(50, 0.01)
    assert str(refused.value) == (
        "A false-alarm rate of 1 % needs at least 99 good pictures, got 50. Add pictures, or ask "
        "for 1.9608 % or more."
    )
    for count in range(1, 600):
        with pytest.raises(ConfigError) as refused:
            call(count, 0.001)
        found = re.search(r"ask for (\S+) % or more", str(refused.value))
        assert found is not None
        call(count, float(found[1]) / 100)
        with pytest.raises(ConfigError):
            call(count, float(found[1]) / 100 - 1.1e-6)  # it was rounded up


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, math.nan, math.inf, "1 %", None, True, 1e-12])
def test_what_is_no_rate_is_refused(rate):
    for call in (
        lambda: order_statistic(scores(200), rate),
        lambda: pictures_needed(rate),
        lambda: false_alarm_bound(200, rate),
        lambda: false_alarm_bound(200, 0.05, confidence=rate),
        lambda: calibration(target_fpr=rate),
        lambda: calibration(review_fpr=rate),
    ):
        with pytest.raises(ConfigError, match="should be a share above 0 and below 1, got"):
            call()


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(
    ("count", "rate"), [(1, 0.5), (19, 0.05), (99, 0.01), (99, 0.99), (1000, 0.05), (100_000, 0.01)]
)
def test_the_bound_is_the_quantile_of_scipy(count, rate, confidence):
    above = slow_above(count, rate)
    wanted = beta.ppf(confidence, above, count + 1 - above)
    assert false_alarm_bound(count, rate, confidence=confidence) == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize(("count", "rate"), [(20, 0.05), (99, 0.01), (100, 0.05), (1000, 0.01)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_bound_solves_the_binomial_equation(count, rate, confidence):
    """The true rate is above b where at most n - k of n scores lie in the top b."""
    bound = false_alarm_bound(count, rate, confidence=confidence)
    above = slow_above(count, rate)
    assert binom.cdf(above - 1, count, bound) == pytest.approx(1 - confidence, rel=1e-9)
    assert bound > rate or confidence == 0.5


def slow_above(count: int, rate: float) -> int:
    return math.floor((count + 1) * Fraction(str(rate)))


def test_the_bound_holds_in_a_simulation():
    values = np.sort(np.random.default_rng(0).random((4000, 99)), axis=1)
    true_rates = 1 - np.array([order_statistic(row, 0.05) for row in values])
    share = (true_rates <= false_alarm_bound(99, 0.05)).mean()
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)
    assert true_rates.mean() == pytest.approx(0.05, abs=4 * true_rates.std() / math.sqrt(4000))


def test_p_values_are_counted_with_ties():
    good = np.sort(np.random.default_rng(1).integers(0, 12, 60) / 10)
    for score in [*np.unique(good), -1.0, 0.15, 9.0]:
        assert p_value(good, score) == (1 + sum(s >= score for s in good)) / 61
    assert p_value(good, -math.inf) == 1 and p_value(good, math.inf) == 1 / 61


@pytest.mark.parametrize("count", [19, 57, 99, 120])
def test_a_score_is_above_the_threshold_where_its_p_value_is_at_most_the_rate(count):
    """Ties included: both rules give the same verdict, in the order statistic's own numbers."""
    good = np.sort(np.random.default_rng(count).integers(0, 40, count) / 40)
    for rate in (0.05, 0.1, 0.25, 0.5):
        limit = order_statistic(good, rate)
        for score in np.arange(-1, 42) / 40:
            assert (score > limit) == (p_value(good, score) <= rate + 1e-12)


def test_nan_has_neither_p_value_nor_verdict():
    for call in (lambda s: p_value(scores(9), s), Limits(0.5, 0.4, 0.5).verdict):
        with pytest.raises(ValueError, match="the score is NaN"):
            call(math.nan)


def test_verdicts_are_strictly_above():
    limits = Limits(threshold=0.5, review_threshold=0.4, map_threshold=0.6)
    found = {score: limits.verdict(score) for score in (0.4, 0.41, 0.5, 0.51, math.inf)}
    assert list(found.values()) == ["OK", "REVIEW", "REVIEW", "NG", "NG"]


@pytest.mark.parametrize(
    ("values", "maxima", "told"),
    [
        ([0.1, math.nan], [0.1, 0.2], "scores should be .* 1 that are not finite"),
        ([0.1, 0.2], [math.inf, math.nan], "map_maxima should be .* 2 that are not finite"),
        ([], [], "at least one"),
        ([[0.1]], [0.1], r"got \(1, 1\)"),
        ([0.1, 0.2], [0.1], "got 2 and 1"),
    ],
)
def test_good_scores_are_finite_and_as_many(values, maxima, told):
    with pytest.raises(ValueError, match=told):
        GoodScores(np.array(values), np.array(maxima))


def test_good_scores_are_sorted_each_alone_and_cannot_be_changed():
    given = np.array([0.3, 0.1, 0.2], np.float32)
    good = GoodScores(given, np.array([5, 7, 6]))
    assert good.scores.tolist() == sorted(given.tolist()) and good.map_maxima.tolist() == [5, 6, 7]
    assert good.scores.dtype == good.map_maxima.dtype == np.float64 and len(good) == 3
    assert given.tolist() != sorted(given.tolist())
    with pytest.raises(ValueError, match="read-only"):
        good.scores[0] = 0


def test_parts_are_named_in_the_path():
    paths = ["lot1/p1/top.png", "lot1/p1/side.png", "lot2/p1/top.png", Path("lot2/p22/top.png")]
    assert parts_of(paths, r"p\d+") == ["p1", "p1", "p1", "p22"]
    assert parts_of(paths, r"lot\d/p\d+") == ["lot1/p1", "lot1/p1", "lot2/p1", "lot2/p22"]
    assert parts_of(paths, r"/([^/]+)\.png$") == ["top", "side", "top", "top"]
    assert parts_of([], "x") == []


@pytest.mark.parametrize(
    ("group", "told"),
    [("p(", "group 'p(' is no regular expression: "), ("q", "finds no part in the path 'a/p1.png'"),
     ("(x)?p", "finds no part in"), ("x*", "finds no part in")],
)  # fmt: skip
def test_an_expression_that_names_no_part_is_refused(group, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        parts_of(["a/p1.png"], group)


def test_a_part_counts_once_with_its_highest_score():
    draw = np.random.default_rng(2)
    values, parts = draw.random(300), [f"p{number}" for number in draw.integers(0, 40, 300)]
    slow = [max(v for p, v in zip(parts, values, strict=True) if p == part)
            for part in dict.fromkeys(parts)]  # fmt: skip
    assert highest_by_part(parts, values).tolist() == slow
    assert highest_by_part(["a"], np.array([-2.0])).tolist() == [-2]
    with pytest.raises(ValueError, match="argument 2 is longer"):
        highest_by_part(["a"], np.zeros(2))


def test_limits_and_p_values_of_each_product():
    both = calibration(("bottle", "cable"), target_fpr=0.02, review_fpr=0.1)
    for name, good in both.products.items():
        limits = both.limits(name)
        assert limits.threshold == slow_threshold(good.scores, Fraction("0.02"))
        assert limits.review_threshold == slow_threshold(good.scores, Fraction("0.1"))
        assert limits.map_threshold == slow_threshold(good.map_maxima, Fraction("0.02"))
        score = float(good.scores[60])
        assert both.p_value(score, name) == p_value(good.scores, score) == (1 + 60) / 121
    assert both.has_products and not calibration().has_products
    assert both.limits("bottle").threshold < both.limits("cable").review_threshold


def test_a_product_is_named_by_the_nearest_folder():
    both = calibration(("bottle", "cable"))
    paths = {"data/bottle/1.png": "bottle", "bottle/cable/x/1.png": "cable", "1.png": None,
             "data/bottle.png": None, "other/bottle": None}  # fmt: skip
    assert {path: both.product_of(path) for path in paths} == paths
    assert calibration().product_of("data/bottle/1.png") is None
    composed, split = "caf\u00e9", "cafe\u0301"  # one name on macOS
    for known, named in ((composed, split), (split, composed)):
        assert calibration((known, "cable")).product_of(f"data/{named}/1.png") == known


@pytest.mark.parametrize(
    ("products", "asked", "told"),
    [
        (("cable", "bottle"), "nut", "products bottle, cable, got product 'nut'. Name one"),
        (("cable", "bottle"), None, "got a picture of no known product. Name one of them"),
        (("cable", "bottle"), "", "got a picture of no known product"),
        (("",), "nut", "one product without a name, got product 'nut'. Leave the name out"),
    ],
)
def test_an_unknown_product_is_refused(products, asked, told):
    made = calibration(products)
    for call in (made.limits, made.check_product, lambda name: made.p_value(0.5, name)):
        with pytest.raises(ConfigError, match=re.escape(told)):
            call(asked)


def test_one_product_needs_no_name():
    made = calibration()
    assert made.limits() == made.limits("") == made.limits(None)
    assert made.check_product(None) == made.check_product("") == ""


def test_a_calibration_that_states_nothing_is_refused():
    with pytest.raises(ConfigError, match="review_fpr=0.01 should be at least target_fpr=0.02"):
        calibration(target_fpr=0.02, review_fpr=0.01)
    with pytest.raises(ConfigError, match="at least one product"):
        calibration(())
    with pytest.raises(ConfigError, match="^Product cup: .* 1 % needs at least 99 .* got 98"):
        calibration(("cup",), count=98)
    with pytest.raises(ConfigError, match="^A false-alarm rate of 5 % needs at least 19"):
        calibration(count=18, target_fpr=0.05)
    calibration(count=99), calibration(count=19, target_fpr=0.05)


def test_other_rates_need_no_pictures():
    made = calibration()
    changed = made.with_rates(target_fpr=0.02)
    assert (changed.target_fpr, changed.review_fpr) == (0.02, 0.05)
    assert changed.limits().threshold == order_statistic(made.products[""].scores, 0.02)
    assert made.limits().threshold == order_statistic(made.products[""].scores, 0.01)
    assert made.with_rates(target_fpr=0.2).review_fpr == 0.2
    assert made.with_rates().limits() == made.limits()
    assert made.with_rates(review_fpr=0.3).limits().review_threshold < changed.limits().threshold
    for rates in ({"review_fpr": 0.001}, {"target_fpr": 0.001}, {"target_fpr": "1 %"}):
        with pytest.raises(ConfigError):
            made.with_rates(**rates)


def test_other_settings_are_refused_by_name():
    made = calibration()
    made.check_decided_by(dict(reversed(DECIDED.items())), where="model/")
    found = {"detector": "b" * 64, "precision": "fp32", "mask": "m.png"}
    with pytest.raises(ModelError) as refused:
        made.check_decided_by(found, where="model/")
    assert str(refused.value) == (
        "model/ was calibrated under other settings, so its thresholds mean nothing now: detector "
        "was aaaaaaaaaaaa... and is bbbbbbbbbbbb...; mask was absent and is m.png; tiles was off "
        "and is absent. Use the same settings, or calibrate again."
    )
    assert made.fingerprint == fingerprint_of(dict(reversed(DECIDED.items())))
    assert made.fingerprint != fingerprint_of(found)
    assert len({fingerprint_of(d) for d in ({"a": "b"}, {"a": ""}, {"b": "a"}, {})}) == 4


def test_what_is_saved_is_read(tmp_path):
    made = calibration(("a/b", "süß", "c\udcff d"), target_fpr=0.02, review_fpr=0.1,
                       pictures={"a": {"1.png": "f" * 64, "bad\udcff.png": "e" * 64}})  # fmt: skip
    assert read_calibration(tmp_path) is None
    save_calibration(made, tmp_path)
    found = read_calibration(tmp_path)
    assert found is not None and set(found.products) == set(made.products)
    for name, good in made.products.items():
        assert np.array_equal(found.products[name].scores, good.scores)
        assert np.array_equal(found.products[name].map_maxima, good.map_maxima)
        assert found.limits(name) == made.limits(name)
    for field in ("target_fpr", "review_fpr", "decided_by", "pictures", "fingerprint"):
        assert getattr(found, field) == getattr(made, field)
    content = (tmp_path / CALIBRATION).read_bytes()
    save_calibration(found, tmp_path)
    assert (tmp_path / CALIBRATION).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [CALIBRATION]


def changed_file(folder, *, tensors=None, drop=(), **values):
    """A saved calibration with other values of its header, or other tensors."""
    save_calibration(calibration(("cup",)), folder)
    path = folder / CALIBRATION
    held = {**load_file(path), **(tensors or {})}
    header = {
        "format": 1,
        "products": ["cup"],
        "target_fpr": 0.01,
        "review_fpr": 0.05,
        "decided_by": {},
        "pictures": {},
        "group": "",
    } | values
    header = {name: value for name, value in header.items() if value != "gone"}
    kept = {name: tensor for name, tensor in held.items() if name not in drop}
    save_file(kept, path, metadata={"calibration": json.dumps(header)})


DAMAGED = [
    ({"format": 2}, "format 2, this version reads 1"),
    ({"format": "gone"}, "format None"),
    ({"target_fpr": "gone"}, "target_fpr"),
    ({"target_fpr": "1 %"}, "target_fpr should be a share"),
    ({"review_fpr": 0.001}, "should be at least target_fpr"),
    ({"target_fpr": 0.001}, "needs at least 999 good pictures"),
    ({"decided_by": "gone"}, "decided_by"),
    ({"decided_by": ["a"]}, "items"),
    ({"drop": ["map_maxima/0"]}, "missing or unknown: map_maxima/0"),
    ({"drop": ["scores/0"]}, "missing or unknown: scores/0"),
    ({"products": [], "drop": ["scores/0", "map_maxima/0"]}, "at least one product"),
    ({"products": ["cup", "nut"]}, "unknown: map_maxima/1, scores/1"),
    ({"tensors": {"other": np.zeros(3)}}, "missing or unknown: other"),
    ({"tensors": {"scores/0": np.full(120, np.nan)}}, "not finite"),
    ({"tensors": {"scores/0": np.zeros(119)}}, "got 119 and 120"),
    ({"tensors": {"scores/0": np.zeros(120, np.float32)}}, "should be float64"),
]


@pytest.mark.parametrize(("changes", "told"), DAMAGED)
def test_a_file_that_says_nothing_sound_is_refused(tmp_path, changes, told):
    changed_file(tmp_path)
    assert read_calibration(tmp_path) is not None
    changed_file(tmp_path, **changes)
    with pytest.raises(ModelError, match=f"cannot be used .*{told}.*calibrate again"):
        read_calibration(tmp_path)


def test_damaged_files_are_read_or_refused(tmp_path):
    save_calibration(calibration(("cup",), target_fpr=0.05), tmp_path)
    found = outcomes(tmp_path / CALIBRATION, lambda: read_calibration(tmp_path), 300, seed=4)
    assert found["refused"] > 50


def test_a_header_nested_without_end_is_refused(tmp_path):
    nested = {"calibration": "[" * 100_000}
    save_file({"scores/": np.zeros(3)}, tmp_path / CALIBRATION, metadata=nested)
    with pytest.raises(ModelError, match="cannot be used"):
        read_calibration(tmp_path)


def test_thresholds_need_neither_torch_nor_scipy(tmp_path):
    save_calibration(calibration(), tmp_path)
    code = (
        "import sys, pathlib\nfrom faprompt.calibration import read_calibration\n"
        "found = read_calibration(pathlib.Path(sys.argv[1]))\n"
        "print(found.limits().verdict(0.5), found.p_value(2.0))\n"
        "print([name for name in ('torch', 'scipy', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"OK {1 / 121}", "[]"], done.stderr
