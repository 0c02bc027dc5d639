"""APRIL-GAN (VAND): one linear layer per depth brings raw patch tokens to the words.

    Z_k = L_k(T_k)            T_k: patch tokens as block 6, 12, 18, 24 leaves them, biased L_k
    A_k = softmax(up(100 cos(Z_k, [normal, abnormal])))      upsampled before the softmax
    map = mean of A_k[abnormal]          score = p(class token), which no layer touches

Only the layers learn: 4 (1024 x 768 + 768) = 3,148,800 parameters on ViT-L/14@336. The
loss is focal plus Dice on each A_k. The authors' map is the sum over k; the mean ranks
alike and stays within 0..1.

Paper: Chen et al., APRIL-GAN: A Zero-/Few-Shot Anomaly Classification and Segmentation
Method for CVPR 2023 VAND Workshop Challenge. Facts from ByChelsea/VAND-APRIL-GAN.
Their OpenAI weights run with the exact GELU in both towers, so the preset `paper` belongs to
the backbone `ViT-L-14-336:gelu`, and `common` to the plain name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from faprompt import losses
from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures, PositionFilter
from faprompt.methods.base import MethodOutput, Names, ParameterCount, Table, within_depth
from faprompt.methods.sentences import SentenceConfig, SentenceMethod
from faprompt.prompts import templates
from faprompt.scoring import pixel_probability


@dataclass(frozen=True, slots=True, kw_only=True)
class AprilGANConfig(SentenceConfig):
    """All constants of APRIL-GAN, from its public code."""

    raw_class_names: bool = True
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
    parameters_at_full_size = ParameterCount(3_148_800, 3_148_800)
    presets = {"paper": {}, "common": {"position_filter": "bilinear", "raw_class_names": False}}
    backbones = {"paper": "ViT-L-14-336:gelu"}
    # train.sh: 15 epochs on VisA, 3 on MVTec AD; otherwise as FAPrompt
    recipes: ClassVar[Table] = dict.fromkeys(presets, {"epochs": 15})
    config: AprilGANConfig

    def __init__(self, config: AprilGANConfig, backbone: Backbone) -> None:
        super().__init__(
            config, backbone, states=templates.APRIL_STATES,
            lines=lambda _: templates.APRIL_TEMPLATES,
        )  # fmt: skip
        spec = backbone.spec
        within_depth(config.map_layers, spec.vision.layers)
        self._layers = tuple(sorted(set(config.map_layers or spec.vision.quarter_layers)))
        self.image_options = replace(
            self.image_options, layers=self._layers, raw_tokens=True,
            position_filter=config.position_filter,
        )  # fmt: skip
        self._patch_size = spec.vision.patch_size
        self.linears = nn.ModuleList(
            nn.Linear(spec.vision.width, spec.embed_dim) for _ in self._layers
        )

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> AprilGANOutput:
        pair = self.text_pairs(text, class_names)
        maps = [
            pixel_probability(
                linear(features.patch_tokens[layer]), pair, features.grid,
                patch_size=self._patch_size, temperature=self.config.temperature,
            )
            for layer, linear in zip(self._layers, self.linears, strict=True)
        ]  # fmt: skip
        layer_maps = torch.stack(maps)
        return AprilGANOutput(
            score=self.chance(features.class_token[:, None], pair)[:, 0],
            patch_map=layer_maps.mean(dim=0),
            layer_maps=layer_maps,
        )

    def loss(self, output: AprilGANOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return focal and Dice of every layer, summed.

        Raises:
            ValueError: the mask is not of the map's size.
        """
        return {"local": losses.over_layers(losses.focal_dice, output.layer_maps, mask)}
