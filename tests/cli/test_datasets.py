"""`faprompt datasets`: what can be read, what a folder is, and a set drawn here."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from faprompt.data import list_datasets
from tests.helpers import folders, industrial


@pytest.fixture
def shelf(tmp_path):
    folders.mvtec_class(
        tmp_path / "shelf" / "mug",
        normal={"good": ["8.png", "9.png"]},
        defects={"chip": ["0.png", "1.png"], "dent": ["2.png"]},
    )
    return tmp_path / "shelf"


def test_the_list_names_every_reader(faprompt):
    told = faprompt("datasets", "list")
    assert told.code == 0
    names = [line.split()[0] for line in told.lines if not line.startswith(" ")]
    assert names == list(list_datasets())
    at = next(at for at, line in enumerate(told.lines) if line.startswith("brainmri "))
    assert "98 + 155" in told.lines[at]
    assert [line.strip() for line in told.lines[at + 1 : at + 3]] == [
        "image labels only; terms not clearly stated: check the page",
        "from Kaggle, 'Brain MRI Images for Brain Tumor Detection' (user navoneel)",
    ]
    rows = json.loads(faprompt("datasets", "list", "--json").out)
    assert [row["name"] for row in rows] == list(list_datasets())
    mvtec = next(row for row in rows if row["name"] == "mvtec")
    assert (mvtec["normal"], mvtec["anomalous"]) == (467, 1258)
    assert mvtec["labels"] == "P" and "CC BY-NC-SA 4.0" in mvtec["licence"]
    assert "MVTec Research" in mvtec["source"]
    own = next(row for row in rows if row["name"] == "folder")
    assert own["labels"] is None and own["licence"] is None and own["source"] is None
    assert all(row.keys() == mvtec.keys() for row in rows)


def test_a_list_of_pictures_can_be_checked(faprompt, tmp_path):
    for name in ("a", "b"):
        folders.picture(tmp_path / f"{name}.png")
    (tmp_path / "list.csv").write_text("image,label\na.png,good\nb.png,ng\n")
    told = json.loads(faprompt("datasets", "check", tmp_path / "list.csv", "--json").out)
    assert told["dataset"] == "table" and told["recognised_by"] == "list.csv"
    assert (told["normal"], told["anomalous"], told["licence"]) == (1, 1, None)
    (tmp_path / "list.csv").write_text("image,label\na.png,good\nb.png,scratched\n")
    refused = faprompt("datasets", "check", tmp_path / "list.csv")
    assert refused.code == 1 and "line 3: label 'scratched'" in refused.err


def test_a_check_says_what_a_folder_is(faprompt, shelf):
    told = faprompt("datasets", "check", shelf, "--json")
    assert told.code == 0
    found = json.loads(told.out)
    assert (found["normal"], found["anomalous"]) == (2, 3)
    assert found["classes"] == {"mug": {"normal": 2, "anomalous": 3, "with_mask": 3}}
    assert found["matches_paper"] is None and found["problems"] == []
    text = faprompt("datasets", "check", shelf)
    assert text.code == 0 and "mug" in text.out


def test_a_set_that_cannot_be_evaluated_is_exit_1(faprompt, shelf):
    for picture in (shelf / "mug" / "test").rglob("*.png"):
        picture.write_bytes(b"")
    told = faprompt("datasets", "check", shelf, "--json")
    assert told.code == 1 and json.loads(told.out)["usable"] is False


def test_folders_that_are_no_dataset(faprompt, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    told = faprompt("datasets", "check", empty)
    assert told.code == 1 and "is no dataset we know" in told.err
    told = faprompt("datasets", "check", tmp_path / "nowhere")
    assert told.code == 1 and "does not exist" in told.err
    told = faprompt("datasets", "check", empty, "--dataset", "mvtek")
    assert told.code == 2 and "There is no dataset 'mvtek'" in told.err


def test_a_drawn_set_is_one_we_can_read(faprompt, tmp_path):
    told = faprompt("datasets", "synth", tmp_path / "drawn", "--count", "8", "--size", "64")
    assert told.code == 0
    assert told.lines == [f"wrote {tmp_path / 'drawn' / part}" for part in ("auxiliary", "test")]
    for part in ("auxiliary", "test"):
        check = faprompt("datasets", "check", tmp_path / "drawn" / part, "--json")
        found = json.loads(check.out)
        assert check.code == 0 and found["normal"] + found["anomalous"] == 8
        assert found["normal"] and found["anomalous"]


def test_defects_are_drawn_onto_ones_own_pictures(faprompt, tmp_path):
    goods = tmp_path / "goods"
    goods.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(90, 140, (40, 60, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(goods / f"{number}.png")
    command = ("datasets", "synth", tmp_path / "set", "--count", "8", "--sizes", "6,12")
    command += ("--kind", "hole", "--kind", "missing_part", "--strengths", "0.5", "--onto")
    assert faprompt(*command, goods / "*.png").code == 0
    found = json.loads(faprompt("datasets", "check", tmp_path / "set", "--json").out)
    assert (found["normal"], found["anomalous"], found["problems"]) == (3, 8, [])
    lines = (tmp_path / "set" / "drawn.csv").read_text().splitlines()
    assert len(lines) == 12 and sum(",missing part,6,0.5" in line for line in lines) == 2

    (goods / "3.png").write_bytes(b"")
    command = command[:2] + (tmp_path / "again", *command[3:])
    told = faprompt(*command, goods / "0.png", goods / "3.png")
    assert told.code == 3 and told.lines == [f"wrote {tmp_path / 'again'}"]
    assert "1 good, 8 with a drawn defect, 1 unreadable" in told.err
    assert sum("3.png" in line for line in told.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--onto", "good.png", "--size", "128"], 2, "--size and --onto"),
        (["--sizes", "4", "--kind", "hole"], 2, "Got --sizes, --kind without --onto"),
        (["more.png"], 2, "Got more pictures without --onto"),
        (["--onto", "good.png", "--sizes", "4;8"], 2, "numbers separated by commas, got '4;8'"),
        (["--onto", "good.png", "--sizes", "1"], 2, "size 1 px"),
        (["--onto", "good.png", "--kind", "rust"], 2, "kind 'rust'"),
        (["--onto", "nowhere.png"], 1, "no such file or folder"),
        (["--onto", "broken.png"], 1, "None of 1 pictures could be read"),
    ],
)
def test_refusals_of_synth(faprompt, tmp_path, monkeypatch, options, code, message):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40), (120, 90, 60)).save("good.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    told = faprompt("datasets", "synth", "set", "--count", "8", *options)
    assert told.code == code and message in told.err
    assert not (tmp_path / "set").exists()


def test_all_normal_pictures_or_the_papers_quarter(faprompt, shelf, tmp_path):
    industrial.elpv(tmp_path / "cells")
    found = {
        subset: json.loads(
            faprompt("datasets", "check", tmp_path / "cells", "--subset", subset, "--json").out
        )["normal"]
        for subset in ("paper", "all")
    }
    assert found == {"paper": 3, "all": 10}
    for verb in (("datasets", "check"), ("evaluate",)):
        told = faprompt(*verb, shelf, "--subset", "all")
        assert told.code == 1 and "has no subset 'all'" in told.err
        assert faprompt(*verb, shelf, "--subset", "half").code == 2


def test_the_papers_tables_of_counts(faprompt, tmp_path):
    for name in ("01", "02", "03"):
        folders.mvtec_class(
            tmp_path / "btad" / name,
            normal={"good": ["8.png", "9.png"]},
            defects={"ko": ["0.png", "1.png"]},
        )
    told = faprompt("datasets", "table", "--data-root", tmp_path)
    assert told.code == 3, "most sets are not there"
    lines = [" ".join(line.split()) for line in told.lines]
    assert "| BTAD | 3 / 3 | 6 / 451 | 6 / 290 | no |" in lines
    assert "- MPDD: no folder mpdd below the data root" in told.lines
    rows = json.loads(faprompt("datasets", "table", "--data-root", tmp_path, "--json").out)["rows"]
    (row,) = (row for row in rows if row["dataset"] == "btad")
    assert row["ours"] == {"classes": 3, "test_normal": 6, "test_anomalous": 6}
    assert row["published"] == {"classes": 3, "test_normal": 451, "test_anomalous": 290}
    assert row["matches"] is False
