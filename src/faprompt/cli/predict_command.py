"""Define `faprompt predict`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from faprompt.cli import options as o


def predict(
    inputs: o.StoredInputs = None,
    model: o.Model = None,
    method: o.Method = None,
    backbone: o.Backbone = None,
    preset: o.Preset = "paper",
    assignments: o.Assignments = None,
    class_name: o.ClassName = "",
    out: Annotated[
        str, typer.Option(help="Output folder, or the URL of one, such as s3://bucket/results.")
    ] = "faprompt-results",
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
    title: o.Title = "",
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
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N|plan/N",
            help="Score part I of N; the same command goes on after an interruption. plan/N: list "
            "the inputs once for all shards. `faprompt merge OUT` joins the results.",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="0,1",
            help="Use several GPUs of this machine, a process for each; cpu,cpu for processors.",
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Who scores: this machine, or a Ray cluster (docs/bulk.md)."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster: auto, or HOST:PORT. Default: Ray on this machine."),
    ] = None,
    part_rows: Annotated[
        int,
        typer.Option(
            min=1,
            help="With --shard: most rows of a part. An interrupted shard goes on after its last "
            "part; one is written after a minute at the latest.",
        ),
    ] = 1000,
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="With --shard: score again what could not be read."),
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Score pictures and show where they are anomalous.

    Prints one line for each picture: verdict, score, path. Verdicts need a calibrated model (see
    `faprompt calibrate`) or a threshold. Writes results.jsonl, overlays and
    report.html into OUT; without --resume, earlier results there are replaced. Exits with 3
    when some files could not be read.
    """
    from faprompt.cli.bulk_predict import BulkRequest, load_scorer, run_bulk
    from faprompt.cli.terminal import (
        note,
        note_left_out,
        note_pictures,
        progress_bars,
        result_line,
    )
    from faprompt.config import parse_assignments
    from faprompt.errors import ConfigError
    from faprompt.prediction.bulk_run import PredictOptions, predict_files
    from faprompt.prediction.input_paths import list_inputs
    from faprompt.storage import is_url, local_path
    from faprompt.work import hold_folders

    masks = [mask] if mask is not None and mask.is_dir() else []
    options = parse_assignments(assignments or [])
    chosen = PredictOptions(
        batch_size=batch_size, threshold=threshold, maps=maps, overlays=overlays, report=report,
        title=title, table=table, resume=resume, strict=strict, bit_depth=bit_depth,
        window=window, max_pixels=max_pixels, product=product,
    )  # fmt: skip
    picked: dict[str, Any] = {
        "model": model, "method": method, "backbone": backbone, "preset": preset,
        "options": options, "precision": precision, "class_name": class_name,
    }  # fmt: skip
    place = local_path(out)
    if address is not None and engine != "ray":
        raise ConfigError("--address is of a Ray cluster; add --engine ray, or leave it out.")
    if shard or devices or engine == "ray" or is_url(place):
        run_bulk(BulkRequest(
            inputs=inputs or [], column=column, out=place, shard=shard, engine=engine,
            address=address, devices=_device_names(devices, device), options=chosen,
            part_rows=part_rows, retry_errors=retry_errors,
            detector=picked | {"tiles": tiles, "mask": mask}, as_json=as_json,
            exclude=tuple(masks),
        ))  # fmt: skip
        return
    if retry_errors:
        raise ConfigError("--retry-errors belongs to --shard; --resume does so by itself.")
    if not inputs:
        raise typer.BadParameter("Missing INPUTS: name files, folders, globs or URLs.")
    if Path(place, "shards").is_dir():
        raise ConfigError(
            f"{out} holds the shards of a run; `faprompt merge` joins them. Choose another --out."
        )
    left_out: Counter[str] = Counter()
    files = list(list_inputs(inputs, column=column, left_out=left_out, exclude=masks))
    done = 0
    with hold_folders(Path(place)):
        detector = load_scorer(device, tiles=tiles, mask=mask, **picked)
        note_left_out(left_out)
        with progress_bars() as progress:

            def show(row: Any) -> None:
                nonlocal done
                done += 1
                progress("predict", done, len(files))
                print(json.dumps(row.to_dict()) if as_json else result_line(row), flush=True)

            summary = predict_files(
                detector, files, place, chosen, on_result=show,
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


def _device_names(devices: str | None, device: str) -> tuple[str, ...]:
    """Return the devices of --devices, where a number is a GPU, or that of --device."""
    from faprompt.errors import ConfigError

    if devices is None:
        return (device,)
    names = [name.strip() for name in devices.split(",")]
    if device != "auto" or not all(names):
        raise ConfigError(
            "--devices should be devices separated by commas, such as 0,1 or cpu,cpu, in place of "
            f"--device; got {devices!r}."
        )
    return tuple(f"cuda:{name}" if name.isdecimal() else name for name in names)
