"""`faprompt`: flat verbs, one thin file each. Loads nothing heavy until a verb runs."""

from __future__ import annotations

import sys

import typer

from faprompt import __version__
from faprompt.cli import (
    benchmark,
    datasets,
    doctor,
    evaluate,
    explain,
    models,
    predict,
    study,
    train,
)

INTERRUPTED = 130  # what typer makes of Ctrl-C
GO_ON = "interrupted; --resume (benchmark, study: the same command) goes on from here."

app = typer.Typer(
    name="faprompt",
    help="Zero-shot visual anomaly detection: which pictures are wrong, and where.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("predict")(predict.predict)
app.command("explain")(explain.explain)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("benchmark")(benchmark.benchmark)
app.command("study")(study.study)
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    from faprompt.cli._terminal import show_log

    show_log()
    if version:
        typer.echo(f"faprompt {__version__}")
        raise typer.Exit


def run() -> None:
    """Entry point. Exit 0 done; 2 the command line is wrong; 3 some inputs unreadable; 1 failed."""
    from faprompt.cli._terminal import note
    from faprompt.errors import ConfigError, FapromptError

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name need not be text in this encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="faprompt")
    except (FapromptError, OSError) as error:
        note(f"faprompt: {error}")
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            note(f"faprompt: {GO_ON}")
        raise
