"""A folder is written by one run at a time; a second one is refused and changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from faprompt.work import LOCK_NAME, lock_folder
from tests.cli.test_benchmark import CONFIG
from tests.cli.test_study import STUDY
from tests.helpers import small
from tests.reproduce import toys

CLIP = ["--method", "clip", "--backbone", "test-tiny", "--set", "image_size=56"]
CLIP += ["--device", "cpu"]
RUN = "from faprompt.cli.main import run; run()"
TRAIN = ["--backbone", "test-tiny", "--device", "cpu", "--set", "image_size=56"]


@pytest.fixture
def sources(tmp_path):
    """What the verbs read: pictures, a labelled set, a benchmark and a study of it."""
    small.picture_file(tmp_path / "pictures" / "part.png")
    toys.shelf(tmp_path / "sets" / "shelf")
    (tmp_path / "toys.toml").write_text(CONFIG)
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "pictures", *CLIP, "--out", "OUT"],
        ["explain", "pictures", *CLIP, "--out", "OUT"],
        ["evaluate", "sets/shelf", *CLIP, "--out", "OUT"],
        ["train", "sets/shelf", *TRAIN, "--out", "OUT"],
        ["benchmark", "toys.toml", "--data-root", "sets", "--out", "OUT"],
        ["benchmark", "toys.toml", "--data-root", "sets", "--out", "other", "--work", "OUT"],
        ["study", "study.toml", "--data-root", "sets", "--out", "OUT"],
        ["study", "study.toml", "--data-root", "sets", "--out", "other", "--work", "OUT"],
        ["study", "redraw", "OUT"],
        ["datasets", "synth", "OUT", "--count", "8", "--size", "64"],
        ["models", "convert", "x.pth", "--method", "faprompt", "--out", "OUT"],
    ],
    ids=lambda command: " ".join(command[:2] + command[-1:]),
)
def test_a_second_run_is_refused(faprompt, sources, monkeypatch, command):
    monkeypatch.chdir(sources)
    with lock_folder(sources / "OUT"):
        told = faprompt(*command)
        assert os.listdir(sources / "OUT") == [LOCK_NAME]
    assert told.code == 1 and not told.out
    assert told.err.startswith("faprompt: ") and "being written by another run" in told.err
    assert not (sources / "other").exists()


def test_a_lock_file_is_no_content(faprompt, sources, tmp_path):
    """An output folder that was used once is empty for `synth`, and no picture for `predict`."""
    for name in ("new", "pictures"):
        (tmp_path / name / "auxiliary").mkdir(parents=True)
        (tmp_path / name / LOCK_NAME).touch()
    (tmp_path / "new" / "auxiliary" / LOCK_NAME).touch()
    command = ["datasets", "synth", tmp_path / "new", "--count", "8", "--size", "64"]
    assert faprompt(*command).code == 0
    checked = faprompt("datasets", "check", tmp_path / "new" / "test", "--json")
    assert checked.code == 0 and json.loads(checked.out)["normal"] == 4
    told = faprompt("predict", tmp_path / "pictures", *CLIP, "--out", tmp_path / "out")
    assert told.code == 0 and len(told.lines) == 1 and "left out" not in told.err


def test_what_is_refused_leaves_no_folder(faprompt, sources, tmp_path):
    pictures = sources / "pictures"
    told = faprompt("predict", pictures, "--model", "nowhere", "--out", tmp_path / "out")
    assert told.code == 1 and not (tmp_path / "out").exists()


def test_two_processes_lose_no_row(tmp_path):
    """Both started at once: one is refused, or both ran one after the other."""
    names = {}
    for part in ("a", "b"):
        paths = [small.picture_file(tmp_path / part / f"{i}.png", seed=i) for i in range(6)]
        names[part] = {str(path) for path in paths}
    running = {
        part: subprocess.Popen(
            [sys.executable, "-c", RUN, "predict", tmp_path / part, *CLIP]
            + ["--out", tmp_path / "out"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for part in names
    }
    ended = {part: process.communicate() for part, process in running.items()}
    codes = {part: process.returncode for part, process in running.items()}
    rows = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    found = {json.loads(row)["path"] for row in rows}
    done = [part for part, code in codes.items() if code == 0]
    assert done and len(rows) == 6 and found in [names[part] for part in done]
    for part in set(codes) - set(done):
        assert codes[part] == 1 and "another run" in ended[part][1] and not ended[part][0]
