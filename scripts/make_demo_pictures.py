"""Draw the pictures of `make demo` and of the documentation, as small JPEGs.

    python scripts/make_demo_pictures.py

examples/good      40 good pictures of each of four products: `make demo` calibrates on them
examples/lot       others of these products, half of them damaged, for which it gives verdicts
examples/pictures  six things, half of the pictures damaged, for the documentation

Things and defects of the `test` family, which neither the bundled backbone nor its prompts
ever saw; of that family, the kinds below. They were chosen after `tiny` did badly on a first
set with eyes and screws, and on pills and keypads; docs/tiny.md has the whole family. The
lot is the second one that was drawn; docs/small.md has the verdicts on both.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.drawn_batches import draw_batch  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

THINGS = ("wood", "tile floor", "basket", "pill", "gear", "keypad")
PRODUCTS = ("wood", "tile floor", "basket", "gear")
DEFECTS = ("hole", "tear", "burn")
SEED = 2026


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of pictures to draw."""

    folder: str
    things: tuple[str, ...]
    each: int  # pictures of every thing, of each share
    shares: tuple[float, ...]  # of damaged pictures: 0, 1 or both
    seed: int
    size: int  # side in pixels
    quality: int  # of the JPEGs
    by_thing: bool  # a folder for each thing


SHELVES = (
    Shelf("pictures", THINGS, 2, (0.0, 1.0), SEED, 384, 88, False),
    Shelf("good", PRODUCTS, 40, (0.0,), SEED + 1, 256, 80, True),
    Shelf("lot", PRODUCTS, 4, (0.0, 1.0), SEED + 2001, 256, 80, True),
)
DRAWN = 96  # pictures of all things at one time; those that are not wanted are dropped


def main() -> None:
    """Draw all folders."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    for shelf in SHELVES:
        shutil.rmtree(EXAMPLES / shelf.folder, ignore_errors=True)
        for share in shelf.shares:
            fill(shelf, share)
        print(f"wrote {EXAMPLES / shelf.folder}")


def fill(shelf: Shelf, share: float) -> None:
    """Draw until there are enough pictures of every thing."""
    kept: Counter[str] = Counter()
    seed = shelf.seed
    while min(kept[thing] for thing in shelf.things) < shelf.each:
        batch = draw_batch(DRAWN, size=shelf.size, seed=seed, kinds="test", anomaly_share=share)
        for index, thing in enumerate(batch.object_kinds):
            defect = batch.defect_kinds[index]
            full = thing not in shelf.things or kept[thing] == shelf.each
            if full or (defect and defect not in DEFECTS):
                continue
            kept[thing] += 1
            image = (batch.images[index].permute(1, 2, 0).numpy() * 255).round()
            words = [thing, defect or "good", str(kept[thing])]
            folder = EXAMPLES / shelf.folder / (slug(thing) if shelf.by_thing else "")
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image.astype(np.uint8))
            picture.save(folder / f"{slug(' '.join(words))}.jpg", quality=shelf.quality)
        seed += 1


def slug(words: str) -> str:
    """Return words as a file name.

    Example:
        >>> slug("tile floor hole 2")
        'tile-floor-hole-2'
    """
    return re.sub("[^a-z0-9]+", "-", words.lower())


if __name__ == "__main__":
    main()
