"""The worst mistakes of an evaluation, to look at: contact sheets and a list.

Chosen from the scores alone; only the chosen pictures are read and scored once more, so
memory does not grow with the dataset.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from faprompt.detector import Detector
from faprompt.evaluation.causes import CAUSES, LikelyCause, likely_cause
from faprompt.evaluation.evaluation_run import Evaluation
from faprompt.evaluation.sample_batches import read_sample
from faprompt.evaluation.saved_progress import ImageScore, region_text, sample_name
from faprompt.evaluation.sheet import Entry, draw_sheet, make_panels
from faprompt.files import csv_text, write_atomically
from faprompt.imaging import encode_png
from faprompt.metrics import UndefinedMetricError, f1_max_threshold

Kind = Literal["false_alarms", "missed_pictures", "missed_areas"]

GALLERY_FOLDER = "gallery"
_TABLE_NAME = "gallery.csv"
MISSED = 0.5  # a map with less overlap has missed its defect

# kind -> title, and what the pictures are and how they are ordered
TITLES: dict[Kind, tuple[str, str]] = {
    "false_alarms": (
        "False alarms",
        "Normal pictures at or above the threshold of their group's best F1; 1 is the highest "
        "above.",
    ),
    "missed_pictures": (
        "Missed pictures",
        "Anomalous pictures below the threshold of their group's best F1; 1 is the farthest below.",
    ),
    "missed_areas": (
        "Missed areas",
        "Of as many highest pixels of the map as the defect has, less than half lie inside it; "
        "1 has fewest.",
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

    Each has its likely cause by rule, see `likely_cause`. Sheets go cause by cause, the worst
    of each first; the list goes by rank.

    Args:
        detector: the one that was measured.
        evaluation: its `config.gallery` says how many pictures per kind; 0 draws nothing.
        folder: of `metrics.json`. Sheets of a former run are replaced or removed.

    Returns:
        The sheets; a kind of mistake that did not happen has none.
    """
    target = folder / GALLERY_FOLDER
    mistakes = worst_mistakes(evaluation, evaluation.config.gallery)
    looks = _looks(detector, evaluation, mistakes)
    sheets = []
    for kind, (title, about) in TITLES.items():
        path = target / f"{kind}.png"
        shown = [mistake for mistake in mistakes if mistake.kind == kind]
        if not shown:
            path.unlink(missing_ok=True)
            continue
        shown.sort(key=lambda mistake: _place(looks[id(mistake.image.sample)]))
        entries = [_entry(m, looks[id(m.image.sample)], evaluation.root) for m in shown]
        about += f" Likely causes, by rule, one after another: {_count_causes(shown, looks)}."
        target.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode_png(draw_sheet(title, about, entries)))
        sheets.append(path)
    table = target / _TABLE_NAME
    if evaluation.config.gallery:
        target.mkdir(parents=True, exist_ok=True)
        write_atomically(table, _table(mistakes, looks).encode(errors="surrogateescape"))
    else:
        table.unlink(missing_ok=True)
    return tuple(sheets)


def remove_gallery(folder: Path) -> None:
    """Remove what `write_gallery` wrote into a folder; files of other origin stay."""
    target = folder / GALLERY_FOLDER
    for name in (*(f"{kind}.png" for kind in TITLES), _TABLE_NAME):
        (target / name).unlink(missing_ok=True)
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()


@dataclass(frozen=True, slots=True)
class _Look:
    """A picture seen once more; empty where it can no longer be read."""

    panels: tuple[np.ndarray, ...] = ()
    cause: LikelyCause | None = None


def _looks(
    detector: Detector, evaluation: Evaluation, mistakes: Sequence[Mistake]
) -> dict[int, _Look]:
    """By the id of its sample; a picture that is wrong in two ways is read once."""
    looks: dict[int, _Look] = {}
    for mistake in mistakes:
        sample = mistake.image.sample
        if id(sample) in looks:
            continue
        read = read_sample(
            sample, policy=evaluation.config.mask_policy, released=detector.released_reading
        )
        if read.image is None:  # it was there a moment ago
            looks[id(sample)] = _Look()
            continue
        (result,) = detector.predict_batch([read.image], class_names=[sample.class_name])
        cause = likely_cause(
            read.image, result.score_map, read.mask, label=sample.label,
            score=result.score if mistake.image.score is None else mistake.image.score,
            threshold=mistake.threshold,
        )  # fmt: skip
        looks[id(sample)] = _Look(make_panels(read.image, result.score_map, read.mask), cause)
    return looks


def _place(look: _Look) -> int:
    return CAUSES.index(look.cause.cause) if look.cause else len(CAUSES)


def _count_causes(mistakes: Sequence[Mistake], looks: dict[int, _Look]) -> str:
    found = [looks[id(mistake.image.sample)].cause for mistake in mistakes]
    counts = Counter(cause.cause for cause in found if cause)
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none can be told"


def _entry(mistake: Mistake, look: _Look, root: Path) -> Entry:
    told = f"likely cause: {look.cause.cause}, {look.cause.why}" if look.cause else ""
    if look.cause and look.cause.also:
        told += f" (also {', '.join(look.cause.also)})"
    name = sample_name(mistake.image.sample, root)
    return Entry(look.panels, mistake.rank, name, _facts(mistake), told)


def _facts(mistake: Mistake) -> str:
    image = mistake.image
    facts = [f"score {image.score:.4f}"]
    if mistake.threshold is not None:
        facts.append(f"threshold {mistake.threshold:.4f}")
    if image.overlap is not None:
        facts.append(f"overlap {100 * image.overlap:.0f} %")
    facts += [image.sample.defect_type if image.sample.label else "normal", mistake.group]
    return " · ".join(fact for fact in facts if fact)


def _table(mistakes: Sequence[Mistake], looks: dict[int, _Look]) -> str:
    """A line a mistake; the likely cause stands last, with all that its rules measured."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(
        ["kind", "rank", "path", "region", "group", "defect_type", "label", "score", "threshold"]
        + ["overlap", "cause", "why", "also", "measures"]
    )
    for mistake in mistakes:
        image, sample = mistake.image, mistake.image.sample
        numbers = (image.score, mistake.threshold, image.overlap)
        told = ["" if number is None else f"{number:.6g}" for number in numbers]
        place = [csv_text(str(sample.image_path)), region_text(sample)]
        named = [*place, csv_text(mistake.group), csv_text(sample.defect_type)]
        cause = _cause_cells(looks[id(sample)].cause)
        rows.writerow([mistake.kind, mistake.rank, *named, sample.label, *told, *cause])
    return out.getvalue()


def _cause_cells(found: LikelyCause | None) -> list[str]:
    if found is None:
        return [""] * 4
    measures = " ".join(f"{name}={value:.4g}" for name, value in found.numbers.items())
    return [found.cause, found.why, ", ".join(found.also), measures]
