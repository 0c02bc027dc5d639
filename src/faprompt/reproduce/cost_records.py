"""What is known of a method's cost, and the file that keeps it while a study goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faprompt.files import write_atomically

TIMED = ("inference", "step", "cached_step")  # in the order in which they are measured


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds."""

    median: float
    spread: float  # standard deviation


@dataclass(frozen=True, slots=True)
class MethodCost:
    """One method's line. What it has not is None; `reason` says why something was not measured."""

    method: str
    live: int | None = None  # parameters that move
    reported: int | None = None  # as the authors count, where that is known for this backbone
    step: Timing | None = None  # one training batch, its image pass included
    cached_step: Timing | None = None  # the same on cached tokens
    inference: Timing | None = None  # one picture
    image_size: int = 0
    reason: str = ""
    network: str = ""  # the backbone, where it is not the study's
    memory: int = 0  # patches that each patch of a picture is compared with


@dataclass(frozen=True, slots=True)
class CostFile:
    """A method's cost on disk; `identity` is all that decides its figures."""

    path: Path
    identity: Mapping[str, Any]

    def read(self) -> tuple[MethodCost | None, bool]:
        """What was measured, and whether that is everything; None where nothing was."""
        try:
            told = json.loads(self.path.read_text(encoding="utf-8"))
            if told["identity"] != self.identity:
                return None, False
            values = {**told["cost"], "reason": ""}
            timings = {key: Timing(**values[key]) if values[key] else None for key in TIMED}
            complete = bool(told.get("complete", True)) and not told["cost"]["reason"]
            return MethodCost(**{**values, **timings}), complete
        except (OSError, ValueError, KeyError, TypeError):  # absent, cut off or another program's
            return None, False

    def write(self, cost: MethodCost, *, complete: bool) -> None:
        """Keep what is known so far."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        record = {"identity": self.identity, "cost": asdict(cost), "complete": complete}
        write_atomically(self.path, (json.dumps(record, indent=2) + "\n").encode())


def describe(cost: MethodCost) -> str:
    """One line for a person."""
    if cost.reason and cost.inference is None:
        return f"{cost.method}: - ({cost.reason})"
    told = [f"{cost.live:,} parameters", f"{tell(cost.inference)} ms a picture"]
    told += [f"{tell(cost.step)} ms a training batch"] if cost.step else []
    told += [f"no more ({cost.reason})"] if cost.reason else []
    return f"{cost.method}: {', '.join(told)}"


def tell(timing: Timing | None) -> str:
    """`12.3 ± 0.4`, or a dash."""
    return "-" if timing is None else f"{timing.median:.1f} ± {timing.spread:.1f}"
