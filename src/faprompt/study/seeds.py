"""Whether a difference between two methods is larger than what other seeds make of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, variance

from scipy import stats

from faprompt.study.series import Dot

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of `first` less mean of `second` over their seeds, with Welch's interval."""

    axis: str
    metric: str
    series: str
    first: str
    second: str
    value: float
    low: float
    high: float

    @property
    def beyond_seeds(self) -> bool:
        """Whether the interval leaves zero out."""
        return not self.low <= 0 <= self.high


def welch_interval(
    first: Sequence[float], second: Sequence[float], *, confidence: float = _CONFIDENCE
) -> tuple[float, float, float]:
    """Difference of the means, and an interval for it that lets spreads differ.

    Args:
        first, second: at least two values each.
        confidence: of the interval, in 0..1.

    Returns:
        (difference, low, high); low and high are the difference where nothing spreads.

    Source:
        Welch, Biometrika 34 (1947).

    Example:
        >>> welch_interval([1.0, 1.0], [0.5, 0.5])
        (0.5, 0.5, 0.5)
    """
    if len(first) < 2 or len(second) < 2:
        raise ValueError(f"want at least two values each, got {len(first)} and {len(second)}.")
    parts = [variance(values) / len(values) for values in (first, second)]
    value, error = fmean(first) - fmean(second), math.sqrt(sum(parts))
    if error == 0:
        return value, value, value
    counts = (len(first), len(second))
    freedom = error**4 / sum(p**2 / (n - 1) for p, n in zip(parts, counts, strict=True))
    reach = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return value, value - reach, value + reach


def differences(dots: Iterable[Dot]) -> tuple[Difference, ...]:
    """Every pair of settings in every panel and colour that has several seeds."""
    return tuple(_differences([dot for dot in dots if dot.source == "seed"]))


def _differences(dots: list[Dot]) -> Iterator[Difference]:
    for where in dict.fromkeys(dot.where for dot in dots):
        values: dict[str, list[float]] = {}
        for dot in dots:
            if dot.where == where:
                values.setdefault(dot.title, []).append(dot.value)
        several = [label for label, found in values.items() if len(found) > 1]
        for first, second in combinations(several, 2):
            yield Difference(*where, first, second, *welch_interval(values[first], values[second]))
