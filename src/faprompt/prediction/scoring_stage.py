"""Score batches of pictures, and write their files in threads."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Protocol

import numpy as np

from faprompt.errors import ImageReadError
from faprompt.imaging import ReadImage
from faprompt.prediction.picture_batches import ReadAttempt
from faprompt.prediction.result_pictures import Artifacts
from faprompt.prediction.result_rows import ResultRow
from faprompt.records import AnomalyResult


class ImageScorer(Protocol):
    """Interface that a run needs of a detector."""

    @property
    def name(self) -> str:
        """Name of the model, written in every row; a run is resumed under the same name only."""
        ...

    def predict_batch(
        self, images: Sequence[np.ndarray], *, threshold: float | None
    ) -> list[AnomalyResult]:
        """Return one result for each (H, W, 3) uint8 picture, in order; sizes may differ."""
        ...


class ScoringStage:
    """Score batch after batch; while one is scored, the one before it is written."""

    def __init__(
        self,
        detector: ImageScorer,
        *,
        threshold: float | None,
        artifacts: Artifacts,
        writers: Executor,
        large_batch: int,
    ) -> None:
        """Set up; a batch with `large_batch` pixels is written before the next one is read."""
        self._detector = detector
        self._threshold = threshold
        self._artifacts = artifacts
        self._writers = writers
        self._large_batch = large_batch

    def rows(self, batches: Iterable[list[ReadAttempt]]) -> Iterator[ResultRow]:
        """Yield one row for each attempt, in order, after its files are on disk."""
        writing: list[Future[ResultRow]] = []
        for batch in batches:
            started, large = self._start(batch), _pixels(batch) >= self._large_batch
            del batch  # only the writers hold the pictures from here on
            yield from (row.result() for row in writing)
            writing = started
            if large:
                yield from (row.result() for row in writing)
                writing = []
        yield from (row.result() for row in writing)

    def _start(self, batch: list[ReadAttempt]) -> list[Future[ResultRow]]:
        """Score a batch and pass every picture to the writers."""
        images = [a.image.array for a in batch if isinstance(a.image, ReadImage)]
        begin = time.perf_counter()
        results = iter(self._predict(images))
        share = (time.perf_counter() - begin) / max(1, len(images))
        return [
            self._writers.submit(
                self._finish,
                attempt,
                next(results) if isinstance(attempt.image, ReadImage) else attempt.image,
                1000 * (attempt.seconds + share),
            )
            for attempt in batch
        ]

    def _predict(self, images: list[np.ndarray]) -> list[AnomalyResult | ImageReadError]:
        """Return results in order; a picture that the detector refuses affects no other."""
        if not images:
            return []
        try:
            results = self._detector.predict_batch(images, threshold=self._threshold)
        except ImageReadError as error:
            if len(images) == 1:
                return [error]
            return [self._predict([image])[0] for image in images]
        if [r.image_size for r in results] != [image.shape[:2] for image in images]:
            raise ValueError(
                f"{self._detector.name}: predict_batch should give one result per picture, "
                f"in order and of its size; got {len(results)} for {len(images)}."
            )
        return list(results)

    def _finish(
        self, attempt: ReadAttempt, result: AnomalyResult | ImageReadError, latency_ms: float
    ) -> ResultRow:
        if isinstance(result, ImageReadError) or isinstance(attempt.image, ImageReadError):
            return self._error_row(attempt, str(result))
        if not _is_finite(result):
            reason = f"{attempt.path}: the score or the map is not finite."
            return self._error_row(attempt, reason)
        notes = self._artifacts.write(attempt.path, attempt.image.array, result)
        height, width = result.image_size
        return ResultRow(
            path=attempt.path,
            model=self._detector.name,
            score=float(result.score),
            verdict=result.verdict,
            threshold=result.threshold,
            width=width,
            height=height,
            regions=result.regions,
            map=self._artifacts.map_name(attempt.path),
            overlay=self._artifacts.overlay_name(attempt.path),
            latency_ms=round(latency_ms, 3),
            notes=attempt.image.notes + notes,
            stamp=attempt.stamp,
        )

    def _error_row(self, attempt: ReadAttempt, reason: str) -> ResultRow:
        return ResultRow(
            path=attempt.path,
            model=self._detector.name,
            status="error",
            error=reason,
            stamp=attempt.stamp,
        )


def _is_finite(result: AnomalyResult) -> bool:
    extremes = (result.score, float(result.score_map.min()), float(result.score_map.max()))
    return all(math.isfinite(value) for value in extremes)


def _pixels(batch: list[ReadAttempt]) -> int:
    images = (attempt.image for attempt in batch)
    return sum(image.array.size // 3 for image in images if isinstance(image, ReadImage))
