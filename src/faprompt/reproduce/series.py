"""Results of a study as the dots of its figure: ours and the paper's, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from faprompt.reproduce.benchmark_plan import Column
from faprompt.reproduce.benchmark_run import CellResult
from faprompt.reproduce.protocol import METRIC_TITLES, find_published, group_members
from faprompt.reproduce.study_config import Axis, Form, Point
from faprompt.reproduce.study_plan import StudyPlan, one_seed
from faprompt.reproduce.table_grid import Figure, Row, Table, build_tables, printed_place

Source = Literal["ours", "seed", "published"]
_MOST_SERIES = 6  # lines of one panel that can be told apart


@dataclass(frozen=True, slots=True)
class Dot:
    """One value of a figure. Fractions for metrics; milliseconds and counts for costs.

    spread: standard deviation over seeds or calls. low, high: 95 % interval over pictures.
    replicates: (replicates,) float64 of the value; not part of `figure.csv`.
    """

    form: Form
    axis: str  # a row of panels, and its horizontal title
    metric: str  # a column of panels
    series: str  # a colour: a group or a dataset
    label: str  # the setting
    backbone: str  # "" where the study has one only
    x: float
    source: Source
    value: float
    spread: float | None = None
    note: str = ""
    low: float | None = None
    high: float | None = None
    replicates: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def where(self) -> tuple[str, str, str]:
        """Panel and colour."""
        return self.axis, self.metric, self.series

    @property
    def title(self) -> str:
        """The setting, with its backbone where there are several."""
        return f"{self.label} ({self.backbone})" if self.backbone else self.label


def study_dots(
    study: StudyPlan, results: Iterable[CellResult], *, data_root: Path | None = None
) -> tuple[Dot, ...]:
    """Everything the figure shows, in the order of axes, rows and points.

    Args:
        study: of `build_study`.
        results: of its benchmark; what is not there has no dot.
        data_root: as for `build_study`.
    """
    results = list(results)
    tables = build_tables(study.plan, results)
    by_seed = _by_seed(study, results, data_root)
    dots: list[Dot] = []
    for axis in study.config.axes:
        for row, metric in _shown(tables):
            dots += _line(study, axis, row, metric, tables, by_seed)
    return tuple(dots)


def seed_values(
    by_seed: dict[int, tuple[Table, ...]], row: Row, column: Column, metric: str
) -> dict[int, float]:
    """Value per seed of one place, where there is one."""
    found = {seed: _figure(tables, row, column, metric) for seed, tables in by_seed.items()}
    return {s: f.value for s, f in found.items() if f is not None and f.value is not None}


def published_point(
    study: StudyPlan, row: Row, point: Point, metric: str
) -> tuple[float, str] | None:
    """What the paper prints for a point, and where that comes from.

    A group that is not printed is the mean of its printed datasets.
    """
    place = printed_place(study.plan.config, row)
    if place is None or not point.published_as:
        return None
    tables = study.plan.config.published

    def printed(dataset: str, class_name: str | None = None) -> float | None:
        cell = find_published(
            tables, dataset=dataset, class_name=class_name, method=point.published_as,
            metric=metric, setting=point.setting,
        )  # fmt: skip
        return cell.value if cell else None

    value = printed(*place)
    if value is not None:
        return value, ""
    if row.kind != "group":
        return None
    members = [printed(name) for name in group_members(row.dataset, metric)]
    values = [value for value in members if value is not None]
    if not values or len(values) < len(members):
        return None
    return fmean(values), "mean of the printed datasets"


def _by_seed(
    study: StudyPlan, results: list[CellResult], data_root: Path | None
) -> dict[int, tuple[Table, ...]]:
    """The tables of every seed alone; empty where there is one seed only."""
    seeds = study.plan.config.seeds
    if len(seeds) < 2:
        return {}
    found = {}
    for seed in seeds:
        plan = one_seed(study, seed, data_root)
        names = {cell.name for cell in plan.cells}
        found[seed] = build_tables(plan, [r for r in results if r.cell.name in names])
    return found


def _shown(tables: Iterable[Table]) -> list[tuple[Row, str]]:
    """Rows of the figure: groups where there are any, else datasets, and few enough."""
    rows = list(dict.fromkeys(row for table in tables for row in table.rows))
    groups = [row for row in rows if row.kind == "group"]
    datasets = [row for row in rows if row.kind == "dataset"]
    few = len({row.dataset for row in (*groups, *datasets)}) <= _MOST_SERIES
    if groups and not few:
        datasets = []
    chosen = [row for row in (*groups, *datasets) if row.class_name is None]
    metrics = dict.fromkeys(metric for row in chosen for metric in row.metrics)
    return [(row, metric) for metric in metrics for row in chosen if metric in row.metrics]


def _line(
    study: StudyPlan,
    axis: Axis,
    row: Row,
    metric: str,
    tables: Iterable[Table],
    by_seed: dict[int, tuple[Table, ...]],
) -> Iterator[Dot]:
    several = len(study.plan.config.backbones) > 1
    number = 0.0
    for point in axis.points:
        for column in study.columns(point):
            place = (
                study.config.figure, axis.title, METRIC_TITLES[metric], _series(row), point.label,
                column.backbone if several else "",
            )  # fmt: skip
            x = point.x if point.x is not None and not several else number
            number += 1
            seeds = seed_values(by_seed, row, column, metric)
            for seed, value in seeds.items():
                yield Dot(*place, x, "seed", value, note=str(seed))
            figure = _figure(tables, row, column, metric)
            if figure is not None and figure.value is not None:
                spread = stdev(seeds.values()) if len(seeds) > 1 else figure.spread
                low, high = figure.interval or (None, None)
                yield Dot(
                    *place, x, "ours", figure.value, spread, point.note, low, high,
                    figure.replicates,
                )  # fmt: skip
            printed = published_point(study, row, point, metric)
            if printed:
                yield Dot(*place, x, "published", printed[0], note=printed[1])


def _series(row: Row) -> str:
    """`industrial: image AUROC, image AP` of a table by groups is `industrial` here."""
    return row.title.split(":")[0] if row.kind == "group" else row.title


def _figure(tables: Iterable[Table], row: Row, column: Column, metric: str) -> Figure | None:
    for table in tables:
        for each, other, figure in table.places():
            same = (each.kind, each.dataset, each.class_name) == (row.kind, row.dataset, None)
            if same and other.title == column.title and figure.metric == metric:
                return figure
    return None
