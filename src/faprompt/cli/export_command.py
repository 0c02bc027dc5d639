"""Define `faprompt export`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from faprompt.cli import options as o


def export_command(
    model: Annotated[
        str | None,
        typer.Argument(help="Model: a bundled name, a model folder, or a Hugging Face id."),
    ] = None,
    method: o.Method = None,
    backbone: o.Backbone = None,
    preset: o.Preset = "paper",
    assignments: o.Assignments = None,
    class_name: Annotated[
        str,
        typer.Option(
            help="Class name of what the pictures show, for methods that use one. It is fixed in "
            "the exported folder."
        ),
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("faprompt-exported"),
    file_format: Annotated[
        Literal["onnx", "openvino"], typer.Option("--format", help="Format of the graph.")
    ] = "onnx",
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(
            help="fp16 stores weights in half precision and computes in fp32; int8, of onnx only, "
            "also multiplies 8-bit numbers."
        ),
    ] = "fp32",
    check: Annotated[
        list[str] | None,
        typer.Option(
            help="File, folder or glob of pictures to compare on; repeatable. At most 64 are used, "
            "evenly spread. Default: 9 drawn ones."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest difference of a score, a map value or a patch token, above 0 and at most "
            "1. Default: 0.0001 at fp32, 0.005 at fp16, 0.05 at int8."
        ),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Write a folder that runs without torch, if it gives the same results.

    \b
    faprompt export my-model --out exported --check good/
    faprompt predict lot7/ --model exported            every command takes it like a model
    python -m faprompt.runtime exported lot7/          with numpy, Pillow and onnxruntime alone

    Scores, maps, verdicts and regions of real pictures are compared with torch, in batches of 1
    and 4. Where they differ by more than the tolerance, nothing is written.
    """
    from faprompt.cli.terminal import note, note_left_out, pick_detector, progress_bars, say
    from faprompt.config import parse_assignments
    from faprompt.errors import ConfigError
    from faprompt.exporting import ExportOptions, export
    from faprompt.prediction.input_paths import expand_inputs

    left_out: Counter[str] = Counter()
    pictures = [str(path) for path in expand_inputs(check, left_out=left_out)] if check else []
    note_left_out(left_out)
    if check and not pictures:
        raise ConfigError(f"--check {' '.join(check)} names no picture.")
    try:
        options = ExportOptions(
            format=file_format, precision=precision, check=tuple(pictures), tolerance=tolerance
        )
    except ValueError as error:
        raise ConfigError(f"{error}.") from error
    detector = pick_detector(
        model=model, method=method, backbone=backbone, preset=preset,
        options=parse_assignments(assignments or []), device="cpu", precision="fp32",
        class_name=class_name,
    )  # fmt: skip
    with progress_bars() as progress:
        report = export(detector, out, options, progress=progress)
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        say(report)
        note(f"wrote {out}")
