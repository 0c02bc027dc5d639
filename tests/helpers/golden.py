"""The golden backbone and inputs, drawn by the recipe the fixtures were made with."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import infer_spec
from tests.golden import recipe

SEED = 7
SHAPE = {
    "embed_dim": 128, "resolution": 56, "patch": 14, "vision_width": 128, "vision_layers": 24,
    "text_width": 128, "text_layers": 12,
}  # fmt: skip
FOLDER = Path(__file__).resolve().parents[1] / "golden"


@cache
def clip_state() -> dict[str, torch.Tensor]:
    state = recipe.clip_state_dict(SEED, **SHAPE)
    return {key: torch.as_tensor(np.asarray(value)) for key, value in state.items()}


@cache
def backbone() -> Backbone:
    state = clip_state()
    return build_backbone(infer_spec(state, quick_gelu=True), state, name="golden")


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def pixels() -> torch.Tensor:
    return torch.from_numpy(recipe.images(SEED, 4, 70))


def masks() -> torch.Tensor:
    return torch.from_numpy(recipe.masks(SEED, 4, 70))


def labels() -> torch.Tensor:
    return torch.tensor([0, 1, 0, 1])


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive.files}
