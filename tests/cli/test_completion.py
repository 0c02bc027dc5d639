"""Shells complete commands, options and names, as their scripts ask for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import faprompt
from faprompt.cli import options
from faprompt.clip.known_backbones import list_backbones
from faprompt.imaging import MAX_PIXELS


def ask(shell, words, incomplete=""):
    """Return what the completion script of a shell gets for a line."""
    line = " ".join(["faprompt", *words, incomplete])
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) + 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        "powershell": {
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_WORD_TO_COMPLETE": incomplete,
        },
    }[shell]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "faprompt"],
        env={**os.environ, **asked, "_FAPROMPT_COMPLETE": f"complete_{shell}"},
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert not {"torch", "numpy", "open_clip"} & {
        row.rpartition("|")[2].strip() for row in done.stderr.splitlines()
    }
    return done.stdout


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ([], "pre", ["predict"]),
        (["datasets"], "", ["list", "check", "table", "synth"]),
        (["predict"], "--mod", ["--model"]),
        (["predict", "--model"], "s", ["small"]),
        (["predict", "--method"], "winc", ["winclip"]),
        (["evaluate", "--method"], "clip", ["clip", "clip-ac"]),
        (["predict", "--backbone"], "eff", ["efficientnet-lite0"]),
        (["predict", "--precision"], "f", ["fp32", "fp16"]),
        (["predict", "--model"], "other-", []),  # the shell offers files then
    ],
)
def test_bash_is_offered_what_fits(words, incomplete, offered):
    assert ask("bash", words, incomplete).split() == offered


@pytest.mark.parametrize("shell", ["zsh", "fish", "powershell"])
def test_other_shells_are_offered_the_same(shell):
    told = ask(shell, ["predict", "--model"], "s")
    assert "small" in told and "tiny" not in told


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_every_shell_has_a_script(shell):
    done = subprocess.run(
        [sys.executable, "-m", "faprompt"],
        env={**os.environ, "_FAPROMPT_COMPLETE": f"source_{shell}"},
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "_FAPROMPT_COMPLETE" in done.stdout and f"complete_{shell}" in done.stdout


def test_the_copied_names_are_those_of_the_package():
    assert list(options.METHODS) == faprompt.list_methods()
    assert list(options.MODELS) == [row["name"] for row in faprompt.list_models()]
    assert {*options.BACKBONES} <= {row["name"] for row in list_backbones()}
    assert MAX_PIXELS == options.MAX_PIXELS
