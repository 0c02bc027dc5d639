"""Draw the figures of studies: `figure.csv` first, then SVG and PNG from the CSV alone.

The colours are those of Okabe and Ito, which colour-blind people can tell apart. Each colour has
a marker of its own. Our values are filled markers and solid lines, the paper's are rings and
dashed lines.

Source: Okabe and Ito, "Color Universal Design", 2008; the order is ours.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from faprompt.errors import ConfigError
from faprompt.files import csv_table, write_atomically
from faprompt.reproduce.experiment import Form
from faprompt.reproduce.figure_dots import COLUMNS, Dot, Source
from faprompt.work import load_extra

FIGURE = "figure"
CSV_NAME = f"{FIGURE}.csv"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # of the colour in the same place
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.0, "axes.titlesize": 9.0, "axes.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "grid.linewidth": 0.5, "lines.linewidth": 1.3, "lines.markersize": 4.5,
    "legend.frameon": False, "svg.hashsalt": "faprompt", "svg.fonttype": "none",
}  # fmt: skip
_PANEL = (2.5, 2.1)  # inches
_ROW = 0.3  # inches of a setting's line among dots
_LEAST_SPAN = 2.0  # percent points that an axis shows at least
_SPLIT = 0.6  # of that line, over which its colours are spread
_SEED: dict[str, Any] = {"markersize": 2.5, "alpha": 0.45, "linestyle": "none"}
_PUBLISHED: dict[str, Any] = {"markerfacecolor": "none", "markersize": 6.5, "linestyle": "--"}


def write_figure(dots: Sequence[Dot], out: Path, *, name: str = FIGURE) -> tuple[Path, ...]:
    """Write the CSV and the two pictures drawn from it; without dots, only the CSV."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.csv"
    write_atomically(path, to_csv(dots).encode("utf-8"))
    return (path, *(redraw(out, name=name) if dots else ()))


def redraw(folder: Path, *, name: str = FIGURE) -> tuple[Path, ...]:
    """Draw the SVG and the PNG anew from the CSV beside them.

    Raises:
        ConfigError: there is no such file, it has no values, or it is not of a study.
    """
    dots = read_figure(folder / f"{name}.csv")
    if not dots:
        raise ConfigError(f"{folder / name}.csv has no values to draw.")
    paths = folder / f"{name}.svg", folder / f"{name}.png"
    for path in paths:
        write_atomically(path, draw(dots, path.suffix[1:]))
    return paths


def to_csv(dots: Iterable[Dot]) -> str:
    """Return one line for each dot; numbers keep all their digits."""
    return csv_table([COLUMNS, *(dot.row().values() for dot in dots)])


def read_figure(path: Path) -> tuple[Dot, ...]:
    """Read the dots of a CSV that `write_figure` wrote.

    Raises:
        ConfigError: the file cannot be read, or is not of a study.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        return tuple(_dot(row) for row in rows)
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no {path.name} of a study: {error!r}.") from error


def draw(dots: Sequence[Dot], form: str) -> bytes:
    """Return the figure as "svg" or "png"."""
    with styled_figure() as new_figure:
        rows = list(dict.fromkeys(dot.axis for dot in dots))
        metrics = list(dict.fromkeys(dot.metric for dot in dots))
        figure = new_figure(*_size(dots, rows, metrics))
        panels = figure.subplots(len(rows), len(metrics), squeeze=False)
        colours = list(dict.fromkeys(dot.series for dot in dots))
        lines = dots[0].form == "lines"
        for axis, line in zip(rows, panels, strict=True):
            labels = list(dict.fromkeys(dot.title for dot in dots if dot.axis == axis))
            for metric, axes in zip(metrics, line, strict=True):
                chosen = [dot for dot in dots if (dot.axis, dot.metric) == (axis, metric)]
                if lines:
                    _draw_lines(axes, chosen, colours)
                else:
                    _draw_dots(axes, chosen, colours, labels)
                axes.set_title(metric)
            for axes in () if lines else line[1:]:
                axes.tick_params(labelleft=False)
        _legend(figure, dots, colours)
        return picture_bytes(figure, form)


@contextmanager
def styled_figure() -> Any:
    """Set the style of all figures, and give a function from (width, height) in inches to one.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = load_extra("figures", "matplotlib.figure").Figure
    with load_extra("figures", "matplotlib").rc_context(_STYLE):
        yield lambda width, height: figure(figsize=(width, height), layout="constrained")


def picture_bytes(figure: Any, form: str) -> bytes:
    """Return a matplotlib figure as "svg" or "png"; the same figure gives the same bytes."""
    file = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Date": None}} if form == "svg" else {"dpi": 200}
    figure.savefig(file, format=form, **options)
    return file.getvalue()


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
    crowd = 1 + 0.35 * (len({dot.series for dot in dots}) - 1)  # several series need more room
    return width + 0.06 * longest, 1.0 + 0.5 * len(rows) + _ROW * len(labels) * crowd


def _draw_lines(axes: Any, dots: Sequence[Dot], colours: Sequence[str]) -> None:
    """Draw curves over the setting; ticks are the settings themselves."""
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
    axes.set_xticks(list(ticks), [label.rpartition("= ")[2] for label in ticks.values()])
    axes.set_xlabel(dots[0].axis if dots else "")
    axes.set_ylabel("%")
    axes.margins(0.08, 0.12)
    axes.set_ylim(_widened(axes.get_ylim()))


def _draw_dots(
    axes: Any, dots: Sequence[Dot], colours: Sequence[str], labels: Sequence[str]
) -> None:
    """Draw a line for each setting, its values as dots; seeds as small ones."""
    for dot in dots:
        place = colours.index(dot.series)
        shift = _SPLIT * (place / (len(colours) - 1) - 0.5) if len(colours) > 1 else 0.0
        look = {**_look(place, dot.source), "linestyle": "none"}
        if dot.source == "seed":
            look |= _SEED
        bar = _bar(dot)
        arms = [[bar[0]], [bar[1]]] if any(bar) else None
        y = labels.index(dot.title) + shift
        axes.errorbar(_shown(dot, dot.value), y, xerr=arms, elinewidth=0.9, capsize=2, **look)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    for place in range(0, len(labels), 2):  # bands hold together what belongs to a setting
        axes.axhspan(place - 0.5, place + 0.5, color="#000000", alpha=0.04, linewidth=0)
    if dots and dots[0].form == "costs":
        _set_logarithmic(axes, [dot.value for dot in dots])
    else:
        axes.set_xlabel("%")
        axes.set_xlim(_widened(axes.get_xlim()))


def _widened(ends: tuple[float, float]) -> tuple[float, float]:
    """Widen the limits of an axis, so that tenths of a point do not look like much."""
    lack = max(0.0, _LEAST_SPAN - (ends[1] - ends[0])) / 2
    return ends[0] - lack, ends[1] + lack


def _bar(dot: Dot) -> tuple[float, float]:
    """Return how far the bar of a value reaches down and up: deviation, or 95 % interval."""
    if dot.spread is not None:
        reach = _shown(dot, dot.spread)
        down = min(reach, 0.9 * dot.value) if dot.form == "costs" else reach
        return down, reach  # a logarithmic axis has no place for zero
    if dot.low is None or dot.high is None:
        return 0.0, 0.0
    ends = dot.value - dot.low, dot.high - dot.value
    return max(0.0, _shown(dot, ends[0])), max(0.0, _shown(dot, ends[1]))


def _set_logarithmic(axes: Any, values: Sequence[float]) -> None:
    """Set a logarithmic scale; where a value is zero, it has a place left of the others."""
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
    colour = COLOURS[place % len(COLOURS)]
    look = {"color": colour, "marker": MARKERS[place % len(MARKERS)]}
    if source == "published":
        return {**look, **_PUBLISHED, "zorder": 4}  # a ring around ours where they agree
    return {**look, "markerfacecolor": colour, "markersize": 4.5, "linestyle": "-", "zorder": 3}


def _shown(dot: Dot, value: float) -> float:
    return value if dot.form == "costs" else 100 * value


def _legend(figure: Any, dots: Sequence[Dot], colours: Sequence[str]) -> None:
    """Name the colours, where there are several, and the kinds of markers."""
    lines = dots[0].form == "lines"
    sources = {dot.source for dot in dots if not (lines and dot.source == "seed")}
    looks = {name: _look(place, "ours") for place, name in enumerate(colours)}
    if len(colours) == 1 and dots[0].form == "costs":
        looks = {}
    bars = ""
    if any(dot.spread is not None for dot in dots):
        bars = " (bars: standard deviation)"
    elif any(dot.low is not None for dot in dots):
        bars = " (bars: 95 % interval)"
    grey = {"color": "#555555", "marker": "o"}
    kinds = {"ours": ("ours" + bars, {}), "seed": ("one seed", _SEED),
             "published": ("published", _PUBLISHED)}  # fmt: skip
    looks |= {name: {**grey, **more} for source, (name, more) in kinds.items() if source in sources}
    if not lines:
        looks = {name: {**look, "linestyle": "none"} for name, look in looks.items()}
    line = load_extra("figures", "matplotlib.lines").Line2D
    handles = [line([], [], **look) for look in looks.values()]
    widest = 0.06 * max(map(len, looks)) + 0.5  # inches of an entry
    columns = max(1, min(len(looks), int(figure.get_figwidth() / widest)))
    figure.legend(handles, list(looks), loc="outside lower center", ncols=columns)
