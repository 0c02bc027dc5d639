"""Draw the pictures of docs/methods.md: what each method makes of the same demo pictures.

    faprompt benchmark configs/methods-on-tiny.toml --data-root DIR --out results/methods
    python scripts/make_method_pictures.py results/methods --data-root DIR

One strip a method on the backbone `tiny`, with the prompts that the benchmark has trained, and
`docs/methods/pictures.jpg`, the pictures as they are. The scale is the one of all our overlays.
Relations run on their own trunk, without their head.
RD4AD and BLIP have pictures of their own, by `make_rd4ad_picture.py` and `make_blip_picture.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

from faprompt.clip.efficient_net import EFFICIENT_NET
from faprompt.data import read_dataset
from faprompt.detector import Detector
from faprompt.files import write_atomically
from faprompt.imaging import encode_jpeg, overlay, read_image, thumbnail
from faprompt.models import build_detector, load_detector
from faprompt.reproduce.cell_runner import CellRunner, RunContext
from faprompt.reproduce.cells import build_plan, slug
from faprompt.reproduce.experiment import read_experiment
from faprompt.training.training_session import TrainOptions, train

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.lettering import INK, PAPER, font  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "methods-on-tiny.toml"
SHOWN = ("gear-tear-2", "tile-floor-tear-1", "wood-hole-2", "pill-burn-1", "basket-hole-1",
         "wood-good-1", "pill-good-1")  # fmt: skip
THINGS = [name.rsplit("-", 2)[0].replace("-", "_") for name in SHOWN]  # as the drawn sets say it
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


def detectors(results: Path, data_root: Path) -> Iterator[tuple[str, Detector]]:
    """Name and detector: those of the benchmark, then what it has no column of."""
    plan = build_plan(read_experiment(CONFIG), data_root=data_root)
    runner = CellRunner(plan, RunContext(out=results))
    for column in plan.columns:
        yield (
            column.title,
            runner.detector(next(cell for cell in plan.cells if cell.column is column)),
        )
    yield "relations-untrained", untrained_relations()
    yield "patchcore", patchcore(data_root / "drawn" / "test")


def untrained_relations(trunk: str | Path = EFFICIENT_NET) -> Detector:
    """Relations without their head, on their own trunk."""
    return build_detector("relations", trunk, preset="untrained", device="cpu")


def patchcore(folder: Path) -> Detector:
    """PatchCore on `tiny`, of the normal pictures of the things shown in the drawn test set."""
    dataset = read_dataset(folder)
    shown = tuple(sample for sample in dataset.samples if sample.class_name in THINGS)
    with TemporaryDirectory() as out:
        options = TrainOptions(method="patchcore", preset="common", name="patchcore", device="cpu")
        train(replace(dataset, samples=shown), out, options)
        return load_detector(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="OUT of the benchmark, with its models")
    parser.add_argument("--data-root", type=Path, required=True, help="as of the benchmark")
    options = parser.parse_args()
    images = [read_image(ROOT / "examples" / "pictures" / f"{name}.jpg").array for name in SHOWN]
    folder = ROOT / "docs" / "methods"
    folder.mkdir(parents=True, exist_ok=True)
    words = [name.rpartition("-")[0].replace("-", " ") for name in SHOWN]
    write_atomically(folder / "pictures.jpg", encode_jpeg(strip(images, words)))
    for name, detector in detectors(options.results, options.data_root):
        scored = detector.predict_batch(images, class_names=THINGS)
        maps = [overlay(i, r.score_map) for i, r in zip(images, scored, strict=True)]
        drawn = strip(maps, [f"{result.score:.2f}" for result in scored])
        write_atomically(folder / f"{slug(name)}.jpg", encode_jpeg(drawn))
        print(name, *(f"{result.score:.2f}" for result in scored))


if __name__ == "__main__":
    main()
