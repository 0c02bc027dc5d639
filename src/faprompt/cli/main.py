"""Define the command `faprompt`. Nothing heavy is imported until a subcommand runs."""

from __future__ import annotations

import os
import sys

import typer

from faprompt import __version__
from faprompt.cli import datasets_command, models_command
from faprompt.cli.benchmark_command import benchmark
from faprompt.cli.calibrate_command import calibrate_command
from faprompt.cli.demo_command import demo
from faprompt.cli.doctor_command import doctor
from faprompt.cli.drift_command import drift
from faprompt.cli.evaluate_command import evaluate
from faprompt.cli.explain_command import explain
from faprompt.cli.export_command import export_command
from faprompt.cli.merge_command import merge
from faprompt.cli.predict_command import predict
from faprompt.cli.serve_command import serve
from faprompt.cli.study_command import study
from faprompt.cli.train_command import train_command
from faprompt.cli.watch_command import watch

INTERRUPTED = 130  # exit status of typer after Ctrl-C
RESUME_HINT = (
    "interrupted; continue with --resume (--shard, benchmark, study: with the same command)."
)

app = typer.Typer(
    name="faprompt",
    help="Zero-shot visual anomaly detection: which pictures are wrong, and where.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo)
app.command("predict")(predict)
app.command("merge")(merge)
app.command("watch")(watch)
app.command("calibrate")(calibrate_command)
app.command("explain")(explain)
app.command("drift")(drift)
app.command("export")(export_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate)
app.command("benchmark")(benchmark)
app.command("study")(study)
app.command("serve")(serve)
app.add_typer(datasets_command.app, name="datasets")
app.add_typer(models_command.app, name="models")
app.command("doctor")(doctor)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    from faprompt.cli.terminal import show_log

    show_log()
    if version:
        typer.echo(f"faprompt {__version__}")
        raise typer.Exit


def run() -> None:
    """Run the command line.

    Exit status: 0 done; 1 failed; 2 the command line is wrong; 3 finished, but some inputs
    could not be read.
    """
    from faprompt.cli.terminal import note
    from faprompt.errors import ConfigError, FapromptError

    # OpenMP (libgomp) reads it when torch is imported: threads that wait look for work this many
    # times, then sleep. Its default costs up to half more time where other programs use the cores,
    # and no look at all costs as much where none do.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name may not fit this encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="faprompt")
    except (FapromptError, OSError) as error:
        note(f"faprompt: {error}")
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            note(f"faprompt: {RESUME_HINT}")
        raise
