"""CoOp: one learned context for both states; trained by the image's label alone.

    normal    [SOT] V1..V12 normal    {class}. [EOT]
    abnormal  [SOT] V1..V12 anomalous {class}. [EOT]

As the AnomalyCLIP paper sets it up for anomalies: no mask loss, CLIP's unmodified image
tower, map from the last layer's patches. The original has no map; a pixel AUROC below
chance is expected of this one on the paper's backbone, and published (33.3 on MVTec AD).

Paper: Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022. Public code:
trainers/coop.py of KaiyangZhou/CoOp at ff61507c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.config import Weight
from faprompt.methods.base import ParameterCount
from faprompt.methods.class_prompts import ClassPromptConfig, ClassPromptMethod, distinct
from faprompt.methods.text_pair import TextPair
from faprompt.prompts.prompt_parts import learned_vectors

# Dassl's defaults and configs/trainers/CoOp, with the batches of the other methods here
SGD_RECIPE: Mapping[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.002,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "warmup_rate": 1e-5,
    "epochs": 50,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoOpConfig(ClassPromptConfig):
    """CoOp for anomalies. `local_weight` above 0 would make it another method."""

    local_weight: Weight = 0.0
    plain_path: bool = True


class CoOp(ClassPromptMethod):
    """A context that depends on no image."""

    name = "coop"
    config_class = CoOpConfig
    parameters_at_full_size = ParameterCount(9_216, 9_216)
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": SGD_RECIPE}

    def __init__(self, config: CoOpConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.context = learned_vectors(config.context_tokens, backbone.spec.text.width)

    def static_text(self, text: TextTower) -> Tensor:
        """(2, D): the pair of `class_word`, un-normalised."""
        return self.encode_pairs(text, [self.config.class_word])[0]

    def text_pair(
        self,
        features: ImageFeatures,
        text: TextTower,
        static: Tensor | None,
        class_names: Sequence[str] | None,
    ) -> TextPair:
        """Each distinct class is encoded once; every image gets its own."""
        if class_names is None:
            return TextPair(self.static_text(text) if static is None else static)
        names, places = distinct(self.name_classes(class_names, len(class_names)))
        return TextPair(self.encode_pairs(text, names)[places])

    def encode_pairs(self, text: TextTower, names: Sequence[str]) -> Tensor:
        """(C, 2, D) of these classes, un-normalised."""
        words, end = self.encode_words(text, names)
        prefix = text.encode_prefix(torch.cat([self.start_word, self.context]))
        return text.encode(prefix, words.flatten(0, 1), end.flatten()).unflatten(0, (-1, 2))
