"""Options that several verbs spell alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer


def _refuse_nan(value: float | None) -> float | None:
    """Refuse NaN, which passes typer's own check of a range."""
    if value is not None and value != value:
        raise typer.BadParameter("nan is not in the range 0<=x<=1.")
    return value


Inputs = Annotated[list[str], typer.Argument(help="Files, folders or globs.")]
Model = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it at run time on 3.10 too
    typer.Option(help="A bundled name (tiny), a model folder, or a Hugging Face id."),
]
Method = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="A method by name; see `faprompt models list`."),
]
Backbone = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="open_clip name, weights file or folder, or tiny."),
]
Preset = Annotated[
    str, typer.Option(help="Of --method, such as paper or common; see `faprompt models list`.")
]
Out = Annotated[Path, typer.Option(help="Folder for what is written.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures scored together.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="Of the image tower; auto is fp32 on a CPU, bf16 on a GPU."),
]
FilePrecision = Annotated[
    Optional[Literal["auto", "fp32", "bf16", "fp16"]],  # noqa: UP045
    typer.Option(
        help="Of the image tower; default: what the file says. auto is fp32 on a CPU, bf16 on a "
        "GPU.",
    ),
]
OnlyClasses = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--class",
        metavar="NAME",
        help="Only this class of every dataset; repeatable. Default: all, or what the file says.",
    ),
]
Assignments = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="NAME=VALUE", help="Any hyper-parameter; repeatable."),
]
ClassName = Annotated[
    str, typer.Option(help="What the pictures show, for methods that ask; as in training.")
]
Threshold = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        min=0,
        max=1,
        callback=_refuse_nan,
        help="Score from which a picture is NG, 0 to 1; also marks regions.",
    ),
]
BitDepth = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, max=32, help="Bits that 16-bit files really use."),
]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Refuse larger pictures, in pixels (width times height).")
]
DatasetName = Annotated[
    str, typer.Option(help="Which reader: auto, or a name of `faprompt datasets list`.")
]
Subset = Annotated[
    Literal["paper", "all"],
    typer.Option(
        help="paper: the paper's test split; all: every normal picture, where the paper took a "
        "quarter (SDD, AITEX, ELPV, LAG)."
    ),
]
Classes = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--class", metavar="NAME", help="Use this class only; repeatable. Default: all."),
]
DataRoot = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Where datasets lie, each in a folder of its id."),
]
Measure = Annotated[
    bool, typer.Option("--measure", help="With --dry-run: time this machine for the estimate.")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
MAX_PIXELS = 200_000_000  # as in imaging, which this file must not wake
