"""Draw the picture of docs/index.md: demo pictures above, the same under their score maps below.

python scripts/make_overview.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import faprompt
from faprompt.imaging import encode_jpeg, overlay, read_image, thumbnail

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, SIDE = 8, 150


def main() -> None:
    """Write docs/overview.jpg: the highest-scoring pictures first."""
    detector = faprompt.load_detector("tiny")
    paths = sorted((ROOT / "examples" / "pictures").glob("*.jpg"))
    images = [read_image(path).array for path in paths]
    results = list(detector.stream(images))
    order = sorted(range(len(paths)), key=lambda i: -results[i].score)
    shown = [*order[: COLUMNS - 2], *order[-2:]]
    rows = [
        np.hstack([thumbnail(images[i], max_side=SIDE) for i in shown]),
        np.hstack(
            [thumbnail(overlay(images[i], results[i].score_map), max_side=SIDE) for i in shown]
        ),
    ]
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "overview.jpg").write_bytes(encode_jpeg(np.vstack(rows)))
    print("docs/overview.jpg:", ", ".join(f"{paths[i].stem} {results[i].score:.2f}" for i in shown))


if __name__ == "__main__":
    main()
