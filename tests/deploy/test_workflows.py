"""Workflows run what a clone has, with pinned actions and no rights; forms and files are whole."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from faprompt.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
COMMANDS = {*typer.main.get_command(app).commands}


def read(path: Path) -> dict:
    """A workflow; YAML 1.1 reads the key `on` as true."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def runs(path: Path) -> list[list[str]]:
    """The commands of a workflow, as words."""
    texts = [step["run"] for step in steps(read(path)) if "run" in step]
    return [shlex.split(line) for text in texts for line in text.splitlines()]


def fault(words: list[str]) -> str | None:
    """What is wrong with a command: it is a target, a command of ours, pip or pytest."""
    match words:
        case ["make", *targets] if targets:
            done = subprocess.run(
                ["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True
            )
            return done.stderr.strip() if done.returncode else None
        case ["faprompt", command, *_]:
            return None if command in COMMANDS else f"no command {command}"
        case ["python", "-m", "pip", "install", *rest]:
            extras = [name for word in rest for name in re.findall(r"\.\[(.*)\]", word)]
            files = [rest[at + 1] for at, word in enumerate(rest) if word in ("-c", "-r")]
            lost = {*",".join(extras).split(",")} - {"", *PROJECT["optional-dependencies"]}
            lost |= {file for file in files if not (ROOT / file).is_file()}
            return f"no {', '.join(sorted(lost))}" if lost else None
        case ["python", "-m", "pytest", *_]:
            return None
    return f"neither a make target nor a plain command: {shlex.join(words)}"


def test_there_is_a_workflow_for_each_part():
    assert [path.stem for path in WORKFLOWS] == ["check", "docs", "packages", "tests"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_there(path):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    commands = runs(path)
    assert commands
    assert {shlex.join(c): f for c in commands if (f := fault(c)) is not None} == {}


@pytest.mark.parametrize(
    "line",
    ["make nothing-like-it", "faprompt judge", "curl x", "python -m pip install '.[nope]'",
     "python -m pip install -r gone.txt", "make"],
)  # fmt: skip
def test_a_command_that_is_not_there_is_found(line):
    assert fault(shlex.split(line))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_few_rights_and_pinned_actions(path):
    workflow, text = read(path), path.read_text(encoding="utf-8")
    assert workflow["permissions"] == {"contents": "read"}
    assert {*workflow[True]} == {"push", "pull_request"}  # never pull_request_target
    assert "secrets." not in text and "github.event" not in text
    for job in workflow["jobs"].values():
        assert "permissions" not in job and job["timeout-minutes"] <= 90
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert [
        u for u in used if not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", u)
    ] == []


def test_the_pins_of_an_action_agree():
    used = {pin for path in WORKFLOWS for pin in re.findall(r"uses: (\S+)@(\S+)", path.read_text())}
    assert len(used) == len({name for name, _ in used})


def test_tests_run_on_every_system_and_python():
    matrix = read(GITHUB / "workflows" / "tests.yml")["jobs"]["systems"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    kind = "Programming Language :: Python :: 3."
    stated = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith(kind)]
    assert matrix["python"] == stated
    assert PROJECT["requires-python"] == f">={stated[0]}"


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_forms_are_what_github_reads(name):
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert {*form} == {"name", "description", "labels", "body"}
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert {part["type"] for part in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert len({part["id"] for part in fields}) == len(fields)
    assert all(part["attributes"]["label"] for part in fields)
    assert any(part.get("validations", {}).get("required") for part in fields) or name == "idea"


@pytest.mark.parametrize(
    "path", [*GITHUB.glob("*.md"), ROOT / "RELEASING.md", ROOT / "docs" / "versions.md"],
    ids=lambda path: path.name,
)  # fmt: skip
def test_pages_name_what_there_is(path):
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (path.parent / link).exists(), link
    for name in re.findall(r"`((?:src|scripts|docs)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)[1].split()
    named = [t for targets in re.findall(r"`make ([a-z -]+)`", text) for t in targets.split()]
    assert {*named} <= {*phony}
