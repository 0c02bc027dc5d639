"""Define `faprompt demo`."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from faprompt.cli import options as o


def demo(context: typer.Context, out: o.Out = Path("faprompt-demo")) -> None:
    """Calibrate on bundled good pictures, judge a bundled lot, and write a report.

    Prints the two commands that it runs. The pictures are drawn by a program: 40 good ones of
    each of four products, and a lot of 32 of which half are damaged.
    """
    from faprompt.cli.terminal import say

    pictures, model = demo_pictures(), out / "model"
    for arguments in (
        ["calibrate", f"{pictures / 'good'}", "--by-folder", "--target-fpr", "0.05",
         "--review-fpr", "0.1", "--out", f"{model}"],
        ["predict", f"{pictures / 'lot'}", "--model", f"{model}", "--title", "Demo lot",
         "--out", f"{out}"],
    ):  # fmt: skip
        say(f"$ faprompt {shlex.join(arguments)}")
        code = context.find_root().command.main(
            arguments, prog_name="faprompt", standalone_mode=False
        )
        if code:
            raise typer.Exit(code)


def demo_pictures() -> Path:
    """Return the folder with `good` and `lot`: in the package, or in the repository."""
    package = Path(__file__).resolve().parents[1]
    bundled = package / "bundled" / "demo"
    return bundled if bundled.is_dir() else package.parents[1] / "examples"
