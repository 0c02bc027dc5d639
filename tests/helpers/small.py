"""The `test-tiny` backbone, detectors on it, and pictures for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from faprompt.clip.backbone import Backbone
from faprompt.clip.weights import load_backbone
from faprompt.detector import Detector
from faprompt.methods.base import Method
from faprompt.methods.registry import build_method

SIDE = 56  # four patches of 14 a side


@cache
def backbone() -> Backbone:
    return load_backbone("test-tiny")


def method(name: str = "faprompt", *, stir: float = 0.3, **options) -> Method:
    """A method whose parameters are no longer those its seed drew; `stir=0` leaves them."""
    built = build_method(name, backbone(), {"image_size": SIDE, "sigma_px": 2.0, **options})
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += stir * torch.randn(parameter.shape, generator=generator)
    return built


def detector(name: str = "faprompt", *, threshold: float | None = None, **options) -> Detector:
    return Detector(backbone(), method(name, **options), name=f"small-{name}", threshold=threshold)


def pixels(count: int = 3, height: int = SIDE, width: int = SIDE, *, seed: int = 0) -> torch.Tensor:
    """(count, 3, height, width) of noise with some structure, so that patches differ."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return smooth + 0.3 * torch.randn(count, 3, height, width, generator=generator)


def picture(height: int = 60, width: int = 80, *, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8: noise with a bright rectangle that belongs to the seed."""
    draw = np.random.default_rng(seed)
    image = draw.integers(60, 120, (height, width, 3), dtype=np.uint8)
    row, column = draw.integers(0, height // 2), draw.integers(0, width // 2)
    image[row : row + height // 3, column : column + width // 3] = (240, 200, 30)
    return image


def picture_file(path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(**options)).save(path)
    return path
