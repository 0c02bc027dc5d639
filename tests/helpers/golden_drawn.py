"""What the golden comparisons with handcrafted prompts share: drawn towers, files, distances.

Weights and inputs are drawn by `tests.golden.recipe` and `tests.golden.rivals.recipe_rivals`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import infer_spec
from faprompt.clip.vision import ImageFeatures
from faprompt.methods.base import Method
from tests.golden.rivals import recipe_rivals
from tests.helpers import golden
from tests.helpers.golden_rows import Row

SEED = recipe_rivals.SEED
FOLDER = golden.FOLDER / "rivals"
Values = Mapping[str, Tensor]


@cache
def load(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a golden file by key."""
    with np.load(FOLDER / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive.files}


@cache
def backbone(vision_layers: int) -> Backbone:
    """Build the drawn CLIP of 12 or 24 image blocks, with exact GELU in both towers."""
    shape = {**recipe_rivals.SHAPE, "vision_layers": vision_layers}
    assert shape == (recipe_rivals.ANOVL_SHAPE if vision_layers == 12 else golden.SHAPE)
    start = "visual.transformer.resblocks."
    beyond = tuple(f"{start}{number}." for number in range(vision_layers, 24))
    state = {k: v for k, v in golden.clip_state().items() if not k.startswith(beyond)}
    return build_backbone(infer_spec(state, quick_gelu=False), state, name="golden-gelu")


def absolute(ours: Tensor, wanted: np.ndarray) -> float:
    """Return the largest absolute difference."""
    return golden.difference(ours.detach(), wanted)


def relative(ours: Tensor, wanted: np.ndarray, *, origin: float | np.ndarray = 0.0) -> float:
    """Return the length of the difference over the length of `wanted - origin`."""
    assert tuple(ours.shape) == wanted.shape, (tuple(ours.shape), wanted.shape)
    difference = ours.detach().double().numpy() - wanted
    return float(np.linalg.norm(difference) / np.linalg.norm(wanted - origin))


def from_half(ours: Tensor, wanted: np.ndarray) -> float:
    """Return the length of the difference over that of `wanted - 0.5`.

    All probabilities at temperature 1 lie close to 0.5, so an absolute limit would see nothing.
    """
    return relative(ours, wanted, origin=0.5)


def rows_of(
    file: Mapping[str, np.ndarray],
    values: Values,
    measure: Callable[[Tensor, np.ndarray], float],
    limit: float,
) -> Iterator[Row]:
    """Compare values with the arrays of the same keys."""
    for key, value in values.items():
        yield Row(key, measure(value, file[key]), limit)


def beyond(rows: Iterable[Row]) -> set[str]:
    """Return the stages that lie beyond their limits."""
    return {row.stage for row in rows if not row.distance <= row.limit}


def drawn_picture() -> np.ndarray:
    """Return the (96, 128, 3) uint8 picture that both scripts resized."""
    return recipe_rivals.picture(SEED, 96, 128)


def encode(method: Method, tower: Backbone, pixels: Tensor) -> ImageFeatures:
    """Encode pictures as the method wants them."""
    with torch.no_grad():
        return method.encode_image(tower, pixels)
