"""FiLo: fine-grained descriptions in adaptive prompts, and convolutions of many shapes.

    normal    [SOT] V1+Omega..V12+Omega {7 normal states}. [EOT]           F_n their mean
    abnormal  [SOT] W1+Omega'..W12+Omega' {state} at {position}. [EOT]     F_a their mean
              states: "abnormal {class} with {phrase}" and five general ones; 9 positions
    maps      softmax(up(100 p . [F_n, F_a] / sqrt 2)),   p from a linear layer on blocks
              6, 12, 18, 24, and from a sum of six convolutions on V-V tokens of 12, 18, 24
    map       their mean, blurred by 3x3
    score     (cos(adapter(g), F_a) / sqrt 2 + max of the map) / 2

This is FiLo without its Grounding DINO, whose fine-tuned weights cannot be had here: all
positions are averaged and nothing outside a box is dimmed. Published figures are with it,
so expect less. Other differences: the authors' layer taps overwrite each other in place and
ours are the layers they name; their image adapter is trained after the rest, ours beside it,
with the text held still, and the meta-nets always see the image before it.

Paper: Gu et al., FiLo: Zero-Shot Anomaly Detection by Fine-Grained Description and
High-Quality Localization, ACM MM 2024. Facts from CASIA-IVA-Lab/FiLo, through a written
specification (section 7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faprompt import losses
from faprompt.clip.backbone import Backbone
from faprompt.clip.text import EncodedPrefix, TextTower
from faprompt.clip.vision import ImageFeatures, PositionFilter
from faprompt.errors import ConfigError
from faprompt.methods.base import Method, MethodConfig, MethodOutput, at_least_one
from faprompt.prompts import templates
from faprompt.prompts.descriptions import POSITIONS, phrases
from faprompt.prompts.meta import ImageContext
from faprompt.prompts.words import name_pictures, start_vector, word_vectors
from faprompt.scoring import CLIP_AD_TEMPERATURE, grid_map, unit, upsample

KERNELS = ((1, 1), (3, 3), (5, 5), (7, 7), (1, 5), (5, 1))  # models/FiLo.py
BLUR_SIDE, BLUR_SIGMA_PX = 3, 4.0  # test.py
PAIR_LENGTH = 1 / math.sqrt(2)  # of both texts: their code divides by the length of the pair


@dataclass(frozen=True, slots=True, kw_only=True)
class FiLoConfig(MethodConfig):
    """All constants of FiLo, from its public code."""

    sigma_px: float = 0.0  # besides the 3x3 blur, which belongs to the score too
    context_tokens: int = 12
    class_word: str = "object"  # where nobody says what is shown
    use_class_names: bool = True
    phrases: tuple[str, ...] = ()  # for every class, in place of `descriptions.json`
    unknown_words: Literal["skip", "refuse"] = "skip"  # sentences a cut vocabulary lacks
    temperature: float = 0.01  # of the maps
    adapter_temperature: float = CLIP_AD_TEMPERATURE
    position_filter: PositionFilter = "bicubic"

    def faults(self) -> list[str]:
        """See `MethodConfig.faults`."""
        found = MethodConfig.faults(self) + at_least_one(self, "context_tokens")
        return found + [
            f"{name} should be above 0, got {getattr(self, name)}"
            for name in ("temperature", "adapter_temperature")
            if not getattr(self, name) > 0
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class FiLoOutput(MethodOutput):
    """layer_maps (L, B, height, width), one per head; image_logits (B, 2) of the adapted class
    token before softmax, which teach no text; text_pair (B, 2, D), unit length.
    """

    layer_maps: Tensor
    image_logits: Tensor
    text_pair: Tensor


class ManyShapes(nn.Module):
    """MMCI: the sum of six parallel convolutions, zeros around the grid."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(width, embed_dim, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
            for kernel in KERNELS
        )

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, width) -> (B, N, D)."""
        planes = tokens.mT.unflatten(-1, grid)
        return torch.stack([branch(planes) for branch in self.branches]).sum(dim=0).flatten(2).mT


class Adapter(nn.Module):
    """x + silu(W_b relu(W_a x)), half as wide inside, without biases."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, dim // 2, bias=False)
        self.up = nn.Linear(dim // 2, dim, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return features + F.silu(self.up(self.down(features).relu()))


class FiLo(Method):
    """Descriptions, adaptive prompts and seven maps; see the file's head."""

    name = "filo"
    config_class = FiLoConfig
    backbones: ClassVar = {"paper": "ViT-L-14-336:gelu"}
    config: FiLoConfig
    start_word: Tensor

    def __init__(self, config: FiLoConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self._tokenizer = backbone.tokenizer
        spec, vision = backbone.spec, backbone.spec.vision
        self._patch_size, self._depth = vision.patch_size, vision.layers
        self._plain_layers = vision.quarter_layers
        self._value_layers = vision.quarter_layers[1:]
        self.normal_prompts, self.abnormal_prompts = (
            ImageContext(config.context_tokens, spec.embed_dim, spec.text.width) for _ in range(2)
        )
        self.linears = nn.ModuleList(
            nn.Linear(vision.width, spec.embed_dim) for _ in self._plain_layers
        )
        self.shapes = nn.ModuleList(
            ManyShapes(vision.width, spec.embed_dim) for _ in self._value_layers
        )
        self.adapter = Adapter(spec.embed_dim)
        start = start_vector(backbone.text, backbone.tokenizer).detach().clone()
        self.register_buffer("start_word", start, persistent=False)

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks of the plain path; beyond the depth, those of the V-V path, depth added."""
        return (*self._plain_layers, *(self._depth + layer for layer in self._value_layers))

    @property
    def class_ln_post(self) -> bool:
        """As in CLIP."""
        return True

    @property
    def image_options(self) -> dict[str, Any]:
        """Raw tokens; the V-V path begins after the first quarter."""
        return {
            "raw_tokens": True,
            "position_filter": self.config.position_filter,
            "value_blocks": self._depth - self._plain_layers[0],
        }

    @property
    def uses_class_names(self) -> bool:
        """As configured."""
        return self.config.use_class_names

    def encode_image(self, backbone: Backbone, pixels: Tensor) -> ImageFeatures:
        """Both paths, each in a pass of its own; keys as in `layers`."""
        options = {"class_ln_post": True, **self.image_options}
        plain = backbone.encode_image(
            pixels, layers=self._plain_layers, **{**options, "value_blocks": 0}
        )
        if not self._value_layers:
            return plain
        value = backbone.encode_image(pixels, layers=self._value_layers, **options)
        moved = {self._depth + layer: tokens for layer, tokens in value.patch_tokens.items()}
        return replace(plain, patch_tokens={**plain.patch_tokens, **moved})

    def static_text(self, text: TextTower) -> EncodedPrefix:
        """The start token, all that no image changes."""
        return text.encode_prefix(self.start_word)

    def forward(
        self,
        features: ImageFeatures,
        text: TextTower,
        *,
        static: EncodedPrefix | None = None,
        with_prompt_scores: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> FiLoOutput:
        """See `Method.forward`."""
        config = self.config
        start = self.static_text(text) if static is None else static
        asked = class_names if config.use_class_names else None
        names = name_pictures(asked, len(features.class_token), otherwise=config.class_word)
        pair = self._text_pair(features.class_token, text, start, names)
        layer_maps = self._maps(features, pair)
        patch_map = _blur(layer_maps.mean(dim=0))
        image = unit(self.adapter(features.class_token))
        cosines = (image[:, None] * pair.detach()).sum(dim=-1) * PAIR_LENGTH
        score = ((cosines[:, 1] + patch_map.amax(dim=(1, 2))) / 2).clamp(0, 1)
        return FiLoOutput(
            score=score,
            patch_map=patch_map,
            prompt_scores=score[:, None] if with_prompt_scores else None,
            layer_maps=layer_maps,
            image_logits=cosines / config.adapter_temperature,
            text_pair=pair,
        )

    def loss(self, output: FiLoOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """The local loss of every map, summed, and the adapter's cross entropy."""
        local = [losses.local_loss(layer_map, mask) for layer_map in output.layer_maps]
        return {
            "local": torch.stack(local).sum(),
            "image": F.cross_entropy(output.image_logits, label),
        }

    def describe(self, class_name: str) -> tuple[list[str], list[str]]:
        """The words after the context: normal sentences, and abnormal ones.

        The abnormal one of status s at position p stands at 9 s + p, unless some were
        skipped.

        Raises:
            ConfigError: this backbone has no tokens for any of them, or, with
                `unknown_words="refuse"`, for one.
        """
        found = self.config.phrases or phrases(class_name)
        statuses = [
            *(f"abnormal {class_name} with {phrase}" for phrase in found),
            *(state.format(class_name) for state in templates.APRIL_STATES[1]),
        ]
        sides = (
            [f"{state.format(class_name)}." for state in templates.APRIL_STATES[0]],
            [f"{status} at {position}." for status in statuses for position in POSITIONS],
        )
        kept = tuple([line for line in lines if self._tokenizer.knows(line)] for lines in sides)
        skipped = [line for lines in sides for line in lines if not self._tokenizer.knows(line)]
        if skipped and (self.config.unknown_words == "refuse" or not all(kept)):
            raise ConfigError(
                f"{self.name}: this backbone's vocabulary lacks words of {skipped[0]!r} and "
                f"{len(skipped) - 1} more; set unknown_words=skip, use_class_names=false, or "
                "use a backbone with CLIP's whole vocabulary."
            )
        return kept[0], kept[1]

    def _text_pair(
        self, class_token: Tensor, text: TextTower, start: EncodedPrefix, names: Sequence[str]
    ) -> Tensor:
        """(B, 2, D), unit length: the mean of an image's own sentences on either side."""
        learners = (self.normal_prompts, self.abnormal_prompts)
        contexts = [learner(class_token) for learner in learners]
        pairs = []
        for row, name in enumerate(names):
            sides = []
            for context, lines in zip(contexts, self.describe(name), strict=True):
                words, end = word_vectors(text, self._tokenizer, lines)
                own = context[row].expand(len(lines), -1, -1)
                encoded = text.encode(start, torch.cat([own, words], dim=1), own.shape[1] + end)
                sides.append(templates.mean_direction(encoded))
            pairs.append(torch.stack(sides))
        return torch.stack(pairs)

    def _maps(self, features: ImageFeatures, pair: Tensor) -> Tensor:
        """(L, B, height, width): upsampled before the softmax, corners aligned."""
        size = (features.grid[0] * self._patch_size, features.grid[1] * self._patch_size)
        tokens = features.patch_tokens
        seen = [
            linear(tokens[layer])
            for layer, linear in zip(self._plain_layers, self.linears, strict=True)
        ] + [
            shape(tokens[self._depth + layer], features.grid)
            for layer, shape in zip(self._value_layers, self.shapes, strict=True)
        ]
        gap = (pair[:, 1] - pair[:, 0]) * PAIR_LENGTH / self.config.temperature  # (B, D)
        grids = [grid_map((unit(t) @ gap[..., None])[..., 0], features.grid) for t in seen]
        return torch.stack([upsample(g, size, align_corners=True).sigmoid() for g in grids])


def _blur(maps: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import gaussian_blur

    return gaussian_blur(maps, [BLUR_SIDE, BLUR_SIDE], [BLUR_SIGMA_PX, BLUR_SIGMA_PX])
