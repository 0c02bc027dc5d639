"""Export every method in every format and precision, and compare it with torch.

    python scripts/measure_export.py [--only METHOD] [--repeat 5] [--table]

Each method runs on `tiny` with the weights its seed draws, FAPrompt with those of the bundled
model; RD4AD, which needs its own network, on a narrow drawn one. Each is exported at a tolerance
of 1, so that differences above the default are measured too, and compared on four of the drawn
pictures of `faprompt export`. Then torch and the runtime score batches of 1 and 8 in turn, in one
process, with one thread and with two; the ratio is that of the medians. Writes docs/export.csv,
one row for each method, format and precision, and the table in docs/export.md; `--table` writes
the table alone.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from faprompt.clip.weights import load_backbone
from faprompt.detector import Detector
from faprompt.errors import FapromptError
from faprompt.exported_detector import ExportedDetector
from faprompt.exporting import ExportOptions, export, export_run, graph_files
from faprompt.exporting.check_pictures import draw_pictures
from faprompt.files import csv_table, write_atomically
from faprompt.methods.registry import build_method, fit_to_backbone, list_methods
from faprompt.models import list_models, load_detector
from faprompt.picture_detector import PictureDetector

ROOT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT))
from scripts.make_tables import fill  # noqa: E402

PAGE, CSV = ROOT / "docs" / "export.md", ROOT / "docs" / "export.csv"
COMBINATIONS = (  # fp16 of ONNX last: it changes the weights of the shared graph
    ("onnx", "fp32"), ("onnx", "int8"), ("openvino", "fp32"), ("openvino", "fp16"),
    ("onnx", "fp16"),
)  # fmt: skip
PICTURES = 4
BATCHES, THREADS = (1, 8), (1, 2)
RATIOS = tuple(f"ratio_batch{b}_threads{t}" for b in BATCHES for t in THREADS)
COLUMNS = (
    "method", "format", "precision", "size_mb", "score", "map", "tokens", "verdicts", "regions",
    "default_tolerance", *RATIOS, "refused", "machine",
)  # fmt: skip
TEXT = {
    "text_method": "faprompt", "text_backbone": "tiny",
    "text_options": ("image_size=256", "sigma_px=4.94"),
}  # fmt: skip


def build(name: str) -> Detector:
    """A detector of a method, on `tiny` where it runs there."""
    if name in {model["name"] for model in list_models()}:
        return load_detector(name, device="cpu", precision="fp32")
    if name == "rd4ad":
        backbone = load_backbone("test-wide-resnet")
        options: dict[str, Any] = {"image_size": 128, "classes": ("part",)}
    elif name == "relations":
        backbone, options = load_backbone("efficientnet-lite0"), dict(TEXT)
    else:
        backbone = load_backbone("tiny")
        preset = "common" if name == "patchcore" else "paper"
        options = fit_to_backbone(name, backbone, {}, preset=preset)
        options |= {"centre_crop": 0} if name == "patchcore" else {}
    method = build_method(name, backbone, options).eval().requires_grad_(False)
    detector = Detector(backbone, method, name=name)
    if name == "patchcore":
        others = draw_pictures()[PICTURES:]  # distances to itself are 0 but for rounding
        pixels = torch.stack([detector.to_pixels(each) for each in others])
        with torch.no_grad():
            method.remember("part", [method.encode_image(backbone, pixels)], seed=1)
        detector = Detector(backbone, method, name=name)
    return detector


def measure(name: str, repeat: int) -> list[dict[str, Any]]:
    """The rows of one method."""
    rows = []
    programs: dict[str, Any] = {}
    convert = graph_files.to_onnx

    def convert_once(graph: Any) -> Any:
        if name not in programs:
            programs[name] = convert(graph)
        return programs[name]

    graph_files.to_onnx = convert_once
    try:
        detector = build(name)
        for file_format, precision in COMBINATIONS:
            row: dict[str, Any] = {"method": name, "format": file_format, "precision": precision}
            try:
                row |= measure_one(detector, file_format, precision, repeat)
            except FapromptError as error:
                row["refused"] = str(error)
            rows.append(row)
            print(row, flush=True)
    finally:
        graph_files.to_onnx = convert
    return rows


def measure_one(detector: Detector, file_format: Any, precision: Any, repeat: int) -> dict:
    """Size, differences and ratios of one export."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "exported"
        pictures = []
        for number, picture in enumerate(draw_pictures()[:PICTURES]):
            pictures.append(Path(place) / f"{number}.png")
            Image.fromarray(picture).save(pictures[-1])
        options = ExportOptions(
            format=file_format, precision=precision, tolerance=1.0, check=tuple(pictures)
        )
        report = export(detector, folder, options)
        found = report.difference
        ratios = {}
        for threads in THREADS:
            torch.set_num_threads(threads)
            os.environ["OMP_NUM_THREADS"] = str(threads)
            exported = ExportedDetector(folder)
            for batch in BATCHES:
                ratio = time_ratio(detector, exported, batch, repeat)
                ratios[f"ratio_batch{batch}_threads{threads}"] = f"{ratio:.2f}"
    return {
        "size_mb": f"{sum(report.files.values()) / 1e6:.1f}",
        "score": f"{found.score:.1e}", "map": f"{found.map:.1e}", "tokens": f"{found.tokens:.1e}",
        "verdicts": found.verdicts, "regions": found.regions,
        "default_tolerance": export_run.TOLERANCES[precision], **ratios,
        "machine": found.machine,
    }  # fmt: skip


def time_ratio(one: PictureDetector, other: PictureDetector, batch: int, repeat: int) -> float:
    """Torch's median time over the runtime's, both run in turn on the same pixels."""
    height, width = one.geometry.transform.image_size
    draw = np.random.default_rng(0)
    pixels = draw.standard_normal((batch, 3, height, width), np.float32)

    def run(detector: PictureDetector) -> Callable[[], object]:
        return lambda: detector.run_model(pixels, masks=[None] * batch, products=[""] * batch)

    sides = (run(one), run(other))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(repeat + 1):
        for side, taken in zip(sides, times, strict=True):
            began = time.perf_counter()
            side()
            if number:  # the first warms up
                taken.append(time.perf_counter() - began)
    return median(times[0]) / median(times[1])


def table(rows: list[dict[str, str]]) -> str:
    """The table of docs/export.md."""
    lines = [
        "| method | format | precision | MB | score | map | batch 1, one thread | two "
        "| batch 8, one thread | two |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['method']} | {row['format']} | {row['precision']} |"
        if row["refused"]:
            lines.append(f"{start} refused: {shortened(row['refused'])} | | | | | | |")
            continue
        above = max(float(row[name]) for name in ("score", "map", "tokens"))
        mark = " ✗" if above > float(row["default_tolerance"]) else ""
        ratios = " | ".join(f"{row[name]}×" for name in RATIOS)
        lines.append(f"{start} {row['size_mb']} | {row['score']} | {row['map']}{mark} | {ratios} |")
    return "\n".join(lines)


def shortened(reason: str) -> str:
    """The first clause of an error."""
    return reason.partition(":")[0].partition(". ")[0]


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", help="this method only; repeatable")
    parser.add_argument("--repeat", type=int, default=5, help="timed repetitions")
    parser.add_argument("--table", action="store_true", help="write the table alone")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    kept: list[dict[str, Any]] = []
    if CSV.is_file():
        kept = list(csv.DictReader(CSV.open(encoding="utf-8")))
    names = [*list_methods(), *(["small"] if "small" in _bundled() else [])]
    wanted = () if options.table else options.only or names
    for name in wanted:
        fresh = measure("tiny" if name == "faprompt" else name, options.repeat)
        for row in fresh:
            row["method"] = name
        kept = [row for row in kept if row["method"] != name] + fresh
        kept.sort(key=lambda row: names.index(row["method"]))
        rows = [[row.get(column, "") for column in COLUMNS] for row in kept]
        write_atomically(CSV, csv_table([COLUMNS, *rows]).encode())
    written = list(csv.DictReader(CSV.open(encoding="utf-8")))
    page = PAGE.read_text(encoding="utf-8")
    write_atomically(PAGE, fill(page, "exports", table(written)).encode())
    return 0


def _bundled() -> set[str]:
    return {model["name"] for model in list_models()}


if __name__ == "__main__":
    sys.exit(main())
