"""Windows and macOS: what differs there and can be checked on any system; docs/platforms.md."""

from __future__ import annotations

import ast
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PureWindowsPath

import pytest

from faprompt import files
from faprompt.files import file_stems, is_url, unique_stem
from faprompt.graph_session import _threads
from faprompt.prediction.input_lists import read_list
from faprompt.prediction.result_pictures import Artifacts
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import LocalFolder, local_path
from tests.helpers import small

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "scripts", "benchmarks", "examples")
CLIP = ["--method", "clip", "--backbone", "test-tiny", "--set", "image_size=56"]
NO_FILES = {"Image", "archive", "files", "opener", "os", "tarfile"}  # their `open` is another
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "chown", "fork", "forkpty", "getpgid", "getuid", "geteuid", "killpg", "mkfifo", "nice",
    "setsid", "uname", "sync", "link", "symlink", "symlink_to", "hardlink_to",
    "SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "alarm", "pause", "setitimer",
}  # fmt: skip


@cache
def trees(*folders: str) -> list[tuple[str, ast.Module]]:
    """The Python files of some folders: name and content."""
    return [
        (path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
        for name in folders
        for path in sorted((ROOT / name).rglob("*.py"))
    ]


def text_calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call that opens a text file, with its mode."""
    for call in ast.walk(tree):
        match call:
            case ast.Call(func=ast.Attribute(attr="read_text")):
                yield call, "r"
            case ast.Call(func=ast.Attribute(attr="write_text")):
                yield call, "w"
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr="open")) if (
                owner in NO_FILES
            ):
                continue
            case ast.Call(func=ast.Attribute(attr="open") | ast.Name(id="open") as opener):
                first = 1 if isinstance(opener, ast.Name) else 0
                given = [each.value for each in call.keywords if each.arg == "mode"]
                mode = ast.literal_eval([*given, *call.args[first:], ast.Constant("r")][0])
                if "b" not in mode:
                    yield call, mode


def unfit(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines of text files whose content would depend on the system."""
    for call, mode in text_calls(tree):
        named = {each.arg for each in call.keywords}
        reads_at_once = isinstance(call.func, ast.Attribute) and call.func.attr == "read_text"
        if "encoding" not in named and not (reads_at_once and call.args):
            yield call.lineno, "no encoding"
        if mode[0] in "wax" and "newline" not in named:
            yield call.lineno, "no newline"


def test_text_files_are_the_same_on_every_system():
    """UTF-8 by name, and no CRLF: a text file of the package is written with both stated."""
    faults = [
        (name, *fault)
        for name, tree in trees(*FOLDERS)
        for fault in unfit(tree)
        if name.startswith("src/") or fault[1] == "no encoding"
    ]
    assert faults == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("open('a')", ["no encoding"]),
        ("open('a', 'w', encoding='utf-8')", ["no newline"]),
        ("path.open('a')", ["no encoding", "no newline"]),
        ("path.open(mode='w', encoding='utf-8', newline='')", []),
        ("path.write_text(text)", ["no encoding", "no newline"]),
        ("path.read_text('utf-8')", []),
        ("path.read_text()", ["no encoding"]),
        ("path.open('rb')", []),
        ("Image.open(path)", []),
    ],
)
def test_a_text_file_that_depends_on_the_system_is_found(line, found):
    assert [fault for _, fault in unfit(ast.parse(line))] == found


def test_nothing_is_used_that_windows_lacks():
    """Links too: Windows wants a right for them."""
    used = set()
    for name, tree in trees("src"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                used |= {(name, each.name) for each in node.names} & {
                    (name, module) for module in POSIX_MODULES
                }
            elif isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES:
                used.add((name, node.module))
            elif isinstance(node, ast.Attribute) and node.attr in POSIX_NAMES:
                used.add((name, node.attr))
    assert used == set()


def test_processes_are_spawned_and_examples_start_nothing_when_imported():
    """macOS and Windows import the program again in each process; Linux is made to."""
    methods = [
        (name, [ast.literal_eval(each) for each in call.args])
        for name, tree in trees("src")
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("get_context")
    ]
    assert methods and all(chosen == ["spawn"] for _, chosen in methods), methods
    free = r"multiprocessing\.(Pool|Process|Queue|Manager)\(|ProcessPoolExecutor"
    source = {name: (ROOT / name).read_text(encoding="utf-8") for name, _ in trees("src")}
    assert [name for name, text in source.items() if re.search(free, text)] == []
    plain = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign
    for name, tree in trees("examples"):
        for node in tree.body[1:]:
            guarded = isinstance(node, ast.If) and ast.unparse(node.test) == (
                "__name__ == '__main__'"
            )
            assert guarded or isinstance(node, plain), f"{name}: {ast.unparse(node)}"


def test_what_passes_between_processes_can_be_pickled():
    row = ResultRow("C:\\lot\\a.png", "small", status="error", error="x", stamp="1-2")
    assert pickle.loads(pickle.dumps(row)) == row
    result = small.detector("clip").predict(small.picture())
    assert pickle.loads(pickle.dumps(result)) == result


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("C:\\lot\\a.png", False), ("C:/lot/a.png", False), ("c://lot/a.png", False),
        ("\\\\nas\\lot\\a.png", False), ("//nas/lot/a.png", False), ("\\\\?\\C:\\lot", False),
        ("C:a.png", False), ("s3://lot/a.png", True), ("FILE:///C:/lot/a.png", True),
    ],
)  # fmt: skip
def test_a_drive_and_a_share_are_no_urls(location, url):
    assert is_url(location) is url
    if not url:
        assert local_path(location) == location


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_a_list_of_windows_is_read_as_it_is(tmp_path, name):
    paths = ["C:\\lot\\new\\a.png", "\\\\nas\\lot\\b.png", "lot\\検査.png"]
    header = ["path"] if name == "list.csv" else []
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):  # Notepad and PowerShell write these
        content = "".join(f"{line}\r\n" for line in [*header, *paths])
        (tmp_path / name).write_bytes(content.encode(encoding))
        assert [*read_list(str(tmp_path / name), None, {})] == paths


def test_names_of_result_files_are_those_of_other_systems(monkeypatch):
    wanted = unique_stem("lot/gear/a b.1.png", absolute=False)
    monkeypatch.setattr(files, "Path", PureWindowsPath)
    monkeypatch.setattr(files.os, "sep", "\\")
    assert unique_stem("lot\\gear\\a b.1.png", absolute=False) == wanted
    assert wanted.startswith("a_b.1-")


def test_results_of_pictures_that_differ_in_case_are_two_files():
    made = {unique_stem(name).casefold() for name in ("in/a.png", "in/A.png", "IN/a.png", "in/a.")}
    assert len(made) == 4
    stems = file_stems(["a", "A", "a.", "a "]).values()
    assert len({stem.casefold() for stem in stems}) == 4
    assert not [stem for stem in stems if stem.endswith((".", " "))]


def test_the_longest_name_of_a_result_leaves_room_for_the_folder():
    """Windows allows 260 characters by default, macOS and Linux 255 bytes a name."""
    names = Artifacts(LocalFolder(Path("out")), prefix="shards/00001-of-00040/")
    for letter in ("x", "検", "\U00020000"):
        longest = max(names.thumbnail_names(f"in/{letter * 200}.png"), key=len)
        temporary = files.temporary_name(Path(longest))
        assert len(str(temporary)) <= 130
        assert len(temporary.name.encode()) <= 255


def test_where_the_system_tells_no_share_of_processors_all_are_used(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # Windows and macOS
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert _threads() == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert _threads() == 2


@pytest.mark.parametrize("name", ["検査-é.png", "pru\u0308fung \U0001f600.png"])
def test_a_console_of_western_windows_prints_every_name(tmp_path, name):
    path = small.picture_file(tmp_path / "in" / name)
    (tmp_path / "in" / "検.png").write_bytes(b"no picture")
    told = subprocess.run(
        [sys.executable, "-m", "faprompt", "predict", "in", *CLIP, "--out", "aus-検"],
        cwd=tmp_path, capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    )  # fmt: skip
    out, err = told.stdout.decode("cp1252"), told.stderr.decode("cp1252")
    assert told.returncode == 3, err
    assert "Traceback" not in err and "\\u691c.png" in out and "aus-\\u691c" in err
    (shown,) = [line for line in out.splitlines() if not line.startswith("ERROR")]
    assert shown.endswith(path.name.encode("cp1252", "backslashreplace").decode("cp1252"))
    written = (tmp_path / "aus-検" / "results.jsonl").read_text(encoding="utf-8")
    assert path.name in written


@pytest.mark.parametrize("words", [["--help"], ["predict", "--help"]])
def test_a_console_of_western_windows_prints_our_own_texts(words):
    told = subprocess.run(
        [sys.executable, "-m", "faprompt", *words], capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "\\u" not in told.stdout.decode("cp1252")


def test_the_page_names_tests_that_there_are():
    rows = re.findall(r"^\| (.+) \|$", (ROOT / "docs" / "platforms.md").read_text("utf-8"), re.M)
    named = [row.rpartition(" | ")[2] for row in rows if "test_" in row]
    assert len(named) > 20
    for cell in named:
        for file, tests in re.findall(r"`([\w/]+\.py)`(?:: ((?:`\w+`(?:, )?)+))?", cell):
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            for test in re.findall(r"`(\w+)`", tests):
                assert f"def test_{test}(" in text, (file, test)
