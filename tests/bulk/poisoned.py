"""A cheap detector that some pictures make fail, and pictures of these kinds."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from faprompt.bulk import BulkScorer
from tests.prediction.fakes import RedScorer, part

# height of a picture -> what it does to the process that scores it
ENDS, RAISES, OUT_OF_MEMORY = 31, 33, 35


class PoisonedScorer(RedScorer):
    """`RedScorer` that fails at pictures of some heights, and takes `seconds` for each picture."""

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        super().__init__(name)
        self.seconds = seconds

    def predict_batch(self, images, **keywords):
        heights = {windows.image_size[0] for windows in images}
        if ENDS in heights:
            os._exit(3)
        if RAISES in heights:
            raise IndexError("list index out of range")
        if OUT_OF_MEMORY in heights:
            raise MemoryError
        time.sleep(self.seconds * len(images))
        return super().predict_batch(images, **keywords)


@dataclass(frozen=True, eq=False)
class PoisonedBulkScorer(BulkScorer):
    """Scores with a `PoisonedScorer`, whose name is the model and the class name its seconds."""

    def load(self):
        if self.model == "missing":
            return super().load()
        return PoisonedScorer(str(self.model), float(self.class_name or 0))


def lot(folder: Path, count: int, heights: dict[int, int] | None = None) -> list[str]:
    """Paths of `count` tiny pictures; `heights` are those of some numbers, the others have 12."""
    heights = heights or {}
    return [
        str(part(folder / f"{i:05d}.png", i % 251, size=(heights.get(i, 12), 20)))
        for i in range(count)
    ]
