"""AnomalyCLIP Ensemble*: ten abnormal prompts of AnomalyCLIP's own kind, not compounded.

    normal      [SOT] V1..V12           object . [EOT]
    abnormal i  [SOT] W_i1..W_i12 damaged object . [EOT]        i = 1..10, F_a their mean

What the FAPrompt paper's t-SNE figure sets against its ten prompts (section C.3): nothing
ties the contexts to the normal one or holds them apart, and each feels the same gradient, so
their maps lie close together. The paper says no more of it; the mean, as FAPrompt takes it,
and AnomalyCLIP's own loss are our reading. `orthogonal_weight=0.1` adds FAPrompt's
orthogonality, which a reviewer asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from faprompt import losses
from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.config import Count, Weight
from faprompt.methods.anomalyclip import AnomalyCLIP, AnomalyCLIPConfig
from faprompt.methods.base import ParameterCount
from faprompt.methods.text_pair import TextPair
from faprompt.prompts.prompt_parts import learned_vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyCLIPEnsembleConfig(AnomalyCLIPConfig):
    """AnomalyCLIP's constants, and how many abnormal prompts."""

    prompts: Count = 10  # section C.3
    orthogonal_weight: Weight = 0.0


class AnomalyCLIPEnsemble(AnomalyCLIP):
    """One normal and K abnormal learned prompts."""

    name = "anomalyclip-ensemble"
    config_class = AnomalyCLIPEnsembleConfig
    parameters_at_full_size = ParameterCount(125_952, 5_638_144)
    config: AnomalyCLIPEnsembleConfig

    def __init__(self, config: AnomalyCLIPEnsembleConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.abnormal_context = learned_vectors(config.prompts, *self.abnormal_context.shape)

    def text_pair(
        self,
        features: ImageFeatures,
        text: TextTower,
        static: Tensor | None,
        class_names: Sequence[str] | None,
    ) -> TextPair:
        """AnomalyCLIP's, with the overlap of the abnormal prompts where it is weighed."""
        spoken = super().text_pair(features, text, static, class_names)
        if not self.config.orthogonal_weight or spoken.abnormal is None:
            return spoken
        overlap = self.config.orthogonal_weight * losses.orthogonality(spoken.abnormal)
        return replace(spoken, terms={"orthogonal": overlap})
