"""AnomalyCLIP: two learned object-agnostic prompts, with deep prompts and V-V patch tokens.

    normal    [SOT] V1..V12         object . [EOT]
    abnormal  [SOT] W1..W12 damaged object . [EOT]
    score     softmax(class token . [t_n, t_a] / temperature)       of the abnormal one
    map       softmax(patch token . [t_n, t_a] / map temperature)   mean over chosen layers
    loss      cross entropy of the image + weight * (focal + 2 Dice) of the map + text terms

CoOp, CoCoOp and TCP share the last three lines, `PairMethod`, and have another `text_pair`.

Paper: Zhou et al., AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly
Detection, ICLR 2024. Facts from prompt_ensemble.py, train.py, test.py of
zqhang/AnomalyCLIP at 45ed4dd. That code sums the maps of several layers; the published
results use the last layer alone (issue 82 of that repository), which is the default here.

`anomalyclip-ensemble` has ten abnormal contexts, and F_a is the mean of their features. The
FAPrompt paper compares its ten prompts with it in the t-SNE figure (section C.3), and says no
more; the mean (as in FAPrompt) and AnomalyCLIP's own loss are our reading. Each context gets the
same gradient, so their maps lie close together. `orthogonal_weight=0.1` adds FAPrompt's
orthogonality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt import losses
from faprompt.clip.backbone import Backbone
from faprompt.clip.text import DeepPrompts, TextTower
from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.config import Count, Positive, Weight
from faprompt.methods.base import (
    Method,
    MethodConfig,
    MethodOutput,
    MethodParts,
    Names,
    ParameterCount,
    class_token_terms,
    within_depth,
)
from faprompt.prompts.prompt_parts import (
    encode_prompts,
    learned_vectors,
    start_vector,
    word_vectors,
)
from faprompt.scoring import (
    CLIP_AD_TEMPERATURE,
    abnormal_probability,
    grid_map,
    pair_logits,
    probability_by_prompt,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairConfig(MethodConfig):
    """Options of every method with a learned text pair."""

    temperature: Positive = CLIP_AD_TEMPERATURE  # of the image's cosines
    local_weight: Weight = 4.0  # of the map's loss; 0 for none


@dataclass(frozen=True, slots=True)
class TextPair:
    """The text side of a batch; nothing is normalised.

    pair: (2, D), or (B, 2, D) if each image has its own; normal first. abnormal: (K, D), the
    abnormality prompts behind the pair, if there are several. terms: weighted losses of the
    text alone, by name.
    """

    pair: Tensor
    abnormal: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOutput(MethodOutput):
    """image_logits (B, 2) before softmax; layer_maps (L, B, rows, columns), one per layer; text
    is the pair they were computed with.
    """

    image_logits: Tensor
    layer_maps: Tensor
    text: TextPair

    @property
    def text_pair(self) -> Tensor:
        """(2, D) or (B, 2, D), normal first, not normalised."""
        return self.text.pair


class PairMethod(Method):
    """Score, map and loss of a text pair."""

    config: PairConfig

    @property
    def map_temperature(self) -> float:
        """The temperature that divides the cosines of patches."""
        return self.config.temperature

    def text_pair(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> TextPair:
        """Compute the text directions of a batch; arguments as in `Method.forward`."""
        raise NotImplementedError

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> PairOutput:
        found = self.text_pair(features, text, static, class_names)
        image = features.class_token[:, None]
        logits = pair_logits(image, found.pair, temperature=self.config.temperature)[:, 0]
        maps = [
            abnormal_probability(tokens, found.pair, temperature=self.map_temperature)
            for tokens in features.patch_tokens.values()
        ]
        layer_maps = torch.stack([grid_map(patches, features.grid) for patches in maps])
        return PairOutput(
            score=logits.softmax(dim=-1)[:, 1],
            patch_map=layer_maps.mean(dim=0),
            image_logits=logits,
            layer_maps=layer_maps,
            text=found,
        )

    def score_prompts(self, features: ImageFeatures, output: PairOutput) -> Tensor:
        text = output.text
        if text.abnormal is None:
            return output.score[:, None]
        return probability_by_prompt(
            features.class_token[:, None], text.pair[0], text.abnormal,
            temperature=self.config.temperature,
        )[..., 0]  # fmt: skip

    def loss(self, output: PairOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the image's cross entropy, the local loss summed over layers, the text terms."""
        terms = {"image": F.cross_entropy(output.image_logits, label)}
        if self.config.local_weight:
            local = losses.over_layers(losses.upsampled_local_loss, output.layer_maps, mask)
            terms["local"] = self.config.local_weight * local
        return {**terms, **output.text.terms}

    def explain(self, features: ImageFeatures, output: PairOutput) -> MethodParts:
        """Return the class token's score, the maps of several layers and those by prompt."""
        grids, text, alone = output.layer_maps, output.text, None
        layers = features.patch_tokens if len(grids) > 1 else {}
        if text.abnormal is not None:
            maps = [
                probability_by_prompt(
                    tokens, text.pair[0], text.abnormal, temperature=self.map_temperature
                )
                for tokens in features.patch_tokens.values()
            ]
            alone = grid_map(torch.stack(maps).mean(dim=0), features.grid)
        return MethodParts(
            terms=class_token_terms(output),
            stages={f"of block {layer}": grids[place] for place, layer in enumerate(layers)},
            prompt_maps=alone,
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
