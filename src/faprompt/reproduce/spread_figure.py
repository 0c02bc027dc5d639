"""The files of a prompt spread: two CSV files first, and each figure drawn from its CSV alone.

prompt-maps.csv    -> prompt-maps.svg, .png     every map as a point, a panel per model
prompt-spread.csv  -> prompt-spread.svg, .png   the numbers with their 95 % intervals
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, fields
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from faprompt.errors import ConfigError
from faprompt.files import csv_text, write_atomically
from faprompt.reproduce.figure_style import COLOURS, MARKERS, STYLE, picture_bytes
from faprompt.reproduce.spread import MapPoint, PromptSpread, SpreadRow
from faprompt.reproduce.spread_measures import MEASURES

POINTS, SPREAD = "prompt-maps", "prompt-spread"
KINDS = {
    "all": (COLOURS[6], MARKERS[6]),
    "normal": (COLOURS[0], MARKERS[0]),
    "anomalous": (COLOURS[1], MARKERS[1]),
}
_TITLES = {
    "distance": "distance of maps\n(root mean square)",
    "dissimilarity": "dissimilarity of maps\n(1 - correlation)",
    "effective": "different prompts\n(effective number)",
    "silhouette": "silhouette\nby prompt",
    "contrast": "contrast of a map\n(no spread itself)",
}
_COLUMNS = 3  # panels side by side
_LINE, _SIGN = 0.07, 0.032  # a number's height and a digit's width, shares of a panel
_WHOLE = {"count", "prompts", "label", "prompt"}
_REAL = {"value", "low", "high", "x", "y"}
Row = TypeVar("Row", MapPoint, SpreadRow)


def write_spread(spread: PromptSpread, folder: Path) -> tuple[Path, ...]:
    """Both CSV files and both figures; without numbers (one prompt each) only the points'."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{POINTS}.csv", _to_csv(MapPoint, spread.points))
    write_atomically(folder / f"{SPREAD}.csv", _to_csv(SpreadRow, spread.rows))
    return (folder / f"{POINTS}.csv", folder / f"{SPREAD}.csv", *redraw_spread(folder))


def redraw_spread(folder: Path) -> tuple[Path, ...]:
    """Draw the figures anew from the CSV files beside them.

    Raises:
        ConfigError: a CSV file is missing, or none of ours.
    """
    drawn = [(POINTS, _draw_points(_read(MapPoint, folder / f"{POINTS}.csv")))]
    rows = _read(SpreadRow, folder / f"{SPREAD}.csv")
    if rows:
        drawn.append((SPREAD, _draw_spread(rows)))
    paths = []
    for name, figures in drawn:
        for kind, data in figures.items():
            paths.append(folder / f"{name}.{kind}")
            write_atomically(paths[-1], data)
    return tuple(paths)


def _to_csv(kind: type[Row], rows: Sequence[Row]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([field.name for field in fields(kind)])
    writer.writerows(map(_cell, astuple(row)) for row in rows)
    return out.getvalue().encode("utf-8", errors="surrogateescape")


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return csv_text(value)
    return "" if value is None else value


def _read(kind: type[Row], path: Path) -> list[Row]:
    try:
        text = path.read_text("utf-8", errors="surrogateescape")
        return [kind(**_values(row)) for row in csv.DictReader(io.StringIO(text))]
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no {path.name} of ours: {error}.") from error


def _values(row: dict[str, str]) -> dict[str, Any]:
    """A line of a CSV with its numbers as numbers."""
    values: dict[str, Any] = dict(row)
    for name in _WHOLE & values.keys():
        values[name] = int(row[name])
    for name in _REAL & values.keys():
        values[name] = float(row[name]) if row[name] else None
    return values


def _draw_points(points: Sequence[MapPoint]) -> dict[str, bytes]:
    import matplotlib
    from matplotlib.figure import Figure

    models = list(dict.fromkeys((point.method, point.model) for point in points))
    columns = min(_COLUMNS, len(models))
    rows = -(-len(models) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * columns, 2.75 * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for (method, model), axes in zip(models, panels, strict=False):
            mine = [p for p in points if (p.method, p.model) == (method, model)]
            _point_panel(axes, mine, model if model == method else f"{method}: {model}")
        for axes in panels[len(models) :]:
            axes.set_axis_off()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(2, columns))
        return _both(figure)


def _point_panel(axes: Any, points: Sequence[MapPoint], title: str) -> None:
    for label, kind in enumerate(("normal", "anomalous")):
        chosen = [p for p in points if p.label == label]
        colour, marker = KINDS[kind]
        axes.scatter(
            [p.x for p in chosen], [p.y for p in chosen], s=12, c=colour, marker=marker,
            alpha=0.55, linewidths=0, label=f"maps of {kind} pictures",
        )  # fmt: skip
    axes.set_title(title)
    axes.set(xticks=[], yticks=[])
    axes.spines[["top", "right"]].set_visible(True)
    axes.margins(0.06)
    for place, text in _numbers(points):
        axes.text(
            *place, text, ha="center", va="center", fontsize=8, fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
        )  # fmt: skip


def _numbers(points: Sequence[MapPoint]) -> list[tuple[tuple[float, float], str]]:
    """Each prompt's number at the middle of its maps; those that would overlap are one text."""
    places = np.array([(p.x, p.y) for p in points])
    prompts = np.array([p.prompt for p in points])
    if prompts.max() == 1:
        return []
    span = np.maximum(np.ptp(places, axis=0), 1e-9)
    found = [([n], np.median(places[prompts == n], axis=0)) for n in np.unique(prompts).tolist()]
    while (pair := _first_overlap(found, span)) is not None:
        one, two = (found[place] for place in pair)
        numbers = sorted(one[0] + two[0])
        middle = (len(one[0]) * one[1] + len(two[0]) * two[1]) / len(numbers)
        found = [each for place, each in enumerate(found) if place not in pair]
        found.append((numbers, middle))
    return [((float(x), float(y)), _listed(numbers)) for numbers, (x, y) in found]


def _first_overlap(
    found: Sequence[tuple[list[int], np.ndarray]], span: np.ndarray
) -> tuple[int, int] | None:
    for one, two in combinations(range(len(found)), 2):
        across, down = np.abs(found[one][1] - found[two][1]) / span
        signs = len(_listed(found[one][0])) + len(_listed(found[two][0]))
        if down < _LINE and across < _SIGN * (signs / 2 + 1):
            return one, two
    return None


def _listed(numbers: Sequence[int]) -> str:
    """[1, 2, 3, 5] -> "1-3 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    told = [f"{run[0]}-{run[-1]}" if len(run) > 2 else " ".join(map(str, run)) for run in runs]
    return " ".join(told)


def _draw_spread(rows: Sequence[SpreadRow]) -> dict[str, bytes]:
    import matplotlib
    from matplotlib.figure import Figure

    names = list(dict.fromkeys((row.method, row.model) for row in rows))
    counts = {(row.method, row.model): row.count for row in rows}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.2, 0.5 * len(names) + 1.3), layout="constrained")
        panels = figure.subplots(1, len(MEASURES), sharey=True)
        for measure, axes in zip(MEASURES, panels, strict=True):
            _spread_panel(axes, [r for r in rows if r.measure == measure], names)
            axes.set_title(_TITLES[measure])
        words = [
            model if model and model == method
            else f"{method}: {model}" if model
            else f"{method}, mean of {counts[method, model]} models"
            for method, model in names
        ]  # fmt: skip
        panels[0].set_yticks(range(len(names)), words)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        handles, labels = panels[0].get_legend_handles_labels()
        told = "bars: 95 %, of a model over pictures" + (
            ", of a mean (shaded) over models" if any(not model for _, model in names) else ""
        )
        figure.legend(handles, labels, loc="outside lower center", ncols=3, title=told)
        return _both(figure)


def _spread_panel(axes: Any, rows: Sequence[SpreadRow], names: Sequence[tuple[str, str]]) -> None:
    for place, (kind, (colour, marker)) in enumerate(KINDS.items()):
        mine = [row for row in rows if row.pictures == kind]
        if not mine:
            continue
        heights = [names.index((row.method, row.model)) + 0.2 * (place - 1) for row in mine]
        values = [row.value for row in mine]
        arms = [
            [row.value - (row.value if row.low is None else row.low) for row in mine],
            [(row.value if row.high is None else row.high) - row.value for row in mine],
        ]
        axes.errorbar(
            values, heights, xerr=np.maximum(arms, 0), fmt=marker, color=colour, markersize=4,
            linewidth=1, capsize=2, label=f"{kind} pictures",
        )  # fmt: skip
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="x", labelrotation=30)  # small numbers are long, and panels narrow
    for place, (_, model) in enumerate(names):
        if not model:  # a band for every mean
            axes.axhspan(place - 0.5, place + 0.5, color="#000000", alpha=0.06, linewidth=0)


def _both(figure: Any) -> dict[str, bytes]:
    return {form: picture_bytes(figure, form) for form in ("svg", "png")}
