"""Pictures and masks off the disk, one batch ahead of the detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from faprompt.data.masks import MaskPolicy, cut_region, read_mask
from faprompt.errors import ImageReadError
from faprompt.imaging.read import read_image
from faprompt.records import Sample


@dataclass(frozen=True, slots=True)
class ReadSample:
    """A sample with its pixels; `error` says why there are none."""

    sample: Sample
    image: np.ndarray | None  # (H, W, 3) uint8
    mask: np.ndarray | None  # (H, W) bool; None where nobody drew one
    error: str = ""


def read_batches(
    samples: Sequence[Sample], *, size: int, policy: MaskPolicy
) -> Iterator[list[ReadSample]]:
    """Samples in order; the next batch is read while the caller works on one."""
    chunks = [samples[i : i + size] for i in range(0, len(samples), size)]
    with ThreadPoolExecutor(2) as pool:
        waiting = [[pool.submit(read_sample, s, policy=policy) for s in c] for c in chunks[:1]]
        for following in [*chunks[1:], ()] if chunks else []:
            waiting.append([pool.submit(read_sample, s, policy=policy) for s in following])
            yield [future.result() for future in waiting.pop(0)]


def read_sample(sample: Sample, *, policy: MaskPolicy) -> ReadSample:
    """One sample's picture and mask, cut to its region.

    Raises:
        DatasetError: the mask or the region does not fit the picture.
    """
    try:
        image = read_image(sample.image_path).array
    except ImageReadError as error:
        return ReadSample(sample, None, None, str(error))
    mask = None
    if sample.has_pixel_label and (sample.mask_paths or not sample.label):
        mask = read_mask(sample, image_size=image.shape[:2], policy=policy)
    return ReadSample(sample, cut_region(image, sample), mask)
