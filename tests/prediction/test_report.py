"""The report: counts, rules in words, choice of pictures, safety; nothing from outside."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from faprompt.calibration import Calibration, GoodScores
from faprompt.detector_setup import DetectorSetup
from faprompt.prediction import ResultRow
from faprompt.prediction import html_report as report_module
from faprompt.prediction import report_digest as digest_module
from faprompt.prediction.report_digest import SCORE_BINS, digest_rows, score_bin
from tests.prediction.fakes import RedScorer, part, parts, predict
from tests.prediction.report_data import (
    Page,
    calibration,
    judged,
    page_of,
    scored,
    write_pictures,
)


def counts_of(page: Page) -> dict[str, int]:
    """The counts on the first screen, by verdict."""
    names = [attrs["data-count"] for attrs in page.all("li") if "data-count" in attrs]
    numbers = re.findall(r"([\d,]+)\x1f(?:NG|REVIEW|OK|no verdict)\x1f", page.text)
    return {name: int(n.replace(",", "")) for name, n in zip(names, numbers, strict=True)}


def words_of(page: Page) -> str:
    return " ".join(page.text.split("\x1f"))


def paths_of(page: Page, key: str = "path") -> set[str]:
    return {row["path"] for row in page.data["rows"] if key in row}


# --- a run --------------------------------------------------------------------------------


def test_a_whole_run(tmp_path):
    paths = parts(tmp_path / "in")
    paths.append(tmp_path / "broken.png")
    paths[-1].write_bytes(b"")
    summary = predict(
        RedScorer(), paths, out_dir=tmp_path / "out", threshold=0.5, model_card="drawn & small",
        title="Lot 7 <b>",
    )  # fmt: skip
    page = Page(summary.report.read_text(encoding="utf-8"))
    assert counts_of(page) == {"NG": 2, "REVIEW": 1, "OK": 4, "none": 0}
    rows = page.data["rows"]
    assert {row["verdict"] for row in rows if row["score"] >= 0.5} == {"NG"}
    assert len(rows) == len({row["small"] for row in rows}) == 7
    assert all(base64.b64decode(row["small"])[:3] == b"\xff\xd8\xff" for row in rows)
    marked = sorted((row for row in rows if "layer" in row), key=lambda row: row["score"])
    assert [row["verdict"] for row in marked] == ["REVIEW", "NG", "NG"]
    assert [row["nRegions"] for row in marked] == [0, 1, 1]
    assert all(base64.b64decode(row["layer"])[:4] == b"\x89PNG" for row in marked)
    assert "Lot 7 <b>" in page.text and page.all("b", title="") == []
    assert "drawn & small" in page.text and "Could not be read (1)" in page.text
    assert "the file is empty (0 bytes)" in page.text
    assert all((tmp_path / "out" / row["overlay"]).is_file() for row in rows)


def test_the_title_is_the_folder_where_none_is_given(tmp_path):
    (tmp_path / "lot 12").mkdir()
    page = page_of(tmp_path / "lot 12", scored(1))
    assert page.text.split("\x1f").count("lot 12") == 2  # window and heading


def test_counts_and_histogram_hold_every_picture(tmp_path):
    page = page_of(tmp_path, scored(1000))
    (product,) = page.data["products"]
    assert counts_of(page)["OK"] == page.data["total"] == 1000
    assert product["bins"] == [[SCORE_BINS * (2 * i + 1) // 2000, 1] for i in range(1000)]


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.0, 0), (0.00009, 0), (0.00011, 1), (0.29, 2900), (1.0, 9999), (1.2, 9999), (-1, 0)],
)
def test_score_bin(score, expected):
    assert score_bin(score) == expected


# --- the rule in words, and the slider ----------------------------------------------------


def test_the_rule_of_a_calibration(tmp_path):
    known = calibration()
    rows = [judged(f"{s}.png", s, known) for s in (0.1, 0.59, 0.61)]
    page = page_of(tmp_path, rows, threshold=None, calibration=known)
    words = words_of(page)
    assert "NG: rarer than 1 % of your 120 good parts." in words
    assert "REVIEW: rarer than 5 %." in words
    bound = 100 * beta.ppf(0.95, 1, 120)  # k = 120 of 120
    assert f"at most {bound:.2g} % of good parts are NG, with 95 % confidence" in words
    assert page.data["byRate"] and page.data["reviewRate"] == 0.05
    assert counts_of(page) == {"NG": 1, "REVIEW": 1, "OK": 1, "none": 0}
    (product,) = page.data["products"]
    assert product["good"] == known.products[""].scores.tolist()
    assert product["p"] == [[1 / 121, 1], [pytest.approx(4 / 121), 1], [1.0, 1]]


def test_the_rule_of_several_products(tmp_path):
    known = calibration(nut=100, bolt=130)
    rows = [judged("a", 0.7, known, "nut"), judged("b", 0.1, known, "bolt")]
    page = page_of(tmp_path, rows, threshold=0.6, calibration=known)  # a threshold of a product
    assert "rarer than 1 % of the good parts of the same product (100 or more)" in words_of(page)
    assert [product["name"] for product in page.data["products"]] == ["bolt", "nut"]
    assert [len(product["good"]) for product in page.data["products"]] == [130, 100]


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        (0.5, "NG: score 0.50 or more; this threshold was not calibrated, so its false-alarm "
              "rate is unknown; run `faprompt calibrate`."),
        (0.9957, "NG: score 0.9957 or more;"),
        (None, "No verdicts: this model has no threshold."),
    ],
)  # fmt: skip
def test_the_rule_without_calibration(threshold, said, tmp_path):
    page = page_of(tmp_path, scored(2), threshold=threshold)
    assert said in words_of(page) and not page.data["byRate"]
    (start,) = [step for step in page.data["steps"] if step["start"]]
    assert start["value"] == threshold


def test_a_threshold_set_by_hand_overrides_the_calibration(tmp_path):
    page = page_of(tmp_path, scored(2), threshold=0.5, calibration=calibration())
    assert "NG: score 0.50 or more; this threshold was set by hand" in words_of(page)
    assert not page.data["byRate"] and len(page.data["products"][0]["good"]) == 120


def test_a_run_passes_its_calibration_to_the_report(tmp_path):
    scorer = RedScorer()
    scorer.setup = DetectorSetup(calibration=calibration())
    paths = parts(tmp_path / "in", 2)
    for threshold, said in ((0.5, "set by hand"), (0.6, "rarer than 1 %")):
        summary = predict(scorer, paths, out_dir=tmp_path / "out", threshold=threshold)
        page = Page(summary.report.read_text(encoding="utf-8"))
        assert said in words_of(page) and len(page.data["products"][0]["good"]) == 120


def test_the_slider_offers_rates_that_the_pictures_can_state(tmp_path):
    page = page_of(tmp_path, [], threshold=None, calibration=calibration())
    steps = page.data["steps"]
    values = np.array([step["value"] for step in steps])
    ranks = values[values != 0.01] * 121
    np.testing.assert_allclose(ranks, np.rint(ranks), rtol=1e-12)
    assert (np.diff(values) > 0).all() and values[0] == 1 / 121 and values[-1] <= 0.5
    assert 25 < len(values) <= 61 and [s["value"] for s in steps if s["start"]] == [0.01]
    for step in steps:
        above = int(121 * step["value"] + 1e-9)
        assert step["bound"] == pytest.approx(beta.ppf(0.95, above, 121 - above))


@given(
    st.lists(st.integers(0, 12), min_size=4, max_size=40),
    st.integers(0, 13),
    st.floats(0.2, 0.6),
    st.floats(0.0, 0.3),
)
def test_a_p_value_at_most_the_rate_is_the_verdict_of_that_rate(good, score, rate, more):
    """The page judges by p-values; the detector by thresholds. Ties included."""
    scores = np.array(good, float)
    known = Calibration(
        products={"": GoodScores(scores, scores)}, decided_by={}, target_fpr=rate,
        review_fpr=rate + more,
    )  # fmt: skip
    p = known.p_value(score)
    by_p = "NG" if p <= rate + 1e-9 else "REVIEW" if p <= rate + more + 1e-9 else "OK"
    assert known.limits().verdict(score) == by_p


# --- which pictures -----------------------------------------------------------------------


def test_the_highest_and_both_sides_of_the_threshold_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(digest_module, "LIST_SIZE", 6)
    page = page_of(tmp_path, scored(100, threshold=0.503))
    assert paths_of(page) == {"p99.png", "p98.png", "p97.png", "p49.png", "p50.png", "p51.png"}
    assert "94 more pictures, all far from the threshold" in page.text
    assert counts_of(page)["OK"] == 100


def test_without_a_threshold_the_highest_are_kept(monkeypatch):
    monkeypatch.setattr(digest_module, "LIST_SIZE", 4)
    kept = [row.path for row in digest_rows(scored(50)).listed]
    assert kept == ["p49.png", "p48.png", "p47.png", "p46.png"]


def test_pictures_are_embedded_up_to_the_budget(tmp_path, monkeypatch):
    known = calibration()
    rows = [judged(f"{i}.png", i / 40, known) for i in range(40)]
    write_pictures(tmp_path, rows)
    options = {"threshold": None, "calibration": known}
    one = page_of(tmp_path, rows, **options).data["rows"][0]
    monkeypatch.setattr(report_module, "SMALL_BYTES", 8 * (len(one["small"]) + 400))
    page = page_of(tmp_path, rows, **options)
    assert {"39.png", "24.png", "23.png"} <= paths_of(page, "small")  # the threshold is 0.6
    assert "0.png" not in paths_of(page, "small") and len(paths_of(page)) == 40
    monkeypatch.setattr(report_module, "SMALL_BYTES", 0)
    assert paths_of(page_of(tmp_path, rows, **options), "small") == set()


def test_larger_pictures_are_embedded_where_the_verdict_is_not_ok(tmp_path, monkeypatch):
    known = calibration()
    rows = [judged(f"{i}.png", i / 4, known) for i in range(5)]
    write_pictures(tmp_path, rows, scale=10)
    options = {"threshold": None, "calibration": known}
    page = page_of(tmp_path, rows, **options)
    assert paths_of(page, "large") == {"3.png", "4.png"}
    assert paths_of(page, "small") == paths_of(page)
    monkeypatch.setattr(report_module, "LARGE_BYTES", 0)
    assert paths_of(page_of(tmp_path, rows, **options), "large") == set()


def test_missing_thumbnails_leave_the_picture_in_the_list(tmp_path):
    page = page_of(tmp_path, scored(1))
    assert paths_of(page) == {"p0.png"} and paths_of(page, "small") == set()


# --- safety -------------------------------------------------------------------------------

HOSTILE = '"></script><script>alert(1)</script><img src=x onerror=alert(2)>'


def test_user_text_is_escaped(tmp_path):
    rows = [
        ResultRow(HOSTILE, "m", score=0.5, product=HOSTILE, width=1, height=1, notes=(HOSTILE,)),
        ResultRow(HOSTILE, "m", status="error", error=HOSTILE),
    ]
    options = {"model": HOSTILE, "title": HOSTILE, "model_card": HOSTILE}
    page = page_of(tmp_path, rows, **options)
    assert [attrs.get("id") for attrs in page.all("script")] == ["data", None]
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert page.data["rows"][0]["path"] == page.data["products"][0]["name"] == HOSTILE
    assert "alert(1)" not in (tmp_path / "report.html").read_text().split('id="data"')[1].split(
        "</script>"
    )[1].replace(HOSTILE, "")


def test_a_file_named_like_a_script(tmp_path):
    path = part(tmp_path / "<script>.png", 90)
    summary = predict(RedScorer(), [path], out_dir=tmp_path / "out")
    page = Page(summary.report.read_text(encoding="utf-8"))
    assert len(page.all("script")) == 2
    assert paths_of(page, "small") == {str(path)}


def test_nothing_comes_from_outside(tmp_path):
    predict(RedScorer(), parts(tmp_path / "in", 2), out_dir=tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    page = Page(text)
    assert page.all("link") == [] and page.all("iframe") == []
    assert all("src" not in attrs for _, attrs in page.tags)
    found = set(re.findall(r"https?://[^\"]*|@import|url\(", text))
    assert found <= {"http://www.w3.org/2000/svg"}  # a name, never fetched


def test_no_picture_at_all(tmp_path):
    page = page_of(tmp_path, [])
    assert page.data["rows"] == [] and "No picture could be scored" in page.text
    assert set(counts_of(page).values()) == {0}


def test_only_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(digest_module, "ERROR_LIST_SIZE", 2)
    rows = [ResultRow(f"{i}", "m", status="error", error=f"e{i}") for i in range(3)]
    page = page_of(tmp_path, rows)
    assert "Could not be read (3)" in page.text and "And 1 more, see results.jsonl." in page.text
    assert "e1" in page.text and "e2" not in page.text


def test_names_that_are_no_unicode(tmp_path):
    row = ResultRow(path="caf\udce9.png", model="m", score=0.5, width=1, height=1)
    assert paths_of(page_of(tmp_path, [row])) == {"caf\udce9.png"}
