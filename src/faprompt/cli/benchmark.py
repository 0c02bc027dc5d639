"""`faprompt benchmark`: methods x backbones x datasets, from one TOML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faprompt.cli import options as o

if TYPE_CHECKING:
    from faprompt.reproduce.benchmark_plan import Plan
    from faprompt.reproduce.benchmark_run import CellResult


def benchmark(
    config: Annotated[Path, typer.Argument(help="What to compare; see configs/paper.")],
    data_root: o.DataRoot = None,
    out: o.Out = Path("faprompt-benchmark"),
    work: Annotated[
        Path | None,
        typer.Option(help="Where cells and models lie; default OUT. Configs may share one."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run and what is missing.")
    ] = False,
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
    from faprompt.reproduce.benchmark_config import read_benchmark, restrict_classes
    from faprompt.reproduce.benchmark_plan import build_plan
    from faprompt.work import hold_folders

    if measure and not dry_run:
        raise ConfigError("--measure belongs to --dry-run.")
    asked = restrict_classes(read_benchmark(config), classes or ())
    plan = build_plan(asked, data_root=data_root)
    precision = precision or asked.precision
    if dry_run:
        tell_plan(plan, device, precision, measure=measure, as_json=as_json)
        return
    with hold_folders(out, work or out):
        results = _run(plan, out, work or out, device, precision, as_json=as_json)
    if any(r.status != "done" or (r.record or {})["unreadable"] for r in results):
        raise typer.Exit(3)


def _run(
    plan: Plan, out: Path, work: Path, device: str, precision: str, *, as_json: bool
) -> tuple[CellResult, ...]:
    from faprompt.cli.terminal import note, progress_bars, say
    from faprompt.reproduce.benchmark_run import run_benchmark
    from faprompt.reproduce.result_tables import write_tables
    from faprompt.work import pick_device

    found: dict[str, CellResult] = {}
    try:
        with progress_bars() as progress:
            run_benchmark(
                plan, work, device=pick_device(device), precision=precision,
                progress=progress, results=found,
            )  # fmt: skip
    except KeyboardInterrupt:
        write_tables(plan, found.values(), out)
        raise
    results = tuple(found.values())
    markdown = write_tables(plan, results, out)
    if as_json:
        rows = [_row(r.cell.name, r.status, r.reason) | {"metrics": r.metrics} for r in results]
        print(json.dumps({"cells": rows}, ensure_ascii=False))
    else:
        say(markdown.rstrip("\n"))
    note(f"wrote {out / 'table.md'}, .csv, .tex and .html")
    return results


def tell_plan(plan: Plan, device: str, precision: str, *, measure: bool, as_json: bool) -> None:
    """What a plan would run, what is missing, and its time and disk."""
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
    found = estimate(plan, rates)
    tables = build_tables(plan)
    figures = sum(len(list(table.places())) for table in tables)
    cells = [
        _row(c.name, "missing" if c.missing else "would run", "; ".join(c.missing))
        for c in plan.cells
    ]
    weights = absent_weights(plan)
    if as_json:
        places = published_places(tables)
        told = {"cells": cells, "places": places, "weights": weights, "estimate": asdict(found)}
        print(json.dumps(told, ensure_ascii=False))
        return
    print(f"{plan.config.title}: {len(cells)} cells, {figures} figures")
    for cell in cells:
        reason = f"  ({cell['reason']})" if cell["reason"] else ""
        say(f"  {cell['status']:<9}  {cell['cell']}{reason}")
    for line in weights:
        say(f"weights: {line}")
    print(describe_estimate(found))


def _row(name: str, status: str, reason: str) -> dict[str, Any]:
    return {"cell": name, "status": status, "reason": reason}
