"""Hold a study's claims against its results: a table of claims with differences and intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from faprompt.metrics import paired_interval
from faprompt.reproduce.experiment import Experiment
from faprompt.reproduce.experiment_parts import Claim
from faprompt.reproduce.figure_dots import Dot, Source

LEGEND = (
    "Differences are in percent points, with 95 % intervals: over seeds (Welch) where both "
    "settings have several, else over pictures (paired bootstrap). Significant: the interval "
    "excludes zero."
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One value less another, with its 95 % interval where one can be computed."""

    where: str  # such as "shelf image AUROC: K = 2 less K = 1"
    value: float
    interval: tuple[float, float] | None = None
    over: str = ""  # "seeds" or "pictures": what the interval is over

    @property
    def significant(self) -> bool:
        """Return whether the interval is known and excludes zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def welch_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the difference of two means with unequal variances.

    Returns:
        (low, high); both are the difference where no value varies. None where one of the two
        has fewer than two values.

    Source:
        Welch, Biometrika 34 (1947), by `scipy.stats.ttest_ind`.

    Example:
        >>> welch_interval([1.0, 1.0], [0.5, 0.5])
        (0.5, 0.5)
    """
    if len(first) < 2 or len(second) < 2:
        return None
    if len(set(first)) == len(set(second)) == 1:
        return first[0] - second[0], first[0] - second[0]
    return _interval(lambda: stats.ttest_ind(first, second, equal_var=False))


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean (Student's t), or None for fewer than two values."""
    if len(values) < 2:
        return None
    if len(set(values)) == 1:
        return values[0], values[0]
    return _interval(lambda: stats.ttest_1samp(values, 0))


def compare(claim: Claim, dots: Sequence[Dot], source: Source = "ours") -> list[Difference]:
    """Return the differences that decide a claim, one for each other setting, panel and series.

    Only differences of the source "ours" have intervals.
    """
    values: dict[tuple[str, ...], Dot] = {}
    seeds: dict[tuple[str, ...], list[float]] = {}
    for dot in dots:
        key = (dot.label, dot.metric, dot.series, dot.backbone)
        if dot.source == source:
            values[key] = dot
        elif dot.source == "seed" and source == "ours":
            seeds.setdefault(key, []).append(dot.value)
    differences = []
    for place in dict.fromkeys(key[1:] for key in values):
        better = values.get((claim.better, *place))
        for label in claim.than:
            other = values.get((label, *place))
            if better is None or other is None:
                continue
            where = f"{better.series} {better.metric}: {better.title} less {other.title}"
            value = better.value - other.value
            by_seed = [seeds.get((name, *place), []) for name in (claim.better, label)]
            interval, over = welch_interval(*by_seed), "seeds"
            ours, theirs = better.replicates, other.replicates
            if interval is None and ours is not None and theirs is not None:
                interval, over = paired_interval(ours, theirs, difference=value), "pictures"
            differences.append(Difference(where, value, interval, over))
    return differences


def claims_section(config: Experiment, dots: Sequence[Dot]) -> list[str]:
    """Return the paragraphs of the study's page on the paper's finding, its claims and notes."""
    parts = [f"The paper: {config.paper}"] if config.paper else []
    if not any(dot.source == "ours" for dot in dots):
        return [*parts, "No run has ended yet."]
    rows: list[tuple[str, ...]] = []
    for claim in config.claims:
        theirs = compare(claim, dots, "published")
        held = f"{_count_held(theirs)} of {len(theirs)}" if theirs else "-"
        rows += claim_rows(claim.text, compare(claim, dots), held)
    if rows:
        head = ("claim", "holds", "difference (95 % interval)", "holds in the paper's numbers")
        parts += [to_markdown([head, *rows]), LEGEND]
    labels = {dot.label for dot in dots}
    parts += [f"{m.title}: {m.note}." for m in config.methods if m.note and m.title in labels]
    return parts


def claim_rows(
    text: str, differences: Sequence[Difference], *more: str, scale: float = 100, form: str = ".1f"
) -> Iterator[tuple[str, ...]]:
    """Yield the lines of one claim: a summary with `more` cells, then its differences.

    The claim holds where a difference is above 0. `scale` and `form` are for the printed numbers.
    """
    held = _count_held(differences)
    summary = f"{held} of {len(differences)}" if differences else "cannot be decided"
    if held and any(each.interval for each in differences):
        summary += f", {sum(d.value > 0 and d.significant for d in differences)} significantly"
    yield text, summary, "", *more
    for each in differences:
        value = f"{scale * each.value:+{form}}"
        if each.interval is not None:
            low, high = (f"{scale * end:+{form}}" for end in each.interval)
            value += f" [{low}, {high}] over {each.over}"
        holds = "yes" if each.value > 0 else "no"
        holds += ", significantly" if each.significant else ""
        yield (f"· {each.where}", holds, value, *("" for _ in more))


def to_markdown(rows: Sequence[Sequence[str]], *, rule: str = "---") -> str:
    """Return a Markdown table; the first row is the head, `rule` aligns all columns but one."""
    cells = [[text.replace("|", r"\|").replace("*", r"\*") for text in row] for row in rows]
    lines = [cells[0], ["---", *[rule] * (len(cells[0]) - 1)], *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(test: Callable[[], Any]) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # values that hardly vary
        interval = test().confidence_interval(0.95)
    return float(interval.low), float(interval.high)


def _count_held(differences: Sequence[Difference]) -> int:
    return sum(each.value > 0 for each in differences)
