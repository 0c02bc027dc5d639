"""Define `faprompt calibrate`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faprompt.cli import options as o

if TYPE_CHECKING:
    from faprompt.inspection import CalibrateOptions, FalseAlarmReport, ProductReport


def calibrate_command(
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Good pictures: files, folders or globs.")
    ] = None,
    model: o.Model = None,
    method: o.Method = None,
    backbone: o.Backbone = None,
    preset: o.Preset = "paper",
    out: Annotated[
        Path | None,
        typer.Option(help="Model folder to write. With a calibrated --model: that folder."),
    ] = None,
    target_fpr: Annotated[
        float | None,
        typer.Option(help="Share of good parts that may be NG. Default: 0.01, or the calibrated."),
    ] = None,
    review_fpr: Annotated[
        float | None,
        typer.Option(help="Share of good parts that may be NG or REVIEW. Default: 0.05."),
    ] = None,
    references: Annotated[
        int, typer.Option(min=0, help="Good pictures kept as memory; they do not calibrate.")
    ] = 0,
    reference_weight: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the references in the score, 0 to 1.")
    ] = 0.5,
    tiles: o.Tiles = None,
    mask: o.Mask = None,
    group: Annotated[
        str,
        typer.Option(
            metavar="REGEX",
            help="Expression that names the part in a path; pictures of one part count once, with "
            "the highest score.",
        ),
    ] = "",
    by_folder: Annotated[
        bool, typer.Option("--by-folder", help="Each subfolder is a product of its own.")
    ] = False,
    product: o.Product = None,
    add: Annotated[
        bool,
        typer.Option("--add", help="Add good pictures that the calibrated --model called NG."),
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take the last --add of the calibrated --model back.")
    ] = False,
    assignments: o.Assignments = None,
    class_name: o.ClassName = "",
    batch_size: o.BatchSize = 8,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    bit_depth: o.BitDepth = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS,
    as_json: o.Json = False,
) -> None:
    """Find the thresholds of NG and REVIEW from good pictures alone; write a model folder.

    \b
    faprompt calibrate good/ --out my-model        thresholds from 99 good pictures or more
    faprompt predict lot7/ --model my-model        OK, REVIEW or NG for each picture
    faprompt calibrate --model my-model --target-fpr 0.02      other rates, no pictures needed
    faprompt calibrate --model my-model --add alarms/          good pictures that were NG
    faprompt calibrate --model my-model --undo                 take the last --add back

    A rate of 1 % needs 99 good pictures, 5 % needs 19. With --references K, the K that differ
    most are kept as memory and the others calibrate.
    """
    from faprompt.cli.terminal import note_left_out, pick_detector, progress_bars, say
    from faprompt.config import parse_assignments
    from faprompt.errors import ConfigError
    from faprompt.imaging.tiles import parse_tiles
    from faprompt.inspection import CalibrateOptions, calibrate
    from faprompt.inspection.calibration_run import report_products
    from faprompt.prediction.input_paths import Counter, expand_inputs
    from faprompt.work import hold_folders

    rates = {"target_fpr": target_fpr, "review_fpr": review_fpr}
    given = {name: rate for name, rate in rates.items() if rate is not None}
    if undo or (model and not inputs and not add):
        _change(model, out, given, inputs or [], undo=undo, as_json=as_json)
        return
    if not inputs:
        raise ConfigError("There is no picture to calibrate with; name good pictures.")
    left_out: Counter[str] = Counter()
    paths = [str(path) for path in expand_inputs(inputs, left_out=left_out)]
    options = CalibrateOptions(
        references=references, reference_weight=reference_weight, mask=mask, group=group,
        tiles=parse_tiles(tiles or "off"), by_folder=by_folder, batch_size=batch_size,
        bit_depth=bit_depth, max_pixels=max_pixels, **given,
    )  # fmt: skip
    if add:
        _add(model, paths, options, product, device=device, precision=precision, as_json=as_json)
        return
    folder = out or Path("faprompt-calibrated")
    with hold_folders(folder):
        detector = pick_detector(
            model=model, method=method, backbone=backbone, preset=preset,
            options=parse_assignments(assignments or []), device=device, precision=precision,
            class_name=class_name,
        )  # fmt: skip
        note_left_out(left_out)
        with progress_bars() as progress:
            report = calibrate(detector, paths, folder, options, progress=progress, lock=False)
    products = report_products(report.detector)
    if as_json:
        print(json.dumps(_values(products, report.unreadable)))
    else:
        say("\n".join(_lines(products, options)))
        say(f"wrote {folder}")
    if report.unreadable:
        raise typer.Exit(3)
