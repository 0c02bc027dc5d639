"""Run `faprompt benchmark`: methods x backbones x datasets, from one TOML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faprompt.cli import options as o

if TYPE_CHECKING:
    from faprompt.reproduce.cell_runner import CellResult, RunContext
    from faprompt.reproduce.cells import Plan

Work = Annotated[
    Path | None,
    typer.Option(help="Folder of cells and models, which runs may share. Default: OUT."),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only print what would run, what is missing, time and disk."),
]


def benchmark(
    config: Annotated[
        Path, typer.Argument(help="TOML file of methods and datasets; see configs/paper.")
    ],
    data_root: o.DataRoot = None,
    out: o.Out = Path("faprompt-benchmark"),
    work: Work = None,
    dry_run: DryRun = False,
    measure: o.Measure = False,
    classes: o.OnlyClasses = None,
    device: o.Device = "auto",
    precision: o.FilePrecision = None,
    as_json: o.Json = False,
) -> None:
    """Compare methods: table.md, table.csv, table.tex and table.html in OUT.

    Every cell has a folder in OUT/cells; the same command again goes on where it was. Exit 3
    when some cells failed or lack something: they are "-" in the tables, with the reason.
    """
    from faprompt.errors import ConfigError
    from faprompt.reproduce.cell_runner import RunContext
    from faprompt.reproduce.cells import build_plan
    from faprompt.reproduce.experiment import change_experiment, read_experiment
    from faprompt.work import hold_folders, pick_device

    if measure and not dry_run:
        raise ConfigError("--measure belongs to --dry-run.")
    asked = change_experiment(read_experiment(config), classes=classes or ())
    plan = build_plan(asked, data_root=data_root)
    if dry_run:
        print_plan(plan, device, precision or asked.precision, measure=measure, as_json=as_json)
        return
    with hold_folders(out, work or out):
        context = RunContext(
            out=out, work=work, device=pick_device(device), precision=precision or ""
        )
        results = _run(plan, context, as_json=as_json)
    if not all(result.complete for result in results):
        raise typer.Exit(3)


def _run(plan: Plan, context: RunContext, *, as_json: bool) -> tuple[CellResult, ...]:
    from dataclasses import replace

    from faprompt.cli.terminal import note, progress_bars, say
    from faprompt.reproduce.cell_runner import run_benchmark
    from faprompt.reproduce.table_files import write_tables

    found: dict[str, CellResult] = {}
    try:
        with progress_bars() as progress:
            run_benchmark(plan, replace(context, progress=progress), results=found)
    except KeyboardInterrupt:
        write_tables(plan, found.values(), context.out)
        raise
    results = tuple(found.values())
    markdown = write_tables(plan, results, context.out)
    if as_json:
        rows = [_row(r.cell.name, r.status, r.reason) | {"metrics": r.metrics} for r in results]
        print(json.dumps({"cells": rows}))
    else:
        say(markdown.rstrip("\n"))
    note(f"wrote {context.out / 'table.md'}, .csv, .tex and .html")
    return results


def print_plan(plan: Plan, device: str, precision: str, *, measure: bool, as_json: bool) -> None:
    """Print what a plan would run, what is missing, and its time and disk."""
    from dataclasses import asdict

    from faprompt.cli.terminal import say
    from faprompt.reproduce.estimate import absent_weights, describe_estimate, estimate
    from faprompt.reproduce.estimate import measure as measure_rates
    from faprompt.reproduce.table_grid import build_tables, published_places
    from faprompt.work import pick_device, pick_precision

    rates = {}
    if measure:
        where = pick_device(device)
        rates = measure_rates(plan, device=where, precision=pick_precision(precision, where))
    found, tables, weights = estimate(plan, rates), build_tables(plan), absent_weights(plan)
    cells = [
        _row(c.name, "missing" if c.missing else "would run", "; ".join(c.missing))
        for c in plan.cells
    ]
    if as_json:
        places = published_places(tables)
        told = {"cells": cells, "places": places, "weights": weights, "estimate": asdict(found)}
        print(json.dumps(told))
        return
    figures = sum(len(list(table.places())) for table in tables)
    print(f"{plan.config.title}: {len(cells)} cells, {figures} figures")
    for cell in cells:
        reason = f"  ({cell['reason']})" if cell["reason"] else ""
        say(f"  {cell['status']:<9}  {cell['cell']}{reason}")
    for line in weights:
        say(f"weights: {line}")
    print(describe_estimate(found))


def _row(name: str, status: str, reason: str) -> dict[str, Any]:
    return {"cell": name, "status": status, "reason": reason}
