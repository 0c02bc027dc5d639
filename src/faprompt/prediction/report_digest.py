"""Collect what the report shows of a run in one pass, in bounded memory."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from faprompt.prediction.result_rows import ResultRow

LIST_SIZE = 5_000  # pictures shown or listed
ERROR_LIST_SIZE = 1_000
SCORE_BINS = 10_000  # equal parts of the scores 0..1


@dataclass(slots=True)
class ProductTally:
    """Counts of all pictures of one product, or of all pictures where there are no products."""

    verdicts: Counter[str] = field(default_factory=Counter)  # "none" where there is none
    bins: Counter[int] = field(default_factory=Counter)  # `score_bin` -> pictures
    p_values: Counter[float] = field(default_factory=Counter)  # at most one more than good pictures

    def add(self, row: ResultRow, score: float) -> None:
        """Count one scored picture."""
        self.verdicts[row.verdict or "none"] += 1
        self.bins[score_bin(score)] += 1
        if row.p_value is not None:
            self.p_values[row.p_value] += 1


@dataclass(slots=True)
class RunDigest:
    """Summary of all rows of a run."""

    products: dict[str, ProductTally] = field(default_factory=dict)
    listed: list[ResultRow] = field(default_factory=list)  # the most telling ones first
    errors: list[ResultRow] = field(default_factory=list)
    n_ok: int = 0
    n_errors: int = 0


def digest_rows(rows: Iterable[ResultRow]) -> RunDigest:
    """Count all rows, and keep those that tell most.

    Kept are `LIST_SIZE` pictures, by turns the highest above their threshold and the nearest to
    it on either side, and `ERROR_LIST_SIZE` errors. Without a threshold the highest are kept.

    Args:
        rows: in any order; read once.
    """
    digest, top, near = RunDigest(), _Best(LIST_SIZE), _Best(LIST_SIZE)
    for row in rows:
        if row.score is None:
            digest.n_errors += 1
            if len(digest.errors) < ERROR_LIST_SIZE:
                digest.errors.append(row)
            continue
        digest.n_ok += 1
        digest.products.setdefault(row.product or "", ProductTally()).add(row, row.score)
        margin = row.score - (row.threshold or 0.0)
        top.add(margin, row)
        if row.threshold is not None:
            near.add(-abs(margin), row)
    turns = _by_turns(near.rows(), top.rows())
    digest.listed = list({row.path: row for row in turns}.values())[:LIST_SIZE]
    return digest


def score_bin(score: float) -> int:
    """Return which of the `SCORE_BINS` equal parts of [0, 1] holds a score; 1 is in the last."""
    return min(SCORE_BINS - 1, max(0, int(score * SCORE_BINS + 1e-9)))


def _by_turns(first: list[ResultRow], second: list[ResultRow]) -> Iterable[ResultRow]:
    """Yield from two lists by turns, then what is left of the longer one."""
    for i in range(max(len(first), len(second))):
        yield from first[i : i + 1]
        yield from second[i : i + 1]


class _Best:
    """The rows with the highest keys, at most `size`; of equal keys the earlier row."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, ResultRow]] = []
        self._count = 0

    def add(self, key: float, row: ResultRow) -> None:
        self._count += 1
        entry = (key, -self._count, row)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def rows(self) -> list[ResultRow]:
        """Return the rows by falling key."""
        return [row for _, _, row in sorted(self._heap, reverse=True)]
