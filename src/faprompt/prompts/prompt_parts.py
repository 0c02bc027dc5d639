"""Build prompts from learned vectors, small networks and the frozen words around them.

Source: prompt learners of KaiyangZhou/CoOp, zqhang/AnomalyCLIP and mala-lab/FAPrompt, which
embed a placeholder sentence and overwrite the placeholders; here there are no placeholders.
Networks: trainers/cocoop.py of KaiyangZhou/CoOp, trainers/tcp.py of
htyao89/Textual-based_Class-aware_prompt_tuning, FAPrompt.py of mala-lab/FAPrompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from faprompt.clip.text import DeepPrompts, EncodedPrefix, Injection, TextTower
from faprompt.clip.tokens import Tokenizer, TokenTree, grow_tree
from faprompt.scoring import unit

INIT_STD = 0.02  # of all prompt vectors, in all code named above
REDUCTION = 16  # hidden width of CoCoOp's net is D/16, of FAPrompt's psi D*M/16


def learned_vectors(*shape: int) -> nn.Parameter:
    """Draw prompt vectors of a shape, as before training."""
    vectors = nn.Parameter(torch.empty(shape))
    nn.init.normal_(vectors, std=INIT_STD)
    return vectors


class MetaNet(nn.Module):
    """Map features to vectors by two linear layers with biases, in torch's initialisation."""

    def __init__(
        self, width: int, out: int, *, reduction: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, out)
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        """Map unit-length features (..., width) to (..., out)."""
        return self.linear2(self.activation(self.linear1(features)))


class ImageContext(nn.Module):
    """Learn CoCoOp's context vectors, all shifted by a vector that depends on the image."""

    def __init__(self, tokens: int, embed_dim: int, width: int) -> None:
        super().__init__()
        self.context = learned_vectors(tokens, width)
        self.meta_net = MetaNet(embed_dim, width, reduction=REDUCTION, activation=torch.relu)

    def forward(self, class_token: Tensor) -> Tensor:
        """Map (B, D) of any length to (B, tokens, width)."""
        return self.context + self.meta_net(unit(class_token))[:, None]


def start_vector(text: TextTower, tokenizer: Tokenizer) -> Tensor:
    """Return the start token's vector (1, width), a copy without gradient."""
    device = text.token_embedding.weight.device
    return text.embed_tokens(torch.tensor([tokenizer.start], device=device)).detach().clone()


def word_vectors(
    text: TextTower, tokenizer: Tokenizer, sentences: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return the vectors of the words after the context, with the end token.

    Args:
        text: the tower whose token table is read.
        tokenizer: the same backbone's.
        sentences: the words after the context, such as "damaged object.".

    Returns:
        vectors (N, S, width), padded after the end token, and its place (N,) int64.

    Raises:
        ValueError: a word has no token in this backbone, or a sentence is too long.
    """
    ids = tokenizer(sentences)[:, 1:].to(text.token_embedding.weight.device)
    return text.embed_tokens(ids), text.find_end(ids)


def sentence_tree(tokenizer: Tokenizer, sentences: Sequence[str]) -> TokenTree:
    """Return sentences after one prefix, with end tokens, for `TextTower.encode_tree`.

    Raises:
        ValueError: a word has no token in this backbone.
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
    """Return features of prompts: a common beginning, then learned vectors, then words.

    Args:
        text: the tower.
        start: the common beginning, from `encode_prefix` with the same `deep`.
        context: learned vectors, (N, T, width), or (T, width) for all prompts.
        words: (N, S, width) as from `word_vectors`, or (S, width) for all prompts.
        end: place of the end token within the words; one for all, or (N,) int64.
        deep: as in `TextTower.encode`.

    Returns:
        (N, D), not normalised.
    """
    count = context.shape[0] if context.ndim == 3 else words.shape[0]
    parts = [part.expand(count, -1, -1) for part in (context, words)]
    return text.encode(start, torch.cat(parts, dim=1), context.shape[-2] + end, deep)


@dataclass(frozen=True, slots=True)
class SentenceEncoder:
    """Encode plain sentences with a text tower and its tokenizer, as a backbone does."""

    text: TextTower
    tokenizer: Tokenizer

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (N, D) features of plain sentences, not normalised."""
        ids = self.tokenizer(texts).to(self.text.token_embedding.weight.device)
        return self.text.encode_tokens(ids)
