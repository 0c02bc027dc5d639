"""AnomalyCLIP: two learned object-agnostic prompts, with deep prompts and V-V patch tokens.

    normal    [SOT] V1..V12         object . [EOT]
    abnormal  [SOT] W1..W12 damaged object . [EOT]

Paper: Zhou et al., AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly
Detection, ICLR 2024. Facts from prompt_ensemble.py, train.py, test.py of
zqhang/AnomalyCLIP at 45ed4dd, through a written specification. That code sums the maps of
the layers it is told; the published results use the last one alone (its issue 82), which is
the default here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faprompt import losses
from faprompt.clip.backbone import Backbone
from faprompt.clip.text import DeepPrompts, TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.methods.base import Method, MethodConfig, MethodOutput, at_least_one
from faprompt.prompts.compound import INIT_STD
from faprompt.scoring import (
    CLIP_AD_TEMPERATURE,
    abnormal_probability,
    grid_map,
    pair_logits,
    upsample,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyCLIPConfig(MethodConfig):
    """All constants of AnomalyCLIP, from its public code."""

    sigma_px: float = 4.0
    context_tokens: int = 12
    deep_depth: int = 9
    deep_length: int = 4
    class_word: str = "object"
    abnormal_word: str = "damaged"
    temperature: float = CLIP_AD_TEMPERATURE
    map_layers: tuple[int, ...] = ()  # blocks from 1 whose maps are averaged; () is the last
    local_weight: float = 4.0  # per layer; the first release summed four equal maps
    round_deep_to_half: bool = False

    def faults(self) -> list[str]:
        """See `MethodConfig.faults`."""
        found = MethodConfig.faults(self)
        found += at_least_one(self, "context_tokens", "deep_depth", "deep_length")
        if not self.temperature > 0:
            found.append(f"temperature should be above 0, got {self.temperature}")
        return found


PRESETS: dict[str, dict[str, object]] = {"paper": {}, "official": {"round_deep_to_half": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyCLIPOutput(MethodOutput):
    """image_logits (B, 2) before softmax; layer_maps (L, B, rows, columns), one per layer;
    text_pair (2, D), normal first, un-normalised.
    """

    image_logits: Tensor
    layer_maps: Tensor
    text_pair: Tensor


class AnomalyCLIP(Method):
    """One normal and one abnormal learned prompt on a frozen CLIP."""

    name = "anomalyclip"
    config_class = AnomalyCLIPConfig
    presets = PRESETS
    normal_words: Tensor
    abnormal_words: Tensor
    start_word: Tensor

    def __init__(self, config: AnomalyCLIPConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config: AnomalyCLIPConfig = config
        blocks = backbone.spec.vision.layers
        if any(not 1 <= layer <= blocks for layer in config.map_layers):
            raise ValueError(f"map_layers should lie in 1..{blocks}, got {config.map_layers}")
        width, depth = backbone.spec.text.width, backbone.spec.text.layers
        layers = min(config.deep_depth, depth) - 1
        self.normal_context = nn.Parameter(torch.empty(config.context_tokens, width))
        self.abnormal_context = nn.Parameter(torch.empty(config.context_tokens, width))
        self.deep_prompts = nn.Parameter(torch.empty(layers, config.deep_length, width))
        for vectors in self.parameters():
            nn.init.normal_(vectors, std=INIT_STD)
        ids, embed = backbone.tokenizer, backbone.text.embed_tokens
        abnormal = f"{config.abnormal_word} {config.class_word}."
        for name, row in (
            ("start_word", [ids.start]),
            ("normal_words", [*ids.ids(f"{config.class_word}."), ids.end]),
            ("abnormal_words", [*ids.ids(abnormal), ids.end]),
        ):
            embedded = embed(torch.tensor(row, device=backbone.device)).detach().clone()
            self.register_buffer(name, embedded, persistent=False)

    @property
    def layers(self) -> tuple[int, ...] | None:
        """Blocks whose patch tokens are wanted."""
        return self.config.map_layers or None

    def static_text(self, text: TextTower) -> Tensor:
        """(2, D): normal and abnormal text features, un-normalised."""
        deep = DeepPrompts(self.deep_prompts, self.config.round_deep_to_half)
        start = text.encode_prefix(self.start_word, deep)
        rows = []
        for context, words in (
            (self.normal_context, self.normal_words),
            (self.abnormal_context, self.abnormal_words),
        ):
            suffix = torch.cat([context, words])
            rows.append(text.encode(start, suffix[None], len(suffix) - 1, deep)[0])
        return torch.stack(rows)

    def forward(
        self,
        features: ImageFeatures,
        text: TextTower,
        *,
        static: Tensor | None = None,
        with_prompt_scores: bool = False,
    ) -> AnomalyCLIPOutput:
        """See `Method.forward`."""
        pair = self.static_text(text) if static is None else static
        temperature = self.config.temperature
        logits = pair_logits(features.class_token[:, None], pair, temperature=temperature)[:, 0]
        maps = [
            grid_map(abnormal_probability(tokens, pair, temperature=temperature), features.grid)
            for tokens in features.patch_tokens.values()
        ]
        layer_maps = torch.stack(maps)
        score = logits.softmax(dim=-1)[:, 1]
        return AnomalyCLIPOutput(
            score=score,
            patch_map=layer_maps.mean(dim=0),
            prompt_scores=score[:, None] if with_prompt_scores else None,
            image_logits=logits,
            layer_maps=layer_maps,
            text_pair=pair,
        )

    def loss(self, output: AnomalyCLIPOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Cross entropy of the image, and the weighted local loss summed over layers."""
        size = (mask.shape[-2], mask.shape[-1])
        local = [losses.local_loss(upsample(grid, size), mask) for grid in output.layer_maps]
        return {
            "image": F.cross_entropy(output.image_logits, label),
            "local": self.config.local_weight * torch.stack(local).sum(),
        }
