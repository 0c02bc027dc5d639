"""Use the first three stages of WideResNet-50-2 as a frozen backbone.

The maps of stages 1 to 3, (B, 256, H/4, W/4), (B, 512, H/8, W/8) and (B, 1024, H/16, W/16), are
packed into one token per cell of 32 pixels, so code that reads patch tokens treats it as any
other backbone. `unpack_stages` returns the maps, bit by bit. It has no text tower.

Source: WideResNet (Zagoruyko and Komodakis, BMVC 2016), as torchvision builds it; weights
IMAGENET1K_V1, which timm calls wide_resnet50_2.tv_in1k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from faprompt.clip.backbone import Backbone, load_strictly
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec, torchvision_module
from faprompt.clip.tokens import Tokenizer
from faprompt.clip.vision import DEFAULT_OPTIONS, ImageFeatures, ImageOptions, check_pixels_split
from faprompt.errors import ModelError

WIDE_RESNET, TEST_WIDE_RESNET = "wide_resnet50_2", "test-wide-resnet"
STAGES = {1: (256, 4), 2: (512, 8), 3: (1024, 16)}  # stage -> channels, stride in pixels
CELL = 32  # side in pixels: half the coarsest stage's resolution, as in RD4AD's bottleneck
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_SHAPE = ((3, 4, 6), 128)  # blocks per stage, width of the first
WIDE_RESNET_PARAMETERS = 24_862_528  # of the three stages, counted by a test
_TEST_SHAPE = ((1, 1, 1), 8)  # random weights, for tests
_WIDTHS = {stage: channels * (CELL // stride) ** 2 for stage, (channels, stride) in STAGES.items()}
_UNUSED = ("layer4.", "fc.")  # last stage and classifier
_COUNTER = "num_batches_tracked"  # of the norms; some files lack it, and it is not used

WIDE_RESNET_SPEC = BackboneSpec(
    embed_dim=sum(_WIDTHS.values()),
    quick_gelu=False,
    vision=VisionSpec(
        image_size=224, patch_size=CELL, width=sum(_WIDTHS.values()), layers=1, heads=1
    ),
    text=TextSpec(width=0, layers=0, heads=0),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)


class WideResNet(Backbone):
    """The network without its last stage and classifier, frozen and always in eval mode.

    `precision` is that of all weights; the tokens are float32.
    """

    def __init__(self, network: nn.Module, *, name: str) -> None:
        vision: Any = _Stages(network)
        no_text: Any = nn.Module()
        super().__init__(
            WIDE_RESNET_SPEC, vision, no_text, Tokenizer(), logit_scale=torch.zeros(()), name=name
        )

    def train(self, mode: bool = True) -> WideResNet:
        """Stay in eval mode, so that the norms keep their statistics."""
        super().train(False)
        return self

    def encode_image(
        self, pixels: Tensor, options: ImageOptions = DEFAULT_OPTIONS
    ) -> ImageFeatures:
        """Encode (B, 3, H, W) normalised pixels; options of a transformer are ignored.

        Returns:
            patch_tokens: {1: (B, H/32 * W/32, 28672)}, see `unpack_stages`; class_token: their
            mean, which no method reads.

        Raises:
            ValueError: the pixels have another shape, or H and W are no multiples of 32.
        """
        check_pixels_split(pixels, CELL, "cells")
        height, width = pixels.shape[-2:]
        tokens = pack_stages(self.vision(pixels.to(self.device)))
        return ImageFeatures(tokens.mean(dim=1), {1: tokens}, (height // CELL, width // CELL))


class _Stages(nn.Module):
    """Compute the maps of stages 1 to 3."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.layer1, self.layer2, self.layer3 = network.layer1, network.layer2, network.layer3
        self.compute_dtype = torch.float32

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Convert all weights to `dtype`."""
        self.compute_dtype = dtype
        self.to(dtype)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to the three maps (B, channels, H/stride, W/stride) of `STAGES`."""
        planes = self.bn1(self.conv1(pixels.to(self.compute_dtype))).relu()
        planes = nn.functional.max_pool2d(planes, 3, stride=2, padding=1)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3):
            planes = stage(planes)
            maps.append(planes.float())
        return maps


def pack_stages(maps: Sequence[Tensor]) -> Tensor:
    """Return the maps of stages 1 to 3 as tokens (B, cells, 28672), row-major."""
    cells = [
        pixel_unshuffle(planes, CELL // stride).flatten(2)
        for planes, (_, stride) in zip(maps, STAGES.values(), strict=True)
    ]
    return torch.cat(cells, dim=1).mT.contiguous()


def unpack_stages(features: ImageFeatures) -> dict[int, Tensor]:
    """Return stage (1 to 3) -> its map (B, channels, H/stride, W/stride)."""
    tokens = features.patch_tokens[1].mT
    parts = zip(STAGES.items(), tokens.split(list(_WIDTHS.values()), dim=1), strict=True)
    return {
        stage: pixel_shuffle(part.unflatten(2, features.grid), CELL // stride).contiguous()
        for (stage, (_, stride)), part in parts
    }


def is_wide_resnet(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict is of torchvision's or timm's residual networks."""
    first = state.get("layer1.0.conv1.weight")
    return first is not None and first.ndim == 4


def build_wide_resnet(state: Mapping[str, Tensor], *, name: str | Path) -> WideResNet:
    """Build the backbone from a state dict under torchvision's names (timm has the same).

    Its name is "wide_resnet50_2" whatever file it came from.

    Raises:
        ModelError: another residual network, or tensors missing, unknown or misshapen.
    """
    name = TEST_WIDE_RESNET if name == TEST_WIDE_RESNET else WIDE_RESNET
    shape = _TEST_SHAPE if name == TEST_WIDE_RESNET else _SHAPE
    blocks = tuple(
        len({key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")})
        for stage in STAGES
    )
    found = (blocks, len(state["layer1.0.conv1.weight"]))
    if found != shape:
        raise ModelError(
            f"These weights are of a residual network of {found[0]} blocks a stage and a first "
            f"width of {found[1]}; {name} has {shape[0]} and {shape[1]}."
        )
    with torch.device("meta"):  # no random weights that are overwritten at once
        network = _build_network(shape)
    wanted = network.state_dict()
    kept = {k: v for k, v in state.items() if not k.startswith(_UNUSED) and _COUNTER not in k}
    counters = {key: torch.zeros((), dtype=torch.int64) for key in wanted if key.endswith(_COUNTER)}
    load_strictly(network, {**kept, **counters}, name)
    return WideResNet(network, name=name)


def draw_test_weights() -> dict[str, Tensor]:
    """Draw weights of a narrow network with the same channels, for tests."""
    return _draw_weights(_TEST_SHAPE)


def draw_wide_resnet() -> WideResNet:
    """Build the network with random weights, to measure its speed and memory."""
    return build_wide_resnet(_draw_weights(_SHAPE), name=WIDE_RESNET)


def _draw_weights(shape: tuple[tuple[int, ...], int]) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return _build_network(shape).state_dict()


def _build_network(shape: tuple[tuple[int, ...], int]) -> nn.Module:
    torchvision_module()  # repairs a torchvision of another build than torch
    from torchvision.models.resnet import Bottleneck, ResNet

    network: Any = ResNet(Bottleneck, [*shape[0], 1], width_per_group=shape[1])
    del network.layer4, network.fc
    return network
