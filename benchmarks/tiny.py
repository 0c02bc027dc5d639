"""The bundled model on labelled pictures, beside its rivals on the same backbone.

    python -m benchmarks.tiny --data NAME=FOLDER ... --model NAME=FOLDER ...

Every dataset is measured with each model given, with handcrafted prompts on the tiny
backbone (nothing learned but the backbone), and with a local-contrast filter that knows
nothing at all. One CSV row a dataset, kind of defect and method; scripts/make_tables.py
turns it into the README's table.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.common import machine_record
from faprompt import build_detector, load_detector
from faprompt.data import by_defect_type, read_dataset, read_mask
from faprompt.data.base import Dataset
from faprompt.data.masks import resize_mask
from faprompt.evaluation import EvaluationConfig, evaluate
from faprompt.imaging.read import read_image
from faprompt.metrics import METRIC_NAMES, AnomalyMetrics, MetricResult

HANDCRAFTED = {
    "clip, one pair": {"prompt_set": "clip", "value_path": "true"},
    "clip, WinCLIP's words": {"prompt_set": "winclip", "value_path": "true"},
    "clip, plain patch tokens": {"prompt_set": "winclip"},
}
SIDE = 256


def local_contrast(dataset: Dataset) -> dict[str, MetricResult]:
    """|fine blur - coarse blur| of grey, smoothed; the score is its maximum."""
    groups = by_defect_type(dataset)
    metrics = {name: AnomalyMetrics() for name in groups}
    for name, samples in groups.items():
        for sample in samples:
            image = read_image(sample.image_path).array
            grey = np.asarray(_square(image), dtype=np.float32).mean(axis=2) / 255
            contrast = np.abs(gaussian_filter(grey, 1.5) - gaussian_filter(grey, 12))
            score_map = gaussian_filter(contrast, 4)
            mask = None
            if sample.has_pixel_label:
                mask = resize_mask(read_mask(sample), (SIDE, SIDE))
            metrics[name].update(
                [float(score_map.max())], [sample.label], [None if mask is None else score_map],
                [mask],
            )  # fmt: skip
    return {name: each.compute() for name, each in metrics.items()}


def _square(image: np.ndarray) -> object:
    from PIL import Image

    return Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--model", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "tiny.csv")
    options = parser.parse_args()
    config = EvaluationConfig(by_defect=True)
    detectors = {}
    for pair in options.model:
        name, _, folder = pair.partition("=")
        detectors[name] = load_detector(folder)
    for name, values in HANDCRAFTED.items():
        detectors[name] = build_detector("clip", options.backbone, options=values)
    rows: list[dict[str, object]] = []
    for pair in options.data:
        label, _, folder = pair.partition("=")
        dataset = read_dataset(folder)
        for method, detector in detectors.items():
            rows += _rows(label, method, evaluate(detector, dataset, config).classes)
        rows += _rows(label, "local contrast, nothing learned", local_contrast(dataset))
    _write(options.out, rows)
    print(f"wrote {options.out}; {machine_record()}")


def _rows(dataset: str, method: str, groups: Mapping[str, MetricResult]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for group, result in groups.items():
        values = {key: result.get(key) for key in METRIC_NAMES}
        counts = {"normal": result.normal, "anomalous": result.anomalous}
        rows.append({"dataset": dataset, "group": group, "method": method, **values, **counts})
        print(dataset, group, method, _shown(values), flush=True)
    return rows


def _shown(values: dict[str, float | None]) -> str:
    return " ".join(f"{k}={v:.3f}" for k, v in values.items() if v is not None)


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            shown = {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow({k: "" if v is None else v for k, v in shown.items()})


if __name__ == "__main__":
    main()
