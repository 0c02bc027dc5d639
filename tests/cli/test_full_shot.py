"""PatchCore by the same commands as every other method."""

import json

import pytest

from tests.helpers import folders

pytest.importorskip("anomalib")
ON_TINY = [
    "--method", "patchcore", "--preset", "common", "--backbone", "test-tiny", "--device", "cpu",
    "--set", "image_size=56",
]  # fmt: skip


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr("faprompt.evaluation.metric_files._plot", lambda *_, **__: None)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("mug", "nut"):
        folders.mvtec_class(
            folder / name,
            normal={"good": ["8.png", "9.png"]},
            defects={"chip": ["0.png", "1.png"]},
        )
    return folder


@pytest.fixture
def model(faprompt, shelf, tmp_path):
    told = faprompt("train", shelf, *ON_TINY, "--out", tmp_path / "model")
    assert told.code == 0 and told.lines == [f"wrote {tmp_path / 'model'}"]
    assert "nut: 1 of 16 patches kept." in told.err and "loss curve" not in told.err
    return tmp_path / "model"


def test_train_then_evaluate_and_predict(faprompt, shelf, model, tmp_path):
    told = faprompt(
        "evaluate", shelf, "--model", model, "--out", tmp_path / "figures", "--device", "cpu",
        "--json", "--replicates", "0", "--gallery", "0",
    )  # fmt: skip
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert found["method"] == "patchcore" and set(found["classes"]) == {"mug", "nut"}
    assert {"image_auroc", "pixel_auroc", "aupro"} <= set(found["mean"])

    pictures = shelf / "mug" / "test" / "good"
    where = ["--model", model, "--device", "cpu", "--out", tmp_path / "results"]
    refused = faprompt("predict", pictures, *where)
    assert refused.code != 0 and "say it by --class-name. Known: mug, nut." in refused.err
    mug, nut = (
        faprompt("predict", pictures, *where, "--class-name", name) for name in ("mug", "nut")
    )
    assert mug.code == nut.code == 0 and len(mug.lines) == 2
    assert mug.lines != nut.lines
    unknown = faprompt("predict", pictures, *where, "--class-name", "bolt")
    assert unknown.code != 0 and "learned nothing of bolt; known: mug, nut" in unknown.err


def test_a_model_of_one_class_needs_no_name(faprompt, shelf, tmp_path):
    model = tmp_path / "model"
    assert faprompt("train", shelf / "mug", *ON_TINY, "--out", model).code == 0
    told = faprompt(
        "predict", shelf / "mug" / "test" / "good", "--model", model, "--device", "cpu",
        "--out", tmp_path / "results",
    )  # fmt: skip
    assert told.code == 0 and len(told.lines) == 2


def test_no_normal_pictures_to_learn_from(faprompt, tmp_path):
    folders.mvtec_class(
        tmp_path / "set" / "cup", normal={"good": ["8.png"]}, defects={"chip": ["0.png"]}, train=()
    )
    told = faprompt("train", tmp_path / "set", *ON_TINY, "--out", tmp_path / "model")
    assert told.code != 0 and "put them into <class>/train/good" in told.err
    assert not (tmp_path / "model").exists()


def test_good_pictures_alone_are_enough_to_learn_and_nothing_to_measure(faprompt, tmp_path):
    for number in range(2):
        folders.picture(tmp_path / "parts" / "mug" / "train" / "good" / f"{number}.png")
    folders.picture(tmp_path / "parts" / "nut" / "train" / "good" / "0.png")
    told = faprompt("train", tmp_path / "parts", *ON_TINY, "--out", tmp_path / "model")
    assert told.code == 0, told.err
    assert "nut: 1 normal picture only" in told.err and "mug: 1 normal" not in told.err
    told = faprompt(
        "evaluate", tmp_path / "parts", "--model", tmp_path / "model", "--out", tmp_path / "e",
        "--device", "cpu",
    )  # fmt: skip
    assert told.code == 1 and "has train/ and no test/" in told.err
