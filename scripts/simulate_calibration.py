"""Simulate how often good pictures lie above a calibrated threshold, ours and a plain quantile's.

    python scripts/simulate_calibration.py [--table]

Draws 10,000 calibration sets for each number of pictures and each law of the scores. The true
false-alarm rate of a threshold is not counted but computed from the law. Writes
docs/calibration-simulation.csv and the tables of docs/calibration.md; `--table` writes the tables
alone, from the CSV that is there.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from faprompt.calibration import false_alarm_bound, order_statistic, pictures_needed, ranks_above
from faprompt.files import csv_table, write_atomically

ROOT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT))
from scripts.make_tables import fill  # noqa: E402

CSV, PAGE = ROOT / "docs" / "calibration-simulation.csv", ROOT / "docs" / "calibration.md"
DRAWS, SEED = 10_000, 14
COUNTS = (20, 50, 99, 100, 299, 1000)
RATES = (0.01, 0.05)
STEP = 0.05  # between the scores that are rounded


@dataclass(frozen=True, slots=True)
class Law:
    """A law of good scores: how to draw them, and the chance of a score above a threshold."""

    name: str
    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    above: Callable[[np.ndarray], np.ndarray]


def _above_rounded(threshold: np.ndarray) -> np.ndarray:
    """P(round(x) > t) of Beta(2, 8) rounded to steps: x lies half a step above the last one."""
    last = np.floor(threshold / STEP + 1e-9)
    return stats.beta.sf((last + 0.5) * STEP, 2, 8)


LAWS = (
    Law("Beta(2, 8)", lambda rng, size: rng.beta(2, 8, size), lambda t: stats.beta.sf(t, 2, 8)),
    Law("heavy tail", lambda rng, size: 1 + rng.pareto(1.5, size), lambda t: t**-1.5),
    Law("ties", lambda rng, size: np.round(rng.beta(2, 8, size) / STEP) * STEP, _above_rounded),
)


def true_rates(law: Law, count: int, rate: float, *, draws: int) -> dict[str, np.ndarray]:
    """The true rate of each drawn calibration, (draws,), by our threshold and by a quantile's.

    Ours is absent where so few pictures cannot state the rate.
    """
    rng = np.random.default_rng([SEED, LAWS.index(law), count])
    scores = np.sort(law.draw(rng, (draws, count)), axis=1)
    found = {"plain": law.above(np.quantile(scores, 1 - rate, axis=1))}
    if count >= pictures_needed(rate):
        found["ours"] = law.above(np.array([order_statistic(row, rate) for row in scores]))
    return found


def simulated_row(law: Law, count: int, rate: float, *, draws: int = DRAWS) -> dict[str, object]:
    """One row of the CSV; rates are shares, "" where the rate is refused."""
    found = true_rates(law, count, rate, draws=draws)
    row: dict[str, object] = {"scores": law.name, "pictures": count, "stated": rate}
    row |= dict.fromkeys(("ours", "ours_exact", "bound", "ours_within_bound"), "")
    if "ours" in found:
        bound = false_alarm_bound(count, rate)
        row |= {
            "ours": f"{found['ours'].mean():.6f}",
            "ours_exact": f"{ranks_above(count, rate) / (count + 1):.6f}",
            "bound": f"{bound:.6f}",
            "ours_within_bound": f"{(found['ours'] <= bound).mean():.4f}",
        }
    row["plain"] = f"{found['plain'].mean():.6f}"
    row["draws"] = draws
    return row


def simulation_table(rows: list[dict[str, str]]) -> str:
    """Pictures and rates down; for each law of scores the mean true rate of both, in %."""
    cells = {(r["pictures"], r["stated"], r["scores"]): r for r in rows}
    laws = list(dict.fromkeys(r["scores"] for r in rows))
    heads = [f"{law}: {way}" for law in laws for way in ("ours", "plain")]
    lines = [f"| good pictures | stated | exact | {' | '.join(heads)} | within the bound |"]
    lines.append("|---:|---:|---:|" + "---:|" * (len(heads) + 1))
    for pictures, stated in dict.fromkeys((r["pictures"], r["stated"]) for r in rows):
        own = [cells[pictures, stated, law] for law in laws]
        values = [_percent(own[0]["ours_exact"])]
        values += [_percent(r[way]) for r in own for way in ("ours", "plain")]
        within = " / ".join(_percent(r["ours_within_bound"], 1) for r in own)
        shown = within if own[0]["ours"] else "-"
        lines.append(f"| {pictures} | {_percent(stated, 0)} | {' | '.join(values)} | {shown} |")
    return "\n".join(lines)


def needed_table() -> str:
    """How many pictures each rate needs, and its bound with these and with more of them."""
    lines = ["| rate | pictures needed | 95 % bound with these | with 3 times | with 10 times |"]
    lines.append("|---:|---:|---:|---:|---:|")
    for rate in (0.1, 0.05, 0.02, 0.01, 0.005, 0.001):
        least = pictures_needed(rate)
        bounds = [false_alarm_bound(factor * (least + 1) - 1, rate) for factor in (1, 3, 10)]
        values = " | ".join(f"{100 * bound:.3g} %" for bound in bounds)
        lines.append(f"| {100 * rate:g} % | {least} | {values} |")
    return "\n".join(lines)


def _percent(value: str, digits: int = 2) -> str:
    return f"{100 * float(value):.{digits}f} %" if value else "refused"


def read_csv() -> list[dict[str, str]]:
    """The rows of docs/calibration-simulation.csv."""
    with CSV.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page_text() -> str:
    """docs/calibration.md with the tables that the CSV and the code give now."""
    text = PAGE.read_text(encoding="utf-8")
    text = fill(text, "simulation", simulation_table(read_csv()))
    return fill(text, "needed", needed_table())


def main() -> None:
    """Command line."""
    if "--table" not in sys.argv[1:]:
        rows = [simulated_row(law, n, rate) for n in COUNTS for rate in RATES for law in LAWS]
        write_atomically(CSV, csv_table([rows[0], *(row.values() for row in rows)]).encode())
    write_atomically(PAGE, page_text().encode())


if __name__ == "__main__":
    main()
