"""Exact intervals of a share, such as a false-alarm rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proportion:
    """How many of several cases count, and their share with its exact 95 % interval."""

    count: int
    total: int  # at least 1
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, marks: Sequence[bool]) -> Proportion:
        """Count the True values of a list that is not empty; see `share_interval`."""
        count, total = sum(marks), len(marks)
        return cls(count, total, count / max(1, total), *share_interval(count, total))


def share_interval(count: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval of a share from `count` of `total` independent cases.

    Args:
        count: cases that count, 0 to `total`.
        total: all cases, at least 1.
        confidence: chance with which the interval contains the true share, at least.

    Returns:
        (low, high), both 0..1; they contain count / total.

    Raises:
        ValueError: no case at all, or more that count than there are.

    Source:
        Clopper and Pearson, Biometrika 26, 1934.

    Example:
        >>> [round(end, 4) for end in share_interval(0, 20)]  # high: 1 - 0.025 ** (1 / 20)
        [0.0, 0.1684]
    """
    from scipy.special import betaincinv

    if not 0 <= count <= total or total < 1:
        raise ValueError(f"count should be 0 to total, and total at least 1, got {count}, {total}.")
    tail = (1 - confidence) / 2
    low = betaincinv(count, total - count + 1, tail) if count else 0.0
    high = betaincinv(count + 1, total - count, 1 - tail) if count < total else 1.0
    return float(low), float(high)
