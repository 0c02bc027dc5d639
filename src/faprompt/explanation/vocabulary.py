"""Learned prompt vectors described by the words whose embeddings lie nearest.

A learned vector is no word: among thousands of tokens one is always the nearest. So every
cosine stands beside the one that random vectors reach, and `caution` says so in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.errors import ConfigError
from faprompt.scoring import unit

RANDOM_VECTORS, RANDOM_SHARE = 500, 0.95  # drawn for `chance`, and its quantile
_AT_ONCE = 128  # vectors compared with the whole table at one time


@dataclass(frozen=True, slots=True)
class NearWord:
    """A token of the vocabulary and its cosine; a hyphen where a word goes on behind it."""

    word: str
    cosine: float


class Vocabulary:
    """The token table of a backbone, start and end left out, ready for cosines.

    `chance` is the cosine that 95 of 100 random vectors stay below with their nearest word.

    Raises:
        ConfigError: the backbone has no words.
    """

    def __init__(self, backbone: Backbone) -> None:
        if not backbone.has_text:
            raise ConfigError(f"{backbone.name} has no text tower, so nothing to explain by.")
        tokenizer, table = backbone.tokenizer, backbone.text.token_embedding.weight
        special = {tokenizer.start, tokenizer.end}
        words = tokenizer.words()
        rows = [row for row in range(len(words)) if row not in special]
        self.words = [words[row] for row in rows]
        self._table = unit(table.detach()[rows])
        draw = torch.Generator().manual_seed(0)
        noise = torch.randn(RANDOM_VECTORS, table.shape[1], generator=draw)
        nearest = torch.tensor([found[0].cosine for found in self.nearest(noise, 1)])
        self.chance = float(nearest.quantile(RANDOM_SHARE))

    def nearest(self, vectors: Tensor, count: int = 3) -> list[tuple[NearWord, ...]]:
        """The nearest words of each vector (N, width), nearest first.

        Raises:
            ValueError: another width than the table's, or a count the vocabulary cannot meet.
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
        """What a reader of nearest words should know."""
        return (
            f"Learned vectors are not words. Shown are the nearest of the {len(self.words):,} "
            f"tokens this backbone knows, by cosine; of random vectors, 5 in 100 come nearer "
            f"than {self.chance:.2f} to some word, and words in brackets are no nearer than "
            "that. Even a near word does not say what a prompt looks for: its map does."
        )

    def brief(self, tokens: Sequence[Sequence[NearWord]]) -> str:
        """The nearest word of each vector, in brackets where chance comes as near."""
        nearest = [found[0] for found in tokens]
        return " · ".join(n.word if n.cosine > self.chance else f"({n.word})" for n in nearest)
