"""`faprompt explain` on drawn pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import small

CLIP = ["--method", "clip", "--backbone", "test-tiny", "--set", "image_size=56"]
CLIP += ["--device", "cpu"]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for number in range(2):
        small.picture_file(folder / f"part_{number}.png", seed=number)
    return folder


@pytest.fixture
def model(tmp_path):
    small.detector(prompts=2).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_three_files_a_picture_and_the_score_is_predicts(faprompt, pictures, model, tmp_path):
    out, chosen = tmp_path / "out", ["--model", model, "--device", "cpu"]
    told = faprompt("explain", pictures, *chosen, "--out", out, "--threshold", "0.1")
    assert told.code == 0 and len(told.lines) == 2
    predicted = faprompt("predict", pictures, *chosen, "--out", tmp_path / "p", "--batch-size", "1",
                         "--json")  # fmt: skip
    for line, row in zip(told.lines, map(json.loads, predicted.lines), strict=True):
        score, path, page = line.split("\t")
        assert score == f"{row['score']:.4f}" and path == row["path"]
        data = json.loads(Path(page).with_suffix(".json").read_text())
        assert data["score"] == row["score"] and data["verdict"] == "NG"
        assert len(data["prompts"]) == 2 and len(data["patches"]) == 10
        assert Path(page).with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "2 explained, 0 unreadable" in told.err and f"wrote {out}" in told.err


def test_json_lines_are_the_files(faprompt, pictures, tmp_path):
    told = faprompt("explain", pictures, *CLIP, "--out", tmp_path / "out", "--json")
    files = {json.loads(p.read_text())["path"]: p for p in (tmp_path / "out").glob("*.json")}
    rows = [json.loads(line) for line in told.lines]
    assert [json.loads(files[row["path"]].read_text()) for row in rows] == rows
    assert [row["prompts"] for row in rows] == [[], []]


def test_notes_of_the_reader_are_told(faprompt, pictures, tmp_path):
    frames = [Image.fromarray(small.picture(seed=seed)) for seed in (1, 2)]
    frames[0].save(pictures / "two.tif", save_all=True, append_images=frames[1:])
    told = faprompt("explain", pictures, *CLIP, "--out", tmp_path / "out", "--json")
    plain, _, framed = (json.loads(line)["notes"] for line in told.lines)
    assert framed == ["frame 0 of 2", *plain]
    assert "1 picture: frame 0 of 2\n" in told.err


def test_its_own_pictures_are_no_inputs(faprompt, pictures):
    out = pictures / "explained"
    assert faprompt("explain", pictures, *CLIP, "--out", out).code == 0
    assert len(faprompt("explain", pictures, *CLIP, "--out", out).lines) == 2


def test_a_broken_picture_is_a_line_and_exit_3(faprompt, pictures, tmp_path):
    (pictures / "part_0.png").write_bytes(b"no picture")
    told = faprompt("explain", pictures, *CLIP, "--out", tmp_path / "out")
    assert told.code == 3 and "1 explained, 1 unreadable" in told.err
    assert told.lines[0].startswith("ERROR\t") and "part_0.png" in told.lines[0]
    shown = [path.suffix for path in (tmp_path / "out").iterdir() if path.name[0] != "."]
    assert sorted(shown) == [".html", ".json", ".png"]
    told = faprompt("explain", pictures / "part_0.png", *CLIP, "--out", tmp_path / "o", "--json")
    assert told.code == 3 and set(json.loads(told.lines[0])) == {"path", "error"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--model", "x", "--method", "clip"], 2, "Got both --model and --method; give"),
        (["--method", "magic"], 2, "No method 'magic'; known: clip"),
        (["--model", "nowhere"], 1, "No model 'nowhere'"),
        (["--method", "faprompt", "--backbone", "test-tiny"], 1, "has to be trained first"),
        (["--method", "winclip", "--backbone", "test-tiny", "--set", "image_size=56", "--set",
          "windows=2", "--preset", "common"], 2, "as several squares"),
    ],
)  # fmt: skip
def test_refusals(faprompt, pictures, tmp_path, arguments, code, told):
    outcome = faprompt("explain", pictures, *arguments, "--out", tmp_path / "out")
    assert outcome.code == code, outcome.err
    assert outcome.err.startswith("faprompt: ") and told in outcome.err
    assert not (tmp_path / "out").exists()


def test_inputs_that_name_nothing(faprompt, tmp_path):
    outcome = faprompt("explain", tmp_path / "nowhere.png", *CLIP)
    assert outcome.code == 1 and "no such file or folder" in outcome.err


def test_what_pictures_show_is_told_to_methods_that_ask(faprompt, pictures, tmp_path):
    def scores(verb, *more):
        out, chosen = (
            tmp_path / f"{verb}{len(more)}",
            ["--method", "winclip", *CLIP[2:], "--set", "tiles=false"],
        )
        told = faprompt(verb, pictures, *chosen, *more, "--out", out, "--json")
        assert told.code == 0, told.err
        return [json.loads(line)["score"] for line in told.lines]

    named = scores("explain", "--class-name", "bottle")
    assert named == pytest.approx(scores("predict", "--class-name", "bottle"), abs=1e-6)
    assert named != scores("explain")
