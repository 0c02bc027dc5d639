"""Measure whether tiles find a 6 px defect in a large picture that is lost without them.

    python scripts/measure_tiles.py [--width 6000] [--height 4000] [--calibrate 19] [--table]

Draws pictures of a grainy surface from a seed and calibrates `tiny` on them at 5 %, with and
without tiles; then predicts other good ones, and the same ones with one dark spot. Writes
docs/calibration-tiles.csv and its table in docs/calibration.md; `--table` writes the table alone.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from faprompt import Detector, load_detector
from faprompt.files import csv_table, write_atomically
from faprompt.imaging.tiles import TileSetting, plan_tiles
from faprompt.inspection import CalibrateOptions, calibrate

ROOT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT))
from scripts.make_tables import fill  # noqa: E402

PAGE, CSV = ROOT / "docs" / "calibration.md", ROOT / "docs" / "calibration-tiles.csv"
SEED, SPOT_PX, DARKER, RATE = 14, 6, 80, 0.05
GRAIN_PX, GRAIN, CLOUD_PX, CLOUD = 1.0, 1.5, 300.0, 6.0  # pixels, and levels of 255


def draw_surface(size: tuple[int, int], seed: int) -> np.ndarray:
    """A grey surface (height, width) uint8 with fine grain and slow changes of brightness."""
    rng = np.random.default_rng([SEED, seed])
    grain = gaussian_filter(rng.standard_normal(size, np.float32), GRAIN_PX)
    coarse = [length // 32 + 2 for length in size]
    clouds = gaussian_filter(rng.standard_normal(coarse, np.float32), CLOUD_PX / 32)
    wide = Image.fromarray(clouds / clouds.std()).resize(size[::-1], Image.Resampling.BICUBIC)
    values = 150 + GRAIN * grain / grain.std() + CLOUD * np.asarray(wide)
    return np.clip(values, 0, 255).astype(np.uint8)


def add_spot(surface: np.ndarray, seed: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The surface with a round dark spot, and the spot's middle (row, column)."""
    rng, margin = np.random.default_rng([SEED, seed, 1]), 20
    row, column = (int(rng.integers(margin, length - margin)) for length in surface.shape)
    rows, columns = np.ogrid[: surface.shape[0], : surface.shape[1]]
    inside = (rows - row + 0.5) ** 2 + (columns - column + 0.5) ** 2 <= (SPOT_PX / 2) ** 2
    spotted = surface.astype(np.int16)
    spotted[inside] -= DARKER
    return np.clip(spotted, 0, 255).astype(np.uint8), (row, column)


def write_pictures(folder: Path, size: tuple[int, int], seeds: Sequence[int]) -> list[Path]:
    """Draw surfaces as PNG files."""
    paths = [folder / f"{seed}.png" for seed in seeds]
    for path, seed in zip(paths, seeds, strict=True):
        Image.fromarray(draw_surface(size, seed)).save(path, compress_level=1)
    return paths


def measure(
    detector: Detector, folder: Path, size: tuple[int, int], tiles: TileSetting,
    good: Sequence[Path], others: Sequence[Path], spotted: Sequence[tuple[Path, tuple[int, int]]],
) -> dict[str, str]:  # fmt: skip
    """Calibrate on good pictures, predict the others; one row of the CSV."""
    options = CalibrateOptions(target_fpr=RATE, review_fpr=RATE, tiles=tiles, batch_size=1)
    found = calibrate(detector, good, folder / f"model-{tiles}", options)
    start = time.perf_counter()
    clean = [found.detector.predict(path) for path in others]
    marked = [found.detector.predict(path) for path, _ in spotted]
    seconds = (time.perf_counter() - start) / (len(clean) + len(marked))
    shown = [
        any(r.bbox[0] <= column < r.bbox[2] and r.bbox[1] <= row < r.bbox[3] for r in one.regions)
        for one, (_, (row, column)) in zip(marked, spotted, strict=True)
    ]
    plan = plan_tiles(size, tiles, model_size=detector.transform.image_size)
    gain = [m.score - c.score for m, c in zip(marked, clean, strict=True)]
    return {
        "width": str(size[1]), "height": str(size[0]), "tiles": str(tiles),
        "parts": str(len(plan.boxes) + plan.whole), "calibrated_on": str(len(good)),
        "threshold": f"{found.calibration.limits().threshold:.4f}",
        "good": str(len(clean)), "good_ng": str(sum(r.verdict == "NG" for r in clean)),
        "spotted": str(len(marked)), "spotted_ng": str(sum(r.verdict == "NG" for r in marked)),
        "spot_in_a_region": str(sum(shown)), "least_gain": f"{min(gain):.4f}",
        "most_gain": f"{max(gain):.4f}", "seconds": f"{seconds:.1f}",
    }  # fmt: skip


def tiles_table(rows: Sequence[dict[str, str]]) -> str:
    """A row with and one without tiles."""
    lines = [
        "| picture | tiles | parts scored | threshold | other good ones NG | with a spot NG | spot "
        "in a region | the spot changes the score by | seconds for each picture |",
        "|---|---|" + "---:|" * 7,
    ]
    for row in rows:
        cells = [f"{row['width']}×{row['height']}", row["tiles"], row["parts"], row["threshold"]]
        cells += [f"{row['good_ng']} of {row['good']}", f"{row['spotted_ng']} of {row['spotted']}"]
        cells += [f"{row['spot_in_a_region']} of {row['spotted']}"]
        cells += [f"{row['least_gain']} to {row['most_gain']}", row["seconds"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page_text() -> str:
    """docs/calibration.md with the table that the CSV gives now."""
    with CSV.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return fill(PAGE.read_text(encoding="utf-8"), "tiles", tiles_table(rows))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("width", 6000), ("height", 4000), ("calibrate", 19), ("predict", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--table", action="store_true", help="write the table alone")
    asked = parser.parse_args()
    if not asked.table:
        detector, size = load_detector(), (asked.height, asked.width)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths = write_pictures(folder, size, range(asked.calibrate + asked.predict))
            good, others = paths[: asked.calibrate], paths[asked.calibrate :]
            spotted = []
            for path in others:
                image, place = add_spot(np.asarray(Image.open(path)), int(path.stem))
                spotted.append((folder / f"spot-{path.name}", place))
                Image.fromarray(image).save(spotted[-1][0], compress_level=1)
            ways: tuple[TileSetting, ...] = ("off", "auto")
            rows = [measure(detector, folder, size, way, good, others, spotted) for way in ways]
        table = csv_table([list(rows[0]), *(list(row.values()) for row in rows)])
        write_atomically(CSV, table.encode())
    write_atomically(PAGE, page_text().encode())


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
