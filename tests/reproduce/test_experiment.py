"""A benchmark's file: what it may say, and every refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from faprompt.errors import ConfigError
from faprompt.reproduce.experiment import (
    change_experiment,
    parse_experiment,
    read_experiment,
)
from faprompt.reproduce.protocol import (
    find_published,
    group_members,
    group_of,
    paper_has,
    published_methods,
)
from faprompt.reproduce.published import published_table
from faprompt.training.training_config import recipe_config
from tests.reproduce import toys

FILE = """
title = "Parts"
backbones = ["tiny", "test-tiny"]
seeds = [111, 7]
published = [4, 15]
datasets = ["visa", {folder = "bottles", label = "Bottles", group = "industrial"}]

[[methods]]
name = "faprompt"
label = "Ours"
preset = "official"
options = {prompts = 5}
train_on = "mvtec"

[[methods]]
name = "cap"

[data]
root = "sets"
[data.folders]
visa = "VisA_2022"

[evaluation]
resolution = "picture"

[training]
epochs = 3

[table]
metrics = [["image_auroc", "image_ap"]]
"""


def test_a_file_says_everything(tmp_path):
    (tmp_path / "parts.toml").write_text(FILE)
    config = read_experiment(tmp_path / "parts.toml")
    ours, cap = config.methods
    assert (config.title, config.backbones, config.seeds) == (
        "Parts", ("tiny", "test-tiny"), (111, 7),
    )  # fmt: skip
    assert ours.title == "Ours" and ours.all_options["prompts"] == 5
    assert ours.all_options["selection"] == "first", "the preset's"
    assert (cap.title, cap.available) == ("cap", False)
    visa, bottles = config.datasets
    assert (visa.key, visa.title, visa.group_name) == ("visa", "VisA", "industrial")
    assert (bottles.key, bottles.title, bottles.group_name) == ("Bottles", "Bottles", "industrial")
    assert config.data.folders == {"visa": "VisA_2022"} and config.base == tmp_path
    assert (config.evaluation.resolution, config.training) == ("picture", {"epochs": 3})
    assert config.table.metrics == (("image_auroc", "image_ap"),)
    assert config.published == (4, 15)


def test_defaults_are_the_papers():
    config = parse_experiment({"methods": ["clip"], "datasets": ["mvtec"]})
    assert config.seeds == (111,) and config.training == {}
    assert config.table.metrics == (("image_auroc",), ("image_ap",), ("pixel_auroc",), ("aupro",))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": []}, "unknown option 'method'"),
        ({"base": "."}, "base is the file's own folder"),
        ({"methods": []}, "methods should name at least one"),
        ({"methods": "clip"}, "methods should be a list, got 'clip'"),
        ({"methods": [7]}, "methods should be a table of options, got 7"),
        ({"methods": ["clips"]}, "no method 'clips'; known: clip, clip-ac, .*cap-no-loc"),
        ({"methods": [{"name": "clip", "weights": 1}]}, "unknown option 'weights'"),
        ({"methods": [{"name": "clip", "options": 3}]}, "options should be a table, got 3"),
        ({"methods": [{"name": "clip", "options": {"prompts": 3}}]}, "unknown option 'prompts'"),
        ({"methods": [{"name": "faprompt", "preset": "mine"}]}, "faprompt has no preset 'mine'"),
        (
            {"methods": [{"name": "faprompt", "model": "tiny", "train_on": "visa"}]},
            "a trained model keeps its own preset, options",
        ),
        ({"methods": ["clip", "clip"]}, "methods should differ, got clip, clip"),
        ({"datasets": ["shelf"]}, "no dataset 'shelf'; known: mvtec, visa"),
        ({"datasets": [{"folder": "x"}]}, "should have an id, or a folder with a label"),
        ({"datasets": [{"folder": "x", "label": "X", "reader": "y"}]}, "no reader 'y'"),
        ({"datasets": ["visa", "visa"]}, "datasets should differ"),
        ({"backbones": []}, "backbones should name at least one"),
        ({"seeds": [1, 1]}, "seeds should differ, got 1, 1"),
        ({"precision": "fp64"}, "precision: 'fp64' is none of auto, fp32, bf16, fp16, int8"),
        (
            {"methods": [{"name": "faprompt", "published": False, "published_as": "cap"}]},
            "published_as and setting name a number of the paper, and published is false",
        ),
        (
            {"methods": [{"name": "faprompt", "published": False, "setting": "deep_length=2"}]},
            "published_as and setting name a number of the paper, and published is false",
        ),
        ({"datasets": [{"id": "btad", "classes": ["01", "01"]}]}, "classes should be names that"),
        ({"datasets": [{"id": "btad", "classes": [""]}]}, "classes should be names that differ"),
        ({"datasets": [{"id": "btad", "classes": [1]}]}, "classes: 1 is not text"),
        ({"datasets": [{"id": "btad", "class": ["01"]}]}, "unknown option 'class'"),
        ({"published": [3]}, r"published should be tables 4 to 16 of the paper, got \[3\]"),
        ({"data": {"folders": {"shelf": "x"}}}, "folders of unknown datasets: shelf"),
        ({"data": {"folders": "x"}}, "folders should be a table"),
        ({"data": 3}, "should be a table of options, got 3"),
        ({"training": {"seed": 3}}, "seed is set by `seeds`"),
        (
            {"training": {"epoch": 3}},
            r"\[training\] of faprompt: unknown option 'epoch'",
        ),
        ({"training": {"epoch": 3}, "methods": ["clip"]}, "unknown option 'epoch'"),
        ({"training": {"momentum": 0.9}}, "of faprompt: momentum=0.9 is of sgd"),
        ({"training": 3}, "should be a table of options, got 3"),
        ({"evaluation": {"by_defect": True}}, "by_defect is for `faprompt evaluate`"),
        ({"table": {"metrics": [["auc"]]}}, "metrics should be lists of image_auroc"),
        ({"table": {"metrics": []}}, "metrics should be lists of image_auroc"),
        ({"table": {"metrics": [["pro_200"]]}}, "needs pro_200 = true under"),
        ({"table": {"rows": "methods"}}, "rows: 'methods' is none of datasets, classes, groups"),
    ],
)
def test_refusals(changes, told):
    with pytest.raises(ConfigError, match=told):
        parse_experiment(toys.config(**changes))


def test_classes_are_part_of_a_datasets_name():
    sets = [{"id": "btad", "classes": ["01"]}, {"id": "btad", "classes": ["01", "02"]}, "btad",
            {"folder": "x", "label": "Parts", "classes": ["nut"]}]  # fmt: skip
    config = parse_experiment(toys.config(datasets=sets))
    found = [(entry.key, entry.title, entry.group_name) for entry in config.datasets]
    assert found == [
        ("btad (01)", "BTAD (01)", "industrial"), ("btad (01, 02)", "BTAD (01, 02)", "industrial"),
        ("btad", "BTAD", "industrial"), ("Parts (nut)", "Parts (nut)", ""),
    ]  # fmt: skip


def test_classes_of_a_caller_take_the_place_of_the_files():
    config = parse_experiment(toys.config(datasets=["visa", {"id": "btad", "classes": ["02"]}]))
    assert change_experiment(config) == config
    found = change_experiment(config, classes=["01"])
    assert [entry.key for entry in found.datasets] == ["visa (01)", "btad (01)"]
    with pytest.raises(ConfigError, match="Toys: classes should be names that differ"):
        change_experiment(config, classes=["01", "01"])


def test_precision_is_stated_or_chosen_by_the_device():
    assert parse_experiment(toys.config()).precision == "auto"
    assert parse_experiment(toys.config(precision="bf16")).precision == "bf16"


def test_what_is_given_goes_before_every_recipe():
    methods = ["coop", {"name": "cocoop", "preset": "original"}, "clip", "faprompt", "cap"]
    config = parse_experiment(toys.config(methods=methods, training={"epochs": 3, "batch_size": 4}))
    coop, cocoop, clip, ours, lacking = config.methods
    found = [config.training_of(method) for method in (coop, cocoop, ours)]
    assert [(c.epochs, c.batch_size, c.optimizer) for c in found] == [
        (3, 4, "sgd"), (3, 4, "sgd"), (3, 4, "adam"),
    ]  # fmt: skip
    assert config.training_of(ours, seed=5, device="cuda").seed == 5
    own = parse_experiment(toys.config(methods=methods, training={}))
    assert [own.training_of(method).epochs for method in (coop, cocoop, ours)] == [50, 10, 7]
    assert (coop.learns, clip.learns, lacking.learns) == (True, False, False)


def test_the_comparison_on_tiny_leaves_recipes_alone_and_needs_what_one_command_draws():
    config = read_experiment(Path(__file__).resolve().parents[2] / "configs/methods-on-tiny.toml")
    learned = [method for method in config.methods if method.learns]
    assert {method.train_on for method in learned} == {"drawn/auxiliary"}
    drawn = [entry.folder for entry in config.datasets if not entry.id]
    assert drawn == ["drawn/test"] and set(config.training) == {"encode_batch_size"}
    for method in learned:
        own = recipe_config(method.name, method.preset, {})
        assert config.training_of(method) == replace(own, encode_batch_size=8)


def test_a_methods_own_training_goes_before_the_common_one():
    short = {"name": "faprompt", "label": "short", "training": {"epochs": 2}}
    config = parse_experiment(toys.config(methods=["coop", short], training={"epochs": 3}))
    assert [config.training_of(method).epochs for method in config.methods] == [3, 2]
    for training, told in (
        ({"seed": 7}, "seed is set by `seeds` above"),
        ({"epoch": 2}, r"\[training\] of short.*epoch"),
        (2, "training should be a table, got 2"),
    ):
        with pytest.raises(ConfigError, match=told):
            parse_experiment(toys.config(methods=[{**short, "training": training}]))
    with pytest.raises(ConfigError, match="a trained model keeps its own preset, options"):
        parse_experiment(toys.config(methods=[{**short, "model": "tiny"}]))


def test_files_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_experiment(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("methods = [")
    with pytest.raises(ConfigError, match="bad.toml is not TOML"):
        read_experiment(tmp_path / "bad.toml")


class TestProtocol:
    def test_the_papers_counts_of_datasets(self):
        """Thirteen sets at image level and fourteen at pixel level, MVTec AD among both."""
        levels = {
            metric: [
                name for name in ("industrial", "medical") for name in group_members(name, metric)
            ]
            for metric in ("image_auroc", "aupro")
        }
        assert (len(levels["image_auroc"]) + 1, len(levels["aupro"]) + 1) == (13, 14)
        assert group_of("mvtec") == "" and group_of("endo") == "medical"
        assert paper_has("mvtec", "image_ap") and not paper_has("endo", "image_ap")
        assert paper_has("endo", "pro_200") and not paper_has("lag", "pro_200")

    def test_every_method_with_a_result_may_stand_in_a_config(self):
        printed = {cell.method for number in range(4, 17) for cell in published_table(number)}
        assert printed < set(published_methods())

    def test_published_numbers_come_from_the_tables_asked(self):
        named = {"dataset": "visa", "method": "faprompt", "metric": "image_auroc"}
        assert find_published((4,), **named).printed == "84.5"
        assert find_published((11, 4), **named).printed == "84.6"
        assert find_published((), **named) is None and find_published((16,), **named) is None
        assert find_published((4,), **{**named, "dataset": "mine"}) is None
        pro = find_published((4,), **{**named, "metric": "pro_200"})
        assert (pro.printed, pro.metric) == ("87.5", "aupro")
