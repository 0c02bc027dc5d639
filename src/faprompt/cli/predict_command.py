"""Define `faprompt predict`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from faprompt.cli import options as o


def predict(
    inputs: o.StoredInputs,
    model: o.Model = None,
    method: o.Method = None,
    backbone: o.Backbone = None,
    preset: o.Preset = "paper",
    assignments: o.Assignments = None,
    class_name: o.ClassName = "",
    out: o.Out = Path("faprompt-results"),
    threshold: o.Threshold = None,
    table: Annotated[
        Literal["csv", "parquet"] | None,
        typer.Option(
            help="Also write all results as one table. In CSV, text that a spreadsheet would run "
            "as a formula starts with a '."
        ),
    ] = None,
    maps: Annotated[
        Literal["npy", "png"] | None,
        typer.Option(help="Also write score maps: float32 .npy, or 16-bit .png."),
    ] = None,
    overlays: Annotated[
        bool, typer.Option(help="Write each picture with its score map on top.")
    ] = True,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
    title: Annotated[
        str,
        typer.Option(
            help="Heading of the report, such as a lot number. Default: the name of OUT.",
            show_default=False,
        ),
    ] = "",
    tiles: o.Tiles = None,
    mask: o.Mask = None,
    product: o.Product = None,
    column: o.Column = None,
    batch_size: o.BatchSize = 8,
    bit_depth: o.BitDepth = None,
    window: o.Window = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    resume: Annotated[
        bool, typer.Option(help="Skip pictures that OUT has results of and that have not changed.")
    ] = False,
    strict: Annotated[bool, typer.Option(help="Stop at the first unreadable file.")] = False,
    as_json: o.Json = False,
) -> None:
    """Score pictures and show where they are anomalous.

    Prints one line for each picture: verdict, score, path. Verdicts need a calibrated model (see
    `faprompt calibrate`) or a threshold. Writes results.jsonl, overlays and
    report.html into OUT; without --resume, earlier results there are replaced. Exits with 3
    when some files could not be read.
    """
    from faprompt.cli.terminal import (
        note,
        note_left_out,
        note_pictures,
        pick_detector,
        progress_bars,
    )
    from faprompt.config import parse_assignments
    from faprompt.detector_setup import setup_changes
    from faprompt.prediction.bulk_run import PredictOptions, predict_files
    from faprompt.prediction.input_paths import list_inputs
    from faprompt.work import hold_folders

    left_out: Counter[str] = Counter()
    masks = [mask] if mask is not None and mask.is_dir() else []
    files = list(list_inputs(inputs, column=column, left_out=left_out, exclude=masks))
    options = parse_assignments(assignments or [])
    chosen = PredictOptions(
        batch_size=batch_size, threshold=threshold, maps=maps, overlays=overlays, report=report,
        title=title, table=table, resume=resume, strict=strict, bit_depth=bit_depth,
        window=window, max_pixels=max_pixels, product=product,
    )  # fmt: skip
    done = 0
    with hold_folders(out):
        detector = pick_detector(
            model=model, method=method, backbone=backbone, preset=preset, options=options,
            device=device, precision=precision, class_name=class_name,
        ).with_setup(**setup_changes(tiles, mask))  # fmt: skip
        note_left_out(left_out)
        with progress_bars() as progress:

            def show(row: Any) -> None:
                nonlocal done
                done += 1
                progress("predict", done, len(files))
                print(json.dumps(row.to_dict()) if as_json else result_line(row), flush=True)

            summary = predict_files(
                detector, files, out, chosen, on_result=show,
                settings={
                    "detector": detector.fingerprint(), "decided_by": detector.decided_by()
                },
                lock=False,
            )  # fmt: skip
    note_pictures(summary.notes)
    if summary.n_others or summary.n_dropped:
        note(
            f"earlier results of files not named now: {summary.n_others} kept, "
            f"{summary.n_dropped} dropped because the file is gone or changed"
        )
    note(f"{summary.n_ok} scored, {summary.n_error} unreadable, in {summary.seconds:.1f} s")
    note(f"wrote {summary.report or summary.results}")
    if summary.n_error:
        raise typer.Exit(3)


def result_line(row: Any) -> str:
    """Return the line of a row for people: verdict, score, path, and the error if there is one."""
    from faprompt.files import printable

    path = printable(row.path)
    if row.status == "error":
        return f"ERROR\t-\t{path}\t{printable(row.error)}"
    return f"{row.verdict or '-'}\t{row.score:.4f}\t{path}"
