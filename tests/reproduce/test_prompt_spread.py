"""Fig. 1 end to end on folders drawn on the spot: files, resumption, redrawing, refusals."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from faprompt.errors import ConfigError
from faprompt.reproduce import cell_runner, prompt_maps, prompt_spread
from faprompt.reproduce.cell_runner import CellRunner, RunContext
from faprompt.reproduce.cells import slug
from faprompt.reproduce.prompt_maps import gather_prompt_maps, pair_distance, spaced_samples
from faprompt.reproduce.prompt_spread import (
    describe_mapping,
    redraw_study,
    run_spread,
    spread_folder,
)
from faprompt.reproduce.study_figure import read_figure
from faprompt.reproduce.study_run import run_study
from tests.reproduce import study_toys as toys
from tests.reproduce import toys as benchmark_toys

PAIR = {"wide": "FAPrompt", "narrow": "Ensemble*"}
FILES = {f"{name}.{kind}" for name in ("prompt-maps", "prompt-spread")
         for kind in ("csv", "svg", "png")}  # fmt: skip


def method(label, name, **options):
    return {"name": name, "label": label, "options": {"image_size": 56, **options}}


def values(*, seeds=(1, 2), spread=PAIR, names=("shelf", "drawer")):
    """Three methods; `spread` is the table of that name."""
    methods = [
        method("AnomalyCLIP", "anomalyclip"),
        method("Ensemble*", "anomalyclip-ensemble", prompts=3),
        method("FAPrompt", "faprompt", prompts=3, patches=4),
    ]
    return toys.one_axis(
        methods,
        figure="spread",
        claims=[{"text": "it is better", "better": "FAPrompt", "than": ["Ensemble*"]}],
        spread={"per_label": 2, **spread},
        seeds=list(seeds),
        datasets=[benchmark_toys.entry(name) for name in names],
    )


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of what is mapped: figures cost more than all the rest."""
    monkeypatch.setattr("faprompt.reproduce.study_figure.draw", lambda *_: b"drawn")
    monkeypatch.setattr(prompt_spread, "write_spread", lambda *_: ())


@pytest.fixture(scope="module")
def ran(sets, tmp_path_factory):
    """The study once, and its folder."""
    out = tmp_path_factory.mktemp("out")
    study = toys.study(sets, **values())
    return study, out, run_spread(study, RunContext(out=out))


def pictures(folder):
    places = [*folder.glob("figure.[sp]*"), *folder.glob("spread/*/*.[sp]*")]
    return {path.relative_to(folder): path.read_bytes() for path in places}


def test_every_dataset_has_its_figures_and_the_page_shows_them(ran):
    _, out, result = ran
    assert result.complete and set(result.spreads) == {"shelf", "drawer"}
    page = (out / "study.md").read_text()
    assert page == result.markdown and page.startswith("# K and M\n\nThe paper: more is better.")
    for name in ("shelf", "drawer"):
        assert {p.name for p in (out / "spread" / name).iterdir()} == FILES
        for figure in ("prompt-maps", "prompt-spread"):
            assert f"](spread/{name}/{figure}.svg)" in page
    assert "the prompts' maps of FAPrompt lie farther apart than those of Ensemble" in page
    assert "## What the same models detect" in page and "![figure](figure.svg)" in page
    assert "Measured on 2 normal and 2 anomalous pictures." in page
    assert not (out / "map-features").exists(), "what is done needs no tokens"


def test_numbers_are_those_of_the_models_the_benchmark_trained(ran, sets):
    study, out, result = ran
    pick = CellRunner(study, RunContext(out=out)).detector
    cells = [c for c in study.cells if c.source.entry.key == "shelf"]
    for cell in cells:
        if cell.column.title == "AnomalyCLIP":
            continue
        dataset = cell.source.read()
        chosen = spaced_samples(dataset.samples, per_label=2)
        wanted = pair_distance(gather_prompt_maps(pick(cell), chosen)).mean()
        (row,) = [
            row for row in result.rows
            if row["dataset"] == "shelf" and row["series"] == "all pictures"
            and row["label"] == f"{cell.column.title}: seed {cell.seed}"
        ]  # fmt: skip
        assert row["value"] == pytest.approx(wanted, rel=1e-4)


def test_rows_go_method_by_method_with_their_means(ran):
    rows = [row for row in ran[2].rows if row["dataset"] == "shelf"]
    names = list(dict.fromkeys(row["label"] for row in rows))
    assert names == [
        "Ensemble*: seed 1", "Ensemble*: seed 2", "Ensemble*, mean of 2 models",
        "FAPrompt: seed 1", "FAPrompt: seed 2", "FAPrompt, mean of 2 models",
    ]  # fmt: skip
    for row in rows:
        if "mean" in row["label"]:
            method = row["label"].partition(",")[0]
            each = [r["value"] for r in rows if r["label"].startswith(f"{method}:")
                    and r["series"] == row["series"]]  # fmt: skip
            assert row["value"] == pytest.approx(np.mean(each)) and row["note"] == "mean of 2"


def test_the_figure_of_what_they_detect_is_beside(ran):
    dots = read_figure(ran[1] / "figure.csv")
    assert {d.form for d in dots} == {"spread"}
    assert {d.label for d in dots} == {"AnomalyCLIP", "Ensemble*", "FAPrompt"}
    rows = list(csv.DictReader((ran[1] / "spread" / "shelf" / "prompt-spread.csv").open()))
    assert [float(row["value"]) for row in rows] == [
        row["value"] for row in ran[2].rows if row["dataset"] == "shelf"
    ]


def test_only_the_first_seed_is_embedded_and_one_prompt_has_points_alone(ran):
    found = ran[2].spreads["shelf"]
    points = [point for maps in found for point in maps.points]
    counts = {}
    for p in points:
        counts[p.method, p.model] = counts.get((p.method, p.model), 0) + 1
    assert counts == {("AnomalyCLIP", "seed 1"): 4, ("Ensemble*", "seed 1"): 12,
                      ("FAPrompt", "seed 1"): 12}  # fmt: skip
    assert all(bool(maps.distances) == (maps.method != "AnomalyCLIP") for maps in found)
    assert {p.path for p in points} <= {
        f"{name}/test/{kind}.png" for name in ("mug", "nut")
        for kind in ("good/8", "good/9", "chip/0", "chip/1")
    }, "told below the dataset's folder"  # fmt: skip


def test_all_figures_are_redrawn_the_same_from_their_csv_alone(ran):
    out = ran[1]
    before = pictures(out)
    for path in before:
        (out / path).unlink()
    paths = redraw_study(out)
    assert {p.relative_to(out) for p in paths} == set(before) and len(before) == 2 + 2 * 4
    assert pictures(out) == before
    with pytest.raises(ConfigError, match="cannot be read"):
        redraw_study(out / "cells")


def test_the_same_call_goes_on_and_maps_nothing_again(undrawn, ran, sets, monkeypatch):
    study, out, result = ran
    monkeypatch.setattr(prompt_maps, "gather_prompt_maps", lambda *_: pytest.fail("mapped again"))
    again = run_spread(study, RunContext(out=out))
    assert again.spreads == result.spreads and again.markdown == result.markdown
    rows = again.rows
    assert {row["dataset"] for row in rows} == {"shelf", "drawer"} and json.dumps(rows)


def test_what_was_cut_off_or_is_of_other_options_is_mapped_again(undrawn, ran, sets, monkeypatch):
    study, out, result = ran
    mapped, plain = [], prompt_maps.gather_prompt_maps

    def counted(detector, samples):
        mapped.append(detector.method.name)
        return plain(detector, samples)

    monkeypatch.setattr(prompt_maps, "gather_prompt_maps", counted)
    place = out / "maps" / "FAPrompt__test-tiny__shelf__seed2.json"
    whole = place.read_bytes()
    place.write_bytes(whole[:40])
    assert run_spread(study, RunContext(out=out)).spreads == result.spreads
    assert mapped == ["faprompt"] and place.read_bytes() == whole
    config = replace(study.config, spread=replace(study.config.spread, per_label=1 + 1 + 1))
    wider = run_spread(replace(study, config=config), RunContext(out=out))
    assert len(mapped) == 1 + 12 and wider.spreads != result.spreads


def test_its_trainings_are_those_of_another_study_in_the_same_work_folder(
    undrawn, sets, tmp_path, monkeypatch
):
    """As of `seeds`: the same method, options, data and seed are one model folder."""

    given = values(seeds=(1,), names=("drawer",))
    work = tmp_path / "work"
    first = {**given, "methods": given["methods"][::2], "figure": "seeds", "claims": []}
    del first["spread"]
    run_study(toys.study(sets, **first), RunContext(out=tmp_path / "seeds", work=work))
    models = {p.name for p in (work / "models").iterdir()}
    trained, train = [], cell_runner.train

    def counted(*arguments, **options):
        trained.append(arguments[2].method)
        return train(*arguments, **options)

    monkeypatch.setattr(cell_runner, "train", counted)
    out = tmp_path / "spread"
    result = run_spread(toys.study(sets, **given), RunContext(out=out, work=work))
    assert result.complete and trained == ["anomalyclip-ensemble"]
    assert models < {p.name for p in (work / "models").iterdir()}
    assert not (out / "models").exists() and not (out / "cells").exists()
    assert "| · distance on drawer: FAPrompt less Ensemble\\* |" in result.markdown
    assert "] over pictures |" in result.markdown.partition("## The prompts' maps")[0]


def test_a_model_that_lacks_its_run_is_told_and_the_others_are_mapped(
    undrawn, ran, sets, monkeypatch, caplog
):
    study, out, _ = ran

    def refuse(detector, samples):
        raise ConfigError("no such maps.")

    monkeypatch.setattr(prompt_maps, "gather_prompt_maps", refuse)
    place = out / "maps" / "FAPrompt__test-tiny__drawer.json"
    (out / "maps" / "Ensemble__test-tiny__drawer__seed1.json").unlink()
    caplog.set_level("INFO", "faprompt")
    result = run_spread(study, RunContext(out=out))
    assert not place.exists() and not result.complete
    assert any("was not mapped: no such maps." in line for line in result.lacking)
    assert result.lacking[0] in result.markdown and result.lacking[0] in caplog.messages


def test_several_backbones_have_folders_of_their_own(ran):
    cell = ran[0].cells[0]
    assert spread_folder(cell, several=False) == "shelf"
    assert spread_folder(cell, several=True) == f"shelf__{slug('test-tiny')}"


def test_the_dry_run_tells_what_is_mapped():
    study = toys.study(**values())
    assert describe_mapping(study, study.config.spread).startswith(
        "then up to 4 pictures of each dataset are mapped prompt by prompt by 6 models"
    )


def test_a_study_without_the_table_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"toys has no table \[spread\]"):
        run_spread(toys.study(), RunContext(out=tmp_path))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spread": {**PAIR, "wide": "FAPromt"}}, "methods that are not there: FAPromt"),
        ({"spread": {**PAIR, "narrow": "FAPrompt"}}, "wide and narrow should differ"),
        ({"spread": {**PAIR, "per_label": 1}}, "per_label should be at least 2"),
        ({"spread": {**PAIR, "embedded": 0}}, "embedded should be at least 1, got 0"),
        ({"spread": {**PAIR, "perplexity": 3}}, "unknown option 'perplexity'"),
        ({"spread": {**PAIR, "replicates": 7}}, "unknown option 'replicates'"),
    ],
)
def test_refusals_of_the_table(changes, told):
    with pytest.raises(ConfigError, match=told):
        toys.config(**values(**changes))


def test_the_table_belongs_to_its_figure():
    with pytest.raises(ConfigError, match=r"figure = 'spread' and \[spread\] belong together"):
        toys.config(**{**values(), "figure": "dots"})
    with pytest.raises(ConfigError, match=r"figure = 'spread' and \[spread\] belong together"):
        toys.config(figure="spread")
