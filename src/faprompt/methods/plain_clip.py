"""CLIP with handcrafted prompts: nothing is learned.

`clip` compares with "a photo of a normal object." and "a photo of an anomalous object.";
`clip-ac` with the 80 ImageNet templates around both states. As the AnomalyCLIP paper runs
them: unmodified image tower, class token without ln_post, temperature 0.07, map from the
last layer's patches. Pixel AUROC far below chance is expected of them on the paper's
backbone; the sign is right. `value_path=true` reads the V-V patch tokens instead (ours).

Source: Radford et al., CLIP (ICML 2021); Zhou et al., AnomalyCLIP (ICLR 2024), baselines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.methods.base import (
    Method,
    MethodConfig,
    MethodOutput,
    MethodParts,
    above_zero,
    class_token_terms,
)
from faprompt.prompts import templates
from faprompt.scoring import CLIP_AD_TEMPERATURE, abnormal_probability, grid_map

PROMPT_SETS = {
    "clip": (templates.CLIP_TEMPLATES, templates.CLIP_STATES),
    "clip-ac": (templates.IMAGENET_TEMPLATES, templates.CLIP_AC_STATES),
    "winclip": (templates.WINCLIP_TEMPLATES, templates.WINCLIP_STATES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainCLIPConfig(MethodConfig):
    """Which sentences, and which tokens they are compared with."""

    prompt_set: Literal["clip", "clip-ac", "winclip"] = "clip"
    class_word: str = "object"
    temperature: float = CLIP_AD_TEMPERATURE
    value_path: bool = False
    class_ln_post: bool = False  # True is CLIP proper; False gives the published figures

    def faults(self) -> list[str]:
        """See `MethodConfig.faults`."""
        return MethodConfig.faults(self) + above_zero(self, "temperature")


@dataclass(frozen=True, slots=True, kw_only=True)
class CLIPACConfig(PlainCLIPConfig):
    """`clip-ac`: the same with 80 templates."""

    prompt_set: Literal["clip", "clip-ac", "winclip"] = "clip-ac"


class PlainCLIP(Method):
    """Two fixed text directions on a frozen CLIP."""

    name = "clip"
    config_class: ClassVar[type[MethodConfig]] = PlainCLIPConfig
    text_pair: Tensor

    def __init__(self, config: PlainCLIPConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config: PlainCLIPConfig = config
        lines, states = PROMPT_SETS[config.prompt_set]
        pair = templates.state_pair(backbone, lines, states, config.class_word)
        self.register_buffer("text_pair", pair, persistent=False)

    @property
    def value_path(self) -> bool:
        """As configured."""
        return self.config.value_path

    @property
    def class_ln_post(self) -> bool:
        """As configured."""
        return self.config.class_ln_post

    def static_text(self, text: TextTower) -> Tensor:
        """(2, D), unit length: normal, abnormal."""
        return self.text_pair

    def forward(
        self,
        features: ImageFeatures,
        text: TextTower,
        *,
        static: Tensor | None = None,
        with_prompt_scores: bool = False,
    ) -> MethodOutput:
        """See `Method.forward`."""
        temperature, pair = self.config.temperature, self.text_pair
        tokens = features.patch_tokens[max(features.patch_tokens)]
        image = features.class_token[:, None]
        score = abnormal_probability(image, pair, temperature=temperature)[:, 0]
        patches = abnormal_probability(tokens, pair, temperature=temperature)
        return MethodOutput(
            score=score,
            patch_map=grid_map(patches, features.grid),
            prompt_scores=score[:, None] if with_prompt_scores else None,
        )

    def explain(self, features: ImageFeatures, output: MethodOutput) -> MethodParts:
        """The class token alone makes the score."""
        return MethodParts(terms=class_token_terms(output))


class CLIPAC(PlainCLIP):
    """CLIP with the 80 ImageNet templates around both states."""

    name = "clip-ac"
    config_class: ClassVar[type[MethodConfig]] = CLIPACConfig
