"""Our numbers beside those of anomalib's WinCLIP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import infer_spec
from faprompt.clip.vision import ImageFeatures
from faprompt.methods.registry import preset_config
from faprompt.methods.winclip import EVERY_CLASS, ReferenceMemory, WinCLIP, WinCLIPConfig
from tests.golden import recipe
from tests.helpers.golden_drawn import SEED, absolute, encode, load, rows_of
from tests.helpers.golden_rows import Row


@cache
def winclip_backbone() -> Backbone:
    """Build the drawn CLIP of `winclip_anomalib.npz`."""
    drawn = recipe.clip_state_dict(
        SEED, embed_dim=128, resolution=80, patch=16, vision_width=128, vision_layers=6,
        text_width=128, text_layers=4,
    )  # fmt: skip
    state = {key: torch.as_tensor(np.asarray(value)) for key, value in drawn.items()}
    return build_backbone(infer_spec(state, quick_gelu=False), state, name="golden-winclip")


def winclip(**options: Any) -> Iterator[Row]:
    """Compare every array of `winclip_anomalib.npz` with the preset `code`."""
    file, method = load("winclip_anomalib"), winclip_method(**options)
    features = encode(method, winclip_backbone(), torch.from_numpy(recipe.images(SEED, 4, 80)))
    tokens = {
        "image": features.class_token,
        "windows2": features.windows[2],
        "windows3": features.windows[3],
    }
    yield from rows_of(file, tokens, absolute, 1e-4)
    for name in ("metal_nut", "object"):
        values = winclip_values(method, features, name)
        yield from rows_of(file, {f"{name}/{k}": v for k, v in values.items()}, absolute, 1e-5)


def winclip_method(**options: Any) -> WinCLIP:
    """Build the preset `code`, with the memory of the two drawn references."""
    tower = winclip_backbone()
    config = replace(preset_config("winclip", "code"), image_size=80, **options)
    assert isinstance(config, WinCLIPConfig)
    method = WinCLIP(config, tower)
    held = torch.from_numpy(recipe.images(8, 2, 80))
    seen = [encode(method, tower, pixels[None]) for pixels in held]
    method.memory = ReferenceMemory({EVERY_CLASS: seen})
    return method


def winclip_values(method: WinCLIP, features: ImageFeatures, name: str) -> dict[str, Tensor]:
    """Return texts, maps and scores about a class, without references and with them."""
    text, names, config = winclip_backbone().text, [name] * 4, method.config
    plain = method(features, text, class_names=names)
    method.config = replace(config, references=("drawn",))  # the memory is there already
    with_references = method(features, text, class_names=names)
    method.config = config
    sides = method.state_features(text, name)
    return {
        "text": torch.stack([rows.mean(dim=0) for rows in sides]),
        "image_score": plain.score,
        "patch_map": plain.patch_map,
        "reference_map": 2 * with_references.patch_map - plain.patch_map,
        "score_with_references": with_references.score,
    }
