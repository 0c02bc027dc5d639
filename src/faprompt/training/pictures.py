"""The pictures of a training set: their pixels, read ahead by threads, and fingerprints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from faprompt.data.masks import cut_region
from faprompt.errors import ImageReadError
from faprompt.files import file_digest
from faprompt.imaging.image_reading import PictureHandling, read_image, read_resized
from faprompt.imaging.transform import Transform
from faprompt.records import Sample
from faprompt.work import read_ahead


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
        """Return the pixels (3, height, width) of one sample; of its region only, where it has one.

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
        """Yield the pixels of some samples in that order, read ahead by threads."""
        return read_ahead(self.pixels, indices, workers=self.readers)

    def fingerprints(self) -> tuple[str, ...]:
        """Return, for each sample, its file's size and SHA-256 and its region.

        Raises:
            ImageReadError: a file is missing or cannot be opened.
        """
        return tuple(read_ahead(_fingerprint, self.samples, workers=self.readers))


def _fingerprint(sample: Sample) -> str:
    try:
        size, digest = sample.image_path.stat().st_size, file_digest(sample.image_path)
    except OSError as error:
        raise ImageReadError(f"{sample.image_path} cannot be opened: {error}.") from error
    place = "" if sample.region is None else ":" + ",".join(map(str, sample.region))
    return f"{size}:{digest}{place}"
