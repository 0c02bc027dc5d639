"""Methods that compare every token with one normal and one abnormal text.

    score   softmax(class token . [t_n, t_a] / temperature)          of the abnormal one
    map     softmax(patch token . [t_n, t_a] / map temperature)      mean over chosen layers
    loss    cross entropy of the image + weight * (focal + 2 Dice) of the map + text terms

AnomalyCLIP, CoOp, CoCoOp and TCP differ in `text_pair`, where the pair comes from.

Source: train.py and test.py of zqhang/AnomalyCLIP; CoOp's trainers are its case without maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt import losses
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.config import Positive, Weight
from faprompt.methods.base import (
    Method,
    MethodConfig,
    MethodOutput,
    MethodParts,
    Names,
    class_token_terms,
)
from faprompt.scoring import (
    CLIP_AD_TEMPERATURE,
    abnormal_probability,
    grid_map,
    pair_logits,
    probability_by_prompt,
    upsample,
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
            size = (mask.shape[-2], mask.shape[-1])
            maps = (upsample(grid, size) for grid in output.layer_maps)
            local = losses.over_layers(losses.local_loss, maps, mask)
            terms["local"] = self.config.local_weight * local
        return {**terms, **output.text.terms}

    def explain(self, features: ImageFeatures, output: PairOutput) -> MethodParts:
        """Return the class token's score, the maps of several layers and those by prompt."""
        grids = output.layer_maps
        layers = features.patch_tokens if len(grids) > 1 else {}
        return MethodParts(
            terms=class_token_terms(output),
            stages={f"of block {layer}": grids[place] for place, layer in enumerate(layers)},
            prompt_maps=self._maps_by_prompt(features, output.text),
        )

    def _maps_by_prompt(self, features: ImageFeatures, text: TextPair) -> Tensor | None:
        """(B, K, rows, columns): the map with each of several abnormality prompts alone."""
        if text.abnormal is None:
            return None
        maps = [
            probability_by_prompt(
                tokens, text.pair[0], text.abnormal, temperature=self.map_temperature
            )
            for tokens in features.patch_tokens.values()
        ]
        return grid_map(torch.stack(maps).mean(dim=0), features.grid)
