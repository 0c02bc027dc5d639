"""A study from its runs to its files. What is finished is kept; the same call goes on.

OUT/figure.csv .svg .png   the figure, ours and the paper's together; drawn from the CSV alone
OUT/table.md .csv .tex .html   all figures of the benchmark behind it
OUT/costs.csv              a line per training: pictures encoded, seconds
OUT/study.md               the paragraph, the figure, the tables and what it cost
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faprompt.config import from_mapping
from faprompt.files import write_atomically
from faprompt.reproduce.benchmark_plan import Plan
from faprompt.reproduce.benchmark_run import CellResult, run_benchmark
from faprompt.reproduce.estimate import Rate, count_pictures
from faprompt.reproduce.figure_dots import Dot, study_dots
from faprompt.reproduce.result_tables import write_tables
from faprompt.reproduce.shared_features import CostBook, SharedFeatures
from faprompt.reproduce.study_claims import claims_section
from faprompt.reproduce.study_figure import write_figure
from faprompt.reproduce.study_plan import StudyPlan
from faprompt.training.config import WORK_OPTIONS, TrainingConfig
from faprompt.work import ProgressCallback, logger, no_progress

STUDY_FILE, COSTS_FILE, FEATURES = "study.md", "costs.csv", "features"


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What a study found."""

    results: tuple[CellResult, ...]
    dots: tuple[Dot, ...]
    markdown: str

    @property
    def complete(self) -> bool:
        """Whether every run ended and read all its pictures."""
        return all(r.status == "done" and not (r.record or {})["unreadable"] for r in self.results)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every dot as plain data, a bootstrap's replicates apart."""
        return [dot.row() for dot in self.dots]


def run_study(
    study: StudyPlan,
    out: Path,
    *,
    work: Path | None = None,
    data_root: Path | None = None,
    device: str = "cpu",
    precision: str = "",
    progress: ProgressCallback = no_progress,
) -> StudyResult:
    """Run what is not finished yet, and write the study's files.

    Args:
        study: of `build_study`.
        out: gets the files named above.
        work: gets cells and models; studies may share one. Default: `out`.
        data_root: as for `build_study`.
        device, precision, progress: as in `run_benchmark`.

    Raises:
        KeyboardInterrupt: passed on, after the files were written from what there is.
    """
    work = work or out
    book = CostBook(out / COSTS_FILE)
    shared = SharedFeatures(work / FEATURES, limit_bytes=feature_limit(study.plan))
    found: dict[str, CellResult] = {}
    try:
        run_benchmark(
            study.plan, work, device=device, precision=precision,
            progress=progress, results=found, prepare=shared.attach, trained=book.add,
        )  # fmt: skip
    except KeyboardInterrupt:
        write_study(study, found.values(), out, book, data_root=data_root)
        raise
    result = write_study(study, found.values(), out, book, data_root=data_root)
    logger.info(
        f"tested pictures: {shared.encoded} encoded in {shared.seconds:.1f} s, "
        f"{shared.reused} taken from those"
    )
    if result.complete:
        shared.clear()
    return result


def write_study(
    study: StudyPlan,
    results: Iterable[CellResult],
    out: Path,
    book: CostBook,
    *,
    data_root: Path | None = None,
) -> StudyResult:
    """All files of a study, from the results there are."""
    results = tuple(results)
    out.mkdir(parents=True, exist_ok=True)
    dots = study_dots(study, results, data_root=data_root)
    tables = write_tables(study.plan, results, out)
    write_figure(dots, out)
    markdown = to_markdown(study, dots, tables, book)
    write_atomically(out / STUDY_FILE, markdown.encode("utf-8", errors="replace"))
    return StudyResult(results, dots, markdown)


def to_markdown(study: StudyPlan, dots: tuple[Dot, ...], tables: str, book: CostBook) -> str:
    """The page of a study; `tables` is the Markdown of its benchmark."""
    parts = [f"# {study.config.title}", *claims_section(study.config, dots)]
    if dots:
        parts.append("![figure](figure.svg)")
    parts += _cost_lines(book)
    parts.append(tables.partition("\n")[2].strip())
    return "\n\n".join(parts) + "\n"


def feature_limit(plan: Plan) -> float:
    """Bytes of tested pictures' tokens to keep, by the training's own switch and limit."""
    given = plan.config.training
    told = {name: value for name, value in given.items() if name in WORK_OPTIONS}
    training = from_mapping(TrainingConfig, told, what="[training]")  # no recipe says these
    return 0.0 if training.cache == "off" else 1e9 * training.cache_limit_gb


def describe_sharing(plan: Plan) -> str:
    """How much the estimate of a dry run leaves out: all runs share one pass of the pictures."""
    counts = [count_pictures(source) or 0 for source in plan.sources]
    needed = max(counts, default=0) * Rate().token_bytes
    kept = min(needed, feature_limit(plan)) / 1e9
    return (
        f"one pass over {sum(counts):,} tested pictures serves all runs that read them alike; of "
        f"one dataset at a time, up to {kept:.1f} GB of tokens lie in WORK/{FEATURES} meanwhile"
    )


def _cost_lines(book: CostBook) -> list[str]:
    if not book.rows:
        return []
    row: Any = next(iter(book.rows.values()))
    return [
        f"Cost: {len(book.rows)} trainings encoded {book.total('encoded'):.0f} pictures in all "
        f"(a training set has {row['pictures']}) in {book.total('image_seconds'):.1f} s, and took "
        f"{book.total('steps'):.0f} steps in {book.total('step_seconds'):.1f} s."
    ]
