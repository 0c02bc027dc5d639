"""What CLIP, WinCLIP, APRIL-GAN and AnoVL share: handcrafted sentences about what is shown.

Every template is filled with every state of a class, normal and abnormal, and each side
becomes one direction. A picture's class comes with it where a dataset says so; elsewhere,
and with `use_class_names=false`, it is `class_word`. The sentences of a class are encoded
once: the text tower is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageOptions
from faprompt.config import Positive
from faprompt.methods.base import MethodConfig
from faprompt.methods.class_names import ClassNameMethod
from faprompt.prompts.prompt_parts import SentenceEncoder
from faprompt.prompts.templates import Average, StateTexts
from faprompt.scoring import abnormal_probability


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceConfig(MethodConfig):
    """Options of handcrafted sentences."""

    sigma_px: float = 0.0  # none but CLIP smooths its map
    class_word: str = "object"  # where nobody says what is shown
    use_class_names: bool = True
    raw_class_names: bool = False  # as folders are called, "metal_nut" and "01", not in words
    average: Average = "norm-mean-norm"
    temperature: Positive = 0.01


class SentenceMethod(ClassNameMethod):
    """Two text directions a class, from sentences. Children say which templates and states."""

    config: SentenceConfig
    text_pair: Tensor

    def __init__(self, config: SentenceConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self._tokenizer = backbone.tokenizer
        self._texts = StateTexts(self.states, self.templates, raw=config.raw_class_names)
        pair = self.class_pair(backbone.text, config.class_word)
        self.register_buffer("text_pair", pair, persistent=False)

    @property
    def image_options(self) -> ImageOptions:
        """CLIP's own patch tokens and class token."""
        return ImageOptions(value_path=False, class_ln_post=True)

    @property
    def raw_class_names(self) -> bool:
        """As configured."""
        return self.config.raw_class_names

    @property
    def states(self) -> Sequence[Sequence[str]]:
        """Phrases of the normal states, then of the abnormal ones."""
        raise NotImplementedError

    def templates(self, class_name: str) -> Sequence[str]:
        """The sentences around a class's states."""
        raise NotImplementedError

    def static_text(self, text: TextTower) -> Tensor:
        """(2, D), unit length: normal and abnormal, of `class_word`."""
        return self.text_pair

    def state_features(self, text: TextTower, class_name: str) -> list[Tensor]:
        """Of the normal, then the abnormal sentences: (m, D), not normalised.

        Raises:
            ConfigError: a word this backbone has no token for.
        """
        with self._naming():
            return self._texts.features(SentenceEncoder(text, self._tokenizer), class_name)

    def class_pair(self, text: TextTower, class_name: str) -> Tensor:
        """(2, D), unit length: normal and abnormal, of one class; see `state_features`."""
        with self._naming():
            speaker = SentenceEncoder(text, self._tokenizer)
            return self._texts.pair(speaker, class_name, self.config.average)

    def text_pairs(self, text: TextTower, class_names: Sequence[str] | None) -> Tensor:
        """(2, D) for all pictures, or (B, 2, D) where they have names."""
        if class_names is None or not self.config.use_class_names:
            return self.text_pair
        names = self.name_classes(class_names, len(class_names))
        return torch.stack([self.class_pair(text, name) for name in names])

    def chance(self, tokens: Tensor, pair: Tensor) -> Tensor:
        """(B, N, D) -> (B, N), the chance of "abnormal"."""
        return abnormal_probability(tokens, pair, temperature=self.config.temperature)
