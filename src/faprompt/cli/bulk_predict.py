"""Run `faprompt predict` in shards, on several devices, on Ray, or into an object storage."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from faprompt.errors import ConfigError

if TYPE_CHECKING:
    from contextlib import ExitStack

    from faprompt.bulk import BulkScorer, MergeTable, RowSource, ScoringPlan, Shard
    from faprompt.prediction import PredictOptions
    from faprompt.prediction.result_rows import ResultRow
    from faprompt.storage import StoredFile


@dataclass(frozen=True, kw_only=True)
class BulkRequest:
    """What the command line asks for."""

    inputs: list[str]
    column: str | None  # of a table that lists the inputs
    out: str
    shard: str | None  # "I/N", "plan/N"; None: the run as a whole
    devices: tuple[str, ...]
    engine: str  # "local" or "ray"
    address: str | None  # of a Ray cluster
    detector: Mapping[str, Any]  # arguments of `load_scorer`, without the device
    options: PredictOptions
    part_rows: int
    retry_errors: bool
    as_json: bool
    exclude: tuple[Path, ...]  # folders that are no inputs


def load_scorer(device: str, *, tiles: str | None, mask: Path | None, **picked: Any) -> Any:
    """Return the detector that the options name; see `pick_detector`."""
    from faprompt.cli.terminal import pick_detector
    from faprompt.detector_setup import setup_changes

    return pick_detector(device=device, **picked).with_setup(**setup_changes(tiles, mask))


def run_bulk(request: BulkRequest) -> None:
    """Do what `faprompt predict` was asked to; exits with 3 when files could not be read."""
    _refuse_contradictions(request)
    if request.shard and request.shard.startswith("plan/"):
        _plan(request)
    else:
        from faprompt.bulk import WHOLE_RUN, Shard

        _score(request, Shard.parse(request.shard) if request.shard else WHOLE_RUN)


def _refuse_contradictions(request: BulkRequest) -> None:
    options = request.options
    if options.strict:
        raise ConfigError(
            "--strict does not go with --shard, --devices, --engine ray or a URL as --out: an "
            "unreadable picture is a row there. Leave it out."
        )
    if request.shard and (options.title or options.table):
        raise ConfigError(
            "--title and --table belong to `faprompt merge`, which makes one table and one report "
            "of all shards; leave them out of --shard."
        )
    if request.engine == "ray" and len(request.devices) > 1:
        raise ConfigError("--devices are of this machine; Ray knows its own. Leave one out.")
    if request.engine == "ray" and ":" in request.devices[0]:
        raise ConfigError("Ray hands out GPUs; --device should be auto, cuda or cpu.")


def _plan(request: BulkRequest) -> None:
    """List the inputs once, for all shards."""
    from faprompt.bulk import plan_shards
    from faprompt.cli.terminal import note, note_left_out, progress_bars
    from faprompt.storage import open_folder

    number = (request.shard or "").removeprefix("plan/")
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise ConfigError(f"--shard should be I/N, such as 7/40, or plan/N; got {request.shard!r}.")
    left_out: Counter[str] = Counter()
    with progress_bars() as progress:
        plan = plan_shards(
            _inputs(request, left_out), open_folder(request.out), int(number),
            inputs=request.inputs, progress=progress,
        )  # fmt: skip
    note_left_out(left_out)
    note(f"planned {plan.listing.files} pictures in {plan.shards} shards, in {plan.seconds:.1f} s")


def _score(request: BulkRequest, shard: Shard) -> None:
    from contextlib import ExitStack
    from dataclasses import replace
    from functools import partial

    from faprompt.bulk import merge_shards, predict_shard
    from faprompt.cli.terminal import (
        note,
        note_left_out,
        note_pictures,
        progress_bars,
        result_line,
    )

    left_out: Counter[str] = Counter()
    options = replace(request.options, title="", table=None)
    with progress_bars() as progress, ExitStack() as held:

        def show(row: ResultRow, done: int, total: int) -> None:
            progress("predict", done, total)
            print(json.dumps(row.to_dict()) if request.as_json else result_line(row), flush=True)

        summary = predict_shard(
            partial(load_scorer, **request.detector), _inputs(request, left_out), request.out,
            shard, options, devices=request.devices, asked=_asked(request),
            command=_command(request), source=_ray_source(request, shard, held),
            part_rows=request.part_rows, retry_errors=request.retry_errors, on_row=show,
        )  # fmt: skip
    note_left_out(left_out)
    note_pictures(summary.notes)
    if summary.n_kept or summary.n_dropped:
        note(
            f"rows of earlier runs: {summary.n_kept} kept, {summary.n_dropped} dropped because "
            "their pictures changed or are no longer named"
        )
    done = f"{summary.n_ok} scored, {summary.n_error} unreadable"
    if shard.whole:
        tables: list[MergeTable] = ["jsonl"]
        tables += [request.options.table] if request.options.table else []
        merged = merge_shards(request.out, tables=tables, title=request.options.title)
        note(f"{done}, in {summary.seconds:.1f} s")
        note(f"wrote {request.out}/{merged.files[-2]}")
    else:
        note(f"shard {shard}: {done}, in {summary.seconds:.1f} s")
    if summary.n_error:
        raise typer.Exit(3)


def _inputs(request: BulkRequest, left_out: Counter[str]) -> Iterable[StoredFile]:
    """Return the pictures, listed when they are first asked for; those of a plan need no inputs."""
    from faprompt.bulk import read_plan
    from faprompt.prediction.input_paths import list_inputs
    from faprompt.storage import is_url, open_folder

    planned = request.shard and not request.shard.startswith("plan/")
    plan = read_plan(open_folder(request.out)) if planned else None
    if plan is not None:
        if request.inputs and request.inputs != plan.inputs:
            raise ConfigError(
                f"{request.out} is planned for {shlex.join(plan.inputs)}, got "
                f"{shlex.join(request.inputs)}; run --shard plan/{plan.shards} again, or leave "
                "the inputs out."
            )
        return ()
    if not request.inputs:
        raise typer.BadParameter("Missing INPUTS: name files, folders, globs or URLs.")
    own = () if is_url(request.out) else (Path(request.out),)
    return list_inputs(
        request.inputs, column=request.column, exclude=(*request.exclude, *own), left_out=left_out
    )


def _asked(request: BulkRequest) -> dict[str, Any]:
    """Return the options that every shard of a run must have alike, as plain values."""
    options = request.options
    wanted = (
        "threshold", "maps", "overlays", "report", "bit_depth", "window", "max_pixels", "product",
    )  # fmt: skip
    values = {name: getattr(options, name) for name in wanted} | dict(request.detector)
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items()
    }


def _command(request: BulkRequest) -> str:
    """Return the command with "I/N" for the shard, for advice."""
    words = ["I/N" if word == request.shard else word for word in sys.argv[1:]]
    words = [
        w.replace(f"={request.shard}", "=I/N") if w.startswith("--shard=") else w for w in words
    ]
    return shlex.join(["faprompt", *words])


def _ray_source(
    request: BulkRequest, shard: Shard, held: ExitStack
) -> Callable[[ScoringPlan], RowSource] | None:
    """Return what connects to Ray when pictures have to be scored; None for this machine.

    A run that starts over connects before it removes the results of an earlier one.
    """
    if request.engine != "ray":
        return None
    from faprompt.bulk import ray_rows
    from faprompt.work import load_extra

    load_extra("ray", "ray")

    def connect(plan: ScoringPlan) -> RowSource:
        # what run.json says, whatever the processors of a node are
        precision = plan.detector.decided_by().get("precision", request.detector["precision"])
        scorer = _bulk_scorer(request, shard, precision)
        return held.enter_context(ray_rows(scorer, address=request.address))

    def source(plan: ScoringPlan) -> RowSource:
        if shard.whole and not request.options.resume:
            return connect(plan)
        return lambda files: connect(plan)(files)

    return source


def _bulk_scorer(request: BulkRequest, shard: Shard, precision: str) -> BulkScorer:
    """Return what the processes of Ray do, as the options say it."""
    from faprompt.bulk import BulkScorer

    options, detector = request.options, request.detector
    writes = options.maps or options.overlays or options.report
    return BulkScorer(
        **{**detector, "precision": precision, "class_name": detector["class_name"] or None,
           "mask": None if detector["mask"] is None else str(detector["mask"])},
        **options.arguments(), device=request.devices[0], threshold=options.threshold,
        batch_size=options.batch_size, product=options.product, out=request.out if writes else None,
        maps=options.maps, overlays=options.overlays, thumbnails=options.report, shard=shard,
    )  # fmt: skip
