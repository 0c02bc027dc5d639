"""Define `faprompt train`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from faprompt.cli import options as o


def train_command(
    data: Annotated[Path, typer.Argument(help="Labelled folder; see `faprompt datasets check`.")],
    dataset: o.DatasetName = "auto",
    method: Annotated[str, typer.Option(help="Method to train.")] = "faprompt",
    preset: Annotated[
        str,
        typer.Option(
            help="Preset: paper (as described), official (as the public code computes), common "
            "(alike for all methods) and more; see `faprompt models list`."
        ),
    ] = "paper",
    backbone: Annotated[
        str,
        typer.Option(help="Backbone, as in predict. Default: tiny, or that of a full-shot preset."),
    ] = "",
    out: o.Out = Path("faprompt-model"),
    assignments: o.Assignments = None,
    name: Annotated[str, typer.Option(help="Name of the model. Default: the name of OUT.")] = "",
    split: Annotated[
        str, typer.Option(help="Split to train on. Default: test, or train for full-shot methods.")
    ] = "",
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    resume: Annotated[bool, typer.Option(help="Continue from the checkpoint in OUT.")] = False,
) -> None:
    """Train a method on a labelled set and write a model folder.

    The image tower encodes each picture once; its tokens are cached. --set takes options of
    the method (prompts=5) and of the training (epochs=7, batch_size=8). Each method has its
    own training recipe, which --set overrides:

    \b
    april-gan             adam 0.001, batch 8, 15 epochs
    coop                  sgd 0.002, batch 8, 50 epochs, cosine
    cocoop                adam 0.001, batch 8, 15 epochs
    cocoop, original      sgd 0.002, batch 1, 10 epochs, cosine
    anomalyclip           adam 0.001, batch 8, 15 epochs
    anomalyclip-ensemble  adam 0.001, batch 8, 15 epochs
    tcp-v1, tcp-v2        adam 0.002, batch 8, 50 epochs, cosine
    filo                  adamw 0.001, batch 1, 20 epochs
    faprompt              adam 0.001, batch 8, 7 epochs
    faprompt, first-upload  adam 0.001, batch 8, 15 epochs
    rd4ad                 adam 0.005, batch 16, 200 epochs

    patchcore and rd4ad are full-shot: they learn each class from its own normal pictures, by
    default those of the train split, and need no masks.
    """
    from faprompt.cli.terminal import note, progress_bars, say
    from faprompt.config import parse_assignments
    from faprompt.data import read_dataset
    from faprompt.methods.registry import method_class
    from faprompt.training.full_shot_training import SPLIT, read_normal
    from faprompt.training.training_config import TrainingConfig, recipe_config
    from faprompt.training.training_session import TrainOptions, train
    from faprompt.work import hold_folders

    values = parse_assignments(assignments or [])
    of_training = {item.name for item in fields(TrainingConfig)} & set(values)
    options = TrainOptions(
        method=method, preset=preset, backbone=backbone, name=name, resume=resume,
        device=device, precision=precision,
        options={key: values[key] for key in values if key not in of_training},
        training={key: values[key] for key in of_training},
    )  # fmt: skip
    recipe_config(method, preset, options.training)  # refuses unknown options before reading
    if method_class(method).full_shot:
        found = read_normal(data, dataset, split=split or SPLIT)
    else:
        found = read_dataset(data, dataset, split=split or "test")
    with hold_folders(out), progress_bars() as progress:
        report = train(found, out, options, progress=progress)
    if report.epochs:
        note(f"{report.steps} steps on {report.pictures} pictures; losses in {report.loss_csv}")
        note(f"image tower {report.image_seconds:.1f} s, prompts {report.step_seconds:.1f} s")
    say(f"wrote {out}")
