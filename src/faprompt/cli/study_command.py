"""Run `faprompt study`: a study of the paper by its name, on any dataset and backbone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faprompt.cli import options as o
from faprompt.cli.benchmark_command import DryRun, Work, print_plan

if TYPE_CHECKING:
    from faprompt.reproduce.cell_runner import RunContext
    from faprompt.reproduce.cells import Plan
    from faprompt.reproduce.experiment import Experiment

LIST, REDRAW = "list", "redraw"


def study(
    name: Annotated[
        str, typer.Argument(help="Name of a study, path of a TOML file, `list` or `redraw`.")
    ] = LIST,
    folder: Annotated[
        Path | None, typer.Argument(help="With redraw: the folder OUT of a study.")
    ] = None,
    data_root: o.DataRoot = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Dataset, in place of the study's: an id, or a folder below the data "
                     "root; repeatable."),
    ] = None,
    train_on: Annotated[
        str, typer.Option(help="Dataset to train on, in place of the paper's: an id or a folder.")
    ] = "",
    backbone: Annotated[
        list[str] | None, typer.Option(help="Backbone, in place of the study's; repeatable.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Seed, in place of the study's; repeatable.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of every training. Default: its recipe's.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for what is written. Default: faprompt-study/NAME."),
    ] = None,
    work: Work = None,
    drawn: Annotated[
        bool,
        typer.Option("--drawn", help="With the study complexity: draw the backbone's weights."),
    ] = False,
    repeats: Annotated[
        int | None, typer.Option(min=2, help="With the study complexity: calls that are timed.")
    ] = None,
    dry_run: DryRun = False,
    measure: o.Measure = False,
    classes: o.OnlyClasses = None,
    device: o.Device = "auto",
    precision: o.FilePrecision = None,
    as_json: o.Json = False,
) -> None:  # fmt: skip
    """Run a study: study.md, its tables and its figure (SVG, PNG, CSV) in OUT.

    The same command again goes on where it was. Exit 3 when some runs failed or lack
    something. `faprompt study redraw OUT` draws its figures again from their CSV files.
    """
    from faprompt.errors import ConfigError
    from faprompt.reproduce.cell_runner import RunContext
    from faprompt.reproduce.cells import build_plan
    from faprompt.reproduce.experiment import change_experiment, read_study
    from faprompt.work import hold_folders, pick_device

    if (folder is not None) != (name == REDRAW):
        raise ConfigError("A folder belongs to redraw: faprompt study redraw FOLDER.")
    if folder is not None:
        _redraw(folder)
        return
    if name == LIST:
        _list(as_json=as_json)
        return
    if measure and not dry_run:
        raise ConfigError("--measure belongs to --dry-run.")
    config = read_study(name)
    out = out or Path("faprompt-study") / config.name
    cost = config.complexity is not None
    if not cost and (drawn or repeats is not None):
        raise ConfigError("--drawn and --repeats belong to the study complexity.")
    if cost and any((data_root, dataset, train_on, seed, epochs, work, measure, classes)):
        raise ConfigError(
            "A study of cost needs no data and trains nothing; of a run's options it takes "
            "--backbone, --drawn, --repeats, --device, --precision, --out and --dry-run."
        )
    if cost:
        config = _change_costs(config, backbone or [], repeats)
    else:
        config = change_experiment(
            config, backbones=backbone or (), datasets=dataset or (), train_on=train_on,
            seeds=seed or (), epochs=epochs, classes=classes or (),
        )  # fmt: skip
    plan = None if cost else build_plan(config, data_root=data_root)
    if dry_run:
        if plan is None:
            _print_costs(config, as_json=as_json)
        else:
            chosen = precision or config.precision
            print_plan(plan, device, chosen, measure=measure, as_json=as_json)
            if not as_json:
                print(_describe_rest(plan))
        return
    with hold_folders(out, work or out):
        context = RunContext(
            out=out, work=work, device=pick_device(device), precision=precision or ""
        )
        if plan is None:
            complete = _measure_costs(config, context, drawn=drawn, as_json=as_json)
        else:
            complete = _run(plan, context, as_json=as_json)
    if not complete:
        raise typer.Exit(3)


def _redraw(folder: Path) -> None:
    from faprompt.cli.terminal import say
    from faprompt.reproduce.prompt_spread import redraw_study
    from faprompt.work import hold_folders

    with hold_folders(folder):
        for path in redraw_study(folder):
            say(path)


def _list(*, as_json: bool) -> None:
    from faprompt.reproduce.experiment import list_studies, read_study

    rows = [
        {"name": name, "title": read_study(name).title, "file": str(path)}
        for name, path in list_studies().items()
    ]
    if as_json:
        print(json.dumps({"studies": rows}))
        return
    for row in rows:
        print(f"{row['name']:<22} {row['title']}")


def _describe_rest(plan: Plan) -> str:
    """Return what the estimate of a dry run leaves out."""
    from faprompt.reproduce.galleries import describe_choice
    from faprompt.reproduce.prompt_spread import describe_mapping
    from faprompt.reproduce.study_run import describe_sharing

    if plan.config.gallery is not None:
        return describe_choice(plan, plan.config.gallery)
    lines = [describe_sharing(plan)]
    if plan.config.spread is not None:
        lines.append(describe_mapping(plan, plan.config.spread))
    return "\n".join(lines)


def _run(plan: Plan, context: RunContext, *, as_json: bool) -> bool:
    """Run a study and print its page; return whether nothing is lacking."""
    from faprompt.cli.terminal import progress_bars
    from faprompt.reproduce.galleries import run_galleries
    from faprompt.reproduce.prompt_spread import run_spread
    from faprompt.reproduce.study_run import run_study

    runs: dict[str, Any] = {"gallery": run_galleries, "spread": run_spread}
    with progress_bars() as progress:
        result = runs.get(plan.config.figure, run_study)(plan, replace(context, progress=progress))
    gallery = plan.config.figure == "gallery"
    beside = "sheets and a list for each dataset" if gallery else _FIGURE_FILES
    _print_page(result.markdown, result.rows, context.out, beside, as_json=as_json)
    complete: bool = result.complete
    return complete


def _change_costs(config: Experiment, backbones: list[str], repeats: int | None) -> Experiment:
    from faprompt.errors import ConfigError

    options = config.complexity
    assert options is not None
    if len(backbones) > 1:
        raise ConfigError("A study of cost measures one --backbone.")
    backbone = (*backbones, options.backbone)[0]
    options = replace(options, backbone=backbone, repeats=repeats or options.repeats)
    return replace(config, complexity=options)


def _print_costs(config: Experiment, *, as_json: bool) -> None:
    from faprompt.reproduce.cost_page import dry_run_lines

    assert config.complexity is not None
    lines = list(dry_run_lines(config.complexity))
    print(json.dumps({"runs": lines}) if as_json else "\n".join([config.title, *lines]))


def _measure_costs(config: Experiment, context: RunContext, *, drawn: bool, as_json: bool) -> bool:
    """Measure what methods cost and print the page; return whether all were measured."""
    from faprompt.reproduce.complexity import measure_costs
    from faprompt.reproduce.cost_page import write_costs

    assert config.complexity is not None
    costs = measure_costs(config.complexity, context, drawn=drawn)
    markdown = write_costs(config, costs, context, drawn=drawn)
    rows = [asdict(cost) for cost in costs]
    _print_page(markdown, rows, context.out, _FIGURE_FILES, as_json=as_json)
    return not any(cost.reason for cost in costs)


_FIGURE_FILES = "its tables, and figure.svg, .png and .csv"


def _print_page(
    markdown: str, rows: list[dict[str, Any]], out: Path, beside: str, *, as_json: bool
) -> None:
    from faprompt.cli.terminal import note, say

    if as_json:
        print(json.dumps({"rows": rows}), end="")
    else:
        say(markdown.rstrip("\n"))
    note(f"wrote {out / 'study.md'}, {beside}")
