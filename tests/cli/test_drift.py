"""`faprompt drift` on runs of a calibrated model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import betabinom

from faprompt.calibration import Calibration, GoodScores, save_calibration
from faprompt.prediction.result_rows import ResultRow

GOOD = np.linspace(0.1, 0.3, 100)
DECIDED = {"weights": "a" * 64, "precision": "fp32"}


def write_model(folder, *products):
    made = {name: GoodScores(GOOD, GOOD) for name in products or ("",)}
    found = Calibration(products=made, decided_by=DECIDED)
    folder.mkdir(exist_ok=True)
    save_calibration(found, folder)
    return found


def write_run(folder, scores, *, detector, paths=None, product=None, **settings):
    folder.mkdir(exist_ok=True)
    paths = paths or [f"p/{number}.png" for number in range(len(scores))]
    rows = [ResultRow(path, "m", score=float(score), product=product)
            for path, score in zip(paths, scores, strict=True)]  # fmt: skip
    rows += [ResultRow("p/broken.png", "m", status="error", error="truncated")]
    (folder / "results.jsonl").write_bytes(b"".join(row.to_line() for row in rows))
    (folder / "run.json").write_text(json.dumps({"model": "m", "detector": detector, **settings}))


@pytest.fixture
def model(tmp_path):
    return tmp_path / "model"


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def test_a_run_like_the_calibration(faprompt, model, run):
    write_run(run, GOOD, detector=write_model(model).fingerprint)
    told = faprompt("drift", run, "--model", model)
    assert told.code == 0 and told.lines[-1] == "drift: none"
    assert told.lines[0].split() == ["up", "to", "score", "good", "today"]
    assert told.lines[1].split() == ["<=", f"{GOOD[9]:.4f}", "10.0%", "10.0%", "####|"]
    assert "100 scores today, 100 good ones in the calibration" in told.lines
    assert "NG 0: 0 % (0 % to 3.62 %); good parts: 1 % stated, p = 1" in told.lines
    chance = betabinom.sf(3, 100, 5, 96)
    found = f"NG or REVIEW 4: 4 % (1.1 % to 9.93 %); good parts: 5 % stated, p = {chance:.2g}"
    assert found in told.lines
    assert "cannot tell drift from defects" in told.err


def test_a_drifted_run_and_its_figure(faprompt, model, run, tmp_path):
    write_run(run, GOOD + 0.1, detector=write_model(model).fingerprint)
    told = faprompt("drift", run, "--model", model, "--out", tmp_path / "d.png")
    assert told.code == 0 and told.lines[-1] == "drift: strong"
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
    assert f"wrote {tmp_path / 'd.png'}" in told.err


def test_json_has_the_values(faprompt, model, run):
    write_run(run, GOOD[:40], detector=write_model(model).fingerprint)
    told = faprompt("drift", run, "--model", model, "--json")
    values = json.loads(told.out)
    assert told.code == 0 and values["level"] == "strong"
    assert values["products"][0]["n_today"] == 40 and values["products"][0]["ks"] == 0.6


def test_products_come_from_the_row_or_the_folder(faprompt, model, run):
    fingerprint = write_model(model, "nut", "cup").fingerprint
    write_run(run, GOOD, detector=fingerprint, paths=[f"x/nut/{n}.png" for n in range(100)])
    told = faprompt("drift", run, "--model", model)
    assert told.code == 0 and "product nut" in told.lines
    assert f"without a picture in {run}: cup" in told.err
    write_run(run, GOOD, detector=fingerprint, product="cup")
    assert "product cup" in faprompt("drift", run, "--model", model).lines
    write_run(run, GOOD, detector=fingerprint)
    told = faprompt("drift", run, "--model", model)
    assert told.code == 2 and "calibrated for the products cup, nut" in told.err


def test_pictures_of_one_part_count_once(faprompt, model, run):
    paths = [f"part{number}/{view}.png" for number in range(100) for view in ("top", "side")]
    scores = np.stack([GOOD, GOOD * 0.5], axis=1).ravel()
    write_run(run, scores, detector=write_model(model).fingerprint, paths=paths)
    asked = ["drift", run, "--model", model]
    assert faprompt(*asked).lines[-1] == "drift: strong"
    told = faprompt(*asked, "--group", r"part\d+")
    assert told.lines[-1] == "drift: none" and any("100 scores" in line for line in told.lines)
    told = faprompt(*asked, "--group", r"lot\d+")
    assert told.code == 2 and r"group 'lot\\d+' finds no part in the path" in told.err


def test_a_run_of_another_model_is_refused(faprompt, model, run):
    write_model(model)
    write_run(run, GOOD, detector="b" * 64)
    told = faprompt("drift", run, "--model", model)
    assert told.code == 2 and "was scored by m with fingerprint bbbbbbbbbbbb, but" in told.err
    write_run(run, GOOD, detector="b" * 64, decided_by=DECIDED | {"precision": "bf16"})
    told = faprompt("drift", run, "--model", model)
    assert told.code == 1 and "precision was fp32 and is bf16" in told.err
    assert "weights" not in told.err


def test_what_cannot_be_compared_is_refused(faprompt, model, run, tmp_path):
    model.mkdir()
    told = faprompt("drift", run, "--model", model)
    assert told.code == 1 and "has no calibration to compare with" in told.err
    fingerprint = write_model(model).fingerprint
    told = faprompt("drift", run, "--model", model)
    assert told.code == 2 and "is no output folder of `faprompt predict`" in told.err
    for text in ("[]", "{}", "{", '"a"'):
        run.mkdir(exist_ok=True)
        (run / "run.json").write_text(text)
        assert faprompt("drift", run, "--model", model).code == 2
    write_run(run, [], detector=fingerprint)
    told = faprompt("drift", run, "--model", model)
    assert told.code == 2 and "has no scored picture" in told.err
    for name in ("d.gif", "none/d.png"):
        told = faprompt("drift", run, "--model", model, "--out", tmp_path / name)
        assert told.code == 2 and str(tmp_path / name).removesuffix("/d.png") in told.err
    assert faprompt("drift", run, "--model", tmp_path / "no").code == 1
    assert faprompt("drift", run).code == 2
