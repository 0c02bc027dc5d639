"""Resize and normalise pictures for a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from faprompt.config import from_mapping
from faprompt.errors import ConfigError
from faprompt.records import CLIP_MEAN, CLIP_STD

MAX_ASPECT = 16  # longer over shorter edge, where a picture keeps its aspect ratio
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True)
class Transform:
    """Preparation of a model's input; it belongs to the model and is saved with it.

    The picture is resized straight to `image_size` (the aspect ratio is not kept, the
    filter antialiases), divided by 255 and normalised. The defaults equal torchvision's
    Resize, CenterCrop, ToTensor and Normalize on a Pillow picture.

    Source:
        AnomalyCLIP (Zhou et al., ICLR 2024), public code, image_transform; the mean and
        standard deviation are CLIP's (Radford et al., 2021).
    """

    image_size: tuple[int, int]  # (height, width) of the model's input, in pixels
    mean: tuple[float, float, float] = CLIP_MEAN  # red, green, blue in 0..1
    std: tuple[float, float, float] = CLIP_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        for name in ("image_size", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        faults = []
        size = self.image_size
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            faults.append(f"image_size should be two whole numbers above 0, got {size}")
        if len(self.mean) != 3 or len(self.std) != 3:
            faults.append("mean and std should have three values, red, green and blue")
        elif not all(value > 0 for value in self.std):
            faults.append(f"std should be above 0, got {self.std}")
        if self.interpolation not in FILTERS:
            choices = ", ".join(FILTERS)
            faults.append(f"interpolation should be one of {choices}, got {self.interpolation!r}")
        if faults:
            raise ConfigError("transform: " + "; ".join(faults) + ".")

    def to_pixels(self, image: np.ndarray) -> np.ndarray:
        """Prepare a picture (H, W, 3) uint8 RGB: (3, height, width) float32, normalised.

        Raises:
            ValueError: the array is not (H, W, 3) uint8.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"image should be (H, W, 3) uint8, got {image.shape} {image.dtype}; "
                "read_image gives that from any picture."
            )
        height, width = self.image_size
        picture = Image.fromarray(image)
        resized = picture.resize((width, height), FILTERS[self.interpolation])
        mean, std = (np.array(values, np.float32)[:, None] for values in (self.mean, self.std))
        levels = (np.arange(256, dtype=np.float32) / 255 - mean) / std  # (3, 256)
        bands = np.moveaxis(np.asarray(resized), 2, 0)
        return np.stack([own[band] for own, band in zip(levels, bands, strict=True)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reads them back."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Transform:
        """Build from the values of `to_dict`; a fault is a `ConfigError`."""
        return from_mapping(cls, values, what="transform")


def shorter_edge_size(image_size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the size of a picture whose shorter edge becomes `side`, in pixels.

    The longer edge is rounded down, as torchvision's `Resize(side)` does. It is at most
    `MAX_ASPECT` times `side`, so that a very long picture does not fill the memory.

    Example:
        >>> shorter_edge_size((1070, 1404), 240), shorter_edge_size((30, 10), 56)
        ((240, 314), (168, 56))
    """
    height, width = image_size
    longer = min(side * max(image_size) // min(image_size), MAX_ASPECT * side)
    return (side, longer) if height <= width else (longer, side)
