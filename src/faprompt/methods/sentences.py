"""What WinCLIP, APRIL-GAN and AnoVL share: handcrafted sentences about what is shown.

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
from faprompt.errors import ConfigError
from faprompt.methods.base import Method, MethodConfig
from faprompt.prompts.templates import Average, mean_direction, sentences
from faprompt.prompts.words import Speaker
from faprompt.scoring import abnormal_probability


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceConfig(MethodConfig):
    """Options of handcrafted sentences."""

    sigma_px: float = 0.0  # none of the three smooths its map
    class_word: str = "object"  # where nobody says what is shown
    use_class_names: bool = True
    average: Average = "norm-mean-norm"
    temperature: float = 0.01

    def faults(self) -> list[str]:
        """See `MethodConfig.faults`."""
        found = MethodConfig.faults(self)
        if not self.temperature > 0:
            found.append(f"temperature should be above 0, got {self.temperature}")
        return found


class SentenceMethod(Method):
    """Two text directions a class, from sentences. Children say which templates and states."""

    config: SentenceConfig
    states: Sequence[Sequence[str]]  # normal, abnormal
    text_pair: Tensor

    def __init__(self, config: SentenceConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self._tokenizer = backbone.tokenizer
        self._encoded: dict[tuple[str, str], list[Tensor]] = {}
        pair = self.class_pair(backbone.text, config.class_word)
        self.register_buffer("text_pair", pair, persistent=False)

    @property
    def uses_class_names(self) -> bool:
        """As configured."""
        return self.config.use_class_names

    @property
    def value_path(self) -> bool:
        """The tower is used as it is."""
        return False

    @property
    def class_ln_post(self) -> bool:
        """As in CLIP."""
        return True

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
        key = (class_name, str(text.positional_embedding.device))
        if key not in self._encoded:
            speaker, lines = Speaker(text, self._tokenizer), self.templates(class_name)
            with torch.inference_mode(False), torch.no_grad():  # it is kept
                try:
                    self._encoded[key] = [
                        speaker.encode_texts(sentences(lines, words, class_name))
                        for words in self.states
                    ]
                except ValueError as error:
                    raise ConfigError(
                        f"{self.name}: {error} Choose another class_word; or set "
                        "use_class_names=false, and every picture shows "
                        f"{self.config.class_word!r}."
                    ) from error
        return self._encoded[key]

    def class_pair(self, text: TextTower, class_name: str) -> Tensor:
        """(2, D), unit length: normal and abnormal, of one class."""
        features = self.state_features(text, class_name)
        return torch.stack([mean_direction(rows, self.config.average) for rows in features])

    def name_classes(self, class_names: Sequence[str] | None) -> list[str] | None:
        """What each picture shows; None where one pair serves all."""
        if class_names is None or not self.config.use_class_names:
            return None
        return [name.strip() or self.config.class_word for name in class_names]

    def text_pairs(self, text: TextTower, class_names: Sequence[str] | None) -> Tensor:
        """(2, D) for all pictures, or (B, 2, D) where they have names."""
        names = self.name_classes(class_names)
        if names is None:
            return self.text_pair
        return torch.stack([self.class_pair(text, name) for name in names])

    def chance(self, tokens: Tensor, pair: Tensor) -> Tensor:
        """(B, N, D) -> (B, N), the chance of "abnormal"."""
        return abnormal_probability(tokens, pair, temperature=self.config.temperature)
