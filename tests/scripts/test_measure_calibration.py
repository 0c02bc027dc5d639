"""The study on real pictures: its splits and choices, and that its scores are the product's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from faprompt.inspection.calibration_run import candidate_count
from faprompt.records import Sample
from scripts.measure_calibration import (
    ALL,
    CSV,
    ORDERS,
    PAGE,
    check_split,
    choose,
    joined_scores,
    options_for,
    outcome,
    page_text,
    read_csv,
    split,
    store,
)
from tests.helpers import small

GOOD, BAD = 30, 4


@pytest.fixture(scope="module")
def detector():
    return small.detector("clip", use_class_names=False)


@pytest.fixture(scope="module")
def stored(detector, tmp_path_factory):
    folder, samples = tmp_path_factory.mktemp("set"), []
    for number in range(GOOD + BAD):
        values = np.random.default_rng(number).integers(0, 90 + 5 * number, (56, 56, 3))
        path = folder / f"{number:02}.png"
        Image.fromarray(values.astype(np.uint8)).save(path)
        label = int(number >= GOOD)
        samples.append(Sample(path, label, "mug", defect_type="dent" if label else ""))
    with torch.inference_mode():
        return store(detector, "drawn", samples)


def test_splits_share_their_order_and_lose_no_good_picture(stored):
    few, many = split(stored, 10, 3), split(stored, 25, 3)
    assert few.pool == many.pool[:10]
    assert sorted(few.pool + few.others) == list(range(GOOD))
    assert split(stored, 10, 4).pool != few.pool


@pytest.mark.parametrize("order", ORDERS)
def test_references_never_calibrate(stored, order):
    pool = split(stored, 25, 0).pool
    choice = choose(stored, pool, 4, order)
    aside = candidate_count(25, options_for(25, 4)) if order == ORDERS[0] else 4
    assert len(choice.references) == 4 and len(choice.calibrating) == 25 - aside
    assert set(choice.references) <= set(pool) - set(choice.calibrating)
    if order == "file order":
        assert list(choice.references) == sorted(pool)[:4]


def test_scores_and_thresholds_are_those_of_calibrate_and_predict(detector, stored):
    assert check_split(detector, stored, count=25, references=0) < 1e-6
    # a stored token may round to another number in half precision, 1 / 2,048 of it away
    assert check_split(detector, stored, count=25, references=3) < 1e-4


def test_rates_are_shares_of_pictures_above_the_threshold(stored):
    drawn = split(stored, 22, 1)
    scores = np.zeros(GOOD + BAD)
    scores[list(drawn.pool)] = np.arange(22)
    scores[list(drawn.others)] = [30, 21, 20, 0, 0, 0, 0, 22]
    scores[GOOD:] = [21, 22, 23, 40]
    found = outcome(stored, drawn, drawn.pool, scores)
    assert found.false_alarms == {0.05: 2 / 8}  # 22 pictures cannot state 1 %
    assert found.detected == {(0.05, ALL): 3 / 4, (0.05, "dent"): 3 / 4}
    assert np.array_equal(joined_scores(stored, ()), stored.scores.double().numpy())


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page_text()


def test_the_rates_that_the_page_shows_hold():
    """Means over splits that share pictures: their error is about that of one split."""
    rows = [row for row in read_csv(CSV) if row["defects"] == ALL]
    assert {row["splits"] for row in rows} == {"50"}
    for row in rows:
        stated, measured = float(row["stated"]), int(row["measured_good"])
        if row["order"] in ("", "as calibrate", "random"):
            error = np.sqrt(stated * (1 / measured + 1 / int(row["calibrating"])))
            assert float(row["false_alarms"]) < stated + error, row
