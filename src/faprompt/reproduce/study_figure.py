"""The figures of studies: `figure.csv` first, and `figure.svg` and `.png` drawn from it alone.

One style for all: the colours of Okabe and Ito, which colour-blind people can tell apart,
a marker of its own for every colour, ours filled and solid, the paper's rings and dashed.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from faprompt.errors import ConfigError
from faprompt.files import write_atomically
from faprompt.reproduce.figure_style import COLOURS, MARKERS, STYLE, picture_bytes
from faprompt.reproduce.series import Dot, Source
from faprompt.reproduce.study_config import Form

CSV_NAME = "figure.csv"
_COLUMNS = tuple(field.name for field in fields(Dot) if field.name != "replicates")
_PANEL = (2.5, 2.1)  # inches
_ROW = 0.3  # inches of a setting's line among dots
_LEAST_SPAN = 2.0  # percent points that an axis shows
_SPLIT = 0.6  # of that line, over which its colours are spread
_SMALL: dict[str, Any] = {"markersize": 2.5, "alpha": 0.45, "linestyle": "none"}  # one seed


def write_figure(dots: Sequence[Dot], out: Path) -> tuple[Path, ...]:
    """`figure.csv`, and the two pictures drawn from it; without dots, only the CSV."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / CSV_NAME, to_csv(dots).encode("utf-8"))
    return (out / CSV_NAME, *(redraw(out) if dots else ()))


def redraw(folder: Path) -> tuple[Path, Path]:
    """Draw `figure.svg` and `figure.png` anew from the `figure.csv` beside them.

    Raises:
        ConfigError: there is no such file, or it is none of ours.
    """
    dots = read_figure(folder / CSV_NAME)
    if not dots:
        raise ConfigError(f"{folder / CSV_NAME} has no values to draw.")
    paths = folder / "figure.svg", folder / "figure.png"
    for path in paths:
        write_atomically(path, draw(dots, path.suffix[1:]))
    return paths


def to_csv(dots: Iterable[Dot]) -> str:
    """One line per dot; numbers with all their digits, so that nothing is lost."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    rows = ([getattr(dot, name) for name in _COLUMNS] for dot in dots)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return out.getvalue()


def read_figure(path: Path) -> tuple[Dot, ...]:
    """The dots of a `figure.csv`.

    Raises:
        ConfigError: there is no such file, or it is none of ours.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        return tuple(_dot(row) for row in rows)
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no {CSV_NAME} of a study: {error!r}.") from error


def draw(dots: Sequence[Dot], form: str) -> bytes:
    """The picture as "svg" or "png"."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        rows = list(dict.fromkeys(dot.axis for dot in dots))
        metrics = list(dict.fromkeys(dot.metric for dot in dots))
        figure = Figure(figsize=_size(dots, rows, metrics), layout="constrained")
        panels = figure.subplots(len(rows), len(metrics), squeeze=False)
        colours = list(dict.fromkeys(dot.series for dot in dots))
        for axis, line in zip(rows, panels, strict=True):
            labels = list(dict.fromkeys(dot.title for dot in dots if dot.axis == axis))
            for metric, axes in zip(metrics, line, strict=True):
                chosen = [dot for dot in dots if (dot.axis, dot.metric) == (axis, metric)]
                if dots[0].form == "lines":
                    _draw_lines(axes, chosen, colours)
                else:
                    _draw_dots(axes, chosen, colours, labels)
                axes.set_title(metric)
            for axes in line[1:] if dots[0].form != "lines" else ():
                axes.tick_params(labelleft=False)
        _legend(figure, dots, colours)
        return picture_bytes(figure, form)


def _dot(row: dict[str, str]) -> Dot:
    if row["form"] not in get_args(Form) or row["source"] not in get_args(Source):
        raise ValueError(f"unknown form or source {row['form']!r}, {row['source']!r}")
    numbers = {"x": float(row["x"]), "value": float(row["value"])}
    ends = {name: float(row[name]) if row[name] else None for name in ("spread", "low", "high")}
    return Dot(**{**row, **numbers, **ends})  # type: ignore[arg-type]


def _size(dots: Sequence[Dot], rows: list[str], metrics: list[str]) -> tuple[float, float]:
    width = max(3.6, _PANEL[0] * len(metrics))
    if dots[0].form == "lines":
        return width, 0.5 + _PANEL[1] * len(rows)
    labels = {(dot.axis, dot.title) for dot in dots}
    longest = max(len(dot.title) for dot in dots)
    return width + 0.06 * longest, 1.0 + 0.5 * len(rows) + _ROW * len(labels) * _crowd(dots)


def _crowd(dots: Sequence[Dot]) -> float:
    """How much higher a line of dots is when several series stand in it."""
    return 1 + 0.35 * (len({dot.series for dot in dots}) - 1)


def _draw_lines(axes: Any, dots: Sequence[Dot], colours: Sequence[str]) -> None:
    """Curves over the setting; ticks are the settings themselves."""
    for series in dict.fromkeys(dot.series for dot in dots):
        for source in ("published", "ours"):
            line = [d for d in dots if (d.series, d.source) == (series, source)]
            bars = [_bar(d) for d in line]
            if line:
                axes.errorbar(
                    [d.x for d in line], [_shown(d, d.value) for d in line],
                    yerr=list(zip(*bars, strict=True)) if any(map(any, bars)) else None,
                    **_look(colours.index(series), source), elinewidth=0.8, capsize=2,
                )  # fmt: skip
    ticks = {dot.x: dot.title for dot in dots}
    short = [label.rpartition("= ")[2] for label in ticks.values()]
    axes.set_xticks(list(ticks), short)
    axes.set_xlabel(dots[0].axis if dots else "")
    axes.set_ylabel("%")
    axes.margins(0.08, 0.12)
    axes.set_ylim(_widened(axes.get_ylim()))


def _draw_dots(
    axes: Any, dots: Sequence[Dot], colours: Sequence[str], labels: Sequence[str]
) -> None:
    """A line per setting, its values as dots; seeds as small ones."""
    for dot in dots:
        place = colours.index(dot.series)
        shift = _SPLIT * (place / max(1, len(colours) - 1) - 0.5) if len(colours) > 1 else 0.0
        y = labels.index(dot.title) + shift
        look = {**_look(place, dot.source), "linestyle": "none"}
        if dot.source == "seed":
            look |= _SMALL
        bar = _bar(dot)
        arms = [[bar[0]], [bar[1]]] if any(bar) else None
        axes.errorbar(_shown(dot, dot.value), y, xerr=arms, elinewidth=0.9, capsize=2, **look)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    for place in range(0, len(labels), 2):  # bands hold together what belongs to a setting
        axes.axhspan(place - 0.5, place + 0.5, color="#000000", alpha=0.04, linewidth=0)
    if dots and dots[0].form == "costs":
        _logarithmic(axes, [dot.value for dot in dots])
    else:
        axes.set_xlabel("%")
        axes.set_xlim(_widened(axes.get_xlim()))


def _widened(ends: tuple[float, float]) -> tuple[float, float]:
    """Limits of an axis in percent, so that tenths of a point do not look like much."""
    lack = max(0.0, _LEAST_SPAN - (ends[1] - ends[0])) / 2
    return ends[0] - lack, ends[1] + lack


def _bar(dot: Dot) -> tuple[float, float]:
    """How far the bar of a value reaches down and up: over seeds or calls, else over pictures."""
    if dot.spread is not None:
        reach = _shown(dot, dot.spread)
        down = min(reach, 0.9 * dot.value) if dot.form == "costs" else reach
        return down, reach  # a logarithmic axis has no place for zero
    if dot.low is None or dot.high is None:
        return 0.0, 0.0
    ends = dot.value - dot.low, dot.high - dot.value
    return max(0.0, _shown(dot, ends[0])), max(0.0, _shown(dot, ends[1]))


def _logarithmic(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis; where there is nothing at all, zero has a place left of it."""
    positive = [value for value in values if value > 0]
    if not positive:
        return
    low, high = min(positive), max(positive)
    if len(positive) == len(values):
        axes.set_xscale("log")
        axes.set_xlim(low / 2.5, high * 2.5)
        return
    least = 10 ** math.floor(math.log10(low))
    axes.set_xscale("symlog", linthresh=least, linscale=0.6)
    axes.set_xlim(-0.3 * least, high * 4)
    powers = range(round(math.log10(least)), math.floor(math.log10(high)) + 1, 2)
    axes.set_xticks([0, *(10.0**power for power in powers)])


def _look(place: int, source: str) -> dict[str, Any]:
    colour, ours = COLOURS[place % len(COLOURS)], source != "published"
    return {
        "color": colour,
        "marker": MARKERS[place % len(MARKERS)],
        "markerfacecolor": colour if ours else "none",  # a ring around ours where they agree
        "markersize": 4.5 if ours else 6.5,
        "linestyle": "-" if ours else "--",
        "zorder": 3 if ours else 4,
    }


def _shown(dot: Dot, value: float) -> float:
    return value if dot.form == "costs" else 100 * value


def _legend(figure: Any, dots: Sequence[Dot], colours: Sequence[str]) -> None:
    """Colours, where there are several; then what filled, open and small mean."""
    from matplotlib.lines import Line2D

    sources = {dot.source for dot in dots}
    named = {name: _look(place, "ours") for place, name in enumerate(colours)}
    if len(colours) == 1 and dots[0].form == "costs":
        named = {}
    lines = [Line2D([], [], **look) for look in named.values()]
    names = list(named)
    grey: dict[str, Any] = {"color": "#555555", "marker": "o"}
    kinds: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("ours", "ours", {}),
        ("seed", "one seed", _SMALL),
        (
            "published",
            "published",
            {"markerfacecolor": "none", "markersize": 6.5, "linestyle": "--"},
        ),
    )
    bars = "bars: standard deviation" if any(dot.spread is not None for dot in dots) else ""
    bars = bars or ("bars: 95 % over pictures" if any(dot.low is not None for dot in dots) else "")
    for source, name, more in kinds:
        if source in sources:
            lines.append(Line2D([], [], **{**grey, **more}))
            names.append(f"{name} ({bars})" if bars and source == "ours" else name)
    if dots[0].form != "lines":
        for line in lines:
            line.set_linestyle("none")
    figure.legend(lines, names, loc="outside lower center", ncols=min(8, len(names)))
