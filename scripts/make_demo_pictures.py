"""Draw the pictures of `make demo`: examples/pictures, half of them damaged.

    python scripts/make_demo_pictures.py

Things and defects of the `test` family, which the bundled prompts never saw. Small JPEGs,
named by what they show, so that a reader of the report can judge it.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from PIL import Image

from faprompt.synthetic import draw_batch

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "pictures"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--each", type=int, default=8, help="good ones, and damaged ones")
    parser.add_argument("--size", type=int, default=384)
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.jpg"):
        old.unlink()
    for share, state in ((0.0, "good"), (1.0, "")):
        batch = draw_batch(
            options.each, size=options.size, seed=options.seed, kinds="test", anomaly_share=share
        )
        images = (batch.images.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
        for index, image in enumerate(images):
            words = f"{batch.object_kinds[index]} {state or batch.defect_kinds[index]}"
            name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
            Image.fromarray(image).save(FOLDER / f"{name}-{index + 1}.jpg", quality=88)
    print(f"wrote {FOLDER}")


if __name__ == "__main__":
    main()
