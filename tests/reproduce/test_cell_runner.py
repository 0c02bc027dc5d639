"""A benchmark run in one go, run in pieces, and with things that break."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from PIL import Image

from faprompt.clip.weights import load_backbone, save_backbone
from faprompt.errors import ModelError
from faprompt.reproduce import cell_runner
from faprompt.reproduce.cell_runner import CellRunner, RunContext, run_benchmark
from faprompt.reproduce.table_files import TABLE_FILES, write_tables
from faprompt.training.training_config import TrainingConfig
from tests.helpers import folders
from tests.reproduce import toys


@pytest.fixture
def shelves(tmp_path):
    return toys.sets(tmp_path / "sets")


class Counted:
    """A function that counts its calls and may fail at one of them."""

    def __init__(self, work, *, fail_at=0, error=KeyboardInterrupt):
        self.work, self.fail_at, self.error, self.calls = work, fail_at, error, 0

    def __call__(self, *arguments, **options):
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error
        return self.work(*arguments, **options)


@pytest.fixture
def counted(monkeypatch):
    """Put a counter around a function that the runner calls."""

    def wrap(name, **options):
        counter = Counted(getattr(cell_runner, name), **options)
        monkeypatch.setattr(cell_runner, name, counter)
        return counter

    return wrap


def only(out, name):
    """The folder of the one cell of this name."""
    (folder,) = (out / "cells").glob(f"{name}__*")
    return folder


def files(out):
    return {name: (out / name).read_text() for name in TABLE_FILES}


def run(plan, out, **options):
    results = run_benchmark(plan, RunContext(out=out, **options))
    write_tables(plan, results, out)
    return results


def test_a_killed_and_resumed_run_is_an_uninterrupted_one(
    shelves, tmp_path, counted, monkeypatch, told
):
    plan = toys.plan(shelves)
    whole = run(plan, tmp_path / "whole")
    assert [result.status for result in whole] == ["done"] * 4
    lines = [line for line in told() if line.startswith("[")]
    assert [line.split(":")[0] for line in lines] == [
        "[1/4] clip__test-tiny__shelf", "[2/4] clip__test-tiny__drawer",
        "[3/4] faprompt__test-tiny__shelf", "[4/4] faprompt__test-tiny__drawer",
    ]  # fmt: skip

    out, found = tmp_path / "pieces", {}
    with monkeypatch.context() as patch:  # killed in the middle of the second evaluation
        patch.setattr(cell_runner, "evaluate", Counted(cell_runner.evaluate, fail_at=2))
        with pytest.raises(KeyboardInterrupt):
            run_benchmark(plan, RunContext(out=out), results=found)
    assert [result.status for result in found.values()] == ["done", "waiting", "waiting", "waiting"]
    assert "clip on drawer; faprompt on shelf, drawer: not run yet" in write_tables(
        plan, found.values(), out
    )
    with monkeypatch.context() as patch:  # and in the middle of the training
        patch.setattr(
            "faprompt.training.training_steps.TrainingRun.take_step",
            Counted(None, fail_at=1),
        )
        with pytest.raises(KeyboardInterrupt):
            run_benchmark(plan, RunContext(out=out))
    evaluations, trainings = counted("evaluate"), counted("train")
    pieces = run(plan, out)
    assert (evaluations.calls, trainings.calls) == (2, 1), "both clip cells were kept"
    assert [result.kept for result in pieces] == [True, True, False, False]
    assert files(out) == files(tmp_path / "whole")
    assert [r.metrics for r in pieces] == [r.metrics for r in whole]


def test_some_classes_are_cells_of_their_own(shelves, tmp_path):
    sets = [toys.entry("shelf"), {**toys.entry("shelf"), "classes": ["nut"]}]
    whole, nut = run(toys.plan(shelves, methods=[toys.CLIP], datasets=sets), tmp_path)
    assert list(whole.metrics["classes"]) == ["mug", "nut"]
    assert list(nut.metrics["classes"]) == ["nut"]
    assert nut.metrics["classes"]["nut"] == whole.metrics["classes"]["nut"]
    assert whole.record["fingerprint"] != nut.record["fingerprint"]
    assert len(list((tmp_path / "cells").iterdir())) == 2
    assert "| shelf (nut) |" in files(tmp_path)["table.md"]


def test_precision_is_the_files_unless_the_caller_says_otherwise(shelves, tmp_path):
    one = {"methods": [toys.CLIP], "datasets": [toys.entry("shelf")]}
    for stated, asked, wanted in (
        ({}, {}, "fp32"), ({"precision": "bf16"}, {}, "bf16"),
        ({"precision": "bf16"}, {"precision": "fp32"}, "fp32"),
        ({"precision": "bf16"}, {"precision": "auto"}, "fp32"),
    ):  # fmt: skip
        (result,) = run(toys.plan(shelves, **one, **stated), tmp_path, **asked)
        assert result.metrics["precision"] == wanted
        under = f"Precision of the image tower: {wanted}. Presets: paper with image_size=56 (clip)."
        assert under in files(tmp_path)["table.md"].splitlines()
        assert result.metrics["preset"] == "paper"


def test_a_hybrid_is_told_once_a_column_and_beneath_the_table(shelves, tmp_path, told):
    options = {"image_size": 56, "windows": [2]}
    methods = [{"name": "winclip", "preset": p, "options": options} for p in ("code", "common")]
    for method in methods:
        method["label"] = method["preset"]
    run(toys.plan(shelves, methods=methods), tmp_path)
    note = (
        "Preset `code` was published for ViT-B-16-plus-240:laion400m_e31. You run it on "
        "`test-tiny`: results are not comparable with published ones"
    )
    assert [line for line in told() if "Preset" in line] == [f"code: {note}"]
    assert files(tmp_path)["table.md"].count(f"- code: {note}.") == 1


def test_what_is_finished_is_kept_and_what_changed_is_not(shelves, tmp_path, counted):
    out = tmp_path / "out"
    first = run(toys.plan(shelves), out)
    evaluations, trainings = counted("evaluate"), counted("train")

    def again(**changes):
        evaluations.calls = trainings.calls = 0
        run(toys.plan(shelves, **changes), out)
        return evaluations.calls, trainings.calls

    assert again() == (0, 0)
    assert again(evaluation={**toys.FAST, "batch_size": 3}) == (0, 0), "moves no figure"
    assert again(evaluation={**toys.FAST, "fpr_limit": 0.2}) == (4, 0)
    assert again() == (0, 0), "cells of every configuration are kept"
    assert again(training={**toys.TRAINING, "epochs": 2}) == (2, 1)
    assert again(seeds=[111, 7], training={**toys.TRAINING, "epochs": 2}) == (2, 1)
    folders.picture(shelves / "drawer" / "cup" / "test" / "good" / "77.png")
    assert again(seeds=[111, 7], training={**toys.TRAINING, "epochs": 2}) == (3, 0)
    assert len(list((out / "cells").iterdir())) == 4 + 4 + 2 + 2 + 3, "nothing was overwritten"
    (shelves / "drawer").rename(shelves / "moved")
    moved = [toys.entry("shelf"), {"folder": "moved", "label": "drawer"}]
    changes = {"seeds": [111, 7], "training": {**toys.TRAINING, "epochs": 2}, "datasets": moved}
    assert again(**changes) == (0, 0), "a dataset may move"
    assert len(list((out / "models").iterdir())) == 3
    assert first[0].record["fingerprint"] != first[1].record["fingerprint"]


def redraw(path):
    """Another picture in a file of the same size and times; BMP stores pixels plainly."""
    before, times = path.read_bytes(), path.stat()
    kept = len(before) // 2
    path.write_bytes(before[:kept] + bytes(len(before) - kept))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == len(before) and path.read_bytes() != before


def as_bmp(folder):
    for path in folder.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()


@pytest.mark.parametrize("redrawn", ["cup/ground_truth/chip/0_mask.bmp", "cup/test/good/8.bmp"])
def test_a_file_redrawn_at_the_same_size_and_time_is_measured_anew(
    shelves, tmp_path, counted, redrawn
):
    as_bmp(shelves / "drawer")
    plan = toys.plan(shelves, methods=[toys.CLIP])
    run(plan, tmp_path / "out")
    assert [result.kept for result in run(plan, tmp_path / "out")] == [True, True]
    redraw(shelves / "drawer" / redrawn)
    again = run(plan, tmp_path / "out")
    assert [result.kept for result in again] == [True, False]
    fresh = run(plan, tmp_path / "fresh")
    assert [result.metrics for result in again] == [result.metrics for result in fresh]


def test_a_model_is_trained_anew_where_a_training_mask_was_redrawn(shelves, tmp_path, counted):
    as_bmp(shelves / "shelf")
    plan = toys.plan(shelves, methods=[toys.FAPROMPT])
    run(plan, tmp_path / "out")
    trainings = counted("train")
    assert [result.kept for result in run(plan, tmp_path / "out")] == [True, True]
    redraw(shelves / "shelf" / "mug" / "ground_truth" / "chip" / "0_mask.bmp")
    assert [result.kept for result in run(plan, tmp_path / "out")] == [False, False]
    assert trainings.calls == 1


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_backbone_replaced_behind_its_path_is_measured_anew(shelves, tmp_path, form):
    backbone = load_backbone("test-tiny")
    save_backbone(backbone, tmp_path / "weights")
    place = tmp_path / "weights" / ("" if form == "folder" else "model.safetensors")
    suffix = "" if form == "folder" else ":quickgelu"
    plan = toys.plan(shelves, methods=[toys.CLIP], backbones=[f"{place}{suffix}"])
    first = run(plan, tmp_path / "out")
    assert [result.kept for result in run(plan, tmp_path / "out")] == [True, True]
    size = (tmp_path / "weights" / "model.safetensors").stat().st_size
    with torch.no_grad():
        backbone.vision.visual.proj.neg_()
    save_backbone(backbone, tmp_path / "weights")
    assert (tmp_path / "weights" / "model.safetensors").stat().st_size == size
    again = run(plan, tmp_path / "out")
    assert [result.kept for result in again] == [False, False]
    assert again[0].metrics["mean"] != first[0].metrics["mean"]


def test_the_files_of_a_backbone_are_read_once_a_run(shelves, tmp_path, counted):
    save_backbone(load_backbone("test-tiny"), tmp_path / "weights")
    stamps = counted("backbone_stamp")
    plan = toys.plan(shelves, methods=[toys.CLIP], backbones=[str(tmp_path / "weights")])
    assert [result.status for result in run(plan, tmp_path / "out")] == ["done", "done"]
    assert stamps.calls == 1


def test_settings_written_out_are_the_settings_they_spell(shelves, tmp_path, counted):
    """Two labels of one configuration share the training and the evaluation."""
    options = toys.FAPROMPT["options"]
    spelled = {**toys.FAPROMPT, "label": "spelled", "options": {**options, "deep_length": 4}}
    other = {**toys.FAPROMPT, "label": "other", "options": {**options, "deep_length": 2}}
    plan = toys.plan(shelves, methods=[toys.FAPROMPT, spelled, other])
    evaluations, trainings = counted("evaluate"), counted("train")
    results = run(plan, tmp_path / "out")
    assert (trainings.calls, evaluations.calls) == (2, 4)
    assert [result.kept for result in results] == [False, False, True, True, False, False]
    assert [r.metrics for r in results[:2]] == [r.metrics for r in results[2:4]]


def test_benchmarks_that_share_a_folder_keep_their_results(shelves, tmp_path, counted):
    """The same method, trained longer in one of two benchmarks, as for different tables."""
    longer = {**toys.FAPROMPT, "training": {"epochs": 2}}
    plans = [toys.plan(shelves, methods=[method]) for method in (toys.FAPROMPT, longer)]
    for plan in plans:
        run(plan, tmp_path / "work")
    evaluations = counted("evaluate")
    for plan in plans:
        assert all(result.kept for result in run(plan, tmp_path / "work"))
    assert evaluations.calls == 0


@pytest.mark.parametrize("file", ["cell.json", "metrics.json"])
def test_a_file_cut_off_is_no_finished_cell(shelves, tmp_path, counted, file):
    plan = toys.plan(shelves, methods=[toys.CLIP])
    run(plan, tmp_path / "out")
    path = only(tmp_path / "out", "clip__test-tiny__shelf") / file
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    evaluations = counted("evaluate")
    assert [result.status for result in run(plan, tmp_path / "out")] == ["done", "done"]
    assert evaluations.calls == 1 and len(path.read_text()) > len(whole) / 2


def test_a_broken_dataset_stops_nothing_else(shelves, tmp_path, counted):
    hidden = (shelves / "drawer").rename(shelves / "hidden")
    (shelves / "drawer").mkdir()
    plan, out = toys.plan(shelves), tmp_path / "out"
    results = run(plan, out)
    assert [result.status for result in results] == ["done", "failed", "done", "failed"]
    record = json.loads((only(out, "clip__test-tiny__drawer") / "cell.json").read_text())
    assert record["status"] == "failed" and "is no dataset we know" in record["error"]
    assert "traceback" not in record, "an error of ours tells all in its words"
    markdown = (out / "table.md").read_text()
    assert "\n- clip on drawer; faprompt on drawer: failed: " in markdown

    hidden.rename(shelves / "drawer")  # in the place of the empty one
    evaluations = counted("evaluate")
    assert [result.status for result in run(plan, out)] == ["done"] * 4
    assert evaluations.calls == 2, "only the cells that failed"
    assert "Empty places" not in (out / "table.md").read_text()


def test_an_error_nobody_foresaw_is_written_down_in_full(shelves, tmp_path, counted):
    counted("evaluate", fail_at=1, error=RuntimeError("out of memory"))
    first, second = run(toys.plan(shelves, methods=[toys.CLIP]), tmp_path / "out")
    assert (first.status, second.status) == ("failed", "done")
    assert first.reason == "failed: RuntimeError: out of memory"
    assert "in _measure" in first.record["traceback"]


def test_a_training_that_fails_is_tried_once(shelves, tmp_path, counted):
    trainings = counted("train", fail_at=1, error=ModelError("no weights"))
    results = run(toys.plan(shelves, methods=[toys.FAPROMPT]), tmp_path / "out")
    assert trainings.calls == 1
    assert [r.reason for r in results] == ["failed: its training failed: no weights"] * 2


def test_a_ready_model_is_measured_as_it_is(shelves, tmp_path, counted):
    out = tmp_path / "out"
    run(toys.plan(shelves, methods=[toys.FAPROMPT]), out)
    (trained,) = (out / "models").iterdir()
    trainings = counted("train")
    ready = {"name": "faprompt", "model": str(trained), "label": "ready"}
    plan = toys.plan(shelves, methods=[ready, toys.FAPROMPT], backbones=["tiny"])
    results = [r for r in run(plan, tmp_path / "again") if r.cell.column.method.model]
    assert [result.cell.column.backbone for result in results] == ["test-tiny"] * 2
    written = json.loads((only(out, "faprompt__test-tiny__drawer") / "metrics.json").read_text())
    assert results[1].metrics["mean"] == written["mean"]
    assert trainings.calls == 1, "that of the other column, on tiny"


def test_missing_cells_are_told_and_not_run(shelves, tmp_path, counted):
    evaluations = counted("evaluate")
    plan = toys.plan(shelves, methods=["cap"], datasets=[toys.entry("none")])
    (result,) = run(plan, tmp_path / "out")
    assert (result.status, evaluations.calls) == ("missing", 0)
    assert result.reason == ("this version has no method 'cap'; no folder none below the data root")
    assert not (tmp_path / "out" / "cells").exists()


def test_unreadable_pictures_are_counted(shelves, tmp_path):
    (shelves / "drawer" / "cup" / "test" / "good" / "8.png").write_bytes(b"")
    results = run(toys.plan(shelves, methods=[toys.CLIP]), tmp_path / "out")
    assert [result.record["unreadable"] for result in results] == [0, 1]
    told = "clip__test-tiny__drawer: 1 pictures could not be read and are left out."
    assert told in (tmp_path / "out" / "table.md").read_text()


def test_methods_are_trained_by_their_recipes_and_cells_say_how(shelves, tmp_path, monkeypatch):
    """What was given goes first; a recipe that changes makes other cells."""
    configs = []

    def training(dataset, folder, options, **_):
        configs.append(TrainingConfig(**options.training))
        raise ModelError("enough seen")

    monkeypatch.setattr(cell_runner, "train", training)
    small = {"train_on": "shelf", "options": {"image_size": 56}}
    methods = [{"name": "coop", **small}, {"name": "anomalyclip", **small}]
    given = {"batch_size": 6, "cache": "off"}
    datasets = [toys.entry("shelf")]
    plan = toys.plan(shelves, methods=methods, training=given, datasets=datasets, seeds=[7])
    run_benchmark(plan, RunContext(out=tmp_path / "out"))
    told = [(c.optimizer, c.epochs, c.batch_size, c.seed, c.cache) for c in configs]
    assert told == [("sgd", 50, 6, 7, "off"), ("adam", 15, 6, 7, "off")]
    described = CellRunner(plan, RunContext(out=tmp_path, precision="fp32"))
    found = [described.identity(cell)["detector"]["training"] for cell in plan.cells]
    assert found[0] | {
        "optimizer": "sgd", "momentum": 0.9, "schedule": "cosine", "epochs": 50, "batch_size": 6,
        "seed": 7, "warmup_epochs": 1, "learning_rate": 0.002, "weight_decay": 5e-4,
    } == found[0]  # fmt: skip
    assert (found[1]["epochs"], found[1]["optimizer"]) == (15, "adam")
    assert not {"cache", "device", "readers"} & set(found[0])


def test_a_preset_fits_the_backbone_as_elsewhere(shelves, tmp_path):
    """What `predict --preset` builds: on `tiny` the size is the backbone's, not the preset's."""
    winclip = {"name": "winclip", "preset": "common"}
    plan = toys.plan(shelves, backbones=["tiny"], methods=[winclip])
    described = CellRunner(plan, RunContext(out=tmp_path, precision="fp32"))
    detector = described.detector(plan.cells[0])
    side = detector.backbone.spec.vision.image_size
    assert detector.transform.image_size == (side, side) and side < 518


def test_winclip_plus_is_measured_anew_where_its_references_changed(shelves, tmp_path):
    root, out = shelves / "shelf", tmp_path / "out"
    plain = {"name": "winclip", "options": {"image_size": 56}}
    options = {"image_size": 56, "references": [str(root)], "shots": 1}
    few = {"name": "winclip", "label": "1-shot", "options": options}
    plan = toys.plan(shelves, methods=[plain, few])
    first = run(plan, out)
    assert [result.status for result in first] == ["done", "done", "done", "failed"]
    assert "no references of cup; known: mug, nut" in first[3].reason
    assert [result.kept for result in run(plan, out)] == [True, True, True, False]
    reference = root / "mug" / "train" / "good" / "0.png"
    folders.picture(tmp_path / "another.png").replace(reference)
    again = run(plan, out)
    assert [result.kept for result in again] == [True, True, False, False]
    assert again[2].status == "done"


def test_full_shot_columns_learn_from_each_set_and_miss_where_they_cannot(shelves, tmp_path):
    pytest.importorskip("anomalib")
    for name in ("mug", "nut"):
        shutil.rmtree(shelves / "shelf" / name / "train")
    method = {"name": "patchcore", "preset": "common", "options": {"image_size": 56}}
    plan = toys.plan(shelves, methods=[method], training={})
    shelf, drawer = run(plan, tmp_path / "out")
    assert (shelf.status, drawer.status) == ("missing", "done"), (shelf.reason, drawer.reason)
    assert "its train split is empty" in shelf.reason
    assert {"image_auroc", "pixel_auroc"} <= set(drawer.metrics["mean"])
    (model,) = (tmp_path / "out" / "models").iterdir()
    assert model.name.startswith("patchcore__test-tiny__drawer__")
    again = run(plan, tmp_path / "out")
    assert again[1].kept
