"""Measure calibrated verdicts on real pictures: false alarms and detection over random splits.

    python scripts/measure_calibration.py tiles=DIR,DIR brain=DIR [--splits 50] [--table]

Each NAME=DIR,... is a set of labelled folders; copies of a picture count once. In every split,
n random good pictures calibrate; the other good ones and all defective ones are measured, by the
score alone and with K of the n kept as references. Each picture goes through the model once;
thresholds, references and joined scores come from the package's own functions, and one split of
each set is checked against `calibrate` and `predict`. Writes docs/calibration-real.csv,
docs/calibration-join.csv and the tables of docs/calibration.md; a set that is not named keeps its
rows, and `--table` writes the tables alone, from the CSVs that are there.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faprompt import Detector, load_detector
from faprompt.calibration import order_statistic, pictures_needed
from faprompt.data import read_dataset
from faprompt.errors import ConfigError
from faprompt.files import csv_table, file_digest, write_atomically
from faprompt.imaging import read_image
from faprompt.imaging.map_rendering import TOP_SHARE
from faprompt.inspection import CalibrateOptions, calibrate
from faprompt.inspection.calibration_run import candidate_count
from faprompt.metrics import auroc
from faprompt.records import Sample
from faprompt.references import (
    REFERENCE_WEIGHT,
    ReferenceBank,
    References,
    farthest_first,
)
from faprompt.scoring import nearest_distance

ROOT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT))
from scripts.make_tables import fill  # noqa: E402

PAGE = ROOT / "docs" / "calibration.md"
CSV, JOIN_CSV = ROOT / "docs" / "calibration-real.csv", ROOT / "docs" / "calibration-join.csv"
SEED = 14
COUNTS, RATES = (50, 99, 150), (0.01, 0.05)
REFERENCES = (1, 2, 4, 8)
ORDERS = ("as calibrate", "random", "file order", "farthest first of all")
LEAST_LEFT = 20  # good pictures that a split leaves to be measured
JOIN_SPLITS, BATCH = 20, 8
ALL = "all"  # kinds of defects
WEIGHTS, SHARES = (0.25, 0.5, 0.75, 1.0), (0.01, 0.02, 0.05)


@dataclass(frozen=True)
class Stored:
    """What the model gave for every picture of a set, N pictures of P patches."""

    name: str
    samples: tuple[Sample, ...]
    scores: Tensor  # (N,) of the text
    patch_maps: Tensor  # (N, rows, columns) of the text
    features: Tensor  # (N, D) class tokens
    tokens: Mapping[int, Tensor]  # layer of the image tower -> (N, P, D)
    own_layers: tuple[int, ...]  # the layers that the method computes
    _near: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    _typical: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.patch_maps.shape[1], self.patch_maps.shape[2]

    @property
    def labels(self) -> np.ndarray:
        """(N,) 0 for good pictures, 1 for defective ones."""
        return np.array([sample.label for sample in self.samples])

    def bank(self, rows: Sequence[int], layers: Sequence[int] | None = None) -> ReferenceBank:
        """The memory of these pictures."""
        kept = self.own_layers if layers is None else layers
        return ReferenceBank.of(
            {str(row): [{layer: self.tokens[layer][row].numpy() for layer in kept}] for row in rows}
        )

    def typical(self, rows: tuple[int, ...], layers: tuple[int, ...]) -> float:
        """`ReferenceBank.typical` of these pictures."""
        if (rows, layers) not in self._typical:
            self._typical[rows, layers] = self.bank(rows, layers).typical
        return self._typical[rows, layers]

    def distances(self, rows: Sequence[int], layers: Sequence[int] | None = None) -> Tensor:
        """`ReferenceBank.distances` (N, P) of all pictures to these, from one picture at a time."""
        kept = self.own_layers if layers is None else layers
        nearest = [torch.stack([self._to(r, layer) for r in rows]).amin(0) for layer in kept]
        return torch.stack(nearest).mean(0)

    def _to(self, row: int, layer: int) -> Tensor:
        if (row, layer) not in self._near:
            tokens = self.tokens[layer]
            stored = tokens[row].half().float()  # as a memory keeps it
            parts = [nearest_distance(part, stored) for part in tokens.split(64)]
            self._near[row, layer] = torch.cat(parts)
        return self._near[row, layer]


@torch.inference_mode()
def store(detector: Detector, name: str, samples: Sequence[Sample]) -> Stored:
    """Run the model once on every picture."""
    options = replace(detector.method.image_options, layers=None)
    every = replace(options, layers=(detector.backbone.spec.vision.layers // 2,))
    own: list[tuple[Tensor, ...]] = []
    tokens: dict[int, list[Tensor]] = {}
    layers: tuple[int, ...] = ()
    for start in range(0, len(samples), BATCH):
        images = [read_image(s.image_path).array for s in samples[start : start + BATCH]]
        pixels = torch.stack([detector.to_pixels(image) for image in images])
        features = detector.encode_image(pixels)
        output = detector.score_features(features)
        own.append((output.score, output.patch_map, features.class_token))
        layers = tuple(sorted(features.patch_tokens))
        found = {**detector.backbone.encode_image(pixels, every).patch_tokens}
        for layer, each in (found | dict(features.patch_tokens)).items():
            tokens.setdefault(layer, []).append(each)
    scores, patch_maps, class_tokens = (torch.cat(parts) for parts in zip(*own, strict=True))
    joined = {layer: torch.cat(parts) for layer, parts in tokens.items()}
    return Stored(name, tuple(samples), scores, patch_maps, class_tokens, joined, layers)


@dataclass(frozen=True)
class Split:
    """Rows of one split, in the random order of the draw."""

    pool: tuple[int, ...]  # the n good pictures
    others: tuple[int, ...]  # good pictures that are measured


def split(stored: Stored, count: int, number: int) -> Split:
    """Draw a split; splits of one number and of several counts share their order."""
    good = np.flatnonzero(stored.labels == 0)
    order = np.random.default_rng([SEED, number]).permutation(good).tolist()
    return Split(tuple(order[:count]), tuple(order[count:]))


@dataclass(frozen=True)
class Choice:
    """The references of a split, and the good pictures that calibrate beside them."""

    references: tuple[int, ...]
    calibrating: tuple[int, ...]


def choose(stored: Stored, pool: Sequence[int], count: int, order: str) -> Choice:
    """Choose references among the pool in one of `ORDERS`; only "as calibrate" sets others aside.

    Raises:
        ConfigError: so few pictures state none of the rates.
    """
    if not count:
        return Choice((), tuple(pool))
    aside = chosen = list(pool[:count])
    if order == "as calibrate":
        aside = list(pool[: candidate_count(len(pool), options_for(len(pool), count))])
        chosen = [aside[i] for i in farthest_first(stored.features[aside].numpy(), count)]
    elif order != "random":
        rows = sorted(pool)  # the order of the files
        first = list(range(count))
        if order == "farthest first of all":
            first = farthest_first(stored.features[rows].numpy(), count)
        aside = chosen = [rows[i] for i in first]
    return Choice(tuple(chosen), tuple(row for row in pool if row not in aside))


def options_for(pictures: int, references: int) -> CalibrateOptions:
    """The lowest of the rates that so many pictures can state, and the highest for REVIEW."""
    able = [rate for rate in RATES if pictures - references >= pictures_needed(rate)]
    target = min(able, default=max(RATES))
    return CalibrateOptions(references=references, target_fpr=target, review_fpr=max(RATES))


def joined_scores(stored: Stored, rows: Sequence[int]) -> np.ndarray:
    """The scores (N,) of all pictures with these references; of the text alone without any."""
    if not rows:
        return stored.scores.double().numpy()
    bank, distance = stored.bank(rows), stored.distances(rows)  # twice as fast as bank.surprise
    surprise = distance / (distance + bank.typical)
    parts = (stored.scores, stored.patch_maps, surprise)
    joined = References({"": bank}).join(*(part.numpy() for part in parts), stored.grid)
    return joined[0].astype(np.float64)


@dataclass(frozen=True)
class Outcome:
    """Rates of one split; None where so few pictures cannot state the rate."""

    auroc: float
    false_alarms: Mapping[float, float]  # stated rate -> share of the other good pictures
    detected: Mapping[tuple[float, str], float]  # stated rate and kind ("all" too) -> share


def outcome(
    stored: Stored, drawn: Split, calibrating: Sequence[int], scores: np.ndarray
) -> Outcome:
    """Calibrate, and measure on all pictures that are not of the pool."""
    labels = stored.labels
    kinds = np.array([sample.defect_type for sample in stored.samples])
    limits = np.sort(scores[list(calibrating)])
    measured = np.concatenate([np.array(drawn.others), np.flatnonzero(labels)])
    false_alarms, detected = {}, {}
    for rate in RATES:
        try:
            above = scores > order_statistic(limits, rate)
        except ConfigError:
            continue
        false_alarms[rate] = float(above[list(drawn.others)].mean())
        detected[rate, ALL] = float(above[labels == 1].mean())
        for kind in sorted(set(kinds[labels == 1])):
            detected[rate, kind] = float(above[kinds == kind].mean())
    return Outcome(auroc(scores[measured], labels[measured]), false_alarms, detected)


def measured_rows(stored: Stored, splits: int) -> Iterator[dict[str, str]]:
    """Yield the rows of the CSV for a set: means over splits, and their central 90 %."""
    good = int((stored.labels == 0).sum())
    for count in COUNTS:
        if count > good - LEAST_LEFT:
            continue
        cases = [(0, ""), *((k, ORDERS[0]) for k in REFERENCES)]
        if count != 99:  # other orders for few and for many pictures
            cases += [(k, order) for k in REFERENCES[2:] for order in ORDERS[1:]]
        for references, order in cases:
            outcomes = []
            for number in range(splits):
                drawn = split(stored, count, number)
                choice = choose(stored, drawn.pool, references, order)
                scores = joined_scores(stored, choice.references)
                outcomes.append(outcome(stored, drawn, choice.calibrating, scores))
            start = {"set": stored.name, "good_pictures": str(count), "references": str(references)}
            start |= {"order": order, "calibrating": str(len(choice.calibrating))}
            start |= {"measured_good": str(good - count)}
            yield from _rows(start, outcomes)


def _rows(start: Mapping[str, str], outcomes: Sequence[Outcome]) -> Iterator[dict[str, str]]:
    """Yield a row for each rate that is stated and each kind of defect."""
    ranking = _spread("auroc", [one.auroc for one in outcomes])
    for rate, kind in outcomes[0].detected:
        yield {
            **start, "stated": str(rate), "defects": kind,
            **_spread("false_alarms", [one.false_alarms[rate] for one in outcomes]),
            **_spread("detected", [one.detected[rate, kind] for one in outcomes]),
            **ranking, "splits": str(len(outcomes)),
        }  # fmt: skip


def _spread(name: str, values: Sequence[float]) -> dict[str, str]:
    """The mean of values over splits, and the ends of their central 90 %."""
    low, high = np.quantile(values, (0.05, 0.95))
    ends = {"": np.mean(values), "_low": low, "_high": high}
    return {f"{name}{end}": f"{value:.4f}" for end, value in ends.items()}


def join_rows(stored: Stored, splits: int) -> Iterator[dict[str, str]]:
    """Yield a row for each way of joining text and references: AUROC and its gain in pairs.

    The gain is over the defaults, split by split, with the central 95 % of the splits.
    """
    count = max(c for c in COUNTS if c <= int((stored.labels == 0).sum()) - LEAST_LEFT)
    for references in REFERENCES[2:]:
        found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        for number in range(min(splits, JOIN_SPLITS)):
            drawn = split(stored, count, number)
            choice = choose(stored, drawn.pool, references, ORDERS[0])
            for key, scores in _joins(stored, choice.references):
                one = outcome(stored, drawn, choice.calibrating, scores)
                rate = one.detected[max(RATES), ALL]
                found.setdefault(key, []).append((one.auroc, rate))
        default = np.array(found[_join_key(REFERENCE_WEIGHT, TOP_SHARE, "typical", ())])
        for key, values in found.items():
            gains = np.array(values) - default
            row = {"set": stored.name, "good_pictures": str(count), "references": str(references)}
            row |= dict(zip(("weight", "top_share", "scale", "layers"), key, strict=True))
            for column, name in enumerate(("auroc", "detected")):
                row[name] = f"{np.mean(values, axis=0)[column]:.4f}"
                row[f"{name}_gain"] = f"{gains[:, column].mean():.4f}"
                for end, share in (("low", 0.025), ("high", 0.975)):
                    row[f"{name}_gain_{end}"] = f"{np.quantile(gains[:, column], share):.4f}"
            yield row


def _joins(stored: Stored, rows: Sequence[int]) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Yield the scores of each way of joining; a middle layer is one that no method computes."""
    (middle,) = set(stored.tokens) - set(stored.own_layers)
    ways: list[tuple[float, float, str, tuple[int, ...]]] = []
    ways += [(w, TOP_SHARE, scale, ()) for w in WEIGHTS for scale in ("typical", "distance")]
    ways += [(REFERENCE_WEIGHT, share, "typical", ()) for share in SHARES if share != TOP_SHARE]
    ways.append((REFERENCE_WEIGHT, TOP_SHARE, "typical", (middle,)))
    for weight, share, scale, each in ways:
        distance = stored.distances(rows, each or None)
        typical = stored.typical(tuple(rows), each or stored.own_layers)
        strange = distance / (distance + typical) if scale == "typical" else distance
        top = strange.topk(max(1, round(share * strange.shape[1]))).values.mean(1)
        scores = (1 - weight) * stored.scores + weight * top
        yield _join_key(weight, share, scale, each), scores.double().numpy()


def _join_key(weight: float, share: float, scale: str, layers: Sequence[int]) -> tuple[str, ...]:
    return str(weight), str(share), scale, " ".join(map(str, layers)) or "of the method"


def check_split(detector: Detector, stored: Stored, *, count: int, references: int) -> float:
    """Calibrate and predict one split by the product; return the largest difference of a score.

    The threshold must be the same too. The pool is in the order in which `calibrate` draws.
    """
    drawn = split(stored, count, 0)
    pool = sorted(drawn.pool, key=lambda row: file_digest(stored.samples[row].image_path))
    choice = choose(stored, pool, references, ORDERS[0])
    scores = joined_scores(stored, choice.references)
    paths = [str(stored.samples[row].image_path) for row in drawn.pool]
    with tempfile.TemporaryDirectory() as folder:
        asked = options_for(count, references)
        found = calibrate(detector, paths, folder, asked)
    others = [*drawn.others[:BATCH], *np.flatnonzero(stored.labels)[:BATCH].tolist()]
    results = found.detector.stream([stored.samples[row].image_path for row in others])
    differences = [abs(r.score - scores[row]) for r, row in zip(results, others, strict=True)]
    limits = np.sort(scores[list(choice.calibrating)])
    differences.append(
        abs(found.calibration.limits().threshold - order_statistic(limits, asked.target_fpr))
    )
    return float(max(differences))


def real_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Sets, pictures and references down; AUROC, and both rates at each stated rate."""
    heads = [f"{100 * rate:g} %: {what}" for rate in RATES for what in ("false alarms", "detected")]
    lines = ["| set | good pictures | references | calibrate | AUROC | " + " | ".join(heads) + " |"]
    lines.append("|---|" + "---:|" * (len(heads) + 4))
    kept = [row for row in rows if row["order"] in ("", ORDERS[0]) and row["defects"] == ALL]
    cells = {(*_case(row), row["stated"]): row for row in kept}
    for case in dict.fromkeys(map(_case, kept)):
        any_row = next(row for row in kept if _case(row) == case)
        values = [_percent(any_row, "auroc")]
        for rate in RATES:
            row = cells.get((*case, str(rate)))
            values += [_range(row, "false_alarms"), _range(row, "detected")]
        lines.append(f"| {' | '.join((*case, any_row['calibrating'], *values))} |")
    return "\n".join(lines)


def kinds_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Detection of each kind of defect of the largest calibration of the first set."""
    name = rows[0]["set"]
    count = max((r["good_pictures"] for r in rows if r["set"] == name), key=int)
    kept = [r for r in rows if (r["set"], r["good_pictures"]) == (name, count)]
    kept = [r for r in kept if r["order"] in ("", ORDERS[0])]
    kinds = [kind for kind in dict.fromkeys(row["defects"] for row in kept) if kind != ALL]
    columns = [(str(rate), kind) for rate in RATES for kind in kinds]
    heads = [f"{100 * float(rate):g} %: {kind.lower()}" for rate, kind in columns]
    lines = ["| references | " + " | ".join(heads) + " |", "|---:|" + "---:|" * len(heads)]
    for references in dict.fromkeys(row["references"] for row in kept):
        own = {(r["stated"], r["defects"]): r for r in kept if r["references"] == references}
        values = [_percent(own.get(column), "detected") for column in columns]
        lines.append(f"| {' | '.join((references, *values))} |")
    return "\n".join(lines)


def order_table(rows: Sequence[Mapping[str, str]]) -> str:
    """How references are chosen: AUROC / false alarms where 5 % is stated."""
    lines = ["| set | good pictures | references | " + " | ".join(ORDERS) + " |"]
    lines.append("|---|" + "---:|" * (len(ORDERS) + 2))
    kept = [
        r for r in rows if r["defects"] == ALL and r["stated"] == str(max(RATES)) and r["order"]
    ]
    cells = {(*_case(row), row["order"]): row for row in kept}
    for case in dict.fromkeys(_case(row) for row in kept if row["order"] == ORDERS[-1]):
        own = [cells[*case, order] for order in ORDERS]
        pairs = [f"{_percent(row, 'auroc')} / {_percent(row, 'false_alarms')}" for row in own]
        lines.append(f"| {' | '.join((*case, *pairs))} |")
    return "\n".join(lines)


def join_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Ways of joining: the gain of AUROC over the defaults for each set and number."""
    columns = list(dict.fromkeys((row["set"], row["references"]) for row in rows))
    heads = [f"{name}, {count} references" for name, count in columns]
    keys = ("weight", "top_share", "scale", "layers")
    lines = ["| weight | top share | scale | layers | " + " | ".join(heads) + " |"]
    lines.append("|---:|---:|---|---|" + "---:|" * len(heads))
    cells = {(*(row[key] for key in keys), row["set"], row["references"]): row for row in rows}
    for key in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        own = [cells[*key, *column] for column in columns]
        shown = [
            f"{_points(row, 'auroc_gain')} [{_points(row, 'auroc_gain_low')}, "
            f"{_points(row, 'auroc_gain_high')}]"
            for row in own
        ]
        lines.append(f"| {' | '.join((*key, *shown))} |")
    return "\n".join(lines)


def _case(row: Mapping[str, str]) -> tuple[str, str, str]:
    return row["set"], row["good_pictures"], row["references"]


def _percent(row: Mapping[str, str] | None, name: str) -> str:
    return f"{100 * float(row[name]):.1f} %" if row else "refused"


def _range(row: Mapping[str, str] | None, name: str) -> str:
    if row is None:
        return "refused"
    return f"{_percent(row, name)} ({_points(row, f'{name}_low')}–{_points(row, f'{name}_high')})"


def _points(row: Mapping[str, str], name: str) -> str:
    return f"{100 * float(row[name]):.1f}"


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV; none where it was not measured yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page_text() -> str:
    """docs/calibration.md with the tables that the CSVs give now."""
    text, rows = PAGE.read_text(encoding="utf-8"), read_csv(CSV)
    text = fill(text, "real", real_table(rows))
    text = fill(text, "real-kinds", kinds_table(rows))
    text = fill(text, "real-order", order_table(rows))
    return fill(text, "real-join", join_table(read_csv(JOIN_CSV)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="NAME=DIR,DIR")
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--table", action="store_true", help="write the tables alone")
    asked = parser.parse_args()
    if not asked.table:
        detector = load_detector()
        rows: list[dict[str, str]] = []
        joins: list[dict[str, str]] = []
        for text in asked.sets:
            name, _, folders = text.partition("=")
            every = [s for f in folders.split(",") for s in read_dataset(Path(f)).samples]
            samples = list({file_digest(s.image_path): s for s in every}.values())
            good = sum(not sample.label for sample in samples)
            print(f"{name}: {good} good, {len(samples) - good} defective pictures, without "
                  f"{len(every) - len(samples)} copies")  # fmt: skip
            stored = store(detector, name, samples)
            count = min(COUNTS)
            difference = check_split(detector, stored, count=count, references=max(REFERENCES))
            print(
                f"{name}: largest difference to calibrate and predict {difference:.1e}", flush=True
            )
            assert difference < 1e-4  # a stored token may round to another half-precision number
            rows += measured_rows(stored, asked.splits)
            joins += join_rows(stored, asked.splits)
        for path, found in ((CSV, rows), (JOIN_CSV, joins)):
            named = {row["set"] for row in found}
            found += [row for row in read_csv(path) if row["set"] not in named]
            table = csv_table([list(found[0]), *(list(row.values()) for row in found)])
            write_atomically(path, table.encode())
    write_atomically(PAGE, page_text().encode())


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
