"""The detectors of a benchmark's cells, for who wants more of them than their metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faprompt.detector import Detector
from faprompt.reproduce.benchmark_plan import Cell, Plan
from faprompt.reproduce.benchmark_run import BenchmarkRun
from faprompt.work import ProgressCallback, no_progress


def detector_source(
    plan: Plan,
    out: Path,
    *,
    device: str = "cpu",
    precision: str = "",
    progress: ProgressCallback = no_progress,
    prepare: Callable[[Cell, Detector], None] | None = None,
) -> Callable[[Cell], Detector]:
    """A function from a cell to its detector; it holds the last one, as they are large.

    Args:
        plan, out, device, precision, progress, prepare: as in `run_benchmark`, which
            left the trained models in `out`; one that is not there is trained.
    """
    run = BenchmarkRun(plan, out, device, precision, progress)
    run.prepare = prepare or run.prepare
    return run.pick_detector
