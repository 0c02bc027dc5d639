"""`--window` from calibration to every command that reads pictures; DICOM beside PNG."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from faprompt.models import load_detector
from faprompt.prediction.result_rows import read_rows
from tests.helpers import small
from tests.helpers.dicom_files import PATIENT, dicom_file

pytest.importorskip("pydicom", reason="needs the extra dicom")

RATES = ("--target-fpr", 0.05, "--review-fpr", 0.1)  # 19 pictures
CPU = ("--device", "cpu")


def hounsfield(seed: int) -> np.ndarray:
    """(40, 48) int16, mostly between -160 and 240, with values far outside."""
    grey = small.picture(40, 48, seed=seed)[..., 0].astype(np.int16)
    values = (grey * 1.6 - 160).astype(np.int16)
    values[:2], values[-2:] = -1024, 3000
    return values


def write_scan(path, seed: int, **elements) -> None:
    """A DICOM file, or a 16-bit PNG of the same values above 1024."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = (hounsfield(seed) + 1024).astype(np.uint16)
    if path.suffix == ".png":
        Image.fromarray(stored).save(path)
    else:
        rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
        path.write_bytes(dicom_file(stored, **rescale | elements))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`plain`, a model; `good`, 20 DICOM files without a window."""
    home = tmp_path_factory.mktemp("scans")
    small.detector("clip").save_pretrained(home / "plain")
    for number in range(20):
        write_scan(home / "good" / f"{number}.dcm", number)
    return home


@pytest.fixture
def model(place, tmp_path, faprompt):
    done = faprompt("calibrate", place / "good", "--model", place / "plain", "--out",
                    tmp_path / "model", "--window=40,400", *RATES, *CPU)  # fmt: skip
    assert done.code == 0, done.err
    return tmp_path / "model"


def test_a_calibrated_window_is_used_by_itself(faprompt, model, place, tmp_path):
    write_scan(tmp_path / "new" / "a.dcm", 50, WindowCenter=0, WindowWidth=1)
    write_scan(tmp_path / "new" / "b.png", 50)
    (tmp_path / "new" / "broken.dcm").write_bytes(dicom_file(hounsfield(1))[:900])
    told = faprompt("predict", tmp_path / "new", "--model", model, "--out", tmp_path / "out", *CPU)
    assert told.code == 3
    a, b, broken = read_rows(tmp_path / "out" / "results.jsonl")
    note = (
        "window center 40, width 400: values span -1024..3000, those outside -160..240 are clipped"
    )
    assert a.notes == (note,) and f"1 picture: {note}" in told.err
    shown = (hounsfield(50).astype(float) + 160) / 400
    wanted = np.rint(shown.clip(0, 1) * 255).astype(np.uint8)
    score = load_detector(model).predict(np.repeat(wanted[..., None], 3, axis=2)).score
    assert a.score == pytest.approx(score, abs=1e-6)
    assert b.score != pytest.approx(score, abs=1e-6)  # its values have another zero
    assert broken.status == "error"
    everything = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert PATIENT.encode() not in everything and PATIENT not in told.out + told.err

    same = faprompt("predict", tmp_path / "new", "--model", model, "--out", tmp_path / "again",
                    "--window", "40,400", *CPU)  # fmt: skip
    assert [row.score for row in read_rows(tmp_path / "again" / "results.jsonl")] == [
        a.score, b.score, None
    ]  # fmt: skip
    assert same.code == 3


@pytest.mark.parametrize("command", ["predict", "explain", "watch", "serve"])
def test_another_window_than_the_calibrated_one_is_refused(faprompt, model, place, command):
    inputs = () if command == "serve" else (place / "good",)
    option = () if command == "serve" else ("--model", model)
    given = (model,) if command == "serve" else ()
    out = () if command == "serve" else ("--out", model.parent / "out")
    told = faprompt(command, *inputs, *given, *option, *out, "--window", "auto", *CPU)
    assert told.code != 0
    assert "calibrated with the window 40.0,400.0, got the window auto" in told.err


def test_a_run_is_resumed_under_the_same_window_only(faprompt, place, tmp_path):
    command = [
        "predict",
        place / "good",
        "--model",
        place / "plain",
        "--out",
        tmp_path / "out",
        *CPU,
    ]
    assert faprompt(*command, "--window", "40,400").code == 0
    assert faprompt(*command, "--window", "40,400", "--resume").code == 0
    told = faprompt(*command, "--window", "40,80", "--resume")
    assert told.code != 0 and "window" in told.err
    assert faprompt(*command, "--resume").code != 0
    assert json.loads((tmp_path / "out" / "run.json").read_text())["window"] == "40.0,400.0"


def test_without_a_window_the_hint_names_the_option(faprompt, place, tmp_path):
    told = faprompt("predict", place / "good", "--model", place / "plain", "--out", tmp_path / "o",
                    *CPU)  # fmt: skip
    assert "20 pictures: no window in the file" in told.err
    assert "give all files one by --window CENTER,WIDTH" in told.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--window", "40"), "should be CENTER,WIDTH with a width above 0"),
     (("--window", "40,80", "--bit-depth", 12), "bit_depth and window exclude each other")],
)  # fmt: skip
def test_refusals(faprompt, place, tmp_path, arguments, told):
    for command in ("predict", "calibrate"):
        found = faprompt(command, place / "good", "--model", place / "plain", "--out",
                         tmp_path / "o", *arguments, *CPU)  # fmt: skip
        assert found.code == 2
        assert told in " ".join(found.err.replace("│", " ").split())


def test_a_labelled_folder_of_scans(faprompt, place, tmp_path):
    """Readers, `datasets check` and `evaluate` treat DICOM files as other pictures."""
    for number in range(3):
        write_scan(tmp_path / "set" / "brain" / "train" / "good" / f"{number}.dcm", number)
        write_scan(tmp_path / "set" / "brain" / "test" / "good" / f"{number}.dcm", 9 + number)
        write_scan(tmp_path / "set" / "brain" / "test" / "tumour" / f"{number}.dcm", 20 + number)
        mask = tmp_path / "set" / "brain" / "ground_truth" / "tumour" / f"{number}_mask.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((small.picture(40, 48, seed=number)[..., 0] > 200) * np.uint8(255)).save(
            mask
        )
    checked = faprompt("datasets", "check", tmp_path / "set", "--json")
    values = json.loads(checked.out)
    assert (values["normal"], values["anomalous"], values["problems"]) == (3, 3, [])
    assert not [line for line in values["warnings"] if "format" in line]
    scores = {}
    for window in ("40,400", "auto"):
        told = faprompt("evaluate", tmp_path / "set", "--model", place / "plain", "--out",
                        tmp_path / "out", "--window", window, "--replicates", 0, "--gallery", 0,
                        "--json", *CPU)  # fmt: skip
        assert told.code == 0, told.err
        scores[window] = (tmp_path / "out" / "scores.csv").read_text()
    assert scores["40,400"] != scores["auto"]
