"""The detectors of a benchmark's cells, for who wants more of them than their metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faprompt.benchmark.plan import Cell, Plan
from faprompt.benchmark.run import BenchmarkRun, ProgressBar, silent_bar
from faprompt.detector import Detector


def detector_source(
    plan: Plan,
    out: Path,
    *,
    device: str = "cpu",
    precision: str = "",
    notify: Callable[[str], None] | None = None,
    progress_bar: ProgressBar = silent_bar,
    prepare: Callable[[Cell, Detector], None] | None = None,
) -> Callable[[Cell], Detector]:
    """A function from a cell to its detector; it holds the last one, as they are large.

    Args:
        plan, out, device, precision, notify, progress_bar, prepare: as in `run_benchmark`, which
            left the trained models in `out`; one that is not there is trained.
    """
    run = BenchmarkRun(plan, out, device, precision, notify or (lambda line: None), progress_bar)
    run.prepare = prepare or run.prepare
    return run.pick_detector
