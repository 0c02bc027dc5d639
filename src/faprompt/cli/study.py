"""`faprompt study`: a study of the paper by its name, on any dataset and backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faprompt.cli import options as o

if TYPE_CHECKING:
    from faprompt.reproduce.galleries import GalleryResult
    from faprompt.reproduce.study_config import StudyConfig
    from faprompt.reproduce.study_plan import Changes
    from faprompt.reproduce.study_run import StudyResult

LIST, REDRAW = "list", "redraw"


def study(
    name: Annotated[
        str, typer.Argument(help="A study, the path of a TOML file, or list, or redraw.")
    ] = LIST,
    folder: Annotated[
        Path | None,
        typer.Argument(help="Of redraw: the OUT of a study."),
    ] = None,
    data_root: o.DataRoot = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Instead of the study's: an id, or a folder below the data root."),
    ] = None,
    train_on: Annotated[
        str, typer.Option(help="Instead of the paper's protocol: an id, or such a folder.")
    ] = "",
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Instead of the study's; repeatable."),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Instead of the study's; repeatable."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Of every training."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for what is written; default faprompt-study/NAME."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Where cells and models lie; default OUT. Studies may share one."),
    ] = None,
    drawn: Annotated[
        bool, typer.Option("--drawn", help="Of complexity: draw the backbone's weights.")
    ] = False,
    repeats: Annotated[
        int | None,
        typer.Option(min=2, help="Of complexity: calls that are timed."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run, and its time and disk.")
    ] = False,
    measure: o.Measure = False,
    classes: o.OnlyClasses = None,
    device: o.Device = "auto",
    precision: o.FilePrecision = None,
    as_json: o.Json = False,
) -> None:
    """Run a study: study.md, its tables and its figure (SVG, PNG, CSV) in OUT.

    The same command again goes on where it was. Exit 3 when some runs failed or lack
    something. `faprompt study redraw OUT` draws its figures anew from their CSV files.
    """
    from faprompt.cli.terminal import say
    from faprompt.errors import ConfigError
    from faprompt.reproduce.prompt_spread import redraw_study
    from faprompt.reproduce.study_config import list_studies, read_study
    from faprompt.reproduce.study_plan import Changes
    from faprompt.work import hold_folders

    if (folder is not None) != (name == REDRAW):
        raise ConfigError("A folder belongs to redraw: faprompt study redraw FOLDER.")
    if folder is not None:
        with hold_folders(folder):
            for path in redraw_study(folder):
                say(path)
        return
    if name == LIST:
        _list(list_studies(), as_json=as_json)
        return
    if measure and not dry_run:
        raise ConfigError("--measure belongs to --dry-run.")
    config = read_study(name)
    changes = Changes(
        backbones=tuple(backbone or ()), datasets=tuple(dataset or ()), train_on=train_on,
        seeds=tuple(seed or ()), epochs=epochs, classes=tuple(classes or ()),
    )  # fmt: skip
    out = out or Path("faprompt-study") / config.name
    if config.complexity is not None:
        _costs(
            config, changes, out, data_root=data_root, work=work, drawn=drawn, repeats=repeats,
            dry_run=dry_run, measure=measure, device=device, precision=precision, as_json=as_json,
        )  # fmt: skip
        return
    if drawn or repeats is not None:
        raise ConfigError("--drawn and --repeats belong to the study complexity.")
    _benchmark(
        config, changes, out, data_root=data_root, work=work, dry_run=dry_run, measure=measure,
        device=device, precision=precision, as_json=as_json,
    )  # fmt: skip


def _list(found: dict[str, Path], *, as_json: bool) -> None:
    from faprompt.reproduce.study_config import read_study

    rows = [{"name": n, "title": read_study(n).title, "file": str(p)} for n, p in found.items()]
    if as_json:
        print(json.dumps({"studies": rows}, ensure_ascii=False))
        return
    for row in rows:
        print(f"{row['name']:<22} {row['title']}")


def _benchmark(
    config: StudyConfig,
    changes: Changes,
    out: Path,
    *,
    data_root: Path | None,
    work: Path | None,
    dry_run: bool,
    measure: bool,
    device: str,
    precision: str | None,
    as_json: bool,
) -> None:
    from faprompt.cli.benchmark import tell_plan
    from faprompt.cli.terminal import progress_bars
    from faprompt.reproduce.galleries import describe_choice, run_galleries
    from faprompt.reproduce.prompt_spread import SpreadResult, describe_mapping, run_spread
    from faprompt.reproduce.study_plan import build_study
    from faprompt.reproduce.study_run import describe_sharing, run_study
    from faprompt.work import hold_folders, pick_device

    study = build_study(config, data_root=data_root, changes=changes)
    precision = precision or study.plan.config.precision
    if dry_run:
        tell_plan(study.plan, device, precision, measure=measure, as_json=as_json)
        if not as_json and config.gallery is not None:
            print(describe_choice(study.plan, config.gallery))
        elif not as_json:
            print(describe_sharing(study.plan))
            if config.spread is not None:
                print(describe_mapping(study.plan, config.spread))
        return
    run: Callable[..., StudyResult | SpreadResult | GalleryResult] = (
        run_galleries if config.gallery else run_spread if config.spread else run_study
    )
    with hold_folders(out, work or out), progress_bars() as progress:
        result = run(
            study, out, work=work, data_root=data_root, device=pick_device(device),
            precision=precision, progress=progress,
        )  # fmt: skip
    written = {"beside": "sheets and a list for each dataset"} if config.gallery else {}
    _say(result.markdown, result.rows, out, as_json=as_json, **written)
    if not result.complete:
        raise typer.Exit(3)


def _costs(
    config: StudyConfig,
    changes: Changes,
    out: Path,
    *,
    data_root: Path | None,
    work: Path | None,
    drawn: bool,
    repeats: int | None,
    dry_run: bool,
    measure: bool,
    device: str,
    precision: str | None,
    as_json: bool,
) -> None:
    from faprompt.errors import ConfigError
    from faprompt.reproduce.complexity import measure_costs
    from faprompt.reproduce.cost_page import dry_run_lines, write_costs
    from faprompt.work import hold_folders, pick_device, pick_precision

    options = config.complexity
    assert options is not None
    if replace(changes, backbones=()) != type(changes)() or data_root or work or measure:
        raise ConfigError(
            "A study of cost needs no data and trains nothing; of a run's options it takes "
            "--backbone, --drawn, --repeats, --device, --precision, --out and --dry-run."
        )
    if len(changes.backbones) > 1:
        raise ConfigError("A study of cost measures one --backbone.")
    options = replace(
        options, backbone=(*changes.backbones, options.backbone)[0],
        repeats=repeats or options.repeats,
    )  # fmt: skip
    config = replace(config, complexity=options)
    if dry_run:
        lines = list(dry_run_lines(options))
        print(json.dumps({"runs": lines}) if as_json else "\n".join([config.title, *lines]))
        return
    where = pick_device(device)
    exactness = pick_precision(precision or options.precision, where)
    common: dict[str, Any] = {"drawn": drawn, "device": where, "precision": exactness}
    with hold_folders(out):
        costs = measure_costs(options, out, **common)
        markdown = write_costs(config, costs, out, **common)
    _say(markdown, [asdict(cost) for cost in costs], out, as_json=as_json)
    if any(cost.reason for cost in costs):
        raise typer.Exit(3)


def _say(
    markdown: str, rows: list[dict[str, Any]], out: Path, *, as_json: bool,
    beside: str = "its tables, and figure.svg, .png and .csv",
) -> None:  # fmt: skip
    from faprompt.cli.terminal import note, say

    if as_json:
        print(json.dumps({"rows": rows}, ensure_ascii=False), end="")
    else:
        say(markdown.rstrip("\n"))
    note(f"wrote {out / 'study.md'}, {beside}")
