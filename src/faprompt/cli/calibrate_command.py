"""Define `faprompt calibrate`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faprompt.cli import options as o

if TYPE_CHECKING:
    from faprompt.calibration import Calibration
    from faprompt.inspection import CalibrateOptions, ProductReport


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
    most among a few random ones are kept as memory; the pictures not drawn calibrate.
    """
    from faprompt.cli.terminal import note_left_out, pick_detector, progress_bars, say
    from faprompt.config import parse_assignments
    from faprompt.errors import ConfigError
    from faprompt.imaging.tiles import parse_tiles
    from faprompt.inspection import CalibrateOptions, calibrate
    from faprompt.prediction.input_paths import expand_inputs
    from faprompt.work import hold_folders

    rates = {"target_fpr": target_fpr, "review_fpr": review_fpr}
    given = {name: rate for name, rate in rates.items() if rate is not None}
    if undo or (model and not inputs and not add):
        _change(model, out, given, undo=undo, as_json=as_json)
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
    _print(report.products, report.unreadable, report.calibration, as_json=as_json)
    if not as_json:
        say(f"wrote {folder}")
    if report.unreadable:
        raise typer.Exit(3)


def _change(
    model: str | None,
    out: Path | None,
    rates: Mapping[str, float],
    *,
    undo: bool,
    as_json: bool,
) -> None:
    """Change the rates of a calibrated folder, or take the last --add back."""
    from faprompt.cli.terminal import say
    from faprompt.errors import ConfigError
    from faprompt.inspection.calibration_changes import change_rates, undo_false_alarms
    from faprompt.inspection.calibration_run import describe_products
    from faprompt.references import read_references
    from faprompt.work import hold_folders

    if model is None or not Path(model).is_dir():
        raise ConfigError("Name the calibrated folder by --model, or good pictures to calibrate.")
    if out is not None and out.resolve() != Path(model).resolve():
        raise ConfigError("Rates are changed in the folder itself; leave --out out, or copy it.")
    if not undo and not rates:
        raise ConfigError("Name good pictures, or a rate to change: --target-fpr, --review-fpr.")
    with hold_folders(Path(model)):
        changed = undo_false_alarms(Path(model)) if undo else change_rates(Path(model), **rates)
    _print(describe_products(changed, read_references(Path(model))), {}, changed, as_json=as_json)
    if not as_json:
        say(f"changed {model}")


def _add(
    model: str | None,
    paths: list[str],
    options: CalibrateOptions,
    product: str | None,
    *,
    device: str,
    precision: str,
    as_json: bool,
) -> None:
    """Add false alarms to a calibrated folder, and print what changed."""
    from faprompt.cli.terminal import progress_bars, say
    from faprompt.errors import ConfigError
    from faprompt.inspection.calibration_changes import add_false_alarms
    from faprompt.models import load_detector
    from faprompt.work import hold_folders

    if model is None or not Path(model).is_dir():
        raise ConfigError("--add needs the calibrated folder: name it by --model.")
    with hold_folders(Path(model)):
        detector = load_detector(model, device=device, precision=precision)
        with progress_bars() as progress:
            report = add_false_alarms(
                detector, Path(model), paths, options, product=product, progress=progress
            )
    if as_json:
        print(json.dumps(report.to_dict()))
        return
    as_what = "references" if report.as_references else "pictures of the calibration"
    say(f"added {len(report.added)} false alarms as {as_what}")
    for path, (before, after) in report.verdicts.items():
        say(f"  {before} -> {after}   {path}")
    for name, now in report.after.items():
        was = report.before[name]
        if was.limits != now.limits:
            say(
                f"{f'{name}: ' if name else ''}NG above {was.limits.threshold:.4f} -> "
                f"{now.limits.threshold:.4f}, REVIEW above {was.limits.review_threshold:.4f} -> "
                f"{now.limits.review_threshold:.4f}"
            )
    say(f"changed {model}; `faprompt calibrate --model {model} --undo` takes it back")


def _print(
    products: Mapping[str, ProductReport],
    unreadable: Mapping[str, str],
    calibration: Calibration,
    *,
    as_json: bool,
) -> None:
    """Print the thresholds of every product and what they promise."""
    from faprompt.cli.terminal import say

    if as_json:
        values = {name: report.to_dict() for name, report in products.items()}
        rates = {"target_fpr": calibration.target_fpr, "review_fpr": calibration.review_fpr}
        print(json.dumps({**rates, "products": values, "unreadable": dict(unreadable)}))
        return
    for name, report in products.items():
        pictures = f"{report.pictures} good pictures"
        if report.parts != report.pictures:
            pictures += f" of {report.parts} parts"
        say(f"{f'{name}: ' if name else ''}thresholds from {pictures}")
        for verdict, limit, rate, bound in (
            ("NG", report.limits.threshold, calibration.target_fpr, report.bound),
            ("REVIEW", report.limits.review_threshold, calibration.review_fpr, report.review_bound),
        ):
            say(
                f"  {verdict:<7}score > {limit:.4f}   {rate:.3g} of good parts, less than "
                f"{bound:.3g} with 95 % confidence"
            )
        if report.references:
            say(f"  {len(report.references)} references, which do not calibrate")
        for path in report.suspects:
            say(f"  looks defective beside the other references: {path}")
