"""CoOp: one learned context for both states; trained by the image's label alone.

    normal    [SOT] V1..V12 normal    {class}. [EOT]
    abnormal  [SOT] V1..V12 anomalous {class}. [EOT]

As the AnomalyCLIP paper sets it up for anomalies: no mask loss, CLIP's unmodified image
tower, map from the last layer's patches. The original has no map; a pixel AUROC below
chance is expected of this one on the paper's backbone, and published (33.3 on MVTec AD).

Paper: Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022. Facts from
trainers/coop.py of KaiyangZhou/CoOp, through a written specification (section 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.methods.class_prompts import ClassPromptConfig, ClassPromptMethod, distinct
from faprompt.methods.text_pair import TextPair
from faprompt.prompts.words import learned_vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class CoOpConfig(ClassPromptConfig):
    """CoOp for anomalies. `local_weight` above 0 would make it another method."""

    local_weight: float = 0.0
    plain_path: bool = True


class CoOp(ClassPromptMethod):
    """A context that depends on no image."""

    name = "coop"
    config_class = CoOpConfig

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
