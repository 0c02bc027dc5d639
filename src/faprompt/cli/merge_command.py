"""Define `faprompt merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from faprompt.cli import options as o


def merge(
    out: Annotated[
        str, typer.Argument(help="Output folder of the shards, or its URL.", metavar="OUT")
    ],
    table: Annotated[
        Literal["jsonl", "parquet", "csv", "none"],
        typer.Option(
            help="Kind of the table of all rows. none: check everything, and write report and "
            "summary alone; the parts of the shards are a table too."
        ),
    ] = "jsonl",
    report: Annotated[
        bool | None,
        typer.Option(
            "--report/--no-report",
            help="Write report.html. Default: as the shards were asked to.",
            show_default=False,
        ),
    ] = None,
    title: o.Title = "",
    as_json: o.Json = False,
) -> None:
    """Check that all shards of a run are done, and write one table, one report, one summary.

    Of shards of `evaluate` it writes the metrics, as one process would. Missing or damaged
    shards, rows that are there twice, other settings and other inputs are errors that say what to
    run again. Exits with 3 when some pictures could not be read.
    """
    from faprompt.bulk import merge_shards
    from faprompt.cli.evaluate_command import show_evaluations
    from faprompt.cli.terminal import note, note_pictures, progress_bars, say
    from faprompt.errors import ConfigError
    from faprompt.evaluation import holds_evaluation, merge_evaluation
    from faprompt.storage import is_url, local_path, open_folder

    place = Path(local_path(out))
    if not is_url(place) and holds_evaluation(place):
        if table != "jsonl" or report is not None or title:
            raise ConfigError(
                f"{out} holds shards of an evaluation, which have no table, report or title of "
                "this kind; leave --table, --report and --title out."
            )
        if (place / "shards").is_dir():
            raise ConfigError(
                f"{out} holds shards of predict and of evaluate; move one of both away, then merge."
            )
        with progress_bars() as progress:
            results = merge_evaluation(place, progress=progress)
        show_evaluations(results, as_json)
        return
    with progress_bars() as progress:
        merged = merge_shards(
            out,
            tables=() if table == "none" else (table,),
            report=report,
            title=title,
            progress=progress,
        )
    if as_json:
        say(open_folder(out).read("summary.json").decode().rstrip("\n"))
    note_pictures(merged.notes)
    shards = f", in {merged.shards} shards" if merged.shards else ""
    note(f"{merged.n_ok} scored, {merged.n_error} unreadable{shards}")
    note(f"wrote {', '.join(merged.files)} into {out}")
    if merged.n_error:
        raise typer.Exit(3)
