"""Define the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

# Copies, because a completion must not import what defines them; a test compares them.
MAX_PIXELS = 200_000_000
MODELS = ("small", "tiny")
BACKBONES = ("tiny", "efficientnet-lite0", "ViT-L-14-336", "ViT-B-16", "ViT-B-32")
METHODS = (
    "clip", "clip-ac", "winclip", "april-gan", "anovl", "coop", "cocoop", "anomalyclip",
    "anomalyclip-ensemble", "tcp-v1", "tcp-v2", "filo", "faprompt", "relations", "patchcore",
    "rd4ad",
)  # fmt: skip


def _refuse_nan(value: float | None) -> float | None:
    """Refuse NaN, which passes typer's own check of a range."""
    if value is not None and value != value:
        raise typer.BadParameter("nan is not in the range 0<=x<=1.")
    return value


def parse_numbers(option: str, text: str) -> tuple[float, ...]:
    """Read numbers separated by commas; ConfigError names the option."""
    from faprompt.errors import ConfigError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"{option} should be numbers separated by commas, got {text!r}."
        ) from error


def _complete_from(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Return a function that completes one of these names; shells offer files where none fits."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


Inputs = Annotated[
    list[str],
    typer.Argument(help="Files, folders or globs; or a list of files, such as @parts.txt."),
]
StoredInputs = Annotated[
    list[str] | None,
    typer.Argument(
        help="Files, folders, globs, or URLs of these (s3, gs, az, hf); or a list: @parts.txt with "
        "one path or URL a line, @parts.csv or @parts.parquet (see --column). Not needed after "
        "--shard plan/N."
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column of a .csv or .parquet list that has the paths. Default: path.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        autocompletion=_complete_from(MODELS),
        help="Model: a bundled name (small, tiny), a model folder, or a Hugging Face id. Default: "
        "small, unless --method is given.",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        autocompletion=_complete_from(METHODS),
        help="Method that needs no training, in place of --model; see `faprompt models list`.",
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        autocompletion=_complete_from(BACKBONES),
        help="Backbone: an open_clip name, a weights file or folder, or tiny.",
    ),
]
Preset = Annotated[
    str,
    typer.Option(help="Preset of --method, such as paper or common; see `faprompt models list`."),
]
Out = Annotated[Path, typer.Option(help="Output folder.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Number of pictures scored together.")]
Device = Annotated[
    str,
    typer.Option(
        autocompletion=_complete_from(("auto", "cpu", "cuda", "mps")),
        help="Device: auto, cpu, cuda, cuda:1 or mps. auto takes the fastest.",
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16", "int8"],
    typer.Option(
        help="Precision of the image tower. auto is fp32 on a CPU and bf16 on a GPU; int8 is for "
        "CPUs. `faprompt doctor PICTURES` compares them."
    ),
]
FilePrecision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16", "int8"] | None,
    typer.Option(
        help="Precision of the image tower; overrides the file. auto is fp32 on a CPU and bf16 "
        "on a GPU.",
    ),
]
OnlyClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME",
        help="Use this class only, in every dataset; repeatable. Default: all, or those of "
        "the file.",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Set an option of the method, or of the training; repeatable.",
    ),
]
ClassName = Annotated[
    str, typer.Option(help="Class name of what the pictures show, for methods that use one.")
]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        callback=_refuse_nan,
        help="Score from which a picture is NG, 0 to 1. Regions are marked at it too.",
    ),
]
Tiles = Annotated[
    str | None,
    typer.Option(
        metavar="auto|N|off",
        help="Cut pictures into overlapping tiles and score each: N tiles along the longer side, "
        "or auto for oblong and large pictures. Default: as calibrated, else off.",
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        help="Picture whose marked pixels (not black) are left out of every picture; or a folder "
        "with one such file for each picture, by name. Default: as calibrated.",
    ),
]
Title = Annotated[
    str,
    typer.Option(
        help="Heading of the report, such as a lot number. Default: the name of OUT.",
        show_default=False,
    ),
]
Product = Annotated[
    str | None,
    typer.Option(help="Product of the pictures. Default: their folder, if it is a product."),
]
BitDepth = Annotated[
    int | None,
    typer.Option(min=1, max=32, help="Number of bits that 16-bit files really use."),
]


def _parse_window(text: str) -> Any:
    from faprompt.imaging.reading_options import parse_window

    try:
        return parse_window(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Window = Annotated[
    Any,
    typer.Option(
        parser=_parse_window,
        metavar="CENTER,WIDTH|auto",
        help="Values shown from black to white, in DICOM, 16-bit and float pictures; auto: the "
        "range of each picture. Default: as calibrated, else what the file says.",
    ),
]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Refuse pictures with more pixels (width times height).")
]
DatasetName = Annotated[
    str, typer.Option(help="Dataset reader: auto, or a name of `faprompt datasets list`.")
]
Subset = Annotated[
    Literal["paper", "all"],
    typer.Option(
        help="Pictures to use. paper: the paper's test split; all: every normal picture, where the "
        "paper took a quarter (SDD, AITEX, ELPV, LAG)."
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="NAME", help="Use this class only; repeatable. Default: all."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that holds each dataset in a subfolder named by its id."),
]
Measure = Annotated[
    bool,
    typer.Option(
        "--measure", help="With --dry-run: measure the speed of this machine for the estimate."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
