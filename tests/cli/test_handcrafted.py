"""WinCLIP, AnoVL and APRIL-GAN by the same commands as every other method."""

import json

import numpy as np
import pytest
from PIL import Image

from faprompt.models import load_detector
from tests.helpers import folders

ON_TINY = ["--backbone", "test-tiny", "--device", "cpu", "--set", "image_size=56"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    folders.mvtec_class(
        folder / "mug", normal={"good": ["2.png", "3.png"]}, defects={"chip": ["0.png", "1.png"]}
    )
    return folder


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr("faprompt.evaluation.metric_files._plot", lambda *_, **__: None)


@pytest.mark.parametrize(("method", "preset"), [("winclip", "code"), ("anovl", "common")])
def test_training_free_ones_are_measured_at_once(method, preset, faprompt, shelf, tmp_path):
    told = faprompt(
        "evaluate", shelf, "--method", method, "--preset", preset, *ON_TINY,
        "--out", tmp_path / "figures", "--json",
    )  # fmt: skip
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert found["method"] == method
    hybrid = preset == "code"
    assert (f"{method}: Preset `{preset}` was published for ViT-B-16-plus" in told.err) == hybrid
    assert ("note" in found["environment"]) == hybrid
    page = (tmp_path / "figures" / "metrics.md").read_text()
    assert ("You run it on `test-tiny`: results are not comparable" in page) == hybrid
    assert {"image_auroc", "pixel_auroc"} <= set(found["mean"])


def test_winclip_plus_by_class_is_measured_as_any_other(faprompt, shelf, tmp_path):
    command = ["evaluate", shelf, "--method", "winclip", *ON_TINY, "--set", f"references={shelf}"]
    told = faprompt(*command, "--set", "shots=1", "--out", tmp_path / "figures", "--json")
    assert told.code == 0, told.err
    assert {"image_auroc", "pixel_auroc"} <= set(json.loads(told.out)["mean"])
    few = faprompt(*command, "--set", "shots=2", "--out", tmp_path / "more")
    assert few.code == 2 and "shots=2 wants as many normal pictures" in few.err


def test_april_gan_is_trained_then_measured(faprompt, shelf, tmp_path):
    told = faprompt(
        "train", shelf, "--method", "april-gan", *ON_TINY, "--set", "epochs=1",
        "--set", "batch_size=2", "--out", tmp_path / "model",
    )  # fmt: skip
    assert told.code == 0, told.err
    note = (
        "Preset `paper` was published for ViT-L-14-336:gelu. You run it on `test-tiny`: "
        "results are not comparable with published ones"
    )
    assert f"april-gan: {note}" in told.err
    trained = load_detector(tmp_path / "model")
    assert trained.method.name == "april-gan" and trained.description["training"]["note"] == note
    told = faprompt(
        "evaluate", shelf, "--model", tmp_path / "model", "--device", "cpu", "--out",
        tmp_path / "figures", "--json",
    )  # fmt: skip
    assert told.code == 0 and json.loads(told.out)["method"] == "april-gan"
    assert json.loads(told.out)["environment"]["note"] == note


def test_a_size_that_is_fitted_is_told(faprompt, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "one.png")
    told = faprompt(
        "predict", tmp_path / "one.png", "--method", "clip", "--device", "cpu", "--json",
        "--out", tmp_path / "out", "--no-report",
    )  # fmt: skip
    assert told.code == 0 and len(told.lines) == 1 and json.loads(told.out)["status"] == "ok"
    said = "clip: Preset `paper` was published at 518 px. You run it on `tiny` at 256 px: results"
    assert said in told.err


def test_a_long_picture_is_tiled(faprompt, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "long.png")
    scores = []
    for tiles in ("true", "false"):
        told = faprompt(
            "predict", tmp_path / "long.png", "--method", "winclip", *ON_TINY, "--set",
            f"tiles={tiles}", "--out", tmp_path / tiles, "--no-report", "--json",
        )  # fmt: skip
        assert told.code == 0, told.err
        scores.append(json.loads(told.out)["score"])
    assert scores[0] != scores[1]


def test_a_model_has_no_preset_to_choose(faprompt, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "one.png")
    told = faprompt(
        "predict", tmp_path / "one.png", "--preset", "common", "--out", tmp_path / "out"
    )
    assert told.code == 2 and "--preset needs --method" in told.err
