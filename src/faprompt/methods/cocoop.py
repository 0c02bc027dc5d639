"""CoCoOp: CoOp whose context is shifted by each image's own feature.

    Omega     = W2 relu(W1 g)                  g the unit class token, hidden width D/16
    normal    [SOT] V1+Omega..V12+Omega normal    {class}. [EOT]
    abnormal  [SOT] V1+Omega..V12+Omega anomalous {class}. [EOT]

The original sees no mask. Published maps of it are good, which its own loss cannot explain;
so `paper` puts it where AnomalyCLIP stands: V-V patch tokens, focal and Dice beside the
cross entropy, temperature 0.07, and its training. `original` is the trainer's own: plain
tokens, cross entropy at CLIP's temperature, and SGD on one picture at a time.

Paper: Zhou et al., Conditional Prompt Learning for Vision-Language Models, CVPR 2022. Public
code: trainers/cocoop.py of KaiyangZhou/CoOp at ff61507c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import EncodedPrefix, TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.config import Positive
from faprompt.methods.anomalyclip import RECIPE
from faprompt.methods.base import ParameterCount
from faprompt.methods.class_prompts import (
    CLIP_TEMPERATURE,
    ClassPromptConfig,
    ClassPromptMethod,
    distinct,
)
from faprompt.methods.coop import SGD_RECIPE
from faprompt.methods.text_pair import TextPair
from faprompt.prompts.prompt_parts import ImageContext, encode_prompts
from faprompt.scoring import CLIP_AD_TEMPERATURE


@dataclass(frozen=True, slots=True, kw_only=True)
class CoCoOpConfig(ClassPromptConfig):
    """CoCoOp in AnomalyCLIP's place."""

    temperature: Positive = CLIP_AD_TEMPERATURE


class CoCoOp(ClassPromptMethod):
    """A context per image."""

    name = "cocoop"
    config_class = CoCoOpConfig
    parameters_at_full_size = ParameterCount(83_760, 83_760)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "original": {"plain_path": True, "local_weight": 0.0, "temperature": CLIP_TEMPERATURE},
    }
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": RECIPE,
        "original": {**SGD_RECIPE, "batch_size": 1, "epochs": 10},
    }

    def __init__(self, config: CoCoOpConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        spec = backbone.spec
        self.learner = ImageContext(config.context_tokens, spec.embed_dim, spec.text.width)

    def static_text(self, text: TextTower) -> EncodedPrefix:
        """The start token, all that no image changes."""
        return text.encode_prefix(self.start_word)

    def text_pair(
        self,
        features: ImageFeatures,
        text: TextTower,
        static: EncodedPrefix | None,
        class_names: Sequence[str] | None,
    ) -> TextPair:
        """Two prompts an image, (B, 2, D)."""
        count = features.class_token.shape[0]
        names, places = distinct(self.name_classes(class_names, 1))  # untold, or one name: of all
        start = self.static_text(text) if static is None else static
        words, end = (
            table[places].expand(count, *table.shape[1:])
            for table in self.encode_words(text, names)
        )
        contexts = self.learner(features.class_token).repeat_interleave(2, dim=0)  # both states
        encoded = encode_prompts(text, start, contexts, words.flatten(0, 1), end.flatten())
        return TextPair(encoded.unflatten(0, (-1, 2)))
