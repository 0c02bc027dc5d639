"""Run the blocks of a page one after the other, in a folder of stand-ins."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from faprompt.cli import main
from tests.docs import stand_ins
from tests.docs.printed import ROOT, Block, commands

_STAYS = re.compile(r"(faprompt (serve|watch)|python \w+\.py) ")  # a program that runs until ended
_READY = re.compile(r"^(serving|watching|port) ", re.MULTILINE)
_ASSIGNED = re.compile(r"[A-Z_]+=")
_SHELL = re.compile(r"[|&;<>$`]|^(?!faprompt )")  # needs a shell, or is another program
_PORTS = re.compile(r"\b(8080|9000)\b")


class PageRun:
    """The folder, the names and the running programs of a page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = stand_ins.python_names(folder)
        self.stays: list[tuple[str, subprocess.Popen[str], Path]] = []
        self.ports: dict[str, str] = {}
        self.variables = ""  # of the shell, for later commands

    def run(self, block: Block) -> None:
        """Run one block; an error names its page and line."""
        code = _PORTS.sub(lambda port: self._port(port[0]), block.code)
        try:
            if block.file:
                (self.folder / block.file).write_text(code, encoding="utf-8")
            elif block.language == "python":
                self._python(code, block)
            else:
                for command in commands(code):
                    self.command(command)
        except BaseException as error:
            error.add_note(f"{block.place}\n{code}")
            raise

    def command(self, printed: str) -> None:
        """Run one command of a shell block, at a size that takes seconds."""
        if re.match(stand_ins.CHECKED, printed):
            return
        command = stand_ins.small(printed)
        if _STAYS.match(command):
            self._start(command)
        elif _ASSIGNED.match(command):
            self.variables += f"{command}\n"
        elif _SHELL.search(command):
            done = subprocess.run(
                ["bash", "-ec", self.variables + command], cwd=self.folder, env=_environment(),
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        else:
            code, text = call(command)
            wanted = 3 if re.match(stand_ins.MISSING_DATA, command) else 0
            assert code == wanted, f"{command}: exit status {code}\n{text}"

    def end(self) -> None:
        """End the programs that still run; each but an endless loop ends with 0 by Ctrl-C."""
        faults = []
        while self.stays:
            command, process, log = self.stays.pop()
            process.send_signal(signal.SIGKILL if "receiver" in command else signal.SIGINT)
            if process.wait(timeout=30) not in (0, -signal.SIGKILL):
                faults.append(f"{command}\n{log.read_text()}")
        assert not faults, "\n".join(faults)

    def _python(self, code: str, block: Block) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(stand_ins.local(code), block.place, "exec"), self.names)

    def _start(self, command: str) -> None:
        for other in [each for each in self.stays if each[0].split()[:2] == command.split()[:2]]:
            self.stays.remove(other)
            self.stays, kept = [other], self.stays
            self.end()
            self.stays = kept
        words = shlex.split(command)
        if words[0] == "faprompt":
            words[:1] = [sys.executable, "-m", "faprompt"]
            if words[3] == "serve" and "--port" not in words:
                words += ["--port", self._port("8080")]
        else:
            words[0] = sys.executable
        log = self.folder / f"log-{len(os.listdir(self.folder))}.txt"
        with log.open("w") as stream:
            process = subprocess.Popen(
                words, cwd=self.folder, env=_environment(), stdout=stream, stderr=stream, text=True
            )
        self.stays.append((command, process, log))
        deadline = time.monotonic() + 60
        while not _READY.search(log.read_text()):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def _port(self, printed: str) -> str:
        if printed not in self.ports:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.ports[printed] = str(free.getsockname()[1])
        return self.ports[printed]


def call(command: str) -> tuple[int, str]:
    """Run `faprompt …` in this process; return its exit status and what it printed."""
    text, arguments = io.StringIO(), sys.argv
    sys.argv = shlex.split(command)
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            main.run()
    except SystemExit as end:
        return int(end.code or 0), text.getvalue()
    finally:
        sys.argv = arguments
    return 0, text.getvalue()


def _environment() -> dict[str, str]:
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    source = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PATH": os.pathsep.join(folders), "PYTHONPATH": source,
            "PYTHONUNBUFFERED": "1"}  # fmt: skip
