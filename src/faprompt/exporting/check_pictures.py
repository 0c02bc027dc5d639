"""Pictures on which an exported detector is compared with the original."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from faprompt.errors import ConfigError
from faprompt.synthetic.drawn_set import Plan, draw_plans
from faprompt.synthetic.kinds import OBJECT_KINDS

MOST_PICTURES = 64  # of a folder, evenly spread
_SIDE = 256  # pixels
_SEED = 16
# (thing, defect or "", share of the height that is kept, share of the width)
_DRAWN = (
    ("wood", "crack", 1.0, 1.0),
    ("gear", "", 1.0, 0.75),
    ("tile floor", "stain", 0.625, 1.0),
    ("head scan", "bright lesion", 1.0, 1.0),
    ("circuit board", "", 1.0, 1.0),
    ("leather", "scratch", 1.0, 0.5),
    ("pill", "hole", 1.0, 1.0),
    ("brushed metal", "", 0.4, 1.0),
)


def spread(paths: Sequence[str | os.PathLike[str]]) -> list[str | Path]:
    """Return at most 64 of the paths, evenly spread, in order.

    Raises:
        ConfigError: there is none.
    """
    if not paths:
        raise ConfigError(
            "There is no picture to compare with torch; name a folder with pictures, or leave "
            "--check out for drawn ones."
        )
    count = min(len(paths), MOST_PICTURES)
    return [Path(paths[at * len(paths) // count]) for at in range(count)]


def draw_pictures() -> list[np.ndarray]:
    """Draw 9 pictures, (H, W, 3) uint8 of several shapes, six with a defect; always the same.

    The last one is black but for a bright bar: norms enlarge rounding errors of such pictures.
    """
    things = {kind.name: kind for kind in OBJECT_KINDS}
    plans = [
        Plan(things[thing], number, defect, grey=thing == "head scan")
        for number, (thing, defect, _, _) in enumerate(_DRAWN)
    ]
    drawn = draw_plans(plans, size=_SIDE, host=random.Random(_SEED)).images
    arrays = np.rint(drawn.permute(0, 2, 3, 1).numpy() * 255).clip(0, 255).astype(np.uint8)
    dark = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    dark[150:158, 60:200] = 255
    shaped = (
        array[: round(high * _SIDE), : round(wide * _SIDE)]
        for array, (_, _, high, wide) in zip(arrays, _DRAWN, strict=True)
    )
    return [*map(np.ascontiguousarray, shaped), dark]
