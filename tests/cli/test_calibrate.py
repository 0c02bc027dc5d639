"""`faprompt calibrate` as a user calls it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from faprompt.calibration import read_calibration
from faprompt.detector_setup import EARLIER
from faprompt.models import load_detector
from faprompt.references import ReferenceBank
from tests.helpers import small
from tests.inspection.good_pictures import picture_folder

RATES = ("--target-fpr", 0.05, "--review-fpr", 0.1)  # 19 pictures


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`plain`, a model; `good`, 24 pictures; `model`, calibrated on them with 3 references."""
    folder = tmp_path_factory.mktemp("place")
    small.detector("clip").save_pretrained(folder / "plain")
    picture_folder(folder / "good", 24)
    picture_folder(folder / "alarms", 2, first=200)
    return folder


@pytest.fixture
def model(place, tmp_path, faprompt):
    """A calibrated folder."""
    done = faprompt(
        "calibrate", place / "good", "--model", place / "plain", "--out", tmp_path / "model",
        *RATES,
    )  # fmt: skip
    assert done.code == 0
    return tmp_path / "model"


def test_it_prints_thresholds_and_writes_a_folder(faprompt, place, tmp_path):
    out = tmp_path / "model"
    done = faprompt(
        "calibrate", place / "good", "--model", place / "plain", "--out", out, *RATES,
        "--references", 3, "--reference-weight", 0.25, "--batch-size", 5,
    )  # fmt: skip
    loaded = load_detector(out).setup
    limits = loaded.calibration.limits()
    assert (done.code, done.err) == (0, "")
    assert done.lines == [
        "thresholds from 19 good pictures",
        f"  NG     score > {limits.threshold:.4f}   5 % of good parts, at most 14.6 % with 95 % "
        "confidence",
        f"  REVIEW score > {limits.review_threshold:.4f}   10 % of good parts, at most 22.6 % with "
        "95 % confidence",
        "  3 references, which do not calibrate",
        f"wrote {out}",
    ]
    assert loaded.references.weight == 0.25
    assert len(loaded.references.bank("").names) == 3


def test_a_reference_that_looks_defective_is_named(faprompt, place, tmp_path, monkeypatch):
    monkeypatch.setattr(ReferenceBank, "suspects", lambda bank: bank.names[:1])
    done = faprompt(
        "calibrate", place / "good", "--model", place / "plain", "--out", tmp_path / "m", *RATES,
        "--references", 2,
    )  # fmt: skip
    name = load_detector(tmp_path / "m").setup.references.bank("").names[0]
    assert f"  looks defective beside the other references: {name}" in done.lines


def test_json_has_all_of_it(faprompt, place, tmp_path):
    done = faprompt(
        "calibrate", place / "good", "--model", place / "plain", "--out", tmp_path / "m", *RATES,
        "--json",
    )  # fmt: skip
    values = json.loads(done.out)
    assert (values["target_fpr"], values["review_fpr"], values["unreadable"]) == (0.05, 0.1, {})
    found = values["products"][""]
    assert found["pictures"] == found["parts"] == 24 and found["references"] == []
    limits = read_calibration(tmp_path / "m").limits()
    assert found["limits"]["threshold"] == limits.threshold
    assert found["limits"]["map_threshold"] == limits.map_threshold


def test_a_method_without_training_can_be_calibrated(faprompt, place, tmp_path):
    done = faprompt(
        "calibrate", place / "good", "--method", "clip", "--backbone", "test-tiny",
        "--set", "image_size=56", "--class-name", "pill", "--out", tmp_path / "m", *RATES,
    )  # fmt: skip
    assert done.code == 0
    assert load_detector(tmp_path / "m").class_name == "pill"


def test_a_rate_alone_raises_the_review_rate(faprompt, place, tmp_path):
    done = faprompt(
        "calibrate", place / "good", "--model", place / "plain", "--out", tmp_path / "m",
        "--target-fpr", 0.2,
    )  # fmt: skip
    assert done.code == 0
    assert read_calibration(tmp_path / "m").review_fpr == 0.2


def test_products_groups_masks_and_tiles(faprompt, place, tmp_path):
    for product in ("cap", "nut"):
        picture_folder(tmp_path / "in" / product, 20, first=50 * (product == "nut"))
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(tmp_path / "mask.png")
    done = faprompt(
        "calibrate", tmp_path / "in", "--model", place / "plain", "--out", tmp_path / "m",
        "--by-folder", "--group", r"/(\d\d?)\.png", "--mask", tmp_path / "mask.png", "--tiles", 2,
        *RATES,
    )  # fmt: skip
    assert done.code == 0
    assert [line for line in done.lines if "thresholds" in line] == [
        "cap: thresholds from 20 good pictures", "nut: thresholds from 20 good pictures",
    ]  # fmt: skip
    loaded = load_detector(tmp_path / "m").setup
    assert loaded.tiles == 2 and loaded.mask.shape == (40, 48)
    done = faprompt(
        "calibrate", tmp_path / "in" / "cap", "--model", place / "plain", "--out", tmp_path / "n",
        "--group", r"/(\d)\d?\.png", "--target-fpr", 0.2,
    )  # fmt: skip
    assert done.lines[0] == "thresholds from 20 good pictures of 10 parts"


def test_unreadable_pictures_and_other_masks_are_warnings(faprompt, place, tmp_path):
    shutil.copytree(place / "good", tmp_path / "in")
    (tmp_path / "in" / "broken.png").write_bytes(b"rubbish")
    small.picture_file(tmp_path / "in" / "large.png", height=41, width=48)
    (tmp_path / "in" / "notes.txt").write_text("x")
    mask = np.zeros((40, 48), np.uint8)
    mask[:9] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    done = faprompt(
        "calibrate", tmp_path / "in", "--model", place / "plain", "--out", tmp_path / "m", *RATES,
        "--mask", tmp_path / "mask.png",
    )  # fmt: skip
    assert done.code == 3
    assert "thresholds from 24 good pictures" in done.lines
    assert done.err.count("not used: ") == 2
    assert "broken.png" in done.err and "large.png is 41x48 (height x width), its mask" in done.err
    assert "left out: 1 .txt" in done.err


def test_a_folder_of_masks_in_the_folder_of_pictures_is_not_scored(faprompt, place, tmp_path):
    shutil.copytree(place / "good", tmp_path / "in")
    (tmp_path / "in" / "masks").mkdir()
    for path in (tmp_path / "in").glob("*.png"):
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(tmp_path / "in" / "masks" / path.name)
    done = faprompt(
        "calibrate", tmp_path / "in", "--model", place / "plain", "--out", tmp_path / "m", *RATES,
        "--mask", tmp_path / "in" / "masks",
    )  # fmt: skip
    assert (done.code, done.lines[0]) == (0, "thresholds from 24 good pictures")


def test_other_rates(faprompt, model, place):
    done = faprompt("calibrate", "--model", model, "--target-fpr", 0.1)
    assert done.code == 0
    assert done.lines[0] == "thresholds from 24 good pictures"
    assert "10 % of good parts" in done.lines[1] and done.lines[-1] == f"changed {model}"
    assert read_calibration(model).target_fpr == 0.1
    done = faprompt("calibrate", "--model", model, "--target-fpr", 0.01, "--json")
    assert done.code == 2
    assert "needs at least 99 good pictures, got 24. Add pictures, or ask for 4 %" in done.err
    values = json.loads(faprompt("calibrate", "--model", model, "--review-fpr", 0.2, "--json").out)
    assert (values["target_fpr"], values["review_fpr"]) == (0.1, 0.2)


def test_false_alarms_come_and_go(faprompt, model, place):
    before = (model / "calibration.safetensors").read_bytes()
    done = faprompt("calibrate", "--model", model, "--add", place / "alarms")
    assert done.code == 0
    assert done.lines[0] == "added 2 false alarms as pictures of the calibration"
    assert sum(" -> " in line and "alarms/" in line for line in done.lines) == 2
    assert done.lines[-1] == (
        f"changed {model}; `faprompt calibrate --model {model} --undo` takes it back"
    )
    assert len(read_calibration(model).products[""]) == 26
    done = faprompt("calibrate", "--model", model, "--add", place / "alarms")
    assert done.code == 2 and "2 of the false alarms calibrate already" in done.err
    done = faprompt("calibrate", "--model", model, "--undo")
    assert (done.code, done.lines[0]) == (0, "thresholds from 24 good pictures")
    assert (model / "calibration.safetensors").read_bytes() == before
    assert not (model / EARLIER).exists()
    done = faprompt("calibrate", "--model", model, "--undo")
    assert done.code == 1 and "has no earlier calibration to go back to" in done.err


def test_false_alarms_become_references(faprompt, place, tmp_path):
    faprompt(
        "calibrate", place / "good", "--model", place / "plain", "--out", tmp_path / "m", *RATES,
        "--references", 2,
    )  # fmt: skip
    done = faprompt("calibrate", "--model", tmp_path / "m", "--add", place / "alarms", "--json")
    values = json.loads(done.out)
    assert done.code == 0 and values["as_references"] is True
    assert len(values["after"][""]["references"]) == 4
    assert values["after"][""]["pictures"] == values["before"][""]["pictures"] == 19
    assert all(len(pair) == 2 for pair in values["verdicts"].values())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "There is no picture to calibrate with; name good pictures."),
        (["--target-fpr", 0.1], "There is no picture to calibrate with"),
        (["--model", "MODEL", "--add"], "There is no picture to calibrate with"),
        (["--model", "MODEL"], "Name good pictures, or a rate to change: --target-fpr, --review"),
        (["--undo"], "Name the calibrated folder to change by --model; got None."),
        (["GOOD", "--add"], "Name the calibrated folder to change by --model; got None."),
        (["--model", "tiny", "--target-fpr", 0.1], "folder to change by --model; got tiny."),
        (["--model", "MODEL", "--undo", "--target-fpr", 0.1], "--undo does not take --target-fpr:"),
        (["GOOD", "--model", "MODEL", "--undo"], "--undo does not take inputs"),
        (
            ["GOOD", "--model", "MODEL", "--add", "--tiles", 2, "--group", "x", "--set", "a=1"],
            "--add does not take --tiles, --group, --set: it works on the calibrated folder of",
        ),
        (
            ["--model", "MODEL", "--target-fpr", 0.1, "--references", 2, "--out", "x"],
            "A change of rates does not take --out, --references",
        ),
        (["GOOD", "--product", "cap"], "--product needs --add; --by-folder names products"),
        (["GOOD", "--reference-weight", 0], "reference_weight should be above 0"),
        (["GOOD", "--reference-weight", "nan"], "reference_weight should be above 0"),
        (["GOOD", "--tiles", "all"], "tiles should be 'auto', 'off' or a number"),
        (["GOOD", "--target-fpr", "nan"], "target_fpr should be a share above 0"),
        (["GOOD", "--review-fpr", 0.001], "review_fpr=0.001 should be at least target_fpr=0.01"),
        (["GOOD", "--model", "PLAIN"], "needs at least 99 good pictures, got 24. Add pictures"),
    ],
)
def test_refusals(faprompt, place, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "plain", tmp_path / "model")
    names = {"GOOD": place / "good", "MODEL": tmp_path / "model", "PLAIN": place / "plain"}
    done = faprompt("calibrate", *(names.get(str(each), each) for each in arguments))
    assert done.code == 2 and told in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_folder_without_calibration_cannot_be_changed(faprompt, place):
    for arguments in (["--target-fpr", 0.1], [place / "alarms", "--add"]):
        done = faprompt("calibrate", "--model", place / "plain", *arguments)
        assert done.code == 1
        assert "is not calibrated; run `faprompt calibrate GOOD --out DIR`" in done.err
