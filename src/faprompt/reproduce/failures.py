"""The worst mistakes of a finished cell, each with its likely cause: Fig. 16 of the appendix."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

from faprompt.data import Dataset
from faprompt.detector import Detector
from faprompt.errors import DatasetError
from faprompt.evaluation import Evaluation, EvaluationConfig, ImageScore, write_gallery
from faprompt.evaluation.gallery import GALLERY_FOLDER, TITLES
from faprompt.evaluation.saved_progress import region_text
from faprompt.files import csv_text


def write_failures(
    cell_folder: Path,
    dataset: Dataset,
    detector: Detector,
    config: EvaluationConfig,
    folder: Path,
    *,
    count: int,
) -> tuple[Path, ...]:
    """Sheets and `gallery.csv` below `folder/gallery`; see `write_gallery`.

    Args:
        cell_folder: of a finished cell.
        dataset, detector, config: what it was measured with.
        count: most pictures per kind of mistake.

    Raises:
        DatasetError: the cell's scores are of other pictures.
    """
    evaluation = Evaluation(
        dataset=dataset.name, model=detector.name, method=detector.method.name,
        backbone=detector.backbone.name, config=replace(config, gallery=count), classes={},
        curves={}, images=read_scores(cell_folder / "scores.csv", dataset), environment={},
        root=dataset.root,
    )  # fmt: skip
    return write_gallery(detector, evaluation, folder)


def read_scores(path: Path, dataset: Dataset) -> tuple[ImageScore, ...]:
    """What `write_evaluation` wrote, grouped by class as in every benchmark.

    Raises:
        DatasetError: not these pictures in this order.
    """
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    known = [
        (Path(csv_text(str(s.image_path))).name, region_text(s), str(s.label))
        for s in dataset.samples
    ]
    if [(Path(row["path"]).name, row.get("region", ""), row["label"]) for row in rows] != known:
        raise DatasetError(
            f"{path} is of other pictures than {dataset.root} holds; run the study again."
        )
    return tuple(
        ImageScore(
            sample, _number(row["score"]), row["error"], _number(row["overlap"]),
            (sample.class_name,),
        )
        for sample, row in zip(dataset.samples, rows, strict=True)
    )  # fmt: skip


def describe_failures(folder: Path) -> str:
    """Kinds of mistake shown below a folder, and their likely causes, in a line."""
    path = folder / GALLERY_FOLDER / "gallery.csv"
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    told = []
    for kind, (title, _) in TITLES.items():
        causes = Counter(row["cause"] or "not read" for row in rows if row["kind"] == kind)
        listed = ", ".join(f"{name} {number}" for name, number in causes.most_common())
        told.append(f"{title.lower()}: {listed or 'none'}")
    return "; ".join(told)


def _number(text: str) -> float | None:
    return float(text) if text else None
