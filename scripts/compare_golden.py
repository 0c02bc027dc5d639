"""Compare every stage with the numbers of public code.

    python scripts/compare_golden.py

Prints, per golden file and stage, how far ours are away and what is allowed. For FAPrompt and
AnomalyCLIP that is the largest absolute difference for `eval/...` and losses, and the relative
length of the difference for gradients and for what comes after training. For the other methods
it is what `tests/golden/rivals` says. The largest distance of each file comes last. Exits 1
when a stage is too far away or missing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers import golden, golden_filo, golden_handcrafted, golden_prompts  # noqa: E402
from tests.helpers.golden_rows import Row  # noqa: E402

COMPARISONS = {
    **golden_handcrafted.COMPARISONS,
    **golden_prompts.COMPARISONS,
    **golden_filo.COMPARISONS,
}


def compare_own(name: str) -> Iterator[Row]:
    """Compare a file of FAPrompt or AnomalyCLIP; a stage left out is infinitely far away."""
    found = golden.compare(name)
    for key in sorted(set(golden.load(name)) - set(found)):
        yield Row(f"{key} (not compared)", float("inf"), 0.0)
    for key, (distance, limit) in found.items():
        yield Row(key, distance, limit)


def main() -> int:
    """Print the distances; the exit status."""
    faults, largest = 0, []
    files = {name: lambda name=name: compare_own(name) for name in golden.FILES}
    for name, compare in {**files, **COMPARISONS}.items():
        rows = list(compare())
        for row in rows:
            verdict = "ok" if row.distance <= row.limit else "TOO FAR"
            faults += not row.distance <= row.limit  # NaN is a fault, too
            print(f"{name:<20} {row.stage:<44} {row.distance:.1e} of {row.limit:.1e}  {verdict}")
        nearest = max(rows, key=lambda row: row.distance / row.limit if row.limit else row.distance)
        largest.append(f"{name:<20} {nearest.distance:.1e} of {nearest.limit:.1e}, {nearest.stage}")
    print("Nearest to its limit in each file:", *largest, sep="\n")
    print(f"{faults} of the stages differ" if faults else "all stages agree")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
