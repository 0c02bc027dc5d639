"""Opening time of the report of `predict` in Chromium.

    python -m benchmarks.report                     2,600 pictures, the median of 5
    python -m benchmarks.report --all               without the limit on embedded pictures

Needs `pip install playwright` and Debian's `chromium`. Pictures are drawn: a smooth texture with
noise, so that a thumbnail takes about as many bytes as that of a photograph. Each opening is in a
fresh browser context, from the call to the first screen with its pictures decoded. "Slider" is
the time from one step of the slider to the next frame on the screen.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.common import append_csv, machine_record
from faprompt.calibration import Calibration, GoodScores
from faprompt.imaging.picture_windows import ArrayWindows
from faprompt.prediction import ResultRow, html_report, write_report
from faprompt.prediction.result_pictures import Artifacts
from faprompt.regions import find_regions
from faprompt.results import AnomalyResult
from faprompt.storage import LocalFolder

RESULTS = Path(__file__).parent / "results" / "report.csv"
HEIGHT, WIDTH = 480, 640
_DRAWN = 40  # different pictures; the others repeat them
_FIRST_SCREEN = """async () => {
  const seen = [...document.querySelectorAll(".card img[src]")].filter((image) =>
    image.getBoundingClientRect().top < innerHeight);
  await Promise.all(seen.map((image) => image.decode()));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return seen.length;
}"""
_STEP = """async (step) => {
  const start = performance.now(), slider = document.getElementById("slider");
  slider.value = step;
  slider.dispatchEvent(new Event("input"));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - start;
}"""


def make_report(folder: Path, pictures: int) -> Path:
    """Write a report with its thumbnails into a folder, and return its path."""
    rng = np.random.default_rng(0)
    good = np.sort(rng.beta(4, 8, 300))
    known = Calibration(products={"": GoodScores(good, good)}, decided_by={})
    limits = known.limits()
    drawn = [_draw(rng) for _ in range(_DRAWN)]
    artifacts, rows = Artifacts(LocalFolder(folder), overlays=False), []
    for i, score in enumerate(
        np.clip(rng.beta(4, 8, pictures) + 0.5 * (rng.random(pictures) < 0.05), 0, 1)
    ):
        image, bump = drawn[i % _DRAWN]
        score_map = (bump * score).astype(np.float32)
        regions = find_regions(score_map, limits.map_threshold)
        verdict = limits.verdict(float(score))
        name = f"lot/part_{i:05}.jpg"
        result = AnomalyResult(
            float(score), score_map, (HEIGHT, WIDTH), "drawn", verdict=verdict,
            threshold=limits.threshold, regions=regions,
        )  # fmt: skip
        artifacts.write(name, ArrayWindows(image), result)
        rows.append(
            ResultRow(
                name,
                "drawn",
                score=float(score),
                p_value=known.p_value(float(score)),
                verdict=verdict,
                threshold=limits.threshold,
                width=WIDTH,
                height=HEIGHT,
                regions=regions,
            )  # fmt: skip
        )
    path = folder / "report.html"
    write_report(path, rows, model="drawn", threshold=None, calibration=known)
    return path


def measure(path: Path, repeats: int) -> dict[str, float]:
    """Return the medians of opening and of a step of the slider, in seconds, and the counts."""
    from playwright.sync_api import sync_playwright

    opened, steps, shown = [], [], 0
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for _ in range(repeats + 1):
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            begin = time.perf_counter()
            page.goto(path.as_uri())
            page.wait_for_selector("body[data-ready]")
            page.evaluate(_FIRST_SCREEN)
            opened.append(time.perf_counter() - begin)
            steps += [page.evaluate(_STEP, step) / 1000 for step in range(10, 15)]
            shown = page.locator(".card").count()
            page.close()
        browser.close()
    return {
        "open_s": statistics.median(opened[1:]),  # the first one warms the browser
        "slowest_open_s": max(opened[1:]),
        "slider_s": statistics.median(steps),
        "cards": shown,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2600)
    parser.add_argument("--repeats", type=int, default=5, help="the median is reported")
    parser.add_argument("--all", action="store_true", help="a picture for every row, at any size")
    arguments = parser.parse_args()
    if arguments.all:
        html_report.SMALL_BYTES = html_report.LARGE_BYTES = 10**9
    with tempfile.TemporaryDirectory() as folder:
        path = make_report(Path(folder), arguments.pictures)
        megabytes = path.stat().st_size / 1e6
        found = measure(path, arguments.repeats)
    row = {"pictures": arguments.pictures, "megabytes": f"{megabytes:.1f}"}
    row |= {name: f"{value:.4g}" for name, value in found.items()}
    append_csv(RESULTS, machine_record() | row)
    print("\n".join(f"{name:15} {value}" for name, value in row.items()))


def _draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (H, W, 3) uint8 and a bump (H, W) with maximum 1."""
    rough = ndimage.gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), 12) * 900
    fine = ndimage.gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), 1.5) * 70
    grey = np.clip(128 + rough + fine, 0, 255)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    bump = np.exp(-((y - rng.uniform(100, 380)) ** 2 + (x - rng.uniform(100, 540)) ** 2) / 2000)
    tints = rng.uniform(0.85, 1.0, 3)
    return (grey[..., None] * tints).astype(np.uint8), bump


if __name__ == "__main__":
    main()
