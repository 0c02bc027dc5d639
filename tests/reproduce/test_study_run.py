"""A whole study on folders drawn on the spot: files, shared features, resumption."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import pytest

from faprompt.clip.backbone import Backbone
from faprompt.reproduce import cell_runner, study_run
from faprompt.reproduce.cell_runner import RunContext
from faprompt.reproduce.study_figure import CSV_NAME, read_figure
from faprompt.training.features import Encoder
from tests.reproduce import study_toys as toys
from tests.reproduce import toys as benchmark_toys


@pytest.fixture(scope="module", autouse=True)
def undrawn(quick):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faprompt.reproduce.study_figure.draw", lambda *_: b"drawn")
        yield


def count_passes(patch):
    """Count pictures through the image tower: of trainings, and of all."""
    counted = {"all": 0, "training": 0}
    encode, train = Backbone.encode_image, Encoder._encode

    def every(self, pixels, *options):
        counted["all"] += len(pixels)
        return encode(self, pixels, *options)

    def training(self, pixels):
        counted["training"] += len(pixels)
        return train(self, pixels)

    patch.setattr(Backbone, "encode_image", every)
    patch.setattr(Encoder, "_encode", training)
    return counted


@pytest.fixture
def passes(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # or others' tokens are found
    return count_passes(monkeypatch)


def ran(plan, folder):
    """Run a study once for several tests: its folder, result, passes and log."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(study_run.logger, "info", lambda line, *_: lines.append(line))
        counted = count_passes(patch)
        result = run_study(plan, folder / "out")
    return SimpleNamespace(out=folder / "out", result=result, passes=counted, told=lines)


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory):
    return ran(toys.study(sets), tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def apart(sets, tmp_path_factory):
    """Without a cache: every run reads its pictures itself."""
    training = {**toys.TRAINING, "cache": "off"}
    return ran(toys.study(sets, training=training), tmp_path_factory.mktemp("apart"))


def run_study(plan, out):
    return study_run.run_study(plan, RunContext(out=out))


def texts(out):
    return {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != "costs.csv"}


def test_all_runs_share_one_feature_pass(whole):
    out, result = whole.out, whole.result
    assert result.complete and len(result.results) == 6
    # 8 pictures of shelf train and are tested, 4 of drawer are tested: once each for 3 runs
    assert whole.passes == {"all": 8 + 8 + 4, "training": 8}
    assert any("12 encoded in" in line and "24 taken from those" in line for line in whole.told)
    assert not (out / "features").exists(), "what is done needs no tokens"
    costs = list(csv.DictReader((out / "costs.csv").read_text().splitlines()))
    assert [(row["run"], row["encoded"]) for row in costs] == [
        ("K = 1", "8"), ("K = 2 / M = 4", "0"), ("M = 8", "0"),
    ]  # fmt: skip
    assert "3 trainings encoded 8 pictures in all (a training set has 8)" in result.markdown


def test_shared_tokens_change_no_figure(whole, apart):
    """With `cache = off` every run reads its pictures itself; the metrics are the same bits."""
    assert [r.metrics for r in apart.result.results] == [r.metrics for r in whole.result.results]
    assert apart.result.dots == whole.result.dots
    assert apart.passes["all"] == 3 * (8 + 8 + 4), "no cache, no sharing: each encodes for itself"


def test_the_files_tell_what_the_cells_hold(whole):
    out, result = whole.out, whole.result
    assert {p.name for p in out.iterdir()} == {
        "cells", "models", "costs.csv", "figure.csv", "figure.svg", "figure.png", "study.md",
        "table.md", "table.csv", "table.tex", "table.html",
    }  # fmt: skip
    assert read_figure(out / CSV_NAME) == result.dots
    dots = {(d.metric, d.series, d.label): d.value for d in result.dots}
    found = next(r for r in result.results if r.cell.name == "M-8__test-tiny__drawer")
    assert found.folder is not None and found.folder.parent == out / "cells"
    cell = json.loads((found.folder / "metrics.json").read_text())
    assert dots["image AUROC", "drawer", "M = 8"] == cell["mean"]["image_auroc"]
    for metric, series in {(d.metric, d.series) for d in result.dots}:
        assert dots[metric, series, "K = 2"] == dots[metric, series, "M = 4"], "one run"
    lines = result.markdown.splitlines()
    assert lines[0] == "# K and M" and "The paper: more is better." in lines
    assert "![figure](figure.svg)" in lines and "## image AUROC" in lines
    assert any(line.startswith("| two are better than one | ") for line in lines)


def test_a_killed_and_resumed_study_is_an_uninterrupted_one(
    whole, sets, tmp_path, passes, monkeypatch
):
    study, calls = toys.study(sets), []

    def failing(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    evaluate, out = cell_runner.evaluate, tmp_path / "pieces"
    with monkeypatch.context() as patch:
        patch.setattr(cell_runner, "evaluate", failing)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, out)
    assert "not run yet" in (out / "study.md").read_text()
    assert {d.label for d in read_figure(out / CSV_NAME)} == {"K = 1"}
    passes["all"] = 0
    run_study(study, out)
    assert passes["all"] == 4, "tokens of shelf were kept, so only drawer's 4 pictures are encoded"
    ours, theirs = texts(out), texts(whole.out)
    for both in (ours, theirs):
        lines = both["study.md"].decode().splitlines()
        both["study.md"] = "\n".join(line for line in lines if not line.startswith("Cost: "))
    assert ours == theirs
    passes["all"] = 0
    again = run_study(study, out)
    assert passes["all"] == 0 and all(r.kept for r in again.results)


def test_what_lacks_its_data_is_told_and_stops_nothing(tmp_path):
    sets = benchmark_toys.sets(tmp_path / "sets")
    (sets / "drawer").rename(sets / "hidden")
    result = run_study(toys.study(sets), tmp_path / "out")
    assert not result.complete
    assert {r.status for r in result.results} == {"done", "missing"}
    assert {d.series for d in result.dots} == {"shelf"}
    assert "no folder drawer below the data root" in result.markdown


def test_seeds_have_dots_of_their_own_and_a_claim(sets, tmp_path):
    clip = {"name": "clip", "label": "CLIP", "options": {"image_size": 56}}
    changes = toys.one_axis(
        [clip, toys.method("FAPrompt")], figure="seeds", seeds=[1, 2, 3],
        datasets=[benchmark_toys.entry("shelf")],
        claims=[{"text": "it is better", "better": "FAPrompt", "than": ["CLIP"]}],
    )  # fmt: skip
    result = run_study(toys.study(sets, **changes), tmp_path / "out")
    assert result.complete and len(result.results) == 4
    place = [d for d in result.dots if (d.metric, d.label) == ("image AUROC", "FAPrompt")]
    seeds = [d.value for d in place if d.source == "seed"]
    (mean,) = [d for d in place if d.source == "ours"]
    assert len(seeds) == 3 and mean.value == pytest.approx(sum(seeds) / 3)
    spread = (sum((v - mean.value) ** 2 for v in seeds) / 2) ** 0.5
    assert mean.spread == pytest.approx(spread)
    assert [d.note for d in place if d.source == "seed"] == ["1", "2", "3"]
    assert "shelf image AUROC: FAPrompt less CLIP | " in result.markdown
