"""The paragraph of a study: what is seen, and whether it agrees with the paper's finding.

Everything said is counted from the figure's dots; nothing is left out because it disagrees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from faprompt.reproduce.differences import Difference, picture_differences, seed_differences
from faprompt.reproduce.series import Dot, Source
from faprompt.reproduce.study_config import Claim, StudyConfig

_LISTED = 4
_BEYOND = (
    "Beyond chance: the 95 % interval of the difference over pictures, by a bootstrap that draws "
    "the same pictures for both, leaves zero out."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim held against the dots of one source."""

    held: int  # comparisons that bear it out
    places: int  # comparisons there are
    against: tuple[str, ...]  # those that do not, worst first
    beyond: int = 0  # of those held, by more than other pictures would change
    tested: bool = False  # whether that could be told

    @property
    def word(self) -> str:
        """agrees, disagrees, agrees in part, or cannot be told."""
        if not self.places:
            return "cannot be told"
        if self.held == self.places:
            return "agrees"
        return "agrees in part" if self.held else "disagrees"


def judge(claim: Claim, dots: Sequence[Dot], source: Source) -> Verdict:
    """Count the comparisons, one per other setting, panel and colour, that a claim wins."""
    values = {(d.label, d.where[1:], d.backbone): d for d in dots if d.source == source}
    lost: list[tuple[float, str]] = []
    count = beyond = 0
    tested = False
    for where, backbone in dict.fromkeys(key[1:] for key in values):
        better = values.get((claim.better, where, backbone))
        for label in claim.than:
            other = values.get((label, where, backbone))
            if better is None or other is None:
                continue
            count += 1
            chance = _is_chance(better, other)
            tested |= chance is not None
            if better.value > other.value:
                beyond += chance is False
            else:
                lost.append((better.value - other.value, _lost(other, better, chance)))
    against = tuple(told for _, told in sorted(lost))
    return Verdict(count - len(lost), count, against, beyond, tested)


def paragraph(config: StudyConfig, dots: Sequence[Dot], backbones: Sequence[str]) -> list[str]:
    """Sentences, in order: the paper's finding, ours beside it, the claims one by one."""
    lines = [f"The paper: {config.paper}"] if config.paper else []
    if not any(dot.source == "ours" for dot in dots):
        return [*lines, "Seen: nothing yet, no run has ended."]
    lines += [f"Seen, on {', '.join(backbones)}: {line}" for line in _seen(config, dots)]
    judged = [(c, judge(c, dots, "ours"), judge(c, dots, "published")) for c in config.claims]
    lines += [_judged(*row) for row in judged]
    if any(ours.tested for _, ours, _ in judged):
        lines.append(_BEYOND)
    if config.claims and not any(dot.source == "seed" for dot in dots):
        lines.append("Of one seed; the study `seeds` tells what another would make of it.")
    lines += _notes(config, dots)
    return lines


def seed_sentences(dots: Sequence[Dot]) -> list[str]:
    """A sentence per pair of settings whose seeds were compared."""
    return [_compared(difference) for difference in seed_differences(dots)]


def _is_chance(first: Dot, second: Dot) -> bool | None:
    """Whether other pictures could turn the difference round; None where that is not known."""
    same_panel = [replace(dot, axis="") for dot in (first, second)]  # axes may differ
    found = picture_differences(same_panel)
    return not found[0].beyond_chance if found else None


def _lost(other: Dot, better: Dot, chance: bool | None) -> str:
    points = 100 * (other.value - better.value)
    told = f"{other.series} {other.metric}: {other.label} is {points:.1f} points above"
    return f"{told}, beyond chance" if chance is False else told


def _seen(config: StudyConfig, dots: Sequence[Dot]) -> Iterator[str]:
    """The best setting and the range of every panel and colour."""
    for axis in config.axes:
        told: list[str] = []
        ours = [dot for dot in dots if (dot.axis, dot.source) == (axis.title, "ours")]
        for where in dict.fromkeys(dot.where for dot in ours):
            line = [dot for dot in ours if dot.where == where]
            best, worst = max(line, key=lambda d: d.value), min(line, key=lambda d: d.value)
            if len(line) > 1 and best.value > worst.value:
                span = 100 * (best.value - worst.value)
                chance = ", within chance" if _is_chance(best, worst) else ""
                told.append(
                    f"{where[2]} {where[1]} {best.title} ({100 * best.value:.1f}, {span:.1f} points"
                    f" above the worst, {worst.title}{chance})"
                )
            elif len(line) > 1:
                told.append(f"{where[2]} {where[1]} is {100 * best.value:.1f} for all settings")
        if told:
            yield f"{axis.title}: best are {'; '.join(told)}."


def _judged(claim: Claim, ours: Verdict, theirs: Verdict) -> str:
    text = f"Claim: {claim.text}. This run {ours.word}"
    if ours.places:
        text += f": it holds in {ours.held} of {ours.places} comparisons"
        text += f", {ours.beyond} of them beyond chance" if ours.tested and ours.held else ""
    if ours.against:
        more = len(ours.against) - _LISTED
        text += f"; not in {'; '.join(ours.against[:_LISTED])}"
        text += f"; and {more} more" if more > 0 else ""
    if theirs.places:
        text += f" (in the paper's own numbers: {theirs.held} of {theirs.places})"
    return f"{text}."


def _notes(config: StudyConfig, dots: Sequence[Dot]) -> Iterator[str]:
    shown = {dot.label for dot in dots}
    for point in config.points:
        if point.note and point.label in shown:
            yield f"{point.label}: {point.note}."


def _compared(found: Difference) -> str:
    span = f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    word = "larger than" if found.beyond_chance else "within"
    return (
        f"{found.series} {found.metric}: {found.first} less {found.second} is {span}, "
        f"{word} what seeds make of it (95 %, Welch)."
    )
