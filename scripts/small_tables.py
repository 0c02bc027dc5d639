"""Tables and sentences of docs/small.md, from docs/small/results.json.

scripts/make_tables.py writes them into the page. All values are percent. The best of a row is
bold, whoever it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "small" / "results.json"
COLUMNS = {
    "small": "`small`", "tiny": "`tiny`", "untrained": "self-similarity + mirror, untrained",
    "grey mirror": "mirror of grey pixels",
}  # fmt: skip
RIVALS = {
    "tiny": "`tiny`",
    "untrained": "The untrained sum",
    "grey mirror": "The mirror of grey pixels",
}
METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC"}
TILES, BRAIN, TEXTILE = "magnetic tiles", "brain MRI", "textile"
SETS = (TILES, BRAIN, TEXTILE)
ALL_INPUTS = "all inputs"
_ALONE = ("text alone", "top 2 % of the text map")
# goal, and set, kind, metric, least value or least lead over `tiny` in percent
GOALS: tuple[tuple[str, str, str, str, str, float], ...] = (
    ("4 points ahead of `tiny`", TILES, "mean", "image_auroc", "lead", 4),
    ("at most 5 points behind `tiny`", TILES, "Crack", "image_auroc", "lead", -5),
    ("ahead of `tiny`", TILES, "mean", "pixel_auroc", "lead", 0),
    ("at least 88", BRAIN, "mean", "image_auroc", "value", 88),
    ("at least 55", TEXTILE, "mean", "image_auroc", "value", 55),
)
MISSING = "*not measured yet*"

Row = Mapping[str, Any]


@cache
def results() -> Mapping[str, Any]:
    """The result file; empty where nothing was measured yet."""
    if not RESULTS.is_file():
        return {}
    found: Mapping[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))["sections"]
    return found


def rows_of(section: str) -> list[Row]:
    """The rows of a section, none where it was not measured yet."""
    return list(results().get(section, {}).get("rows", []))


def image_table() -> str:
    """Image AUROC of each column, set and kind of defect."""
    return _ranking_table("image_auroc")


def pixel_table() -> str:
    """Pixel AUROC where there are masks."""
    return _ranking_table("pixel_auroc")


def _ranking_table(metric: str) -> str:
    lines = _head(["pictures", "good / defective", *COLUMNS.values()])
    for _, label, cells in _ranked():
        if cells["small"][metric] is None:
            continue
        best = max(_tenth(cells[column][metric]) for column in COLUMNS)
        values = [_bold(_interval(cells[c][metric]), _tenth(cells[c][metric]) == best)
                  for c in COLUMNS]  # fmt: skip
        counts = f"{cells['small']['good']} / {cells['small']['defective']}"
        lines.append(_line([label, "" if label.endswith("mean") else counts, *values]))
    return "\n".join(lines)


def _ranked() -> list[tuple[str, str, dict[str, Row]]]:
    """Set, label, and the row of each column, for every kind of defect and the means."""
    found = []
    for name in SETS:
        rows = rows_of(f"ranking/{name}")
        kinds = list(dict.fromkeys(row["kind"] for row in rows))
        for kind in kinds:
            if len(kinds) == 2 and kind == "mean":  # of a single kind
                continue
            label = f"{name}, {kind.lower()}"
            cells = {row["column"]: row for row in rows if row["kind"] == kind}
            found.append((name, label, cells))
    return found


def mean_auroc(name: str, column: str) -> str:
    """Image AUROC of a model on a set, the mean over its kinds of defect."""
    *_, (_, _, cells) = (each for each in _ranked() if each[0] == name)
    return _interval(cells[column]["image_auroc"])


def lead_table() -> str:
    """How far `small` is ahead of each other column, with paired intervals."""
    lines = _head(["pictures", "", *(f"less {COLUMNS[name]}" for name in RIVALS)])
    for metric, shown in METRICS.items():
        for _, label, cells in _ranked():
            if cells["small"][metric] is not None:
                values = [_difference(cells[name]["small_ahead"][metric]) for name in RIVALS]
                lines.append(_line([label, shown, *values]))
    return "\n".join(lines)


def better_sentences() -> str:
    """Name all rows in which another column is ahead of `small`."""
    lines = []
    for name, shown in RIVALS.items():
        sure, unsure = [], []
        for metric, what in METRICS.items():
            for _, label, cells in _ranked():
                ahead = cells[name]["small_ahead"].get(metric)
                if ahead and _tenth(ahead) < 0:
                    text = f"{label} ({what}, {-100 * ahead[0]:.1f} points)"
                    (sure if len(ahead) > 1 and ahead[2] < 0 else unsure).append(text)
        words = []
        if sure:
            words.append(f"is better than `small` on {'; '.join(sure)}")
        if unsure:
            words.append(f"has a higher value, within the interval, on {'; '.join(unsure)}")
        lines.append(f"- {shown} {', and '.join(words) or 'is nowhere ahead of `small`'}.")
    return "\n".join(lines)


def goals_table() -> str:
    """The goals that were set before the model was built."""
    lines = _head(["pictures", "goal", "measured", "met"])
    for goal, name, kind, metric, form, least in GOALS:
        rows = {row["column"]: row for row in rows_of(f"ranking/{name}") if row["kind"] == kind}
        if not rows:
            return MISSING
        ahead = rows["tiny"]["small_ahead"].get(metric, [0.0])
        shown = _difference(ahead) if form == "lead" else _interval(rows["small"][metric])
        value = ahead[0] if form == "lead" else rows["small"][metric][0]
        met = "yes" if 100 * value >= least else "**no**"
        lines.append(_line([f"{name}, {kind.lower()}: {METRICS[metric]}", goal, shown, met]))
    return "\n".join(lines)


# set, kind and metric of the columns of the tables of heads
_HEAD_COLUMNS = (
    (TILES, "mean", "image_auroc"), (TILES, "Crack", "image_auroc"), (TILES, "mean", "pixel_auroc"),
    (BRAIN, "mean", "image_auroc"), (TEXTILE, "mean", "image_auroc"),
)  # fmt: skip


def inputs_table() -> str:
    """Heads that lack an input."""
    return _heads_table(
        ALL_INPUTS, lambda name: name in (ALL_INPUTS, *_ALONE) or name.startswith("without")
    )


def drawn_table() -> str:
    """Heads that were trained on fewer drawn pictures."""
    models = {row["column"]: row for row in rows_of("models and sets") if "column" in row}
    total = models["small"]["training"]["pictures"] if models else 0
    return _heads_table(f"{total:,} drawn pictures (all)",
                        lambda name: name.endswith("drawn pictures") or name == ALL_INPUTS,
                        last=ALL_INPUTS)  # fmt: skip


def text_table() -> str:
    """Other weights of the text beside the relations."""
    return _heads_table("as bundled", lambda n: n.startswith("weight") or n == ALL_INPUTS)


def _heads_table(full: str, wanted: Callable[[str], bool], last: str = "") -> str:
    """A row a variant; `full` is the label of all inputs, and `last` comes last."""
    heads = [f"{name}, {kind.lower()}: {METRICS[m]}" for name, kind, m in _HEAD_COLUMNS]
    lines = _head(["head", *heads])
    every = {name: rows_of(f"inputs/{name}") for name in SETS}
    kept = dict.fromkeys(filter(wanted, (row["variant"] for row in every[TILES])))
    for variant in sorted(kept, key=lambda name: name == last):
        cells = []
        for name, kind, metric in _HEAD_COLUMNS:
            rows = [r for r in every[name] if (r["variant"], r["kind"]) == (variant, kind)]
            cells.append(_seeds(rows[0], metric) if rows else "-")
        lines.append(_line([full if variant == ALL_INPUTS else variant, *cells]))
    return "\n".join(lines)


def _seeds(row: Row, metric: str) -> str:
    """Mean over seeds, the lowest and highest seed, and the difference to all inputs."""
    seeds = row["seeds"][metric]
    text = _number(row[metric][0])
    if len(seeds) > 1:
        text += f" [{_number(min(seeds))}–{_number(max(seeds))}]"
    if row["variant"] != ALL_INPUTS:
        text += f"<br>{_difference(row['ahead'][metric])}"
    return text


def reference_table() -> str:
    """K good pictures as memory, spread and in file order."""
    cases = list(
        dict.fromkeys((r["references"], r["order"]) for r in rows_of(f"references/{TILES}"))
    )
    words = {"": "none", "as calibrate": "spread", "file order": "in file order"}
    lines = _head(["pictures", *(f"{k or ''} {words[order]}".strip() for k, order in cases)])
    for name in SETS:
        rows = rows_of(f"references/{name}")
        for kind in dict.fromkeys(row["kind"] for row in rows):
            cells = {(r["references"], r["order"]): r["auroc"] for r in rows if r["kind"] == kind}
            best = max(_tenth(cells[case]) for case in cases)
            values = [_bold(_interval(cells[c]), _tenth(cells[c]) == best) for c in cases]
            lines.append(_line([f"{name}, {kind.lower()}", *values]))
    return "\n".join(lines)


def tiles_table() -> str:
    """Oblong pictures with and without tiles."""
    rows = rows_of(f"tiles/{TILES}")
    ways = list(dict.fromkeys(row["tiles"] for row in rows))
    heads = [f"{METRICS[m]}: `{way}`" for m in METRICS for way in ways]
    lines = _head(["model", "defect", "good / defective", *heads])
    for column in ("small", "tiny"):
        own = [row for row in rows if row["column"] == column]
        for kind in dict.fromkeys(row["kind"] for row in own):
            cells = {row["tiles"]: row for row in own if row["kind"] == kind}
            values = []
            for metric in METRICS:
                for way in ways:
                    text = _number(cells[way][metric][0])
                    if way != ways[0]:
                        text += f"<br>{_difference(cells[way]['ahead'][metric])}"
                    values.append(text)
            first = cells[ways[0]]
            counts = "" if kind == "mean" else f"{first['good']} / {first['defective']}"
            lines.append(_line([COLUMNS[column], kind.lower(), counts, *values]))
    return "\n".join(lines)


def detection_table() -> str:
    """Detected defects at two stated rates of false alarms."""
    lines = _head([
        "pictures", "model", "calibrated on", "1 %: false alarms", "1 %: detected",
        "5 %: false alarms", "5 %: detected",
    ])  # fmt: skip
    for name in SETS:
        rows = [row for row in rows_of(f"detection/{name}") if row["kind"] == "mean"]
        cases = dict.fromkeys((row["column"], row["references"]) for row in rows)
        for case in cases:
            cells = {r["rate"]: r for r in rows if (r["column"], r["references"]) == case}
            best = {
                rate: max(_tenth(r["detected"]) for r in rows if r["rate"] == rate)
                for rate in cells
            }
            values = []
            for rate in (0.01, 0.05):
                row = cells.get(rate)
                if row is None:
                    values += ["-", "-"]
                    continue
                is_best = _tenth(row["detected"]) == best[rate]
                values += [_interval(row["false_alarms"])]
                values += [_bold(_interval(row["detected"]), is_best)]
            count = next(iter(cells.values()))["calibrating"]
            lines.append(_line([name, _with_references(*case), str(count), *values]))
    return "\n".join(lines)


def detection_kinds_table() -> str:
    """The same at 5 %, for each kind of defect."""
    rows = [
        {**row, "set": name}
        for name in (TILES, TEXTILE)
        for row in rows_of(f"detection/{name}")
        if row["rate"] == 0.05 and row["kind"] != "mean"
    ]
    kinds = list(dict.fromkeys((row["set"], row["kind"]) for row in rows))
    lines = _head(["model", *(f"{name}, {kind.lower()}" for name, kind in kinds)])
    for case in dict.fromkeys((row["column"], row["references"]) for row in rows):
        cells = {(r["set"], r["kind"]): r for r in rows if (r["column"], r["references"]) == case}
        values = []
        for key in kinds:
            best = max(_tenth(r["detected"]) for r in rows if (r["set"], r["kind"]) == key)
            values.append(_bold(_interval(cells[key]["detected"]),
                                _tenth(cells[key]["detected"]) == best))  # fmt: skip
        lines.append(_line([_with_references(*case), *values]))
    return "\n".join(lines)


def _with_references(column: str, references: int) -> str:
    return COLUMNS[column] + (f", {references} references" if references else "")


def demo_table() -> str:
    """Verdicts on examples/lot after calibration on examples/good."""
    rows = rows_of("demo")
    verdicts = ("OK", "REVIEW", "NG")
    heads = [f"{what}: {verdict}" for what in ("good", "damaged") for verdict in verdicts]
    lines = _head(["model", *heads])
    for column in dict.fromkeys(row["column"] for row in rows):
        own = [row for row in rows if row["column"] == column]
        values = []
        for defective in (False, True):
            part = [row["verdict"] for row in own if row["defective"] == defective]
            values += [f"{part.count(verdict)} of {len(part)}" for verdict in verdicts]
        lines.append(_line([COLUMNS[column], *values]))
    return "\n".join(lines)


def speed_table() -> str:
    """Seconds of one picture and pictures a second, of both models in one run."""
    rows = rows_of("speed")
    if not rows:
        return MISSING
    machine = rows[0]["machine"]
    cells = {(row["way"], row["column"]): row for row in rows}
    lines = _head(["what", "`small`", "`tiny`", "ratio of the times"])
    labels = {
        "tiles": "one picture of 518 px, `--tiles auto` (4 tiles and the whole)",
        "whole": "one picture of 518 px, whole",
        "bulk": f"`predict` of {cells['bulk', 'small']['pictures']} pictures, results written",
    }
    for way, label in labels.items():
        seconds = [cells[way, name]["seconds"] for name in ("small", "tiny")]
        shown = [f"{1 / s:.0f} pictures/s" if way == "bulk" else f"{s:.3f} s" for s in seconds]
        lines.append(_line([label, *shown, f"{seconds[0] / seconds[1]:.1f}"]))
    place = f"{machine['cpu']}, {machine['threads']} threads, load {machine['load']}"
    return "\n".join([*lines, "", f"Medians on {place} (PyTorch {machine['torch']})."])


def sets_table() -> str:
    """The pictures."""
    lines = _head(["set", "good", "defective", "masks"])
    for row in rows_of("models and sets"):
        if "set" in row:
            masks = "yes" if row["masks"] else "no"
            lines.append(_line([row["set"], str(row["good"]), str(row["defective"]), masks]))
    return "\n".join(lines)


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), "|---|" + "---:|" * (len(names) - 1)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{100 * value:.1f}"


def _tenth(cell: Sequence[float]) -> float:
    """The value as it is shown, so that equal ones are both bold."""
    return round(100 * cell[0], 1)


def _interval(cell: Sequence[float]) -> str:
    return _number(cell[0]) + (f" ({_number(cell[1])}–{_number(cell[2])})" if cell[1:] else "")


def _difference(cell: Sequence[float]) -> str:
    signed = [f"{100 * value:+.1f}".replace("-", "−") for value in cell]
    return signed[0] + (f" ({signed[1]} to {signed[2]})" if cell[1:] else "")


def _bold(text: str, best: bool) -> str:
    if not best:
        return text
    value, space, rest = text.partition(" ")
    return f"**{value}**{space}{rest}"


TABLES: dict[str, Callable[[], str]] = {
    "sets": sets_table, "image": image_table, "pixel": pixel_table, "lead": lead_table,
    "better": better_sentences, "goals": goals_table, "inputs": inputs_table,
    "drawn": drawn_table, "text": text_table, "references": reference_table, "tiles": tiles_table,
    "detection": detection_table, "detection-kinds": detection_kinds_table, "demo": demo_table,
    "speed": speed_table,
}  # fmt: skip
