"""Describe learned prompt vectors by the words whose embeddings are nearest.

A learned vector is no word, and one of thousands of tokens is always the nearest. So each cosine
is shown with the one that random vectors reach, and `caution` explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.scoring import unit

_RANDOM_VECTORS, _RANDOM_SHARE = 500, 0.95  # for `chance`: number of vectors, and the quantile
_AT_ONCE = 128  # vectors compared with the whole table at one time


@dataclass(frozen=True, slots=True)
class NearWord:
    """A token and its cosine; a hyphen ends a token that does not end a word."""

    word: str
    cosine: float


class Vocabulary:
    """Tokens of a backbone and their embeddings, without the start and end tokens.

    It is empty for a backbone without a text tower. `chance` is the cosine that 95 of 100 random
    vectors do not exceed with their nearest word.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.words: list[str] = []
        self._table, self.chance = torch.empty(0, 0), 1.0
        if not backbone.has_text:
            return
        tokenizer, table = backbone.tokenizer, backbone.text.token_embedding.weight
        words = tokenizer.words()
        rows = [i for i in range(len(words)) if i not in (tokenizer.start, tokenizer.end)]
        self.words = [words[row] for row in rows]
        self._table = unit(table.detach()[rows])
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(_RANDOM_VECTORS, table.shape[1], generator=generator)
        nearest = torch.tensor([found[0].cosine for found in self.nearest(noise, 1)])
        self.chance = float(nearest.quantile(_RANDOM_SHARE))

    def nearest(self, vectors: Tensor, count: int = 3) -> list[tuple[NearWord, ...]]:
        """Return the nearest words of each vector (N, width), nearest first.

        Raises:
            ValueError: the width is not the table's, or `count` is larger than the vocabulary.
        """
        width = self._table.shape[1]
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise ValueError(f"vectors should be (N, {width}), got {tuple(vectors.shape)}.")
        if not 1 <= count <= len(self.words):
            raise ValueError(f"count should be 1 to {len(self.words)}, got {count}.")
        rows = []
        for part in vectors.detach().split(_AT_ONCE):
            cosines = unit(part.to(self._table.device)) @ self._table.T
            rows += list(zip(*(found.tolist() for found in cosines.topk(count)), strict=True))
        return [
            tuple(NearWord(self.words[i], c) for c, i in zip(*row, strict=True)) for row in rows
        ]

    def caution(self) -> str:
        """Return the note that must accompany nearest words."""
        return (
            f"Learned vectors are not words. Shown are the nearest of the {len(self.words):,} "
            f"tokens of this backbone, by cosine. Of random vectors, 5 in 100 come nearer than "
            f"{self.chance:.2f} to some word; words in brackets are no nearer than that. Even a "
            "near word does not say what a prompt looks for: its map does."
        )

    def brief(self, tokens: Sequence[Sequence[NearWord]]) -> str:
        """Return the nearest word of each vector, in brackets if chance comes as near."""
        nearest = [found[0] for found in tokens]
        return " · ".join(n.word if n.cosine > self.chance else f"({n.word})" for n in nearest)
