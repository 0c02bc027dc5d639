"""Ground truth of a training set at the model's size, one bit per pixel in memory.

Read as grey, above 0 is anomalous, resized with PIL's antialiasing bilinear filter, above
one half stays anomalous: utils.py and train.py of AnomalyCLIP and FAPrompt. A defect thinner
than about one pixel of the model vanishes there, as it does in theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from faprompt.data.masks import MaskPolicy, read_mask, read_resized_mask, resize_mask
from faprompt.errors import DatasetError
from faprompt.imaging.read import PictureHandling
from faprompt.records import Sample
from faprompt.training.pictures import read_ahead
from faprompt.training.progress import Progress, ProgressCallback

_NAMED_IN_ERRORS = 3


class PackedMasks:
    """Masks of `image_size` = (height, width), packed: 34 kB each at 518x518."""

    def __init__(self, packed: np.ndarray, image_size: tuple[int, int]) -> None:
        self.packed = packed  # (count, bytes) uint8
        self.image_size = image_size

    def batch(self, indices: Sequence[int]) -> Tensor:
        """(B, height, width) float32 of 0 and 1."""
        height, width = self.image_size
        bits = np.unpackbits(self.packed[list(indices)], axis=1, count=height * width)
        return torch.from_numpy(bits.reshape(len(indices), height, width)).float()

    def fingerprint(self) -> str:
        """SHA-256 over size and bits of all masks."""
        return hashlib.sha256(f"{self.image_size}".encode() + self.packed.tobytes()).hexdigest()


def read_masks(
    samples: Sequence[Sample],
    image_size: tuple[int, int],
    *,
    handling: PictureHandling = "upright",
    policy: MaskPolicy,
    readers: int,
    progress: ProgressCallback,
) -> PackedMasks:
    """Read all masks of a training set. Normal and unmasked samples get an empty one.

    With `handling` "released" masks are read by `read_resized_mask`, which has its own policy.

    Raises:
        DatasetError: a mask is missing or unreadable; or, unless `handling` is "released", of
            another size than its picture.
    """
    packed = np.zeros((len(samples), -(-image_size[0] * image_size[1] // 8)), np.uint8)
    drawn = [i for i, sample in enumerate(samples) if sample.label and sample.has_pixel_label]

    def read(index: int) -> np.ndarray:
        if handling == "released":
            return np.packbits(read_resized_mask(samples[index], image_size))
        truth = read_mask(samples[index], policy=policy)
        return np.packbits(resize_mask(truth, image_size))

    for done, (index, bits) in enumerate(
        zip(drawn, read_ahead(read, drawn, readers=readers), strict=True), start=1
    ):
        packed[index] = bits
        progress(Progress("masks", done, len(drawn)))
    return PackedMasks(packed, image_size)


def choose_samples(samples: Sequence[Sample], unmasked: str) -> tuple[list[Sample], int]:
    """The samples to train on, and how many anomalous ones without a mask are among the given.

    Args:
        unmasked: what to do with those: "refuse", "skip", or "empty" (train as if unmarked).

    Raises:
        DatasetError: nothing is left, or there are some and they are refused.
    """
    blank = [s for s in samples if s.label and not s.has_pixel_label]
    if blank and unmasked == "refuse":
        named = ", ".join(str(sample.image_path) for sample in blank[:_NAMED_IN_ERRORS])
        raise DatasetError(
            f"{len(blank)} anomalous picture(s) have no mask to learn from: {named}"
            f"{', ...' if len(blank) > _NAMED_IN_ERRORS else ''}. Draw them, or set "
            "unmasked=skip to leave them out, or unmasked=empty to train on them all the same."
        )
    chosen = list(samples)
    if unmasked == "skip":
        chosen = [s for s in samples if s.has_pixel_label or not s.label]
    if not chosen:
        raise DatasetError("There is no picture to train on.")
    return chosen, len(blank)
