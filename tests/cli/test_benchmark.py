"""`faprompt benchmark` on folders drawn on the spot."""

from __future__ import annotations

import json

import pytest

from tests.reproduce import toys

CONFIG = """
title = "Toys"
backbones = ["test-tiny"]
datasets = [{folder = "shelf", label = "shelf"}, "brainmri"]
published = [15]

[[methods]]
name = "clip"
options = {image_size = 56}

[evaluation]
replicates = 0
gallery = 0

[table]
metrics = [["image_auroc", "image_ap"]]
"""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr("faprompt.evaluation.metric_files._plot", lambda *_, **__: None)


@pytest.fixture
def config(tmp_path):
    toys.shelf(tmp_path / "sets" / "shelf")
    path = tmp_path / "toys.toml"
    path.write_text(CONFIG)
    return path


def test_a_dry_run_lists_cells_and_touches_nothing(faprompt, config, tmp_path):
    told = faprompt(
        "benchmark",
        config,
        "--data-root",
        tmp_path / "sets",
        "--dry-run",
        "--out",
        tmp_path / "out",
    )
    assert told.code == 0 and not (tmp_path / "out").exists()
    assert told.lines[:3] == [
        "Toys: 2 cells, 4 figures",
        "  would run  clip__test-tiny__shelf",
        "  missing    clip__test-tiny__brainmri  (no folder brainmri below the data root)",
    ]
    assert "2 evaluations of 261 pictures in all, 0 trainings" in told.out
    as_json = json.loads(faprompt("benchmark", config, "--dry-run", "--json").out)
    assert [cell["status"] for cell in as_json["cells"]] == ["missing", "missing"]
    assert {place["dataset"] for place in as_json["places"]} == {"shelf", "brainmri"}
    assert as_json["estimate"]["pictures"] == 253 and as_json["estimate"]["uncounted"] == ["shelf"]


def test_a_dry_run_may_measure(faprompt, config, tmp_path):
    told = faprompt("benchmark", config, "--data-root", tmp_path / "sets", "--dry-run",
                    "--measure", "--device", "cpu")  # fmt: skip
    assert told.code == 0 and "(measured on this machine)" in told.out


def test_tables_are_printed_and_written_and_gaps_are_exit_3(faprompt, config, tmp_path):
    command = ["benchmark", config, "--data-root", tmp_path / "sets", "--device", "cpu", "--out"]
    told = faprompt(*command, tmp_path / "out")
    assert told.code == 3
    assert told.out == (tmp_path / "out" / "table.md").read_text()
    assert "[1/2] clip__test-tiny__shelf: image_auroc" in told.err
    assert "- clip on brainmri: no folder brainmri below the data root" in told.lines

    config.write_text(CONFIG.replace(', "brainmri"', ""))
    told = faprompt(*command, tmp_path / "out", "--json")
    assert told.code == 0 and "(kept)" in told.err
    (cell,) = json.loads(told.out)["cells"]
    (written,) = (tmp_path / "out" / "cells").glob("clip__test-tiny__shelf__*/metrics.json")
    assert cell["status"] == "done" and cell["metrics"] == json.loads(written.read_text())
    told = faprompt(*command, tmp_path / "tables", "--work", tmp_path / "out")
    assert told.code == 0 and "(kept)" in told.err
    assert sorted(path.name for path in (tmp_path / "tables").glob("[!.]*")) == [
        "table.csv", "table.html", "table.md", "table.tex",
    ]  # fmt: skip


def test_classes_and_precision_on_the_command_line(faprompt, config, tmp_path):
    config.write_text(
        CONFIG.replace(', "brainmri"', "").replace("title", 'precision = "bf16"\ntitle')
    )
    command = ["benchmark", config, "--data-root", tmp_path / "sets", "--device", "cpu"]
    dry = faprompt(*command, "--class", "nut", "--dry-run")
    assert dry.code == 0 and dry.lines[1] == "  would run  clip__test-tiny__shelf-nut"
    told = faprompt(*command, "--class", "nut", "--out", tmp_path / "out", "--json")
    (cell,) = json.loads(told.out)["cells"]
    assert list(cell["metrics"]["classes"]) == ["nut"] and cell["metrics"]["precision"] == "bf16"
    other = faprompt(*command, "--precision", "fp32", "--out", tmp_path / "out", "--json")
    (cell,) = json.loads(other.out)["cells"]
    assert list(cell["metrics"]["classes"]) == ["mug", "nut"]
    assert cell["metrics"]["precision"] == "fp32"
    both = faprompt(*command, "--class", "nut", "--class", "mug", "--dry-run")
    assert both.lines[1] == "  would run  clip__test-tiny__shelf-nut-mug"
    wrong = faprompt(*command, "--class", "knob", "--dry-run")
    assert wrong.code == 2 and "has no class 'knob'. Its classes: mug, nut." in wrong.err


def test_an_interrupted_run_leaves_its_tables(faprompt, config, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("faprompt.reproduce.cell_runner.evaluate", interrupt)
    told = faprompt("benchmark", config, "--data-root", tmp_path / "sets", "--device", "cpu",
                    "--out", tmp_path / "out")  # fmt: skip
    assert told.code == 130 and "with the same command)" in told.err
    assert "- clip on shelf: not run yet" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize(
    ("text", "arguments", "told"),
    [
        (CONFIG, ["--measure"], "--measure belongs to --dry-run"),
        (CONFIG.replace('"clip"', '"clips"'), ["--dry-run"], "no method 'clips'"),
        (CONFIG.replace("title", "titel"), [], "unknown option 'titel'"),
        (CONFIG + "=", [], "is not TOML"),
    ],
)
def test_refusals(faprompt, config, tmp_path, text, arguments, told):
    config.write_text(text)
    outcome = faprompt("benchmark", config, *arguments, "--out", tmp_path / "out")
    assert outcome.code == 2 and told in outcome.err and not (tmp_path / "out").exists()
