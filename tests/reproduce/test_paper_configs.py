"""configs/paper/table*.toml against the published tables themselves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from faprompt.clip.known_backbones import pretrained_spec, split_name
from faprompt.clip.weights import load_backbone
from faprompt.errors import ConfigError
from faprompt.methods.registry import preset_backbone, preset_note, preset_options
from faprompt.reproduce.cells import build_plan
from faprompt.reproduce.experiment import parse_experiment, read_experiment
from faprompt.reproduce.protocol import PRO, training_set
from faprompt.reproduce.published import published_table
from faprompt.reproduce.table_grid import build_tables, published_places
from faprompt.reproduce.table_notes import statements
from tests.reproduce import toys

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "paper"
CONFIGS = sorted(FOLDER.parent.rglob("*.toml"))
NUMBERS = range(4, 17)


READINGS = ("released code", "as described")


def config_file(number):
    return FOLDER / f"table{number:02d}.toml"


def load(number):
    return build_plan(read_experiment(config_file(number)))


def test_there_is_a_file_for_every_table_of_results():
    assert sorted(path.name for path in FOLDER.glob("table*.toml")) == [
        f"table{number:02d}.toml" for number in NUMBERS
    ]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_places_are_the_tables(number):
    """Each place once; those without a printed number are the paper's dashes, AnoVL's classes."""
    ours = [
        tuple("aupro" if value == PRO else value for value in place.values())
        for place in published_places(build_tables(load(number)))
    ]
    printed = {
        (cell.dataset, cell.class_name or "", cell.method, cell.setting, cell.metric)
        for cell in published_table(number)
    }
    assert len(ours) == len(set(ours))
    dashes = set(ours) - printed
    assert printed <= set(ours)
    assert all(method == "anovl" and class_name for _, class_name, method, _, _ in dashes)
    classes = {7: 15, 11: 12}.get(number)
    assert classes is None or len(dashes) == classes


@pytest.mark.parametrize("number", NUMBERS)
def test_every_printed_number_stands_beside_its_place(number):
    tables = build_tables(load(number))
    beside = [figure.published for table in tables for *_, figure in table.places()]
    printed = [cell.value for cell in published_table(number)]
    assert sorted(value for value in beside if value is not None) == sorted(printed)


@pytest.mark.parametrize("number", NUMBERS)
def test_one_command_with_a_data_root_is_enough(number, tmp_path):
    """With the data there, nothing but methods this version lacks stands in the way."""
    config = read_experiment(FOLDER / f"table{number:02d}.toml")
    wanted = {entry.id for entry in config.datasets}
    for name in wanted | {training_set(name) for name in wanted}:
        (tmp_path / name).mkdir()
    plan = build_plan(config, data_root=tmp_path)
    assert len(plan.cells) == len(config.methods) * len(config.datasets)
    lacking = {reason for cell in plan.cells for reason in cell.missing}
    allowed = ("this version has no method", "this version has no reader", "full-shot")
    assert all(any(words in reason for words in allowed) for reason in lacking), lacking
    assert config.backbones == ("ViT-L-14-336",) and config.evaluation.pro_200
    assert config.precision == "fp32", "as the authors' code"
    assert config.seeds == (111,) and config.training == {}, "every method by its own recipe"


def shipped_plan(path):
    """The benchmark behind a file, or None for a study of cost."""
    config = read_experiment(path)
    return None if config.complexity is not None else build_plan(config)


def note_of(column):
    """What a run says of a column's preset; nothing is downloaded for it."""
    name = column.backbone
    if name == "tiny":
        backbone = load_backbone(name)
    else:
        spec = pretrained_spec(*split_name(name))
        backbone = SimpleNamespace(name=name, spec=spec, has_text=True)
    method = column.method
    return preset_note(method.name, backbone, method.options, preset=method.preset)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_config_runs_a_preset_otherwise_without_saying_so(path):
    """The paper's backbone runs every preset as it is; on another, the table says what was not."""
    plan = shipped_plan(path)
    if plan is None:
        return
    columns = [c for c in plan.columns if c.method.available and not c.method.model]
    for column in columns:
        if column.method.full_shot and preset_backbone(column.method.name, column.method.preset):
            assert column.backbone == "wide_resnet50_2", column.title
            continue
        note = note_of(column)
        if path.parent == FOLDER:
            assert "published for" not in note, column.title
        if column.backbone == "ViT-L-14-336":
            assert not note, column.title
        results = [
            toys.done(cell, {}, environment={"note": note} if note else {})
            for cell in plan.cells
            if cell.column is column
        ][:1]
        said = [line for line in statements(plan, [], results) if ": Preset " in line]
        assert said == ([f"{column.title}: {note}."] if note else [])


def test_on_other_backbones_there_is_something_to_say():
    """Or the test above could not fail."""
    told = {}
    for name in ("methods-on-tiny", "paper/study-backbones"):
        plan = shipped_plan(FOLDER.parent / f"{name}.toml")
        told |= {column.title: note_of(column) for column in plan.columns}
    start = "Preset `paper` was published for ViT-B-16-plus-240:laion400m_e31 at 240 px. You run it"
    assert told["winclip"].startswith(start)
    assert told["clip"].startswith(
        "Preset `paper` was published at 518 px. You run it on `tiny` at"
    )
    for reading, preset in (("as described", "paper"), ("released code", "official")):
        wanted = f"`{preset}` was published at 518 px. You run it on `ViT-B-16` at 512 px: "
        assert wanted in told[f"FAPrompt ({reading}) (ViT-B-16)"]
        assert told[f"FAPrompt ({reading}) (ViT-L-14)"] == ""


@pytest.mark.parametrize("number", sorted({*NUMBERS} - {6}))
def test_both_readings_of_faprompt_stand_side_by_side(number):
    """The released code has the published numbers, the method as described has none."""
    methods = {method.title: method for method in read_experiment(config_file(number)).methods}
    released, described = (methods[f"FAPrompt ({reading})"] for reading in READINGS)
    assert (released.preset, released.published) == ("official", True)
    assert (described.preset, described.published) == ("paper", False)
    for table in build_tables(load(number)):
        beside = {
            title: [f.published for _, column, f in table.places() if column.title == title]
            for title in (released.title, described.title)
        }
        assert all(value is not None for value in beside[released.title])
        assert all(value is None for value in beside[described.title])


@pytest.mark.parametrize("number", [15, 16])
def test_every_module_of_the_ablation_runs_in_both_readings(number):
    methods = {method.title: method for method in read_experiment(config_file(number)).methods}
    official = dict(preset_options("faprompt", "official"))
    presets = {
        "CAP": "cap", "CAP w/o L_oc": "cap-without-oc", "DAP": "dap",
        "DAP w/o L_prior": "dap-without-prior",
    }  # fmt: skip
    for module, preset in presets.items():
        released, described = (methods[f"{module} ({reading})"] for reading in READINGS)
        assert described.all_options == dict(preset_options("faprompt", preset))
        assert released.all_options == {**official, **described.all_options}
        assert (released.published, described.published) == (True, False)


def test_table_6_runs_the_released_code_alone():
    """Lengths 6 and 8 overwrite more than the normal prompt's tokens, as that code does."""
    methods = read_experiment(config_file(6)).methods
    assert {method.preset for method in methods} == {"official"}
    assert {tuple(method.options) for method in methods} == {("deep_length",), ("deep_depth",)}
    with pytest.raises(ConfigError, match="would overwrite more than the 5 context tokens"):
        preset_and_length = {"name": "faprompt", "options": {"deep_length": 6}}
        parse_experiment({"methods": [preset_and_length], "datasets": ["visa"]})


@pytest.mark.parametrize("number", range(7, 15))
def test_april_gan_trains_as_long_as_its_authors_do(number):
    """Tables 7 to 10 are of MVTec AD, learned from VisA; 11 to 14 the other way round."""
    config = read_experiment(FOLDER / f"table{number:02d}.toml")
    (method,) = (method for method in config.methods if method.name == "april-gan")
    (tested,) = config.datasets
    epochs = {"visa": 15, "mvtec": 3}[training_set(tested.id)]
    assert config.training_of(method).epochs == epochs
