"""FiLo: fine-grained descriptions in adaptive prompts, and convolutions of many shapes.

    normal    [SOT] V1+Omega..V12+Omega {7 normal states}. [EOT]           F_n their mean
    abnormal  [SOT] W1+Omega'..W12+Omega' {state} at {position}. [EOT]     F_a their mean
              states: "abnormal {class} with {phrase}" and five general ones; 9 positions
    maps      softmax(up(100 p . [F_n, F_a] / sqrt 2)),   p from a linear layer on blocks
              6, 12, 18, 24, and from a sum of six convolutions on V-V tokens of 12, 18, 24
              (`taps="clean"`; what their code reads instead is "aliased", see `Taps`)
    map       their mean, blurred by 3x3
    score     (cos(adapter(g), F_a) / sqrt 2 + max of the map) / 2, cut to 0..1; theirs is not cut

The authors' Grounding DINO finds boxes; only sentences with the best box's position are averaged,
and the map is dimmed outside all boxes. Their fine-tuned weights are not included, so the default
is `grounding="none"`: all positions, nothing dimmed; expect less than the published scores.
"self" (ours) takes the position of the map's own peak and looks once more. "dino" does as they do
with the checkpoint `grounding_model`, see `grounding`. Training uses neither.

First the prompts learn, which see the raw class token, and the heads, on the maps; then, for
`adapter_epochs`, the image adapter alone, on the label, while the prompts see its output. The
authors' mosaics of four pictures (MVTec AD, one item in five) are left out.

Paper: Gu et al., FiLo: Zero-Shot Anomaly Detection by Fine-Grained Description and
High-Quality Localization, ACM MM 2024. Public code: CASIA-IVA-Lab/FiLo at 36ff29c.
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
from faprompt.clip.spec import torchvision_module
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures, ImageOptions, PositionFilter
from faprompt.config import Count, Positive
from faprompt.data.dataset_catalog import defect_phrases
from faprompt.errors import ConfigError
from faprompt.methods.base import (
    ClassNameMethod,
    MethodConfig,
    MethodOutput,
    Names,
    ParameterCount,
    Table,
    group_rows,
)
from faprompt.methods.grounding import SIDE_PX, GroundingDino, box_position, dim_outside, peak_cell
from faprompt.prompts import templates
from faprompt.prompts.descriptions import Descriptions
from faprompt.prompts.prompt_parts import ImageContext, start_vector
from faprompt.scoring import CLIP_AD_TEMPERATURE, pixel_probability, unit

# "aliased": their layers add in place to tensors that others still hold. So block 6 and the
# V-V blocks 12, 18, 24 all read the last V-V tokens, and blocks 12 and 18 have what the next
# block's attention adds. "clean": each reads the layer it names, a different model.
Taps = Literal["aliased", "clean"]

BLUR_SIDE, BLUR_SIGMA_PX = 3, 4.0  # test.py
KERNELS = ((1, 1), (3, 3), (5, 5), (7, 7), (1, 5), (5, 1))  # models/FiLo.py
PAIR_LENGTH = 1 / math.sqrt(2)  # of each text: their code divides by the length of the pair
TOGETHER = {  # VisA's classes of one name; "macaroni" has macaroni2's phrases (models/FiLo.py)
    **dict.fromkeys(("macaroni1", "macaroni2"), "macaroni"),
    **dict.fromkeys(("pcb1", "pcb2", "pcb3", "pcb4"), "pcb"),
}
PRESETS: dict[str, dict[str, object]] = {
    "paper": {},
    "common": {"position_filter": "bilinear"},
    "clean": {"taps": "clean", "row_dice": False, "box_slips": False},
}
RECIPE = {"optimizer": "adamw", "weight_decay": 0.01, "batch_size": 1, "epochs": 20}


@dataclass(frozen=True, slots=True, kw_only=True)
class FiLoConfig(MethodConfig):
    """All constants of FiLo, from its public code."""

    sigma_px: float = 0.0  # in addition to the 3x3 blur, which the score includes
    taps: Taps = "aliased"
    row_dice: bool = True  # one Dice per row of a mask, as their batches have one picture
    adapter_epochs: Count = 5  # last epochs, in which only the adapter learns
    context_tokens: Count = 12
    class_word: str = "object"  # for pictures whose class is unknown
    use_class_names: bool = True
    phrases: tuple[str, ...] = ()  # for every class; default: those of `datasets.toml`
    unknown_words: Literal["skip", "refuse"] = "skip"  # sentences a cut vocabulary lacks
    grounding: Literal["none", "self", "dino"] = "none"  # "none": not as published
    grounding_model: str = ""  # of "dino": a transformers folder or a hub name
    grounding_side: Count = SIDE_PX  # shorter side in pixels that "dino" sees
    box_slips: bool = True  # keep two slips of test.py in the boxes; see `grounding`
    temperature: Positive = 0.01  # of the maps
    adapter_temperature: Positive = CLIP_AD_TEMPERATURE
    position_filter: PositionFilter = "plain-bicubic"

    def faults(self) -> list[str]:
        if self.grounding != "dino" or self.grounding_model:
            return []
        return [
            "grounding=dino wants grounding_model, a GroundingDino's transformers folder or "
            "hub name, got none; set it, or grounding=self"
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class FiLoOutput(MethodOutput):
    """layer_maps (L, B, height, width), one per head; image_logits (B, 2) of the adapted class
    token before softmax, without gradients to the text; text_pair (B, 2, D), unit length;
    positions: 0 to 8 for each image, or one for all; None if all nine are averaged; boxes: (K, 4)
    for each image as in `likely_boxes`, empty without "dino". Only `patch_map` is dimmed outside.
    """

    layer_maps: Tensor
    image_logits: Tensor
    text_pair: Tensor
    positions: tuple[int | None, ...]
    boxes: tuple[Tensor, ...] = ()


class FiLo(ClassNameMethod):
    """Descriptions, adaptive prompts and seven maps."""

    name = "filo"
    shared_names = TOGETHER
    config_class = FiLoConfig
    parameters_at_full_size = ParameterCount(225_693_792, 225_693_792)
    presets = PRESETS
    backbones = dict.fromkeys(("paper", "clean"), "ViT-L-14-336:gelu")
    recipes: ClassVar[Table] = dict.fromkeys(PRESETS, RECIPE)
    staged = True
    rate_factors: ClassVar[Mapping[str, float]] = {  # of 1e-3: the adapter has 1e-5
        "linears.": 0.1, "shapes.": 0.1, "adapter.": 0.01,
    }  # fmt: skip
    config: FiLoConfig
    start_word: Tensor
    heads_move: bool = False  # in training: the stage of all but the adapter; see `begin_epoch`

    def __init__(self, config: FiLoConfig, backbone: Backbone) -> None:
        super().__init__(config)
        spec, vision = backbone.spec, backbone.spec.vision
        self.words = Descriptions(
            backbone.tokenizer,
            lambda name: config.phrases or defect_phrases(name),
            refuse=config.unknown_words == "refuse",
        )
        self._patch_size, depth = vision.patch_size, vision.layers
        self._dino: GroundingDino | None = None  # no part of the module
        if config.grounding == "dino":
            self._dino = GroundingDino(
                config.grounding_model, side_px=config.grounding_side, mean=spec.mean,
                std=spec.std, slips=config.box_slips,
            )  # fmt: skip
        quarters, aliased = vision.quarter_layers, config.taps == "aliased"
        beyond = tuple(depth + layer for layer in quarters[1:])
        # what each head reads, by the keys of `encode_image`
        self._linear_taps = (2 * depth, *quarters[1:]) if aliased else quarters
        self._shape_taps = (2 * depth,) * len(beyond) if aliased else beyond
        taps = sorted({*self._linear_taps, *self._shape_taps})
        self.image_options = ImageOptions(
            layers=tuple(tap - depth for tap in taps if tap > depth),
            plain_layers=tuple(tap for tap in taps if tap <= depth),
            next_attention=aliased,
            value_blocks=depth - quarters[0],  # the V-V path begins after the first quarter
            class_ln_post=True,
            raw_tokens=True,
            position_filter=config.position_filter,
        )
        self.normal_prompts, self.abnormal_prompts = (
            ImageContext(config.context_tokens, spec.embed_dim, spec.text.width) for _ in range(2)
        )
        self.linears = nn.ModuleList(
            nn.Linear(vision.width, spec.embed_dim) for _ in self._linear_taps
        )
        self.shapes = nn.ModuleList(
            ManyShapes(vision.width, spec.embed_dim) for _ in self._shape_taps
        )
        self.adapter = Adapter(spec.embed_dim)
        start = start_vector(backbone.text, backbone.tokenizer)
        self.register_buffer("start_word", start, persistent=False)

    @property
    def sources(self) -> tuple[str, ...]:
        """SHA-256 of the grounding's weights."""
        return () if self._dino is None else (self._dino.fingerprint,)

    @property
    def export_obstacle(self) -> str:
        """See `Method.export_obstacle`."""
        if self.config.grounding == "none":
            return ""
        return (
            f"with grounding={self.config.grounding} its sentences depend on where the defect is "
            "found, and a graph has the same sentences for every picture; set grounding=none"
        )

    def encode_image(self, backbone: Backbone, pixels: Tensor) -> ImageFeatures:
        """Encode pixels, and keep them for a grounding."""
        features = super().encode_image(backbone, pixels)
        return replace(features, pixels=pixels if self.config.grounding != "none" else None)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Move the adapter in the last `adapter_epochs`, all else before them.

        Raises:
            ConfigError: no epochs are left for the rest.
        """
        first = epochs - self.config.adapter_epochs
        if first < 1:
            raise ConfigError(
                f"{self.name} learns its adapter in the last adapter_epochs="
                f"{self.config.adapter_epochs} epochs and the rest before them, so epochs="
                f"{epochs} are too few; train longer, or set fewer adapter_epochs."
            )
        self.heads_move = epoch < first
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith("adapter.") != self.heads_move)

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> FiLoOutput:
        """See `Method.score`. Features without pixels, as in training, are not grounded."""
        config, adapted = self.config, self.adapter(features.class_token)
        one_for_all = class_names is None or len(class_names) == 1
        names = self.name_classes(class_names, 1 if one_for_all else adapted.shape[0])
        look = partial(self._look, features, self._project(features), text, adapted)
        boxes = self._find_boxes(features, class_names)
        positions = [box_position(each) for each in boxes] or [None] * len(names)
        pair, layer_maps, patch_map = look(_shown(names, positions))
        if config.grounding == "self" and features.pixels is not None:
            positions = [peak_cell(each) for each in patch_map]
            pair, layer_maps, patch_map = look(_shown(names, positions))
        cosines = (unit(adapted)[:, None] * pair.detach()).sum(dim=-1) * PAIR_LENGTH
        score = ((cosines[:, 1] + patch_map.amax(dim=(1, 2))) / 2).clamp(0, 1)
        if boxes:
            patch_map = dim_outside(patch_map, boxes, slips=config.box_slips)
        return FiLoOutput(
            score=score,
            patch_map=patch_map,
            layer_maps=layer_maps,
            image_logits=cosines / config.adapter_temperature,
            text_pair=pair,
            positions=tuple(positions),
            boxes=tuple(boxes),
        )

    def loss(self, output: FiLoOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the summed local losses, or the adapter's cross entropy, by the stage."""
        resting = output.score.new_zeros(())
        if not self.heads_move:
            return {"local": resting, "image": F.cross_entropy(output.image_logits, label)}
        maps = output.layer_maps
        if self.config.row_dice:  # each row of a map is then a map
            maps, mask = maps.flatten(1, 2)[:, :, None], mask.flatten(0, 1)[:, None]
        return {"local": losses.over_layers(losses.local_loss, maps, mask), "image": resting}

    def _find_boxes(self, features: ImageFeatures, class_names: Names) -> list[Tensor]:
        """Boxes of each image, (K, 4), best first; none without Grounding DINO or pixels."""
        if self._dino is None or features.pixels is None:
            return []
        # macaroni1 asks for its own phrases (test.py, line 564), not for macaroni2's
        names = self.name_classes(class_names, len(features.pixels), shared=False)
        seen = zip(features.pixels.to(features.class_token.device), names, strict=True)
        return [self._dino.find(pixels, self.words.phrases(name)) for pixels, name in seen]

    def _project(self, features: ImageFeatures) -> list[Tensor]:
        """Project the tokens of each head to (B, N, D)."""
        tokens = features.patch_tokens
        plain = zip(self._linear_taps, self.linears, strict=True)
        value = zip(self._shape_taps, self.shapes, strict=True)
        return [
            *(linear(tokens[tap]) for tap, linear in plain),
            *(shape(tokens[tap], features.grid) for tap, shape in value),
        ]

    def _look(
        self,
        features: ImageFeatures,
        heads: Sequence[Tensor],
        text: TextTower,
        adapted: Tensor,
        shown: Sequence[tuple[str, int | None]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the text pair of (name, position), every head's map, and their blurred mean."""
        if self.training:  # the prompts learn on the raw class token, the adapter without them
            adapted = features.class_token if self.heads_move else adapted.detach()
        pair = self._text_pair(text, adapted, shown)
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
        self, text: TextTower, class_token: Tensor, shown: Sequence[tuple[str, int | None]]
    ) -> Tensor:
        """(B, 2, D), unit length: the mean of an image's own sentences on either side.

        `shown` has one entry for each image, or one for all.
        """
        if len(shown) == 1:
            return self._pair_about(text, class_token, shown[0])
        known = list(dict.fromkeys(shown))
        rows, order = group_rows([known.index(about) for about in shown])
        pairs = [self._pair_about(text, class_token[rows[n]], known[n]) for n in rows]
        return torch.cat(pairs)[order]

    def _pair_about(
        self, text: TextTower, class_token: Tensor, about: tuple[str, int | None]
    ) -> Tensor:
        """(B, 2, D), as `_text_pair`, of images that show the same in the same position."""
        sides = []
        learners = (self.normal_prompts, self.abnormal_prompts)
        for learner, tree in zip(learners, self.words.trees(*about), strict=True):
            context = learner(class_token)  # (B, T, width)
            start = self.start_word.expand(context.shape[0], -1, -1)
            prefix = text.encode_prefix(torch.cat([start, context], dim=1))
            sides.append(templates.mean_direction(text.encode_tree(prefix, tree)))
        return torch.stack(sides, dim=1)


class ManyShapes(nn.Module):
    """MMCI: the sum of six parallel convolutions, zeros around the grid."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(width, embed_dim, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
            for kernel in KERNELS
        )

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map (B, N, width) to (B, N, D)."""
        planes = tokens.mT.unflatten(-1, grid)
        return torch.stack([branch(planes) for branch in self.branches]).sum(dim=0).flatten(2).mT


class Adapter(nn.Module):
    """x + silu(W_b relu(W_a x)), half as wide inside, without biases."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, dim // 2, bias=False)
        self.up = nn.Linear(dim // 2, dim, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, D) to (B, D)."""
        return features + F.silu(self.up(self.down(features).relu()))


def _shown(names: Sequence[str], positions: Sequence[int | None]) -> list[tuple[str, int | None]]:
    """Return (name, position) of each image; one name or position may stand for all."""
    count = max(len(names), len(positions))
    both = (list(each) * (count if len(each) == 1 else 1) for each in (names, positions))
    return list(zip(*both, strict=True))


def _blur(maps: Tensor) -> Tensor:
    torchvision_module()  # mends a torchvision that is of another build than torch
    from torchvision.transforms.v2.functional import gaussian_blur

    return gaussian_blur(maps[:, None], [BLUR_SIDE] * 2, [BLUR_SIGMA_PX] * 2)[:, 0]
