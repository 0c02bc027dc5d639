"""An evaluation as files: `metrics.json`, `.md`, `.csv`, `scores.csv` and the curves."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faprompt.evaluation.run import Evaluation
from faprompt.metrics import METRIC_NAMES, Curve

CURVE_AXES = {
    "image_roc": ("false-positive rate", "true-positive rate"),
    "image_pr": ("recall", "precision"),
    "pixel_roc": ("false-positive rate", "true-positive rate"),
    "pixel_pr": ("recall", "precision"),
    "pro": ("false-positive rate", "mean region overlap"),
}


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """`metrics.json`: a metric that cannot be computed is absent, with a reason."""
    return {
        "dataset": evaluation.dataset,
        "model": evaluation.model,
        "method": evaluation.method,
        "backbone": evaluation.backbone,
        "classes": {name: result.to_dict() for name, result in evaluation.classes.items()},
        "mean": evaluation.mean,
        "undefined": evaluation.undefined,
        "unreadable": [
            {"path": str(image.sample.image_path), "error": image.error}
            for image in evaluation.unreadable
        ],
        "settings": asdict(evaluation.config),
        "environment": dict(evaluation.environment),
    }


def to_markdown(evaluations: Iterable[Evaluation]) -> str:
    """One table a dataset: a row a class, then the mean; percent, "-" where undefined."""
    parts = []
    for evaluation in evaluations:
        lines = [
            f"### {evaluation.dataset} — {evaluation.model}",
            "",
            "| class | normal | anomalous | " + " | ".join(METRIC_NAMES) + " |",
            "|---|" + "---:|" * (len(METRIC_NAMES) + 2),
        ]
        for name, result in evaluation.classes.items():
            counts = f"{result.normal} | {result.anomalous}"
            lines.append(f"| {name} | {counts} | {_cells(result.values)} |")
        if len(evaluation.classes) > 1:
            lines.append(f"| **mean** | | | {_cells(evaluation.mean)} |")
        if evaluation.unreadable:
            lines += ["", f"{len(evaluation.unreadable)} pictures could not be read."]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def write_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Write all files of one evaluation; returns the path of `metrics.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "metrics.md", to_markdown([evaluation]))
    _write(folder / "metrics.csv", _metrics_csv(evaluation))
    _write(folder / "scores.csv", _scores_csv(evaluation))
    for class_name, curves in evaluation.curves.items():
        if curves:
            stem = re.sub(r"[/\\]", "_", class_name)  # "class/kind"; and no way out of the folder
            _write(folder / "curves" / f"{stem}.csv", _curves_csv(curves))
            _plot(curves, folder / "curves" / f"{stem}.png", title=class_name)
    path = folder / "metrics.json"
    _write(path, json.dumps(to_json(evaluation), indent=2, ensure_ascii=False) + "\n")
    return path


def _cells(values: Mapping[str, float]) -> str:
    return " | ".join(
        f"{100 * values[name]:.1f}" if name in values else "-" for name in METRIC_NAMES
    )


def _metrics_csv(evaluation: Evaluation) -> str:
    rows = [["class", "normal", "anomalous", *METRIC_NAMES]]
    for name, result in evaluation.classes.items():
        values = [_number(result.values.get(metric)) for metric in METRIC_NAMES]
        rows.append([name, str(result.normal), str(result.anomalous), *values])
    means = evaluation.mean
    rows.append(["mean", "", "", *(_number(means.get(metric)) for metric in METRIC_NAMES)])
    return _csv(rows)


def _scores_csv(evaluation: Evaluation) -> str:
    rows = [["path", "class", "defect_type", "label", "score", "error"]]
    for image in evaluation.images:
        sample = image.sample
        rows.append(
            [
                str(sample.image_path),
                sample.class_name,
                sample.defect_type,
                str(sample.label),
                _number(image.score),
                image.error,
            ]
        )
    return _csv(rows)


def _curves_csv(curves: Mapping[str, Curve]) -> str:
    rows = [["curve", "x", "y", "threshold"]]
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
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=110)
    os.replace(part, path)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _csv(rows: list[list[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
