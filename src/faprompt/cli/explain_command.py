"""Define `faprompt explain`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import typer

from faprompt.cli import options as o


def explain(
    inputs: o.Inputs,
    model: o.Model = None,
    method: o.Method = None,
    backbone: o.Backbone = None,
    preset: o.Preset = "paper",
    assignments: o.Assignments = None,
    class_name: o.ClassName = "",
    out: o.Out = Path("faprompt-explanations"),
    threshold: o.Threshold = None,
    tiles: o.Tiles = None,
    mask: o.Mask = None,
    product: o.Product = None,
    bit_depth: o.BitDepth = None,
    window: o.Window = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    as_json: o.Json = False,
) -> None:
    """Show why pictures got their scores.

    Writes a PNG, an HTML page and a JSON file for each picture into OUT: the terms of the score,
    the map of each relation or abnormality prompt, and the patches that the method compares or
    computes its prior from. Prints one line for each picture: score, path, page.
    Exits with 3 when some files could not be read.
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
    from faprompt.explanation import explain_files
    from faprompt.models import require_torch
    from faprompt.prediction.input_paths import expand_inputs
    from faprompt.prediction.note_tally import NoteTally
    from faprompt.work import hold_folders

    left_out: Counter[str] = Counter()
    paths = expand_inputs(inputs, exclude=[out], left_out=left_out)
    options = parse_assignments(assignments or [])
    unreadable, tally = 0, NoteTally()
    with hold_folders(out):
        detector = pick_detector(
            model=model, method=method, backbone=backbone, preset=preset, options=options,
            device=device, precision=precision, class_name=class_name,
        ).with_setup(**setup_changes(tiles, mask))  # fmt: skip
        note_left_out(left_out)
        with progress_bars() as progress:
            found = explain_files(
                require_torch(detector), paths, out_dir=out, threshold=threshold,
                bit_depth=bit_depth, window=window, max_pixels=max_pixels, product=product,
            )  # fmt: skip
            for done, one in enumerate(found, 1):
                progress("explain", done, len(paths))
                unreadable += one.explanation is None
                tally.add(one.path, one.notes)
                print(json.dumps(one.to_dict()) if as_json else _line(one), flush=True)
    note_pictures(tally.lines())
    note(f"{len(paths) - unreadable} explained, {unreadable} unreadable")
    note(f"wrote {out}")
    if unreadable:
        raise typer.Exit(3)


def _line(one: Any) -> str:
    from faprompt.files import printable

    path = printable(one.path)
    if one.explanation is None:
        return f"ERROR\t{path}\t{printable(one.error)}"
    return f"{one.explanation.result.score:.4f}\t{path}\t{printable(one.page)}"
