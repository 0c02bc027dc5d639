"""Pictures and masks off the disk, one batch ahead of the detector."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from faprompt.data.masks import MaskPolicy, cut_region, read_mask, read_resized_mask
from faprompt.errors import ImageReadError
from faprompt.files import file_digest
from faprompt.imaging.image_reading import read_image, read_resized
from faprompt.imaging.transform import Transform
from faprompt.records import Sample


@dataclass(frozen=True, slots=True)
class ReadSample:
    """A sample with its pixels; `error` says why there are none."""

    sample: Sample
    image: np.ndarray | None  # (H, W, 3) uint8
    mask: np.ndarray | None  # (H, W) bool; None where nobody drew one
    error: str = ""
    digests: tuple[str, str] = ("", "")  # see `content_digests`


def read_batches(
    samples: Sequence[Sample],
    *,
    size: int,
    policy: MaskPolicy,
    released: Transform | None = None,
) -> Iterator[list[ReadSample]]:
    """Read samples in order; the next batch is read while the caller works on one."""
    read = partial(read_sample, policy=policy, released=released)
    chunks = [samples[i : i + size] for i in range(0, len(samples), size)]
    with ThreadPoolExecutor(2) as pool:
        waiting = [[pool.submit(read, s) for s in c] for c in chunks[:1]]
        for following in [*chunks[1:], ()] if chunks else []:
            waiting.append([pool.submit(read, s) for s in following])
            yield [future.result() for future in waiting.pop(0)]


def read_sample(
    sample: Sample, *, policy: MaskPolicy, released: Transform | None = None
) -> ReadSample:
    """Read one sample's picture and mask, cut to its region.

    With `released` both have the size of that transform, see `read_resized` and
    `read_resized_mask`; the policy is then that of the public code.

    Raises:
        DatasetError: the mask or the region does not fit the picture.
    """
    digests = content_digests(sample)
    try:
        if released:
            image = read_resized(sample.image_path, released, region=sample.region)
        else:
            image = read_image(sample.image_path).array
    except ImageReadError as error:
        return ReadSample(sample, None, None, str(error), digests)
    mask = None
    if sample.has_pixel_label and (sample.mask_paths or not sample.label):
        if released:
            mask = read_resized_mask(sample, released.image_size)
        else:
            mask = read_mask(sample, image_size=image.shape[:2], policy=policy)
    shown = image if released else cut_region(image, sample)
    return ReadSample(sample, shown, mask, digests=digests)


def content_digests(sample: Sample) -> tuple[str, str]:
    """Return the SHA-256 of a sample's picture file, and one of its mask files together.

    Each is "" where there is no such file or it cannot be opened. Outlines that a list of
    annotations holds are part of the sample, so the list itself is not hashed.
    """
    masks = () if sample.drawn_mask is not None else sample.mask_paths
    each = [_digest_or_empty(path) for path in masks]
    joined = hashlib.sha256(" ".join(each).encode()).hexdigest() if any(each) else ""
    return _digest_or_empty(sample.image_path), joined


def _digest_or_empty(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError:
        return ""
