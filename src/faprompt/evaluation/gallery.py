"""Show the worst mistakes of an evaluation: contact sheets and a list.

Mistakes are chosen from the scores alone. Only the chosen pictures are read and scored once
more, so memory does not grow with the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from faprompt.evaluation.causes import CAUSES, LikelyCause, likely_cause
from faprompt.evaluation.contact_sheet import Entry, Panel, draw_sheet, picture_panels
from faprompt.evaluation.evaluation_run import Evaluation
from faprompt.evaluation.sample_batches import read_sample
from faprompt.evaluation.sample_scoring import predict_samples, released_reading
from faprompt.evaluation.saved_progress import ImageScore, region_text, sample_name
from faprompt.files import csv_table, csv_text, write_atomically
from faprompt.imaging import encode_png
from faprompt.metrics import UndefinedMetricError, f1_max_threshold
from faprompt.picture_detector import PictureDetector
from faprompt.work import can_draw

Kind = Literal["false_alarms", "missed_pictures", "missed_areas"]

GALLERY_FOLDER, TABLE_NAME = "gallery", "gallery.csv"
COLUMNS = ("picture", "map", "ground truth")
MISSED = 0.5  # a map with less overlap has missed its defect

# kind -> title, and what the pictures are and how they are ordered
TITLES: dict[Kind, tuple[str, str]] = {
    "false_alarms": (
        "False alarms",
        "Normal pictures at or above the threshold of their group's best F1; 1 is the highest "
        "above it.",
    ),
    "missed_pictures": (
        "Missed pictures",
        "Anomalous pictures below the threshold of their group's best F1; 1 is the farthest "
        "below it.",
    ),
    "missed_areas": (
        "Missed areas",
        "Overlap: the share of the map's highest pixels, as many as the defect has, that lie "
        "inside it. It is below half here; 1 has the lowest.",
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
    """Return at most `count` pictures of each kind of mistake, the worst first.

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
    chosen: dict[Kind, list[tuple[float, ImageScore, str]]] = {
        "false_alarms": [
            (-above, image, group)
            for above, image, group in margins
            if not image.sample.label and above >= 0
        ],
        "missed_pictures": [row for row in margins if row[1].sample.label and row[0] < 0],
        "missed_areas": [
            (image.overlap, image, next(iter(image.groups), ""))
            for image in evaluation.images
            if image.overlap is not None and image.overlap < MISSED
        ],
    }
    return [
        Mistake(kind, rank, image, group, thresholds.get(group))
        for kind, rows in chosen.items()
        for rank, (_, image, group) in enumerate(sorted(rows, key=lambda r: r[0])[:count], 1)
    ]


def group_thresholds(images: Iterable[ImageScore]) -> dict[str, float]:
    """Return the threshold of the best F1 of each group; groups without an F1 are absent."""
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


def write_gallery(
    detector: PictureDetector, evaluation: Evaluation, folder: Path
) -> tuple[Path, ...]:
    """Draw the worst mistakes: `gallery/<kind>.png` and `gallery/gallery.csv` in the folder.

    Each has its likely cause by rule, see `likely_cause`. Sheets go cause by cause, the worst
    of each cause first; the list goes by rank.

    Args:
        detector: the one that was measured.
        evaluation: its `config.gallery` is the number of pictures per kind; 0 draws nothing.
        folder: folder of `metrics.json`. Sheets of an earlier run are replaced or removed.

    Returns:
        The sheets; a kind of mistake that did not happen has none.; without matplotlib there are
        none, and the list alone is written.
    """
    remove_gallery(folder)
    if not evaluation.config.gallery:
        return ()
    target = folder / GALLERY_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    mistakes = worst_mistakes(evaluation, evaluation.config.gallery)
    looks = _looks(detector, evaluation, mistakes)
    table = _table(mistakes, looks).encode(errors="surrogateescape")
    write_atomically(target / TABLE_NAME, table)
    if not can_draw("Contact sheets"):
        return ()
    sheets = []
    for kind, (title, about) in TITLES.items():
        shown = [mistake for mistake in mistakes if mistake.kind == kind]
        if not shown:
            continue
        shown.sort(key=lambda mistake: looks[id(mistake.image.sample)].place)
        entries = [_entry(m, looks[id(m.image.sample)], evaluation.root) for m in shown]
        about += f" Likely causes, by rule, in the order shown: {_count_causes(shown, looks)}."
        sheet = draw_sheet(title, about, COLUMNS, entries, beside=2)
        sheets.append(target / f"{kind}.png")
        write_atomically(sheets[-1], encode_png(sheet))
    return tuple(sheets)


def remove_gallery(folder: Path) -> None:
    """Remove what `write_gallery` wrote into a folder; files of other origin stay."""
    target = folder / GALLERY_FOLDER
    for name in (*(f"{kind}.png" for kind in TITLES), TABLE_NAME):
        (target / name).unlink(missing_ok=True)
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()


@dataclass(frozen=True, slots=True)
class _Look:
    """A picture read and scored once more; without a cause where it can no longer be read."""

    panels: tuple[Panel, ...] = (Panel(words="The picture can no longer be read."),)
    cause: LikelyCause | None = None

    @property
    def place(self) -> int:
        """Return the rank of the cause on a sheet."""
        return CAUSES.index(self.cause.cause) if self.cause else len(CAUSES)


def _looks(
    detector: PictureDetector, evaluation: Evaluation, mistakes: Sequence[Mistake]
) -> dict[int, _Look]:
    """Look at every chosen picture once; keys are ids of the samples."""
    looks: dict[int, _Look] = {}
    for mistake in mistakes:
        sample = mistake.image.sample
        if id(sample) in looks:
            continue
        config = evaluation.config
        read = read_sample(
            sample,
            policy=config.mask_policy,
            released=released_reading(detector),
            setup=detector.setup,
        )
        if read.image is None:
            looks[id(sample)] = _Look()
            continue
        (result,) = predict_samples(detector, [read], config.product)
        cause = likely_cause(
            read.image, result.score_map, read.mask, label=sample.label,
            score=result.score if mistake.image.score is None else mistake.image.score,
            threshold=mistake.threshold,
        )  # fmt: skip
        looks[id(sample)] = _Look(picture_panels(read.image, result.score_map, read.mask), cause)
    return looks


def _count_causes(mistakes: Sequence[Mistake], looks: dict[int, _Look]) -> str:
    causes = [looks[id(mistake.image.sample)].cause for mistake in mistakes]
    counts = Counter(cause.cause for cause in causes if cause)
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "unknown"


def _entry(mistake: Mistake, look: _Look, root: Path) -> Entry:
    image = mistake.image
    facts = [f"score {image.score:.4f}"]
    if mistake.threshold is not None:
        facts.append(f"threshold {mistake.threshold:.4f}")
    if image.overlap is not None:
        facts.append(f"overlap {100 * image.overlap:.0f} %")
    facts += [image.sample.defect_type if image.sample.label else "normal", mistake.group]
    lines = [f"{mistake.rank}  {sample_name(image.sample, root)}"]
    lines.append(" · ".join(fact for fact in facts if fact))
    if look.cause:
        also = f" (also {', '.join(look.cause.also)})" if look.cause.also else ""
        lines.append(f"likely cause: {look.cause.cause}, {look.cause.why}{also}")
    return Entry(look.panels, tuple(lines))


def _table(mistakes: Sequence[Mistake], looks: dict[int, _Look]) -> str:
    """Return the list as CSV: a line for each mistake, its likely cause and measures last."""
    rows: list[list[Any]] = [
        ["kind", "rank", "path", "region", "group", "defect_type", "label", "score", "threshold"]
        + ["overlap", "cause", "why", "also", "measures"]
    ]
    for mistake in mistakes:
        image, sample = mistake.image, mistake.image.sample
        numbers = (image.score, mistake.threshold, image.overlap)
        shown = ["" if number is None else f"{number:.6g}" for number in numbers]
        place = [csv_text(str(sample.image_path)), region_text(sample)]
        named = [*place, csv_text(mistake.group), csv_text(sample.defect_type)]
        cells, cause = [""] * 4, looks[id(sample)].cause
        if cause is not None:
            measures = " ".join(f"{name}={value:.4g}" for name, value in cause.numbers.items())
            cells = [cause.cause, cause.why, ", ".join(cause.also), measures]
        rows.append([mistake.kind, mistake.rank, *named, sample.label, *shown, *cells])
    return csv_table(rows)
