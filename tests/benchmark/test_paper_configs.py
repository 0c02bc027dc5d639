"""configs/paper/table*.toml against the published tables themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from faprompt.benchmark import build_plan, build_tables, published_places, read_benchmark
from faprompt.benchmark.protocol import PRO, training_set
from faprompt.evaluation.published import published_table

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "paper"
NUMBERS = range(4, 17)


def load(number):
    return build_plan(read_benchmark(FOLDER / f"table{number:02d}.toml"))


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
    config = read_benchmark(FOLDER / f"table{number:02d}.toml")
    wanted = {entry.id for entry in config.datasets}
    for name in wanted | {training_set(name) for name in wanted}:
        (tmp_path / name).mkdir()
    plan = build_plan(config, data_root=tmp_path)
    assert len(plan.cells) == len(config.methods) * len(config.datasets)
    lacking = {reason for cell in plan.cells for reason in cell.missing}
    allowed = ("this version has no method", "this version has no reader", "full-shot")
    assert all(any(words in reason for words in allowed) for reason in lacking), lacking
    assert config.backbones == ("ViT-L-14-336",) and config.evaluation.pro_200
    assert config.seeds == (111,) and config.training == {}, "every method by its own recipe"
