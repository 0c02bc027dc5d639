"""Define `faprompt evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from faprompt.cli import options as o

if TYPE_CHECKING:
    from faprompt.data import Dataset
    from faprompt.detector import Detector
    from faprompt.evaluation import Evaluation, ShardResult
    from faprompt.exported_detector import ExportedDetector


def evaluate(
    data: Annotated[list[Path], typer.Argument(help="Labelled folders.")],
    dataset: o.DatasetName = "auto",
    subset: o.Subset = "paper",
    classes: o.Classes = None,
    model: o.Model = None,
    method: o.Method = None,
    backbone: o.Backbone = None,
    preset: o.Preset = "paper",
    assignments: o.Assignments = None,
    out: o.Out = Path("faprompt-evaluation"),
    tiles: o.Tiles = None,
    mask: o.Mask = None,
    window: o.Window = None,
    product: Annotated[
        str | None,
        typer.Option(help="Product of all pictures. Default: their class or folder, if it is one."),
    ] = None,
    resolution: Annotated[
        Literal["model", "picture"],
        typer.Option(
            help="Size at which pixel metrics are computed: the model's input, or the picture."
        ),
    ] = "model",
    fpr_limit: Annotated[
        float, typer.Option(help="False positive rate at which AUPRO ends, 0 to 1.")
    ] = 0.3,
    mask_policy: Annotated[
        Literal["any-channel", "reference", "strict"],
        typer.Option(
            help="Mask pixels that count as anomalous. any-channel: a colour channel is above 0 "
            "where alpha is above 0. reference: the luminance is above 0, as in the authors' code. "
            "strict: the brightest channel is above 127, for noisy JPEG masks."
        ),
    ] = "any-channel",
    by_defect: Annotated[
        bool,
        typer.Option(help="Compute metrics for each kind of defect, against all normal pictures."),
    ] = False,
    replicates: Annotated[
        int, typer.Option(help="Number of bootstrap replicates of the 95 % intervals; 0 for none.")
    ] = 200,
    gallery: Annotated[
        int,
        typer.Option(help="Pictures of each kind of mistake on a contact sheet; 0 for no sheets."),
    ] = 12,
    pro_200: Annotated[
        bool,
        typer.Option(
            "--pro-200", help="Also compute the PRO of the authors' code, with 200 thresholds."
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            help="I/N: measure the I-th of N parts. When all N are done, `faprompt merge OUT` "
            "computes the metrics, as one process would.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            help="Continue an interrupted run in OUT if model, pictures and options are the same."
        ),
    ] = True,
    batch_size: o.BatchSize = 8,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    as_json: o.Json = False,
) -> None:
    """Compute the metrics of a detector on labelled folders.

    For a calibrated model also its false-alarm and detection rates at its thresholds. Writes
    metrics.json, .md and .csv, scores.csv, curves and contact sheets into OUT. Exits with 3
    when some pictures could not be read; they are left out and named. With --shard it writes
    counts into OUT/evaluation-shards alone, and a shard that is done is skipped.
    """
    from faprompt.cli.terminal import note, pick_detector, progress_bars
    from faprompt.config import from_mapping, parse_assignments
    from faprompt.data import read_dataset
    from faprompt.detector_setup import setup_changes
    from faprompt.errors import ConfigError
    from faprompt.evaluation import (
        PROGRESS_NAME,
        EvaluationConfig,
        EvaluationShard,
        evaluate_shard,
        holds_evaluation,
        write_evaluation,
        write_gallery,
    )
    from faprompt.evaluation import evaluate as measure
    from faprompt.work import hold_folders

    chosen = {
        "batch_size": batch_size, "resolution": resolution, "fpr_limit": fpr_limit,
        "mask_policy": mask_policy, "by_defect": by_defect, "replicates": replicates,
        "gallery": gallery, "pro_200": pro_200, "product": product,
    }  # fmt: skip
    config = from_mapping(EvaluationConfig, chosen, what="evaluation options")
    sets = [read_dataset(folder, dataset, subset=subset) for folder in data]
    sets = _with_classes(sets, classes or [])
    part = None if shard is None else EvaluationShard.parse(shard)
    if part is None and holds_evaluation(out):
        raise ConfigError(
            f"{out} holds shards of an evaluation; `faprompt merge` joins them. Choose another "
            "--out."
        )
    folders = [out / f"{number + 1}-{found.name}" for number, found in enumerate(sets)]
    folders = [out] if len(sets) == 1 else folders

    def build() -> Detector | ExportedDetector:
        return pick_detector(
            model=model, method=method, backbone=backbone, preset=preset,
            options=parse_assignments(assignments or []), device=device, precision=precision,
        ).with_setup(**setup_changes(tiles, mask, window))  # fmt: skip

    if part is not None:
        detector, rows = build(), []
        for found, folder in zip(sets, folders, strict=True):
            with progress_bars() as progress:
                rows.append(
                    evaluate_shard(
                        detector, found, config, folder, part, progress=progress, resume=resume
                    )
                )
        _show_shard(rows, out, as_json)
        return
    results = []
    with hold_folders(out):
        detector = build()
        for found, folder in zip(sets, folders, strict=True):
            state = folder / PROGRESS_NAME
            if not resume:
                state.unlink(missing_ok=True)
            with progress_bars() as progress:
                result = measure(detector, found, config, progress=progress, resume=state)
            note(f"wrote {write_evaluation(result, folder)}")
            for sheet in write_gallery(detector, result, folder):
                note(f"wrote {sheet}")
            results.append(result)
    show_evaluations(results, as_json)


def show_evaluations(results: Sequence[Evaluation], as_json: bool) -> None:
    """Print metrics as a table or as JSON; exit with 3 if some pictures could not be read."""
    from faprompt.cli.terminal import say
    from faprompt.evaluation import to_json, to_markdown

    if as_json:
        rows = [to_json(result) for result in results]
        print(json.dumps(rows[0] if len(rows) == 1 else rows))
    else:
        say(to_markdown(results).rstrip("\n"))
    if any(result.unreadable for result in results):
        raise typer.Exit(3)


def _show_shard(results: Sequence[ShardResult], out: Path, as_json: bool) -> None:
    """Print the counts of a shard over all datasets; exit with 3 if pictures are unreadable."""
    from faprompt.cli.terminal import note

    names = ("chunks", "pictures", "unreadable", "kept")
    sums = {name: sum(getattr(result, name) for result in results) for name in names}
    shard = str(results[0].shard)
    if as_json:
        print(json.dumps({"shard": shard, **sums}))
    note(
        f"shard {shard}: {sums['pictures']} pictures in {sums['chunks']} chunks, "
        f"{sums['unreadable']} unreadable; `faprompt merge {out}` when all shards are done"
    )
    if sums["unreadable"]:
        raise typer.Exit(3)


def _with_classes(sets: list[Dataset], names: list[str]) -> list[Dataset]:
    """Select classes in every dataset that has them; refuse names that no dataset has."""
    known = {name for found in sets for name in found.class_names()}
    chosen = []
    for found in sets:
        own = [name for name in names if name not in known or name in found.class_names()]
        chosen.append(found.with_classes(own or names))
    return chosen
