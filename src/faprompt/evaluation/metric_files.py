"""Write an evaluation: `metrics.json`, `.md`, `.csv`, `scores.csv`, `replicates.csv`, curves."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.evaluation.contact_sheet import as_unicode
from faprompt.evaluation.evaluation_run import Evaluation
from faprompt.evaluation.gallery import remove_gallery
from faprompt.evaluation.saved_progress import PROGRESS_NAME, region_text
from faprompt.evaluation.verdict_rates import verdict_lines
from faprompt.files import csv_table, csv_text, file_stems, write_atomically
from faprompt.metrics import METRIC_NAMES, Curve
from faprompt.work import can_draw

_REPLICATES = "replicates.csv"
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CURVE_COLUMNS = ["curve", "x", "y", "threshold"]
_CURVE_AXES = {
    "image_roc": ("false-positive rate", "true-positive rate"),
    "image_pr": ("recall", "precision"),
    "pixel_roc": ("false-positive rate", "true-positive rate"),
    "pixel_pr": ("recall", "precision"),
    "pro": ("false-positive rate", "mean region overlap"),
}

Intervals = Mapping[str, tuple[float, float]]


def write_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Write all files of one evaluation and return the path of `metrics.json`.

    The file of an interrupted run, and the gallery and the curves of an earlier evaluation in
    that folder are removed; files of other origin stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with_curves = [name for name, curves in evaluation.curves.items() if curves]
    classes = {stem: name for name, stem in file_stems(with_curves).items()}
    _remove_curves(folder / "curves", keep=set(classes))
    remove_gallery(folder)
    _write(folder / "metrics.md", to_markdown([evaluation]))
    _write(folder / "metrics.csv", _metrics_csv(evaluation))
    _write(folder / "scores.csv", _scores_csv(evaluation))
    drawn = can_draw("Curves")
    for stem, name in classes.items():
        _write(folder / "curves" / f"{stem}.csv", _curves_csv(evaluation.curves[name]))
        if drawn:
            _plot(evaluation.curves[name], folder / "curves" / f"{stem}.png", title=name)
    _write_replicates(evaluation.mean_replicates, folder / _REPLICATES)
    path = folder / "metrics.json"
    _write(path, json.dumps(to_json(evaluation), indent=2, ensure_ascii=False) + "\n")
    (folder / PROGRESS_NAME).unlink(missing_ok=True)
    return path


def read_replicates(folder: Path) -> dict[str, np.ndarray]:
    """Read metric name -> (replicates,) of the mean, NaN where undefined; {} without a file.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        text = (folder / _REPLICATES).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    names, *rows = csv.reader(io.StringIO(text))
    return dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of `metrics.json`.

    A metric that cannot be computed is absent, and "undefined" holds the reason. "intervals"
    holds [low, high] per metric. Each class has both for its own metrics, and the top level for
    the mean. "pixel_pictures" counts, per class, the pictures that pixel metrics use. "verdicts"
    holds the rates at the thresholds of a calibrated detector.
    """
    return {
        "dataset": evaluation.dataset,
        "model": evaluation.model,
        "method": evaluation.method,
        "preset": evaluation.preset,
        "backbone": evaluation.backbone,
        "precision": evaluation.environment["precision"],
        "resolution": evaluation.config.resolution,
        "classes": {
            name: {**result.to_dict(), "intervals": _lists(result.intervals)}
            for name, result in evaluation.classes.items()
        },
        "left_out_classes": list(evaluation.left_out_classes),
        "pixel_pictures": {
            name: {"normal": normal, "anomalous": anomalous}
            for name, (normal, anomalous) in evaluation.pixel_pictures.items()
        },
        "mean": evaluation.mean,
        "intervals": _lists(evaluation.mean_intervals),
        "undefined": evaluation.undefined,
        "unreadable": [
            {
                "path": str(image.sample.image_path),
                "region": region_text(image.sample),
                "error": image.error,
            }
            for image in evaluation.unreadable
        ],
        "remarks": list(evaluation.remarks),
        **({"verdicts": evaluation.verdicts.to_dict()} if evaluation.verdicts else {}),
        "settings": asdict(evaluation.config),
        "environment": dict(evaluation.environment),
    }


def to_markdown(evaluations: Iterable[Evaluation]) -> str:
    """Return a table for each dataset: a row for each class and the mean, in percent.

    Undefined metrics are "-". Notes on the measurement follow each table, and for a calibrated
    detector a table of its false-alarm and detection rates.
    """
    parts = []
    for evaluation in evaluations:
        names = evaluation.config.metric_names
        lines = [
            f"### {evaluation.dataset} — {evaluation.model}",
            "",
            "| class | normal | anomalous | " + " | ".join(names) + " |",
            "|---|" + "---:|" * (len(names) + 2),
        ]
        for name, result in evaluation.classes.items():
            counts = f"{result.normal} | {_anomalous_cell(evaluation, name)}"
            cells = _cells(names, result.values, result.intervals)
            lines.append(f"| {name} | {counts} | {cells} |")
        if len(evaluation.classes) > 1:
            cells = _cells(names, evaluation.mean, evaluation.mean_intervals)
            lines.append(f"| **mean** | | | {cells} |")
        for line in _notes(evaluation):
            lines += ["", line]
        if evaluation.verdicts is not None:
            lines += ["", *verdict_lines(evaluation.verdicts)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _anomalous_cell(evaluation: Evaluation, name: str) -> str:
    """Return the number of anomalous pictures, and of those with a mask where only some have."""
    count, (_, masked) = evaluation.classes[name].anomalous, evaluation.pixel_pictures[name]
    return f"{count} ({masked} with a mask)" if 0 < masked < count else str(count)


def _cells(names: Iterable[str], values: Mapping[str, float], intervals: Intervals) -> str:
    """Return cells such as "90.4 [88.1, 92.6]"."""
    cells = []
    for name in names:
        cell = f"{100 * values[name]:.1f}" if name in values else "-"
        if name in values and name in intervals:
            low, high = intervals[name]
            cell += f" [{100 * low:.1f}, {100 * high:.1f}]"
        cells.append(cell)
    return " | ".join(cells)


def _notes(evaluation: Evaluation) -> list[str]:
    config, environment = evaluation.config, evaluation.environment
    first = "Percent."
    if any(map(sum, evaluation.pixel_pictures.values())):
        size = f"the model's size, {environment['image_size']}"
        if config.resolution == "picture":
            size = "each picture's own size"
        first += f" Pixel metrics at {size} (resolution: {config.resolution})."
    if config.replicates and any(r.intervals for r in evaluation.classes.values()):
        first += (
            " In brackets: 95 % intervals over pictures, from "
            f"{config.replicates} bootstrap replicates."
        )
    first += (
        f" Preset: {evaluation.preset or 'not recorded'}. Precision of the image tower: "
        f"{environment['precision']}."
    )
    if "picture_handling" in environment:
        first += " Pictures and masks are read as the public code reads them."
    lines = [first]
    if "note" in environment:
        lines.append(f"{evaluation.method}: {environment['note']}.")
    if evaluation.unreadable:
        lines.append(f"{len(evaluation.unreadable)} pictures could not be read.")
    for line in (*_reasons(evaluation), *evaluation.remarks):
        plain = _CONTROLS.sub("?", as_unicode(line))  # file names may hold line breaks
        lines.append(f"{plain.rstrip('.')}.")
    return lines


def _reasons(evaluation: Evaluation) -> list[str]:
    """Return why metrics are undefined: a line for each reason, with its metrics and classes."""
    reasons: dict[str, dict[str, list[str]]] = {}  # reason -> class -> metrics
    for class_name, result in evaluation.classes.items():
        for metric, reason in result.undefined.items():
            reasons.setdefault(reason, {}).setdefault(class_name, []).append(metric)
    lines = []
    for reason, classes in reasons.items():
        by_metrics: dict[str, list[str]] = {}
        for class_name, metrics in classes.items():
            by_metrics.setdefault(", ".join(metrics), []).append(class_name)
        parts = [f"{metrics} of {', '.join(names)}" for metrics, names in by_metrics.items()]
        lines.append(f"Undefined: {'; '.join(parts)}: {reason}")
    return lines


def _metrics_csv(evaluation: Evaluation) -> str:
    """Return a row for each class: metrics, intervals, pixel pictures, reasons."""
    names = evaluation.config.metric_names
    ends = [f"{name}_{end}" for name in METRIC_NAMES for end in ("low", "high")]
    last = ["pixel_normal", "pixel_anomalous", "undefined"]

    def row(
        start: list[Any], values: Mapping[str, float], intervals: Intervals,
        pixels: Iterable[Any], undefined: Mapping[str, str],
    ) -> list[Any]:  # fmt: skip
        limits = (end for name in METRIC_NAMES for end in intervals.get(name, (None, None)))
        numbers = map(_number, (*map(values.get, names), *limits))
        reasons = "; ".join(f"{name}: {reason}" for name, reason in undefined.items())
        return [*start, *numbers, *pixels, reasons]

    rows = [["class", "normal", "anomalous", *names, *ends, *last]]
    for name, result in evaluation.classes.items():
        start = [csv_text(name), result.normal, result.anomalous]
        pixels = evaluation.pixel_pictures[name]
        rows.append(row(start, result.values, result.intervals, pixels, result.undefined))
    mean, intervals = evaluation.mean, evaluation.mean_intervals
    rows.append(row(["mean", "", ""], mean, intervals, ["", ""], evaluation.undefined))
    return csv_table(rows)


def _scores_csv(evaluation: Evaluation) -> str:
    rows: list[list[Any]] = [
        ["path", "region", "class", "defect_type", "label", "score", "overlap", "error"]
    ]
    for image in evaluation.images:
        sample = image.sample
        score = "" if image.score is None else f"{image.score:.9g}"  # all digits of a float32
        place = [csv_text(str(sample.image_path)), region_text(sample)]
        kind = [csv_text(sample.class_name), csv_text(sample.defect_type), sample.label]
        rows.append([*place, *kind, score, _number(image.overlap), csv_text(image.error)])
    return csv_table(rows)


def _write_replicates(replicates: Mapping[str, np.ndarray], path: Path) -> None:
    if not replicates:
        path.unlink(missing_ok=True)
        return
    rows = ([f"{value:.9g}" for value in row] for row in zip(*replicates.values(), strict=True))
    _write(path, csv_table([list(replicates), *rows]))


def _remove_curves(folder: Path, *, keep: set[str]) -> None:
    """Remove curves of other classes that an earlier evaluation wrote, known by their columns."""
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*.csv")):
        if path.stem not in keep and _holds_curves(path):
            path.with_name(f"{path.stem}.png").unlink(missing_ok=True)
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _holds_curves(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().strip() == ",".join(_CURVE_COLUMNS)
    except OSError:
        return False


def _curves_csv(curves: Mapping[str, Curve]) -> str:
    rows = [_CURVE_COLUMNS]
    for name, curve in curves.items():
        points = zip(curve.x, curve.y, curve.thresholds, strict=True)
        rows += [[name, *map(_number, point)] for point in points]
    return csv_table(rows)


def _plot(curves: Mapping[str, Curve], path: Path, *, title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(curves), 4), layout="constrained")
    for axes, (name, curve) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        axes.plot(curve.x, curve.y)
        x_label, y_label = _CURVE_AXES[name]
        axes.set(xlabel=x_label, ylabel=y_label, title=name, xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(path, picture.getvalue())


def _lists(intervals: Intervals) -> dict[str, list[float]]:
    return {name: list(pair) for name, pair in intervals.items()}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _write(path: Path, text: str) -> None:
    """Write UTF-8; CSV tables keep the bytes of file names that are not Unicode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    errors = "surrogateescape" if path.suffix == ".csv" else "replace"
    write_atomically(path, text.encode("utf-8", errors=errors))
