"""A JSON file of measured sections, so that a stopped measurement goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from faprompt.files import write_atomically

FORMAT = 1  # of the rows; raise it to measure all sections again

Row = Mapping[str, Any]


class SectionFile:
    """The result file. Sections of another key, such as an earlier model's, are forgotten.

    Args:
        path: the file; it may be missing.
        key: everything that decides the values.
    """

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path = path
        self.key = hashlib.sha256(f"{FORMAT} {list(key)}".encode()).hexdigest()[:16]
        stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        same = stored.get("key") == self.key
        self.sections: dict[str, Any] = stored["sections"] if same else {}

    def section(self, name: str, rows: Callable[[], Iterable[Row]]) -> None:
        """Compute and write one section, unless it is there."""
        if name in self.sections:
            print(f"{name}: kept", flush=True)
            return
        started = time.monotonic()
        found = list(rows())
        seconds = round(time.monotonic() - started, 1)
        self.sections[name] = {"rows": found, "seconds": seconds}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"key": self.key, "sections": self.sections}, sort_keys=True)
        write_atomically(self.path, (text.replace("}, {", "},\n{") + "\n").encode())
        print(f"{name}: {seconds:.0f} s", flush=True)
