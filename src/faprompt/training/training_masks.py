"""Read the masks of a training set at the size of the model's input.

A mask is resized with Pillow's antialiasing bilinear filter, and pixels above one half are
anomalous. A defect thinner than about one pixel of the input vanishes. Source: utils.py and
train.py of zqhang/AnomalyCLIP and mala-lab/FAPrompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from faprompt.data.masks import MaskPolicy, read_mask, read_resized_mask, resize_mask
from faprompt.errors import DatasetError
from faprompt.imaging.image_reading import PictureHandling
from faprompt.records import Sample
from faprompt.work import ProgressCallback, read_ahead

_NAMED_IN_ERRORS = 3


class PackedMasks:
    """Masks of one size, one bit a pixel: 34 kB each at 518x518."""

    def __init__(self, packed: np.ndarray, image_size: tuple[int, int]) -> None:
        self.packed = packed  # (count, bytes) uint8
        self.image_size = image_size

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Return (B, height, width) float32 of 0 and 1."""
        height, width = self.image_size
        bits = np.unpackbits(self.packed[list(indices)], axis=1, count=height * width)
        return torch.from_numpy(bits.reshape(len(indices), height, width)).float()

    def fingerprint(self) -> str:
        """Return the SHA-256 of the size and the bits of all masks."""
        return hashlib.sha256(f"{self.image_size}".encode() + self.packed.tobytes()).hexdigest()

    def marked(self) -> list[float]:
        """Return the share of marked pixels of each mask, 0..1."""
        height, width = self.image_size
        return [float(np.unpackbits(row, count=height * width).mean()) for row in self.packed]


def read_masks(
    samples: Sequence[Sample],
    image_size: tuple[int, int],
    *,
    handling: PictureHandling = "upright",
    policy: MaskPolicy,
    readers: int,
    progress: ProgressCallback,
) -> PackedMasks:
    """Read the masks of all samples; normal and unmasked ones get an empty mask.

    With `handling` "released", `read_resized_mask` reads them under its own policy.

    Raises:
        DatasetError: a mask is missing or unreadable, or (unless `handling` is "released")
            its size is not that of the picture.
    """
    packed = np.zeros((len(samples), -(-image_size[0] * image_size[1] // 8)), np.uint8)
    drawn = [i for i, sample in enumerate(samples) if sample.label and sample.has_pixel_label]

    def read(index: int) -> np.ndarray:
        if handling == "released":
            return np.packbits(read_resized_mask(samples[index], image_size))
        truth = read_mask(samples[index], policy=policy)
        return np.packbits(resize_mask(truth, image_size))

    for done, (index, bits) in enumerate(
        zip(drawn, read_ahead(read, drawn, workers=readers), strict=True), start=1
    ):
        packed[index] = bits
        progress("masks", done, len(drawn))
    return PackedMasks(packed, image_size)


def choose_samples(samples: Sequence[Sample], unmasked: str) -> tuple[list[Sample], int]:
    """Return the samples to train on, and the number of anomalous ones without a mask.

    Args:
        samples: all samples of the set.
        unmasked: what to do with anomalous pictures without a mask: "refuse", "skip", or
            "empty" (train on them as if no pixel were anomalous).

    Raises:
        DatasetError: no sample is left, or there are such pictures and they are refused.
    """
    blank = [s for s in samples if s.label and not s.has_pixel_label]
    if blank and unmasked == "refuse":
        named = ", ".join(str(sample.image_path) for sample in blank[:_NAMED_IN_ERRORS])
        raise DatasetError(
            f"{len(blank)} anomalous picture(s) have no mask: {named}"
            f"{', ...' if len(blank) > _NAMED_IN_ERRORS else ''}. Add masks, or set "
            "unmasked=skip to leave these pictures out, or unmasked=empty to train on them."
        )
    chosen = list(samples)
    if unmasked == "skip":
        chosen = [s for s in samples if s.has_pixel_label or not s.label]
    if not chosen:
        raise DatasetError("There is no picture to train on.")
    return chosen, len(blank)


def learning_warnings(samples: Sequence[Sample], marked: Sequence[float]) -> tuple[str, ...]:
    """Return what cannot be learned from these pictures, one line each.

    For methods that learn from normal and anomalous pictures and from masks.

    Args:
        samples: the pictures to train on.
        marked: share of marked pixels of each, 0..1, at the model's size.
    """
    count, anomalous = len(samples), sum(sample.label for sample in samples)
    lines = []
    if count == 1:
        lines.append("There is 1 picture only: the model learns this picture, and no others.")
    elif anomalous in (0, count):
        kind, other = ("anomalous", "a normal") if anomalous else ("normal", "an anomalous")
        lines.append(
            f"All {count} pictures are {kind}: what {other} picture looks like cannot be learned, "
            "and scores will not tell the two apart. Add pictures of the other kind."
        )
    pairs = [(s, share) for s, share in zip(samples, marked, strict=True) if s.label]
    blank = [str(sample.image_path) for sample, share in pairs if not share]
    if pairs and len(blank) == len(pairs):
        lines.append(
            f"No anomalous picture ({len(pairs)}) has a marked pixel at the model's size: where "
            "anomalies are cannot be learned, and maps will be flat. Check the masks."
        )
    elif blank:
        named = ", ".join(blank[:_NAMED_IN_ERRORS])
        lines.append(
            f"{len(blank)} of {len(pairs)} anomalous pictures have no marked pixel at the model's "
            f"size and are learned as normal everywhere: {named}"
            f"{', ...' if len(blank) > _NAMED_IN_ERRORS else ''}."
        )
    if pairs and all(share == 1 for _, share in pairs):
        lines.append(
            f"The masks of all {len(pairs)} anomalous pictures mark every pixel: where anomalies "
            "are cannot be learned. Check the masks."
        )
    return tuple(lines)
