"""What a study's file may say, and configs/paper/study-*.toml against the paper."""

from __future__ import annotations

import pytest

from faprompt.errors import ConfigError
from faprompt.methods.faprompt import FAPromptConfig
from faprompt.methods.registry import preset_options
from faprompt.reproduce.cells import build_plan
from faprompt.reproduce.experiment import (
    change_experiment,
    list_studies,
    read_study,
    study_folders,
)
from faprompt.reproduce.figure_dots import published_point, shown_rows
from faprompt.reproduce.published import published_table
from faprompt.reproduce.table_grid import build_tables
from tests.reproduce import study_toys as toys

NAMES = {
    "ablation", "backbones", "complexity", "deep-prompts", "fullshot", "galleries",
    "prompt-spread", "prompts-and-patches", "releases", "seeds", "selection", "tcp",
    "token-lengths",
}  # fmt: skip

OFFICIAL = dict(preset_options("faprompt", "official"))
MODULES = {
    "CAP": "cap", "CAP w/o L_oc": "cap-without-oc", "DAP": "dap",
    "DAP w/o L_prior": "dap-without-prior", "FAPrompt": "paper",
}  # fmt: skip


@pytest.fixture(autouse=True)
def from_the_repository(monkeypatch):
    monkeypatch.chdir(study_folders()[-1].parents[1])


def runs(name, **changes):
    return build_plan(change_experiment(read_study(name), **changes))


def settings(plan):
    return {column.title: column.method.all_options for column in plan.columns}


class TestPaperStudies:
    def test_there_is_a_file_for_every_study(self):
        assert set(list_studies()) == NAMES

    def test_a_file_here_goes_before_one_beside_the_package(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert set(list_studies()) == NAMES, "found beside the package"
        own = tmp_path / "configs" / "paper" / "study-tcp.toml"
        own.parent.mkdir(parents=True)
        own.write_text("")
        assert list_studies()["tcp"].resolve() == own

    @pytest.mark.parametrize("name", sorted(NAMES - {"complexity", "galleries", "prompt-spread"}))
    def test_it_is_the_papers_protocol(self, name):
        plan = runs(name)
        config = plan.config
        assert config.backbones[-1] == "ViT-L-14-336" and config.evaluation.pro_200
        assert config.training == {}, "every method by its own recipe"
        assert config.seeds[0] == 111 and config.precision == "fp32"
        zero_shot = [c for c in plan.cells if c.trained_on and not c.column.method.full_shot]
        trained = {c.trained_on.entry.id for c in zero_shot}
        assert trained == ({"mvtec", "visa"} if name == "fullshot" else {"mvtec"})
        assert len(plan.sources) == (5 if name == "fullshot" else 18)
        learning = [column for column in plan.columns if column.method.learns]
        missing = len(plan.columns) - len(learning)
        expected = 18 * len(learning) * len(config.seeds)
        assert len(plan.cells) == (5 * 6 if name == "fullshot" else expected)
        assert missing == 0

    def test_prompts_and_patches_are_fifteen_runs_and_each_default_is_one(self):
        found = settings(runs("prompts-and-patches"))
        released = {
            "K = 1": {"prompts": 1}, "K = 3": {"prompts": 3}, "K = 5": {"prompts": 5},
            "K = 10 / M = 10": {}, "K = 15": {"prompts": 15}, "K = 20": {"prompts": 20},
            "M = 1": {"patches": 1}, "M = 3": {"patches": 3}, "M = 5": {"patches": 5},
            "M = 15": {"patches": 15},
        }  # fmt: skip
        described = {
            f"M = {count} (as described)": {} if count == 10 else {"patches": count}
            for count in (1, 3, 5, 10, 15)
        }
        assert found == {title: {**OFFICIAL, **o} for title, o in released.items()} | described
        assert (FAPromptConfig().prompts, FAPromptConfig().patches) == (10, 10)

    def test_deep_prompts_are_seven_runs(self):
        found = settings(runs("deep-prompts"))
        assert list(found) == [
            "length = 2", "length = 4 / layers = 9", "length = 6", "length = 8", "layers = 5",
            "layers = 7", "layers = 11",
        ]  # fmt: skip
        assert OFFICIAL["long_deep_prompts"] == "overwrite", "or lengths above 5 are refused"
        assert found["length = 6"] == {**OFFICIAL, "deep_length": 6}
        assert found["layers = 11"] == {**OFFICIAL, "deep_depth": 11}

    def test_the_ablation_is_the_presets(self):
        found = settings(runs("ablation"))
        assert list(found)[0] == "Base" and len(found) == 11
        assert runs("ablation").columns[0].method.name == "anomalyclip"
        for name, preset in MODULES.items():
            options = dict(preset_options("faprompt", preset))
            assert found[f"{name} (as described)"] == options
            assert found[f"{name} (released code)"] == {**OFFICIAL, **options}

    def test_token_lengths_selection_and_seeds(self):
        found = settings(runs("token-lengths"))
        assert found["(2, 1)"] == {**OFFICIAL, "normal_tokens": 2, "abnormal_tokens": 1}
        assert found["(5, 2)"] == OFFICIAL
        assert found["(10, 4)"] == {**OFFICIAL, "normal_tokens": 10, "abnormal_tokens": 4}
        assert settings(runs("selection")) == {
            "top M by similarity": {}, "top M by probability": {"rank_by": "probability"},
            "first M": {"selection": "first"},
        }  # fmt: skip
        assert len(runs("seeds").config.seeds) == 5

    def test_releases_are_four_runs_and_two_recipes(self):
        plan = runs("releases")
        assert settings(plan) == {
            "released code": OFFICIAL,
            "released code, top M": {**OFFICIAL, "selection": "topk"},
            "first upload": dict(preset_options("faprompt", "first-upload")),
            "as described": {},
        }
        epochs = [plan.config.training_of(column.method).epochs for column in plan.columns]
        assert epochs == [7, 7, 15, 7]
        assert [c.method.published for c in plan.columns] == [True, False, False, False]

    def test_figure_1_is_of_three_classes_and_one_seed(self):
        plan = runs("prompt-spread")
        assert [source.key for source in plan.sources] == [
            "btad (01)", "visa (pcb4)", "visa (chewinggum)",
        ]  # fmt: skip
        assert plan.config.seeds == (111,) and plan.config.precision == "fp32"
        assert {cell.trained_on.key for cell in plan.cells} == {"mvtec"}
        assert len(plan.cells) == 3 * 4

    def test_the_two_classes_of_visa_have_printed_numbers_in_figure_1(self):
        found = {
            (row.dataset, column.title, figure.metric): figure.published
            for table in build_tables(runs("prompt-spread"))
            for row, column, figure in table.places()
        }
        ours, theirs = "FAPrompt (released code)", "AnomalyCLIP"
        assert found["visa (pcb4)", ours, "image_auroc"] == 0.957
        assert found["visa (pcb4)", ours, "pixel_auroc"] == 0.971
        assert found["visa (pcb4)", theirs, "image_auroc"] == 0.939
        assert found["btad (01)", ours, "image_auroc"] is None
        assert found["visa (pcb4)", "FAPrompt (as described)", "image_auroc"] is None

    def test_both_readings_stand_side_by_side(self):
        for name in ("fullshot", "tcp", "seeds", "backbones", "prompt-spread"):
            found = settings(runs(name, backbones=("ViT-L-14-336",)))
            assert found["FAPrompt (released code)"] == OFFICIAL, name
            assert found["FAPrompt (as described)"] == {}, name

    def test_full_shot_methods_keep_their_backbone_and_learn_from_the_tested_set(self):
        plan = runs("fullshot", backbones=("tiny",), train_on="visa")
        assert {column.title: column.backbone for column in plan.columns} == {
            "AnomalyCLIP": "tiny", "FAPrompt (released code)": "tiny",
            "FAPrompt (as described)": "tiny", "PatchCore": "wide_resnet50_2",
            "PatchCore, shared backbone": "tiny", "RD4AD": "wide_resnet50_2",
        }  # fmt: skip
        for cell in plan.cells:
            own = cell.trained_on.split == "train" and cell.trained_on.entry is cell.source.entry
            assert own == cell.column.method.full_shot
            assert own or cell.trained_on.entry.id == "visa"

    @pytest.mark.parametrize("number, name", [(4, "fullshot"), (5, "tcp"), (6, "deep-prompts")])
    def test_every_printed_number_stands_beside_its_point(self, number, name):
        """Each cell of the table is found, under its own setting."""
        plan = build_plan(read_study(name))
        beside = [
            round(found[0], 4)
            for row, metric in shown_rows(build_tables(plan))
            for method in plan.config.methods
            if (found := published_point(plan.config, row, method, metric))
        ]
        assert sorted(beside) == sorted(round(c.value, 4) for c in published_table(number))

    def test_group_means_of_the_ablation_are_computed_from_its_datasets(self):
        """Means of the datasets printed in Tables 15 and 16, computed by hand."""
        plan = build_plan(read_study("ablation"))
        places = {
            (row.dataset, metric, method.title): found
            for row, metric in shown_rows(build_tables(plan))
            for method in plan.config.methods
            if (found := published_point(plan.config, row, method, metric))
        }
        wanted = {
            ("medical", "image_auroc", "CAP"): 90.6, ("medical", "image_ap", "CAP"): 93.1,
            ("medical", "image_auroc", "DAP w/o L_prior"): 89.9,
            ("industrial", "pixel_auroc", "CAP w/o L_oc"): 94.3,
            ("industrial", "pro_200", "DAP"): 84.9, ("medical", "pro_200", "FAPrompt"): 66.2,
        }  # fmt: skip
        assert not any("as described" in label for _, _, label in places)
        for (group, metric, label), percent in wanted.items():
            value, note = places[group, metric, f"{label} (released code)"]
            assert abs(100 * value - percent) <= 0.0501 and note == "mean of the printed datasets"


class TestChanges:
    def test_own_sets_have_a_mean_of_their_own(self):
        plan = runs("ablation", datasets=("shelf", "drawer"), backbones=("tiny",), epochs=2,
                    train_on="shelf", seeds=(1, 2))  # fmt: skip
        assert [s.entry.key for s in plan.sources] == ["shelf", "drawer"]
        assert {s.entry.group_name for s in plan.sources} == {"all sets"}
        assert plan.config.table.rows == "datasets" and plan.config.training == {"epochs": 2}
        assert plan.config.seeds == (1, 2) and plan.config.backbones == ("tiny",)
        assert {c.trained_on.entry.key for c in plan.cells} == {"shelf"}

    def test_known_sets_keep_their_groups(self):
        plan = runs("ablation", datasets=("visa", "tn3k"))
        assert plan.config.table.rows == "groups"
        assert [s.entry.group_name for s in plan.sources] == ["industrial", "medical"]

    def test_equal_settings_are_two_runs_where_their_recipes_differ(self):
        """`original` of CoCoOp, by its preset and spelled out: the latter trains as `paper`."""
        spelled = {"plain_path": True, "local_weight": 0.0, "temperature": 0.01}
        methods = [
            {"name": "cocoop", "label": "preset", "preset": "original"},
            {"name": "cocoop", "label": "spelled", "options": spelled},
            {"name": "cocoop", "label": "again", "options": dict(spelled)},
        ]
        study = toys.study(**toys.one_axis(methods))
        assert [column.title for column in study.columns] == ["preset", "spelled / again"]
        assert study.titles == {
            "preset": "preset", "spelled": "spelled / again", "again": "spelled / again",
        }  # fmt: skip

    def test_runs_are_shared_only_where_they_are_trained_alike(self):
        methods = [
            {**toys.method("a"), "training": {"epochs": 2}}, toys.method("b"),
            {**toys.method("c"), "train_on": "drawer"}, toys.method("d"),
        ]  # fmt: skip
        plan = build_plan(toys.config(**toys.one_axis(methods)))
        assert [column.title for column in plan.columns] == ["a", "b / d", "c"]

    def test_epochs_of_the_caller_override_the_files_and_a_methods_own(self):
        methods = [{**toys.method("a"), "training": {"epochs": 2}}, toys.method("b")]
        config = change_experiment(toys.config(**toys.one_axis(methods)), epochs=5)
        assert [config.training_of(method).epochs for method in config.methods] == [5, 5]

    def test_runs_go_dataset_by_dataset(self):
        cells = toys.study().cells
        assert [c.source.entry.key for c in cells] == ["shelf"] * 3 + ["drawer"] * 3


METHOD = toys.method("a")
ONE = [{"name": "K", "title": "K"}]


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"methods": []}, "methods should name at least one"),
            ({"axes": []}, "axes should name at least one"),
            ({"figure": "pie"}, "'pie' is none of"),
            ({"figure": "costs"}, r"'costs' and \[complexity\] belong together"),
            ({"complexity": {}}, "belong together"),
            ({"figure": "costs", "complexity": {"repeats": 1}}, "repeats should be at least 2"),
            ({"figure": "costs", "complexity": {"methods": ["clips"]}}, "no methods clips"),
            (
                {"figure": "costs", "complexity": {"normal_pictures": 0}},
                "normal_pictures should be at least 1, got 0",
            ),
            ({"figure": "costs", "complexity": {}},
             "alone; leave out methods, datasets, backbones, evaluation, training, axes, claims"),
            ({"axes": "K"}, "should be a list"),
            ({"axes": [*ONE, {"name": "L", "title": "L"}]}, "M = 4: axis should be one of K, L"),
            ({"axes": [*ONE, {"name": "M", "title": "M"}, {"name": "L", "title": "L"}]},
             "axes without a method: L"),
            ({"axes": ONE, "methods": [{**METHOD, "axis": "L"}]}, "axis should be one of K, got"),
            ({"axes": ONE * 2}, "axes should differ"),
            ({"claims": [{"text": "x", "better": "K = 9", "than": []}]}, "not there: K = 9"),
            ({"figure": ""}, "claims belong to a study"),
            ({"base": "x"}, "cannot be set"),
            ({"titel": "x"}, "unknown option 'titel'"),
        ],
    )  # fmt: skip
    def test_of_a_file(self, changes, told):
        with pytest.raises(ConfigError, match=told):
            toys.config(**changes)

    @pytest.mark.parametrize(
        "former",
        [
            {"benchmark": {"datasets": ["visa"]}},
            {"axes": [{"name": "K", "title": "K", "points": [{"label": "K = 1"}]}]},
        ],
    )
    def test_the_former_form_is_told_how_it_is_written_now(self, former):
        with pytest.raises(ConfigError, match=r"former form.*each point as \[\[methods\]\]"):
            toys.config(**former)

    @pytest.mark.parametrize(
        ("method", "told"),
        [
            ({"options": {"promts": 3}}, "promts"),
            ({"options": 3}, "should be a table"),
            ({"preset": "best"}, "has no preset 'best'"),
            ({"name": "no such"}, "no method 'no such'"),
            ({"x": "far"}, "x: could not convert"),
        ],
    )
    def test_of_a_method(self, method, told):
        with pytest.raises(ConfigError, match=told):
            toys.config(**toys.one_axis([{**METHOD, **method}]))

    def test_labels_differ_between_axes(self):
        methods = [{**METHOD, "axis": name} for name in "KM"]
        with pytest.raises(ConfigError, match="methods should differ, got a, a"):
            toys.config(methods=methods, claims=[])

    def test_a_benchmark_has_no_figure(self, tmp_path):
        (tmp_path / "parts.toml").write_text('methods = ["clip"]\ndatasets = ["visa"]\n')
        with pytest.raises(ConfigError, match="has no `figure`: run it with `faprompt benchmark`"):
            read_study(str(tmp_path / "parts.toml"))

    def test_of_names_and_files(self, tmp_path):
        with pytest.raises(ConfigError, match="No study 'ablations'; known: ablation, backbones"):
            read_study("ablations")
        with pytest.raises(ConfigError, match="cannot be read"):
            read_study(str(tmp_path / "none.toml"))
        (tmp_path / "bad.toml").write_text("= 3")
        with pytest.raises(ConfigError, match="is not TOML"):
            read_study(str(tmp_path / "bad.toml"))
        with pytest.raises(ConfigError, match="measures cost"):
            build_plan(read_study("complexity"))
