"""`faprompt calibrate --rehearse` on a few drawn pictures."""

from __future__ import annotations

import json
from functools import partial

import pytest

from faprompt.inspection.rehearsal import WARNING, RehearsalOptions
from tests.helpers import small
from tests.inspection.test_rehearsal_run import good_files

RATES = ("--target-fpr", "0.1", "--review-fpr", "0.2")
DRAWN = ("--rehearse", "--kind", "hole", "--sizes", "8,60")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    few = partial(RehearsalOptions, strengths=(1.0,), per_cell=2)
    monkeypatch.setattr("faprompt.inspection.RehearsalOptions", few)


@pytest.fixture
def plain(tmp_path):
    """A model folder that is not calibrated."""
    small.detector().save_pretrained(tmp_path / "plain")
    return "--model", tmp_path / "plain", "--backbone", "test-tiny"


def test_pictures_are_held_out_and_rehearsed(faprompt, plain, tmp_path):
    good, out = tmp_path / "good", tmp_path / "model"
    good_files(good, 13)
    told = faprompt("calibrate", good, *plain, "--out", out, *RATES, *DRAWN)
    assert told.code == 0 and "thresholds from 9 good pictures" in told.lines
    assert "rehearsal on 2 good pictures that did not calibrate" in told.lines
    assert WARNING in told.lines
    assert {p.name for p in out.iterdir()} >= {f"rehearsal.{e}" for e in ("csv", "json", "png")}
    calibrated = ("--model", out, "--backbone", "test-tiny")
    told = faprompt("calibrate", *calibrated, *DRAWN, good)
    assert told.code == 2 and "(9 in all) are among the pictures of the calibration" in told.err
    good_files(tmp_path / "more", 3, first=30)
    asked = ("calibrate", *calibrated, *DRAWN, tmp_path / "more")
    told = faprompt(*asked, "--out", tmp_path / "apart", "--json")
    (found,) = json.loads(told.out)["rehearsals"]
    assert told.code == 0 and found["cells"][1]["outcome"] is None
    assert found == json.loads((tmp_path / "apart/rehearsal.json").read_text())["rehearsals"][0]
    told = faprompt(*asked, *RATES)
    assert told.code == 2 and "--rehearse does not take --target-fpr, --review-fpr" in told.err


def test_what_cannot_be_drawn_is_refused_before_any_work(faprompt, plain, tmp_path):
    good_files(tmp_path / "good", 13)
    asked = ("calibrate", tmp_path / "good", *plain, "--out", tmp_path / "model", *RATES)
    for options, reason in (
        (("--kind", "hole"), "--sizes and --kind need --rehearse"),
        (("--rehearse", "--kind", "rust"), "cannot be drawn with kind 'rust'"),
        (("--rehearse", "--sizes", "8,x"), "--sizes should be numbers separated by commas"),
        (("--rehearse", "--sizes", "8,8"), "sizes_px names a value twice"),
    ):
        told = faprompt(*asked, *options)
        assert told.code == 2 and reason in told.err
    assert not (tmp_path / "model").exists()


def test_too_few_or_no_pictures_are_refused(faprompt, plain, tmp_path):
    good_files(tmp_path / "good", 12)
    asked = ("calibrate", *plain, "--out", tmp_path / "model", *RATES, "--rehearse")
    told = faprompt(*asked, tmp_path / "good")
    assert told.code == 2 and "needs 9 others: 13 in all, got 12 that differ" in told.err
    assert not (tmp_path / "model").exists()
    told = faprompt("calibrate", "--rehearse")
    assert told.code == 2 and "no picture" in told.err
