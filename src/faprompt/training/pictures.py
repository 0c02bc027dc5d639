"""The pictures of a training set: who they are, and their pixels, read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from torch import Tensor

from faprompt.data.masks import cut_region
from faprompt.errors import ImageReadError
from faprompt.files import file_digest
from faprompt.imaging.image_reading import PictureHandling, read_image, read_resized
from faprompt.imaging.transform import Transform
from faprompt.records import Sample

Item = TypeVar("Item")
Result = TypeVar("Result")

_WAITING_PER_READER = 2


class Pictures:
    """An ordered training set and the transform its pictures go through."""

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Transform,
        *,
        handling: PictureHandling = "upright",
        bit_depth: int | None = None,
        readers: int = 1,
    ) -> None:
        self.samples = tuple(samples)
        self.transform = transform
        self.handling: PictureHandling = handling
        self.bit_depth = bit_depth
        self.readers = readers

    def __len__(self) -> int:
        return len(self.samples)

    def pixels(self, index: int) -> Tensor:
        """(3, height, width) of one sample; of its region only, where it has one.

        Raises:
            ImageReadError: the file cannot be read.
            DatasetError: the region leaves the picture.
        """
        sample, transform = self.samples[index], self.transform
        if self.handling == "released":
            return transform.to_pixels(
                read_resized(sample.image_path, transform, region=sample.region)
            )
        image = read_image(sample.image_path, bit_depth=self.bit_depth).array
        return transform.to_pixels(cut_region(image, sample))

    def read(self, indices: Sequence[int]) -> Iterator[Tensor]:
        """The pixels of some samples in that order, read ahead by threads."""
        return read_ahead(self.pixels, indices, readers=self.readers)

    def fingerprints(self) -> tuple[str, ...]:
        """Per sample: SHA-256 of its file, size included, and its region.

        Raises:
            ImageReadError: a file is missing or cannot be opened.
        """
        return tuple(read_ahead(_fingerprint, self.samples, readers=self.readers))


def read_ahead(
    function: Callable[[Item], Result], items: Sequence[Item], *, readers: int
) -> Iterator[Result]:
    """`map` by a few threads: results in order, a bounded number of them waiting."""
    source = iter(items)
    with ThreadPoolExecutor(readers) as pool:
        waiting: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(source, readers * _WAITING_PER_READER)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def _fingerprint(sample: Sample) -> str:
    try:
        size, digest = sample.image_path.stat().st_size, file_digest(sample.image_path)
    except OSError as error:
        raise ImageReadError(f"{sample.image_path} cannot be opened: {error}.") from error
    place = "" if sample.region is None else ":" + ",".join(map(str, sample.region))
    return f"{size}:{digest}{place}"
