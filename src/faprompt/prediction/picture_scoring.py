"""Score many pictures: read them in batches ahead of the model, and write files behind it.

The size of each picture is read from its header first, so that memory is bounded whatever the
folder contains. A picture of an object storage is fetched whole, many at one time.
"""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

import numpy as np

from faprompt.detector_parts import OpenPicture, open_picture
from faprompt.detector_setup import DetectorSetup
from faprompt.errors import ImageReadError
from faprompt.files import is_url
from faprompt.imaging import count_pixels
from faprompt.imaging.picture_windows import PictureWindows
from faprompt.imaging.reading_options import ReadingOptions
from faprompt.prediction.picture_fetching import READERS, FoundPicture, fetch_ahead
from faprompt.prediction.result_pictures import Artifacts
from faprompt.prediction.result_rows import FileStamp, ResultRow, stamp_file
from faprompt.results import AnomalyResult
from faprompt.storage import StoredFile
from faprompt.work import read_ahead

_HEADER_READERS = 2  # threads


class ImageScorer(Protocol):
    """Interface that a run needs of a detector."""

    @property
    def name(self) -> str:
        """Name of the model, written in every row; a run is resumed under the same name only."""
        ...

    @property
    def setup(self) -> DetectorSetup:
        """Tiles, mask, references and calibration."""
        ...

    def predict_batch(
        self,
        images: Sequence[PictureWindows],
        *,
        threshold: float | None,
        masks: Sequence[np.ndarray | None],
        products: Sequence[str | None],
    ) -> list[AnomalyResult]:
        """Return one result for each picture, in order; sizes may differ."""
        ...


@dataclass(frozen=True, slots=True)
class ReadAttempt:
    """A picture, or the error of a file that could not be read."""

    path: str
    picture: OpenPicture | ImageReadError
    seconds: float
    stamp: FileStamp  # of the file before it was read


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureScoring:
    """Read, score and write pictures in batches."""

    detector: ImageScorer
    artifacts: Artifacts
    threshold: float | None
    batch_size: int  # most files in a batch
    reading: ReadingOptions
    product: str | None
    pixel_budget: int  # pixels in memory at one time; a batch has a quarter, or one picture
    concurrent_reads: int = READERS  # pictures fetched from an object storage at one time

    def rows(self, paths: Iterable[str | StoredFile]) -> Iterator[ResultRow]:
        """Yield one row for each file, in order, after its pictures are on disk.

        While a batch is scored, the next one is read and the one before it is written. A batch
        of a quarter of the pixel budget is written before the next one is read. The content of
        URLs that is fetched ahead takes as many bytes as the budget has pixels, or one picture.
        """
        with _threads() as readers, _threads() as writers:
            writing: list[Future[ResultRow]] = []
            for batch in self.read_batches(paths, readers):
                started = self._score(batch, writers)
                large = _pixels(batch) >= self.pixel_budget // 4
                del batch  # only the writers hold the pictures from here on
                yield from (row.result() for row in writing)
                writing = started
                if large:
                    yield from (row.result() for row in writing)
                    writing = []
            yield from (row.result() for row in writing)

    def read_batches(
        self, paths: Iterable[str | StoredFile], pool: Executor
    ) -> Iterator[list[ReadAttempt]]:
        """Yield batches in order; the next one is read ahead while both fit into the budget.

        Args:
            paths: files and URLs in order; an unreadable one is an attempt too.
            pool: threads that decode.
        """
        waiting: list[Future[ReadAttempt]] = []
        waiting_pixels = 0
        for batch, pixels in _group(self._found(paths), self.batch_size, self.pixel_budget // 4):
            if waiting and waiting_pixels + pixels > self.pixel_budget:
                yield [future.result() for future in waiting]
                waiting = []
            reading = [pool.submit(self._attempt, picture) for picture in batch]
            del batch  # the contents of URLs end with their attempts
            if waiting:
                yield [future.result() for future in waiting]
            waiting, waiting_pixels = reading, pixels
        if waiting:
            yield [future.result() for future in waiting]

    def _found(self, paths: Iterable[str | StoredFile]) -> Iterator[FoundPicture]:
        """Look at pictures ahead, in order: headers of local files, contents of URLs."""
        files = (StoredFile(each, "") if isinstance(each, str) else each for each in paths)
        for stored, group in groupby(files, key=lambda file: is_url(file.path)):
            if stored:
                yield from fetch_ahead(
                    group,
                    readers=self.concurrent_reads,
                    held_bytes=self.pixel_budget,
                    max_pixels=self.reading.max_pixels,
                )
            else:
                yield from read_ahead(
                    _look, group, workers=_HEADER_READERS, waiting=self.batch_size
                )

    def _attempt(self, found: FoundPicture) -> ReadAttempt:
        start, path = time.perf_counter(), found.path
        stamp = found.stamp or stamp_file(path)  # before reading: to notice a later change
        picture: OpenPicture | ImageReadError
        try:
            if isinstance(found.content, ImageReadError):
                raise found.content
            if fault := "" if found.stamp else _fault(path):
                raise ImageReadError(f"{path}: {fault}")
            picture = open_picture(
                self.detector.setup, path, self.reading, product=self.product, content=found.content
            )
        except ImageReadError as error:
            picture = error
        return ReadAttempt(path, picture, time.perf_counter() - start, stamp)

    def _score(self, batch: list[ReadAttempt], writers: Executor) -> list[Future[ResultRow]]:
        """Score a batch and pass every picture to the writers."""
        pictures = [a.picture for a in batch if isinstance(a.picture, OpenPicture)]
        begin = time.perf_counter()
        results = iter(score_pictures(self.detector, pictures, self.threshold))
        share = (time.perf_counter() - begin) / max(1, len(pictures))
        return [
            writers.submit(
                self._write,
                attempt,
                next(results) if isinstance(attempt.picture, OpenPicture) else attempt.picture,
                1000 * (attempt.seconds + share),
            )
            for attempt in batch
        ]

    def _write(
        self, attempt: ReadAttempt, result: AnomalyResult | ImageReadError, latency_ms: float
    ) -> ResultRow:
        path, model, stamp = attempt.path, self.detector.name, attempt.stamp
        if isinstance(attempt.picture, ImageReadError):
            return ResultRow(path, model, status="error", error=str(attempt.picture), stamp=stamp)
        with closing(attempt.picture):
            return self._write_picture(attempt, attempt.picture.windows, result, latency_ms)

    def _write_picture(
        self,
        attempt: ReadAttempt,
        windows: PictureWindows,
        result: AnomalyResult | ImageReadError,
        latency_ms: float,
    ) -> ResultRow:
        path, model, stamp = attempt.path, self.detector.name, attempt.stamp
        if isinstance(result, ImageReadError):
            return ResultRow(path, model, status="error", error=str(result), stamp=stamp)
        if not is_finite(result):
            reason = f"{path}: the score or the map is not finite."
            return ResultRow(path, model, status="error", error=reason, stamp=stamp)
        notes = self.artifacts.write(path, windows, result)
        row = result_row(path, model, result, notes=windows.notes + notes, latency_ms=latency_ms)
        files = self.artifacts
        return replace(row, map=files.map_name(path), overlay=files.overlay_name(path), stamp=stamp)


def score_pictures(
    detector: ImageScorer, pictures: list[OpenPicture], threshold: float | None
) -> list[AnomalyResult | ImageReadError]:
    """Score a batch in order; a picture that the detector refuses affects no other."""
    if not pictures:
        return []
    try:
        results = detector.predict_batch(
            [picture.windows for picture in pictures],
            threshold=threshold,
            masks=[picture.mask for picture in pictures],
            products=[picture.product for picture in pictures],
        )
    except ImageReadError as error:
        if len(pictures) == 1:
            return [error]
        return [score_pictures(detector, [picture], threshold)[0] for picture in pictures]
    if [r.image_size for r in results] != [each.windows.image_size for each in pictures]:
        raise ValueError(
            f"{detector.name}: predict_batch should give one result per picture, "
            f"in order and of its size; got {len(results)} for {len(pictures)}."
        )
    return list(results)


def result_row(
    path: str, model: str, result: AnomalyResult, *, notes: tuple[str, ...], latency_ms: float
) -> ResultRow:
    """Return the row of a scored picture, without files beside it."""
    height, width = result.image_size
    return ResultRow(
        path,
        model,
        score=float(result.score),
        p_value=result.p_value,
        verdict=result.verdict,
        threshold=result.threshold,
        review_threshold=result.review_threshold,
        product=result.product,
        width=width,
        height=height,
        regions=result.regions,
        latency_ms=round(latency_ms, 3),
        notes=notes,
    )


def is_finite(result: AnomalyResult) -> bool:
    """Return whether the score and the map hold neither NaN nor infinity."""
    extremes = (result.score, float(result.score_map.min()), float(result.score_map.max()))
    return all(math.isfinite(value) for value in extremes)


@contextmanager
def _threads() -> Iterator[Executor]:
    """Yield a pool of threads; work that has not started is cancelled at the end."""
    pool = ThreadPoolExecutor(max_workers=max(2, min(8, os.cpu_count() or 2)))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _look(file: StoredFile) -> FoundPicture:
    """Return a local picture and its number of pixels, 0 where it cannot be read."""
    return FoundPicture(file.path, 0 if _fault(file.path) else count_pixels(file.path))


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
    pictures: Iterable[FoundPicture], batch_size: int, batch_pixels: int
) -> Iterator[tuple[list[FoundPicture], int]]:
    """Group pictures into batches bounded by count and by pixels; returns these too."""
    batch: list[FoundPicture] = []
    total = 0
    for picture in pictures:
        if batch and (len(batch) == batch_size or total + picture.pixels > batch_pixels):
            yield batch, total
            batch, total = [], 0
        batch.append(picture)
        total += picture.pixels
    if batch:
        yield batch, total


def _pixels(batch: list[ReadAttempt]) -> int:
    sizes = (a.picture.windows.image_size for a in batch if isinstance(a.picture, OpenPicture))
    return sum(height * width for height, width in sizes)
