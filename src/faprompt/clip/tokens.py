"""Turn sentences into token ids, with CLIP's byte-pair encoding or BERT's word pieces.

A backbone may keep only some rows of CLIP's 49,408-row token table, as `tiny` does; its
vocabulary lists the kept ids in rising order. Start and end stay the two largest, so the end
token is the largest id. A token outside the vocabulary is an error that names the word, because
a replacement would silently change the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faprompt.clip.byte_pairs import END, START, bpe_ids, bpe_text


class Tokenizer:
    """Turn text into ids of one backbone's token table."""

    def __init__(self, vocabulary: Sequence[int] | None = None, *, context_length: int = 77):
        self.context_length = context_length
        self._row = None if vocabulary is None else {v: i for i, v in enumerate(vocabulary)}
        if vocabulary is not None and list(vocabulary) != sorted({*vocabulary, START, END}):
            raise ValueError("vocabulary should rise, without repeats, and hold start and end.")
        if vocabulary is not None and not 0 <= vocabulary[0] <= vocabulary[-1] == END:
            raise ValueError(f"vocabulary should hold ids in 0..{END}.")

    @property
    def start(self) -> int:
        """Id of the start token."""
        return self._map(START, "<start>")

    @property
    def end(self) -> int:
        """Id of the end token; the largest of all."""
        return self._map(END, "<end>")

    def ids(self, text: str) -> list[int]:
        """Return the ids of `text` without start and end.

        Raises:
            ValueError: a word has no token in this backbone.
        """
        return [self._map(i, text) for i in bpe_ids(text)]

    def knows(self, text: str) -> bool:
        """Return whether every token of `text` is in the vocabulary."""
        return self._row is None or all(i in self._row for i in bpe_ids(text))

    def words(self) -> list[str]:
        """Return the text of each row of the token table, in order.

        A token that does not end its word has a hyphen behind it.
        """
        return [_word(i) for i in (range(END + 1) if self._row is None else self._row)]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return (N, longest) int64 ids with start and end, padded with 0.

        Raises:
            TypeError: one text instead of a list of them.
            ValueError: a text does not fit into the context.
        """
        if isinstance(texts, str):
            raise TypeError(f"a list of texts is wanted; write [{texts!r}].")
        rows = [[self.start, *self.ids(text), self.end] for text in texts]
        longest = max(len(row) for row in rows)
        if longest > self.context_length:
            raise ValueError(f"A text of {longest} tokens exceeds {self.context_length}.")
        padded = [row + [0] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).reshape(len(rows), longest)

    def _map(self, bpe_id: int, text: str) -> int:
        if self._row is None:
            return bpe_id
        if bpe_id not in self._row:
            word = bpe_text(bpe_id).strip()
            raise ValueError(
                f"This backbone's vocabulary has no token {word!r} (in {text!r}); "
                "reword the prompt, or use a backbone with CLIP's whole vocabulary."
            )
        return self._row[bpe_id]


def _word(bpe_id: int) -> str:
    if bpe_id in (START, END):
        return "<start>" if bpe_id == START else "<end>"
    text = bpe_text(bpe_id)  # a blank follows where the word ends
    return text[:-1] if text.endswith(" ") else f"{text}-"


class WordPieces(Tokenizer):
    """Turn text into BERT's lower-cased words and word pieces."""

    def __init__(self, bert: Any, *, context_length: int) -> None:
        super().__init__(context_length=context_length)
        self._bert = bert

    @property
    def start(self) -> int:
        """Id of [CLS]."""
        return self._bert.cls_token_id

    @property
    def end(self) -> int:
        """Id of [SEP]."""
        return self._bert.sep_token_id

    def ids(self, text: str) -> list[int]:
        """Return the ids of `text` without start and end.

        Raises:
            ValueError: a word has no token in this backbone.
        """
        found = self._encode(text)
        if self._bert.unk_token_id in found:
            word = next((w for w in text.split() if not self.knows(w)), text)
            raise ValueError(
                f"This backbone's vocabulary has no token for {word!r} (in {text!r}); "
                "reword the prompt."
            )
        return found

    def knows(self, text: str) -> bool:
        """Return whether the vocabulary can spell every word of `text`."""
        return self._bert.unk_token_id not in self._encode(text)

    def words(self) -> list[str]:
        """Return the text of each row of the token table; ## marks the rest of a word."""
        return self._bert.convert_ids_to_tokens(list(range(len(self._bert))))

    def _encode(self, text: str) -> list[int]:
        return self._bert.encode(text, add_special_tokens=False)


@dataclass(frozen=True, slots=True)
class TokenTree:
    """Store sentences as one tree of T tokens, in which equal beginnings are one branch.

        damaged nut at top left .      damaged -- nut -- at -- top -- left -- . -- [EOT]
        damaged nut at top .                                      |-- .  -- [EOT]
        damaged nut at left .                              |-- left -- . -- [EOT]

    A causal text tower gives equal beginnings equal features, so each token is run once for
    all the sentences that pass through it. It sees its own branch and nothing else. Ours.

    ids (T,) int64 and depth (T,) int64 from 0; sees (T, T) bool, a token's own branch up to
    itself; ends (N,) int64, each sentence's last token. The arrays are numpy because trees are
    cached, and a tensor made during an export has no values.
    """

    ids: np.ndarray
    depth: np.ndarray
    sees: np.ndarray
    ends: np.ndarray
    sentences: tuple[tuple[int, ...], ...]  # the rows of token ids it was made of


def grow_tree(sentences: Sequence[Sequence[int]]) -> TokenTree:
    """Return the tree of token ids, end tokens included; no sentence may be empty.

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
