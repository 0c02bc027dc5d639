"""Record what every command writes, and compare two recordings number by number.

    PYTHONPATH=OLD/src python scripts/compare_outputs.py record recordings/old
    PYTHONPATH=NEW/src python scripts/compare_outputs.py record recordings/new
    python scripts/compare_outputs.py compare recordings/old recordings/new

A change that must not move a score is judged by the version before it. `record` runs the commands
of `compared/commands.toml` on small drawn sets with the checkout that `faprompt` is imported from.
Both recordings have to lie in one folder: they are made under one path, because the names of maps
and overlays hold a digest of the picture's path.
`compare` exits 1 when a number differs by more than 1e-6 of its size, or when a file, a row or a
key is gone. Texts and pictures that differ are listed and are no faults.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.compared.differences import compare_files  # noqa: E402

COMPARED = Path(__file__).resolve().parent / "compared"
MINUTES = 15  # a command may take
CELL_KEY = re.compile(r"__[0-9a-f]{6,}(?=/|$)")  # ends the folder of a benchmark's cell
QUIET = "*.stderr"  # its words are listed on request: they hold times
SHOWN = 3  # remarks per file


def record(out: Path, only: Sequence[str], studies: Path) -> None:
    """Run the commands and move what they write to `out`."""
    plan = read_plan()
    commands: dict[str, Any] = plan["commands"]
    unknown = [pattern for pattern in only if not any(fnmatch(name, pattern) for name in commands)]
    if unknown:
        raise SystemExit(f"No command is called {', '.join(unknown)}; see {COMPARED}.")
    work = out.resolve().with_name("current")
    if work.exists():
        raise SystemExit(f"{work} exists: another recording runs, or was stopped. Then remove it.")
    if out.exists():
        out.rename(work)
    work.mkdir(parents=True, exist_ok=True)
    try:
        for name, lines in commands.items():
            if is_chosen(name, only):
                run(
                    work, name, [lines] if isinstance(lines, str) else lines, plan["short"], studies
                )
    finally:
        work.rename(out)


def read_plan() -> dict[str, dict[str, Any]]:
    """Return the tables of `commands.toml`."""
    return tomllib.loads((COMPARED / "commands.toml").read_text(encoding="utf-8"))


def is_chosen(name: str, only: Sequence[str]) -> bool:
    """Return whether a command's name matches a pattern; without patterns all do."""
    return not only or any(fnmatch(name, pattern) for pattern in only)


def run(work: Path, name: str, lines: Sequence[str], short: dict[str, str], studies: Path) -> None:
    """Run the lines of one command and keep their output beside the files they write."""
    import faprompt

    sources = Path(faprompt.__file__).resolve().parents[1]
    words = {"out": f"{name}/out", "studies": str(studies.resolve())}
    words["paper"] = str(sources.parent / "configs" / "paper")
    words |= {key: text.format(**words) for key, text in short.items()}
    environment = os.environ | {
        "PYTHONPATH": str(sources), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(work / "cache"), "COLUMNS": "120", "SOURCE_DATE_EPOCH": "0",
    }  # fmt: skip
    shutil.rmtree(work / name, ignore_errors=True)
    (work / name).mkdir()
    started = time.perf_counter()
    statuses = []
    for number, line in enumerate(lines, start=1):
        arguments = shlex.split(line.format(**words))
        program = ["-m", "faprompt", *arguments]
        if arguments[0] == "python":
            program = [str(COMPARED / arguments[1]), *arguments[2:]]
        done = subprocess.run(
            [sys.executable, *program], cwd=work, env=environment, capture_output=True, text=True,
            timeout=60 * MINUTES, check=False,
        )  # fmt: skip
        parts = {"stdout": done.stdout, "stderr": done.stderr, "exit": f"{done.returncode}\n"}
        for part, text in parts.items():
            (work / name / f"{number}.{part}").write_text(text, encoding="utf-8", newline="\n")
        statuses.append(str(done.returncode))
    seconds = time.perf_counter() - started
    print(f"{name:<34} {seconds:6.1f} s  exit {' '.join(statuses)}", flush=True)


def compare(
    old: Path, new: Path, only: Sequence[str], expected: Sequence[str], *, words: bool
) -> int:
    """Print what differs in each file, then the counts; return the number of faults."""
    patterns = [*read_plan()["expected"], *expected]
    before, after = (list_files(folder, only, patterns) for folder in (old, new))
    partners = dict(pair_files(before, after, patterns))
    faults = equal = 0
    for name, partner in partners.items():
        if partner is None:
            print(f"{name}: GONE")
            faults += 1
            continue
        found = compare_files(name, before[name], after[partner], patterns)
        faults += len(found.faults)
        equal += found.equal and not found.remarks
        quiet = fnmatch(name, QUIET) and not words and not found.faults
        if quiet or (found.equal and not found.remarks):
            continue
        size = f"largest difference {found.largest:.1e} of {found.count} numbers"
        print(f"{name}: {'numbers equal to the bit' if found.equal else size}")
        for line in [*found.faults, *found.remarks[: None if words else SHOWN]]:
            print(f"    {line}")
    for name in sorted(set(after) - set(partners.values())):
        print(f"{name}: new")
    print(f"{len(partners)} files, {equal} of them equal; {faults} faults")
    return faults


def list_files(folder: Path, only: Sequence[str], patterns: Sequence[str]) -> dict[str, Path]:
    """Return the files of a recording by their names, without those that may differ."""
    names = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return {
        name: path
        for name, path in names.items()
        if is_chosen(name.split("/")[0], only) and not name.startswith("cache/")
        and not any(fnmatch(name, pattern) for pattern in patterns)
    }  # fmt: skip


def pair_files(
    before: dict[str, Path], after: dict[str, Path], patterns: Sequence[str]
) -> Iterator[tuple[str, str | None]]:
    """Pair files by name. Cells whose key changed go by the rest of the name and their values."""
    free = [name for name in after if name not in before]
    for name, path in before.items():
        if name in after:
            yield name, name
            continue
        rest = CELL_KEY.sub("", name)
        rated = [
            (len(compare_files(name, path, after[other], patterns).faults), other)
            for other in free
            if CELL_KEY.sub("", other) == rest
        ]
        best = min(rated)[1] if rated else None
        if best is not None:
            free.remove(best)
        yield name, best


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Record and compare the outputs of all commands.")
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run the commands")
    recording.add_argument("out", type=Path, help="folder of the recording")
    recording.add_argument(
        "--studies", type=Path, default=COMPARED, help="folder of the TOML files"
    )
    comparing = commands.add_parser("compare", help="compare two recordings")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    comparing.add_argument("--expected", action="append", default=[], metavar="COMMAND/FILE:KEY",
                           help="pattern of a difference that is no fault; repeatable")  # fmt: skip
    comparing.add_argument("--words", action="store_true", help="list every text that changed")
    for command in (recording, comparing):
        command.add_argument("--only", action="append", default=[], metavar="COMMAND",
                             help="pattern of the commands; repeatable")  # fmt: skip
    given = parser.parse_args()
    if given.command == "record":
        record(given.out, given.only, given.studies)
        return 0
    return int(compare(given.old, given.new, given.only, given.expected, words=given.words) > 0)


if __name__ == "__main__":
    sys.exit(main())
