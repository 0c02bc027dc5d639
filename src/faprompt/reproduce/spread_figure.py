"""Draw how far the prompts' maps spread: CSV files first, and each figure from its CSV alone.

prompt-maps.csv    -> prompt-maps.svg, .png     every map as a point, a panel for each model
prompt-spread.csv  -> prompt-spread.svg, .png   distances of the maps with 95 % intervals
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.errors import ConfigError
from faprompt.files import csv_table, csv_text, write_atomically
from faprompt.reproduce.figure_dots import Dot
from faprompt.reproduce.prompt_maps import MapPoint, ModelMaps
from faprompt.reproduce.study_claims import mean_interval
from faprompt.reproduce.study_figure import (
    picture_bytes,
    read_figure,
    redraw,
    styled_figure,
    write_figure,
)
from faprompt.work import load_extra

POINTS, SPREAD = "prompt-maps", "prompt-spread"
_MARKERS = {"normal": "o", "anomalous": "s"}  # by label
_PANELS = 3  # side by side


def distance_dots(models: Sequence[ModelMaps]) -> tuple[Dot, ...]:
    """Return the mean distance of each model, and of each method that has several models.

    The interval of a model is over pictures, that of a method over its models (Student's t).
    A model with one prompt has no distance.
    """
    methods: dict[str, list[ModelMaps]] = {}
    for maps in models:
        if maps.distances:
            methods.setdefault(maps.method, []).append(maps)
    rows = []
    for method, members in methods.items():
        kinds = [_by_kind(maps) for maps in members]
        for maps, values in zip(members, kinds, strict=True):
            rows.append((method if maps.model == method else f"{method}: {maps.model}", values))
        if len(members) > 1:
            means = {kind: [float(np.mean(of[kind])) for of in kinds] for kind in kinds[0]}
            rows.append((f"{method}, mean of {len(members)} models", means))
    return tuple(dot for place, row in enumerate(rows) for dot in _dots(*row, float(place)))


def write_spread(models: Sequence[ModelMaps], folder: Path) -> tuple[Path, ...]:
    """Write both CSV files and draw their figures; without values a CSV has no figure."""
    folder.mkdir(parents=True, exist_ok=True)
    order = list(dict.fromkeys(maps.model for maps in models))  # panels go seed by seed
    points = sorted((p for m in models for p in m.points), key=lambda p: order.index(p.model))
    rows = ([csv_text(v) if isinstance(v, str) else v for v in astuple(p)] for p in points)
    text = csv_table([[field.name for field in fields(MapPoint)], *rows])
    path = folder / f"{POINTS}.csv"
    write_atomically(path, text.encode("utf-8", errors="surrogateescape"))
    distances = write_figure(distance_dots(models), folder, name=SPREAD)
    return (path, *_redraw_points(folder), *distances)


def redraw_spread(folder: Path) -> tuple[Path, ...]:
    """Draw the figures anew from the CSV files beside them.

    Raises:
        ConfigError: a CSV file cannot be read, or is not one of these.
    """
    points = _redraw_points(folder)
    has_distances = bool(read_figure(folder / f"{SPREAD}.csv"))
    return (*points, *(redraw(folder, name=SPREAD) if has_distances else ()))


def _by_kind(maps: ModelMaps) -> dict[str, list[float]]:
    """Return the distances of all pictures and, where there are both, of each kind."""
    kinds = {"all": list(maps.distances)}
    if len(set(maps.labels)) > 1:
        for label, kind in enumerate(_MARKERS):
            pairs = zip(maps.labels, maps.distances, strict=True)
            kinds[kind] = [distance for each, distance in pairs if each == label]
    return kinds


def _dots(label: str, kinds: dict[str, list[float]], x: float) -> Iterator[Dot]:
    for kind, values in kinds.items():
        low, high = mean_interval(values) or (None, None)
        yield Dot(
            "spread", "model", "distance of maps", f"{kind} pictures", label, "", x, "ours",
            float(np.mean(values)), note=f"mean of {len(values)}",
            low=None if low is None else max(0.0, low),
            high=None if high is None else min(1.0, high),
        )  # fmt: skip


def _redraw_points(folder: Path) -> tuple[Path, ...]:
    points = _read_points(folder / f"{POINTS}.csv")
    paths = tuple(folder / f"{POINTS}.{form}" for form in ("svg", "png")) if points else ()
    for path in paths:
        write_atomically(path, _draw_points(points, path.suffix[1:]))
    return paths


def _read_points(path: Path) -> list[MapPoint]:
    try:
        text = path.read_text("utf-8", errors="surrogateescape")
        return [
            MapPoint(
                row["method"], row["model"], row["path"], int(row["label"]), int(row["prompt"]),
                float(row["x"]), float(row["y"]),
            )
            for row in csv.DictReader(io.StringIO(text))
        ]  # fmt: skip
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no {path.name} of a study: {error!r}.") from error


def _draw_points(points: Sequence[MapPoint], form: str) -> bytes:
    """Draw a panel for each model: colours are prompts, markers are kinds of pictures."""
    models = list(dict.fromkeys((point.method, point.model) for point in points))
    across = 2 if len(models) == 4 else min(_PANELS, len(models))
    rows = -(-len(models) // across)
    with styled_figure() as new_figure:
        figure = new_figure(2.6 * across, 2.75 * rows + 0.6)
        panels = figure.subplots(rows, across, squeeze=False).ravel()
        colours = load_extra("figures", "matplotlib").colormaps["tab10"].colors
        colours = [colours[n % len(colours)] for n in range(max(p.prompt for p in points))]
        for (method, model), axes in zip(models, panels, strict=False):
            mine = [p for p in points if (p.method, p.model) == (method, model)]
            _draw_panel(axes, mine, colours)
            axes.set_title(model if model == method else f"{method}: {model}")
        for axes in panels[len(models) :]:
            axes.set_axis_off()
        line = load_extra("figures", "matplotlib.lines").Line2D
        looks = [{"color": "#555555", "marker": marker} for marker in _MARKERS.values()]
        looks += [{"color": colour, "marker": "o"} for colour in colours]
        names = [*(f"{kind} pictures" for kind in _MARKERS)]
        names += [f"prompt {number}" for number in range(1, len(colours) + 1)]
        handles = [line([], [], linestyle="none", **look) for look in looks]
        figure.legend(handles, names, loc="outside lower center", ncols=2 * across)
        return picture_bytes(figure, form)


def _draw_panel(axes: Any, points: Sequence[MapPoint], colours: Sequence[Any]) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[["top", "right"]].set_visible(True)
    axes.margins(0.06)
    for label, marker in enumerate(_MARKERS.values()):
        chosen = [p for p in points if p.label == label]
        axes.scatter(
            [p.x for p in chosen], [p.y for p in chosen], s=14, marker=marker, alpha=0.7,
            c=[colours[p.prompt - 1] for p in chosen], linewidths=0,
        )  # fmt: skip
