"""Tables of docs/which-model.md, from result files; scripts/make_tables.py writes them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from scripts import small_tables

ROOT = Path(__file__).resolve().parents[1]
_LARGE = ("faprompt", "anomalyclip")
_SETS = {"industrial": "9 industrial sets", "medical": "9 medical sets"}


def bundled_table() -> str:
    """Accuracy, time, memory and licence of the bundled models."""
    heads = [*small_tables.SETS, "one picture", "memory", "licence"]
    lines = [_line(["model", *heads]), "|---|" + "---:|" * (len(heads) - 1) + "---|"]
    seconds = {
        row["column"]: row["seconds"]
        for row in small_tables.rows_of("speed")
        if row["way"] == "whole"
    }
    for model in ("small", "tiny"):
        values = [small_tables.mean_auroc(name, model) for name in small_tables.SETS]
        place = ROOT / "src" / "faprompt" / "bundled" / model / "config.json"
        licence = json.loads(place.read_text("utf-8"))["license"].capitalize()
        lines.append(
            _line(
                [f"`{model}`", *values, f"{seconds[model]:.3f} s", f"{_memory(model)} MiB", licence]
            )
        )
    return "\n".join(lines)


def large_table() -> str:
    """Published accuracy, and our time, of two methods on the paper's backbone."""
    published = {
        (row["dataset"], row["method"]): row["value"]
        for row in _read("src/faprompt/reproduce/published/table05.csv")
        if row["metric"] == "image_auroc"
    }
    times = {row["method"]: row for row in _read("docs/studies/complexity/table.csv")}
    heads = [*_SETS.values(), "one picture, two processor cores"]
    lines = [_line(["method", *heads]), "|---|" + "---:|" * len(heads)]
    for method in _LARGE:
        values = [published[name, method] for name in _SETS]
        seconds = float(times[method]["inference_ms"]) / 1000
        lines.append(_line([f"`{method}`", *values, f"{seconds:.1f} s"]))
    return "\n".join(lines)


def _memory(model: str) -> str:
    """MiB of a service with one client, by the newest measurement."""
    rows = _read("benchmarks/results/service.csv")
    own = [row for row in rows if (row["model"], row["clients"]) == (model, "1")]
    return own[-1]["memory_mib"]


def _read(path: str) -> list[Mapping[str, str]]:
    with (ROOT / path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


TABLES: dict[str, Callable[[], str]] = {"bundled": bundled_table, "large": large_table}
