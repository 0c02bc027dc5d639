"""Tell what a rehearsal found: in words and tables for people, as CSV and JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from faprompt.files import csv_table, csv_text, write_atomically
from faprompt.inspection.rehearsal import (
    FAINT,
    FAINT_NOTE,
    HALF,
    NEARLY_ALL,
    Outcome,
    Rehearsal,
)
from faprompt.metrics.share_interval import Proportion

CSV, JSON = "rehearsal.csv", "rehearsal.json"
_COUNTS = ("ng", "ng_or_review", "marked")
_HEADER = (
    "product", "kind", "size_px", "strength", "drawn",
    *(f"{count}{end}" for count in _COUNTS for end in ("", "_share", "_low", "_high")),
    "not_drawable",
)  # fmt: skip
_NOTHING = "-"  # nothing drawn, or not found at any size


def rehearsal_text(rehearsal: Rehearsal) -> str:
    """Return a table for each strength and the findings in words, as several lines."""
    name = f"{rehearsal.product}: " if rehearsal.product else ""
    lines = [
        f"{name}rehearsal on {rehearsal.pictures} good pictures that did not calibrate",
        f"drawn defects that are NG at a false-alarm rate of {_rate(rehearsal.target_fpr)} / NG or "
        f"REVIEW at {_rate(rehearsal.review_fpr)}, in % of {rehearsal.per_cell}",
        "sizes are longest extents in pixels of your pictures; strength 1 is the full contrast",
    ]
    for strength in rehearsal.strengths:
        lines += ["", *_table(rehearsal, strength)]
    return "\n".join([*lines, "", _undrawn(rehearsal), *findings(rehearsal)])


def findings(rehearsal: Rehearsal) -> list[str]:
    """Return what is found, how sure the numbers are and what they do not mean, as sentences."""
    strength, last = rehearsal.strengths[0], rehearsal.sizes_px[-1]
    found = {kind: rehearsal.found_sizes(kind, strength) for kind in rehearsal.kinds}
    seen = sorted((sizes[0], kind) for kind, sizes in found.items() if sizes)
    names = ", ".join(f"{kind} {_spans(found[kind], rehearsal.sizes_px)}" for _, kind in seen)
    missed = [kind for kind, sizes in found.items() if not sizes]
    lines = [
        f"Found at the chosen rate, at strength {strength:g} in at least half of the draws: "
        f"{names or 'nothing'}."
    ]
    if missed:
        lines.append(f"Not found by that measure at any size drawn: {', '.join(missed)}.")
    if fading := [kind for kind, sizes in found.items() if sizes and last not in sizes]:
        lines.append(
            f"Larger is not always easier: at {last:g} px less than half is found of "
            f"{', '.join(fading)}."
        )
    if reasons := [cell.not_drawable for cell in rehearsal.cells if cell.not_drawable]:
        lines.append(f"Some defects could not be drawn, such as: {reasons[0]}")
    middle = Proportion.of([draw % 2 == 0 for draw in range(rehearsal.per_cell)])
    lines.append(
        f"Each number is of {rehearsal.per_cell} draws: {_percent(middle.share)} % may be "
        f"{_percent(middle.low)} to {_percent(middle.high)} % on other pictures."
    )
    if rehearsal.strengths[-1] < FAINT:
        lines.append(FAINT_NOTE)
    return [*lines, rehearsal.warning]


def _table(rehearsal: Rehearsal, strength: float) -> list[str]:
    sizes = rehearsal.sizes_px
    heads = [*(f"{size:g} px" for size in sizes), "half found", "90 % found", "region on it"]
    rows = [[f"strength {strength:g}", *heads]]
    for kind in rehearsal.kinds:
        outcomes = [rehearsal.outcome(kind, size, strength) for size in sizes]
        found = [rehearsal.found_sizes(kind, strength, share) for share in (HALF, NEARLY_ALL)]
        spans = [_spans(one, sizes) if one else _NOTHING for one in found]
        rows.append([kind, *map(cell_text, outcomes), *spans, _marked(outcomes)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def _spans(found: Sequence[float], sizes: Sequence[float]) -> str:
    """Return sizes in words: "from 16 px on", "8-32 px", "8, 32 px"."""
    first, last = found[0], found[-1]
    if sizes[sizes.index(first) :] == found:
        return f"from {first:g} px on" if len(found) > 1 else f"{first:g} px"
    if sizes[sizes.index(first) : sizes.index(last) + 1] == found and len(found) > 1:
        return f"{first:g}-{last:g} px"
    return f"{', '.join(f'{size:g}' for size in found)} px"


def cell_text(outcome: Outcome | None) -> str:
    """Return the shares of NG, and of NG or REVIEW, in %; "-" where nothing was drawn."""
    if outcome is None:
        return _NOTHING
    return f"{_percent(outcome.ng.share)}/{_percent(outcome.ng_or_review.share)}"


def _marked(outcomes: Iterable[Outcome | None]) -> str:
    drawn = [one.marked for one in outcomes if one]
    count, total = sum(one.count for one in drawn), sum(one.total for one in drawn)
    return f"{_percent(count / total)} %" if total else _NOTHING


def _rate(share: float) -> str:
    return f"{100 * share:.3g} %"


def _undrawn(rehearsal: Rehearsal) -> str:
    undrawn, total = rehearsal.undrawn, rehearsal.pictures
    return (
        f"the same pictures undrawn: {undrawn.ng.count} of {total} NG, "
        f"{undrawn.ng_or_review.count} NG or REVIEW, {undrawn.marked.count} with a region"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def write_rehearsal(
    folder: Path, rehearsals: Iterable[Rehearsal], about: Mapping[str, Any]
) -> None:
    """Write `rehearsal.csv` and `rehearsal.json` into a folder.

    Args:
        folder: exists.
        rehearsals: one for each product.
        about: further entries of the JSON, such as the model and its fingerprint.
    """
    every = list(rehearsals)
    rows = [_HEADER, *(row for one in every for row in _csv_rows(one))]
    write_atomically(folder / CSV, csv_table(rows).encode())
    content = {**about, "rehearsals": [one.to_dict() for one in every]}
    write_atomically(folder / JSON, json.dumps(content, ensure_ascii=False, indent=1).encode())


def _csv_rows(rehearsal: Rehearsal) -> Iterable[tuple[Any, ...]]:
    product = csv_text(rehearsal.product)
    yield (product, "undrawn", None, None, rehearsal.pictures, *_values(rehearsal.undrawn), None)
    for cell in rehearsal.cells:
        drawn = cell.outcome.ng.total if cell.outcome else 0
        yield (
            product, cell.kind, f"{cell.size_px:g}", f"{cell.strength:g}", drawn,
            *_values(cell.outcome), cell.not_drawable or None,
        )  # fmt: skip


def _values(outcome: Outcome | None) -> list[Any]:
    if outcome is None:
        return [None] * 4 * len(_COUNTS)
    values = []
    for name in _COUNTS:
        count, _, *shares = astuple(getattr(outcome, name))
        values += [count, *(f"{share:.4f}" for share in shares)]
    return values
