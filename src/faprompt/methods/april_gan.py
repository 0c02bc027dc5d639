"""APRIL-GAN (VAND): one linear layer per depth brings raw patch tokens to the words.

    Z_k = L_k(T_k)            T_k: patch tokens as block 6, 12, 18, 24 leaves them, biased L_k
    A_k = softmax(up(100 cos(Z_k, [normal, abnormal])))      upsampled before the softmax
    map = mean of A_k[abnormal]          score = p(class token), which no layer touches

Only the layers learn: 4 (1024 x 768 + 768) = 3,148,800 parameters on ViT-L/14@336. The
loss is focal plus Dice on each A_k. The authors' map is the sum over k; the mean ranks
alike and stays within 0..1.

Paper: Chen et al., APRIL-GAN: A Zero-/Few-Shot Anomaly Classification and Segmentation
Method for CVPR 2023 VAND Workshop Challenge. Facts from ByChelsea/VAND-APRIL-GAN, through
a written specification. Their OpenAI weights run with the exact GELU, in both towers: the
preset `paper` is meant for the backbone `ViT-L-14-336:gelu`, `common` for the plain name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from faprompt import losses
from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures, PositionFilter
from faprompt.methods.base import MethodOutput
from faprompt.methods.sentences import SentenceConfig, SentenceMethod
from faprompt.prompts import templates
from faprompt.scoring import grid_map, pair_logits, upsample


@dataclass(frozen=True, slots=True, kw_only=True)
class AprilGANConfig(SentenceConfig):
    """All constants of APRIL-GAN, from its public code."""

    map_layers: tuple[int, ...] = ()  # blocks from 1; () ends each quarter: 6, 12, 18, 24 of 24
    position_filter: PositionFilter = "bicubic"


@dataclass(frozen=True, slots=True, kw_only=True)
class AprilGANOutput(MethodOutput):
    """layer_maps: (L, B, height, width), the chance of "abnormal" per pixel and layer."""

    layer_maps: Tensor


class AprilGAN(SentenceMethod):
    """Linear layers on the patch tokens of several depths."""

    name = "april-gan"
    config_class = AprilGANConfig
    presets = {"paper": {}, "common": {"position_filter": "bilinear"}}
    backbones = {"paper": "ViT-L-14-336:gelu"}
    states = templates.APRIL_STATES
    config: AprilGANConfig

    def __init__(self, config: AprilGANConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        spec = backbone.spec
        depth = spec.vision.layers
        if any(not 1 <= layer <= depth for layer in config.map_layers):
            raise ValueError(f"map_layers should lie in 1..{depth}, got {config.map_layers}")
        self._layers = tuple(sorted(set(config.map_layers or spec.vision.quarter_layers)))
        self._patch_size = spec.vision.patch_size
        self.linears = nn.ModuleList(
            nn.Linear(spec.vision.width, spec.embed_dim) for _ in self._layers
        )

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks whose patch tokens are brought to the words."""
        return self._layers

    @property
    def image_options(self) -> dict[str, Any]:
        """Patch tokens as the blocks leave them."""
        return {"raw_tokens": True, "position_filter": self.config.position_filter}

    def templates(self, class_name: str) -> Sequence[str]:
        """The same for every class."""
        return templates.APRIL_TEMPLATES

    def forward(
        self,
        features: ImageFeatures,
        text: TextTower,
        *,
        static: Tensor | None = None,
        with_prompt_scores: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> AprilGANOutput:
        """See `Method.forward`."""
        pair = self.text_pairs(text, class_names)
        score = self.chance(features.class_token[:, None], pair)[:, 0]
        size = (features.grid[0] * self._patch_size, features.grid[1] * self._patch_size)
        maps = []
        for layer, linear in zip(self._layers, self.linears, strict=True):
            tokens = linear(features.patch_tokens[layer])
            logits = pair_logits(tokens, pair, temperature=self.config.temperature)
            gap = grid_map(logits[..., 1] - logits[..., 0], features.grid)
            maps.append(upsample(gap, size, align_corners=True).sigmoid())  # a softmax of two
        layer_maps = torch.stack(maps)
        return AprilGANOutput(
            score=score,
            patch_map=layer_maps.mean(dim=0),
            prompt_scores=score[:, None] if with_prompt_scores else None,
            layer_maps=layer_maps,
        )

    def loss(self, output: AprilGANOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Focal and Dice of every layer, summed.

        Raises:
            ValueError: the mask is not of the map's size.
        """
        terms = [losses.focal_dice(layer_map, mask) for layer_map in output.layer_maps]
        return {"local": torch.stack(terms).sum()}


def count_parameters(*, width: int = 1024, embed_dim: int = 768, layers: int = 4) -> int:
    """Parameters of APRIL-GAN: 3,148,800 on ViT-L/14@336."""
    return layers * (width + 1) * embed_dim
