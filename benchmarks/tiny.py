"""The bundled model on labelled pictures, beside its rivals.

    python -m benchmarks.tiny --data NAME=FOLDER ... --model NAME=FOLDER ... [--snapshots FOLDER]

Every dataset is measured with each model given, with handcrafted prompts on the tiny
backbone (nothing learned but the backbone), and with two rivals that have learned nothing.
One CSV row a dataset, kind of defect and method, with bootstrap intervals over images.
With snapshots of the pretraining (folders named by their step), each is measured with
handcrafted prompts, into the learning curve's file. scripts/make_tables.py and
scripts/make_tiny_page.py turn both into tables.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.common import machine_record
from benchmarks.rivals import RIVALS, SIDE
from faprompt import build_detector, load_detector
from faprompt.data import by_defect_type, read_dataset, read_mask
from faprompt.data.dataset import Dataset
from faprompt.data.masks import resize_mask
from faprompt.detector import Detector
from faprompt.evaluation import EvaluationConfig, evaluate
from faprompt.imaging.image_reading import read_image
from faprompt.metrics import (
    METRIC_NAMES,
    AnomalyMetrics,
    MetricResult,
    mean_replicates,
    percentile_intervals,
)

Groups = dict[str, MetricResult]

RESULTS = Path(__file__).parent / "results"
REPLICATES = 200
HANDCRAFTED = {
    "clip, one pair": {"prompt_set": "clip", "value_path": "true"},
    "clip, WinCLIP's words": {"prompt_set": "winclip", "value_path": "true"},
    "clip, plain patch tokens": {"prompt_set": "winclip"},
}
CURVE_PROMPTS = "clip, WinCLIP's words"


def measure_rivals(dataset: Dataset) -> dict[str, Groups]:
    """Rival -> kind of defect -> metrics; each picture is read once."""
    groups = by_defect_type(dataset)
    metrics = {r: {g: AnomalyMetrics(replicates=REPLICATES) for g in groups} for r in RIVALS}
    for sample in dataset.samples:
        image, mask = read_image(sample.image_path).array, None
        if sample.has_pixel_label:
            mask = resize_mask(read_mask(sample), (SIDE, SIDE))
        own = [name for name, members in groups.items() if any(sample is m for m in members)]
        for rival, look in RIVALS.items():
            score_map = look(image)
            pair = [None if mask is None else score_map], [mask]
            for name in own:
                metrics[rival][name].update(
                    [float(score_map.max())], [sample.label], *pair, keys=[str(sample.image_path)]
                )
    return {
        rival: with_mean(
            {name: each.compute() for name, each in found.items()},
            {name: each.replicate_values() for name, each in found.items()},
        )
        for rival, found in metrics.items()
    }


def with_mean(
    groups: Mapping[str, MetricResult], replicates: Mapping[str, Mapping[str, np.ndarray]]
) -> Groups:
    """The groups, and their mean under "mean", its interval taken replicate by replicate."""
    names = [name for name in METRIC_NAMES if any(name in result for result in groups.values())]
    having = {name: [g for g, result in groups.items() if name in result] for name in names}
    values = {name: float(np.mean([groups[g][name] for g in having[name]])) for name in names}
    drawn = {name: mean_replicates([replicates[g][name] for g in having[name]]) for name in names}
    first = next(iter(groups.values()))
    anomalous = sum(result.anomalous for result in groups.values())
    mean = MetricResult(values, {}, first.normal, anomalous, percentile_intervals(drawn, values))
    return {**groups, "mean": mean}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--model", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--snapshots", type=Path, help="of the pretraining, for the curve")
    parser.add_argument("--batch-size", type=int, default=32, help="of the pretraining")
    parser.add_argument("--out", type=Path, default=RESULTS / "tiny.csv")
    options = parser.parse_args()
    sets = {name: read_dataset(folder) for name, folder in map(_named, options.data)}
    detectors = {name: load_detector(folder) for name, folder in map(_named, options.model)}
    for name, values in HANDCRAFTED.items():
        detectors[name] = build_detector("clip", options.backbone, options=values)
    rows: list[dict[str, object]] = []
    for label, dataset in sets.items():
        for method, detector in detectors.items():
            rows += _rows(label, method, _measure(detector, dataset))
        for method, groups in measure_rivals(dataset).items():
            rows += _rows(label, method, groups)
    _write(options.out, rows)
    if options.snapshots:
        _write(options.out.with_name("tiny_curve.csv"), _curve(options, sets))
    print(f"wrote {options.out}; {machine_record()}")


def _named(pair: str) -> tuple[str, str]:
    name, sign, folder = pair.partition("=")
    if not sign:
        raise SystemExit(f"expected NAME=FOLDER, got {pair!r}.")
    return name, folder


def _measure(detector: Detector, dataset: Dataset) -> Groups:
    config = EvaluationConfig(by_defect=True, replicates=REPLICATES)
    found = evaluate(detector, dataset, config)
    return with_mean(found.classes, found.replicates)


def _curve(options: argparse.Namespace, sets: Mapping[str, Dataset]) -> list[dict[str, object]]:
    """Each snapshot with handcrafted prompts: what the backbone alone knew by then."""
    rows: list[dict[str, object]] = []
    for folder in sorted(options.snapshots.iterdir()):
        detector = build_detector("clip", folder, options=HANDCRAFTED[CURVE_PROMPTS])
        pictures = int(folder.name) * options.batch_size
        for label, dataset in sets.items():
            found = _rows(label, CURVE_PROMPTS, _measure(detector, dataset))
            rows += [{"pictures": pictures, **row} for row in found]
    return rows


def _rows(dataset: str, method: str, groups: Mapping[str, MetricResult]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for group, result in groups.items():
        values = {key: result.get(key) for key in METRIC_NAMES}
        counts = {"normal": result.normal, "anomalous": result.anomalous}
        ends = {
            f"{key}_{end}": result.intervals.get(key, (None, None))[place]
            for key in METRIC_NAMES
            for place, end in enumerate(("low", "high"))
        }
        rows.append(
            {"dataset": dataset, "group": group, "method": method, **values, **counts} | ends
        )
        print(dataset, group, method, _shown(values), flush=True)
    return rows


def _shown(values: Mapping[str, float | None]) -> str:
    return " ".join(f"{k}={v:.3f}" for k, v in values.items() if v is not None)


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            shown = {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()}
            writer.writerow({k: "" if v is None else v for k, v in shown.items()})
    os.replace(part, path)


if __name__ == "__main__":
    main()
