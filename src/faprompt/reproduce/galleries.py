"""Galleries as in Figs. 4-16 of the appendix: methods side by side, picture by picture.

Only the chosen pictures are scored; where failures are asked for, their methods are first
measured on everything, as in every study.

OUT/<dataset>/pictures-<n>.jpg   per class some anomalous pictures and a normal one
OUT/<dataset>/several-<n>.jpg    several defects in one picture
OUT/<dataset>/pictures.csv       a line per picture: why it was chosen, scores, overlaps
OUT/<dataset>/failures/<method>/gallery/   worst mistakes with likely causes, and their list
OUT/study.md                     what there is
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.data import Dataset
from faprompt.data.masks import MaskPolicy
from faprompt.detector import Detector
from faprompt.errors import ConfigError, FapromptError
from faprompt.evaluation.drawing import as_unicode, fit
from faprompt.evaluation.overlap import map_overlap
from faprompt.evaluation.sample_batches import read_sample
from faprompt.evaluation.saved_progress import sample_name
from faprompt.files import write_atomically
from faprompt.reproduce.benchmark_plan import Cell, Plan, slug
from faprompt.reproduce.benchmark_run import CellResult, run_benchmark
from faprompt.reproduce.cell_detectors import detector_source
from faprompt.reproduce.failures import write_failures
from faprompt.reproduce.gallery_choice import Chosen, choose_pictures
from faprompt.reproduce.gallery_files import Gallery, gallery_lines, gallery_page, write_sheets
from faprompt.reproduce.gallery_sheet import Row, View
from faprompt.reproduce.study_config import GalleryOptions
from faprompt.reproduce.study_plan import StudyPlan
from faprompt.reproduce.study_run import STUDY_FILE
from faprompt.work import ProgressCallback, logger, no_progress

FAILURES = "failures"


@dataclass(frozen=True, slots=True)
class GalleryResult:
    """All galleries of a study."""

    galleries: tuple[Gallery, ...]
    lacking: tuple[str, ...]  # what is not shown, and why
    markdown: str

    @property
    def complete(self) -> bool:
        """Whether every method shows every picture."""
        return not self.lacking

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every picture as plain data."""
        return [
            {"dataset": gallery.key, **line}
            for gallery in self.galleries
            for line in gallery_lines(gallery)
        ]


def run_galleries(
    study: StudyPlan,
    out: Path,
    *,
    work: Path | None = None,
    data_root: Path | None = None,
    device: str = "cpu",
    precision: str = "",
    progress: ProgressCallback = no_progress,
) -> GalleryResult:
    """Draw the galleries; methods that are not trained yet are trained, into `work`.

    One detector is held at a time. The same call again gives the same files. Arguments as in
    `run_study`; `data_root` is in the plan already.

    Raises:
        ConfigError: the study has no table `[gallery]`.
    """
    options = study.config.gallery
    if options is None:
        raise ConfigError(f"{study.config.name} has no table [gallery].")
    del data_root
    common: dict[str, Any] = {
        "device": device, "precision": precision, "progress": progress,
    }  # fmt: skip
    work, plan = work or out, by_detector(study.plan)
    lacking: list[str] = []
    galleries = _open(plan, options, lacking)
    measured = _measure(study, plan, work, common)
    pick = detector_source(plan, work, **common)
    for number, cell in enumerate(plan.cells, start=1):
        gallery = galleries.get(cell.source.entry.key)
        told = "; ".join(cell.missing)
        if gallery is not None and not told:
            told = _add_method(gallery, cell, pick, plan)
            told = told or _add_failures(
                gallery, measured.get(cell.name), pick, plan, out, count=options.failures
            )
        if told:
            lacking.append(f"{_column(cell, plan)} on {cell.source.entry.key}: {told}")
        logger.info(f"[{number}/{len(plan.cells)}] {cell.name}: {told or 'shown'}")
    for gallery in galleries.values():
        write_sheets(gallery, options, out)
        lacking += [f"{row.name}: {row.error}" for row in gallery.rows if row.error]
    found = tuple(galleries.values())
    markdown = "\n\n".join(gallery_page(study.config, found, lacking, out)) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / STUDY_FILE, markdown.encode("utf-8", errors="replace"))
    return GalleryResult(found, tuple(lacking), markdown)


def by_detector(plan: Plan) -> Plan:
    """The same cells, those of one detector after another, so that each is loaded once."""
    order = {id(column): place for place, column in enumerate(plan.columns)}

    def place(cell: Cell) -> tuple[int, int, str]:
        trained_on = cell.trained_on.entry.key if cell.trained_on else ""
        return order[id(cell.column)], cell.seed or 0, trained_on

    return replace(plan, cells=tuple(sorted(plan.cells, key=place)))


def describe_choice(plan: Plan, options: GalleryOptions) -> str:
    """What the estimate of a dry run leaves out: only the chosen pictures are scored."""
    told = f", and all pictures for {', '.join(options.failures_of)}" if options.failures else ""
    return (
        f"scored are only the pictures shown, {options.anomalous + options.normal} of each class "
        f"and {options.several} of each of {len(plan.sources)} datasets{told}; the time above "
        "counts all pictures for all methods"
    )


def _open(plan: Plan, options: GalleryOptions, lacking: list[str]) -> dict[str, Gallery]:
    """The chosen pictures of every dataset that is there, read and made to fit."""
    found = {}
    policy = plan.config.evaluation.mask_policy
    for source in plan.sources:
        if source.missing:
            continue  # every cell tells
        try:
            dataset = source.read().require_usable()
            chosen = choose_pictures(dataset, options, policy=policy)
            rows = tuple(_row(one, dataset, policy) for one in chosen)
        except FapromptError as error:
            lacking.append(f"{source.entry.key}: {error}")
            continue
        found[source.entry.key] = Gallery(source, dataset, chosen, rows)
    return found


def _row(chosen: Chosen, dataset: Dataset, policy: MaskPolicy) -> Row:
    sample = chosen.sample
    name = as_unicode(sample_name(sample, dataset.root))
    row = Row(name, chosen.why, sample.label)
    try:
        read = read_sample(sample, policy=policy)
    except FapromptError as error:
        row.error = as_unicode(str(error))
        return row
    row.error = as_unicode(read.error)
    if read.image is not None:
        nothing = np.zeros(read.image.shape[:2], np.float32)
        row.panel, _, row.mask = fit(read.image, nothing, read.mask)
    return row


def _measure(
    study: StudyPlan, plan: Plan, work: Path, common: dict[str, Any]
) -> dict[str, CellResult]:
    """The whole evaluation of the methods whose failures are shown, or what was kept of it."""
    options = study.config.gallery
    assert options is not None
    if not options.failures:
        return {}
    titles = {study.titles[label] for label in options.failures_of}
    cells = tuple(cell for cell in plan.cells if cell.column.method.title in titles)
    results = run_benchmark(replace(plan, cells=cells), work, **common)
    return {result.cell.name: result for result in results}


def _add_method(gallery: Gallery, cell: Cell, pick: Callable[[Cell], Detector], plan: Plan) -> str:
    """Score every row; the reason where that cannot be."""
    try:
        detector = pick(cell)
    except (FapromptError, OSError) as error:
        return str(error)
    name = _column(cell, plan)
    gallery.methods.append(name)
    for chosen, row in zip(gallery.chosen, gallery.rows, strict=True):
        if not row.error:
            row.views[name] = _view(detector, chosen, plan.config.evaluation.mask_policy)
    return ""


def _view(detector: Detector, chosen: Chosen, policy: MaskPolicy) -> View:
    read = read_sample(chosen.sample, policy=policy)
    assert read.image is not None, "it was read for its row"
    (result,) = detector.predict_batch([read.image], class_names=[chosen.sample.class_name])
    marked = read.mask is not None and read.mask.any()
    overlap = map_overlap(result.score_map, read.mask) if marked else None  # type: ignore[arg-type]
    _, small_map, _ = fit(read.image, result.score_map, None)
    levels = np.rint(np.clip(small_map, 0, 1) * 255).astype(np.uint8)
    return View(result.score, overlap, levels)


def _add_failures(
    gallery: Gallery, result: CellResult | None, pick: Callable[[Cell], Detector], plan: Plan,
    out: Path, *, count: int,
) -> str:  # fmt: skip
    """Draw the worst mistakes of a measured cell; the reason where that cannot be."""
    if result is None:
        return ""
    if result.status != "done" or result.folder is None:
        return result.reason
    cell, options = result.cell, plan.config.evaluation
    name = _column(cell, plan)
    folder = out / slug(gallery.key) / FAILURES / slug(name)
    gallery.failures[name] = folder
    try:
        write_failures(result.folder, gallery.dataset, pick(cell), options, folder, count=count)
    except (FapromptError, OSError) as error:
        return f"failures are not shown: {error}"
    return ""


def _column(cell: Cell, plan: Plan) -> str:
    seed = f", seed {cell.seed}" if cell.seed is not None and len(plan.config.seeds) > 1 else ""
    return f"{cell.column.title}{seed}"
