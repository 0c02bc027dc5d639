"""Run a study that shows pictures, as in Figs. 4-16 of the appendix: methods side by side.

Only the chosen pictures are scored. Where failures are asked for, their methods are first
evaluated on all pictures, as in every study.

OUT/<dataset>/pictures-<n>.jpg   some anomalous pictures and a normal one of each class
OUT/<dataset>/several-<n>.jpg    several defects in one picture
OUT/<dataset>/pictures.csv       a line for each picture: why it was chosen, scores, overlaps
OUT/<dataset>/failures/<method>/gallery/   the worst mistakes with likely causes, and their list
OUT/study.md                     links to all of these
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.data import Dataset
from faprompt.data.masks import MaskPolicy
from faprompt.detector import Detector
from faprompt.errors import ConfigError, DatasetError, FapromptError
from faprompt.evaluation import Evaluation, EvaluationConfig, ImageScore, write_gallery
from faprompt.evaluation.contact_sheet import as_unicode, fit_panel, outlined
from faprompt.evaluation.measurement import map_overlap
from faprompt.evaluation.sample_batches import read_sample
from faprompt.evaluation.saved_progress import region_text, sample_name
from faprompt.files import csv_text, write_atomically
from faprompt.imaging import overlay
from faprompt.reproduce.cell_runner import CellResult, CellRunner, RunContext, run_benchmark
from faprompt.reproduce.cells import Cell, Plan, slug
from faprompt.reproduce.experiment_parts import GalleryOptions
from faprompt.reproduce.gallery_choice import Chosen, choose_pictures
from faprompt.reproduce.gallery_files import Gallery, Shown, View, gallery_page, write_sheets
from faprompt.reproduce.study_run import STUDY_FILE
from faprompt.work import load_extra, logger

FAILURES = "failures"


@dataclass(frozen=True, slots=True)
class GalleryResult:
    """All galleries of a study."""

    galleries: tuple[Gallery, ...]
    lacking: tuple[str, ...]  # what is not shown, and why
    markdown: str

    @property
    def complete(self) -> bool:
        """Return whether every method shows every picture."""
        return not self.lacking

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return every picture as plain data."""
        return [
            {"dataset": gallery.key, **line}
            for gallery in self.galleries
            for line in gallery.lines()
        ]


def run_galleries(plan: Plan, context: RunContext) -> GalleryResult:
    """Draw the galleries of a study. Methods that are not trained yet are trained.

    One detector is in memory at a time. The same call again writes the same files.

    Raises:
        ConfigError: the study has no table `[gallery]`.
        MissingExtraError: matplotlib is not installed.
    """
    config, options, out = plan.config, plan.config.gallery, context.out
    if options is None:
        raise ConfigError(f"{config.name} has no table [gallery].")
    load_extra("figures", "matplotlib")
    plan = by_detector(plan)
    lacking: list[str] = []
    galleries = _open(plan, options, lacking)
    evaluated = _evaluate(plan, context)
    pick = CellRunner(plan, context).detector
    for number, cell in enumerate(plan.cells, start=1):
        gallery, name = galleries.get(cell.source.entry.key), _column(cell, plan)
        outcome = "shown"
        try:
            if cell.missing:
                raise ConfigError("; ".join(cell.missing))
            if gallery is not None:
                _add_method(gallery, name, pick(cell), plan.config.evaluation.mask_policy)
                if cell.name in evaluated:
                    gallery.failures[name] = out / slug(gallery.key) / FAILURES / slug(name)
                    chosen = replace(plan.config.evaluation, gallery=options.failures)
                    _add_failures(gallery, name, pick(cell), evaluated[cell.name], chosen)
        except (FapromptError, OSError) as error:
            outcome = str(error)
            lacking.append(f"{name} on {cell.source.entry.key}: {outcome}")
        logger.info(f"[{number}/{len(plan.cells)}] {cell.name}: {outcome}")
    for gallery in galleries.values():
        write_sheets(gallery, options, out)
        lacking += [f"{shown.name}: {shown.error}" for shown in gallery.pictures if shown.error]
    results = tuple(galleries.values())
    markdown = "\n\n".join(gallery_page(config, results, lacking, out)) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / STUDY_FILE, markdown.encode("utf-8", errors="replace"))
    return GalleryResult(results, tuple(lacking), markdown)


def by_detector(plan: Plan) -> Plan:
    """Return the same cells in the order of their detectors, so that each is loaded once."""

    def place(cell: Cell) -> tuple[int, int, str]:
        trained_on = cell.trained_on.entry.key if cell.trained_on else ""
        return plan.columns.index(cell.column), cell.seed or 0, trained_on

    return replace(plan, cells=tuple(sorted(plan.cells, key=place)))


def describe_choice(plan: Plan, options: GalleryOptions) -> str:
    """Return a line for a dry run: its estimate counts all pictures, but few are scored."""
    of = ", ".join(options.failures_of)
    failures = f", and all pictures for {of}" if options.failures else ""
    return (
        f"scored are only the pictures shown, {options.anomalous + options.normal} of each class "
        f"and {options.several} of each of {len(plan.sources)} datasets{failures}; the time above "
        "counts all pictures for all methods"
    )


def read_scores(path: Path, dataset: Dataset) -> tuple[ImageScore, ...]:
    """Read the `scores.csv` of an evaluation, grouped by class as in every benchmark.

    Raises:
        DatasetError: the file has other pictures, or another order, than the dataset.
    """
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    known = [
        (Path(csv_text(str(s.image_path))).name, region_text(s), str(s.label))
        for s in dataset.samples
    ]
    if [(Path(row["path"]).name, row.get("region", ""), row["label"]) for row in rows] != known:
        raise DatasetError(
            f"{path} lists other pictures than {dataset.root} holds; remove its folder and run "
            "the study again."
        )
    return tuple(
        ImageScore(
            sample, _number(row["score"]), row["error"], _number(row["overlap"]),
            (sample.class_name,),
        )
        for sample, row in zip(dataset.samples, rows, strict=True)
    )  # fmt: skip


def _open(plan: Plan, options: GalleryOptions, lacking: list[str]) -> dict[str, Gallery]:
    """Choose and read the pictures of every dataset that is there."""
    galleries = {}
    policy = plan.config.evaluation.mask_policy
    for source in plan.sources:
        if source.missing:
            continue  # reported with every cell
        try:
            dataset = source.read().require_usable()
            chosen = choose_pictures(dataset, options, policy=policy)
        except FapromptError as error:
            lacking.append(f"{source.entry.key}: {error}")
            continue
        pictures = tuple(_shown(one, dataset, policy) for one in chosen)
        galleries[source.entry.key] = Gallery(source, dataset, pictures)
    return galleries


def _shown(chosen: Chosen, dataset: Dataset, policy: MaskPolicy) -> Shown:
    shown = Shown(chosen, as_unicode(sample_name(chosen.sample, dataset.root)))
    try:
        read = read_sample(chosen.sample, policy=policy)
    except FapromptError as error:
        shown.error = as_unicode(str(error))
        return shown
    shown.error = as_unicode(read.error)
    if read.image is not None:
        nothing = np.zeros(read.image.shape[:2], np.float32)
        shown.image, _, shown.mask = fit_panel(read.image, nothing, read.mask)
    return shown


def _evaluate(plan: Plan, context: RunContext) -> dict[str, CellResult]:
    """Evaluate the methods whose failures are shown; finished cells are kept."""
    options = plan.config.gallery
    if options is None or not options.failures:
        return {}
    titles = {plan.titles[label] for label in options.failures_of}
    cells = tuple(cell for cell in plan.cells if cell.column.method.title in titles)
    results = run_benchmark(replace(plan, cells=cells), context)
    return {result.cell.name: result for result in results}


def _add_method(gallery: Gallery, name: str, detector: Detector, policy: MaskPolicy) -> None:
    """Score every picture with a method."""
    gallery.methods.append(name)
    for shown in gallery.pictures:
        if not shown.error:
            shown.views[name] = _view(detector, shown, policy)


def _view(detector: Detector, shown: Shown, policy: MaskPolicy) -> View:
    sample = shown.chosen.sample
    read = read_sample(sample, policy=policy)
    assert read.image is not None and shown.image is not None, "it could be read before"
    (result,) = detector.predict_batch([read.image], class_names=[sample.class_name])
    overlap = None
    if read.mask is not None and read.mask.any():
        overlap = map_overlap(result.score_map, read.mask)
    _, small_map, _ = fit_panel(read.image, result.score_map, None)
    return View(result.score, overlap, outlined(overlay(shown.image, small_map), shown.mask))


def _add_failures(
    gallery: Gallery, name: str, detector: Detector, result: CellResult, config: EvaluationConfig
) -> None:
    """Draw the worst mistakes of an evaluated cell."""
    if result.status != "done" or result.folder is None:
        raise ConfigError(f"failures are not shown: {result.reason}")
    dataset = gallery.dataset
    evaluation = Evaluation(
        dataset=dataset.name, model=detector.name, method=detector.method.name,
        backbone=detector.backbone.name, config=config, classes={}, curves={},
        images=read_scores(result.folder / "scores.csv", dataset), environment={},
        root=dataset.root,
    )  # fmt: skip
    write_gallery(detector, evaluation, gallery.failures[name])


def _column(cell: Cell, plan: Plan) -> str:
    seed = f", seed {cell.seed}" if cell.seed is not None and len(plan.config.seeds) > 1 else ""
    return f"{cell.column.title}{seed}"


def _number(text: str) -> float | None:
    return float(text) if text else None
