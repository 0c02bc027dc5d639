"""What a prompt spread says of the paper's finding: a table, sentences, and a caution.

All of it is on a dataset's normal and anomalous pictures together. Intervals are of 95 %: of
a method by Student's t over its seeds, of a difference by Welch's; where there is one seed,
that of the one model by a bootstrap over pictures, and none of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from faprompt.reproduce.differences import welch_interval
from faprompt.reproduce.spread import PromptSpread, SpreadRow
from faprompt.reproduce.spread_figure import POINTS, SPREAD
from faprompt.reproduce.spread_measures import MEASURES, Measure
from faprompt.reproduce.study_words import Verdict

JUDGED: tuple[Measure, ...] = ("distance", "dissimilarity", "effective", "silhouette")
_TITLES: dict[Measure, str] = {
    "distance": "distance, mean over pairs of prompts",
    "dissimilarity": "dissimilarity, 1 - correlation",
    "effective": "different prompts, effective number",
    "silhouette": "silhouette by prompt",
    "contrast": "contrast of a map (no spread itself)",
}
_READING = """\
How to read this: the numbers are measured on the maps themselves. Distance is the root mean \
square difference of two prompts' maps of one picture; dissimilarity is 1 - their correlation, \
which no scale moves, but which gives nearly flat maps the weight of strong ones. The effective \
number counts prompts of unlike maps: 1 where all are as good as one, 10 where ten are unlike. \
The silhouette is near 1 where each prompt's maps keep together whatever the picture, and about \
0 where prompts are as good as equal or pictures outweigh them. In the t-SNE only what lies \
beside what can be read: not how far apart groups of points lie nor how large they are, and \
nothing from one panel to another, each an embedding of its own (seeded, of {embedded}). A \
number stands at the middle of a prompt's points."""
_SEEDS = """\
Intervals are of 95 %: of a method by Student's t over its seeds, of a difference by Welch's. \
They tell what another training would make of it, on the same pictures."""
_ONE_SEED = """\
A method has one seed only, so differences have no interval. Brackets are of 95 %: of one model \
over pictures (bootstrap), of several by Student's t over their seeds."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measure of two methods; the means over seeds where there are several."""

    measure: Measure
    wide: SpreadRow
    narrow: SpreadRow
    value: float  # wide less narrow
    low: float | None  # of the difference; None where a method has one seed
    high: float | None

    @property
    def beyond_seeds(self) -> bool:
        """Whether the interval is there and leaves zero out."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def spread_sections(spreads: Mapping[str, PromptSpread], pair: tuple[str, str]) -> list[str]:
    """Paragraphs of the page: each dataset's, then how to read them.

    Args:
        spreads: folder below `spread` -> what was found; titles come from both.
        pair: method whose prompts are said to lie apart, and that whose are said to cluster.
    """
    parts: list[str] = []
    seeds = False
    for folder, found in spreads.items():
        compared = compare(found, pair)
        seeds |= any(each.low is not None for each in compared)
        parts += [f"## The prompts' maps on {folder}", *_said(found, compared, pair)]
        parts.append(f"![t-SNE of the maps on {folder}](spread/{folder}/{POINTS}.svg)")
        if found.rows:
            parts.append(f"![spread on {folder}](spread/{folder}/{SPREAD}.svg)")
    if not spreads:
        return ["The prompts' maps: nothing yet, no run has ended."]
    models = dict.fromkeys(p.model for found in spreads.values() for p in found.points)
    parts.append(_READING.format(embedded=", ".join(models)))
    return [*parts, _SEEDS if seeds else _ONE_SEED]


def compare(found: PromptSpread, pair: tuple[str, str]) -> tuple[Comparison, ...]:
    """Every measure of the two methods that both have."""
    return tuple(_compare(found.rows, pair))


def judge_spread(compared: Sequence[Comparison]) -> Verdict:
    """How many measures of spread are larger for the one that is said to spread."""
    judged = [each for each in compared if each.measure in JUDGED]
    held = [each for each in judged if each.value > 0]
    return Verdict(
        held=len(held),
        places=len(judged),
        against=tuple(each.measure for each in judged if not each.value > 0),
        beyond=sum(each.beyond_seeds for each in held),
        tested=any(each.low is not None for each in judged),
    )


def _compare(rows: Sequence[SpreadRow], pair: tuple[str, str]) -> Iterator[Comparison]:
    for measure in MEASURES:
        mine = [row for row in rows if (row.pictures, row.measure) == ("all", measure)]
        both = [[row for row in mine if row.method == method] for method in pair]
        if not all(both):
            continue
        seeds = [[row.value for row in of if row.model] for of in both]
        wide, narrow = (next((row for row in of if not row.model), of[0]) for of in both)
        low = high = None
        if min(map(len, seeds)) > 1:
            _, low, high = welch_interval(*seeds)
        yield Comparison(measure, wide, narrow, wide.value - narrow.value, low, high)


def _said(
    found: PromptSpread, compared: Sequence[Comparison], pair: tuple[str, str]
) -> Iterator[str]:
    if not compared:
        yield f"Of {pair[0]} and {pair[1]}, one was not mapped or has one prompt: no comparison."
        return
    counts = {row.pictures: row.count for row in found.rows if row.model}
    kinds = [f"{counts[kind]} {kind}" for kind in ("normal", "anomalous") if kind in counts]
    yield f"{_verdict(compared, pair)} Measured on {' and '.join(kinds) or counts['all']} pictures."
    yield _table(compared, pair)
    yield _caution(compared, pair)


def _verdict(compared: Sequence[Comparison], pair: tuple[str, str]) -> str:
    verdict = judge_spread(compared)
    text = (
        f"Claim: {pair[0]}'s prompts lie farther apart than {pair[1]}'s. This run {verdict.word}: "
        f"they do by {verdict.held} of {verdict.places} measures"
    )
    text += f", {verdict.beyond} of them beyond seeds" if verdict.tested and verdict.held else ""
    return text + (f"; not by {' and '.join(verdict.against)}." if verdict.against else ".")


def _table(compared: Sequence[Comparison], pair: tuple[str, str]) -> str:
    lines = [("measure", *pair, "difference"), ("---", "---:", "---:", "---:")]
    for each in compared:
        form = ".3f" if each.measure == "effective" else ".3g"  # that one begins at 1
        numbers = (
            _number(each.wide.value, each.wide.low, each.wide.high, form=form),
            _number(each.narrow.value, each.narrow.low, each.narrow.high, form=form),
            _number(each.value, each.low, each.high, form=f"+{form}"),
        )
        lines.append((_TITLES[each.measure], *numbers))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float, low: float | None, high: float | None, *, form: str) -> str:
    told = f"{value:{form}}"
    return told if low is None or high is None else f"{told} [{low:{form}}, {high:{form}}]"


def _caution(compared: Sequence[Comparison], pair: tuple[str, str]) -> str:
    """How much of the distances scale makes, and whether it could make all their difference."""
    found = {each.measure: each for each in compared}
    contrast, distance, unlike = (found[n] for n in ("contrast", "distance", "dissimilarity"))
    ratio = contrast.wide.value / max(contrast.narrow.value, 1e-12)
    bare = [
        row.value * math.sqrt(2 * max(other.value, 0))
        for row, other in ((contrast.wide, unlike.wide), (contrast.narrow, unlike.narrow))
    ]
    text = (
        "Distances grow with contrast, and with prompts that score whole pictures higher or lower. "
        f"A map of {pair[0]}'s has {ratio:.2f} times the contrast of one of {pair[1]}'s. What "
        "differs in correlation, which no scale moves, would alone make distances of about "
        f"{bare[0]:.2g} and {bare[1]:.2g} at these contrasts (contrast x sqrt(2 x dissimilarity))."
    )
    if bare[0] < distance.wide.value / 2:
        text += f" Caution: that is less than half of {pair[0]}'s distance; the rest is "
        text += "level or contrast."
    return f"{text} {_order(distance, unlike, pair)}"


def _order(distance: Comparison, unlike: Comparison, pair: tuple[str, str]) -> str:
    if (distance.value > 0) == (unlike.value > 0):
        chance = unlike.low is not None and not unlike.beyond_seeds
        more = ", though within what seeds make of it" if chance else ""
        return f"Correlation has the two in the same order{more}."
    larger, word = (pair[0], "not ") if distance.value > 0 else (pair[1], "")
    return (
        f"Caution: the larger distance of {larger}'s could come from scale alone; by correlation "
        f"{pair[0]}'s prompts do {word}lie farther apart."
    )
