"""`faprompt study` on folders drawn on the spot."""

from __future__ import annotations

import json

import pytest

from tests.reproduce import toys

STUDY = """
title = "Toys"
figure = "dots"

backbones = ["test-tiny"]
datasets = [{folder = "shelf", label = "shelf"}]
methods = [
    {name = "clip", label = "CLIP", options = {image_size = 56}},
    {name = "clip-ac", label = "CLIP-AC", options = {image_size = 56}},
]

[evaluation]
replicates = 0
gallery = 0
"""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr("faprompt.evaluation.metric_files._plot", lambda *_, **__: None)


@pytest.fixture
def file(tmp_path):
    toys.shelf(tmp_path / "sets" / "shelf")
    path = tmp_path / "study-toys.toml"
    path.write_text(STUDY)
    return path


def test_it_lists_its_studies(faprompt):
    told = faprompt("study", "list")
    assert told.code == 0 and any(line.startswith("ablation  ") for line in told.lines)
    rows = json.loads(faprompt("study", "--json").out)["studies"]
    assert {"complexity", "seeds", "tcp"} <= {row["name"] for row in rows}


def test_a_dry_run_of_a_paper_study_lists_runs_time_and_disk(faprompt, tmp_path):
    told = faprompt("study", "prompts-and-patches", "--dry-run", "--out", tmp_path / "out")
    assert told.code == 0 and not (tmp_path / "out").exists()
    assert "270 cells" in told.lines[0]
    assert "15 trainings" in told.out and "time: about" in told.out and "disk: " in told.out
    assert "one pass over 24,029 tested pictures serves all runs" in told.lines[-1]


def test_it_runs_writes_and_redraws(faprompt, file, tmp_path):
    out = tmp_path / "out"
    command = ["study", file, "--data-root", tmp_path / "sets", "--device", "cpu", "--out", out]
    told = faprompt(*command)
    assert told.code == 0 and told.out == (out / "study.md").read_text()
    assert told.lines[0] == "# Toys" and "4" in told.err
    before = (out / "figure.png").read_bytes()
    (out / "figure.png").unlink()
    again = faprompt("study", "redraw", out)
    assert again.lines == [str(out / "figure.svg"), str(out / "figure.png")]
    assert (out / "figure.png").read_bytes() == before
    rows = json.loads(faprompt(*command, "--json").out)["rows"]
    assert {row["label"] for row in rows} == {"CLIP", "CLIP-AC"}
    gone = faprompt(*command, "--dataset", "none")
    assert gone.code == 3 and "no folder none below the data root" in gone.out


def test_classes_and_precision_on_the_command_line(faprompt, file, tmp_path):
    command = ["study", file, "--data-root", tmp_path / "sets", "--device", "cpu"]
    file.write_text(STUDY.replace("backbones", 'precision = "bf16"\nbackbones'))
    told = faprompt(*command, "--class", "nut", "--out", tmp_path / "out")
    assert told.code == 0 and "| shelf (nut) |" in told.out
    assert "Precision of the image tower: bf16. Presets: paper" in told.out
    dry = faprompt(*command, "--class", "nut", "--dry-run")
    assert "clip__test-tiny__shelf-nut" in dry.lines[1].lower()
    told = faprompt(*command, "--class", "nut", "--precision", "fp32", "--out", tmp_path / "out")
    assert "Precision of the image tower: fp32. Presets: paper" in told.out
    wrong = faprompt(*command, "--class", "knob", "--dry-run")
    assert wrong.code == 2 and "has no class 'knob'. Its classes: mug, nut." in wrong.err
    cost = faprompt("study", "complexity", "--class", "nut", "--dry-run")
    assert cost.code == 2 and "needs no data and trains nothing" in cost.err


def test_a_dry_run_of_prompt_spread_tells_what_is_mapped(faprompt, tmp_path):
    told = faprompt("study", "prompt-spread", "--dry-run", "--out", tmp_path / "out")
    assert told.code == 0 and not (tmp_path / "out").exists()
    assert "12 cells" in told.lines[0] and "4 trainings" in told.out
    assert any(line.split()[1].endswith("__visa-pcb4") for line in told.lines[1:13])
    assert told.lines[-1].startswith("then up to 40 pictures of each dataset are mapped")
    assert "by 4 models" in told.lines[-1]
    fewer = faprompt("study", "prompt-spread", "--dry-run", "--dataset", "btad", "--seed", "1")
    assert "4 cells" in fewer.lines[0] and "by 4 models" in fewer.lines[-1]


def test_prompt_spread_goes_its_own_way_and_tells_its_numbers(faprompt, tmp_path, monkeypatch):
    """See tests/reproduce/test_prompt_spread for what it does."""
    from types import SimpleNamespace

    seen = {}

    def spread(plan, context):
        seen.update(name=plan.config.name, out=context.out, work=context.work)
        rows = [{"dataset": "shelf", "measure": "distance", "value": 0.5}]
        return SimpleNamespace(markdown="# Fig. 1\n", rows=rows, complete=False)

    monkeypatch.setattr("faprompt.reproduce.prompt_spread.run_spread", spread)
    out, work = tmp_path / "out", tmp_path / "work"
    command = ["study", "prompt-spread", "--device", "cpu", "--out", out, "--work", work]
    told = faprompt(*command)
    assert (told.code, told.out) == (3, "# Fig. 1\n"), "3: not complete"
    assert (seen["name"], seen["out"], seen["work"]) == ("prompt-spread", out, work)
    (row,) = json.loads(faprompt(*command, "--json").out)["rows"]
    assert row["value"] == 0.5


def test_a_gallery_says_what_it_scores_and_writes_its_sheets(faprompt, file, tmp_path):
    text = STUDY.replace('"dots"', '"gallery"') + "[gallery]\nseveral = 0\n"
    file.write_text(text)
    out = tmp_path / "out"
    command = ["study", file, "--data-root", tmp_path / "sets", "--device", "cpu", "--out", out]
    told = faprompt(*command, "--dry-run")
    assert told.code == 0 and not out.exists() and "2 cells" in told.lines[0]
    assert told.lines[-1].startswith("scored are only the pictures shown, 4 of each class")
    told = faprompt(*command)
    assert told.code == 0 and told.out == (out / "study.md").read_text()
    assert "sheets and a list for each dataset" in told.err
    rows = json.loads(faprompt(*command, "--json").out)["rows"]
    assert len(rows) == 2 * (2 + 1 + 1) - 2 and {"score: CLIP", "score: CLIP-AC"} <= set(rows[0])
    gone = faprompt(*command, "--dataset", "none")
    assert gone.code == 3 and "no folder none below the data root" in gone.out


def test_costs_need_no_data(faprompt, tmp_path, monkeypatch):
    from faprompt.reproduce.complexity import MethodCost, Timing

    monkeypatch.setattr(
        "faprompt.reproduce.complexity.measure_method",
        lambda name, *_, **__: [MethodCost(name, 5, 5, inference=Timing(2.0, 0.5), image_size=56)],
    )
    out = tmp_path / "out"
    told = faprompt("study", "complexity", "--backbone", "test-tiny", "--device", "cpu",
                    "--repeats", "4", "--out", out)  # fmt: skip
    assert told.code == 0 and "deviation of 4 calls after 2" in told.out
    assert (out / "figure.svg").is_file() and "test-tiny with trained weights" in told.out
    told = faprompt("study", "complexity", "--dry-run", "--drawn")
    assert told.code == 0 and "would measure  faprompt" in told.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ablations"], "No study 'ablations'; known: ablation, "),
        (["redraw"], "faprompt study redraw FOLDER"),
        (["tcp", "folder"], "faprompt study redraw FOLDER"),
        (["redraw", "no-such-folder"], "cannot be read"),
        (["tcp", "--measure"], "--measure belongs to --dry-run"),
        (["tcp", "--drawn"], "belong to the study complexity"),
        (["tcp", "--repeats", "3"], "belong to the study complexity"),
        (["complexity", "--epochs", "3"], "needs no data and trains nothing"),
        (["complexity", "--data-root", "."], "needs no data and trains nothing"),
        (["complexity", "--backbone", "a", "--backbone", "b"], "measures one --backbone"),
        (["complexity", "--backbone", "no-such", "--drawn"], "open_clip's names only"),
    ],
)
def test_refusals(faprompt, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    outcome = faprompt("study", *arguments)
    assert outcome.code == 2 and told in outcome.err
    assert not (tmp_path / "faprompt-study").exists()
