"""CAP: compound abnormality prompts, K abnormal prompts that share the normal prompt's context.

    normal      [SOT] V1..VE                 object . [EOT]
    abnormal i  [SOT] V1..VE A_i1..A_iE'  damaged object . [EOT]

V is shared by all prompts, so `[SOT] V1..VE` is one prefix, encoded once.
Deep prompts D_2..D_d overwrite positions 1..t before layers 2..d, in every prompt.

Source: FAPrompt (ICCV 2025), Eq. 1 and appendix B.1; FAPrompt.py of mala-lab/FAPrompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import DeepPrompts, EncodedPrefix, TextTower
from faprompt.prompts.prompt_parts import (
    encode_prompts,
    learned_vectors,
    start_vector,
    word_vectors,
)


@dataclass(frozen=True, slots=True)
class EncodedPrompts:
    """Text features of the first pass, which depend on no image, and their common prefix.

    normal_text (D,), abnormal_text (K, D); un-normalised.
    """

    prefix: EncodedPrefix
    normal_text: Tensor
    abnormal_text: Tensor


class CompoundPrompts(nn.Module):
    """Learn the vectors V, A and D; the words around them are frozen."""

    normal_words: Tensor
    abnormal_words: Tensor
    start_word: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        prompts: int,
        normal_tokens: int,
        abnormal_tokens: int,
        deep_depth: int,
        deep_length: int,
        class_word: str,
        abnormal_word: str,
        round_to_half: bool,
    ) -> None:
        super().__init__()
        width = backbone.spec.text.width
        layers = max(0, min(deep_depth, backbone.spec.text.layers) - 1)
        self.round_to_half = round_to_half
        self.normal_context = learned_vectors(normal_tokens, width)
        self.abnormal_tokens = learned_vectors(prompts, abnormal_tokens, width)
        self.deep_prompts = learned_vectors(layers, deep_length, width)
        words = partial(word_vectors, backbone.text, backbone.tokenizer)
        for name, vectors in (
            ("start_word", start_vector(backbone.text, backbone.tokenizer)),
            ("normal_words", words([f"{class_word}."])[0][0]),
            ("abnormal_words", words([f"{abnormal_word} {class_word}."])[0][0]),
        ):
            self.register_buffer(name, vectors.detach().clone(), persistent=False)

    @property
    def width(self) -> int:
        """Width of a prompt token."""
        return self.normal_context.shape[-1]

    @property
    def deep(self) -> DeepPrompts:
        """D_2..D_d in the text tower's form."""
        return DeepPrompts(self.deep_prompts, self.round_to_half)

    def encode(self, text: TextTower) -> EncodedPrompts:
        """Run the first pass: F_n and F_a1..F_aK, which depend on no image."""
        prefix = text.encode_prefix(torch.cat([self.start_word, self.normal_context]), self.deep)
        normal = text.encode(
            prefix, self.normal_words[None], self.normal_words.shape[0] - 1, self.deep
        )
        abnormal = self._encode_abnormal(text, prefix, self.abnormal_tokens)
        return EncodedPrompts(prefix, normal[0], abnormal)

    def encode_refined(self, text: TextTower, prefix: EncodedPrefix, prior: Tensor) -> Tensor:
        """Run the second pass: the prior of each image shifts the abnormal tokens.

        Args:
            prefix: from `encode`.
            prior: (B, width), added to all K*E' abnormal tokens of its image.

        Returns:
            (B, K, D), un-normalised.
        """
        shifted = self.abnormal_tokens + prior[:, None, None, :]  # (B, K, E', width)
        return self._encode_abnormal(text, prefix, shifted.flatten(0, 1)).unflatten(
            0, (prior.shape[0], -1)
        )

    def _encode_abnormal(self, text: TextTower, prefix: EncodedPrefix, tokens: Tensor) -> Tensor:
        words = self.abnormal_words
        return encode_prompts(text, prefix, tokens, words, words.shape[0] - 1, self.deep)
