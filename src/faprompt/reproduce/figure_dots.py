"""Collect the values of a study's figure: ours and the paper's, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np

from faprompt.reproduce.cell_runner import CellResult
from faprompt.reproduce.cells import Column, Plan
from faprompt.reproduce.experiment import Experiment, Form
from faprompt.reproduce.experiment_parts import Axis, MethodEntry
from faprompt.reproduce.protocol import METRIC_TITLES, group_members
from faprompt.reproduce.table_grid import (
    Figure,
    Row,
    Table,
    build_tables,
    printed_place,
    printed_value,
)

Source = Literal["ours", "seed", "published"]
_MOST_SERIES = 6  # lines of one panel that can be told apart


@dataclass(frozen=True, slots=True)
class Dot:
    """One value of a figure: a fraction for metrics, milliseconds or a count for costs."""

    form: Form
    axis: str  # a row of panels, and its horizontal title
    metric: str  # a column of panels
    series: str  # a colour: a group or a dataset
    label: str  # the setting
    backbone: str  # "" where the study has only one
    x: float
    source: Source
    value: float
    spread: float | None = None  # standard deviation over seeds or calls
    note: str = ""
    low: float | None = None  # ends of the 95 % interval, of a metric over pictures
    high: float | None = None
    # (replicates,) float64 of the value; not part of `figure.csv`
    replicates: np.ndarray | None = field(default=None, repr=False, compare=False)

    def row(self) -> dict[str, Any]:
        """Return the values of a line of `figure.csv`."""
        return {name: getattr(self, name) for name in COLUMNS}

    @property
    def title(self) -> str:
        """Return the setting, with its backbone where there are several."""
        return f"{self.label} ({self.backbone})" if self.backbone else self.label


COLUMNS = tuple(each.name for each in fields(Dot) if each.name != "replicates")


def study_dots(plan: Plan, results: Iterable[CellResult]) -> tuple[Dot, ...]:
    """Return all values of the figure, in the order of axes, rows and methods.

    Results that are missing have no dot.
    """
    results = list(results)
    tables = build_tables(plan, results)
    by_seed = _tables_by_seed(plan, results)
    dots: list[Dot] = []
    for axis in plan.config.axes:
        for row, metric in shown_rows(tables):
            dots += _line(plan, axis, row, metric, tables, by_seed)
    return tuple(dots)


def published_point(
    config: Experiment, row: Row, method: MethodEntry, metric: str
) -> tuple[float, str] | None:
    """Return the value that the paper prints for a method, and a note on its origin.

    A group that is not printed is the mean of its printed datasets.
    """
    place = printed_place(config, row)
    if place is None:
        return None
    value = printed_value(config, method, metric, *place)
    if value is not None or row.kind != "group":
        return None if value is None else (value, "")
    members = group_members(row.dataset, metric)
    values = [printed_value(config, method, metric, name) for name in members]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return fmean(known), "mean of the printed datasets"


def shown_rows(tables: Iterable[Table]) -> list[tuple[Row, str]]:
    """Return the rows and metrics of the figure: groups where there are any, else datasets."""
    rows = list(dict.fromkeys(row for table in tables for row in table.rows))
    groups = [row for row in rows if row.kind == "group"]
    datasets = [row for row in rows if row.kind == "dataset"]
    if groups and len({row.dataset for row in (*groups, *datasets)}) > _MOST_SERIES:
        datasets = []
    chosen = [row for row in (*groups, *datasets) if row.class_name is None]
    metrics = dict.fromkeys(metric for row in chosen for metric in row.metrics)
    return [(row, metric) for metric in metrics for row in chosen if metric in row.metrics]


def _tables_by_seed(plan: Plan, results: list[CellResult]) -> dict[int, tuple[Table, ...]]:
    """Build the tables of each seed alone; empty where there is only one seed."""
    seeds = plan.config.seeds
    if len(seeds) < 2:
        return {}
    tables = {}
    for seed in seeds:
        part = plan.one_seed(seed)
        names = {cell.name for cell in part.cells}
        tables[seed] = build_tables(part, [r for r in results if r.cell.name in names])
    return tables


def _line(
    plan: Plan,
    axis: Axis,
    row: Row,
    metric: str,
    tables: Iterable[Table],
    by_seed: dict[int, tuple[Table, ...]],
) -> Iterator[Dot]:
    several = len(plan.config.backbones) > 1
    series = row.title.split(":")[0] if row.kind == "group" else row.title
    number = 0.0
    for method in plan.config.entries_of(axis):
        for column in plan.columns_of(method):
            place = (
                plan.config.figure, axis.title, METRIC_TITLES[metric], series, method.title,
                column.backbone if several else "",
            )  # fmt: skip
            x = method.x if method.x is not None and not several else number
            number += 1
            figures = {seed: _figure(each, row, column, metric) for seed, each in by_seed.items()}
            seeds = {s: f.value for s, f in figures.items() if f and f.value is not None}
            for seed, value in seeds.items():
                yield Dot(*place, x, "seed", value, note=str(seed))
            figure = _figure(tables, row, column, metric)
            if figure is not None and figure.value is not None:
                spread = stdev(seeds.values()) if len(seeds) > 1 else figure.spread
                low, high = figure.interval or (None, None)
                yield Dot(
                    *place, x, "ours", figure.value, spread, method.note, low, high,
                    figure.replicates,
                )  # fmt: skip
            printed = published_point(plan.config, row, method, metric)
            if printed:
                yield Dot(*place, x, "published", printed[0], note=printed[1])


def _figure(tables: Iterable[Table], row: Row, column: Column, metric: str) -> Figure | None:
    for table in tables:
        for each, other, figure in table.places():
            same = (each.kind, each.dataset, each.class_name) == (row.kind, row.dataset, None)
            if same and other.title == column.title and figure.metric == metric:
                return figure
    return None
