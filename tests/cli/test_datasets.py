"""`faprompt datasets`: what can be read, what a folder is, and a set drawn here."""

from __future__ import annotations

import json

import pytest

from faprompt.data import list_datasets
from tests.helpers import folders


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
    assert [line.split()[0] for line in told.lines] == list(list_datasets())
    rows = json.loads(faprompt("datasets", "list", "--json").out)
    assert [row["name"] for row in rows] == list(list_datasets())
    mvtec = next(row for row in rows if row["name"] == "mvtec")
    assert (mvtec["normal"], mvtec["anomalous"]) == (467, 1258)


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
