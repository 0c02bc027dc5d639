"""Which cells a benchmark has, what trains them, and what is missing."""

from __future__ import annotations

import shutil

import pytest

from faprompt.errors import ConfigError
from faprompt.reproduce.cells import build_plan
from faprompt.reproduce.experiment import parse_experiment, read_experiment
from tests.reproduce import toys


def names(plan):
    return [cell.name for cell in plan.cells]


def test_cells_are_methods_by_backbones_by_seeds_by_datasets(tmp_path):
    plan = toys.plan(tmp_path, backbones=["tiny", "test-tiny"], seeds=[111, 7])
    assert names(plan) == [
        f"{method}__{backbone}__{dataset}{seed}"
        for method, seeds in (("clip", [""]), ("faprompt", ["", "__seed7"]))
        for backbone in ("tiny", "test-tiny")
        for seed in seeds
        for dataset in ("shelf", "drawer")
    ]
    assert [column.title for column in plan.columns] == [
        "clip (tiny)", "clip (test-tiny)", "faprompt (tiny)", "faprompt (test-tiny)",
    ]  # fmt: skip
    column, source = plan.columns[2], plan.sources[1]
    assert [cell.seed for cell in plan.cells_of(column, source)] == [111, 7]
    assert plan.columns[0].method.learns is False and column.method.learns is True


def test_the_papers_protocol_is_the_default():
    plan = toys.plan(methods=["faprompt", "clip"], datasets=["mvtec", "visa", "kvasir"])
    trained = [cell.trained_on.entry.id for cell in plan.cells if cell.trained_on]
    assert trained == ["visa", "mvtec", "mvtec"], "for mvtec, visa, kvasir; clip has none"


def test_prompts_may_come_from_any_set(tmp_path):
    toys.shelf(tmp_path / "attic")
    for wanted, folder in (("drawer", "drawer"), ("btad", "btad"), ("attic", "attic")):
        method = {**toys.FAPROMPT, "train_on": wanted}
        plan = toys.plan(tmp_path, methods=[method])
        assert {cell.trained_on.folder for cell in plan.cells} == {tmp_path / folder}
        missing = (
            "" if wanted == "attic" else f"to train on: no folder {folder} below the data root"
        )
        assert missing in "; ".join(plan.cells[0].missing)


def test_classes_are_tested_alone_but_trained_on_whole_sets(tmp_path):
    toys.shelf(tmp_path / "shelf")
    sets = [toys.entry("shelf"), {**toys.entry("shelf"), "classes": ["nut"]}]
    plan = toys.plan(tmp_path, datasets=sets)
    assert names(plan) == [
        "clip__test-tiny__shelf", "clip__test-tiny__shelf-nut",
        "faprompt__test-tiny__shelf", "faprompt__test-tiny__shelf-nut",
    ]  # fmt: skip
    assert [source.read().class_names() for source in plan.sources] == [("mug", "nut"), ("nut",)]
    trained = {cell.trained_on.key for cell in plan.cells if cell.trained_on}
    assert trained == {"shelf"}
    alone = toys.plan(tmp_path, datasets=[sets[1]])
    assert alone.cells[-1].trained_on.read().class_names() == ("mug", "nut")


@pytest.mark.parametrize("classes", [["knob"], ["nut", "knob"], ["Nut"]])
def test_an_unknown_class_is_an_error_that_lists_the_known(tmp_path, classes):
    toys.shelf(tmp_path / "shelf")
    with pytest.raises(ConfigError, match=r"shelf has no class '(knob|Nut)'.*: mug, nut"):
        toys.plan(tmp_path, datasets=[{**toys.entry("shelf"), "classes": classes}])


def test_classes_of_a_folder_that_is_absent_or_unreadable_are_not_checked(tmp_path):
    (tmp_path / "shelf").mkdir()
    sets = [{**toys.entry(name), "classes": ["nut"]} for name in ("shelf", "drawer")]
    plan = toys.plan(tmp_path, datasets=sets, methods=["clip"])
    assert [bool(cell.missing) for cell in plan.cells] == [False, True]


def test_where_datasets_lie(tmp_path):
    (tmp_path / "sets" / "visa").mkdir(parents=True)
    (tmp_path / "sets" / "MVTEC").mkdir()
    (tmp_path / "b.toml").write_text(
        'methods = ["clip"]\ndatasets = ["visa", "mvtec", "btad"]\n'
        '[data]\nroot = "sets"\nfolders = {mvtec = "MVTEC"}\n'
    )
    config = read_experiment(tmp_path / "b.toml")
    visa, mvtec, btad = build_plan(config).sources
    assert (visa.folder, visa.missing) == (tmp_path / "sets" / "visa", ())
    assert (mvtec.folder, mvtec.missing) == (tmp_path / "sets" / "MVTEC", ())
    assert btad.missing == ("no folder btad below the data root",)
    elsewhere = build_plan(config, data_root=tmp_path).sources[0]
    assert elsewhere.folder == tmp_path / "visa" and elsewhere.missing
    rootless = parse_experiment({"methods": ["clip"], "datasets": ["visa"]})
    assert build_plan(rootless).sources[0].missing == ("no data root: give --data-root",)


def test_methods_we_lack_are_missing_and_have_one_cell_each():
    plan = toys.plan(methods=["cap"], seeds=[1, 2], datasets=["visa"])
    (cell,) = plan.cells
    assert cell.missing[0] == "this version has no method 'cap'"
    assert cell.seed is None and cell.trained_on is None


def test_full_shot_methods_learn_from_each_sets_own_train_split(tmp_path):
    for name in ("shelf", "drawer"):
        toys.shelf(tmp_path / name)
    for name in ("mug", "nut"):
        shutil.rmtree(tmp_path / "shelf" / name / "train")
    common = {"name": "patchcore", "preset": "common"}
    plan = toys.plan(tmp_path, methods=[common, "rd4ad"], seeds=[111, 7])
    assert [column.backbone for column in plan.columns] == ["test-tiny", "wide_resnet50_2"]
    assert {column.method.learns for column in plan.columns} == {True}
    shelf, drawer = plan.cells[:2]
    assert drawer.missing == () and [s.label for s in drawer.trained_on.read()] == [0, 0]
    assert (drawer.trained_on.key, drawer.source.key) == ("drawer, train split", "drawer")
    (reason,) = shelf.missing
    assert reason.startswith("to train on: ") and "its train split is empty" in reason
    assert "put them into <class>/train/good" in reason


def test_full_shot_methods_are_told_no_set():
    with pytest.raises(ConfigError, match="own train split; leave train_on out"):
        toys.plan(methods=[{"name": "rd4ad", "train_on": "visa"}])


def test_a_reader_we_lack_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("faprompt.reproduce.cells.list_datasets", lambda: ("visa",))
    plan = toys.plan(tmp_path, methods=["clip"], datasets=["visa", "mvtec"])
    assert plan.sources[1].missing == ("this version has no reader for 'mvtec'",)


def test_a_model_brings_its_backbone(tmp_path):
    ready = {"name": "faprompt", "model": "tiny", "label": "bundled"}
    wrong = {"name": "anomalyclip", "model": "tiny", "label": "wrong"}
    gone = {"name": "faprompt", "model": str(tmp_path / "none"), "label": "gone"}
    plan = toys.plan(tmp_path, methods=[ready, wrong, gone], backbones=["test-tiny", "tiny"])
    assert [column.backbone for column in plan.columns] == ["tiny", "tiny", ""]
    ready, wrong, gone = plan.columns
    assert (ready.missing, ready.method.learns) == ((), False)
    assert wrong.missing == ("the model tiny is faprompt, not anomalyclip",)
    assert "it is neither bundled" in gone.missing[0]
    assert names(plan)[0] == "bundled__tiny__shelf" and names(plan)[-1] == "gone__model__drawer"


def test_cells_may_not_share_a_folder():
    methods = [{**toys.CLIP, "label": "CAP w/o"}, {**toys.CLIP, "label": "cap w-o"}]
    with pytest.raises(ConfigError, match="several cells would be written to cap-w-o__test-tiny"):
        toys.plan(methods=methods)
