"""Every command and snippet that README.md and the pages of docs/ print runs."""

from __future__ import annotations

import re
import shutil
import tomllib
from functools import cache

import pytest
import typer

from faprompt.cli.main import app
from faprompt.exporting import graph_files
from tests.docs import stand_ins
from tests.docs.page_run import PageRun, call
from tests.docs.printed import OTHERS, PAGES, ROOT, RUN, blocks_of, commands, printed

# Why a block may stay untested. Everything else runs.
REASONS = {
    "needs a GPU", "needs Docker", "needs Windows", "needs a download", "needs a camera",
    "needs the published datasets", "needs another package", "takes hours",
}  # fmt: skip
WITH_BLOCKS = [page for page in PAGES if printed(page)]
_INLINE = re.compile(r"`(faprompt [^`]+)`")


def run(command):
    code, text = call(stand_ins.small(command))
    assert code == 0, text


@pytest.fixture(scope="session", autouse=True)
def traced_once():
    """Pages export the same model again and again; its graph is traced once."""
    kept, traced = {}, graph_files.to_onnx

    def to_onnx(graph):
        key = graph.detector.fingerprint()
        if key not in kept:
            kept[key] = traced(graph)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_files, "to_onnx", to_onnx)
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("printed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stand_ins.build(folder, run)
    return folder


@pytest.fixture(scope="session")
def exported(template):
    folder = template.with_name("exports")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(template)
        stand_ins.exported(folder, run)
    return folder / "exported"


@pytest.mark.skipif(shutil.which("bash") is None, reason="the printed commands need bash")
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_runs(page, template, request, tmp_path, monkeypatch):
    folder = tmp_path / "page"
    shutil.copytree(template, folder)
    if any(re.search(r"exported[/\" ]", block.code) for block in printed(page)):
        shutil.copytree(request.getfixturevalue("exported"), folder / "exported")
    needed = {word for block in printed(page) if not block.reason
              for word in re.findall(r"^(curl|openssl)\b", block.code, re.MULTILINE)}  # fmt: skip
    if any(".dcm" in block.code for block in printed(page)):
        pytest.importorskip("pydicom", reason="needs the extra dicom")
    if any("--engine ray" in block.code for block in printed(page) if not block.reason):
        pytest.importorskip("ray.data", reason="needs the extra ray")
    if lacking := sorted(word for word in needed if shutil.which(word) is None):
        pytest.skip(f"this machine has no {', '.join(lacking)}")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = PageRun(folder)
    try:
        for block in printed(page):
            if not block.reason:
                whole.run(block)
    finally:
        whole.end()


def test_what_is_not_run_is_little_and_has_a_known_reason():
    blocks = [block for page in PAGES for block in printed(page)]
    left = [block for block in blocks if block.reason]
    print(f"{len(blocks) - len(left)} blocks are run, {len(left)} are not")
    assert {block.reason for block in left} <= REASONS
    assert len(left) <= len(blocks) / 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_says_its_language(page):
    """A command in an unmarked or indented block would escape the tests above."""
    assert {block.language for block in blocks_of(page)} <= {*RUN, *OTHERS}
    assert not re.search(r"^(    |\t)+(\$ )?(faprompt|pip) ", page.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_sentences_exist_and_have_their_options(page):
    blocks = [line for each in blocks_of(page) for line in commands(each.code)]
    named = [line for line in blocks if re.match(r"faprompt \S+ (-|\w+ -|$)", line)]
    faults = []
    for text in [*_INLINE.findall(page.read_text("utf-8")), *named]:
        words = re.split(r"\s+", text)[1:]
        name = " ".join(words[:2]) if " ".join(words[:2]) in options() else words[0]
        if words[0].startswith("-") or name in ("COMMAND", "datasets", "models"):
            continue
        given = {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)}
        faults += [text] if name not in options() or given - options()[name] else []
    assert not faults


def test_extras_and_make_targets_exist():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    with (ROOT / "pyproject.toml").open("rb") as stream:
        extras = tomllib.load(stream)["project"]["optional-dependencies"]
    named = {one for group in re.findall(r"(?:faprompt|\.)\[([a-z,]+)\]", text)
             for one in group.split(",")}  # fmt: skip
    assert named <= set(extras)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets


@cache
def options() -> dict[str, set[str]]:
    """Return the options of each command."""
    found: dict[str, set[str]] = {}

    def walk(command, name):
        found[name] = {"--help", *(o for p in command.params for o in (*p.opts, *p.secondary_opts))}
        for word, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {word}".strip())

    walk(typer.main.get_command(app), "")
    return found
