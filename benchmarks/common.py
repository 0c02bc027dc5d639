"""What every benchmark needs: what machine this is, how long a call takes, where rows go."""

from __future__ import annotations

import csv
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "open_clip_torch")


def machine_record() -> dict[str, str]:
    """Day, processor, usable cores, load, and the versions that shape the figures.

    A load above the number of cores means that others were using the machine as well.
    """
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _processor(),
        "cores": str(_usable_cores()),
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "",
        "python": platform.python_version(),
    }
    return record | {name: _version(name) for name in _LIBRARIES}


def append_csv(path: Path, row: Mapping[str, object]) -> None:
    """Add one row; a file with other columns is rewritten to hold both, old rows blank there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Mapping[str, object]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            rows.extend(csv.DictReader(file))
    rows.append(row)
    columns = list(dict.fromkeys(name for each in rows for name in each))
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(fresh, path)


def median_seconds(function: Callable[[], object], repeats: int, warmup: int = 1) -> float:
    """Median time of `repeats` calls, after `warmup` calls that are not counted."""
    if repeats < 1:
        raise ValueError(f"repeats should be at least 1, got {repeats}.")
    for _ in range(warmup):
        function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _usable_cores() -> int:
    """Cores this process may run on, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
