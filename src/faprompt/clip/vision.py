"""Encode images: class token from CLIP's own path, patch tokens from the V-V path.

    pixels (B, 3, H, W)
      -> patches + position table, interpolated to H/p x W/p      (B, 1+N, width)
      -> blocks 1..s        the plain transformer                 o_1 .. o_s
      -> blocks s+1..depth  o as before; beside it                p += W_o softmax(v v'/sqrt d) v
      -> class token        o_depth[0] proj      (no ln_post, as the authors do)
      -> patch tokens       ln_post(p) proj      of any chosen layers

The V-V path reads the original path and never writes to it. So its class row is not needed,
and the last block of the original path is computed for one token only.

Source: AnomalyCLIP_lib/AnomalyCLIP.py of zqhang/AnomalyCLIP ("DPAM"), kept by
mala-lab/FAPrompt. The code is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faprompt.clip.spec import VisionSpec

PositionFilter = Literal["bilinear", "bicubic", "plain-bicubic"]
HEADS_AT_ONCE = 4  # 15 MB of bf16 scores for 1370 tokens
WINDOWS_AT_ONCE = 512  # sequences of a few tokens each, over all images of a batch


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """What one image pass computes; `to_mapping` of it belongs to the key of every token cache.

    Layers are blocks counted from 1; None means the last. With `plain_layers`, tokens of the
    plain path come beside those of `layers`: the former under their number, the latter under
    depth + number.
    """

    layers: tuple[int, ...] | None = None  # blocks whose patch tokens are wanted
    plain_layers: tuple[int, ...] = ()  # blocks whose tokens of the plain path come beside them
    next_attention: bool = False  # add to those what the next block's attention adds to them
    value_path: bool = True  # patch tokens of AnomalyCLIP's V-V path; False gives plain CLIP
    value_blocks: int | None = None  # last blocks with a V-V path; None for the paper's share
    class_ln_post: bool = False  # apply `ln_post` to the class token, as CLIP does
    raw_tokens: bool = False  # patch tokens without `ln_post` and projection
    raw_ln_post: bool = False  # apply `ln_post` to `raw_tokens`; without them it has no effect
    windows: tuple[int, ...] = ()  # sides, in patches, of windows that are encoded one by one
    position_filter: PositionFilter = "bilinear"  # resizes the position table to another grid

    def token_keys(self, depth: int) -> tuple[int, ...]:
        """Return the keys of `ImageFeatures.patch_tokens` from a tower of `depth` blocks."""
        layers = {depth} if self.layers is None else set(self.layers)
        shift = depth if self.plain_layers else 0
        return tuple(sorted({*self.plain_layers, *(shift + layer for layer in layers)}))


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """Features of a batch of images, float32, not normalised.

    class_token: (B, D). patch_tokens: layer (from 1; depth + layer for the V-V path if both
    paths were asked for) -> (B, N, D), row-major over `grid` = (rows, columns), or
    (B, N, width) for raw tokens. windows: side in patches -> class tokens (B, W, D) of every
    window of that side, row-major. views: (B, V, D), class tokens of V altered copies of each
    image, or None. pixels: the batch itself, for methods that read it again, or None.
    """

    class_token: Tensor
    patch_tokens: dict[int, Tensor]
    grid: tuple[int, int]
    windows: dict[int, Tensor] = field(default_factory=dict)
    views: Tensor | None = None
    pixels: Tensor | None = None


DEFAULT_OPTIONS = ImageOptions()


class ConvStem(nn.Module):
    """Replace the patch convolution by a small convolutional network. Ours.

    It maps (B, 3, H, W) to (B, width, H/p, W/p) like the `conv1` it replaces. Each stage is a
    strided 3x3 convolution; all but the first are followed by a residual one. Group norms
    make the result independent of the image's contrast.
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
        """Map (B, 3, H, W) to (B, width, H/p, W/p)."""
        return self.stages(pixels)


class _ResidualConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(channels // 8, channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, planes: Tensor) -> Tensor:
        return planes + self.conv(nn.functional.gelu(self.norm(planes)))


class VisionTower(nn.Module):
    """Run CLIP's vision transformer with a second, value-value path."""

    def __init__(self, visual: Any, spec: VisionSpec) -> None:
        super().__init__()
        self.visual = visual
        self.spec = spec
        self.compute_dtype = torch.float32

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Convert the blocks' matrices to `dtype`; sums and norms stay in float32."""
        self.compute_dtype = dtype
        for block in self.visual.transformer.resblocks:
            block.attn.to(dtype)
            block.mlp.to(dtype)

    def use_int8(self) -> None:
        """Multiply with the blocks' matrices in 8 bits; the rest stays in float32."""
        for block in self.visual.transformer.resblocks:
            block.use_int8()

    def forward(self, pixels: Tensor, options: ImageOptions = DEFAULT_OPTIONS) -> ImageFeatures:
        """Encode a batch once.

        Args:
            pixels: (B, 3, H, W) float, normalised; H and W multiples of the patch size.
            options: which tokens, from which layers and path.

        Raises:
            ValueError: pixels of another shape, a layer outside 1..depth, more V-V blocks
                than there are, or a window larger than the grid.
        """
        depth, class_ln_post = self.spec.layers, options.class_ln_post
        wanted = {depth} if options.layers is None else set(options.layers)
        beside = set(options.plain_layers)
        if not (wanted | beside) or min(wanted | beside) < 1 or max(wanted | beside) > depth:
            asked = [*(options.layers or ()), *options.plain_layers]
            raise ValueError(f"layers should lie in 1..{depth}, got {asked}.")
        shift = depth if beside else 0  # of the keys of `layers`
        start = self._value_start(options)
        stream, grid = self.embed(pixels, options.position_filter)
        windows = {
            side: self._encode_windows(stream, grid, side, class_ln_post)
            for side in options.windows
        }
        value: Tensor | None = None
        collected: dict[int, Tensor] = {}
        for number, block in enumerate(self.visual.transformer.resblocks, start=1):
            class_only = number == depth and (start < depth or depth not in wanted) and not beside
            attended, stream, value = _step(
                block, stream, value, with_value=number > start, class_only=class_only,
                dtype=self.compute_dtype,
            )  # fmt: skip
            if options.next_attention and number - 1 in beside:
                collected[number - 1] = attended[:, 1:]
            if number in beside and (number == depth or not options.next_attention):
                collected[number] = stream[:, 1:]
            if number in wanted:
                collected[shift + number] = stream[:, 1:] if value is None else value
        class_token = self._project_class(stream[:, 0], class_ln_post)
        tokens = {
            key: (
                self._unprojected(patches, options.raw_ln_post)
                if options.raw_tokens
                else self.project(patches)
            )
            for key, patches in sorted(collected.items())
        }
        return ImageFeatures(class_token, tokens, grid, windows)

    def embed(
        self, pixels: Tensor, position_filter: PositionFilter = "bilinear"
    ) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens (B, 1+N, width) after `ln_pre`, and the grid (H/p, W/p)."""
        visual = self.visual
        check_pixels_split(pixels, self.spec.patch_size, "patches")
        patches = visual.conv1(pixels.float())
        grid = (patches.shape[-2], patches.shape[-1])
        patches = patches.flatten(2).mT  # (B, N, width)
        first = visual.class_embedding.expand(pixels.shape[0], 1, -1)
        tokens = torch.cat([first, patches], dim=1)
        table = position_table(visual.positional_embedding, grid, position_filter)
        return visual.ln_pre(tokens + table), grid

    def project(self, tokens: Tensor) -> Tensor:
        """Project a block's tokens (..., width) to (..., D), through `ln_post`."""
        return self.visual.ln_post(tokens.float()) @ self.visual.proj.float()

    def _unprojected(self, tokens: Tensor, ln_post: bool) -> Tensor:
        return self.visual.ln_post(tokens.float()) if ln_post else tokens.float()

    def _value_start(self, options: ImageOptions) -> int:
        """Return the number of leading blocks without the V-V path."""
        depth, blocks = self.spec.layers, options.value_blocks
        if not options.value_path:
            return depth
        if blocks is None:
            return self.spec.value_path_start
        if not 0 <= blocks <= depth:
            raise ValueError(f"value_blocks should lie in 0..{depth}, got {blocks}.")
        return depth - blocks

    def _encode_windows(
        self, stream: Tensor, grid: tuple[int, int], side: int, class_ln_post: bool
    ) -> Tensor:
        """Return class tokens (B, W, D) of all windows, each encoded alone.

        The patches of a window keep the positions they have in the image.
        """
        blocks = self.visual.transformer.resblocks
        places = window_places(grid, side).to(stream.device)
        found = []
        together = WINDOWS_AT_ONCE  # per image, if an export leaves their number open
        if not torch.compiler.is_compiling():
            together = max(1, WINDOWS_AT_ONCE // stream.shape[0])
        for part in places.split(together):
            patches = stream[:, 1:][:, part]  # (B, windows, side * side, width)
            first = stream[:, None, :1].expand(-1, part.shape[0], -1, -1)
            tokens = torch.cat([first, patches], dim=2).flatten(0, 1)
            for number, block in enumerate(blocks, start=1):
                _, tokens, _ = _step(
                    block, tokens, None, with_value=False, class_only=number == len(blocks),
                    dtype=self.compute_dtype,
                )  # fmt: skip
            found.append(self._project_class(tokens[:, 0], class_ln_post))
        return torch.cat([tokens.unflatten(0, (stream.shape[0], -1)) for tokens in found], dim=1)

    def _project_class(self, token: Tensor, ln_post: bool) -> Tensor:
        return self._unprojected(token, ln_post) @ self.visual.proj.float()


def check_pixels_split(pixels: Tensor, side: int, parts: str) -> None:
    """Refuse pixels that are not (B, 3, H, W) with H and W multiples of `side`."""
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"pixels should be (B, 3, H, W), got {tuple(pixels.shape)}.")
    height, width = pixels.shape[-2:]
    if height % side or width % side or not height or not width:
        fit = (max(1, round(height / side)) * side, max(1, round(width / side)) * side)
        raise ValueError(
            f"{height}x{width} pixels do not split into {side}-pixel {parts}; "
            f"{fit[0]}x{fit[1]} would."
        )


def window_places(grid: tuple[int, int], side: int) -> Tensor:
    """List the patches of every window of side x side patches, one step apart, row-major.

    Args:
        grid: (rows, columns) of patches.
        side: of a window, in patches.

    Returns:
        (W, side * side) int64, W = (rows - side + 1) (columns - side + 1).

    Raises:
        ValueError: a window is empty or does not fit.

    Example:
        >>> window_places((2, 3), 2)
        tensor([[0, 1, 3, 4],
                [1, 2, 4, 5]])
    """
    rows, columns = grid
    if not 1 <= side <= min(rows, columns):
        raise ValueError(
            f"A window of {side}x{side} patches does not fit a {rows}x{columns} grid; "
            "use smaller windows or a larger image."
        )
    numbers = torch.arange(rows * columns).view(rows, columns)
    return numbers.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


def position_table(
    table: Tensor, grid: tuple[int, int], position_filter: PositionFilter = "bilinear"
) -> Tensor:
    """Resize the learned position table to another grid; the class row is kept.

    Args:
        table: (1 + g*g, width), trained on a square grid.
        grid: (rows, columns) wanted.
        position_filter: "bilinear" without antialias, as in AnomalyCLIP; "bicubic" with it, as
            in open_clip; "plain-bicubic" without it, as in BLIP.

    Returns:
        (1 + rows*columns, width), align_corners False; the stored table is not changed.
    """
    side = round((table.shape[0] - 1) ** 0.5)
    if grid == (side, side):
        return table
    square = table[1:].T.reshape(1, -1, side, side)
    resized = F.interpolate(
        square.float(), size=grid, mode=position_filter.removeprefix("plain-"),
        align_corners=False, antialias=position_filter == "bicubic",
    )  # fmt: skip
    return torch.cat([table[:1], resized[0].flatten(1).T.to(table.dtype)])


def _step(
    block: Any, stream: Tensor, value: Tensor | None, *,
    with_value: bool, class_only: bool, dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Run one block of both paths on `stream` (B, 1+N, W) and `value` (B, N, W) or None.

    Return the stream between attention and MLP, then stream and value after the block.
    """
    attention = block.attn
    normed = block.ln_1(stream).to(dtype)
    queries = attention.queries(normed[:, :1] if class_only else normed)
    k, v = (
        _split_heads(t, attention.num_heads) for t in attention.keys_values(normed).chunk(2, dim=-1)
    )
    if with_value:
        seen = attend(v, v, v)[:, :, 1:]  # dropping the row beforehand is slower: 1369 is odd
        residual = attention.out_proj(_join_heads(seen))
        value = (stream[:, 1:] if value is None else value) + residual
    seen = attend(_split_heads(queries, attention.num_heads), k, v)
    stream = stream[:, :1] if class_only else stream
    attended = stream + attention.out_proj(_join_heads(seen))
    stream = attended + block.mlp(block.ln_2(attended).to(dtype))
    return attended, stream, value


def _split_heads(tokens: Tensor, heads: int) -> Tensor:
    batch, count, width = tokens.shape
    return tokens.view(batch, count, heads, width // heads).transpose(1, 2)


def _join_heads(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).flatten(2)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v, without a mask.

    On a CPU in bf16 or fp16, two matrix products with a softmax between them are faster than
    torch's fused kernel, a few heads at a time to keep the scores small. With gradients all
    heads run at once, because the scores are kept anyway. Rounding scores to 16 bits costs
    precision in proportion to their size, so the mean key is subtracted first: it shifts all
    scores of a query by the same amount, which a softmax ignores.

    Args:
        queries: (B, heads, Q, d). keys, values: (B, heads, K, d).

    Returns:
        (B, heads, Q, d), of the queries' dtype.
    """
    written_out = (
        queries.device.type == "cpu"
        and queries.dtype in (torch.bfloat16, torch.float16)
        and queries.shape[-2] > 1
    )
    if not written_out:
        return F.scaled_dot_product_attention(queries, keys, values)
    queries, values = queries.contiguous(), values.contiguous()
    centred = (keys - keys.mean(dim=-2, keepdim=True)).contiguous() * queries.shape[-1] ** -0.5
    if torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):  # which would widen the scores to float32
            return (queries @ centred.mT).softmax(dim=-1) @ values
    result = torch.empty_like(queries)
    batch, heads = queries.shape[:2]
    together = min(heads, HEADS_AT_ONCE)
    buffer = queries.new_empty(batch, together, queries.shape[-2], keys.shape[-2])
    for first in range(0, heads, together):
        group = slice(first, min(first + together, heads))
        scores = buffer[:, : group.stop - first]
        torch.matmul(queries[:, group], centred[:, group].mT, out=scores)
        torch.softmax(scores, dim=-1, out=scores)  # row by row, so it may write where it reads
        torch.matmul(scores, values[:, group], out=result[:, group])
    return result
