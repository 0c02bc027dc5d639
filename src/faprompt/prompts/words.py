"""Learned vectors and the frozen words around them, as the text tower takes them.

Source: prompt learners of KaiyangZhou/CoOp, zqhang/AnomalyCLIP and mala-lab/FAPrompt, which
embed a placeholder sentence and overwrite the placeholders; here they are never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from faprompt.clip.text import DeepPrompts, EncodedPrefix, Injection, TextTower
from faprompt.clip.token_tree import TokenTree, grow_tree
from faprompt.clip.tokens import Tokenizer

INIT_STD = 0.02  # of all prompt vectors, in every code named above


def learned_vectors(*shape: int) -> nn.Parameter:
    """Prompt vectors as they are drawn before training."""
    vectors = nn.Parameter(torch.empty(shape))
    nn.init.normal_(vectors, std=INIT_STD)
    return vectors


def start_vector(text: TextTower, tokenizer: Tokenizer) -> Tensor:
    """(1, width): the start token, which every prompt begins with; a copy, without gradient."""
    device = text.token_embedding.weight.device
    return text.embed_tokens(torch.tensor([tokenizer.start], device=device)).detach().clone()


def word_vectors(
    text: TextTower, tokenizer: Tokenizer, sentences: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """What follows the learned vectors of each prompt, the end token included.

    Args:
        text: its token table is read.
        tokenizer: the same backbone's.
        sentences: the words after the context, such as "damaged object.".

    Returns:
        vectors (N, S, width), padded after the end token, and its place (N,) int64.

    Raises:
        ValueError: a word this backbone has no token for, or a sentence too long for it.
    """
    ids = tokenizer(sentences)[:, 1:].to(text.token_embedding.weight.device)
    return text.embed_tokens(ids), text.find_end(ids)


def sentence_tree(tokenizer: Tokenizer, sentences: Sequence[str]) -> TokenTree:
    """Sentences that follow one prefix, end tokens included, for `TextTower.encode_tree`.

    Raises:
        ValueError: a word this backbone has no token for.
    """
    return grow_tree([(*tokenizer.ids(line), tokenizer.end) for line in sentences])


def encode_prompts(
    text: TextTower,
    start: EncodedPrefix,
    context: Tensor,
    words: Tensor,
    end: Tensor | int,
    deep: DeepPrompts | Injection | None = None,
) -> Tensor:
    """Features of prompts: what all begin with, then learned vectors, then frozen words.

    Args:
        text: the tower.
        start: the common beginning, from `encode_prefix` with the same `deep`.
        context: (N, T, width), or (T, width) for all.
        words: (N, S, width) as from `word_vectors`, or (S, width) for all.
        end: place of the end token within the words; one for all, or (N,) int64.
        deep: as in `TextTower.encode`.

    Returns:
        (N, D), not normalised.
    """
    count = context.shape[0] if context.ndim == 3 else words.shape[0]
    parts = [part.expand(count, -1, -1) for part in (context, words)]
    return text.encode(start, torch.cat(parts, dim=1), context.shape[-2] + end, deep)


@dataclass(frozen=True, slots=True)
class Speaker:
    """A text tower and its tokenizer: plain sentences in, features out, as a backbone does."""

    text: TextTower
    tokenizer: Tokenizer

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(N, D) features of plain sentences, not normalised."""
        ids = self.tokenizer(texts).to(self.text.token_embedding.weight.device)
        return self.text.encode_tokens(ids)
