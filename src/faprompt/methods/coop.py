"""CoOp and CoCoOp: one learned context for both states, and the name of what is shown.

    normal    [SOT] V1..V12 normal    {class}. [EOT]
    abnormal  [SOT] V1..V12 anomalous {class}. [EOT]
    CoCoOp    V1+Omega..V12+Omega,  Omega = W2 relu(W1 g),  g the unit class token, width D/16

CoOp is trained by the image's label alone, as the AnomalyCLIP paper sets it up: no mask loss,
CLIP's unmodified image tower, map from the last layer's patches. A pixel AUROC below chance is
expected on the paper's backbone, and published (33.3 on MVTec AD).

CoCoOp's original sees no mask either, but its published maps are good, which its own loss cannot
explain. So `paper` trains it as AnomalyCLIP: V-V patch tokens, focal and Dice beside the cross
entropy, temperature 0.07. `original` is the trainer's own: plain tokens, cross entropy at CLIP's
temperature, and SGD on one picture at a time.

Papers: Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022; Conditional Prompt
Learning for Vision-Language Models, CVPR 2022. Public code: trainers/coop.py and
trainers/cocoop.py of KaiyangZhou/CoOp at ff61507c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import EncodedPrefix, TextTower
from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.config import Count, Positive, Weight
from faprompt.methods.anomalyclip import RECIPE, PairConfig, PairMethod, TextPair
from faprompt.methods.base import ClassNameMethod, Names, ParameterCount, Table
from faprompt.prompts.prompt_parts import (
    ImageContext,
    encode_prompts,
    learned_vectors,
    start_vector,
    word_vectors,
)
from faprompt.scoring import CLIP_AD_TEMPERATURE

CLIP_TEMPERATURE = 0.01  # where CLIP's own training ended: factor 100, frozen in all three
# Dassl's defaults and configs/trainers/CoOp, with the batches of the other methods here
COSINE_RECIPE: Mapping[str, Any] = {
    "learning_rate": 0.002, "weight_decay": 5e-4, "epochs": 50,
    "schedule": "cosine", "warmup_epochs": 1, "warmup_rate": 1e-5,
}  # fmt: skip
SGD_RECIPE: Mapping[str, Any] = {**COSINE_RECIPE, "optimizer": "sgd", "momentum": 0.9}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPromptConfig(PairConfig):
    """Options of learned prompts with a class name."""

    context_tokens: Count = 12  # N, shared by both states: 9,216 = 12 x 768 (table 3)
    normal_word: str = "normal"
    abnormal_word: str = "anomalous"
    class_word: str = "object"  # for pictures whose class is unknown
    use_class_names: bool = True
    temperature: Positive = CLIP_TEMPERATURE
    map_temperature: Positive = CLIP_AD_TEMPERATURE
    plain_path: bool = False  # CLIP's own tokens, `ln_post` on the class token included


@dataclass(frozen=True, slots=True, kw_only=True)
class CoOpConfig(ClassPromptConfig):
    """Options of CoOp for anomalies; `local_weight` above 0 would make it another method."""

    local_weight: Weight = 0.0
    plain_path: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CoCoOpConfig(ClassPromptConfig):
    """Options of CoCoOp, at AnomalyCLIP's temperature."""

    temperature: Positive = CLIP_AD_TEMPERATURE


class ClassPromptMethod(ClassNameMethod, PairMethod):
    """Frozen words that depend on the class; children learn the context before them."""

    config: ClassPromptConfig
    start_word: Tensor

    def __init__(self, config: ClassPromptConfig, backbone: Backbone) -> None:
        super().__init__(config)
        plain = config.plain_path
        self.image_options = ImageOptions(value_path=not plain, class_ln_post=plain)
        self._tokenizer = backbone.tokenizer
        start = start_vector(backbone.text, backbone.tokenizer)
        self.register_buffer("start_word", start, persistent=False)

    @property
    def map_temperature(self) -> float:
        """As configured."""
        return self.config.map_temperature

    def encode_words(self, text: TextTower, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embed two sentences per class: vectors (C, 2, S, width), end token places (C, 2).

        Raises:
            ConfigError: this backbone has no token for a word.
        """
        states = (self.config.normal_word, self.config.abnormal_word)
        lines = [f"{state} {name}.".strip() for name in names for state in states]
        with self._naming():
            vectors, end = word_vectors(text, self._tokenizer, lines)
        return vectors.unflatten(0, (-1, 2)), end.unflatten(0, (-1, 2))


class CoOp(ClassPromptMethod):
    """A context that depends on no image."""

    name = "coop"
    config_class = CoOpConfig
    parameters_at_full_size = ParameterCount(9_216, 9_216)
    recipes: ClassVar[Table] = {"paper": SGD_RECIPE}

    def __init__(self, config: CoOpConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.context = learned_vectors(config.context_tokens, backbone.spec.text.width)

    def static_text(self, text: TextTower) -> Tensor:
        """Encode (2, D): the pair of `class_word`, not normalised."""
        return self.encode_pairs(text, [self.config.class_word])[0]

    def text_pair(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> TextPair:
        """Return each image's pair; each distinct class is encoded once."""
        if class_names is None:
            return TextPair(self.static_text(text) if static is None else static)
        names, places = distinct(self.name_classes(class_names, len(class_names)))
        return TextPair(self.encode_pairs(text, names)[places])

    def encode_pairs(self, text: TextTower, names: Sequence[str]) -> Tensor:
        """Encode (C, 2, D), the pairs of these classes, not normalised."""
        words, end = self.encode_words(text, names)
        prefix = text.encode_prefix(torch.cat([self.start_word, self.context]))
        return text.encode(prefix, words.flatten(0, 1), end.flatten()).unflatten(0, (-1, 2))


class CoCoOp(ClassPromptMethod):
    """A context per image."""

    name = "cocoop"
    config_class = CoCoOpConfig
    parameters_at_full_size = ParameterCount(83_760, 83_760)
    presets: ClassVar[Table] = {
        "paper": {},
        "original": {"plain_path": True, "local_weight": 0.0, "temperature": CLIP_TEMPERATURE},
    }
    recipes: ClassVar[Table] = {
        "paper": RECIPE,
        "original": {**SGD_RECIPE, "batch_size": 1, "epochs": 10},
    }

    def __init__(self, config: CoCoOpConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        spec = backbone.spec
        self.learner = ImageContext(config.context_tokens, spec.embed_dim, spec.text.width)

    def static_text(self, text: TextTower) -> EncodedPrefix:
        """Encode the start token, which no image changes."""
        return text.encode_prefix(self.start_word)

    def text_pair(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> TextPair:
        """Return two prompts per image, (B, 2, D)."""
        count = features.class_token.shape[0]
        names, places = distinct(self.name_classes(class_names, 1))  # one name counts for all
        start = self.static_text(text) if static is None else static
        words, end = (
            table[places].expand(count, *table.shape[1:])
            for table in self.encode_words(text, names)
        )
        contexts = self.learner(features.class_token).repeat_interleave(2, dim=0)  # both states
        encoded = encode_prompts(text, start, contexts, words.flatten(0, 1), end.flatten())
        return TextPair(encoded.unflatten(0, (-1, 2)))


def distinct(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return each name once, in order of appearance, and the place of each given name there.

    Example:
        >>> distinct(["nut", "pill", "nut"])
        (['nut', 'pill'], [0, 1, 0])
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return list(places), [places[name] for name in names]
