"""What a long run tells its caller while it works."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["masks", "images", "steps"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One sign of life. `done` of `total` units of a stage; `terms` are the step's losses."""

    stage: Stage
    done: int
    total: int
    epoch: int = 0
    terms: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Sum of the step's terms."""
        return sum(self.terms.values())


ProgressCallback = Callable[[Progress], None]
Notify = Callable[[str], None]


def silent(progress: Progress) -> None:
    """The callback of a caller who does not care."""


def log_note(note: str) -> None:
    """Notes to the `faprompt` log, where nobody else takes them."""
    logging.getLogger("faprompt").info(note)


def log_warning(warning: str) -> None:
    """Warnings to the `faprompt` log, which Python shows unless it is told otherwise."""
    logging.getLogger("faprompt").warning(warning)
