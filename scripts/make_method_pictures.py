"""Draw the pictures of docs/methods.md: what each method makes of the same demo pictures.

    faprompt benchmark configs/methods-on-tiny.toml --data-root DIR --out results/methods
    python scripts/make_method_pictures.py results/methods --data-root DIR

One strip a method on the backbone `tiny`, with the prompts that the benchmark has trained, and
`docs/methods/pictures.jpg`, the pictures as they are. The scale is the one of all our overlays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from faprompt.benchmark import build_plan, read_benchmark
from faprompt.benchmark.detectors import detector_source
from faprompt.benchmark.plan import slug
from faprompt.evaluation.drawing import INK, PAPER, font
from faprompt.imaging import encode_jpeg, overlay, read_image, thumbnail
from faprompt.prediction.rows import write_atomically

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "methods-on-tiny.toml"
SHOWN = ("gear-tear-2", "tile-floor-tear-1", "wood-hole-2", "pill-burn-1", "basket-hole-1",
         "wood-good-1", "pill-good-1")  # fmt: skip
SIDE, GAP, LINE = 116, 4, 18  # pixels of a picture, between two, and of the line below


def strip(pictures: list[np.ndarray], words: list[str]) -> np.ndarray:
    """Pictures side by side with a few words below each, (h, w, 3) uint8."""
    width = len(pictures) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, SIDE + LINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (picture, text) in enumerate(zip(pictures, words, strict=True)):
        left = number * (SIDE + GAP)
        sheet.paste(Image.fromarray(thumbnail(picture, max_side=SIDE)), (left, 0))
        draw.text((left + SIDE // 2, SIDE + LINE // 2), text, INK, font(11), anchor="mm")
    return np.asarray(sheet)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="OUT of the benchmark, with its models")
    parser.add_argument("--data-root", type=Path, required=True, help="as of the benchmark")
    options = parser.parse_args()
    plan = build_plan(read_benchmark(CONFIG), data_root=options.data_root)
    pick = detector_source(plan, options.results, notify=print)
    images = [read_image(ROOT / "examples" / "pictures" / f"{name}.jpg").array for name in SHOWN]
    folder = ROOT / "docs" / "methods"
    folder.mkdir(parents=True, exist_ok=True)
    words = [name.rpartition("-")[0].replace("-", " ") for name in SHOWN]
    write_atomically(folder / "pictures.jpg", encode_jpeg(strip(images, words)))
    for column in plan.columns:
        cell = next(cell for cell in plan.cells if cell.column is column)
        results = pick(cell).predict_batch(images)
        maps = [overlay(i, r.score_map) for i, r in zip(images, results, strict=True)]
        drawn = strip(maps, [f"{result.score:.2f}" for result in results])
        write_atomically(folder / f"{slug(column.title)}.jpg", encode_jpeg(drawn))
        print(column.title, *(f"{result.score:.2f}" for result in results))


if __name__ == "__main__":
    main()
