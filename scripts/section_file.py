"""A JSON file of measured sections, so that a stopped measurement goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from faprompt.files import write_atomically

FORMAT = 1  # of the rows; raise it to measure all sections again

Row = Mapping[str, Any]


class SectionFile:
    """The result file: a section is computed where its key is not the one that is stored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sections: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def section(self, name: str, key: Sequence[str], rows: Callable[[], Iterator[Row]]) -> None:
        """Compute and write one section, unless it is there."""
        digest = hashlib.sha256(f"{FORMAT} {list(key)}".encode()).hexdigest()[:16]
        if self.sections.get(name, {}).get("key") == digest:
            print(f"{name}: kept", flush=True)
            return
        started = time.monotonic()
        found = {"key": digest, "rows": list(rows())}
        self.sections[name] = found | {"seconds": round(time.monotonic() - started, 1)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.sections, indent=None, sort_keys=True)
        write_atomically(self.path, (text.replace("}, {", "},\n{") + "\n").encode())
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
