"""Read pictures in batches, in threads ahead of the model, within a budget of pixels.

The size of each picture is read from its header first, so that memory is bounded whatever
the folder contains.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TypeVar

from faprompt.errors import ImageReadError
from faprompt.imaging import ReadImage, count_pixels, read_image
from faprompt.prediction.result_rows import FileStamp, stamp_file

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ReadAttempt:
    """A picture, or the error of a file that could not be read."""

    path: str
    image: ReadImage | ImageReadError
    seconds: float
    stamp: FileStamp  # of the file before it was read


def read_batches(
    paths: Iterable[str],
    *,
    pool: Executor,
    batch_size: int,
    bit_depth: int | None,
    max_pixels: int,
    pixel_budget: int,
) -> Iterator[list[ReadAttempt]]:
    """Read files in order, one batch ahead of the one handed out.

    Args:
        paths: files in order.
        pool: threads that decode.
        batch_size: most files in a batch.
        bit_depth, max_pixels: see `read_image`.
        pixel_budget: a batch holds at most a quarter of it, or one picture; the next batch
            is read ahead only while both fit.

    Yields:
        Batches of attempts, in order; an unreadable file is an attempt too.
    """

    def attempt(path: str) -> ReadAttempt:
        return _attempt(path, bit_depth, max_pixels)

    sizes = _map_ahead(pool, _size, paths, 2 * batch_size)
    waiting: list[Future[ReadAttempt]] = []
    waiting_pixels = 0
    for batch, pixels in _group(sizes, batch_size, pixel_budget // 4):
        if waiting and waiting_pixels + pixels > pixel_budget:
            yield [future.result() for future in waiting]
            waiting = []
        reading = [pool.submit(attempt, path) for path in batch]
        if waiting:
            yield [future.result() for future in waiting]
        waiting, waiting_pixels = reading, pixels
    if waiting:
        yield [future.result() for future in waiting]


def _size(path: str) -> tuple[str, int]:
    """Return a path and its number of pixels, 0 where it cannot be read."""
    return path, 0 if _fault(path) else count_pixels(path)


def _attempt(path: str, bit_depth: int | None, max_pixels: int) -> ReadAttempt:
    start = time.perf_counter()
    stamp = stamp_file(path)  # before reading: a later change must not go unnoticed
    image: ReadImage | ImageReadError
    try:
        if fault := _fault(path):
            raise ImageReadError(f"{path}: {fault}")
        image = read_image(path, bit_depth=bit_depth, max_pixels=max_pixels)
    except ImageReadError as error:
        image = error
    return ReadAttempt(path, image, time.perf_counter() - start, stamp)


def _fault(path: str) -> str:
    """Return why a path must not be opened, or "". A pipe would block the run."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "this link points to nothing; mend or remove it." if os.path.islink(path) else ""
    except (OSError, ValueError):  # opening it says why
        return ""
    if stat.S_ISDIR(mode):
        try:
            os.scandir(path).close()
        except OSError as error:
            return f"this folder cannot be listed ({error.strerror}); its pictures are not scored."
        return ""  # a folder in place of a file: the reader says so
    return "" if stat.S_ISREG(mode) else "this is a pipe, a socket or a device, not a file."


def _group(
    sizes: Iterable[tuple[str, int]], batch_size: int, batch_pixels: int
) -> Iterator[tuple[list[str], int]]:
    """Group (path, pixels) into batches bounded by count and by pixels."""
    batch: list[str] = []
    total = 0
    for path, pixels in sizes:
        if batch and (len(batch) == batch_size or total + pixels > batch_pixels):
            yield batch, total
            batch, total = [], 0
        batch.append(path)
        total += pixels
    if batch:
        yield batch, total


def _map_ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Iterator[Result]:
    """Call a function in threads, in order, at most `count` items ahead."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > count:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
