"""The simulated false-alarm rates, and the page that shows them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from faprompt.calibration import ranks_above
from faprompt.errors import ConfigError
from scripts.simulate_calibration import (
    COUNTS,
    DRAWS,
    LAWS,
    PAGE,
    RATES,
    page_text,
    read_csv,
    simulated_row,
    true_rates,
)

SMOOTH = [law for law in LAWS if law.name != "ties"]


def test_the_exact_mean_is_never_above_the_stated_rate():
    """The mean of Beta(n + 1 - k, k), for every number of pictures up to 2,000."""
    for rate in (*RATES, 0.02, 0.1, 0.005):
        for count in range(1, 2001):
            try:
                above = ranks_above(count, rate)
            except ConfigError:
                assert count + 1 < 1 / rate
                continue
            mean = stats.beta.mean(above, count + 1 - above) if count % 100 == 0 else None
            assert mean is None or mean == pytest.approx(above / (count + 1))
            assert rate * (1 + 1e-9) >= above / (count + 1) > rate - 1 / (count + 1)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize(("count", "rate"), [(20, 0.05), (99, 0.01), (299, 0.05)])
def test_a_simulation_agrees_with_the_exact_law(law, count, rate):
    found, above = true_rates(law, count, rate, draws=500), ranks_above(count, rate)
    error = stats.beta.std(above, count + 1 - above) / np.sqrt(500)
    assert found["ours"].mean() < above / (count + 1) + 5 * error
    assert found["plain"].mean() > found["ours"].mean()
    if law in SMOOTH:
        assert found["ours"].mean() == pytest.approx(above / (count + 1), abs=5 * error)
        test = stats.ks_1samp(found["ours"], stats.beta(above, count + 1 - above).cdf)
        assert test.pvalue > 1e-4


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_the_chance_above_a_threshold_is_what_counting_gives(law):
    scores = law.draw(np.random.default_rng(7), (200, 500)).ravel()
    for place in (0.5, 0.9, 0.99):
        limit = np.sort(scores)[int(place * len(scores))]
        for threshold in (limit, limit + 0.01):
            share = (scores > threshold).mean()
            wanted = float(law.above(np.array(threshold)))
            assert share == pytest.approx(wanted, abs=5 * np.sqrt(wanted / len(scores)))


def test_a_row_of_the_file_is_drawn_again():
    (row,) = [r for r in read_csv() if (r["scores"], r["pictures"], r["stated"]) == (
        "Beta(2, 8)", "20", "0.05")]  # fmt: skip
    again = simulated_row(LAWS[0], 20, 0.05)
    for name in ("ours", "plain", "bound", "ours_exact", "ours_within_bound"):
        assert float(row[name]) == pytest.approx(float(str(again[name])), rel=1e-3), name


def test_the_file_holds_what_the_page_claims():
    rows = read_csv()
    assert len(rows) == len(COUNTS) * len(RATES) * len(LAWS)
    for row in rows:
        count, stated = int(row["pictures"]), float(row["stated"])
        assert int(row["draws"]) == DRAWS
        assert (row["ours"] == "") == (count + 1 < round(1 / stated))
        if row["ours"]:
            error = np.sqrt(stated / count / DRAWS)
            assert float(row["ours"]) <= float(row["ours_exact"]) + 5 * error
            assert float(row["ours_exact"]) <= stated < float(row["bound"])
            assert float(row["ours_within_bound"]) > 0.94
        if row["scores"] != "ties":
            assert float(row["plain"]) > stated


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page_text()
