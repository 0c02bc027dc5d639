"""`faprompt evaluate --shard I/N`, and the merge of what it wrote."""

from __future__ import annotations

import json

import pytest

from faprompt.evaluation import SHARDS_FOLDER
from tests.helpers import folders

CLIP = ["--method", "clip", "--backbone", "test-tiny", "--set", "image_size=56"]
CLIP += ["--device", "cpu", "--replicates", "40", "--gallery", "0"]


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    monkeypatch.setattr("faprompt.evaluation.metric_files._plot", lambda *_, **__: None)
    for name in ("mug", "nut"):
        folders.mvtec_class(
            tmp_path / "shelf" / name,
            normal={"good": ["8.png", "9.png", "10.png"]},
            defects={"chip": ["0.png", "1.png"], "dent": ["2.png"]},
        )
    return tmp_path / "shelf"


def written(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and SHARDS_FOLDER not in path.parts and not path.name.startswith(".")
    }


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shards_and_merge_are_one_process(faprompt, shelf, tmp_path, count):
    told = faprompt("evaluate", shelf, *CLIP, "--out", tmp_path / "whole", "--json")
    whole = json.loads(told.out)
    out = tmp_path / "out"
    for index in range(1, count + 1):
        told = faprompt("evaluate", shelf, *CLIP, "--out", out, "--shard", f"{index}/{count}")
        assert told.code == 0 and told.out == ""
        assert f"shard {index}/{count}: " in told.err and f"`faprompt merge {out}`" in told.err
    assert written(out) == {}
    told = faprompt("merge", out, "--json")
    assert told.code == 0 and json.loads(told.out) == whole
    assert written(out) == written(tmp_path / "whole")


def test_several_folders(faprompt, shelf, tmp_path):
    both = [shelf / "mug", shelf / "nut"]
    assert faprompt("evaluate", *both, *CLIP, "--out", tmp_path / "whole").code == 0
    for index in (2, 1):
        told = faprompt(
            "evaluate", *both, *CLIP, "--out", tmp_path / "out", "--shard", f"{index}/2", "--json"
        )
        assert told.code == 0
        found = json.loads(told.out)
        chunks = 2 if index == 1 else 0  # each set has one chunk
        assert found == {
            "shard": f"{index}/2", "chunks": chunks, "pictures": 6 * chunks, "unreadable": 0,
            "kept": 0,
        }  # fmt: skip
    told = faprompt("merge", tmp_path / "out")
    assert told.code == 0 and told.out.count("| class |") == 2
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def test_unreadable_pictures_are_exit_3_and_a_done_shard_is_skipped(faprompt, shelf, tmp_path):
    (shelf / "nut" / "test" / "chip" / "1.png").write_bytes(b"")
    command = ["evaluate", shelf, *CLIP, "--out", tmp_path / "out", "--shard"]
    assert faprompt(*command, "1/2").code == 0
    told = faprompt(*command, "2/2")
    assert told.code == 3 and "6 pictures in 1 chunks, 1 unreadable" in told.err
    told = faprompt(*command, "2/2")
    assert told.code == 3 and "shard 2/2: 1 of 1 chunks were measured already" in told.err
    assert "measured already" not in faprompt(*command, "2/2", "--no-resume").err
    told = faprompt("merge", tmp_path / "out")
    assert told.code == 3 and "1 pictures could not be read." in told.out


def test_a_whole_run_does_not_write_beside_shards(faprompt, shelf, tmp_path):
    command = ["evaluate", shelf, *CLIP, "--out", tmp_path / "out"]
    faprompt(*command, "--shard", "1/2")
    told = faprompt(*command)
    assert told.code == 2 and "holds shards of an evaluation; `faprompt merge` joins" in told.err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--shard", "3/2"], 2, "shard should be I/N with 1 <= I <= N <= 99999, got 3/2"),
        (["--shard", "half"], 2, "--shard should be I/N, such as 2/3; got 'half'"),
    ],
)
def test_refusals(faprompt, shelf, tmp_path, arguments, code, told):
    found = faprompt("evaluate", shelf, *CLIP, "--out", tmp_path / "out", *arguments)
    assert found.code == code and told in found.err
    assert not (tmp_path / "out").exists()


def test_shards_of_other_options_are_exit_1(faprompt, shelf, tmp_path):
    command = ["evaluate", shelf, *CLIP, "--out", tmp_path / "out"]
    faprompt(*command, "--shard", "1/2")
    told = faprompt(*command, "--shard", "2/2", "--by-defect")
    assert told.code == 1 and "shards of another run: other options" in told.err


def test_refusals_of_the_merge(faprompt, shelf, tmp_path):
    out = tmp_path / "out"
    faprompt("evaluate", shelf, *CLIP, "--out", out, "--shard", "1/2")
    told = faprompt("merge", out)
    assert told.code == 1 and "shard 2/2 is missing" in told.err
    assert f"--shard 2/2 --out {out}" in told.err
    for option in (["--table", "csv"], ["--no-report"], ["--title", "Lot 7"]):
        told = faprompt("merge", out, *option)
        assert told.code == 2 and "leave --table, --report and --title out" in told.err
    (out / "shards").mkdir()
    told = faprompt("merge", out)
    assert told.code == 2 and "holds shards of predict and of evaluate" in told.err
