"""Fig. 1: the maps of each prompt as points in the plane, and how far they lie apart in numbers.

The benchmark behind the study comes first, as in every study: its trainings are those of
`seeds` where both share a work folder, and its metrics stand beside the spread. Then every
model maps the same pictures of each dataset.

OUT/maps/<cell>.json                    one model on one dataset; the same call goes on from these
OUT/spread/<dataset>/prompt-maps.*      CSV, SVG, PNG: every map as a point
OUT/spread/<dataset>/prompt-spread.*    CSV, SVG, PNG: the numbers
OUT/study.md                            both, what they say of the paper's finding, and the metrics
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faprompt.detector import Detector
from faprompt.errors import ConfigError, FapromptError
from faprompt.files import write_atomically
from faprompt.reproduce.benchmark_plan import Cell, Plan, slug
from faprompt.reproduce.benchmark_run import CellResult
from faprompt.reproduce.cell_detectors import detector_source
from faprompt.reproduce.shared_features import SharedFeatures
from faprompt.reproduce.spread import (
    MapPoint,
    PromptSpread,
    SpreadRow,
    embed_model,
    gather_prompt_maps,
    measure_model,
    over_models,
    spaced_samples,
)
from faprompt.reproduce.spread_figure import POINTS, redraw_spread, write_spread
from faprompt.reproduce.spread_words import spread_sections
from faprompt.reproduce.study_config import SpreadOptions
from faprompt.reproduce.study_figure import CSV_NAME, redraw
from faprompt.reproduce.study_plan import StudyPlan
from faprompt.reproduce.study_run import STUDY_FILE, StudyResult, feature_limit, run_study
from faprompt.work import ProgressCallback, logger, no_progress

SPREADS, MAPS, FEATURES = "spread", "maps", "map-features"
_SEED = 0  # of the bootstrap and the t-SNE; not that of a training


@dataclass(frozen=True, slots=True)
class SpreadResult:
    """What a study of the prompts' maps found."""

    study: StudyResult
    spreads: dict[str, PromptSpread]  # by folder below OUT/spread
    lacking: tuple[str, ...]  # models that were not mapped, and why
    markdown: str

    @property
    def complete(self) -> bool:
        """Whether every run ended, read all its pictures and was mapped."""
        return self.study.complete and not self.lacking

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every number as plain data."""
        return [
            {"dataset": found.dataset, **asdict(row)}
            for found in self.spreads.values()
            for row in found.rows
        ]


@dataclass(frozen=True, slots=True)
class ModelMaps:
    """The numbers and, where they are to be drawn, the points of one model on one dataset."""

    rows: tuple[SpreadRow, ...]
    points: tuple[MapPoint, ...]


def run_spread(
    study: StudyPlan,
    out: Path,
    *,
    work: Path | None = None,
    data_root: Path | None = None,
    device: str = "cpu",
    precision: str = "",
    progress: ProgressCallback = no_progress,
) -> SpreadResult:
    """Run the benchmark, then map what is not mapped yet; arguments as in `run_study`.

    Raises:
        ConfigError: the study has no table `[spread]`.
        KeyboardInterrupt: passed on; the same call goes on from there.
    """
    options = study.config.spread
    if options is None:
        raise ConfigError(f"{study.config.name} has no table [spread].")
    work = work or out
    common: dict[str, Any] = {
        "device": device, "precision": precision, "progress": progress,
    }  # fmt: skip
    result = run_study(study, out, work=work, data_root=data_root, **common)
    shared = SharedFeatures(work / FEATURES, limit_bytes=feature_limit(study.plan))
    pick = detector_source(study.plan, work, prepare=shared.attach, **common)
    spreads, lacking = _map_all(result.results, study.plan, options, pick, out)
    shared.clear()
    for folder, found in spreads.items():
        write_spread(found, out / SPREADS / folder)
    markdown = _page(study, result, spreads, lacking)
    write_atomically(out / STUDY_FILE, markdown.encode("utf-8", errors="replace"))
    return SpreadResult(result, spreads, lacking, markdown)


def redraw_study(folder: Path) -> tuple[Path, ...]:
    """Draw all figures of a study anew from the CSV files beside them.

    Raises:
        ConfigError: there is no such file, or one is none of ours.
    """
    spreads = sorted(path.parent for path in (folder / SPREADS).glob(f"*/{POINTS}.csv"))
    paths = redraw(folder) if not spreads or (folder / CSV_NAME).is_file() else ()
    return (*paths, *(path for place in spreads for path in redraw_spread(place)))


def describe_mapping(plan: Plan, options: SpreadOptions) -> str:
    """What comes after the benchmark of a dry run, which its estimate leaves out."""
    models = len({(cell.column.title, cell.seed) for cell in plan.cells})
    return (
        f"then up to {2 * options.per_label} pictures of each dataset are mapped prompt by prompt "
        f"by {models} models and measured; one pass over them serves all that read them alike"
    )


def _map_all(
    results: Iterable[CellResult],
    plan: Plan,
    options: SpreadOptions,
    pick: Callable[[Cell], Detector],
    out: Path,
) -> tuple[dict[str, PromptSpread], tuple[str, ...]]:
    """Folder -> spread of each dataset and backbone, and what could not be mapped."""
    drawn = set(plan.config.seeds[: options.embedded]) | {None}
    found: dict[str, list[ModelMaps]] = {}
    names, lacking = {}, []
    for result in results:
        cell = result.cell
        folder = _folder(cell, several=len(plan.config.backbones) > 1)
        names[folder] = cell.source.entry.title
        try:
            if result.status != "done":
                raise ConfigError(result.reason)
            made = _maps_of(result, options, pick, out, drawn=cell.seed in drawn)
            found.setdefault(folder, []).append(made)
        except FapromptError as error:
            lacking.append(f"{cell.name} was not mapped: {str(error).rstrip('.')}.")
        logger.info(lacking[-1] if lacking and cell.name in lacking[-1] else f"mapped {cell.name}")
    titles = [column.method.title for column in plan.columns]
    spreads = {folder: _together(names[folder], made, titles) for folder, made in found.items()}
    return spreads, tuple(lacking)


def _folder(cell: Cell, *, several: bool) -> str:
    dataset = slug(cell.source.entry.key)
    return f"{dataset}__{slug(cell.column.backbone or 'model')}" if several else dataset


def _maps_of(
    result: CellResult,
    options: SpreadOptions,
    pick: Callable[[Cell], Detector],
    out: Path,
    *,
    drawn: bool,
) -> ModelMaps:
    """One model on one dataset, measured or as an earlier run left it."""
    cell = result.cell
    place = out / MAPS / f"{cell.name}.json"
    identity = {
        "cell": (result.record or {})["fingerprint"], "per_label": options.per_label,
        "replicates": options.replicates, "seed": _SEED, "drawn": drawn,
    }  # fmt: skip
    kept = _read(place, identity)
    if kept is not None:
        return kept
    dataset = cell.source.read()
    maps = gather_prompt_maps(
        pick(cell), spaced_samples(dataset.samples, per_label=options.per_label)
    )
    name = cell.column.method.title
    model = name if cell.seed is None else f"seed {cell.seed}"
    rows = measure_model(
        maps, name, model, root=dataset.root, replicates=options.replicates, seed=_SEED
    )
    points = embed_model(maps, name, model, root=dataset.root, seed=_SEED) if drawn else []
    made = ModelMaps(tuple(rows), tuple(points))
    place.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"identity": identity, **asdict(made)}) + "\n"
    write_atomically(place, text.encode("utf-8", errors="surrogateescape"))
    return made


def _read(place: Path, identity: dict[str, Any]) -> ModelMaps | None:
    try:
        told = json.loads(place.read_text(encoding="utf-8", errors="surrogateescape"))
        if told["identity"] != identity:
            return None
        rows = tuple(SpreadRow(**row) for row in told["rows"])
        return ModelMaps(rows, tuple(MapPoint(**point) for point in told["points"]))
    except (OSError, ValueError, KeyError, TypeError):  # absent, cut off or another program's
        return None


def _together(dataset: str, made: Sequence[ModelMaps], titles: Sequence[str]) -> PromptSpread:
    """All models of a dataset, method by method and with means; points seed by seed."""
    rows = [row for each in made for row in each.rows]
    rows = sorted([*rows, *over_models(rows)], key=lambda row: titles.index(row.method))
    points = [point for each in made for point in each.points]
    models = list(dict.fromkeys(point.model for point in points))
    points.sort(key=lambda p: (models.index(p.model), titles.index(p.method)))
    return PromptSpread(dataset, tuple(rows), tuple(points))


def _page(
    study: StudyPlan,
    result: StudyResult,
    spreads: dict[str, PromptSpread],
    lacking: Sequence[str],
) -> str:
    """The study's page, with the spread between the paper's finding and what models detect."""
    parts = result.markdown.rstrip("\n").split("\n\n")
    head = 2 if study.config.paper else 1
    options = study.config.spread
    assert options is not None
    pair = study.titles[options.wide], study.titles[options.narrow]
    said = [*spread_sections(spreads, pair), *lacking, "## What the same models detect"]
    return "\n\n".join([*parts[:head], *said, *parts[head:]]) + "\n"
