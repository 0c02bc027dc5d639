"""What CoOp, CoCoOp and TCP share: one learned context, and the name of what is shown.

    normal    [SOT] V1..VN {normal}   {class}. [EOT]
    abnormal  [SOT] V1..VN {abnormal} {class}. [EOT]

A picture's class comes with it where a dataset says so, in training and evaluation alike;
elsewhere, and with `use_class_names=false`, it is `class_word`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageOptions
from faprompt.config import Count, Positive
from faprompt.methods.class_names import ClassNameMethod
from faprompt.methods.text_pair import PairConfig, PairMethod
from faprompt.prompts.prompt_parts import start_vector, word_vectors
from faprompt.scoring import CLIP_AD_TEMPERATURE

CLIP_TEMPERATURE = 0.01  # where CLIP's own training ended: factor 100, frozen in all three


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPromptConfig(PairConfig):
    """Options of prompts with a class name."""

    context_tokens: Count = 12  # N, shared by both states: 9,216 = 12 x 768 (table 3)
    normal_word: str = "normal"
    abnormal_word: str = "anomalous"
    class_word: str = "object"  # where nobody says what is shown
    use_class_names: bool = True
    temperature: Positive = CLIP_TEMPERATURE
    map_temperature: Positive = CLIP_AD_TEMPERATURE
    plain_path: bool = False  # CLIP's own tokens, `ln_post` on the class token included


class ClassPromptMethod(ClassNameMethod, PairMethod):
    """Frozen words that depend on the class; children learn the context before them."""

    config: ClassPromptConfig
    start_word: Tensor

    def __init__(self, config: ClassPromptConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self._tokenizer = backbone.tokenizer
        start = start_vector(backbone.text, backbone.tokenizer)
        self.register_buffer("start_word", start, persistent=False)

    @property
    def image_options(self) -> ImageOptions:
        """V-V tokens, or with `plain_path` CLIP's own patch tokens and class token."""
        plain = self.config.plain_path
        return ImageOptions(value_path=not plain, class_ln_post=plain)

    @property
    def map_temperature(self) -> float:
        """As configured."""
        return self.config.map_temperature

    def encode_words(self, text: TextTower, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Two sentences a class: vectors (C, 2, S, width) and places of the end token (C, 2).

        Raises:
            ConfigError: a word this backbone has no token for.
        """
        states = (self.config.normal_word, self.config.abnormal_word)
        lines = [f"{state} {name}.".strip() for name in names for state in states]
        with self._naming():
            vectors, end = word_vectors(text, self._tokenizer, lines)
        return vectors.unflatten(0, (-1, 2)), end.unflatten(0, (-1, 2))


def distinct(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Each name once, in order of appearance, and where each of the given ones stands.

    Example:
        >>> distinct(["nut", "pill", "nut"])
        (['nut', 'pill'], [0, 1, 0])
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return list(places), [places[name] for name in names]
