"""Our numbers beside those of the public code of APRIL-GAN."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faprompt import losses
from faprompt.clip.vision import ImageFeatures
from faprompt.data.masks import resize_mask
from faprompt.imaging.transform import Transform
from faprompt.methods.april_gan import AprilGAN, AprilGANConfig
from faprompt.methods.registry import preset_config
from faprompt.scoring import pair_logits, unit
from tests.golden.rivals import recipe_rivals
from tests.helpers import golden
from tests.helpers.golden_drawn import (
    SEED,
    Values,
    absolute,
    backbone,
    drawn_picture,
    encode,
    load,
    relative,
    rows_of,
)
from tests.helpers.golden_rows import Row


def april_gan(**options: Any) -> Iterator[Row]:
    """Compare every array of `april_gan.npz` with the preset `paper`, changed by `options`."""
    file, method = load("april_gan"), april_method(**options)
    features = encode(method, backbone(24), golden.pixels())
    yield from rows_of(file, april_inputs(), absolute, 1e-6)
    yield from rows_of(file, april_texts(method), absolute, 1e-4)
    yield from rows_of(file, april_first(method, features), absolute, 1e-4)
    for key, lengths in april_sentences(method).items():  # theirs go template by template
        yield Row(key, absolute(lengths, np.sort(file[key])), 1e-4)
    told, gradients = april_train(method, features)
    yield from rows_of(file, told, absolute, 1e-5)
    yield from rows_of(file, gradients, relative, 1e-4)
    after = {f"after/{k}": first_rows(v) for k, v in april_names(method.state_dict()).items()}
    yield from rows_of(file, after, relative, 1e-3)


@cache
def april_base() -> AprilGAN:
    """Build the preset `paper`; its sentences are encoded once and serve other options."""
    config = replace(preset_config("april-gan", "paper"), image_size=70)
    assert isinstance(config, AprilGANConfig)
    return AprilGAN(config, backbone(24))


def april_method(**options: Any) -> AprilGAN:
    """Return the method with the linear layers of the recipe."""
    built = deepcopy(april_base())
    built.config = replace(built.config, **options)
    built.image_options = replace(built.image_options, position_filter=built.config.position_filter)
    state = recipe_rivals.april_gan_state(SEED, width=128, embed_dim=128)
    named = {key.replace("fc.", "linears."): torch.from_numpy(v) for key, v in state.items()}
    built.load_state_dict(named)
    return built


def april_names(values: Values) -> dict[str, Tensor]:
    """Return values under the authors' names of the linear layers."""
    return {key.replace("linears.", "fc."): value for key, value in values.items()}


def april_inputs() -> dict[str, Tensor]:
    """Return the picture and the mask as the model sees them."""
    pixels = torch.from_numpy(Transform(image_size=(70, 70)).to_pixels(drawn_picture()))
    mask = resize_mask(recipe_rivals.truth(SEED, 96, 128), (70, 70))
    return {"preprocess/picture": pixels, "preprocess/mask": torch.from_numpy(mask).float()}


def april_texts(method: AprilGAN) -> dict[str, Tensor]:
    """Return the two directions of each class, (D, 2)."""
    names = ("metal_nut", "object")
    pairs = method.text_pairs(backbone(24).text, names)
    return {f"text/{name}": pair.T for name, pair in zip(names, pairs, strict=True)}


def april_sentences(method: AprilGAN) -> dict[str, Tensor]:
    """Return the sorted lengths of the sentence features."""
    (name,) = method.name_classes(["metal_nut"], 1)
    normal, abnormal = method.state_features(backbone(24).text, name)
    return {
        "sentences/metal_nut_normal_norms": normal.norm(dim=1).sort().values,
        "sentences/metal_nut_abnormal_norms": abnormal.norm(dim=1).sort().values,
    }


def april_forward(method: AprilGAN, features: ImageFeatures) -> Any:
    """Run the method on encoded pictures."""
    return method(features, backbone(24).text, class_names=recipe_rivals.APRIL_CLASSES)


@torch.no_grad()
def april_first(method: AprilGAN, features: ImageFeatures) -> dict[str, Tensor]:
    """Return `eval/...`; the authors sum the maps of the layers, and we average them."""
    out = april_forward(method, features)
    pair = method.text_pairs(backbone(24).text, recipe_rivals.APRIL_CLASSES)
    raw = [features.patch_tokens[layer] for layer in method.image_options.layers or ()]
    moved = [unit(linear(x)) for linear, x in zip(method.linears, raw, strict=True)]
    logits = [pair_logits(x, pair, temperature=method.config.temperature) for x in moved]
    with_class = [april_class_tokens(method), torch.stack([x[1] for x in raw])]
    return {
        "eval/image_features": unit(features.class_token),
        "eval/image_score": out.score,
        "eval/raw_tokens_of_image_1": torch.cat(with_class, dim=1),
        "eval/linear_tokens_of_image_1": torch.stack([x[1] for x in moved]),
        "eval/grid_logits": torch.stack(logits),
        "eval/layer_maps": out.layer_maps,
        "eval/anomaly_map": len(raw) * out.patch_map,
    }


def april_class_tokens(method: AprilGAN) -> Tensor:
    """Return what the blocks leave of the second picture's class token, (L, 1, width).

    No method reads it, so the blocks are run here once more.
    """
    vision = backbone(24).vision
    stream, _ = vision.embed(golden.pixels()[1:2], method.config.position_filter)
    found = []
    for block in vision.visual.transformer.resblocks:
        stream = block(stream)
        found.append(stream[0, :1])
    return torch.stack([found[layer - 1] for layer in method.image_options.layers or ()])


def april_train(
    method: AprilGAN, features: ImageFeatures
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Take three steps: `train/...`, and the gradients of the first one."""
    mask = golden.masks()
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3, betas=(0.5, 0.999))
    told: dict[str, list[Tensor]] = {"train/loss": [], "train/focal": [], "train/dice": []}
    gradients: dict[str, Tensor] = {}
    for _ in range(3):
        out = april_forward(method, features)
        total = method.loss(out, golden.labels(), mask)["local"]
        optimizer.zero_grad()
        total.backward()
        told["train/loss"].append(total.detach())
        maps = out.layer_maps.detach()
        true = [torch.where(mask > 0.5, grid, 1 - grid) for grid in maps]
        told["train/focal"].append(torch.stack([losses.focal(grid) for grid in true]))
        told["train/dice"].append(torch.stack([losses.dice(grid, mask) for grid in maps]))
        gradients = gradients or april_gradients(method)
        optimizer.step()
    return {key: torch.stack(values) for key, values in told.items()}, gradients


def april_gradients(method: AprilGAN) -> dict[str, Tensor]:
    """Return gradients as they are stored: some rows, and the length of the whole."""
    named = {key: p.grad.clone() for key, p in method.named_parameters() if p.grad is not None}
    whole = april_names(named)
    lengths = {f"grad_norm/{key}": value.norm() for key, value in whole.items()}
    return {f"grad/{key}": first_rows(value) for key, value in whole.items()} | lengths


def first_rows(parameter: Tensor) -> Tensor:
    """Return what is stored of a parameter: 16 rows of a weight, all of a bias."""
    return parameter[:16] if parameter.ndim == 2 else parameter
