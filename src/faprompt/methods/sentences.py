"""Handcrafted sentences about what is shown, for CLIP, WinCLIP, APRIL-GAN and AnoVL.

Every template is filled with every state of a class, normal and abnormal, and each side
becomes one direction. The text tower is frozen, so the sentences of a class are encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageOptions
from faprompt.config import Positive
from faprompt.methods.base import MethodConfig, Names
from faprompt.methods.class_names import ClassNameMethod
from faprompt.prompts.states import StateTexts
from faprompt.prompts.templates import Average
from faprompt.prompts.words import Speaker
from faprompt.scoring import abnormal_probability


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceConfig(MethodConfig):
    """Options of handcrafted sentences."""

    sigma_px: float = 0.0  # of these, only CLIP smooths its map
    class_word: str = "object"  # for pictures whose class is unknown
    use_class_names: bool = True
    raw_class_names: bool = False  # as folders are called, "metal_nut" and "01", not in words
    average: Average = "norm-mean-norm"
    temperature: Positive = 0.01


class SentenceMethod(ClassNameMethod):
    """Two text directions per class, from sentences.

    Args:
        config, backbone: as in `build_method`.
        states: phrases of the normal states, then of the abnormal ones.
        templates: the sentences around the states of a class.
    """

    config: SentenceConfig
    text_pair: Tensor

    def __init__(
        self,
        config: SentenceConfig,
        backbone: Backbone,
        *,
        states: Sequence[Sequence[str]],
        templates: Callable[[str], Sequence[str]],
    ) -> None:
        super().__init__(config)
        self.raw_class_names = config.raw_class_names
        self.image_options = ImageOptions(value_path=False, class_ln_post=True)  # CLIP's own
        self._tokenizer = backbone.tokenizer
        self._texts = StateTexts(states, templates, raw=config.raw_class_names)
        pair = self.class_pair(backbone.text, config.class_word)
        self.register_buffer("text_pair", pair, persistent=False)

    def static_text(self, text: TextTower) -> Tensor:
        """Return (2, D), unit length: normal and abnormal, of `class_word`."""
        return self.text_pair

    def state_features(self, text: TextTower, class_name: str) -> list[Tensor]:
        """Encode the normal, then the abnormal sentences: (m, D) each, not normalised.

        Raises:
            ConfigError: this backbone has no token for a word.
        """
        with self._naming():
            return self._texts.features(Speaker(text, self._tokenizer), class_name)

    def class_pair(self, text: TextTower, class_name: str) -> Tensor:
        """Encode one class: (2, D), unit length, normal and abnormal; see `state_features`."""
        with self._naming():
            speaker = Speaker(text, self._tokenizer)
            return self._texts.pair(speaker, class_name, self.config.average)

    def text_pairs(self, text: TextTower, class_names: Names) -> Tensor:
        """Encode (2, D) for all pictures, or (B, 2, D) if they have names."""
        if class_names is None or not self.config.use_class_names:
            return self.text_pair
        names = self.name_classes(class_names, len(class_names))
        return torch.stack([self.class_pair(text, name) for name in names])

    def chance(self, tokens: Tensor, pair: Tensor) -> Tensor:
        """Return the probability of "abnormal": (B, N, D) -> (B, N)."""
        return abnormal_probability(tokens, pair, temperature=self.config.temperature)
