"""Define `faprompt calibrate`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faprompt.cli import options as o

if TYPE_CHECKING:
    from faprompt.calibration import Calibration
    from faprompt.inspection import CalibrateOptions, ProductReport, Rehearsal, RehearsalOptions


# of a folder that is calibrated already, and which options each change takes
_CHANGES = {
    "--undo": {"undo", "model", "as_json"},
    "--add": {
        "add", "inputs", "model", "product", "mask", "backbone", "batch_size", "bit_depth",
        "window", "max_pixels", "device", "precision", "as_json",
    },
    "--rehearse": {
        "rehearse", "sizes", "kind", "inputs", "model", "out", "product", "mask", "backbone",
        "batch_size", "bit_depth", "window", "max_pixels", "device", "precision", "as_json",
    },
    "A change of rates": {"model", "target_fpr", "review_fpr", "as_json"},
}  # fmt: skip


def calibrate_command(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Good pictures: files, folders or globs.")
    ] = None,
    model: o.Model = None,
    method: o.Method = None,
    backbone: o.Backbone = None,
    preset: o.Preset = "paper",
    out: Annotated[Path, typer.Option(help="Model folder to write.")] = Path("faprompt-calibrated"),
    target_fpr: Annotated[
        float | None,
        typer.Option(help="Share of good parts that may be NG, 0 to 1. Default: 0.01."),
    ] = None,
    review_fpr: Annotated[
        float | None,
        typer.Option(help="Share of good parts that may be NG or REVIEW, 0 to 1. Default: 0.05."),
    ] = None,
    references: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of good pictures of each product that are kept as memory. They do not "
            "calibrate, nor do up to three other candidates for each.",
        ),
    ] = 0,
    reference_weight: Annotated[
        float, typer.Option(help="Share of the references in the score, above 0 and at most 1.")
    ] = 0.5,
    tiles: o.Tiles = None,
    mask: o.Mask = None,
    group: Annotated[
        str,
        typer.Option(
            metavar="REGEX",
            help="Regular expression that finds the part in the absolute path of a picture; its "
            "first group, or all of it, names the part. Pictures of one part count once, with the "
            "highest score.",
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
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Also draw defects onto good pictures, up to 20 that do not calibrate, and print "
            "which kinds and sizes are found. With a calibrated --model: onto the pictures named.",
        ),
    ] = False,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="With --rehearse: longest extents of the defects in pixels of your pictures, "
            "separated by commas. Default: five sizes, up to a third of the shorter side."
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="With --rehearse: draw this kind of defect only, such as scratch or hole; "
            "repeatable. Default: all.",
        ),
    ] = None,
    assignments: o.Assignments = None,
    class_name: o.ClassName = "",
    batch_size: o.BatchSize = 8,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    bit_depth: o.BitDepth = None,
    window: o.Window = None,
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
    faprompt calibrate --model my-model --rehearse more-good/  would it find a scratch here?

    A rate of 1 % needs 99 good pictures, 5 % needs 19. With --references K, the K that differ
    most among a few random ones are kept as memory; the pictures not drawn calibrate.
    """
    from faprompt.calibration import CALIBRATION
    from faprompt.cli.terminal import note_left_out, pick_detector, progress_bars, say
    from faprompt.config import parse_assignments
    from faprompt.errors import ConfigError
    from faprompt.imaging.tiles import parse_tiles
    from faprompt.inspection import CalibrateOptions, calibrate, hold_out, rehearse_files
    from faprompt.prediction.input_paths import expand_inputs
    from faprompt.work import hold_folders

    given = {name: rate for name, rate in (("target_fpr", target_fpr), ("review_fpr", review_fpr))
             if rate is not None}  # fmt: skip
    on_calibrated = rehearse and model is not None and (Path(model) / CALIBRATION).is_file()
    change = "--undo" if undo else "--add" if add else "A change of rates"
    if undo or add or on_calibrated or (model and not inputs):
        _check_options(context, change if undo or add or not on_calibrated else "--rehearse")
    elif product is not None:
        raise ConfigError("--product needs --add; --by-folder names products by their folders.")
    if (sizes or kind) and not rehearse:
        raise ConfigError("--sizes and --kind need --rehearse.")
    if not inputs and not undo and (add or rehearse or model is None):
        raise ConfigError("There is no picture to calibrate with; name good pictures.")
    if undo or not inputs:
        _change(model, given, undo=undo, as_json=as_json)
        return
    left_out: Counter[str] = Counter()
    masks = [mask] if mask is not None and mask.is_dir() else []
    paths = [str(path) for path in expand_inputs(inputs, left_out=left_out, exclude=masks)]
    note_left_out(left_out)
    try:
        options = CalibrateOptions(
            references=references, reference_weight=reference_weight, mask=mask, group=group,
            tiles=parse_tiles(tiles or "off"), by_folder=by_folder, batch_size=batch_size,
            bit_depth=bit_depth, window=window, max_pixels=max_pixels, **given,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"{error}.") from error
    parts: dict[str, Any] = {"device": device, "precision": precision, "backbone": backbone}
    if add:
        _add(model, paths, options, product, parts, as_json=as_json)
        return
    draws = _rehearsal_options(sizes, kind, batch_size)
    if on_calibrated:
        place = out if _is_given(context, "out") else None
        _rehearse(model, paths, place, options, draws, product, parts, as_json=as_json)
        return
    paths, held = hold_out(paths, options) if rehearse else (paths, [])
    with hold_folders(out):
        detector = pick_detector(
            model=model, method=method, preset=preset, class_name=class_name,
            options=parse_assignments(assignments or []), **parts,
        )  # fmt: skip
        with progress_bars() as progress:
            report = calibrate(detector, paths, out, options, progress=progress, lock=False)
            found = rehearse_files(report.detector, held, out, options, draws, progress=progress)
    _print(report.products, report.unreadable, report.calibration, found, as_json=as_json)
    if not as_json:
        say(f"wrote {out}")
    if report.unreadable:
        raise typer.Exit(3)


def _check_options(context: typer.Context, change: str) -> None:
    """Refuse options that a change of a calibrated folder does not take."""
    from faprompt.errors import ConfigError

    given = [each for each in context.command.params if _is_given(context, each.name or "")]
    extra = [each.opts[0] for each in given if each.name not in _CHANGES[change]]
    if extra:
        raise ConfigError(
            f"{change} does not take {', '.join(extra)}: it works on the calibrated folder of "
            "--model, and the calibration fixes everything else. Leave them out, or calibrate "
            "again with good pictures."
        )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _calibrated_folder(model: str | None) -> Path:
    from faprompt.errors import ConfigError

    if model is None or not Path(model).is_dir():
        raise ConfigError(f"Name the calibrated folder to change by --model; got {model}.")
    return Path(model)


def _change(model: str | None, rates: Mapping[str, float], *, undo: bool, as_json: bool) -> None:
    """Change the rates of a calibrated folder, or take the last --add back."""
    from faprompt.cli.terminal import say
    from faprompt.errors import ConfigError
    from faprompt.inspection import change_rates, undo_false_alarms
    from faprompt.inspection.calibration_run import describe_products
    from faprompt.references import read_references
    from faprompt.work import hold_folders

    folder = _calibrated_folder(model)
    if not undo and not rates:
        raise ConfigError("Name good pictures, or a rate to change: --target-fpr, --review-fpr.")
    with hold_folders(folder):
        changed = undo_false_alarms(folder) if undo else change_rates(folder, **rates)
        products = describe_products(changed, read_references(folder))
        _print(products, {}, changed, as_json=as_json)
    if not as_json:
        say(f"changed {model}")


def _add(
    model: str | None,
    paths: list[str],
    options: CalibrateOptions,
    product: str | None,
    parts: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Add false alarms to a calibrated folder, and print what changed."""
    from faprompt.cli.terminal import progress_bars, say
    from faprompt.inspection import add_false_alarms
    from faprompt.models import load_detector
    from faprompt.work import hold_folders

    folder = _calibrated_folder(model)
    with hold_folders(folder):
        detector = load_detector(folder, **parts)
        with progress_bars() as progress:
            report = add_false_alarms(
                detector, folder, paths, options, product=product, progress=progress
            )
    if as_json:
        print(json.dumps(report.to_dict()))
        return
    as_what = "references" if report.as_references else "pictures of the calibration"
    say(f"added {len(report.added)} false alarms as {as_what}")
    for path, (before, after) in report.verdicts.items():
        say(f"  {before} -> {after}   {path}")
    for name, now in report.after.items():
        old, new = report.before[name].limits, now.limits
        if old != new:
            say(
                f"{f'{name}: ' if name else ''}NG above {old.threshold:.4f} -> "
                f"{new.threshold:.4f}, REVIEW above {old.review_threshold:.4f} -> "
                f"{new.review_threshold:.4f}"
            )
    say(f"changed {folder}; `faprompt calibrate --model {folder} --undo` takes it back")


def _rehearse(
    model: str | None,
    paths: list[str],
    out: Path | None,
    options: CalibrateOptions,
    draws: RehearsalOptions,
    product: str | None,
    parts: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Rehearse a calibrated folder on good pictures that did not calibrate it."""
    from faprompt.cli.terminal import progress_bars, say
    from faprompt.detector_setup import setup_changes
    from faprompt.inspection import rehearse_files
    from faprompt.models import load_detector
    from faprompt.work import hold_folders

    folder = out or _calibrated_folder(model)
    with hold_folders(folder):
        detector = load_detector(_calibrated_folder(model), **parts)
        detector = detector.with_setup(**setup_changes(None, options.mask))
        with progress_bars() as progress:
            found = rehearse_files(
                detector, paths, folder, options, draws, product=product, progress=progress
            )
    if as_json:
        print(json.dumps({"rehearsals": [one.to_dict() for one in found]}))
        return
    _say_rehearsals(found)
    say(f"wrote the rehearsal into {folder}")


def _rehearsal_options(
    sizes: str | None, kinds: list[str] | None, batch_size: int
) -> RehearsalOptions:
    from faprompt.errors import ConfigError
    from faprompt.inspection import RehearsalOptions

    drawn: dict[str, Any] = {"sizes_px": o.parse_numbers("--sizes", sizes)} if sizes else {}
    if kinds:
        drawn["kinds"] = tuple(name.replace("_", " ") for name in kinds)
    try:
        return RehearsalOptions(batch_size=batch_size, **drawn)
    except ValueError as error:
        raise ConfigError(f"{error}.") from error


def _say_rehearsals(rehearsals: Sequence[Rehearsal]) -> None:
    from faprompt.cli.terminal import say
    from faprompt.inspection.rehearsal_report import rehearsal_text

    for one in rehearsals:
        say(f"\n{rehearsal_text(one)}\n")


def _print(
    products: Mapping[str, ProductReport],
    unreadable: Mapping[str, str],
    calibration: Calibration,
    rehearsals: Sequence[Rehearsal] = (),
    *,
    as_json: bool,
) -> None:
    """Print the thresholds of every product and what they promise."""
    from faprompt.cli.terminal import say

    if as_json:
        values = {name: report.to_dict() for name, report in products.items()}
        rates = {"target_fpr": calibration.target_fpr, "review_fpr": calibration.review_fpr}
        found = {"rehearsals": [one.to_dict() for one in rehearsals]} if rehearsals else {}
        print(json.dumps({**rates, "products": values, "unreadable": dict(unreadable), **found}))
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
                f"  {verdict:<7}score > {limit:.4f}   {100 * rate:.3g} % of good parts, at most "
                f"{100 * bound:.3g} % with 95 % confidence"
            )
        if report.references:
            say(f"  {len(report.references)} references, which do not calibrate")
        for path in report.suspects:
            say(f"  looks defective beside the other references: {path}")
    _say_rehearsals(rehearsals)
