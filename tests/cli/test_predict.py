"""`faprompt predict` on drawn pictures."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from tests.helpers import small

CLIP = ["--method", "clip", "--backbone", "test-tiny", "--set", "image_size=56"]
CLIP += ["--device", "cpu"]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for number in range(3):
        small.picture_file(folder / f"part_{number}.png", seed=number)
    return folder


@pytest.fixture
def model(tmp_path):
    small.detector(prompts=2).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def results(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_one_line_per_picture_and_the_files(faprompt, pictures, tmp_path):
    out = tmp_path / "out"
    told = faprompt("predict", pictures, *CLIP, "--out", out, "--title", "Lot <7>")
    assert told.code == 0
    assert [line.split("\t")[2] for line in told.lines] == [
        str(pictures / f"part_{number}.png") for number in range(3)
    ]
    for line, row in zip(told.lines, results(out), strict=True):
        verdict, score, path = line.split("\t")
        assert verdict == "-" and score == f"{row['score']:.4f}" and path == row["path"]
        assert row["model"] == "clip@test-tiny" and row["status"] == "ok"
        assert (out / row["overlay"]).is_file()
    assert "3 scored, 0 unreadable" in told.err
    assert "report.html" in told.err
    assert "<h1>Lot &lt;7&gt;</h1>" in (out / "report.html").read_text()


def test_a_broken_picture_is_a_line_and_exit_3(faprompt, pictures, tmp_path):
    (pictures / "part_1.png").write_bytes(b"no picture")
    told = faprompt("predict", pictures, *CLIP, "--out", tmp_path / "out", "--threshold", "0")
    assert told.code == 3
    verdicts = [line.split("\t")[0] for line in told.lines]
    assert verdicts == ["NG", "ERROR", "NG"]
    verdict, score, path, reason = told.lines[1].split("\t")
    assert score == "-" and path.endswith("part_1.png") and "no picture" not in path and reason
    assert [row["status"] for row in results(tmp_path / "out")] == ["ok", "error", "ok"]
    assert "2 scored, 1 unreadable" in told.err


def test_json_lines_are_the_rows_of_the_file(faprompt, pictures, tmp_path):
    told = faprompt("predict", pictures, *CLIP, "--out", tmp_path / "out", "--json")
    assert [json.loads(line) for line in told.lines] == results(tmp_path / "out")


def test_maps_tables_and_nothing_more_than_asked_for(faprompt, pictures, tmp_path):
    out = tmp_path / "out"
    told = faprompt(
        "predict", pictures / "part_0.png", *CLIP, "--out", out, "--maps", "npy", "--table", "csv",
        "--no-overlays", "--no-report",
    )  # fmt: skip
    assert told.code == 0 and (out / "results.csv").is_file()
    (row,) = results(out)
    score_map = np.load(out / row["map"])
    assert score_map.shape == (60, 80) and row["overlay"] is None
    assert not (out / "report.html").exists() and "results.jsonl" in told.err


def test_scores_are_the_librarys(faprompt, pictures, model, tmp_path):
    from faprompt import load_detector

    told = faprompt("predict", pictures, "--model", model, "--out", tmp_path / "out",
                    "--device", "cpu")  # fmt: skip
    detector = load_detector(model)
    for row in results(tmp_path / "out"):
        assert row["score"] == pytest.approx(detector.predict(row["path"]).score, abs=1e-5)
    assert told.code == 0


def test_resume_does_only_what_is_left(faprompt, pictures, tmp_path):
    command = ["predict", pictures, *CLIP, "--out", tmp_path / "out"]
    first = faprompt(*command)
    small.picture_file(pictures / "part_3.png", seed=3)
    second = faprompt(*command, "--resume")
    assert second.lines[:3] == first.lines and len(second.lines) == 4
    changed = faprompt(*command, "--resume", "--threshold", "0.5")
    assert changed.code == 2 and "threshold was None and is 0.5" in changed.err
    changed = faprompt(*command, "--resume", "--set", "value_path=true")
    assert changed.code == 2 and "cannot be resumed: the detector's options was" in changed.err


def test_strict_stops_at_the_first_unreadable_file(faprompt, pictures, tmp_path):
    (pictures / "part_0.png").write_bytes(b"")
    told = faprompt("predict", pictures, *CLIP, "--out", tmp_path / "out", "--strict")
    assert told.code == 1 and "part_0.png" in told.err


def test_a_file_name_that_is_no_text_is_scored_like_any_other(faprompt, pictures, tmp_path):
    odd = os.fsdecode(os.fsencode(str(pictures)) + b"/odd_\xff.png")
    try:
        os.rename(pictures / "part_2.png", odd)
    except OSError:
        pytest.skip("this file system has text names only")
    told = faprompt("predict", pictures, *CLIP, "--out", tmp_path / "out", "--no-overlays")
    assert told.code == 0 and len(told.lines) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--model", "x", "--method", "clip"], 2, "Got both --model and --method; give"),
        (["--model", "MODEL", "--set", "sigma_px=3"], 2, "--set needs --method"),
        (["--method", "magic"], 2, "No method 'magic'; known: clip"),
        ([*CLIP, "--set", "sigma=3"], 2, "unknown option 'sigma'"),
        ([*CLIP, "--set", "sigma"], 2, "--set wants name=value"),
        ([*CLIP[:4], "--set", "image_size=big"], 2, "image_size: "),
        ([*CLIP[:4], "--set", "image_size=57"], 2, "57 does not split into the 14-pixel patches"),
        (["--method", "faprompt", "--backbone", "test-tiny"], 1, "has to be trained first"),
        (["--method", "clip", "--backbone", "nowhere.pt"], 1, "No backbone 'nowhere.pt'"),
        (["--model", "nowhere"], 1, "No model 'nowhere'"),
        ([*CLIP, "--device", "abacus"], 2, "device 'abacus' cannot be used here"),
    ],
)
def test_refusals(faprompt, pictures, model, tmp_path, arguments, code, told):
    arguments = [str(model) if argument == "MODEL" else argument for argument in arguments]
    outcome = faprompt("predict", pictures, *arguments, "--out", tmp_path / "out")
    assert outcome.code == code
    assert outcome.err.startswith("faprompt: ") and told in outcome.err
    assert not (tmp_path / "out").exists()


def test_inputs_that_name_nothing(faprompt, tmp_path):
    outcome = faprompt("predict", tmp_path / "nowhere.png", *CLIP)
    assert outcome.code == 1 and "no such file or folder" in outcome.err


def test_the_same_name_elsewhere_is_another_file_when_resuming(
    faprompt, pictures, tmp_path, monkeypatch
):
    small.picture_file(tmp_path / "b" / "part_0.png", seed=7)
    command = ["predict", "part_0.png", *CLIP, "--out", tmp_path / "out"]
    monkeypatch.chdir(pictures)
    first = faprompt(*command)
    monkeypatch.chdir(tmp_path / "b")
    second = faprompt(*command, "--resume")
    assert second.code == 0 and second.lines != first.lines
    fresh = faprompt(*command[:-1], tmp_path / "fresh")
    assert second.lines == fresh.lines
    assert "earlier results of files not named now: 1 kept, 0 dropped" in second.err


def test_rows_of_deleted_pictures_are_reported(faprompt, pictures, tmp_path):
    out = tmp_path / "out"
    command = ["predict", pictures, *CLIP, "--out", out, "--table", "csv"]
    assert "earlier results" not in faprompt(*command).err
    (pictures / "part_1.png").unlink()
    told = faprompt(*command, "--resume")
    assert told.code == 0 and len(told.lines) == 2 == len(results(out))
    assert "0 kept, 1 dropped because the file is gone or changed\n2 scored" in told.err
    assert "part_1.png" not in (out / "report.html").read_text()
    assert "part_1.png" not in (out / "results.csv").read_text()


def test_the_default_folder_within_the_inputs_is_no_input(faprompt, pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    small.picture_file(pictures / "maps" / "city.png")  # the user's own
    for out in ([], ["--out", "res2"], ["--out", "."], [], ["--out", "."]):
        told = faprompt("predict", ".", *CLIP, "--maps", "png", "--table", "csv", *out)
        assert told.code == 0 and "left out" not in told.err
        assert [line.split("\t")[2] for line in told.lines] == [
            "maps/city.png", "part_0.png", "part_1.png", "part_2.png",
        ]  # fmt: skip


def test_other_kinds_of_files_are_told_in_one_line(faprompt, pictures, tmp_path):
    for name in ("a.heic", "b.HEIC", "c.heic", "d.gif", "Thumbs.db", ".DS_Store", ".x.gif"):
        (pictures / name).write_bytes(b"x")
    told = faprompt("predict", pictures, *CLIP, "--out", tmp_path / "out")
    assert told.code == 0 and told.err.splitlines()[0] == "left out: 3 .heic, 1 .gif"
    assert len(told.lines) == 3


def test_the_pixel_limit_is_an_option(faprompt, pictures, tmp_path):
    small.picture_file(pictures / "wide.png", width=90)
    for verb in ("predict", "explain"):
        command = [verb, pictures, *CLIP, "--out", tmp_path / verb]
        told = faprompt(*command, "--max-pixels", "4800")
        assert told.code == 3 and len([x for x in told.lines if x.startswith("ERROR")]) == 1
        assert "wide.png: 90x60 is 5,400 pixels, above the limit of 4,800" in told.out
        assert faprompt(*command, "--max-pixels", "5400").code == 0
        assert faprompt(*command, "--max-pixels", "0").code == 2


def test_notes_are_one_line_for_each_kind(faprompt, pictures, tmp_path):
    frames = [Image.fromarray(small.picture(seed=seed)) for seed in (1, 2, 3)]
    for count in (2, 3):
        frames[0].save(pictures / f"{count}.tif", save_all=True, append_images=frames[1:count])
    dark = small.picture()[..., 0].astype(np.uint16) << 4
    Image.fromarray(dark).save(pictures / "deep.png")
    told = faprompt("predict", pictures, *CLIP, "--out", tmp_path / "out")
    assert told.code == 0 and "2 pictures: frame 0 of 3\n" in told.err
    (hint,) = [line for line in told.err.splitlines() if "--bit-depth 12" in line]
    assert hint.startswith("1 picture: ") and "bit_depth" not in told.err
    assert faprompt("predict", pictures, *CLIP, "--out", tmp_path / "out", "--bit-depth",
                    "12").code == 0  # fmt: skip
    notes = {row["path"].rsplit("/", 1)[1]: row["notes"] for row in results(tmp_path / "out")}
    assert notes["2.tif"] == ["frame 0 of 2"] and notes["part_0.png"] == []
