"""A study as a benchmark: its points become methods, and equal ones become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faprompt.config import from_mapping, to_mapping
from faprompt.errors import ConfigError
from faprompt.methods.registry import list_methods, method_class, preset_config, preset_recipe
from faprompt.reproduce.benchmark_config import known_datasets, parse_benchmark, restrict_classes
from faprompt.reproduce.benchmark_plan import Column, Plan, build_plan
from faprompt.reproduce.protocol import group_of
from faprompt.reproduce.study_config import Point, StudyConfig

OWN_GROUP = "all sets"  # whose mean counts the sets a user names


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """The benchmark behind a study, and which of its methods each point is."""

    config: StudyConfig
    plan: Plan
    titles: Mapping[str, str]  # label of a point -> title of its method

    def columns(self, point: Point) -> tuple[Column, ...]:
        """A column per backbone."""
        title = self.titles[point.label]
        return tuple(c for c in self.plan.columns if c.method.title == title)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a caller wants otherwise than the file says; empty means as there."""

    backbones: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()  # ids, or folders
    train_on: str = ""
    seeds: tuple[int, ...] = ()
    epochs: int | None = None
    classes: tuple[str, ...] = ()  # of every dataset


def build_study(
    config: StudyConfig, *, data_root: Path | None = None, changes: Changes | None = None
) -> StudyPlan:
    """The runs of a study.

    Raises:
        ConfigError: what `parse_benchmark` refuses, or a study of cost, which runs no benchmark.
    """
    if config.complexity is not None:
        raise ConfigError(f"{config.name} measures cost; it has no runs to plan.")
    changes = changes or Changes()
    values = _changed(config.benchmark, changes)
    runs: dict[str, list[Point]] = {}
    for point in config.points:
        runs.setdefault(_run_key(point), []).append(point)
    titles = {p.label: _title(points) for points in runs.values() for p in points}
    values["methods"] = [_entry(points, changes.train_on) for points in runs.values()]
    values.setdefault("title", config.title)
    benchmark = parse_benchmark(values, base=config.base, what=f"study {config.name}")
    benchmark = restrict_classes(benchmark, changes.classes)
    plan = build_plan(benchmark, data_root=data_root)
    order = {id(source): place for place, source in enumerate(plan.sources)}
    cells = sorted(plan.cells, key=lambda cell: order[id(cell.source)])  # see `SharedFeatures`
    return StudyPlan(config, replace(plan, cells=tuple(cells)), titles)


def one_seed(study: StudyPlan, seed: int, data_root: Path | None) -> Plan:
    """The same benchmark with one of its seeds."""
    return build_plan(replace(study.plan.config, seeds=(seed,)), data_root=data_root)


def _changed(given: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """The benchmark's table with the caller's wishes in it."""
    values = dict(given)
    if changes.backbones:
        values["backbones"] = list(changes.backbones)
    if changes.seeds:
        values["seeds"] = list(changes.seeds)
    if changes.epochs is not None:
        values["training"] = {**values.get("training", {}), "epochs": changes.epochs}
    if changes.datasets:
        values["datasets"] = [_dataset(name) for name in changes.datasets]
        if not all(group_of(name) for name in changes.datasets):
            values["table"] = {**values.get("table", {}), "rows": "datasets", "group_means": True}
    return values


def _dataset(name: str) -> dict[str, str]:
    if name in known_datasets():
        return {"id": name}
    return {"folder": name, "label": Path(name).name, "group": OWN_GROUP}


def _title(points: Sequence[Point]) -> str:
    return " / ".join(point.label for point in points)


def _entry(points: Sequence[Point], train_on: str) -> dict[str, Any]:
    """One method of the benchmark; the first point that is printed says where."""
    first = points[0]
    entry: dict[str, Any] = {"name": first.method, "label": _title(points)}
    if first.model:
        entry["model"] = first.model
    elif first.method in list_methods():
        entry |= {"preset": first.preset, "options": _needed_options(first)}
        if train_on and not method_class(first.method).full_shot:
            entry["train_on"] = train_on
    printed = next((point for point in points if point.published_as), None)
    if printed is None:  # no such setting in the paper, so nothing stands beside it
        return entry | {"published": False}
    return entry | {"published_as": printed.published_as, "setting": printed.setting}


def _run_key(point: Point) -> str:
    """Equal for points that are the same run."""
    if point.model or point.method not in list_methods():
        return repr((point.method, point.model, point.label))
    _needed_options(point)
    values = {**to_mapping(preset_config(point.method, point.preset)), **point.options}
    config = from_mapping(method_class(point.method).config_class, values, what=point.label)
    recipe = preset_recipe(point.method, point.preset)
    return repr((point.method, sorted(to_mapping(config).items()), sorted(recipe.items())))


def _needed_options(point: Point) -> dict[str, Any]:
    """Those that differ from the preset's, so that studies share their trained models."""
    preset = to_mapping(preset_config(point.method, point.preset))
    return {k: v for k, v in point.options.items() if k not in preset or preset[k] != v}
