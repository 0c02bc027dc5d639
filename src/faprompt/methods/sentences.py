"""Handcrafted sentences about what is shown; `clip` and `clip-ac`, which need nothing else.

Every template is filled with every state of a class, normal and abnormal, and each side
becomes one direction. WinCLIP, APRIL-GAN and AnoVL share `SentenceMethod`.

`clip` compares with "a photo of a normal {class}." and "a photo of an anomalous {class}.";
`clip-ac` with the 80 ImageNet templates around both states. As the AnomalyCLIP paper runs
them: unmodified image tower, class token without ln_post, temperature 0.07, map from the
last layer's patches. A pixel AUROC far below chance is expected on the paper's backbone; the
sign is right. `value_path=true` reads the V-V patch tokens instead (ours).

The templates of CLIP-AC and the layers of its map are not published: `prompt_set=april-gan` and
`map_layers=6,12,18,24` are the other candidates. A third party reproduced the published image
scores of CLIP without `ln_post`; `common` has it, as CLIP itself does.

Source: Radford et al., CLIP (ICML 2021); Zhou et al., AnomalyCLIP (ICLR 2024), baselines, and
issues 25 and 76 of zqhang/AnomalyCLIP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.config import Positive
from faprompt.methods.base import (
    ClassNameMethod,
    MethodConfig,
    MethodOutput,
    MethodParts,
    Names,
    Table,
    class_token_terms,
    within_depth,
)
from faprompt.prompts import templates
from faprompt.prompts.prompt_parts import SentenceEncoder
from faprompt.prompts.templates import StateTexts
from faprompt.scoring import CLIP_AD_TEMPERATURE, abnormal_probability, grid_map

PromptSet = Literal["clip", "clip-ac", "winclip", "april-gan"]
PROMPT_SETS = {  # templates, states
    "clip": (templates.CLIP_TEMPLATES, templates.CLIP_STATES),
    "clip-ac": (templates.IMAGENET_TEMPLATES, templates.CLIP_AC_STATES),
    "winclip": (templates.WINCLIP_TEMPLATES, templates.WINCLIP_STATES),
    "april-gan": (templates.APRIL_TEMPLATES, templates.CLIP_AC_STATES),  # its templates alone
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceConfig(MethodConfig):
    """Options of handcrafted sentences."""

    sigma_px: float = 0.0  # of these, only CLIP smooths its map
    class_word: str = "object"  # for pictures whose class is unknown
    use_class_names: bool = True
    raw_class_names: bool = False  # as folders are called, "metal_nut" and "01", not in words
    average: templates.Average = "norm-mean-norm"
    temperature: Positive = 0.01


class SentenceMethod(ClassNameMethod):
    """Two text directions per class, from sentences.

    Args:
        config, backbone: as in `build_method`.
        states: phrases of the normal states, then of the abnormal ones.
        lines: templates of the sentences around the states of a class.
    """

    config: SentenceConfig
    text_pair: Tensor

    def __init__(
        self,
        config: SentenceConfig,
        backbone: Backbone,
        *,
        states: Sequence[Sequence[str]],
        lines: Callable[[str], Sequence[str]],
    ) -> None:
        super().__init__(config)
        self.raw_class_names = config.raw_class_names
        self.image_options = ImageOptions(value_path=False, class_ln_post=True)  # CLIP's own
        self._tokenizer = backbone.tokenizer
        self._texts = StateTexts(states, lines, raw=config.raw_class_names)
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
            return self._texts.features(SentenceEncoder(text, self._tokenizer), class_name)

    def class_pair(self, text: TextTower, class_name: str) -> Tensor:
        """Encode one class: (2, D), unit length, normal and abnormal; see `state_features`."""
        with self._naming():
            speaker = SentenceEncoder(text, self._tokenizer)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainCLIPConfig(SentenceConfig):
    """Options of `clip`: which sentences, and which tokens they are compared with."""

    prompt_set: PromptSet = "clip"
    sigma_px: float = 4.0
    raw_class_names: bool = True
    temperature: Positive = CLIP_AD_TEMPERATURE
    value_path: bool = False
    class_ln_post: bool = False  # True is CLIP proper; False gives the published figures
    map_layers: tuple[int, ...] = ()  # blocks from 1, whose maps are averaged; () is the last


@dataclass(frozen=True, slots=True, kw_only=True)
class CLIPACConfig(PlainCLIPConfig):
    """Options of `clip-ac`: the same with 80 templates."""

    prompt_set: PromptSet = "clip-ac"


class PlainCLIP(SentenceMethod):
    """Two fixed text directions per class on a frozen CLIP."""

    name = "clip"
    config_class: ClassVar[type[MethodConfig]] = PlainCLIPConfig
    presets: ClassVar[Table] = {
        "paper": {},
        "common": {"class_ln_post": True, "raw_class_names": False},
    }
    config: PlainCLIPConfig

    def __init__(self, config: PlainCLIPConfig, backbone: Backbone) -> None:
        within_depth(config.map_layers, backbone.spec.vision.layers)
        texts, states = PROMPT_SETS[config.prompt_set]
        super().__init__(config, backbone, states=states, lines=lambda _: texts)
        self.image_options = ImageOptions(
            layers=tuple(sorted(set(config.map_layers))) or None,
            value_path=config.value_path,
            class_ln_post=config.class_ln_post,
        )

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> MethodOutput:
        pair = self.text_pairs(text, class_names)
        patches = torch.stack([self.chance(x, pair) for x in features.patch_tokens.values()])
        return MethodOutput(
            score=self.chance(features.class_token[:, None], pair)[:, 0],
            patch_map=grid_map(patches.mean(dim=0), features.grid),
        )

    def explain(self, features: ImageFeatures, output: MethodOutput) -> MethodParts:
        """Return the class token's score; the map takes no part in it."""
        return MethodParts(terms=class_token_terms(output))


class CLIPAC(PlainCLIP):
    """CLIP with the 80 ImageNet templates around both states."""

    name = "clip-ac"
    config_class: ClassVar[type[MethodConfig]] = CLIPACConfig
