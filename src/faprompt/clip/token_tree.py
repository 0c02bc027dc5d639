"""Many sentences as one sequence: a tree whose branches are their common beginnings.

    damaged nut at top left .      damaged -- nut -- at -- top -- left -- . -- [EOT]
    damaged nut at top .                                      |-- .  -- [EOT]
    damaged nut at left .                              |-- left -- . -- [EOT]

A causal text tower says the same of equal beginnings, so each token here stands for all the
sentences that pass through it and is run once; it sees its own branch and nothing else. Ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Sentences as one tree of T tokens, in which equal beginnings are one branch.

    ids (T,) int64 and depth (T,) int64 from 0; sees (T, T) bool, a token's own branch up to
    itself; ends (N,) int64, each sentence's last token. sentences: the rows it was made of.
    Arrays, because trees are kept: a tensor made during an export has no values.
    """

    ids: np.ndarray
    depth: np.ndarray
    sees: np.ndarray
    ends: np.ndarray
    sentences: tuple[tuple[int, ...], ...]


def grow_tree(sentences: Sequence[Sequence[int]]) -> TokenTree:
    """The tree of token ids, end tokens included, none of them empty.

    Example:
        >>> tree = grow_tree([(5, 6, 9), (5, 7, 9), (5, 6, 9)])
        >>> tree.ids.tolist(), tree.depth.tolist(), tree.ends.tolist()
        ([5, 6, 9, 7, 9], [0, 1, 2, 1, 2], [2, 4, 2])
    """
    rows = tuple(map(tuple, sentences))
    places: dict[tuple[int, ...], int] = {}
    for row in rows:
        for stop in range(1, len(row) + 1):
            places.setdefault(row[:stop], len(places))
    sees = np.eye(len(places), dtype=bool)
    for branch, place in places.items():
        if len(branch) > 1:
            sees[place] |= sees[places[branch[:-1]]]
    return TokenTree(
        ids=np.array([branch[-1] for branch in places], np.int64),
        depth=np.array([len(branch) - 1 for branch in places], np.int64),
        sees=sees,
        ends=np.array([places[row] for row in rows], np.int64),
        sentences=rows,
    )
