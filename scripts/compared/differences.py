"""Compare two files value by value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from scripts.compared.values import NUMBER, Picture, read_values

LIMIT = 1e-6  # largest accepted difference, as a share of the value
SMALLEST = 1e-3  # smaller values count as of this size


@dataclass
class Comparison:
    """What two files have in common."""

    largest: float = 0.0
    count: int = 0  # numbers compared
    equal: bool = True  # to the bit, as far as numbers go
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def compare_files(name: str, old: Path, new: Path, patterns: Sequence[str]) -> Comparison:
    """Compare two files value by value."""
    found = Comparison()
    if old.read_bytes() == new.read_bytes():
        return found
    before, after = read_values(old), read_values(new)
    for key, value in before.items():
        if any(fnmatch(f"{name}:{key}", pattern) for pattern in patterns):
            continue
        if key not in after:
            found.equal = False
            found.faults.append(f"{key}: GONE, it was {str(value)[:60]!r}")
        elif isinstance(value, Picture):
            compare_pictures(found, key, value, after[key])
        elif isinstance(value, str) or isinstance(after[key], str):
            compare_texts(found, key, value, after[key])
        else:
            compare_numbers(found, key, np.atleast_1d(value), np.atleast_1d(after[key]))
    added = [key for key in after if key not in before]
    if added:
        found.remarks.append(f"new: {', '.join(added[:8])}{' ...' if added[8:] else ''}")
    return found


def compare_pictures(found: Comparison, key: str, old: Picture, new: Any) -> None:
    """Add a remark where the pixels differ."""
    a, b = old.pixels, new.pixels if isinstance(new, Picture) else np.asarray(new)
    if a.shape != b.shape:
        found.remarks.append(f"{key}: drawn anew, {a.shape} -> {b.shape}")
    elif not np.array_equal(a, b):
        most = np.abs(a.astype(float) - b.astype(float)).max()
        found.remarks.append(f"{key}: pixels differ by up to {most:g} levels")


def compare_texts(found: Comparison, key: str, old: Any, new: Any) -> None:
    """Add a remark where the words differ, and a fault where a number became a text."""
    if not (isinstance(old, str) and isinstance(new, str)):
        found.equal = False
        found.faults.append(f"{key}: {old!r} became {new!r}")
    elif old != new:
        gone = sorted(set(NUMBER.findall(old)) - set(NUMBER.findall(new)))
        told = f"; numbers gone: {', '.join(gone[:12])}" if gone else ""
        short = len(old) + len(new) < 160
        found.remarks.append(f"{key}: reworded{f', {old!r} -> {new!r}' if short else told}")


def compare_numbers(found: Comparison, key: str, old: np.ndarray, new: np.ndarray) -> None:
    """Add a fault where the numbers differ by more than `LIMIT` of the largest of them."""
    found.count += old.size
    if old.shape != new.shape or old.dtype != new.dtype:
        found.equal = False
        found.faults.append(f"{key}: {old.dtype} {old.shape} became {new.dtype} {new.shape}")
    elif old.tobytes() != new.tobytes():
        found.equal = False
        a, b = old.astype(np.float64), new.astype(np.float64)
        gaps = np.isnan(a) & np.isnan(b)
        far = np.where(gaps, 0, np.abs(a - b)).max() / max(np.nanmax(np.abs(a)), SMALLEST)
        found.largest = max(found.largest, float(far))
        if not far <= LIMIT:
            values = f", {old[0]} became {new[0]}" if old.size == 1 else ""
            found.faults.append(f"{key}: {far:.1e}{values}")
