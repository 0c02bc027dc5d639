"""Run a study to its files. What is finished is kept; the same call continues.

OUT/figure.csv .svg .png   the figure, ours and the paper's together; drawn from the CSV alone
OUT/table.md .csv .tex .html   all figures of its methods
OUT/costs.csv              a line per training: pictures encoded, seconds
OUT/study.md               what the figure says of the claims, the tables and what it cost
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faprompt.config import from_mapping
from faprompt.files import csv_table, write_atomically
from faprompt.reproduce.cell_runner import CellResult, RunContext, run_benchmark
from faprompt.reproduce.cells import Cell, Plan
from faprompt.reproduce.estimate import Rate, count_pictures
from faprompt.reproduce.figure_dots import Dot, study_dots
from faprompt.reproduce.study_claims import claims_section
from faprompt.reproduce.study_figure import write_figure
from faprompt.reproduce.table_files import write_tables
from faprompt.reproduce.tested_tokens import TestedTokens
from faprompt.training.training_config import WORK_OPTIONS, TrainingConfig
from faprompt.training.training_steps import TrainingReport
from faprompt.work import logger

STUDY_FILE, COSTS_FILE, FEATURES = "study.md", "costs.csv", "features"
_COSTS = (
    "run", "backbone", "trained_on", "seed", "pictures",
    "encoded",  # pictures that went through the image tower; 0 where the cache had all
    "image_seconds", "steps", "step_seconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What a study found."""

    results: tuple[CellResult, ...]
    dots: tuple[Dot, ...]
    markdown: str

    @property
    def complete(self) -> bool:
        """Whether every run ended and read all its pictures."""
        return all(result.complete for result in self.results)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every dot as plain data, without the bootstrap's replicates."""
        return [dot.row() for dot in self.dots]


class CostBook:
    """`costs.csv`: a line per training, kept over interruptions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[tuple[str, ...], dict[str, Any]] = {}
        if path.is_file():
            for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
                self._keep(row)

    def add(self, cell: Cell, report: TrainingReport) -> None:
        """Write a training down; see `trained` of `run_benchmark`."""
        assert cell.trained_on is not None
        about = (cell.column.method.title, cell.column.backbone, cell.trained_on.entry.key,
                 cell.seed, report.pictures, report.encoded, round(report.image_seconds, 3),
                 report.steps, round(report.step_seconds, 3))  # fmt: skip
        self._keep(dict(zip(_COSTS, about, strict=True)))
        text = csv_table([_COSTS, *([row[name] for name in _COSTS] for row in self.rows.values())])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, text.encode())

    def _keep(self, row: dict[str, Any]) -> None:
        self.rows[tuple(str(row[name]) for name in _COSTS[:4])] = row

    def lines(self) -> list[str]:
        """Return a sentence on all trainings; none where there was none."""
        if not self.rows:
            return []
        pictures = next(iter(self.rows.values()))["pictures"]
        total = {n: sum(float(row[n]) for row in self.rows.values()) for n in _COSTS[5:]}
        return [
            f"Cost: {len(self.rows)} trainings encoded {total['encoded']:.0f} pictures in all "
            f"(a training set has {pictures}) in {total['image_seconds']:.1f} s, and took "
            f"{total['steps']:.0f} steps in {total['step_seconds']:.1f} s."
        ]


def run_study(plan: Plan, context: RunContext) -> StudyResult:
    """Run what is not finished yet, and write the study's files.

    Raises:
        KeyboardInterrupt: passed on, after the files were written from what there is.
    """
    book = CostBook(context.out / COSTS_FILE)
    tokens = tested_tokens(plan, context, FEATURES)
    found: dict[str, CellResult] = {}
    try:
        run_benchmark(plan, context, results=found, tokens=tokens, trained=book.add)
    except KeyboardInterrupt:
        write_study(plan, found.values(), context.out, book)
        raise
    result = write_study(plan, found.values(), context.out, book)
    logger.info(
        f"tested pictures: {tokens.encoded} encoded in {tokens.seconds:.1f} s, "
        f"{tokens.reused} taken from those"
    )
    if result.complete:
        tokens.clear()
    return result


def write_study(
    plan: Plan, results: Iterable[CellResult], out: Path, book: CostBook
) -> StudyResult:
    """Write all files of a study, from the results there are."""
    results = tuple(results)
    out.mkdir(parents=True, exist_ok=True)
    dots = study_dots(plan, results)
    tables = write_tables(plan, results, out)
    write_figure(dots, out)
    figure = ["![figure](figure.svg)"] if dots else []
    said = claims_section(plan.config, dots)
    parts = [f"# {plan.config.title}", *said, *figure, *book.lines()]
    markdown = "\n\n".join([*parts, tables.partition("\n")[2].strip()]) + "\n"
    write_atomically(out / STUDY_FILE, markdown.encode("utf-8", errors="replace"))
    return StudyResult(results, dots, markdown)


def tested_tokens(plan: Plan, context: RunContext, name: str) -> TestedTokens:
    """Return a cache of tested pictures' tokens in a folder of the work folder."""
    return TestedTokens(context.work_folder / name, limit_bytes=_token_limit(plan))


def describe_sharing(plan: Plan) -> str:
    """Tell what the estimate of a dry run leaves out: all runs share one pass of the pictures."""
    counts = [count_pictures(source) or 0 for source in plan.sources]
    kept = min(max(counts, default=0) * Rate().token_bytes, _token_limit(plan)) / 1e9
    return (
        f"one pass over {sum(counts):,} tested pictures serves all runs that read them alike; of "
        f"one dataset at a time, up to {kept:.1f} GB of tokens lie in WORK/{FEATURES} meanwhile"
    )


def _token_limit(plan: Plan) -> float:
    """Return the bytes of tokens to keep, by the options of the training's cache."""
    given = plan.config.training
    shared = {name: value for name, value in given.items() if name in WORK_OPTIONS}
    training = from_mapping(TrainingConfig, shared, what="[training]")  # no recipe sets these
    return 0.0 if training.cache == "off" else 1e9 * training.cache_limit_gb
