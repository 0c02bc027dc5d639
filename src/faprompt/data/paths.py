"""Paths written on another machine, found again on this one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_SEPARATORS = re.compile(r"[/\\]+")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")


@dataclass(slots=True)
class PathFinder:
    """Finds files below `root`, and counts those whose path had to be shortened."""

    root: Path
    rescued: int = 0

    def find(self, text: str) -> Path | None:
        """The file meant by `text`, or None.

        Doubled slashes, `./` and backslashes are put right. A path that does not exist is
        tried again with ever shorter tails under the root: `/home/me/brain/no/1.png` is
        looked for as `home/me/brain/no/1.png`, …, `no/1.png`, `1.png`.
        """
        absolute = _ABSOLUTE.match(text) is not None
        if absolute and os.path.isfile(text):
            return Path(text)
        parts = path_parts(text)
        for start in range(len(parts)):
            path = self.root.joinpath(*parts[start:])
            if os.path.isfile(path):  # unlike Path.is_file, False also for impossible names
                self.rescued += absolute or start > 0
                return path
        return None


def best_root(places: Sequence[Path], texts: Iterable[str]) -> Path:
    """The folder below which most of these paths exist as written; the first one in a tie."""
    parts = [path_parts(text) for text in texts]
    found = [sum(os.path.isfile(place.joinpath(*names)) for names in parts) for place in places]
    return places[found.index(max(found))]


def path_parts(text: str) -> list[str]:
    r"""The parts of a path in any notation.

    Example:
        >>> path_parts(r".\brain//no\1.png")
        ['brain', 'no', '1.png']
    """
    return [part for part in _SEPARATORS.split(text) if part not in ("", ".")]
