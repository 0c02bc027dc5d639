"""The command line as a user calls it, within this process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from faprompt.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def faprompt(monkeypatch, capsys, tmp_path):
    """Call `faprompt ARGS...`; exit codes go through `run`, as they do for a user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*arguments) -> Outcome:
        monkeypatch.setattr("sys.argv", ["faprompt", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main.run()
        printed = capsys.readouterr()
        return Outcome(int(end.value.code or 0), printed.out, printed.err)

    return call
