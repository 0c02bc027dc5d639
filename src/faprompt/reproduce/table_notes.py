"""Say beneath a table how it was measured, what each column ran with, and why places are empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from faprompt.reproduce.cell_runner import CellResult
from faprompt.reproduce.cells import Column, Plan
from faprompt.reproduce.protocol import METRIC_TITLES, PRO
from faprompt.reproduce.table_grid import Table, fill_in, group_sources

LEVEL = "≈"
LEVEL_MEANS = "not significantly different from the best (95 %, paired bootstrap over pictures)."
RELEASED = "pictures and masks are read as the public code reads them (picture_handling=released)."
_LISTED = 6  # places named per reason


@dataclass(frozen=True, slots=True)
class ColumnSettings:
    """What a column ran with, as far as it is known before or after its cells ran."""

    preset: str  # "" for a model that does not record it
    options: str  # those that differ from the preset's, such as "prompts=1"
    precision: str  # of the image tower
    unpublished: bool = False  # it shows no number of the paper, though the tables have some

    @property
    def words(self) -> str:
        """Preset and options in one phrase, such as "official with prompts=1"."""
        preset = self.preset or "not recorded"
        return f"{preset} with {self.options}" if self.options else preset


def column_settings(plan: Plan, results: Iterable[CellResult]) -> dict[str, ColumnSettings]:
    """Return the settings of every column by its title.

    A finished cell records its precision and the preset of its model; for the others the
    experiment's own file names them.
    """
    done = {result.cell.column.title: result.metrics for result in results if result.metrics}
    found = {}
    for column in plan.columns:
        method, metrics = column.method, done.get(column.title, {})
        found[column.title] = ColumnSettings(
            preset=(metrics.get("preset") or "") if method.model else method.preset,
            options=", ".join(f"{name}={value}" for name, value in method.options.items()),
            precision=metrics.get("precision") or plan.config.precision,
            unpublished=bool(plan.config.published) and not method.published,
        )
    return found


def settings_line(settings: Mapping[str, ColumnSettings]) -> str:
    """Return the line under every table: precision and presets.

    Example:
        >>> paper = ColumnSettings("paper", "", "fp32")
        >>> settings_line({"CLIP": paper, "FAPrompt": ColumnSettings("official", "", "fp32")})
        'Precision of the image tower: fp32. Presets: paper (CLIP); official (FAPrompt).'
    """
    precisions = _gather((each.precision, title) for title, each in settings.items())
    presets = _gather((each.words, title) for title, each in settings.items())
    parts = [
        "; ".join(f"{words} ({', '.join(titles)})" for words, titles in grouped.items())
        for grouped in (precisions, presets)
    ]
    precision = next(iter(precisions)) if len(precisions) == 1 else parts[0]
    without = [title for title, each in settings.items() if each.unpublished]
    beside = f" No published number stands beside {', '.join(without)}." if without else ""
    return f"Precision of the image tower: {precision}. Presets: {parts[1]}.{beside}"


def statements(plan: Plan, tables: Iterable[Table], results: Iterable[CellResult]) -> list[str]:
    """Say how the figures were made; the same whether a run was interrupted or not."""
    tables, done = list(tables), [result for result in results if result.metrics is not None]
    trained = [(text, column.title) for column in plan.columns for text in _training(plan, column)]
    return [
        "Percent, the mean over a dataset's classes. Best of ours bold, second best underlined.",
        *_measuring(plan, tables),
        *_legend(plan, tables),
        *_together(trained),
        *_together(_presets(done)),
        *_pictures(plan, done),
        *_together(
            (f"{remark}.", result.cell.source.entry.title)
            for result in done
            for remark in (result.metrics or {}).get("remarks", ())
        ),
    ]


def reasons(plan: Plan, tables: Iterable[Table], results: Iterable[CellResult]) -> list[str]:
    """Return a line per reason for an empty place, with the places it empties.

    A cell without metrics is named once, and not again for every class and group it empties.
    """
    found: dict[str, dict[str, dict[str, None]]] = {}
    lacking: set[tuple[str, str]] = set()
    cells = fill_in(plan, results)

    def add(reason: str, column: str, place: str) -> None:
        found.setdefault(reason, {}).setdefault(column, {})[place] = None

    for result in cells.values():
        if result.metrics is None:
            title, key = result.cell.column.title, result.cell.source.entry.key
            lacking.add((title, key))
            add(result.reason, title, key)
    for table in tables:
        for row, column, figure in table.places():
            if figure.value is not None or (column.title, row.dataset) in lacking:
                continue
            if row.kind != "group":
                place = f"{row.dataset}/{row.class_name}" if row.class_name else row.dataset
                add(figure.reason, column.title, place)
                continue
            for source in group_sources(plan, row.dataset, figure.metric):
                for cell in plan.cells_of(column, source):
                    metrics = cells[cell.name].metrics
                    if metrics is not None and figure.metric not in metrics["mean"]:
                        reason = metrics["undefined"].get(figure.metric, "not measured")
                        add(reason, column.title, source.entry.key)
    return [
        f"{'; '.join(f'{title} on {_some(list(places))}' for title, places in columns.items())}"
        f": {reason}"
        for reason, columns in found.items()
    ]


def _measuring(plan: Plan, tables: Iterable[Table]) -> Iterator[str]:
    metrics = {figure.metric for table in tables for _, _, figure in table.places()}
    settings = plan.config.evaluation
    if any(not name.startswith("image_") for name in metrics):
        where = "the model's input size" if settings.resolution == "model" else "the picture's size"
        yield f"Resolution: pixel metrics at {where}; masks by the {settings.mask_policy} policy."
    limit = f"{settings.fpr_limit:g}"
    if "aupro" in metrics:
        apart = "The published PRO samples 200 thresholds and stretches the axis: not comparable."
        yield (
            f"{METRIC_TITLES['aupro']}: exact area under the per-region overlap up to a "
            f"false-positive rate of {limit}, divided by {limit}."
            f"{f' {apart}' if plan.config.published else ''}"
        )
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
        yield f"{LEVEL}: {LEVEL_MEANS}"
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
    trained = _gather(
        (cell.trained_on.entry.title, cell.source.entry.title)
        for cell in plan.cells
        if cell.column is column and cell.trained_on is not None
    )
    for source, names in trained.items():
        yield f"trained on {source}'s test split for {_some(names)}."
        if source in names:
            yield f"on {source} tested on the very pictures it was trained on."


def _presets(done: list[CellResult]) -> Iterator[tuple[str, str]]:
    """Yield remarks on columns whose preset did not run as published, or reads otherwise."""
    for result in done:
        title, about = result.cell.column.title, (result.metrics or {}).get("environment", {})
        if "note" in about:
            yield f"{about['note']}.", title
        if about.get("picture_handling") == "released":
            yield RELEASED, title


def _pictures(plan: Plan, done: list[CellResult]) -> Iterator[str]:
    counted: dict[str, str] = {}
    order = [source.entry.key for source in plan.sources]
    for result in sorted(done, key=lambda r: order.index(r.cell.source.entry.key)):
        record = result.record or {}
        counts = f"{record['normal']} + {record['anomalous']}"
        matches = {True: " (the paper's count)", False: " (not the paper's count)", None: ""}
        counted[result.cell.source.entry.title] = counts + matches[record["matches_paper"]]
    if counted:
        listed = "; ".join(f"{title} {counts}" for title, counts in counted.items())
        yield f"Pictures, normal + anomalous: {listed}."
    for result in done:
        if unreadable := (result.record or {})["unreadable"]:
            yield f"{result.cell.name}: {unreadable} pictures could not be read and are left out."


def _gather(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return first -> every second that comes with it, each once and in order."""
    found: dict[str, dict[str, None]] = {}
    for first, second in pairs:
        found.setdefault(first, {})[second] = None
    return {first: list(seconds) for first, seconds in found.items()}


def _together(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """Put columns or datasets with the same remark on one line."""
    return [f"{', '.join(titles)}: {words}" for words, titles in _gather(remarks).items()]


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    listed = ", ".join(names if more <= 1 else names[:_LISTED])
    return f"{listed} and {more} more" if more > 1 else listed
