"""Compare every stage with the numbers of the authors' own code.

    python scripts/compare_golden.py

Prints, per golden file and stage, how far ours are away and what is allowed: the largest
absolute difference for `eval/...` and losses, the relative length of the difference for
gradients and for what comes after training. Exits 1 when a stage is too far away or missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers import golden  # noqa: E402


def main() -> int:
    """Print the differences; the exit status."""
    faults = 0
    for name in golden.FILES:
        found = golden.compare(name)
        for key in sorted(set(golden.load(name)) - set(found)):
            print(f"{name:<20} {key:<44} not compared")
            faults += 1
        for key, (difference, tolerance) in found.items():
            verdict = "ok" if difference <= tolerance else "TOO FAR"
            print(f"{name:<20} {key:<44} {difference:.1e} of {tolerance:.1e}  {verdict}")
            faults += difference > tolerance
    print(f"{faults} of the stages differ" if faults else "all stages agree")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
