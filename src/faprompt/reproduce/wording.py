"""Figures in words, the same in every file: percent, differences, pairs, intervals."""

from __future__ import annotations

from collections.abc import Sequence

from faprompt.reproduce.table_grid import DECIMALS, Figure

LEVEL = "≈"  # the pictures do not tell it from the best on them


def published_line(figures: Sequence[Figure]) -> list[str]:
    """`91.9 (-0.4)`, or nothing where nothing was published."""
    if all(figure.published is None for figure in figures):
        return []
    told = pair([percent(figure.published) for figure in figures])
    if all(figure.difference is None for figure in figures):
        return [told]
    return [f"{told} {pair([points(f.difference) for f in figures], always=True)}"]


def surroundings(figure: Figure) -> str:
    """The interval or the spread over seeds, in percent."""
    if figure.interval:
        return f"[{percent(figure.interval[0])}, {percent(figure.interval[1])}]"
    return "" if figure.spread is None else f"± {percent(figure.spread)}"


def values(figures: Sequence[Figure], marks: dict[int, str]) -> str:
    """Our values, marked by rank and by `LEVEL`; one dash where there is none at all."""
    if all(figure.value is None for figure in figures):
        return percent(None)
    return pair([marks[f.rank].format(percent(f.value)) + LEVEL * f.level for f in figures])


def pair(texts: Sequence[str], *, always: bool = False) -> str:
    """One text as it is, several in brackets as the paper prints its pairs."""
    return f"({', '.join(texts)})" if always or len(texts) > 1 else texts[0]


def percent(value: float | None) -> str:
    """A fraction in percent; "-" for none."""
    return "-" if value is None else f"{100 * value:.{DECIMALS}f}"


def points(value: float | None) -> str:
    """A difference in percent points, with its sign."""
    return "-" if value is None else f"{100 * value:+.{DECIMALS}f}"
