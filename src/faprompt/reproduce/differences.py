"""Whether a difference between two settings is larger than chance would make it.

Two kinds of chance: other pictures (paired bootstrap, see `metrics.bootstrap`) and other
seeds (Welch's interval), the latter where a study has several.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, variance
from typing import Literal

from scipy import stats

from faprompt.metrics import paired_interval
from faprompt.reproduce.series import Dot

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """`first` less `second` in one panel and colour, with its 95 % interval."""

    axis: str
    metric: str
    series: str
    first: str
    second: str
    value: float
    low: float
    high: float
    over: Literal["seeds", "pictures"] = "seeds"

    @property
    def beyond_chance(self) -> bool:
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


def seed_differences(dots: Iterable[Dot]) -> tuple[Difference, ...]:
    """Every pair of settings in every panel and colour that has several seeds."""
    return tuple(_over_seeds([dot for dot in dots if dot.source == "seed"]))


def picture_differences(dots: Iterable[Dot]) -> tuple[Difference, ...]:
    """Every pair of settings of ours in every panel and colour whose replicates are there."""
    return tuple(_over_pictures([dot for dot in dots if dot.replicates is not None]))


def _over_seeds(dots: list[Dot]) -> Iterator[Difference]:
    for where in dict.fromkeys(dot.where for dot in dots):
        values: dict[str, list[float]] = {}
        for dot in dots:
            if dot.where == where:
                values.setdefault(dot.title, []).append(dot.value)
        several = [label for label, found in values.items() if len(found) > 1]
        for first, second in combinations(several, 2):
            yield Difference(*where, first, second, *welch_interval(values[first], values[second]))


def _over_pictures(dots: list[Dot]) -> Iterator[Difference]:
    for where in dict.fromkeys(dot.where for dot in dots):
        mine = [dot for dot in dots if dot.where == where]
        for first, second in combinations(mine, 2):
            assert first.replicates is not None and second.replicates is not None
            value = first.value - second.value
            span = paired_interval(first.replicates, second.replicates, difference=value)
            if span is not None:
                yield Difference(*where, first.title, second.title, value, *span, over="pictures")
