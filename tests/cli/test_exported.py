"""Commands that take an exported folder as `--model`, and those that say why not."""

from __future__ import annotations

import json

import pytest

from faprompt.models import load_detector
from tests.helpers import exported, small

pytest.importorskip("onnx", reason="the graph is written by onnx")
pytest.importorskip("onnxruntime", reason="the graph is run by onnxruntime")

RATES = ("--target-fpr", 0.1, "--review-fpr", 0.2)


@pytest.fixture
def model(tmp_path):
    return exported.write_folder(tmp_path / "exported")


@pytest.fixture
def good(tmp_path):
    for number in range(12):
        small.picture_file(tmp_path / "good" / f"{number}.png", seed=number)
    return tmp_path / "good"


def test_it_is_calibrated_predicts_and_is_watched_for_drift(faprompt, model, good, tmp_path):
    calibrated, out = tmp_path / "calibrated", tmp_path / "out"
    made = faprompt("calibrate", good, "--model", model, "--out", calibrated, *RATES)
    assert made.code == 0, made.err
    limit = load_detector(calibrated).setup.calibration.limits().threshold
    told = faprompt("predict", good, "--model", calibrated, "--out", out, "--json")
    assert told.code == 0, told.err
    rows = [json.loads(line) for line in told.lines]
    assert {row["threshold"] for row in rows} == {limit}
    assert sum(row["verdict"] == "NG" for row in rows) <= 1
    assert (out / "report.html").is_file()
    drift = faprompt("drift", out, "--model", calibrated)
    assert drift.code == 0 and drift.lines[-1] == "drift: none"


def test_it_is_evaluated(faprompt, model, tmp_path):
    for kind, seeds in (("good", (0, 1, 2)), ("bad", (3, 4, 5))):
        for seed in seeds:
            small.picture_file(tmp_path / "set" / kind / f"{seed}.png", seed=seed)
    told = faprompt("evaluate", tmp_path / "set", "--model", model, "--out", tmp_path / "out")
    assert told.code == 0, told.err
    (found,) = (tmp_path / "out").rglob("metrics.json")
    assert json.loads(found.read_text())["backbone"] == "none"


def test_what_needs_torch_says_so(faprompt, model, good, tmp_path):
    told = faprompt("explain", good / "0.png", "--model", model, "--out", tmp_path / "out")
    assert told.code == 2 and "exported model" in told.err and "model folder" in told.err
    told = faprompt("predict", good, "--model", model, "--precision", "bf16", "--out", tmp_path)
    assert told.code == 2 and "got precision='bf16'" in told.err


def test_it_is_described(faprompt, model):
    assert faprompt("models", "info", model).out.startswith("# hand-made")
    assert json.loads(faprompt("models", "info", model, "--json").out)["export"]["format"] == "onnx"
