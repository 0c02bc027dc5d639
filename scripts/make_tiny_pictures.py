"""Draw the pictures of docs/tiny.md: the learning curve, and hits and failures of `tiny`.

    python scripts/make_tiny_pictures.py --data runs/test

Only drawn pictures are shown; the curve comes from benchmarks/results/tiny_curve.csv.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import faprompt
from faprompt.data import read_dataset
from faprompt.data.masks import read_mask
from faprompt.detector import Detector
from faprompt.evaluation import EvaluationConfig, evaluate
from faprompt.evaluation.contact_sheet import Entry, draw_sheet, picture_panels
from faprompt.evaluation.evaluation_run import Evaluation
from faprompt.evaluation.gallery import COLUMNS, TITLES, worst_mistakes
from faprompt.imaging import encode_jpeg, read_image
from faprompt.records import Sample

ROOT = Path(__file__).resolve().parents[1]
CURVE = ROOT / "benchmarks" / "results" / "tiny_curve.csv"
SHOWN = 6  # pictures of each sort
METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito, safe for the colour-blind
MARKS = ("o", "s", "^", "D")


def draw_curve(path: Path) -> None:
    """A panel a metric, a line a dataset, the interval as a band."""
    from matplotlib.figure import Figure

    with CURVE.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == "mean"]
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 3), METRICS.items(), strict=True):
        for number, name in enumerate(dict.fromkeys(row["dataset"] for row in rows)):
            own = [row for row in rows if row["dataset"] == name and row[metric]]
            x = [int(row["pictures"]) / 1000 for row in own]
            low, value, high = (
                [100 * float(row[metric + end]) for row in own] for end in ("_low", "", "_high")
            )
            if own:
                axes.plot(x, value, color=COLOURS[number], marker=MARKS[number], label=name)
                axes.fill_between(x, low, high, color=COLOURS[number], alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel="thousands of drawn pictures", ylabel="percent")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def hits(evaluation: Evaluation) -> list[Sample]:
    """Damaged pictures of highest score whose map is mostly right, one a kind of thing."""
    ranked = sorted(evaluation.images, key=lambda image: -(image.score or 0))
    found: dict[str, Sample] = {}
    for image in ranked:
        if image.sample.label and (image.overlap or 0) > 0.5:
            found.setdefault(image.sample.class_name, image.sample)
    return list(found.values())[:SHOWN]


def entries(detector: Detector, samples: Sequence[Sample]) -> list[Entry]:
    """What a sheet shows of each."""
    made = []
    for rank, sample in enumerate(samples, 1):
        image = read_image(sample.image_path).array
        result = detector.predict(image)
        panels = picture_panels(image, result.score_map, read_mask(sample))
        name = f"{sample.class_name}: {sample.defect_type or 'normal'}".replace("_", " ")
        made.append(Entry(panels, (f"{rank}  {name}", f"score {result.score:.3f}")))
    return made


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the drawn test set")
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    folder = ROOT / "docs" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    if CURVE.exists():
        draw_curve(folder / "curve.svg")
    detector = faprompt.load_detector(options.model)
    config = EvaluationConfig(replicates=0, gallery=SHOWN, by_defect=True)
    evaluation = evaluate(detector, read_dataset(options.data), config)
    sheets = {"hits": ("Hits", "Highest scores among damaged pictures whose map is mostly right.")}
    chosen = {"hits": hits(evaluation)}
    for kind, words in TITLES.items():
        sheets[kind] = words
        mistakes = worst_mistakes(evaluation, SHOWN)
        chosen[kind] = [mistake.image.sample for mistake in mistakes if mistake.kind == kind]
    for name, samples in chosen.items():
        if samples:
            shown = entries(detector, samples)
            sheet = draw_sheet(*sheets[name], COLUMNS, shown, beside=2)
            (folder / f"{name}.jpg").write_bytes(encode_jpeg(sheet))
    print("docs/tiny:", ", ".join(sorted(path.name for path in folder.iterdir())))


if __name__ == "__main__":
    main()
