"""Tables of docs/bulk.md: measured rates, and a simulation of 10 million and a billion pictures.

`make_tables.py` writes them from `benchmarks/results/shards.csv`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from math import ceil
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "shards.csv"
PER_SHARD = 50_000  # pictures: about an hour of `small` on one core
PART_ROWS = 1_000  # of a part, at most, and at most those of
PART_SECONDS = 60
LISTED = 1_000  # files in one answer of S3
ANSWER_S = 0.1  # assumed for one answer of a listing


@dataclass(frozen=True)
class Costs:
    """Measured costs of one picture."""

    rate: float  # pictures a second on one core
    plan_us: float  # processor time of a plan
    merge_us: float  # of the merge
    part_bytes: float  # of the rows
    manifest_bytes: float  # of the list of its shard


def measured_costs(model: str = "small") -> Costs:
    """Return the costs of the latest measurement."""
    rate = next(row for row in reversed(_rows("overhead")) if row["model"] == model
                and row["processes"] == "1")  # fmt: skip
    planned = [row for row in _rows("empty") if row["planned"] == "True" and row["merge_us_each"]]
    row = planned[-1]  # the largest number of shards that was merged
    return Costs(
        float(rate["rate"]), float(row["plan_us_each"]), float(row["merge_us_each"]),
        float(row["part_bytes_each"]), float(row["manifest_bytes_each"]),
    )  # fmt: skip


def requests(pictures: int, shards: int, parts: int) -> tuple[int, int]:
    """Return how many requests read and write: plan, all shards without overlays, and merge.

    A test counts them on a server. Listing is among those that read.
    """
    read = ceil(pictures / LISTED) + pictures + parts + 7 * shards + 4
    return read, parts + 2 * shards + 4


def simulate(pictures: int, costs: Costs) -> dict[str, float]:
    """Return what a run over pictures of one bucket takes, without overlays and maps.

    Times are seconds of one process; `listing_s` assumes `ANSWER_S` for each answer.
    """
    shards = ceil(pictures / PER_SHARD)
    parts = shards * ceil(PER_SHARD / min(PART_ROWS, PART_SECONDS * costs.rate))
    read, written = requests(pictures, shards, parts)
    return {
        "shards": shards,
        "core_hours": pictures / costs.rate / 3600,
        "listing_s": ceil(pictures / LISTED) * ANSWER_S,
        "plan_s": pictures * costs.plan_us / 1e6,
        "manifest_bytes": costs.manifest_bytes * PER_SHARD,
        "manifests_bytes": costs.manifest_bytes * pictures,
        "read": read,
        "written": written,
        "part_bytes": costs.part_bytes * pictures,
        "merge_s": pictures * costs.merge_us / 1e6,
    }


def scale_table() -> str:
    """A row for each quantity, a column for each number of pictures."""
    runs = [simulate(pictures, measured_costs()) for pictures in (10_000_000, 1_000_000_000)]
    rows = (
        ("shards of 50,000 pictures", "shards", _count),
        ("core-hours of `small`", "core_hours", _count),
        ("time to list it, at 0.1 s a request (assumed)", "listing_s", _duration),
        ("time of the plan, without listing", "plan_s", _duration),
        ("list of one shard", "manifest_bytes", _bytes),
        ("lists of all shards", "manifests_bytes", _bytes),
        ("requests that read", "read", _count),
        ("requests that write", "written", _count),
        ("parts with all rows", "part_bytes", _bytes),
        ("time of the merge, one process", "merge_s", _duration),
    )
    lines = ["| | 10 million pictures | a billion pictures |", "|---|---:|---:|"]
    for what, key, form in rows:
        lines.append(f"| {what} | " + " | ".join(form(run[key]) for run in runs) + " |")
    return "\n".join(lines)


def overhead_table() -> str:
    """A row for each measurement of shards beside `predict` on as many processes."""
    lines = [
        "| model | pictures | processes | turns | `predict` | shards | time ratio | "
        "processor time ratio | pictures/s | processor |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in _rows("overhead"):
        lines.append(
            f"| `{row['model']}` | {int(row['pictures']):,} | {row['processes']} | "
            f"{row['rounds']} | {row['plain_s']} s | {row['shard_s']} s | {row['time_ratio']} | "
            f"{row['cpu_ratio']} | {row['rate']} | {row['cpu']} |"
        )
    return "\n".join(lines)


TABLES = {"overhead": overhead_table, "scale": scale_table}


def _rows(kind: str) -> list[dict[str, str]]:
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _bytes(value: float) -> str:
    return f"{value / 1e9:,.1f} GB" if value >= 1e9 else f"{value / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"
