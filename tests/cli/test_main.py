"""Help, exit codes, and what the front of the command line may cost."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import faprompt as package
from faprompt.cli import main
from faprompt.errors import ConfigError, DatasetError

VERBS = [
    ["predict"], ["train"], ["evaluate"], ["benchmark"], ["doctor"],
    ["datasets"], ["datasets", "list"], ["datasets", "check"], ["datasets", "synth"],
    ["models"], ["models", "list"], ["models", "info"], ["models", "fetch"],
    ["models", "convert"],
]  # fmt: skip
HEAVY = ("torch", "open_clip", "numpy", "scipy", "matplotlib", "PIL", "sklearn")


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help(faprompt, verb):
    told = faprompt(*verb, "--help")
    assert told.code == 0
    assert told.out.strip().startswith(f"Usage: faprompt {' '.join(verb)}")
    assert "--help" in told.out


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["train", "--help"]])
def test_help_wakes_nothing_heavy(arguments):
    code = (
        "import sys\nfrom faprompt.cli.main import app\n"
        f"try: app({arguments!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({}, {"GOMP_SPINCOUNT": "5000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_waiting_threads_soon_sleep_unless_the_user_says_otherwise(monkeypatch, own, wanted):
    monkeypatch.setattr("sys.argv", ["faprompt", "--version"])
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main.run()
    assert {name: os.environ[name] for name in names if name in os.environ} == wanted


def test_the_version(faprompt):
    told = faprompt("--version")
    assert (told.code, told.out) == (0, f"faprompt {package.__version__}\n")


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "faprompt", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"faprompt {package.__version__}\n"), done.stderr


def test_without_a_verb_the_help_is_shown(faprompt):
    told = faprompt()
    assert "Usage: faprompt" in told.out + told.err
    for verb in ("predict", "train", "evaluate", "datasets", "models", "doctor"):
        assert verb in told.out + told.err


@pytest.mark.parametrize(
    "arguments",
    [["predcit", "x"], ["predict", "x", "--threshhold", "1"], ["predict"], ["--nonsense"],
     ["predict", "x", "--maps", "jpg"], ["predict", "x", "--threshold", "1.5"],
     ["predict", "x", "--threshold", "nan"], ["explain", "x", "--threshold", "nan"],
     ["predict", "x", "--bit-depth", "99"], ["predict", "x", "--batch-size", "0"],
     ["evaluate", "x", "--resolution", "screen"], ["models", "convert", "x", "--method", "clip"]],
)  # fmt: skip
def test_a_wrong_command_line_is_exit_2(faprompt, arguments):
    told = faprompt(*arguments)
    assert told.code == 2 and "Error" in told.err and not told.out


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError("no such option"), 2, "faprompt: no such option\n"),
        (DatasetError("no such folder"), 1, "faprompt: no such folder\n"),
        (PermissionError(13, "Permission denied", "out"), 1, "faprompt: [Errno 13] Permission"),
        (KeyboardInterrupt(), 130, f"faprompt: {main.RESUME_HINT}\n"),
    ],
)
def test_failures_are_one_line_and_an_exit_code(faprompt, monkeypatch, error, code, told):
    def fail():
        raise error

    monkeypatch.setattr("faprompt.data.list_datasets", fail)
    outcome = faprompt("datasets", "list")
    assert outcome.code == code and outcome.err.startswith(told) and not outcome.out


def test_our_own_slips_are_not_hidden(faprompt, monkeypatch):
    monkeypatch.setattr("faprompt.data.list_datasets", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        faprompt("datasets", "list")
