"""AnomalyCLIP: two learned object-agnostic prompts, with deep prompts and V-V patch tokens.

    normal    [SOT] V1..V12         object . [EOT]
    abnormal  [SOT] W1..W12 damaged object . [EOT]

Paper: Zhou et al., AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly
Detection, ICLR 2024. Facts from prompt_ensemble.py, train.py, test.py of
zqhang/AnomalyCLIP at 45ed4dd. That code sums the maps of several layers; the published
results use the last layer alone (issue 82 of that repository), which is the default here.

`anomalyclip-ensemble` has ten abnormal contexts, and F_a is the mean of their features. The
FAPrompt paper compares its ten prompts with it in the t-SNE figure (section C.3): nothing ties
the contexts to the normal one or keeps them apart, and each gets the same gradient, so their
maps lie close together. The paper says no more; the mean (as in FAPrompt) and AnomalyCLIP's own
loss are our reading. `orthogonal_weight=0.1` adds FAPrompt's orthogonality, which a reviewer
asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from faprompt import losses
from faprompt.clip.backbone import Backbone
from faprompt.clip.text import DeepPrompts, TextTower
from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.config import Count, Weight
from faprompt.methods.base import MethodParts, Names, ParameterCount, within_depth
from faprompt.methods.text_pair import PairConfig, PairMethod, PairOutput, TextPair
from faprompt.prompts.prompt_parts import (
    encode_prompts,
    learned_vectors,
    start_vector,
    word_vectors,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyCLIPConfig(PairConfig):
    """All constants of AnomalyCLIP, from its public code."""

    context_tokens: Count = 12
    deep_depth: Count = 9
    deep_length: Count = 4
    class_word: str = "object"
    abnormal_word: str = "damaged"
    map_layers: tuple[int, ...] = ()  # blocks from 1 whose maps are averaged; () is the last
    local_weight: Weight = 4.0  # per layer; the first release summed four equal maps
    round_deep_to_half: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyCLIPEnsembleConfig(AnomalyCLIPConfig):
    """AnomalyCLIP's constants, and the number of abnormal prompts."""

    prompts: Count = 10  # section C.3
    orthogonal_weight: Weight = 0.0


PRESETS: dict[str, dict[str, object]] = {
    "paper": {},
    "official": {"round_deep_to_half": True, "picture_handling": "released"},
}
RECIPE: Mapping[str, Any] = {"epochs": 15}  # train.sh; otherwise as FAPrompt


class AnomalyCLIP(PairMethod):
    """One normal and one abnormal learned prompt on a frozen CLIP."""

    name = "anomalyclip"
    config_class = AnomalyCLIPConfig
    parameters_at_full_size = ParameterCount(43_008, 5_555_200)
    presets = PRESETS
    recipes = dict.fromkeys(PRESETS, RECIPE)
    normal_words: Tensor
    abnormal_words: Tensor
    start_word: Tensor

    def __init__(self, config: AnomalyCLIPConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config: AnomalyCLIPConfig = config
        within_depth(config.map_layers, backbone.spec.vision.layers)
        self.image_options = ImageOptions(layers=config.map_layers or None)
        width, depth = backbone.spec.text.width, backbone.spec.text.layers
        layers = min(config.deep_depth, depth) - 1
        self.normal_context = learned_vectors(config.context_tokens, width)
        self.abnormal_context = learned_vectors(config.context_tokens, width)
        self.deep_prompts = learned_vectors(layers, config.deep_length, width)
        words = partial(word_vectors, backbone.text, backbone.tokenizer)
        abnormal = f"{config.abnormal_word} {config.class_word}."
        for name, frozen in (
            ("start_word", start_vector(backbone.text, backbone.tokenizer)),
            ("normal_words", words([f"{config.class_word}."])[0][0]),
            ("abnormal_words", words([abnormal])[0][0]),
        ):
            self.register_buffer(name, frozen.detach().clone(), persistent=False)

    def static_text(self, text: TextTower) -> Tensor:
        """Encode (1 + K, D): the normal text, then the abnormal one(s); not normalised."""
        deep = DeepPrompts(self.deep_prompts, self.config.round_deep_to_half)
        start = text.encode_prefix(self.start_word, deep)
        rows = []
        for context, words in (
            (self.normal_context, self.normal_words),
            (self.abnormal_context, self.abnormal_words),
        ):
            contexts = context.reshape(-1, *context.shape[-2:])  # one, or the ensemble's K
            rows.append(encode_prompts(text, start, contexts, words, words.shape[0] - 1, deep))
        return torch.cat(rows)

    def text_pair(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> TextPair:
        """Return one pair for all pictures; several abnormal prompts are averaged."""
        rows = self.static_text(text) if static is None else static
        return TextPair(torch.stack([rows[0], rows[1:].mean(dim=0)]), rows[1:])

    def explain(self, features: ImageFeatures, output: PairOutput) -> MethodParts:
        """See `PairMethod.explain`; with the learned contexts."""
        context = self.abnormal_context
        return replace(
            super().explain(features, output),
            normal_tokens=self.normal_context,
            abnormal_tokens=context.reshape(-1, *context.shape[-2:]),
        )


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
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> TextPair:
        """Return AnomalyCLIP's pair, and the overlap of the abnormal prompts if it is weighed."""
        found = super().text_pair(features, text, static, class_names)
        if not self.config.orthogonal_weight or found.abnormal is None:
            return found
        overlap = self.config.orthogonal_weight * losses.orthogonality(found.abnormal)
        return replace(found, terms={"orthogonal": overlap})
