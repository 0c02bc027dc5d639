"""Hold the weights of a CLIP under OpenAI's names; `vision` and `text` have the forward passes.

Names, shapes and random weights are those of open_clip's `CLIP` (model.py, transformer.py), which
a test compares with the same seed. open_clip itself takes two seconds of CPU to import.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faprompt.clip.int8_linear import Int8Linear
from faprompt.clip.spec import BackboneSpec, VisionSpec

_QUICK = 1.702  # clip/model.py of openai/CLIP, QuickGELU


class QuickGELU(nn.Module):
    """Approximate GELU by a sigmoid, as OpenAI's weights want it."""

    def forward(self, values: Tensor) -> Tensor:
        """Return values of the same shape."""
        return values * torch.sigmoid(_QUICK * values)


class Attention(nn.Module):
    """Hold the packed input projection (q, k, v) and the output projection of one block.

    `use_int8` replaces the matrices by 8-bit ones.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = width, heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj: Any = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        self._int8_queries: Int8Linear | None = None
        self._int8_keys_values: Int8Linear | None = None

    def queries(self, tokens: Tensor) -> Tensor:
        """Project (..., width) to queries (..., width)."""
        if self._int8_queries is not None:
            return self._int8_queries(tokens)
        return F.linear(tokens, *self._rows(0, 1))

    def keys_values(self, tokens: Tensor) -> Tensor:
        """Project (..., width) to keys and values, (..., 2 width)."""
        if self._int8_keys_values is not None:
            return self._int8_keys_values(tokens)
        return F.linear(tokens, *self._rows(1, 3))

    def use_int8(self) -> None:
        """Multiply in 8 bits from now on."""
        self._int8_queries = Int8Linear(*self._rows(0, 1))
        self._int8_keys_values = Int8Linear(*self._rows(1, 3))
        del self.in_proj_weight, self.in_proj_bias
        self.out_proj = Int8Linear(self.out_proj.weight, self.out_proj.bias)

    def _rows(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Return weight and bias of rows first..last (of q, k, v) of the input projection."""
        rows = slice(first * self.embed_dim, last * self.embed_dim)
        return self.in_proj_weight[rows], self.in_proj_bias[rows]


class Block(nn.Module):
    """Hold two norms, attention and MLP of one transformer block."""

    def __init__(
        self, width: int, heads: int, hidden: int, *, quick_gelu: bool, eps: float
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, hidden))
        self.mlp.add_module("gelu", QuickGELU() if quick_gelu else nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(hidden, width))

    def use_int8(self) -> None:
        """Multiply in 8 bits from now on, in attention and MLP."""
        self.attn.use_int8()
        for name in ("c_fc", "c_proj"):
            linear: Any = self.mlp.get_submodule(name)
            self.mlp.add_module(name, Int8Linear(linear.weight, linear.bias))


class Transformer(nn.Module):
    """Hold the blocks of one tower, as `resblocks`."""

    def __init__(
        self, width: int, layers: int, heads: int, mlp_ratio: float = 4.0,
        *, quick_gelu: bool = False, eps: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.resblocks = nn.ModuleList(
            Block(width, heads, hidden, quick_gelu=quick_gelu, eps=eps) for _ in range(layers)
        )


class Visual(nn.Module):
    """Hold the image tower's patch convolution, tables, norms, blocks and projection."""

    def __init__(self, spec: VisionSpec, embed_dim: int, *, quick_gelu: bool) -> None:
        super().__init__()
        width, side, scale = spec.width, spec.image_size // spec.patch_size, spec.width**-0.5
        self.conv1: nn.Module = nn.Conv2d(
            3, width, spec.patch_size, stride=spec.patch_size, bias=False
        )
        self.class_embedding = _draw(width, std=scale)
        self.positional_embedding = _draw(side * side + 1, width, std=scale)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width, spec.layers, spec.heads, spec.mlp_ratio, quick_gelu=quick_gelu
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = _draw(width, embed_dim, std=scale)


class CLIP(nn.Module):
    """Hold both towers and the log temperature of a CLIP."""

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        text = spec.text
        self.visual = Visual(spec.vision, spec.embed_dim, quick_gelu=spec.quick_gelu)
        table = _draw(text.vocab_size, text.width, std=1.0)  # drawn again below, as open_clip does
        self.token_embedding = nn.Embedding.from_pretrained(table, freeze=False)
        self.positional_embedding = nn.Parameter(torch.empty(text.context_length, text.width))
        self.transformer = Transformer(
            text.width, text.layers, text.heads, text.mlp_ratio, quick_gelu=spec.quick_gelu
        )
        self.ln_final = nn.LayerNorm(text.width)
        self.text_projection = nn.Parameter(torch.empty(text.width, spec.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        if not self.logit_scale.is_meta:
            self._draw_text_weights(text.width, text.layers)

    def _draw_text_weights(self, width: int, layers: int) -> None:
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        projection_std = width**-0.5 * (2 * layers) ** -0.5
        block: Any
        for block in self.transformer.resblocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=projection_std)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=projection_std)
        nn.init.normal_(self.text_projection, std=width**-0.5)


def _draw(*shape: int, std: float) -> nn.Parameter:
    """Return a table of normal values, or only its shape on the meta device.

    To draw nothing there, torch would import its compiler, for 1.3 s of CPU.
    """
    table = torch.empty(shape)
    return nn.Parameter(table if table.is_meta else nn.init.normal_(table, std=std))
