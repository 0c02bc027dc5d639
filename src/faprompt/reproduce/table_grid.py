"""Put results into tables: a figure for every place, ours and the published one.

Without results a table still has all its places, so a dry run lists what it would hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from faprompt.data.dataset_catalog import published_counts
from faprompt.metrics import paired_interval
from faprompt.reproduce.cell_runner import CellResult, waiting
from faprompt.reproduce.cells import Column, Plan, Source
from faprompt.reproduce.experiment import Experiment
from faprompt.reproduce.experiment_parts import MethodEntry
from faprompt.reproduce.protocol import GROUP_NAMES, METRIC_TITLES, find_published, group_members

RowKind = Literal["dataset", "class", "mean", "group"]
_WIDE = 6  # more columns than this, and than rows, are printed as lines
DECIMALS = 1  # of percent, as the paper prints; values equal in print share a rank


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric in one place of a table. Values are fractions.

    replicates: (replicates,) float64 of the value, drawn from the same pictures in every column.
    """

    metric: str
    value: float | None = None  # mean over the seeds
    interval: tuple[float, float] | None = None  # of a single seed, as evaluation has it
    spread: float | None = None  # standard deviation over several seeds
    published: float | None = None
    reason: str = ""  # why there is no value
    rank: int = 0  # 1 best and 2 second best of its row, 0 neither
    level: bool = False  # not significantly different from the best
    replicates: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def difference(self) -> float | None:
        """Our value minus the published one."""
        if self.value is None or self.published is None:
            return None
        return self.value - self.published


@dataclass(frozen=True, slots=True)
class Row:
    """What the figures of a row are measured on."""

    kind: RowKind
    title: str
    dataset: str  # a dataset's key, or a group
    metrics: tuple[str, ...]
    class_name: str | None = None  # None: the mean over the classes
    as_published: bool = True  # False: a group mean over other sets than the paper's


@dataclass(frozen=True, slots=True)
class Table:
    """`figures[row][column]` has a figure per metric of the row."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    figures: tuple[tuple[tuple[Figure, ...], ...], ...]
    methods_down: bool = False  # printed with a line per method: wide ones, and as Tables 5 and 6

    def places(self) -> Iterator[tuple[Row, Column, Figure]]:
        """Yield every figure with its row and column."""
        for row, line in zip(self.rows, self.figures, strict=True):
            for column, figures in zip(self.columns, line, strict=True):
                for figure in figures:
                    yield row, column, figure


def build_tables(plan: Plan, results: Iterable[CellResult] = ()) -> tuple[Table, ...]:
    """Return the tables an experiment asks for; cells without a result count as not run."""
    found = fill_in(plan, results)
    options = plan.config.table
    if options.rows == "groups":
        rows = [row for group in GROUP_NAMES for row in _group_rows(plan, group, options.metrics)]
        return (_table(plan, "Group means", rows, found, methods_down=True),)
    tables = []
    for metrics in options.metrics:
        if options.rows == "datasets":
            tables.append(_table(plan, _titles(metrics), _dataset_rows(plan, metrics), found))
            continue
        for source in plan.sources:
            title = f"{source.entry.title}: {_titles(metrics)}"
            tables.append(_table(plan, title, list(_class_rows(source, metrics, found)), found))
    return tuple(table for table in tables if table.rows)


def fill_in(plan: Plan, results: Iterable[CellResult]) -> dict[str, CellResult]:
    """Return a result for every cell of a plan, by name; cells that were not run are waiting."""
    found = {cell.name: waiting(cell) for cell in plan.cells}
    return found | {result.cell.name: result for result in results}


def published_places(tables: Iterable[Table]) -> list[dict[str, str]]:
    """Return the places that show a published number where the paper prints one.

    They are named as in the published tables; `class` is "" for a mean.
    """
    return [
        {
            "dataset": row.dataset,
            "class": row.class_name or "",
            "method": column.method.published_as or column.method.name,
            "setting": column.method.setting,
            "metric": figure.metric,
        }
        for table in tables
        for row, column, figure in table.places()
        if column.method.published
    ]


def _figure(
    plan: Plan, results: Mapping[str, CellResult], row: Row, column: Column, metric: str
) -> Figure:
    """Return the figure of one place, without rank."""
    if row.kind == "group":
        sources = group_sources(plan, row.dataset, metric)
    else:
        sources = [source for source in plan.sources if source.entry.key == row.dataset]
    found = [_measured(plan, results, s, column, metric, row.class_name) for s in sources]
    place = printed_place(plan.config, row)
    value = printed_value(plan.config, column.method, metric, *place) if place else None
    if row.kind != "group":
        return replace(found[0], published=value)
    values = [figure.value for figure in found if figure.value is not None]
    if values and len(values) == len(found):
        return Figure(metric, value=fmean(values), published=value)
    pairs = zip(sources, found, strict=True)
    lacking = [source.entry.title for source, figure in pairs if figure.value is None]
    reason = f"the mean lacks {', '.join(lacking) or 'every set'}"
    return Figure(metric, published=value, reason=reason)


def _measured(
    plan: Plan,
    results: Mapping[str, CellResult],
    source: Source,
    column: Column,
    metric: str,
    class_name: str | None,
) -> Figure:
    if not source.entry.has(metric):
        return Figure(metric, reason="not measured here in the paper")
    values: list[float] = []
    drawn: list[np.ndarray] = []
    interval = None
    for cell in plan.cells_of(column, source):
        result = results[cell.name]
        if result.metrics is None:
            return Figure(metric, reason=result.reason)
        part = result.metrics if class_name is None else result.metrics["classes"].get(class_name)
        if part is None:
            return Figure(metric, reason=f"the data has no class {class_name!r}")
        known = part["mean"] if class_name is None else part
        if metric not in known:
            return Figure(metric, reason=part["undefined"].get(metric, "not measured"))
        values.append(known[metric])
        intervals = part.get("intervals") or {}
        interval = intervals.get("mean", intervals).get(metric)
        if class_name is None and metric in result.replicates:
            drawn.append(result.replicates[metric])
    several = len(values) > 1
    return Figure(
        metric,
        value=fmean(values),
        interval=(interval[0], interval[1]) if interval and not several else None,
        spread=stdev(values) if several else None,
        replicates=np.mean(drawn, axis=0) if len(drawn) == len(values) else None,
    )


def _table(
    plan: Plan,
    title: str,
    rows: list[Row],
    results: Mapping[str, CellResult],
    *,
    methods_down: bool = False,
) -> Table:
    figures = tuple(
        _ranked(
            [tuple(_figure(plan, results, row, c, m) for m in row.metrics) for c in plan.columns]
        )
        for row in rows
    )
    wide = len(plan.columns) > max(_WIDE, len(rows))
    return Table(title, plan.columns, tuple(rows), figures, methods_down or wide)


def _ranked(line: list[tuple[Figure, ...]]) -> tuple[tuple[Figure, ...], ...]:
    """Mark best and second best per metric, among columns that have a value; ties share.

    The others are compared with the best, the first of several.
    """
    ranked = [list(figures) for figures in line]
    for place in range(len(line[0])):
        printed = [_printed(figures[place].value) for figures in line]
        best = sorted({value for value in printed if value is not None}, reverse=True)[:2]
        if sum(value is not None for value in printed) < 2:
            continue
        top = line[printed.index(best[0])][place]
        for figures, value in zip(ranked, printed, strict=True):
            rank = best.index(value) + 1 if value in best else 0
            level = value != best[0] and _level(top, figures[place])
            figures[place] = replace(figures[place], rank=rank, level=level)
    return tuple(tuple(figures) for figures in ranked)


def _level(best: Figure, other: Figure) -> bool:
    """Return whether the 95 % interval of the difference holds zero."""
    if best.replicates is None or other.replicates is None:
        return False
    assert best.value is not None and other.value is not None
    difference = best.value - other.value
    span = paired_interval(best.replicates, other.replicates, difference=difference)
    return span is not None and span[0] <= 0


def _printed(value: float | None) -> float | None:
    return None if value is None else round(100 * value, DECIMALS)


def _dataset_rows(plan: Plan, metrics: tuple[str, ...]) -> list[Row]:
    rows = [
        Row("dataset", source.entry.title, source.entry.key, metrics)
        for source in plan.sources
        if any(source.entry.has(metric) for metric in metrics)
    ]
    groups = dict.fromkeys((*GROUP_NAMES, *(s.entry.group_name for s in plan.sources)))
    for group in filter(None, groups) if plan.config.table.group_means else ():
        if any(len(group_sources(plan, group, metric)) > 1 for metric in metrics):
            rows += _group_rows(plan, group, (metrics,))
    return rows


def _group_rows(plan: Plan, group: str, pairs: tuple[tuple[str, ...], ...]) -> Iterator[Row]:
    for metrics in pairs:
        if not any(group_sources(plan, group, metric) for metric in metrics):
            continue
        members = {source.entry.key for m in metrics for source in group_sources(plan, group, m)}
        whole = {name for m in metrics for name in group_members(group, m)}
        as_published = members == whole
        title = group if as_published else f"{group} (mean of {len(members)})"
        if plan.config.table.rows == "groups":
            title += f": {_titles(metrics)}"
        yield Row("group", title, group, metrics, as_published=as_published)


def _titles(metrics: tuple[str, ...]) -> str:
    return ", ".join(METRIC_TITLES[metric] for metric in metrics)


def group_sources(plan: Plan, group: str, metric: str) -> list[Source]:
    """Return the datasets that a group's mean of a metric counts."""
    return [s for s in plan.sources if s.entry.group_name == group and s.entry.has(metric)]


def _class_rows(
    source: Source, metrics: tuple[str, ...], results: Mapping[str, CellResult]
) -> Iterator[Row]:
    key = source.entry.key
    names = dict.fromkeys(source.entry.classes or published_counts(source.entry.id))
    if not names:
        for result in results.values():
            if result.cell.source is source and result.metrics is not None:
                names |= dict.fromkeys(result.metrics["classes"])
    for name in names:
        yield Row("class", name, key, metrics, name)
    yield Row("mean", "mean", key, metrics)


def printed_place(config: Experiment, row: Row) -> tuple[str, str | None] | None:
    """Return the dataset and class under which the paper prints a row's figures, or None.

    The paper prints no means of other sets than its own, and none of some classes of a set; a
    set of which one class alone is tested stands for that class.
    """
    if not row.as_published:
        return None
    entry = next((entry for entry in config.datasets if entry.key == row.dataset), None)
    if entry is None or not (entry.id and entry.classes):
        return row.dataset, row.class_name
    class_name = row.class_name or (entry.classes[0] if len(entry.classes) == 1 else None)
    return (entry.id, class_name) if class_name else None


def printed_value(
    config: Experiment,
    method: MethodEntry,
    metric: str,
    dataset: str,
    class_name: str | None = None,
) -> float | None:
    """Return what the experiment's tables of the paper print for a method, or None."""
    cell = method.published and find_published(
        config.published, dataset=dataset, class_name=class_name, metric=metric,
        method=method.published_as or method.name, setting=method.setting,
    )  # fmt: skip
    return cell.value if cell else None
