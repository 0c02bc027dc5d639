"""Read and score good pictures, each once, and join the scores of one part. Ours."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from faprompt.calibration import GoodScores, highest_by_part, parts_of
from faprompt.detector_parts import OpenPicture, open_picture
from faprompt.errors import ImageReadError
from faprompt.files import file_digest
from faprompt.imaging.reading_options import ReadingOptions
from faprompt.picture_detector import PictureDetector
from faprompt.records import Verdict
from faprompt.references import References
from faprompt.work import read_ahead

_log = logging.getLogger("faprompt")


@dataclass(frozen=True, slots=True)
class ScoredPicture:
    """A good picture after it was scored."""

    path: str
    digest: str  # SHA-256 of the file
    score: float
    map_maximum: float
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class UnusedPictures:
    """Pictures that were read and do not count; filled while pictures are scored."""

    unreadable: dict[str, str] = field(default_factory=dict)  # path -> reason
    copies: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class GoodPicture:
    """A good picture that can be scored."""

    path: str
    digest: str
    picture: OpenPicture


def picture_parts(paths: Sequence[str], group: str) -> list[str]:
    """Return the part that each picture shows; without a group each is a part of its own.

    Raises:
        ConfigError: the group finds no part in a path.
    """
    absolute = [os.path.abspath(path) for path in paths]
    return parts_of(absolute, group) if group else absolute


def read_good(
    detector: PictureDetector, paths: Sequence[str], options: ReadingOptions, product: str
) -> Iterator[tuple[str, GoodPicture | ImageReadError]]:
    """Read pictures ahead, with their masks; one that cannot be read comes with its error."""

    def read(path: str) -> tuple[str, GoodPicture | ImageReadError]:
        try:
            picture = open_picture(detector.setup, path, options, product=product)
            return path, GoodPicture(path, file_digest(path), picture)
        except ImageReadError as error:
            return path, error

    return read_ahead(read, paths, workers=2)


def score_good(
    detector: PictureDetector,
    paths: Sequence[str],
    options: ReadingOptions,
    product: str,
    *,
    batch_size: int,
    skip: Container[str] = (),
    unused: UnusedPictures,
    step: Callable[[], None] = lambda: None,
) -> Iterator[ScoredPicture]:
    """Score pictures batch by batch, in order; copies and unreadable ones go into `unused`.

    A picture whose digest is in `skip` is a copy too. `step` is called once for each path.
    """
    batch: list[GoodPicture] = []
    seen: set[str] = set()

    def score() -> Iterator[ScoredPicture]:
        results = detector.predict_batch(
            [good.picture.windows for good in batch],
            masks=[good.picture.mask for good in batch],
            products=[product or None] * len(batch),
        )
        for good, found in zip(batch, results, strict=True):
            peak = float(found.score_map.max())
            good.picture.close()
            yield ScoredPicture(good.path, good.digest, found.score, peak, found.verdict)
        batch.clear()

    for path, good in read_good(detector, paths, options, product):
        step()
        if isinstance(good, ImageReadError):
            unused.unreadable[path] = str(good)
            _log.warning("not used: %s", good)
        elif good.digest in seen or good.digest in skip:
            good.picture.close()
            unused.copies.append(path)
        else:
            seen.add(good.digest)
            batch.append(good)
        if len(batch) == batch_size:
            yield from score()
    yield from score()


def reference_tokens(
    detector: PictureDetector, paths: Sequence[str], options: ReadingOptions, product: str
) -> dict[str, list[dict[int, np.ndarray]]]:
    """Return the tokens of references by absolute path; ImageReadError if one is unreadable."""
    found = {}
    for path, good in read_good(detector, paths, options, product):
        if isinstance(good, ImageReadError):
            raise good
        with good.picture.files:
            shown = good.picture.windows, good.picture.mask
            found[os.path.abspath(path)] = detector.reference_tokens(*shown)
    return found


def reference_digests(references: References | None, product: str) -> set[str]:
    """Return the SHA-256 of those files of a product's references that are still there."""
    names = references.bank(product).names if references else ()
    return {file_digest(name) for name in names if os.path.isfile(name)}


def good_scores(pictures: Sequence[ScoredPicture], group: str) -> GoodScores:
    """Return the scores of good pictures; those of one part, by `group`, count once."""
    parts = picture_parts([picture.path for picture in pictures], group)
    scores = np.array([picture.score for picture in pictures])
    maxima = np.array([picture.map_maximum for picture in pictures])
    return GoodScores(highest_by_part(parts, scores), highest_by_part(parts, maxima))
