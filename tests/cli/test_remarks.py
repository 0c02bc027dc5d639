"""What `datasets check` says of a set, `evaluate`, `train` and `benchmark` say as well."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.helpers import folders

CLIP = ("--method", "clip", "--backbone", "test-tiny", "--set", "image_size=56")
TRAIN = (
    "--backbone", "test-tiny", "--set", "image_size=56", "--set", "prompts=2", "--set", "epochs=1",
    "--set", "cache=off", "--set", "batch_size=6",
)  # fmt: skip
BENCHMARK = """
title = "Shelf"
backbones = ["test-tiny"]
datasets = [{folder = "shelf", label = "shelf"}]

[[methods]]
name = "clip"
options = {image_size = 56}

[evaluation]
replicates = 0
gallery = 0
"""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr("faprompt.evaluation.metric_files._plot", lambda *_, **__: None)


@pytest.fixture
def shelf(tmp_path):
    """Two classes of two normal and four anomalous pictures each."""
    for name in ("mug", "nut"):
        folders.mvtec_class(
            tmp_path / "shelf" / name,
            normal={"good": folders.names(2)},
            defects={"chip": folders.names(4)},
        )
    return tmp_path / "shelf"


@pytest.fixture
def everywhere(faprompt, shelf, tmp_path):
    """What each of the four verbs prints on the shelf, as one text each."""

    def call(*, train_options=()):
        config = tmp_path / "shelf.toml"
        config.write_text(BENCHMARK)
        calls = {
            "check": ("datasets", "check", shelf),
            "evaluate": (
                "evaluate", shelf, *CLIP, "--out", tmp_path / "figures", "--gallery", 0,
                "--replicates", 0,
            ),
            "train": ("train", shelf, *TRAIN, *train_options, "--out", tmp_path / "model"),
            "benchmark": ("benchmark", config, "--data-root", tmp_path, "--out", tmp_path / "b"),
        }  # fmt: skip
        told = {}
        for name, arguments in calls.items():
            outcome = faprompt(*arguments)
            assert outcome.code == 0, (name, outcome.err)
            told[name] = outcome.out + outcome.err
        return told

    return call


def invert(path):
    Image.fromarray(255 - np.array(Image.open(path))).save(path)


def one_line(text, *parts):
    """The only line that holds all parts."""
    (line,) = [line for line in text.splitlines() if all(part in line for part in parts)]
    return line


def test_inverted_masks_are_named_by_all_four(everywhere, shelf):
    for path in (shelf / "nut" / "ground_truth" / "chip").iterdir():
        invert(path)
    for name, text in everywhere().items():
        line = one_line(text, "if they are inverted")
        assert "class nut: 4 of 4 masks mark most of their picture (88 % in the median)" in line, (
            name
        )


def test_lost_masks_and_copies_are_named_by_all_four(everywhere, shelf):
    for number in (8, 9):
        (shelf / "mug" / "ground_truth" / "chip" / f"{number}_mask.png").unlink()
    good = shelf / "nut" / "test" / "good"
    shutil.copy(good / "8.png", good / "9.png")
    shutil.copy(good / "8.png", shelf / "nut" / "test" / "chip" / "8.png")
    for name, text in everywhere(train_options=("--set", "unmasked=skip")).items():
        assert one_line(text, "2 anomalous without a mask", "mug/test/chip/8.png"), name
        assert one_line(text, "equal content, normal and anomalous at once", "= nut"), name


def test_the_figures_say_what_they_rest_on(faprompt, shelf, tmp_path):
    for number in (8, 9):
        (shelf / "mug" / "ground_truth" / "chip" / f"{number}_mask.png").unlink()
    told = faprompt("evaluate", shelf, *CLIP, "--out", tmp_path / "o", "--gallery", 0)
    assert one_line(told.out, "| mug | 2 | 4 (2 with a mask) |")
    assert one_line(told.out, "| nut | 2 | 4 |")
    assert one_line(told.out, "anomalous pictures with a mask", "mug 2 of 4")
    found = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert found["pixel_pictures"] == {
        "mug": {"normal": 2, "anomalous": 2},
        "nut": {"normal": 2, "anomalous": 4},
    }
    assert any("mug 2 of 4" in line for line in found["remarks"])
    assert found["remarks"] == json.loads(
        faprompt(
            "evaluate", shelf, *CLIP, "--out", tmp_path / "o", "--gallery", 0, "--json"
        ).out
    )["remarks"]  # fmt: skip


class TestClasses:
    def measure(self, faprompt, tmp_path, *arguments):
        return faprompt(
            "evaluate", *arguments, *CLIP, "--out", tmp_path / "o", "--gallery", 0,
            "--replicates", 0,
        )  # fmt: skip

    def test_only_the_named_class_is_measured(self, faprompt, shelf, tmp_path):
        assert self.measure(faprompt, tmp_path, shelf).code == 0
        whole = json.loads((tmp_path / "o" / "metrics.json").read_text())
        assert (tmp_path / "o" / "curves" / "mug.csv").is_file()
        told = self.measure(faprompt, tmp_path, shelf, "--class", "nut")
        assert told.code == 0 and one_line(told.out, "1 of 2 classes are used: nut")
        found = json.loads((tmp_path / "o" / "metrics.json").read_text())
        assert found["classes"] == {"nut": whole["classes"]["nut"]}
        assert found["left_out_classes"] == ["mug"] and whole["left_out_classes"] == []
        assert [p.name for p in (tmp_path / "o" / "curves").iterdir()] == ["nut.csv"]

    def test_it_is_repeatable(self, faprompt, shelf, tmp_path):
        told = self.measure(faprompt, tmp_path, shelf, "--class", "nut", "--class", "mug")
        assert told.code == 0 and "classes are used" not in told.out

    def test_an_unknown_name_is_refused_with_those_there_are(self, faprompt, shelf, tmp_path):
        told = self.measure(faprompt, tmp_path, shelf, "--class", "nut", "--class", "cup")
        assert told.code == 1 and "no class 'cup'. Its classes: mug, nut." in told.err
        assert not (tmp_path / "o").exists()

    def test_several_folders_share_the_names(self, faprompt, shelf, tmp_path):
        folders.mvtec_class(
            tmp_path / "cups" / "cup", normal={"good": ["8.png"]}, defects={"chip": ["9.png"]}
        )
        pair = (shelf, tmp_path / "cups")
        told = self.measure(faprompt, tmp_path, *pair, "--class", "nut", "--class", "cup")
        assert told.code == 0
        found = [
            json.loads((tmp_path / "o" / name / "metrics.json").read_text())["classes"].keys()
            for name in ("1-mvtec_style", "2-mvtec_style")
        ]
        assert found == [{"nut"}, {"cup"}]
        told = self.measure(faprompt, tmp_path, *pair, "--class", "nut")
        assert told.code == 1 and "cups has no class 'nut'" in told.err
        told = self.measure(faprompt, tmp_path, *pair, "--class", "nut", "--class", "plate")
        assert told.code == 1 and "no class 'plate'" in told.err
