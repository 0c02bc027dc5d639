"""Run the study of Fig. 1: the maps of each prompt as points in a plane, and their distance.

The benchmark behind the study runs first, as in every study. Then every model scores the same
pictures of each dataset prompt by prompt.

OUT/maps/<cell>.json                    one model on one dataset; the same call continues from these
OUT/spread/<dataset>/prompt-maps.*      CSV, SVG, PNG: every map as a point
OUT/spread/<dataset>/prompt-spread.*    CSV, SVG, PNG: the distances
OUT/study.md                            the claims, both figures, and the metrics
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.errors import ConfigError, FapromptError
from faprompt.files import write_atomically
from faprompt.reproduce.cell_identity import read_record, write_record
from faprompt.reproduce.cell_runner import CellRunner, RunContext
from faprompt.reproduce.cells import Cell, Plan, slug
from faprompt.reproduce.experiment_parts import SpreadOptions
from faprompt.reproduce.prompt_maps import SEED, MapPoint, ModelMaps, map_prompts
from faprompt.reproduce.spread_figure import (
    POINTS,
    SPREAD,
    distance_dots,
    redraw_spread,
    write_spread,
)
from faprompt.reproduce.study_claims import (
    Difference,
    claim_rows,
    mean_interval,
    to_markdown,
    welch_interval,
)
from faprompt.reproduce.study_figure import CSV_NAME, redraw
from faprompt.reproduce.study_run import STUDY_FILE, StudyResult, run_study, tested_tokens
from faprompt.work import load_extra, logger

SPREADS, MAPS, FEATURES = "spread", "maps", "map-features"
LEGEND = (
    "The distance of two prompts' maps of a picture is the root mean square difference over the "
    "patches, on the scale 0 to 1 of scores; it is averaged over all pairs of prompts and over the "
    "pictures. Differences have 95 % intervals: over seeds (Welch) where both methods have "
    "several, else over pictures (paired t). A t-SNE shows which maps are neighbours. Distances "
    "in it mean little, and its panels cannot be compared with one another."
)


@dataclass(frozen=True, slots=True)
class SpreadResult:
    """The result of a study of the prompts' maps."""

    study: StudyResult
    spreads: Mapping[str, tuple[ModelMaps, ...]]  # folder below OUT/spread -> its models
    lacking: tuple[str, ...]  # models that were not mapped, and why
    markdown: str

    @property
    def complete(self) -> bool:
        """Return whether every run ended, read all its pictures and was mapped."""
        return self.study.complete and not self.lacking

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return every distance as plain data."""
        return [
            {"dataset": folder, **dot.row()}
            for folder, models in self.spreads.items()
            for dot in distance_dots(models)
        ]


def run_spread(plan: Plan, context: RunContext) -> SpreadResult:
    """Run the methods, then map what is not mapped yet.

    Raises:
        ConfigError: the study has no table `[spread]`.
        MissingExtraError: matplotlib or scikit-learn is not installed.
        KeyboardInterrupt: passed on; the same call continues.
    """
    config, options, out = plan.config, plan.config.spread, context.out
    if options is None:
        raise ConfigError(f"{config.name} has no table [spread].")
    for module in ("matplotlib", "sklearn"):
        load_extra("figures", module)
    result = run_study(plan, context)
    tokens = tested_tokens(plan, context, FEATURES)
    runner = CellRunner(plan, context, tokens=tokens)
    embedded = {*config.seeds[: options.embedded], None}
    spreads: dict[str, list[ModelMaps]] = {}
    lacking = []
    for each in result.results:
        cell = each.cell
        try:
            if each.status != "done":
                raise ConfigError(each.reason)
            identity = {
                "cell": (each.record or {})["fingerprint"], "per_label": options.per_label,
                "seed": SEED, "drawn": cell.seed in embedded,
            }  # fmt: skip
            file = out / MAPS / f"{cell.name}.json"
            maps = _read(file, identity)
            if maps is None:
                title = cell.column.method.title
                maps = map_prompts(
                    runner.detector(cell), cell.source.read(), per_label=options.per_label,
                    method=title, model=title if cell.seed is None else f"seed {cell.seed}",
                    embedded=identity["drawn"],
                )  # fmt: skip
                write_record(file, {"identity": identity, **asdict(maps)})
            folder = spread_folder(cell, several=len(config.backbones) > 1)
            spreads.setdefault(folder, []).append(maps)
            logger.info(f"mapped {cell.name}")
        except FapromptError as error:
            lacking.append(f"{cell.name} was not mapped: {str(error).rstrip('.')}.")
            logger.info(lacking[-1])
    tokens.clear()
    titles = [column.method.title for column in plan.columns]
    for folder, models in spreads.items():
        models.sort(key=lambda maps: titles.index(maps.method))
        write_spread(models, out / SPREADS / folder)
    markdown = _page(plan, result, spreads, lacking)
    write_atomically(out / STUDY_FILE, markdown.encode("utf-8", errors="replace"))
    done = {folder: tuple(models) for folder, models in spreads.items()}
    return SpreadResult(result, done, tuple(lacking), markdown)


def redraw_study(folder: Path) -> tuple[Path, ...]:
    """Draw all figures of a study anew from the CSV files beside them.

    Raises:
        ConfigError: there is no such file, or one is not of a study.
    """
    spreads = sorted(path.parent for path in (folder / SPREADS).glob(f"*/{POINTS}.csv"))
    paths = redraw(folder) if not spreads or (folder / CSV_NAME).is_file() else ()
    return (*paths, *(path for place in spreads for path in redraw_spread(place)))


def describe_mapping(plan: Plan, options: SpreadOptions) -> str:
    """Return a line for a dry run on what follows the benchmark and its estimate."""
    models = len({(cell.column.title, cell.seed) for cell in plan.cells})
    return (
        f"then up to {2 * options.per_label} pictures of each dataset are mapped prompt by prompt "
        f"by {models} models and measured; one pass over them serves all that read them alike"
    )


def spread_folder(cell: Cell, *, several: bool) -> str:
    """Return the folder of a cell's dataset below `spread`, with its backbone where several are."""
    dataset = slug(cell.source.entry.key)
    return f"{dataset}__{slug(cell.column.backbone or 'model')}" if several else dataset


def distance_difference(
    models: Sequence[ModelMaps], wide: str, narrow: str, where: str
) -> Difference | None:
    """Return the mean distance of one method less that of another; None where one has none.

    The models are of one dataset, `where`, and all on the same pictures.
    """
    both = [
        np.array([maps.distances for maps in models if maps.method == method and maps.distances])
        for method in (wide, narrow)
    ]
    if not (len(both[0]) and len(both[1])):
        return None
    value = float(both[0].mean() - both[1].mean())
    name = f"distance on {where}: {wide} less {narrow}"
    by_seed = welch_interval(*(each.mean(axis=1).tolist() for each in both))
    if by_seed is not None:
        return Difference(name, value, by_seed, "seeds")
    pictures = both[0].mean(axis=0) - both[1].mean(axis=0)
    interval = mean_interval(pictures.tolist())
    return Difference(name, value, interval, "pictures")


def _read(path: Path, identity: Mapping[str, Any]) -> ModelMaps | None:
    record = read_record(path, identity=identity)
    if record is None:
        return None
    try:
        points = tuple(MapPoint(**point) for point in record["points"])
        labels, distances = tuple(record["labels"]), tuple(record["distances"])
        return ModelMaps(record["method"], record["model"], labels, distances, points)
    except (KeyError, TypeError):  # of another version
        return None


def _page(
    plan: Plan,
    result: StudyResult,
    spreads: Mapping[str, Sequence[ModelMaps]],
    lacking: Sequence[str],
) -> str:
    """Put the claim, the figures and what is missing before the page of the benchmark."""
    options = plan.config.spread
    assert options is not None
    wide, narrow = plan.titles[options.wide], plan.titles[options.narrow]
    compared = (distance_difference(m, wide, narrow, where) for where, m in spreads.items())
    differences = [each for each in compared if each is not None]
    text = f"the prompts' maps of {wide} lie farther apart than those of {narrow}"
    rows = list(claim_rows(text, differences, scale=1, form=".3g"))
    parts = [to_markdown([("claim", "holds", "difference (95 % interval)"), *rows]), LEGEND]
    for folder, models in spreads.items():
        labels = models[0].labels
        pictures = f"{labels.count(0)} normal and {labels.count(1)} anomalous pictures"
        parts += [f"## The prompts' maps on {folder}", f"Measured on {pictures}."]
        parts.append(f"![t-SNE of the maps on {folder}]({SPREADS}/{folder}/{POINTS}.svg)")
        if any(maps.distances for maps in models):
            parts.append(f"![distances on {folder}]({SPREADS}/{folder}/{SPREAD}.svg)")
    page = result.markdown.rstrip("\n").split("\n\n")
    head = 2 if plan.config.paper else 1
    parts += [*lacking, "## What the same models detect"]
    return "\n\n".join([*page[:head], *parts, *page[head:]]) + "\n"
