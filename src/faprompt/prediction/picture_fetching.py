"""Fetch pictures of an object storage ahead of their decoding, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

from faprompt.errors import ConfigError, ImageReadError
from faprompt.imaging import count_pixels
from faprompt.imaging.picture_sources import fetch
from faprompt.prediction.result_rows import FileStamp, stamp_stored
from faprompt.storage import StoredFile, stamp_url
from faprompt.work import read_ahead

READERS = 16  # requests at one time
_BYTES_PER_PIXEL = 3  # of a decoded picture
_MOST_BYTES_PER_PIXEL = 16  # of any picture file: four 32-bit channels


@dataclass(frozen=True, slots=True)
class FoundPicture:
    """A picture before it is decoded."""

    path: str  # as the user named it; or a URL
    pixels: int  # by the header, 0 where it cannot be read; of a URL at least its bytes / 3
    stamp: FileStamp | None = None  # None: a local file, whose stamp is taken when it is read
    content: bytes | ImageReadError | None = None  # of a URL; None: a local file


def fetch_ahead(
    files: Iterable[StoredFile], *, readers: int, held_bytes: int, max_pixels: int
) -> Iterator[FoundPicture]:
    """Fetch pictures by their URLs, several at one time, and yield them in order.

    A picture without a stamp is asked for one first: it has the size, and is the identity of the
    content. What waits for the caller or is being fetched has at most `held_bytes`, or is one
    picture. A file larger than 16 bytes for each of `max_pixels` is refused without fetching it.
    """
    waiting: deque[tuple[int, Future[FoundPicture]]] = deque()
    held = 0

    with ThreadPoolExecutor(readers) as pool:
        try:
            for file in _stamped(files, readers):
                size = file.size or 0
                while waiting and (len(waiting) >= 2 * readers or held + size > held_bytes):
                    held -= waiting[0][0]
                    yield waiting.popleft()[1].result()
                waiting.append((size, pool.submit(_fetch, file, max_pixels)))
                held += size
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            for _, future in waiting:
                future.cancel()


def with_stamp(file: StoredFile) -> StoredFile:
    """Return a file of an object storage with its stamp; "" where the storage does not tell it."""
    try:
        return StoredFile(file.path, file.stamp or stamp_url(file.path))
    except (OSError, ConfigError):  # whoever reads it says why
        return file


def _stamped(files: Iterable[StoredFile], readers: int) -> Iterator[StoredFile]:
    """Ask for the stamps that are unknown, several at one time."""
    for known, group in groupby(files, key=lambda file: bool(file.stamp)):
        if known:
            yield from group
        else:
            yield from read_ahead(with_stamp, group, workers=readers)


def _fetch(file: StoredFile, max_pixels: int) -> FoundPicture:
    stamp, most = stamp_stored(file), _MOST_BYTES_PER_PIXEL * max_pixels
    try:
        if (file.size or 0) > most:
            raise ImageReadError(
                f"it has {file.size:,} bytes, and a picture of {max_pixels:,} pixels has at most "
                f"{most:,}; raise max_pixels if it is one."
            )
        content = fetch(file.path)
    except ImageReadError as error:
        return FoundPicture(file.path, 0, stamp, ImageReadError(f"{file.path}: {error}"))
    pixels = max(count_pixels(content), len(content) // _BYTES_PER_PIXEL)
    return FoundPicture(file.path, pixels, stamp, content)
