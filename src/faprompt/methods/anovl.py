"""AnoVL: patch tokens of the V-V path, sentences about a domain, and an optional adapter.

    score = mean of p(class token) over 22 views of the picture
    map   = up(mean of 3x3 patches of p(x_i)),  x_i from the V-V path of the last 12 blocks
    adapted:  y_i = x_i / 2 + tanh(W x_i / |x_i| + b) T / 2   in place of x_i

p is the chance of "abnormal" under 462 sentences a side, at temperature 1. T holds all 924
of them. W and b are drawn anew for every picture and take a few steps of AdamW on

    mean H(p(y_i)) + 1/2 mean(-log p~_i(abnormal) - log p_i(normal)),   p~ of x_i + noise

`carry_moments` keeps AdamW's moments from one picture of a class to the next, as the authors'
code does; results then depend on the order of the pictures. `squares` is the authors' script for
VisA: the shorter edge is resized to `image_size`, and the squares at both ends are encoded. The
score is their mean, and the adapter's loss a mean over the pixels of the joined map of logits.

Paper: Deng et al., AnoVL: Adapting Vision-Language Models for Unified Zero-shot Anomaly
Localization, 2023. Facts from hq-deng/AnoVL at 3a70bfd (vl_test.py, vis_test.py, model.py), whose
tokens are chosen by a position in a list that fits 12 blocks only; here they are the last block's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures, ImageOptions, PositionFilter
from faprompt.config import Count, Natural, Positive
from faprompt.data.dataset_catalog import display_name
from faprompt.imaging.picture_views import Box, altered_views, end_squares
from faprompt.methods.base import Filter, MethodOutput, Names
from faprompt.methods.sentences import SentenceConfig, SentenceMethod
from faprompt.prompts import templates
from faprompt.scoring import grid_map, in_pixels, pair_logits, unit

NOISE_STD = 0.05 * 1.1  # of the tokens that should look abnormal (vl_test.py)
NOISE_WEIGHT = 0.5
PROMPTS = sum(len(words) for words in templates.ANOVL_STATES) * 66  # 924 rows of T

Adapter = Literal["prompts", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnoVLConfig(SentenceConfig):
    """All constants of AnoVL, from its public code."""

    image_size: Count = 240
    raw_class_names: bool = True
    average: templates.Average = "mean-norm"
    temperature: Positive = 1.0
    interpolation: Filter = "bilinear"
    position_filter: PositionFilter = "bilinear"  # open_clip/model.py: bicubic with antialias
    value_blocks: Natural = 12  # last blocks with the V-V path, at most all
    views: bool = True  # average the score over 22 views
    squares: bool = False  # two squares in place of the squashed picture (vis_test.py)
    textures: tuple[str, ...] = templates.ANOVL_TEXTURES  # classes with sentences about textures
    adapt_steps: Natural = 0  # of AdamW per picture; 5 in the authors' script
    adapter: Adapter = "prompts"  # "linear" is x -> W x + b, of the script for VisA
    learning_rate: Positive = 1e-3
    carry_moments: bool = False  # per class name, as the dataset has it
    seed: int = 111  # of W, b and the noise, the same for every picture

    def faults(self) -> list[str]:
        if self.carry_moments and not self.adapt_steps:
            return ["carry_moments wants adapt_steps above 0"]
        return []


_PAPER: dict[str, object] = {"position_filter": "bicubic"}
_VISA = {**_PAPER, "squares": True, "views": False, "adapter": "linear", "seed": 42}
PRESETS: dict[str, dict[str, object]] = {
    "paper": _PAPER,
    "common": {"image_size": 518, "interpolation": "bicubic", "raw_class_names": False},
    "adapted": {**_PAPER, "adapt_steps": 5},
    "visa": _VISA,
    "visa-adapted": {**_VISA, "adapt_steps": 5},
}


class AnoVL(SentenceMethod):
    """V-V tokens against domain sentences, with an optional adapter."""

    name = "anovl"
    shared_names = {"macaroni1": "macaroni", "macaroni2": "macaroni"}  # VisA
    config_class = AnoVLConfig
    presets = PRESETS
    backbones = dict.fromkeys(
        ("paper", "adapted", "visa", "visa-adapted"), "ViT-B-16-plus-240:laion400m_e32"
    )
    config: AnoVLConfig

    def __init__(self, config: AnoVLConfig, backbone: Backbone) -> None:
        textures = set(map(display_name, config.textures))

        def sentences(class_name: str) -> Sequence[str]:
            texture = display_name(class_name) in textures
            return templates.anovl_templates("texture" if texture else "object")

        super().__init__(config, backbone, states=templates.ANOVL_STATES, lines=sentences)
        self.interpolation = config.interpolation
        self.keeps_aspect = self.stacks_squares = config.squares
        self.image_options = ImageOptions(
            class_ln_post=True,
            value_blocks=min(config.value_blocks, backbone.spec.vision.layers),
            position_filter=config.position_filter,
        )
        self._patch_size = backbone.spec.vision.patch_size
        self._moments: dict[str, dict[str, Any]] = {}  # class -> AdamW's, if they are carried

    @property
    def export_obstacle(self) -> str:
        """See `Method.export_obstacle`."""
        if self.config.adapt_steps:
            return (
                "it trains an adapter on every picture, and a graph does not train; build the "
                "method with --set adapt_steps=0"
            )
        return super().export_obstacle

    def encode_image(self, backbone: Backbone, pixels: Tensor) -> ImageFeatures:
        """Encode a batch; `views` holds the class tokens whose scores are averaged.

        With `squares`, `views`, `patch_tokens` and the rows of `grid` are those of all squares,
        one square after the other.
        """
        if not self.config.squares:
            return self._encode_views(backbone, pixels)
        height, width = pixels.shape[-2:]
        seen = [
            self._encode_views(backbone, pixels[..., y0:y1, x0:x1])
            for x0, y0, x1, y1 in end_squares(height, width)
        ]
        layer, (rows, columns) = max(seen[0].patch_tokens), seen[0].grid
        tokens = [one.class_token[:, None] if one.views is None else one.views for one in seen]
        return ImageFeatures(
            class_token=seen[0].class_token,
            patch_tokens={layer: torch.cat([one.patch_tokens[layer] for one in seen], dim=1)},
            grid=(len(seen) * rows, columns),
            views=torch.cat(tokens, dim=1),
            pixels=pixels,
        )

    def _encode_views(self, backbone: Backbone, pixels: Tensor) -> ImageFeatures:
        features = super().encode_image(backbone, pixels)
        if not self.config.views:
            return features
        plain = replace(self.image_options, layers=(1,), value_path=False)
        views = altered_views(pixels.to(backbone.device))
        if torch.compiler.is_compiling() and pixels.shape[-2] == pixels.shape[-1]:
            together = list(views)  # one image tower in the graph, not 21
            found = backbone.encode_image(torch.cat(together), plain).class_token
            tokens = found.unflatten(0, (len(together), -1)).unbind()
        else:
            tokens = tuple(backbone.encode_image(view, plain).class_token for view in views)
        return replace(features, views=torch.stack([features.class_token, *tokens], dim=1))

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> MethodOutput:
        pair = self.text_pairs(text, class_names)
        image = features.class_token[:, None] if features.views is None else features.views
        score = self.chance(image, pair).mean(dim=1)
        tokens, layout = features.patch_tokens[max(features.patch_tokens)], self._layout(features)
        if self.config.adapt_steps:
            names = self.name_classes(class_names, tokens.shape[0])
            shown = names if class_names is None else list(class_names)  # before any renaming
            shown = shown * len(names) if len(shown) == 1 else shown
            adapted = [
                self.adapt(x, text, name, layout, moments_of=own)
                for x, name, own in zip(tokens, names, shown, strict=True)
            ]
            tokens = torch.stack(adapted)
        patch_map = layout.to_pixels(self.chance(tokens, pair), smooth=True)
        return MethodOutput(score=score, patch_map=patch_map)

    def _layout(self, features: ImageFeatures) -> PatchLayout:
        if not self.config.squares:
            return PatchLayout(features.grid, self._patch_size)
        assert features.pixels is not None, "encode_image keeps them with squares"
        height, width = features.pixels.shape[-2:]
        boxes = tuple(end_squares(height, width))
        return PatchLayout(features.grid, self._patch_size, boxes, (height, width))

    def adapt(
        self,
        tokens: Tensor,
        text: TextTower,
        class_name: str,
        layout: PatchLayout,
        *,
        moments_of: str = "",
    ) -> Tensor:
        """Return one picture's tokens (N, D) after an adapter that was trained on them alone.

        `class_name` is in words; `moments_of` is the dataset's class, as macaroni1 and
        macaroni2 share a name but not their moments.
        """
        features = self.state_features(text, class_name)
        pair = self.class_pair(text, class_name)
        with torch.inference_mode(False), torch.enable_grad():
            tokens, pair = tokens.detach().clone(), pair.detach().clone()
            words = unit(torch.cat(features)) if self.config.adapter == "prompts" else None
            draw = torch.Generator().manual_seed(self.config.seed)
            weights = draw_adapter(tokens.shape[1], self.config.adapter, draw)
            weights = [w.to(tokens.device).requires_grad_() for w in weights]
            optimizer = torch.optim.AdamW(weights, lr=self.config.learning_rate)
            if moments_of in self._moments:
                optimizer.load_state_dict(self._moments[moments_of])
            for _ in range(self.config.adapt_steps):
                noised = tokens + draw_noise(tokens.shape, draw).to(tokens)
                clean_logits, noised_logits = (
                    self._logits(move(x, weights, words), pair, layout) for x in (tokens, noised)
                )
                optimizer.zero_grad()
                adaptation_loss(clean_logits, noised_logits).backward()
                optimizer.step()
            if self.config.carry_moments:
                self._moments[moments_of] = optimizer.state_dict()
            return move(tokens, weights, words).detach()

    def _logits(self, tokens: Tensor, pair: Tensor, layout: PatchLayout) -> Tensor:
        """Return the logits of tokens (N, D), or of the pixels of joined squares: (M, 2)."""
        logits = pair_logits(tokens[None], pair, temperature=self.config.temperature)[0]
        return layout.to_pixels(logits.T).flatten(1).T if layout.boxes else logits


@dataclass(frozen=True, slots=True)
class PatchLayout:
    """Layout of a picture's patches."""

    grid: tuple[int, int]  # rows and columns of patches, all squares one below the other
    patch_size: int
    boxes: tuple[Box, ...] = ()  # the squares, empty if the whole picture is one
    size: tuple[int, int] = (0, 0)  # (height, width) in pixels of what the squares cover

    def to_pixels(self, patches: Tensor, *, smooth: bool = False) -> Tensor:
        """Spread values of patches (B, N) over pixels (B, height, width); squares are averaged.

        `smooth` first takes the mean of each patch and its neighbours, edges repeated.
        """
        grids = list(grid_map(patches, self.grid).chunk(max(1, len(self.boxes)), dim=1))
        if smooth:
            padded = [F.pad(grid[:, None], (1, 1, 1, 1), mode="replicate") for grid in grids]
            grids = [F.avg_pool2d(grid, 3, stride=1)[:, 0] for grid in padded]
        squares = [in_pixels(grid, self.patch_size) for grid in grids]
        if not self.boxes:
            return squares[0]
        total = patches.new_zeros(patches.shape[0], *self.size)
        count = patches.new_zeros(self.size)
        for square, (x0, y0, x1, y1) in zip(squares, self.boxes, strict=True):
            total[:, y0:y1, x0:x1] += square
            count[y0:y1, x0:x1] += 1
        return total / count


def draw_adapter(embed_dim: int, adapter: Adapter, draw: torch.Generator) -> list[Tensor]:
    """Draw W (924 or D, D) and its b as torch does for a linear layer.

    Example:
        >>> sum(weight.numel() for weight in draw_adapter(640, "prompts", torch.Generator()))
        592284
    """
    rows, bound = PROMPTS if adapter == "prompts" else embed_dim, embed_dim**-0.5
    shapes: tuple[tuple[int, ...], ...] = ((rows, embed_dim), (rows,))
    return [torch.empty(shape).uniform_(-bound, bound, generator=draw) for shape in shapes]


def move(tokens: Tensor, weights: Sequence[Tensor], words: Tensor | None) -> Tensor:
    """Return y (N, D): half the tokens, half what W and b compute from their directions."""
    made = F.linear(unit(tokens), *weights)
    return (tokens + (made if words is None else made.tanh() @ words)) / 2


def draw_noise(shape: Sequence[int], draw: torch.Generator) -> Tensor:
    """Draw the noise that makes tokens look abnormal for one step."""
    return NOISE_STD * torch.randn(tuple(shape), generator=draw)


def adaptation_loss(clean_logits: Tensor, noised_logits: Tensor) -> Tensor:
    """Return the loss of one step on logits (M, 2): clean ones normal, noised ones abnormal."""
    logs, noised_logs = clean_logits.log_softmax(dim=-1), noised_logits.log_softmax(dim=-1)
    entropy = -(logs.exp() * logs).sum(dim=-1).mean()
    return entropy - NOISE_WEIGHT * (noised_logs[:, 1] + logs[:, 0]).mean()
