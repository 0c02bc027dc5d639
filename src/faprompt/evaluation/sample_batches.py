"""Read pictures and their masks, one batch ahead of the detector."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np

from faprompt.data.masks import MaskPolicy, cut_region, read_mask, read_resized_mask
from faprompt.detector_setup import DetectorSetup, check_mask
from faprompt.errors import ImageReadError
from faprompt.files import file_digest
from faprompt.imaging.image_reading import read_image, read_resized
from faprompt.imaging.transform import Transform
from faprompt.records import Sample
from faprompt.work import read_ahead

PLAIN = DetectorSetup()
_READERS = 2  # threads


@dataclass(frozen=True, slots=True)
class ReadSample:
    """A sample with its pixels; `error` is the reason when it could not be read."""

    sample: Sample
    image: np.ndarray | None  # (H, W, 3) uint8
    mask: np.ndarray | None  # (H, W) bool; None where no mask exists
    error: str = ""
    digests: tuple[str, str] = ("", "")  # see `content_digests`
    left_out: np.ndarray | None = None  # (H, W) bool, pixels that the detector's mask leaves out


def plan_batches(chunks: Sequence[Sequence[Sample]], *, size: int) -> list[Sequence[Sample]]:
    """Cut each chunk into batches, so that no batch holds pictures of two chunks.

    The size of a batch may move the last bits of a score; so a chunk is scored alike in every
    run.
    """
    return [chunk[at : at + size] for chunk in chunks for at in range(0, len(chunk), size)]


def read_batches(
    batches: Sequence[Sequence[Sample]],
    *,
    policy: MaskPolicy,
    released: Transform | None = None,
    setup: DetectorSetup = PLAIN,
) -> Iterator[list[ReadSample]]:
    """Read samples in order; the next batch is read while the caller uses one."""
    read = partial(read_sample, policy=policy, released=released, setup=setup)
    largest = max(map(len, batches), default=1)
    samples = chain.from_iterable(batches)
    ahead = read_ahead(read, samples, workers=_READERS, waiting=-(-largest // _READERS))
    for batch in batches:
        yield list(islice(ahead, len(batch)))


def read_sample(
    sample: Sample,
    *,
    policy: MaskPolicy,
    released: Transform | None = None,
    setup: DetectorSetup = PLAIN,
) -> ReadSample:
    """Read the picture and the mask of one sample, cut to its region.

    `setup` gives the bit depth, the window and what is left out. With `released` both have the
    size of that transform and are read as in the public code, see `read_resized` and
    `read_resized_mask`; `policy` and `setup` are not used.

    Raises:
        DatasetError: the mask or the region does not fit the picture.
    """
    digests, left_out = content_digests(sample), None
    try:
        if released:
            image = read_resized(sample.image_path, released, region=sample.region)
        else:
            image = read_image(sample.image_path, **setup.reading().arguments()).array
            left_out = _read_left_out(sample, setup, image)
    except ImageReadError as error:
        return ReadSample(sample, None, None, str(error), digests)
    mask = None
    if sample.has_pixel_label and (sample.mask_paths or not sample.label):
        if released:
            mask = read_resized_mask(sample, released.image_size)
        else:
            mask = read_mask(sample, image_size=image.shape[:2], policy=policy)
    image = image if released else cut_region(image, sample)
    return ReadSample(sample, image, mask, "", digests, left_out)


def _read_left_out(sample: Sample, setup: DetectorSetup, image: np.ndarray) -> np.ndarray | None:
    """Return what the setup leaves out of a sample; ImageReadError if that is all of it."""
    left_out = setup.mask_of(sample.image_path)
    if left_out is None:
        return None
    check_mask(left_out, (image.shape[0], image.shape[1]), sample.image_path)
    cut = cut_region(left_out, sample)
    if cut.all():
        raise ImageReadError(f"{sample.image_path}: the mask leaves out every pixel.")
    return cut


def content_digests(sample: Sample) -> tuple[str, str]:
    """Return the SHA-256 of a sample's picture file, and one of its mask files together.

    It is "" where no file exists or can be opened. The file of a `drawn_mask` is not hashed: its
    outlines are part of the sample.
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
