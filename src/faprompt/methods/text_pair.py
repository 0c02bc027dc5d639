"""What methods share that compare every token with one normal and one abnormal text.

    score   softmax(class token . [t_n, t_a] / temperature)          of the abnormal one
    map     softmax(patch token . [t_n, t_a] / map temperature)      mean over chosen layers
    loss    cross entropy of the image + weight * (focal + 2 Dice) of the map + text terms

A child says where the pair comes from, in `text_pair`: AnomalyCLIP, CoOp, CoCoOp, TCP.

Source: train.py and test.py of zqhang/AnomalyCLIP; CoOp's trainers are its case without maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    pair: (2, D), or (B, 2, D) when each image has its own; normal first. abnormal: (K, D),
    where several abnormality prompts stand behind the pair. terms: weighted losses of the
    text alone, by name.
    """

    pair: Tensor
    abnormal: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOutput(MethodOutput):
    """image_logits (B, 2) before softmax; layer_maps (L, B, rows, columns), one per layer;
    text the pair they came from.
    """

    image_logits: Tensor
    layer_maps: Tensor
    text: TextPair

    @property
    def text_pair(self) -> Tensor:
        """(2, D) or (B, 2, D), normal first, un-normalised."""
        return self.text.pair


class PairMethod(Method):
    """One forward and one loss for all of them."""

    config: PairConfig

    @property
    def map_temperature(self) -> float:
        """Divides the patches' cosines."""
        return self.config.temperature

    def text_pair(
        self,
        features: ImageFeatures,
        text: TextTower,
        static: Any,
        class_names: Sequence[str] | None,
    ) -> TextPair:
        """The directions to compare with.

        Args:
            features: of the batch, for methods whose text depends on the image.
            text: the backbone's text tower.
            static: what `static_text` gave, or None to compute it here.
            class_names: what each picture shows; None where nobody said, or the method
                does not ask.
        """
        raise NotImplementedError

    def forward(
        self,
        features: ImageFeatures,
        text: TextTower,
        *,
        static: Any = None,
        with_prompt_scores: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> PairOutput:
        """See `Method.forward`."""
        spoken = self.text_pair(features, text, static, class_names)
        image = features.class_token[:, None]
        logits = pair_logits(image, spoken.pair, temperature=self.config.temperature)[:, 0]
        maps = [
            abnormal_probability(tokens, spoken.pair, temperature=self.map_temperature)
            for tokens in features.patch_tokens.values()
        ]
        layer_maps = torch.stack([grid_map(patches, features.grid) for patches in maps])
        score = logits.softmax(dim=-1)[:, 1]
        return PairOutput(
            score=score,
            patch_map=layer_maps.mean(dim=0),
            prompt_scores=self._by_prompt(image, spoken, score) if with_prompt_scores else None,
            image_logits=logits,
            layer_maps=layer_maps,
            text=spoken,
        )

    def loss(self, output: PairOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Cross entropy of the image, the local loss summed over layers, and the text's own."""
        terms = {"image": F.cross_entropy(output.image_logits, label)}
        if self.config.local_weight:
            size = (mask.shape[-2], mask.shape[-1])
            maps = (upsample(grid, size) for grid in output.layer_maps)
            local = losses.over_layers(losses.local_loss, maps, mask)
            terms["local"] = self.config.local_weight * local
        return {**terms, **output.text.terms}

    def explain(self, features: ImageFeatures, output: PairOutput) -> MethodParts:
        """The class token alone makes the score; the maps of several layers are averaged."""
        text, grids = output.text, output.layer_maps
        layers = features.patch_tokens if len(grids) > 1 else {}
        return MethodParts(
            terms=class_token_terms(output),
            stages={f"of block {layer}": grids[place] for place, layer in enumerate(layers)},
            prompt_maps=None if text.abnormal is None else self._maps_by_prompt(features, text),
        )

    def _maps_by_prompt(self, features: ImageFeatures, text: TextPair) -> Tensor | None:
        """(B, K, rows, columns): the map with each abnormality prompt alone, where there are."""
        if text.abnormal is None:
            return None
        normal, abnormal = text.pair[0], text.abnormal
        maps = [
            probability_by_prompt(tokens, normal, abnormal, temperature=self.map_temperature)
            for tokens in features.patch_tokens.values()
        ]
        return grid_map(torch.stack(maps).mean(dim=0), features.grid)

    def _by_prompt(self, image: Tensor, text: TextPair, score: Tensor) -> Tensor:
        """(B, K): the image score with each abnormality prompt alone."""
        if text.abnormal is None:
            return score[:, None]
        return probability_by_prompt(
            image, text.pair[0], text.abnormal, temperature=self.config.temperature
        )[..., 0]
