"""Sentences into token ids: CLIP's byte-pair encoding, whole or cut down.

A backbone may keep only some rows of CLIP's 49,408-row token table (`tiny` does, for
size). Its vocabulary lists the kept ids in rising order; start and end stay the two
largest, so "the end token is the largest id" still holds. BLIP has BERT's word pieces
instead, and another end (`TextTower.find_end`). A token outside the
vocabulary is an error that names the word: guessing it would quietly change a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

START, END = 49406, 49407


@cache
def _bpe() -> Any:
    from faprompt.clip._open_clip import open_clip_module

    return open_clip_module().tokenizer.SimpleTokenizer()


def bpe_ids(text: str) -> list[int]:
    """CLIP's ids of `text` (lower-cased, cleaned), without start and end."""
    return _bpe().encode(text)


def _word(bpe_id: int) -> str:
    if bpe_id in (START, END):
        return "<start>" if bpe_id == START else "<end>"
    text = _bpe().decode([bpe_id])  # a blank follows where the word ends
    return text[:-1] if text.endswith(" ") else f"{text}-"


class Tokenizer:
    """Text to ids of one backbone's token table."""

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
        """Ids of `text` without start and end.

        Raises:
            ValueError: a word this backbone has no token for.
        """
        return [self._map(i, text) for i in bpe_ids(text)]

    def knows(self, text: str) -> bool:
        """Whether every token of `text` is in the vocabulary."""
        return self._row is None or all(i in self._row for i in bpe_ids(text))

    def words(self) -> list[str]:
        """What each row of the token table stands for, in its order.

        A token that begins or goes on with a word without ending it has a hyphen behind it.
        """
        return [_word(i) for i in (range(END + 1) if self._row is None else self._row)]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, longest) int64 ids with start and end, padded with 0.

        Raises:
            TypeError: one text instead of a list of them.
            ValueError: a text that does not fit into the context.
        """
        if isinstance(texts, str):
            raise TypeError(f"a list of texts is wanted; write [{texts!r}].")
        rows = [[self.start, *self.ids(text), self.end] for text in texts]
        longest = max(len(row) for row in rows)
        if longest > self.context_length:
            raise ValueError(f"A text of {longest} tokens exceeds {self.context_length}.")
        padded = torch.zeros(len(rows), longest, dtype=torch.int64)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = torch.tensor(row)
        return padded

    def _map(self, bpe_id: int, text: str) -> int:
        if self._row is None:
            return bpe_id
        if bpe_id not in self._row:
            word = _bpe().decode([bpe_id]).strip()
            raise ValueError(
                f"This backbone's vocabulary has no token {word!r} (in {text!r}); "
                "reword the prompt, or use a backbone with CLIP's whole vocabulary."
            )
        return self._row[bpe_id]


class WordPieces(Tokenizer):
    """BERT's lower-cased words and word pieces, behind the interface of CLIP's tokens."""

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
        """Ids of `text` without start and end.

        Raises:
            ValueError: a word this backbone has no token for.
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
        """Whether every word of `text` can be put together from the vocabulary."""
        return self._bert.unk_token_id not in self._encode(text)

    def words(self) -> list[str]:
        """What each row of the token table stands for; ## where it goes on with a word."""
        return self._bert.convert_ids_to_tokens(list(range(len(self._bert))))

    def _encode(self, text: str) -> list[int]:
        return self._bert.encode(text, add_special_tokens=False)
