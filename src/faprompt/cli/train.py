"""`faprompt train`: prompts learned on one labelled set."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from faprompt.cli import _options as o


def train(
    data: Annotated[Path, typer.Argument(help="A labelled folder; see `faprompt datasets check`.")],
    dataset: o.DatasetName = "auto",
    method: Annotated[str, typer.Option(help="A method that learns.")] = "faprompt",
    preset: Annotated[
        str, typer.Option(help="paper (as described) or official (as the public code computes).")
    ] = "paper",
    backbone: Annotated[str, typer.Option(help="As in predict.")] = "tiny",
    out: o.Out = Path("faprompt-model"),
    assignments: o.Assignments = None,
    name: Annotated[str, typer.Option(help="The model's name; default: OUT's.")] = "",
    split: Annotated[str, typer.Option(help="Which split to learn from.")] = "test",
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    resume: Annotated[bool, typer.Option(help="Go on from OUT's checkpoint.")] = False,
) -> None:
    """Learn prompts on a labelled set and write a model folder.

    The image tower runs once per picture; its tokens are kept in a cache. --set takes
    options of the method (prompts=5) and of the training (epochs=7, batch_size=8).
    """
    from faprompt.cli._terminal import note, pick_device, pick_precision, progress_bar
    from faprompt.config import from_mapping, parse_assignments
    from faprompt.data import read_dataset
    from faprompt.training.config import TrainingConfig
    from faprompt.training.progress import Progress
    from faprompt.training.session import train_model

    values = parse_assignments(assignments or [])
    training_names = {field.name for field in fields(TrainingConfig)}
    chosen = {key: value for key, value in values.items() if key in training_names}
    where = pick_device(device)
    config = from_mapping(TrainingConfig, {"device": where, **chosen}, what="training options")
    with progress_bar("train") as advance:

        def show(sign: Progress) -> None:
            advance(sign.done, sign.total)

        report = train_model(
            read_dataset(data, dataset, split=split),
            method=method,
            preset=preset,
            backbone=backbone,
            options={k: v for k, v in values.items() if k not in training_names},
            config=config,
            out=out,
            name=name or out.name,
            precision=pick_precision(precision, where),
            resume=resume,
            progress=show,
            notify=note,
        )
    note(f"{report.steps} steps on {report.pictures} pictures; loss curve {report.loss_png}")
    note(f"image tower {report.image_seconds:.1f} s, prompts {report.step_seconds:.1f} s")
    print(f"wrote {out}")
