"""AnoVL: patch tokens of the V-V path, sentences about a domain, and an optional adapter.

    score = mean of p(class token) over 22 views of the picture
    map   = up(mean of 3x3 patches of p(x_i)),  x_i from the V-V path of the last 12 blocks
    adapted:  y_i = x_i / 2 + tanh(W x_i / |x_i| + b) T / 2   in place of x_i

p is the chance of "abnormal" under 462 sentences a side, at temperature 1. T holds all 924
of them. W and b are drawn anew for every picture and take a few steps of AdamW on

    mean H(p(y_i)) + 1/2 mean(-log p~_i(abnormal) - log p_i(normal)),   p~ of x_i + noise

so nothing is left behind; `carry_moments` keeps AdamW's moments from picture to picture,
as the authors' code does, and makes results depend on their order.

Paper: Deng et al., AnoVL: Adapting Vision-Language Models for Unified Zero-shot Anomaly
Localization, 2023. Facts from hq-deng/AnoVL (vl_test.py), through a written specification.
That code reads the tokens by a place in a list that only its 12 blocks have; here they are
the last block's, by name.
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
from faprompt.clip.vision import ImageFeatures
from faprompt.imaging.views import altered_views
from faprompt.methods.base import MethodOutput, above_zero
from faprompt.methods.sentences import SentenceConfig, SentenceMethod
from faprompt.prompts import templates
from faprompt.prompts.words import display_name
from faprompt.scoring import grid_map, in_pixels, pair_logits, unit

NOISE_STD = 0.05 * 1.1  # of the tokens that should look abnormal (vl_test.py)
NOISE_WEIGHT = 0.5
PROMPTS = sum(len(words) for words in templates.ANOVL_STATES) * 66  # 924 rows of T

Adapter = Literal["prompts", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnoVLConfig(SentenceConfig):
    """All constants of AnoVL, from its public code."""

    image_size: int = 240
    raw_class_names: bool = True
    average: templates.Average = "mean-norm"
    temperature: float = 1.0
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"
    value_blocks: int = 12  # last blocks with the V-V path; all, where there are fewer
    views: bool = True  # False scores the picture alone
    textures: tuple[str, ...] = templates.ANOVL_TEXTURES  # classes told as textures
    adapt_steps: int = 0  # of AdamW per picture; 5 in the authors' script
    adapter: Adapter = "prompts"  # "linear" is x -> W x + b, of the script for VisA
    learning_rate: float = 1e-3
    carry_moments: bool = False
    seed: int = 111  # of W, b and the noise, the same for every picture

    def faults(self) -> list[str]:
        """See `MethodConfig.faults`."""
        found = SentenceConfig.faults(self)
        for name in ("value_blocks", "adapt_steps"):
            if getattr(self, name) < 0:
                found.append(f"{name} should not be negative, got {getattr(self, name)}")
        found += above_zero(self, "learning_rate")
        if self.carry_moments and not self.adapt_steps:
            found.append("carry_moments wants adapt_steps above 0")
        return found


PRESETS: dict[str, dict[str, object]] = {
    "paper": {},
    "common": {"image_size": 518, "interpolation": "bicubic", "raw_class_names": False},
    "adapted": {"adapt_steps": 5},
}


class AnoVL(SentenceMethod):
    """V-V tokens against domain sentences; nothing is kept of what an adapter learns."""

    name = "anovl"
    shared_names = {"macaroni1": "macaroni", "macaroni2": "macaroni"}  # VisA
    config_class = AnoVLConfig
    presets = PRESETS
    backbones = {
        "paper": "ViT-B-16-plus-240:laion400m_e32",
        "adapted": "ViT-B-16-plus-240:laion400m_e32",
    }
    states = templates.ANOVL_STATES
    config: AnoVLConfig

    def __init__(self, config: AnoVLConfig, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self._patch_size = backbone.spec.vision.patch_size
        self._value_blocks = min(config.value_blocks, backbone.spec.vision.layers)
        self._moments: dict[str, dict[str, Any]] = {}  # class -> AdamW's, if they are carried

    @property
    def value_path(self) -> bool:
        """Over `value_blocks` blocks."""
        return True

    @property
    def image_options(self) -> dict[str, Any]:
        """Where the V-V path begins."""
        return {"value_blocks": self._value_blocks}

    @property
    def interpolation(self) -> Literal["bicubic", "bilinear"]:
        """As configured."""
        return self.config.interpolation

    def templates(self, class_name: str) -> Sequence[str]:
        """Those of textures or of objects."""
        texture = display_name(class_name) in map(display_name, self.config.textures)
        return templates.anovl_templates("texture" if texture else "object")

    def encode_image(self, backbone: Backbone, pixels: Tensor) -> ImageFeatures:
        """See `Method.encode_image`; with the class tokens of 22 views, if they are wanted."""
        features = super().encode_image(backbone, pixels)
        if not self.config.views:
            return features
        tokens = [features.class_token]
        for view in altered_views(pixels.to(backbone.device)):
            plain = backbone.encode_image(view, layers=[1], value_path=False, class_ln_post=True)
            tokens.append(plain.class_token)
        return replace(features, views=torch.stack(tokens, dim=1))

    def forward(
        self,
        features: ImageFeatures,
        text: TextTower,
        *,
        static: Tensor | None = None,
        with_prompt_scores: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> MethodOutput:
        """See `Method.forward`."""
        pair = self.text_pairs(text, class_names)
        image = features.class_token[:, None] if features.views is None else features.views
        score = self.chance(image, pair).mean(dim=1)
        tokens = features.patch_tokens[max(features.patch_tokens)]
        if self.config.adapt_steps:
            names = self.name_classes(class_names, len(tokens))
            adapted = [self.adapt(x, text, name) for x, name in zip(tokens, names, strict=True)]
            tokens = torch.stack(adapted)
        grid = grid_map(self.chance(tokens, pair), features.grid)
        return MethodOutput(
            score=score,
            patch_map=in_pixels(_mean_of_nine(grid), self._patch_size),
            prompt_scores=score[:, None] if with_prompt_scores else None,
        )

    def adapt(self, tokens: Tensor, text: TextTower, class_name: str) -> Tensor:
        """One picture's tokens (N, D) through an adapter that was trained on them alone."""
        features = self.state_features(text, class_name)
        pair = self.class_pair(text, class_name)
        with torch.inference_mode(False), torch.enable_grad():
            tokens, pair = tokens.detach().clone(), pair.detach().clone()
            words = unit(torch.cat(features)) if self.config.adapter == "prompts" else None
            draw = torch.Generator().manual_seed(self.config.seed)
            weights = draw_adapter(tokens.shape[1], self.config.adapter, draw)
            weights = [w.to(tokens.device).requires_grad_() for w in weights]
            optimizer = torch.optim.AdamW(weights, lr=self.config.learning_rate)
            if class_name in self._moments:
                optimizer.load_state_dict(self._moments[class_name])
            for _ in range(self.config.adapt_steps):
                noise = NOISE_STD * torch.randn(tokens.shape, generator=draw).to(tokens)
                clean, noised = (move(x, weights, words) for x in (tokens, tokens + noise))
                optimizer.zero_grad()
                adaptation_loss(clean, noised, pair, self.config.temperature).backward()
                optimizer.step()
            if self.config.carry_moments:
                self._moments[class_name] = optimizer.state_dict()
            return move(tokens, weights, words).detach()


def count_adapter_parameters(embed_dim: int, adapter: Adapter = "prompts") -> int:
    """What test-time adaptation trains: 592,284 for D = 640, 710,556 for D = 768.

    Example:
        >>> count_adapter_parameters(640), count_adapter_parameters(768)
        (592284, 710556)
    """
    return (embed_dim + 1) * (PROMPTS if adapter == "prompts" else embed_dim)


def draw_adapter(embed_dim: int, adapter: Adapter, draw: torch.Generator) -> list[Tensor]:
    """W (924 or D, D) and b of it, as torch draws a linear layer's."""
    rows, bound = PROMPTS if adapter == "prompts" else embed_dim, embed_dim**-0.5
    shapes: tuple[tuple[int, ...], ...] = ((rows, embed_dim), (rows,))
    return [torch.empty(shape).uniform_(-bound, bound, generator=draw) for shape in shapes]


def move(tokens: Tensor, weights: Sequence[Tensor], words: Tensor | None) -> Tensor:
    """y of the tokens (N, D): half themselves, half what W and b make of their directions."""
    made = F.linear(unit(tokens), *weights)
    return (tokens + (made if words is None else made.tanh() @ words)) / 2


def adaptation_loss(clean: Tensor, noised: Tensor, pair: Tensor, temperature: float) -> Tensor:
    """Clean tokens (N, D) should be surely normal, noised ones abnormal."""
    logs, noised_logs = (
        pair_logits(tokens[None], pair, temperature=temperature)[0].log_softmax(dim=-1)
        for tokens in (clean, noised)
    )
    entropy = -(logs.exp() * logs).sum(dim=-1).mean()
    return entropy - NOISE_WEIGHT * (noised_logs[:, 1] + logs[:, 0]).mean()


def _mean_of_nine(grid: Tensor) -> Tensor:
    """(B, rows, columns): each patch with its neighbours, edges repeated."""
    return F.avg_pool2d(F.pad(grid[:, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]
