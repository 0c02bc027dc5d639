"""`faprompt evaluate`: metrics per class and their mean, on labelled folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from faprompt.cli import _options as o


def evaluate(
    data: Annotated[list[Path], typer.Argument(help="Labelled folders.")],
    dataset: o.DatasetName = "auto",
    model: o.Model = None,
    method: o.Method = None,
    backbone: o.Backbone = None,
    assignments: o.Assignments = None,
    out: o.Out = Path("faprompt-evaluation"),
    resolution: Annotated[
        Literal["model", "picture"],
        typer.Option(help="Where pixel metrics are taken: the model's size, or the picture's."),
    ] = "model",
    fpr_limit: Annotated[float, typer.Option(help="Where AUPRO ends.")] = 0.3,
    by_defect: Annotated[
        bool, typer.Option(help="One group per kind of defect, against all normal pictures.")
    ] = False,
    batch_size: o.BatchSize = 8,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    as_json: o.Json = False,
) -> None:
    """Measure a detector: metrics.json, metrics.md, metrics.csv, scores.csv and curves in OUT.

    Exit 3 when some pictures could not be read; they are left out and named.
    """
    from faprompt.cli._terminal import note, pick_detector, progress_bar
    from faprompt.config import from_mapping, parse_assignments
    from faprompt.data import read_dataset
    from faprompt.evaluation import EvaluationConfig, to_json, to_markdown, write_evaluation
    from faprompt.evaluation import evaluate as measure

    chosen = {
        "batch_size": batch_size, "resolution": resolution, "fpr_limit": fpr_limit,
        "by_defect": by_defect,
    }  # fmt: skip
    config = from_mapping(EvaluationConfig, chosen, what="evaluation options")
    sets = [read_dataset(folder, dataset) for folder in data]
    detector = pick_detector(
        model=model, method=method, backbone=backbone,
        options=parse_assignments(assignments or []), device=device, precision=precision,
    )  # fmt: skip
    results = []
    for number, found in enumerate(sets):
        with progress_bar(found.name) as advance:
            result = measure(detector, found, config, progress=advance)
        folder = out if len(sets) == 1 else out / f"{number + 1}-{found.name}"
        note(f"wrote {write_evaluation(result, folder)}")
        results.append(result)
    if as_json:
        rows = [to_json(result) for result in results]
        print(json.dumps(rows[0] if len(rows) == 1 else rows, ensure_ascii=False))
    else:
        print(to_markdown(results), end="")
    if any(result.unreadable for result in results):
        raise typer.Exit(3)
