"""What has to be said beneath a table: how it was measured, and why places are empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from faprompt.reproduce.benchmark_plan import Column, Plan
from faprompt.reproduce.benchmark_run import CellResult
from faprompt.reproduce.protocol import METRIC_TITLES, PRO
from faprompt.reproduce.table_grid import Row, Table, fill_in
from faprompt.reproduce.wording import LEVEL

_LISTED = 6  # places named per reason
RELEASED = "pictures and masks are read as the public code reads them (picture_handling=released)."


def statements(plan: Plan, tables: Iterable[Table], results: Iterable[CellResult]) -> list[str]:
    """How the figures came about; the same whether a run was interrupted or not."""
    tables, done = list(tables), [result for result in results if result.metrics is not None]
    metrics = {figure.metric for table in tables for _, _, figure in table.places()}
    lines = [
        "Percent, the mean over a dataset's classes. Best of ours bold, second best underlined."
    ]
    lines += _measuring(plan, metrics)
    lines += _legend(plan, tables)
    lines += _together(
        (column.title, t) for column in plan.columns for t in _training(plan, column)
    )
    lines += _together(_presets(done))
    lines += _pictures(plan, done)
    lines += _together(_remarks(done))
    return lines


def reasons(plan: Plan, tables: Iterable[Table], results: Iterable[CellResult]) -> list[str]:
    """One line per reason for an empty place, with the places it empties.

    A cell without metrics is named once, and not again for every class and group it empties.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    lacking: set[tuple[str, str]] = set()
    cells = fill_in(plan, results)
    for result in cells.values():
        if result.metrics is None:
            title, key = result.cell.column.title, result.cell.source.entry.key
            lacking.add((title, key))
            found.setdefault(result.reason, {}).setdefault(title, {})[key] = None
    for table in tables:
        for row, column, figure in table.places():
            known = (column.title, row.dataset) in lacking
            if figure.value is None and row.kind != "group" and not known:
                place = f"{row.dataset}/{row.class_name}" if row.class_name else row.dataset
                found.setdefault(figure.reason, {}).setdefault(column.title, {})[place] = None
            if figure.value is None and row.kind == "group":
                for place, reason in _undefined_members(plan, cells, row, column, figure.metric):
                    found.setdefault(reason, {}).setdefault(column.title, {})[place] = None
    return [
        f"{'; '.join(f'{title} on {_some(list(places))}' for title, places in columns.items())}"
        f": {reason}"
        for reason, columns in found.items()
    ]


def _undefined_members(
    plan: Plan, cells: Mapping[str, CellResult], row: Row, column: Column, metric: str
) -> Iterator[tuple[str, str]]:
    """Datasets of a group that were measured but lack a metric, each with the reason."""
    for source in plan.sources:
        if source.entry.group_name != row.dataset or not source.entry.has(metric):
            continue
        for cell in plan.cells_of(column, source):
            metrics = cells[cell.name].metrics
            if metrics is not None and metric not in metrics["mean"]:
                yield source.entry.key, metrics["undefined"].get(metric, "not measured")


def _measuring(plan: Plan, metrics: set[str]) -> Iterator[str]:
    settings = plan.config.evaluation
    if any(name not in ("image_auroc", "image_ap", "image_f1_max") for name in metrics):
        where = "the model's input size" if settings.resolution == "model" else "the picture's size"
        yield f"Resolution: pixel metrics at {where}; masks by the {settings.mask_policy} policy."
    limit = f"{settings.fpr_limit:g}"
    if "aupro" in metrics:
        told = (
            f"{METRIC_TITLES['aupro']}: exact area under the per-region overlap up to a "
            f"false-positive rate of {limit}, divided by {limit}."
        )
        if plan.config.published:
            told += " The published PRO samples 200 thresholds and stretches the axis: not alike."
        yield told
    if PRO in metrics:
        yield (
            f"{METRIC_TITLES[PRO]}: the authors' own, 200 thresholds up to a false-positive rate "
            "of 0.3 with a stretched axis, as the paper prints."
        )


def _legend(plan: Plan, tables: list[Table]) -> Iterator[str]:
    figures = [figure for table in tables for _, _, figure in table.places()]
    if any(figure.interval for figure in figures):
        yield "Brackets: 95 % bootstrap interval over the pictures."
    if any(figure.level for figure in figures):
        told = "these pictures do not tell it from the best on them (95 %, paired bootstrap)."
        yield f"{LEVEL}: {told}"
    if any(figure.spread is not None for figure in figures):
        seeds = ", ".join(map(str, plan.config.seeds))
        yield f"Plus-minus: standard deviation over the seeds {seeds}; the value is their mean."
    if any(figure.published is not None for figure in figures):
        numbers = ", ".join(map(str, plan.config.published))
        yield f"Last line: published (Table {numbers}), and ours less that, in points."
    groups = {row.dataset: row for table in tables for row in table.rows if row.kind == "group"}
    for group in groups:
        names = [s.entry.title for s in plan.sources if s.entry.group_name == group]
        yield f"{group}: mean over {', '.join(names)}, each where it has the metric."


def _training(plan: Plan, column: Column) -> Iterator[str]:
    if column.method.model:
        yield f"the model {column.method.model}, trained before."
        return
    if column.method.full_shot:
        yield "full-shot: learned from each set's own train split, normal pictures alone."
        return
    trained: dict[str, list[str]] = {}
    for cell in plan.cells:
        if cell.column is column and cell.trained_on is not None:
            tested = trained.setdefault(cell.trained_on.entry.title, [])
            tested.append(cell.source.entry.title)
    for source, tested in trained.items():
        names = list(dict.fromkeys(tested))
        yield f"trained on {source}'s test split for {_some(names)}."
        if source in names:
            yield f"on {source} tested on the very pictures it was trained on."


def _presets(done: list[CellResult]) -> Iterator[tuple[str, str]]:
    """Columns whose preset did not run as it is, or reads pictures as public code does."""
    for result in done:
        title, about = result.cell.column.title, (result.metrics or {}).get("environment", {})
        if "note" in about:
            yield title, f"{about['note']}."
        if about.get("picture_handling") == "released":
            yield title, RELEASED


def _remarks(done: list[CellResult]) -> Iterator[tuple[str, str]]:
    """Datasets with what `evaluate` remarks on their pictures and masks."""
    for result in done:
        for remark in (result.metrics or {}).get("remarks", ()):
            yield result.cell.source.entry.title, f"{remark}."


def _together(told: Iterable[tuple[str, str]]) -> list[str]:
    """Columns or datasets of which the same is said, on one line."""
    titles: dict[str, dict[str, None]] = {}
    for title, words in told:
        titles.setdefault(words, {})[title] = None
    return [f"{', '.join(columns)}: {words}" for words, columns in titles.items()]


def _pictures(plan: Plan, done: list[CellResult]) -> Iterator[str]:
    told: dict[str, str] = {}
    order = [source.entry.key for source in plan.sources]
    for result in sorted(done, key=lambda r: order.index(r.cell.source.entry.key)):
        record = result.record or {}
        counts = f"{record['normal']} + {record['anomalous']}"
        matches = {True: " (the paper's count)", False: " (not the paper's count)", None: ""}
        told[result.cell.source.entry.title] = counts + matches[record["matches_paper"]]
    if told:
        listed = "; ".join(f"{title} {counts}" for title, counts in told.items())
        yield f"Pictures, normal + anomalous: {listed}."
    for result in done:
        if unreadable := (result.record or {})["unreadable"]:
            yield f"{result.cell.name}: {unreadable} pictures could not be read and are left out."


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    listed = ", ".join(names if more <= 1 else names[:_LISTED])
    return f"{listed} and {more} more" if more > 1 else listed
