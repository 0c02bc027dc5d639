"""The worst mistakes of an evaluation, to look at: contact sheets and a list.

Chosen from the scores alone; only the chosen pictures are read and scored once more, so
memory does not grow with the dataset.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from faprompt.detector import Detector
from faprompt.evaluation.progress import ImageScore, picture_key
from faprompt.evaluation.reading import read_sample
from faprompt.evaluation.run import Evaluation
from faprompt.evaluation.sheet import Entry, draw_sheet, make_panels
from faprompt.imaging import encode_png
from faprompt.metrics import UndefinedMetricError, f1_max_threshold

Kind = Literal["false_alarms", "missed_pictures", "missed_areas"]

GALLERY_FOLDER = "gallery"
MISSED = 0.5  # a map with less overlap has missed its defect

# kind -> title, and what the pictures are and how they are ordered
TITLES: dict[Kind, tuple[str, str]] = {
    "false_alarms": (
        "False alarms",
        "Normal pictures at or above the threshold of their group's best F1; highest above first.",
    ),
    "missed_pictures": (
        "Missed pictures",
        "Anomalous pictures below the threshold of their group's best F1; farthest below first.",
    ),
    "missed_areas": (
        "Missed areas",
        "Of as many highest pixels of the map as the defect has, less than half lie inside it; "
        "fewest first.",
    ),
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One picture that the detector got wrong."""

    kind: Kind
    rank: int  # among its kind, from 1, the worst
    image: ImageScore
    group: str
    threshold: float | None  # of the group's best F1; None where the group has none


def worst_mistakes(evaluation: Evaluation, count: int) -> list[Mistake]:
    """At most `count` pictures of each kind of mistake, the worst first.

    A picture that counts in several groups is judged by the one it is most wrong in.
    """
    thresholds = group_thresholds(evaluation.images)
    margins: list[tuple[float, ImageScore, str]] = []
    for image in evaluation.images:
        known = [name for name in image.groups if name in thresholds]
        if image.score is not None and known:
            sign = 1 if image.sample.label else -1
            group = max(known, key=lambda name: sign * thresholds[name])
            margins.append((image.score - thresholds[group], image, group))
    alarms = [row for row in margins if not row[1].sample.label and row[0] >= 0]
    missed = [row for row in margins if row[1].sample.label and row[0] < 0]
    areas = [
        (image.overlap, image, next(iter(image.groups), ""))
        for image in evaluation.images
        if image.overlap is not None and image.overlap < MISSED
    ]
    alarms.sort(key=lambda row: -row[0])
    missed.sort(key=lambda row: row[0])
    areas.sort(key=lambda row: row[0])
    chosen: dict[Kind, list[tuple[float, ImageScore, str]]] = {
        "false_alarms": alarms, "missed_pictures": missed, "missed_areas": areas,
    }  # fmt: skip
    return [
        Mistake(kind, rank, image, group, thresholds.get(group))
        for kind, rows in chosen.items()
        for rank, (_, image, group) in enumerate(rows[:count], 1)
    ]


def group_thresholds(images: Iterable[ImageScore]) -> dict[str, float]:
    """Group -> the score from which on its F1 is highest; groups without an F1 are absent."""
    scores: dict[str, list[tuple[float, int]]] = {}
    for image in images:
        for name in image.groups if image.score is not None else ():
            scores.setdefault(name, []).append((image.score or 0.0, image.sample.label))
    thresholds = {}
    for name, pairs in scores.items():
        try:
            thresholds[name] = f1_max_threshold(*zip(*pairs, strict=True))
        except UndefinedMetricError:
            continue
    return thresholds


def write_gallery(detector: Detector, evaluation: Evaluation, folder: Path) -> tuple[Path, ...]:
    """Draw the worst mistakes: `gallery/<kind>.png` and `gallery/gallery.csv` in the folder.

    Args:
        detector: the one that was measured.
        evaluation: its `config.gallery` says how many pictures per kind; 0 draws nothing.
        folder: of `metrics.json`. Sheets of a former run are replaced or removed.

    Returns:
        The sheets; a kind of mistake that did not happen has none.
    """
    target = folder / GALLERY_FOLDER
    mistakes = worst_mistakes(evaluation, evaluation.config.gallery)
    entries = _entries(detector, evaluation, mistakes)
    sheets = []
    for kind, words in TITLES.items():
        path = target / f"{kind}.png"
        if not entries[kind]:
            path.unlink(missing_ok=True)
            continue
        target.mkdir(parents=True, exist_ok=True)
        _replace(path, encode_png(draw_sheet(*words, entries[kind])))
        sheets.append(path)
    table = target / "gallery.csv"
    if evaluation.config.gallery:
        target.mkdir(parents=True, exist_ok=True)
        _replace(table, _table(mistakes).encode(errors="surrogateescape"))
    else:
        table.unlink(missing_ok=True)
    return tuple(sheets)


def _entries(
    detector: Detector, evaluation: Evaluation, mistakes: Sequence[Mistake]
) -> Mapping[Kind, list[Entry]]:
    """One entry a mistake; a picture that is wrong in two ways is read once."""
    panels: dict[int, tuple[np.ndarray, ...]] = {}
    entries: dict[Kind, list[Entry]] = {kind: [] for kind in TITLES}
    for mistake in mistakes:
        sample = mistake.image.sample
        if id(sample) not in panels:
            read = read_sample(sample, policy=evaluation.config.mask_policy)
            if read.image is None:  # it was there a moment ago
                panels[id(sample)] = ()
            else:
                (result,) = detector.predict_batch([read.image])
                panels[id(sample)] = make_panels(read.image, result.score_map, read.mask)
        name = picture_key(sample.image_path, evaluation.root)
        entry = Entry(panels[id(sample)], mistake.rank, name, _facts(mistake))
        entries[mistake.kind].append(entry)
    return entries


def _facts(mistake: Mistake) -> str:
    image = mistake.image
    facts = [f"score {image.score:.4f}"]
    if mistake.threshold is not None:
        facts.append(f"threshold {mistake.threshold:.4f}")
    if image.overlap is not None:
        facts.append(f"overlap {100 * image.overlap:.0f} %")
    facts += [image.sample.defect_type if image.sample.label else "normal", mistake.group]
    return " · ".join(fact for fact in facts if fact)


def _table(mistakes: Sequence[Mistake]) -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(
        ["kind", "rank", "path", "group", "defect_type", "label", "score", "threshold", "overlap"]
    )
    for mistake in mistakes:
        image, sample = mistake.image, mistake.image.sample
        numbers = (image.score, mistake.threshold, image.overlap)
        told = ["" if number is None else f"{number:.6g}" for number in numbers]
        named = [sample.image_path, mistake.group, sample.defect_type, sample.label]
        rows.writerow([mistake.kind, mistake.rank, *named, *told])
    return out.getvalue()


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
