"""An evaluation as files: `metrics.json`, `.md`, `.csv`, `scores.csv`, `replicates.csv`, curves."""

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
from faprompt.files import csv_text, write_atomically
from faprompt.metrics import METRIC_NAMES, Curve, MetricResult
from faprompt.work import can_draw

REPLICATES_NAME = "replicates.csv"
CURVES_FOLDER = "curves"
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CURVE_COLUMNS = ["curve", "x", "y", "threshold"]
CURVE_AXES = {
    "image_roc": ("false-positive rate", "true-positive rate"),
    "image_pr": ("recall", "precision"),
    "pixel_roc": ("false-positive rate", "true-positive rate"),
    "pixel_pr": ("recall", "precision"),
    "pro": ("false-positive rate", "mean region overlap"),
}


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """`metrics.json`: a metric that cannot be computed is absent, with a reason.

    "intervals" holds [low, high] per metric: those of a class beside its figures, those of
    the mean at the top level, where "undefined" is the mean's too. "pixel_pictures" holds, per
    class, how many pictures its pixel metrics rest on.
    """
    return {
        "dataset": evaluation.dataset,
        "model": evaluation.model,
        "method": evaluation.method,
        "preset": evaluation.preset,
        "backbone": evaluation.backbone,
        "precision": evaluation.environment["precision"],
        "resolution": evaluation.config.resolution,
        "classes": {name: _class_json(result) for name, result in evaluation.classes.items()},
        "left_out_classes": list(evaluation.left_out_classes),
        "pixel_pictures": {
            name: {"normal": normal, "anomalous": anomalous}
            for name, (normal, anomalous) in evaluation.pixel_pictures.items()
        },
        "mean": evaluation.mean,
        "intervals": _pairs(evaluation.mean_intervals),
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
        "settings": asdict(evaluation.config),
        "environment": dict(evaluation.environment),
    }


def to_markdown(evaluations: Iterable[Evaluation]) -> str:
    """One table a dataset: a row a class, then the mean; percent, "-" where undefined."""
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
            lines.append(
                f"| {name} | {counts} | {_cells(names, result.values, result.intervals)} |"
            )
        if len(evaluation.classes) > 1:
            cells = _cells(names, evaluation.mean, evaluation.mean_intervals)
            lines.append(f"| **mean** | | | {cells} |")
        lines += ["", *_remarks(evaluation)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _anomalous_cell(evaluation: Evaluation, name: str) -> str:
    """Return the number of anomalous pictures, and of those with a mask where only some have."""
    count, (_, masked) = evaluation.classes[name].anomalous, evaluation.pixel_pictures[name]
    return f"{count} ({masked} with a mask)" if 0 < masked < count else str(count)


def _remarks(evaluation: Evaluation) -> list[str]:
    """What a reader of the table has to know."""
    config = evaluation.config
    lines = ["Percent."]
    if any(map(sum, evaluation.pixel_pictures.values())):
        size = f"the model's size, {evaluation.environment['image_size']}"
        if config.resolution == "picture":
            size = "each picture's own size"
        lines[0] += f" Pixel metrics at {size} (resolution: {config.resolution})."
    if config.replicates and any(r.intervals for r in evaluation.classes.values()):
        lines[0] += (
            " In brackets: 95 % intervals over pictures, from "
            f"{config.replicates} bootstrap replicates."
        )
    lines[0] += (
        f" Preset: {evaluation.preset or 'not recorded'}. Precision of the image tower: "
        f"{evaluation.environment['precision']}."
    )
    if "picture_handling" in evaluation.environment:
        lines[0] += " Pictures and masks are read as the public code reads them."
    if "note" in evaluation.environment:
        lines += ["", f"{evaluation.method}: {evaluation.environment['note']}."]
    if evaluation.unreadable:
        lines += ["", f"{len(evaluation.unreadable)} pictures could not be read."]
    for line in (*_reasons(evaluation), *evaluation.remarks):
        lines += ["", f"{_one_line(line).rstrip('.')}."]
    return lines


def _one_line(text: str) -> str:
    """Return a text without the line breaks and control characters that file names may hold."""
    return _CONTROLS.sub("?", as_unicode(text))


def _reasons(evaluation: Evaluation) -> list[str]:
    """Say why figures are missing: one line for each reason, with the metrics and classes."""
    found: dict[str, dict[str, list[str]]] = {}
    for class_name, result in evaluation.classes.items():
        for metric, reason in result.undefined.items():
            found.setdefault(reason, {}).setdefault(class_name, []).append(metric)
    lines = []
    for reason, classes in found.items():
        same: dict[str, list[str]] = {}
        for class_name, metrics in classes.items():
            same.setdefault(", ".join(metrics), []).append(class_name)
        told = "; ".join(f"{metrics} of {', '.join(names)}" for metrics, names in same.items())
        lines.append(f"Undefined: {told}: {reason}")
    return lines


def write_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Write all files of one evaluation; returns the path of `metrics.json`.

    The file of an interrupted run in that folder has served, and is removed. So are the gallery
    and the curves that an earlier evaluation wrote there; files of other origin stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stems = {_curve_stem(name) for name, curves in evaluation.curves.items() if curves}
    _remove_curves(folder / CURVES_FOLDER, keep=stems)
    remove_gallery(folder)
    _write(folder / "metrics.md", to_markdown([evaluation]))
    _write(folder / "metrics.csv", _metrics_csv(evaluation))
    _write(folder / "scores.csv", _scores_csv(evaluation))
    drawn = can_draw("Curves")
    for class_name, curves in evaluation.curves.items():
        if curves:
            stem = folder / CURVES_FOLDER / _curve_stem(class_name)
            _write(stem.with_name(f"{stem.name}.csv"), _curves_csv(curves))
            if drawn:
                _plot(curves, stem.with_name(f"{stem.name}.png"), title=class_name)
    write_replicates(evaluation.mean_replicates, folder)
    path = folder / "metrics.json"
    _write(path, json.dumps(to_json(evaluation), indent=2, ensure_ascii=False) + "\n")
    (folder / PROGRESS_NAME).unlink(missing_ok=True)
    return path


def _curve_stem(class_name: str) -> str:
    """Return the name of a class as a file name: "class/kind" does not lead out of the folder."""
    return re.sub(r"[/\\]", "_", class_name)


def _remove_curves(folder: Path, *, keep: set[str]) -> None:
    """Remove curves of other classes that an earlier evaluation wrote, known by their columns."""
    for path in sorted(folder.glob("*.csv")) if folder.is_dir() else []:
        if path.stem not in keep and _holds_curves(path):
            path.with_name(f"{path.stem}.png").unlink(missing_ok=True)
            path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _holds_curves(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().strip() == ",".join(_CURVE_COLUMNS)
    except OSError:
        return False


def write_replicates(replicates: Mapping[str, np.ndarray], folder: Path) -> None:
    """`replicates.csv`, a line per bootstrap replicate; without any, a former file is removed."""
    path = folder / REPLICATES_NAME
    if not replicates:
        path.unlink(missing_ok=True)
        return
    rows = zip(*replicates.values(), strict=True)
    _write(path, _csv([list(replicates), *([f"{value:.9g}" for value in row] for row in rows)]))


def read_replicates(folder: Path) -> dict[str, np.ndarray]:
    """Metric name -> (replicates,) float64 of the mean, NaN where undefined; none without a file.

    Raises:
        ValueError: the file is not one of ours.
    """
    try:
        text = (folder / REPLICATES_NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    names, *rows = csv.reader(io.StringIO(text))
    return dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))


def _class_json(result: MetricResult) -> dict[str, Any]:
    return {**result.to_dict(), "intervals": _pairs(result.intervals)}


def _pairs(intervals: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    return {name: list(pair) for name, pair in intervals.items()}


def _cells(
    names: Iterable[str], values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
) -> str:
    return " | ".join(_cell(values.get(name), intervals.get(name)) for name in names)


def _cell(value: float | None, interval: tuple[float, float] | None) -> str:
    """ "90.4 [88.1, 92.6]"."""
    if value is None:
        return "-"
    ends = "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return f"{100 * value:.1f}{ends}"


def _metrics_csv(evaluation: Evaluation) -> str:
    """A row a class; behind all values stand intervals, pixel pictures and missing figures."""
    names = evaluation.config.metric_names
    ends = [f"{name}_{end}" for name in METRIC_NAMES for end in ("low", "high")]
    last = ["pixel_normal", "pixel_anomalous", "undefined"]
    rows = [["class", "normal", "anomalous", *names, *ends, *last]]
    for name, result in evaluation.classes.items():
        figures = _figures(names, result.values, result.intervals)
        pixels = map(str, evaluation.pixel_pictures[name])
        reasons = _reasons_cell(result.undefined)
        rows.append(
            [csv_text(name), str(result.normal), str(result.anomalous), *figures, *pixels, reasons]
        )
    figures = _figures(names, evaluation.mean, evaluation.mean_intervals)
    return _csv([*rows, ["mean", "", "", *figures, "", "", _reasons_cell(evaluation.undefined)]])


def _reasons_cell(undefined: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in undefined.items())


def _figures(
    names: Iterable[str], values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
) -> list[str]:
    ends = [end for name in METRIC_NAMES for end in intervals.get(name, (None, None))]
    return [_number(number) for number in (*map(values.get, names), *ends)]


def _scores_csv(evaluation: Evaluation) -> str:
    rows = [["path", "region", "class", "defect_type", "label", "score", "overlap", "error"]]
    for image in evaluation.images:
        sample = image.sample
        rows.append(
            [
                csv_text(str(sample.image_path)),
                region_text(sample),
                csv_text(sample.class_name),
                csv_text(sample.defect_type),
                str(sample.label),
                "" if image.score is None else f"{image.score:.9g}",  # all of a float32
                _number(image.overlap),
                csv_text(image.error),
            ]
        )
    return _csv(rows)


def _curves_csv(curves: Mapping[str, Curve]) -> str:
    rows = [_CURVE_COLUMNS]
    for name, curve in curves.items():
        points = zip(curve.x, curve.y, curve.thresholds, strict=True)
        rows += [[name, _number(x), _number(y), _number(t)] for x, y, t in points]
    return _csv(rows)


def _plot(curves: Mapping[str, Curve], path: Path, *, title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(curves), 4), layout="constrained")
    for axes, (name, curve) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        axes.plot(curve.x, curve.y)
        x_label, y_label = CURVE_AXES[name]
        axes.set(xlabel=x_label, ylabel=y_label, title=name, xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_atomically(path, picture.getvalue())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _csv(rows: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _write(path: Path, text: str) -> None:
    """Write UTF-8; file names that are no text keep their bytes in tables."""
    path.parent.mkdir(parents=True, exist_ok=True)
    errors = "surrogateescape" if path.suffix == ".csv" else "replace"
    write_atomically(path, text.encode("utf-8", errors=errors))
