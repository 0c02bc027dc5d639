"""The image tower: class token from the original path, patch tokens from the V-V path.

    pixels (B, 3, H, W)
      -> patches + position table, interpolated to H/p x W/p      (B, 1+N, width)
      -> blocks 1..s        the plain transformer                 o_1 .. o_s
      -> blocks s+1..depth  o as before; beside it                p += W_o softmax(v v'/sqrt d) v
      -> class token        o_depth[0] proj      (no ln_post, as the authors do)
      -> patch tokens       ln_post(p) proj      of any chosen layers

The V-V branch reads the original path and never feeds back into it, so its class row is
never needed, and the last block of the original path is computed for one token only.

Source: AnomalyCLIP_lib/AnomalyCLIP.py of zqhang/AnomalyCLIP ("DPAM"), kept by
mala-lab/FAPrompt. The code is ours and stands on open_clip's modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faprompt.clip.attention import attend
from faprompt.clip.spec import VisionSpec


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the image tower says of a batch. Nothing is normalised yet.

    class_token: (B, D). patch_tokens: chosen layer (from 1) -> (B, N, D), row-major over
    `grid` = (rows, columns). All float32.
    """

    class_token: Tensor
    patch_tokens: dict[int, Tensor]
    grid: tuple[int, int]


class ConvStem(nn.Module):
    """Ours: a small convolutional network in place of one patch convolution.

    Maps (B, 3, H, W) to (B, width, H/p, W/p) like the `conv1` it replaces. Each stage is a
    strided 3x3 convolution; all but the first, which is large and cheap, are followed by a
    residual one. Group norms make it indifferent to a picture's contrast.
    """

    def __init__(self, spec: VisionSpec) -> None:
        super().__init__()
        channels = (3, *spec.stem_channels, spec.width)
        stages: list[nn.Module] = []
        for index, stride in enumerate(spec.stem_strides):
            into, out = channels[index], channels[index + 1]
            if index:
                stages += [nn.GroupNorm(into // 8, into), nn.GELU()]
            stages.append(nn.Conv2d(into, out, 3, stride=stride, padding=1 if stride < 3 else 0))
            if index:
                stages.append(_ResidualConv(out))
        self.stages = nn.Sequential(*stages)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width, H/p, W/p)."""
        return self.stages(pixels)


class _ResidualConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(channels // 8, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, planes: Tensor) -> Tensor:
        return planes + self.conv(nn.functional.gelu(self.norm(planes)))


class VisionTower(nn.Module):
    """open_clip's vision transformer with the second, value-value path beside the first."""

    def __init__(self, visual: Any, spec: VisionSpec) -> None:
        super().__init__()
        self.visual = visual
        self.spec = spec
        self.compute_dtype = torch.float32

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Hold the blocks' matrices in `dtype`; sums and norms stay in float32."""
        self.compute_dtype = dtype
        for block in self.visual.transformer.resblocks:
            block.attn.to(dtype)
            block.mlp.to(dtype)

    def forward(
        self,
        pixels: Tensor,
        *,
        layers: Sequence[int] | None = None,
        value_path: bool = True,
        class_ln_post: bool = False,
    ) -> ImageFeatures:
        """Encode a batch once.

        Args:
            pixels: (B, 3, H, W) float, normalised; H and W multiples of the patch size.
            layers: blocks (from 1) whose patch tokens are wanted; None means the last.
            value_path: True for AnomalyCLIP and FAPrompt; False gives plain CLIP.
            class_ln_post: apply `ln_post` to the class token, as CLIP does.

        Raises:
            ValueError: pixels of another shape, or a layer outside 1..depth.
        """
        depth = self.spec.layers
        wanted = sorted({depth} if layers is None else set(layers))
        if not wanted or wanted[0] < 1 or wanted[-1] > depth:
            raise ValueError(f"layers should lie in 1..{depth}, got {list(layers or ())}.")
        stream, grid = self.embed(pixels)
        start = self.spec.value_path_start if value_path else depth
        value: Tensor | None = None
        collected: dict[int, Tensor] = {}
        for number, block in enumerate(self.visual.transformer.resblocks, start=1):
            class_only = number == depth and (value_path or depth not in wanted)
            stream, value = _step(
                block, stream, value, with_value=number > start, class_only=class_only,
                dtype=self.compute_dtype,
            )  # fmt: skip
            if number in wanted:
                collected[number] = self._project_patches(stream[:, 1:] if value is None else value)
        return ImageFeatures(self._project_class(stream[:, 0], class_ln_post), collected, grid)

    def embed(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, 3, H, W) -> tokens (B, 1+N, width) after `ln_pre`, and the grid (H/p, W/p)."""
        visual, patch = self.visual, self.spec.patch_size
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"pixels should be (B, 3, H, W), got {tuple(pixels.shape)}.")
        height, width = pixels.shape[-2:]
        if height % patch or width % patch or not height or not width:
            fit = (max(1, round(height / patch)) * patch, max(1, round(width / patch)) * patch)
            raise ValueError(
                f"{height}x{width} pixels do not split into {patch}-pixel patches; "
                f"{fit[0]}x{fit[1]} would."
            )
        patches = visual.conv1(pixels.float())
        grid = (patches.shape[-2], patches.shape[-1])
        patches = patches.flatten(2).mT  # (B, N, width)
        first = visual.class_embedding.expand(len(pixels), 1, -1)
        tokens = torch.cat([first, patches], dim=1)
        return visual.ln_pre(tokens + position_table(visual.positional_embedding, grid)), grid

    def _project_patches(self, tokens: Tensor) -> Tensor:
        return self.visual.ln_post(tokens.float()) @ self.visual.proj.float()

    def _project_class(self, token: Tensor, ln_post: bool) -> Tensor:
        token = self.visual.ln_post(token.float()) if ln_post else token.float()
        return token @ self.visual.proj.float()


def position_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """The learned position table at another grid; the class row is kept.

    Args:
        table: (1 + g*g, width), trained on a square grid.
        grid: (rows, columns) wanted.

    Returns:
        (1 + rows*columns, width). Bilinear, align_corners False, no antialias, as
        AnomalyCLIP does; the stored table is never overwritten.
    """
    side = round((len(table) - 1) ** 0.5)
    if grid == (side, side):
        return table
    square = table[1:].T.reshape(1, -1, side, side)
    resized = F.interpolate(square.float(), size=grid, mode="bilinear", align_corners=False)
    return torch.cat([table[:1], resized[0].flatten(1).T.to(table.dtype)])


def _step(
    block: Any,
    stream: Tensor,
    value: Tensor | None,
    *,
    with_value: bool,
    class_only: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """One block of both paths. `stream` (B, 1+N, W); `value` (B, N, W) or None before it starts."""
    attention = block.attn
    normed = block.ln_1(stream).to(dtype)
    keys_values = F.linear(normed, *_part(attention, 1, 3))
    queries = F.linear(normed[:, :1] if class_only else normed, *_part(attention, 0, 1))
    k, v = (_split_heads(t, attention.num_heads) for t in keys_values.chunk(2, dim=-1))
    if with_value:
        seen = attend(v, v, v)[:, :, 1:]  # leaving the row out beforehand is slower: 1369 is odd
        residual = attention.out_proj(_join_heads(seen))
        value = (stream[:, 1:] if value is None else value) + residual
    seen = attend(_split_heads(queries, attention.num_heads), k, v)
    stream = stream[:, :1] if class_only else stream
    stream = stream + attention.out_proj(_join_heads(seen))
    stream = stream + block.mlp(block.ln_2(stream).to(dtype))
    return stream, value


def _part(attention: Any, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Rows first..last (of q, k, v) of the packed input projection: weight and bias."""
    width = attention.embed_dim
    rows = slice(first * width, last * width)
    return attention.in_proj_weight[rows], attention.in_proj_bias[rows]


def _split_heads(tokens: Tensor, heads: int) -> Tensor:
    batch, count, width = tokens.shape
    return tokens.view(batch, count, heads, width // heads).transpose(1, 2)


def _join_heads(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).flatten(2)
