"""FiLo: fine-grained descriptions in adaptive prompts, and convolutions of many shapes.

    normal    [SOT] V1+Omega..V12+Omega {7 normal states}. [EOT]           F_n their mean
    abnormal  [SOT] W1+Omega'..W12+Omega' {state} at {position}. [EOT]     F_a their mean
              states: "abnormal {class} with {phrase}" and five general ones; 9 positions
    maps      softmax(up(100 p . [F_n, F_a] / sqrt 2)),   p from a linear layer on blocks
              6, 12, 18, 24, and from a sum of six convolutions on V-V tokens of 12, 18, 24
    map       their mean, blurred by 3x3
    score     (cos(adapter(g), F_a) / sqrt 2 + max of the map) / 2

The authors ground it: a Grounding DINO finds boxes, only sentences with the best box's position
are averaged, and the map is dimmed outside all boxes. Their fine-tuned weights cannot be had
here, so `grounding` is "none", all positions and nothing dimmed; published figures are with it,
expect less. "self" (ours) takes the position of the map's own peak and looks once more. "dino"
does as they do, with the checkpoint `grounding_model`; see `grounding`. Training uses neither.

Other differences: the authors' layer taps overwrite each other in place and ours are the layers
they name; their image adapter is trained in 5 epochs after the rest, ours beside it at the same
rate, with the text held still, and the meta-nets always see the image before it; Dice is of
whole masks, where their batches of one make it of rows.

Paper: Gu et al., FiLo: Zero-Shot Anomaly Detection by Fine-Grained Description and
High-Quality Localization, ACM MM 2024. Facts from CASIA-IVA-Lab/FiLo, through a written
specification (section 7).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faprompt import losses
from faprompt.clip.backbone import Backbone
from faprompt.clip.text import EncodedPrefix, TextTower
from faprompt.clip.vision import ImageFeatures, PositionFilter
from faprompt.errors import ConfigError
from faprompt.methods.base import (
    MethodConfig,
    MethodOutput,
    ParameterCount,
    above_zero,
    at_least_one,
)
from faprompt.methods.class_names import ClassNameMethod
from faprompt.methods.grounding import SIDE_PX, GroundingDino, box_position, dim_outside, peak_cell
from faprompt.prompts import templates
from faprompt.prompts.descriptions import phrases, state_sentences
from faprompt.prompts.meta import ImageContext
from faprompt.prompts.words import encode_prompts, start_vector, word_vectors
from faprompt.scoring import CLIP_AD_TEMPERATURE, pixel_probability, unit

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
    grounding: Literal["none", "self", "dino"] = "none"  # "none": not as published
    grounding_model: str = ""  # of "dino": a transformers folder or a hub name
    grounding_side: int = SIDE_PX  # shorter side in pixels that "dino" sees
    temperature: float = 0.01  # of the maps
    adapter_temperature: float = CLIP_AD_TEMPERATURE
    position_filter: PositionFilter = "bicubic"

    def faults(self) -> list[str]:
        """See `MethodConfig.faults`."""
        found = MethodConfig.faults(self)
        found += at_least_one(self, "context_tokens", "grounding_side")
        found += above_zero(self, "temperature", "adapter_temperature")
        if self.grounding == "dino" and not self.grounding_model:
            found.append(
                "grounding=dino wants grounding_model, a GroundingDino's transformers folder or "
                "hub name, got none; set it, or grounding=self"
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class FiLoOutput(MethodOutput):
    """layer_maps (L, B, height, width), one per head; image_logits (B, 2) of the adapted class
    token before softmax, which teach no text; text_pair (B, 2, D), unit length; positions, of
    each image, 0 to 8 or None where all nine are averaged; boxes, of each image (K, 4) as in
    `likely_boxes`, empty without "dino". `patch_map` is dimmed outside them, the score is not.
    """

    layer_maps: Tensor
    image_logits: Tensor
    text_pair: Tensor
    positions: tuple[int | None, ...]
    boxes: tuple[Tensor, ...] = ()


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


class FiLo(ClassNameMethod):
    """Descriptions, adaptive prompts and seven maps; see the file's head."""

    name = "filo"
    config_class = FiLoConfig
    parameters_at_full_size = ParameterCount(225_693_792, 225_693_792)  # spec 7.9
    backbones: ClassVar = {"paper": "ViT-L-14-336:gelu"}
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"optimizer": "adamw", "weight_decay": 0.01, "batch_size": 1, "epochs": 15}
    }
    rate_factors: ClassVar[Mapping[str, float]] = {  # of 1e-3: the adapter has 1e-5
        "linears.": 0.1, "shapes.": 0.1, "adapter.": 0.01,
    }  # fmt: skip
    config: FiLoConfig
    start_word: Tensor

    def __init__(self, config: FiLoConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self._tokenizer = backbone.tokenizer
        spec, vision = backbone.spec, backbone.spec.vision
        self._patch_size, self._depth = vision.patch_size, vision.layers
        self._dino: GroundingDino | None = None  # no part of the module
        if config.grounding == "dino":
            self._dino = GroundingDino(
                config.grounding_model, side_px=config.grounding_side, mean=spec.mean, std=spec.std
            )
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
        start = start_vector(backbone.text, backbone.tokenizer)
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
    def sources(self) -> tuple[str, ...]:
        """Of the grounding's weights."""
        return () if self._dino is None else (self._dino.fingerprint,)

    def encode_image(self, backbone: Backbone, pixels: Tensor) -> ImageFeatures:
        """Both paths, each in a pass of its own; keys as in `layers`. Pixels for a grounding."""
        options = {"class_ln_post": True, **self.image_options}
        plain = backbone.encode_image(
            pixels, layers=self._plain_layers, **{**options, "value_blocks": 0}
        )
        found = dict(plain.patch_tokens)
        if self._value_layers:
            value = backbone.encode_image(pixels, layers=self._value_layers, **options)
            found |= {self._depth + layer: tokens for layer, tokens in value.patch_tokens.items()}
        grounded = self.config.grounding != "none"
        return replace(plain, patch_tokens=found, pixels=pixels if grounded else None)

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
        """See `Method.forward`. Features without pixels, as in training, are not grounded."""
        config = self.config
        start = self.static_text(text) if static is None else static
        names = self.name_classes(class_names, len(features.class_token))
        look = partial(self._look, features, self._project(features), text, start)
        boxes = self._find_boxes(features, names)
        positions = [box_position(each) for each in boxes] or [None] * len(names)
        pair, layer_maps, patch_map = look(list(map(self.describe, names, positions)))
        if config.grounding == "self" and features.pixels is not None:
            positions = [peak_cell(each) for each in patch_map]
            pair, layer_maps, patch_map = look(list(map(self.describe, names, positions)))
        image = unit(self.adapter(features.class_token))
        cosines = (image[:, None] * pair.detach()).sum(dim=-1) * PAIR_LENGTH
        score = ((cosines[:, 1] + patch_map.amax(dim=(1, 2))) / 2).clamp(0, 1)
        return FiLoOutput(
            score=score,
            patch_map=dim_outside(patch_map, boxes) if boxes else patch_map,
            prompt_scores=score[:, None] if with_prompt_scores else None,
            layer_maps=layer_maps,
            image_logits=cosines / config.adapter_temperature,
            text_pair=pair,
            positions=tuple(positions),
            boxes=tuple(boxes),
        )

    def loss(self, output: FiLoOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """The local loss of every map, summed, and the adapter's cross entropy."""
        return {
            "local": losses.over_layers(losses.local_loss, output.layer_maps, mask),
            "image": F.cross_entropy(output.image_logits, label),
        }

    def describe(self, class_name: str, position: int | None = None) -> tuple[list[str], list[str]]:
        """The sentences of `state_sentences` that this backbone has tokens for.

        Where it has none for any of a position's, those of all positions.

        Raises:
            ConfigError: this backbone has no tokens for any of them, or, with
                `unknown_words="refuse"`, for one.
        """
        sides = state_sentences(class_name, self._phrases(class_name), position)
        kept = tuple([line for line in lines if self._tokenizer.knows(line)] for lines in sides)
        skipped = [line for lines in sides for line in lines if not self._tokenizer.knows(line)]
        refused = self.config.unknown_words == "refuse"
        if position is not None and not kept[1] and not refused:
            return self.describe(class_name)
        if skipped and (refused or not all(kept)):
            raise ConfigError(
                f"{self.name}: this backbone's vocabulary lacks words of {skipped[0]!r} and "
                f"{len(skipped) - 1} more; set unknown_words=skip, use_class_names=false, or "
                "use a backbone with CLIP's whole vocabulary."
            )
        return kept[0], kept[1]

    def _phrases(self, class_name: str) -> tuple[str, ...]:
        return self.config.phrases or phrases(class_name)

    def _find_boxes(self, features: ImageFeatures, names: Sequence[str]) -> list[Tensor]:
        """Of each image (K, 4), best first; nothing without Grounding DINO or pixels."""
        if self._dino is None or features.pixels is None:
            return []
        seen = zip(features.pixels.to(features.class_token.device), names, strict=True)
        return [self._dino.find(pixels, self._phrases(name)) for pixels, name in seen]

    def _project(self, features: ImageFeatures) -> list[Tensor]:
        """What each head makes of its tokens, (B, N, D)."""
        tokens = features.patch_tokens
        plain = zip(self._plain_layers, self.linears, strict=True)
        value = zip(self._value_layers, self.shapes, strict=True)
        return [
            *(linear(tokens[layer]) for layer, linear in plain),
            *(shape(tokens[self._depth + layer], features.grid) for layer, shape in value),
        ]

    def _look(
        self,
        features: ImageFeatures,
        heads: Sequence[Tensor],
        text: TextTower,
        start: EncodedPrefix,
        described: Sequence[tuple[list[str], list[str]]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The text pair of these sentences, every head's map with it, and their blurred mean."""
        pair = self._text_pair(features.class_token, text, start, described)
        maps = [
            pixel_probability(
                tokens, pair, features.grid, patch_size=self._patch_size,
                temperature=self.config.temperature / PAIR_LENGTH,
            )
            for tokens in heads
        ]  # fmt: skip
        layer_maps = torch.stack(maps)
        return pair, layer_maps, _blur(layer_maps.mean(dim=0))

    def _text_pair(
        self,
        class_token: Tensor,
        text: TextTower,
        start: EncodedPrefix,
        described: Sequence[tuple[list[str], list[str]]],
    ) -> Tensor:
        """(B, 2, D), unit length: the mean of an image's own sentences on either side."""
        learners = (self.normal_prompts, self.abnormal_prompts)
        contexts = [learner(class_token) for learner in learners]
        pairs = []
        for row, both in enumerate(described):
            sides = []
            for context, lines in zip(contexts, both, strict=True):
                words, end = word_vectors(text, self._tokenizer, lines)
                encoded = encode_prompts(text, start, context[row], words, end)
                sides.append(templates.mean_direction(encoded))
            pairs.append(torch.stack(sides))
        return torch.stack(pairs)


def _blur(maps: Tensor) -> Tensor:
    from torchvision.transforms.v2.functional import gaussian_blur

    return gaussian_blur(maps, [BLUR_SIDE, BLUR_SIDE], [BLUR_SIGMA_PX, BLUR_SIGMA_PX])
