"""Score pictures of many requests with one model: a bounded queue and one thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate

from faprompt.detector_parts import OpenPicture, open_picture
from faprompt.errors import ImageReadError
from faprompt.imaging import count_pixels
from faprompt.imaging.reading_options import ReadingOptions
from faprompt.picture_detector import PictureDetector
from faprompt.prediction.picture_scoring import score_pictures
from faprompt.prediction.result_rows import ResultRow
from faprompt.results import AnomalyResult
from faprompt.serving.answers import PictureAnswer, answer_of
from faprompt.serving.picture_request import PictureRequest
from faprompt.serving.problems import log_fault

BATCH_PIXELS = 32_000_000  # decoded at one time, or one larger picture
_DECODERS = 2  # threads


class QueueFullError(Exception):
    """More pictures wait than the service allows."""


@dataclass(eq=False)
class _Job:
    request: PictureRequest
    answer: Future[PictureAnswer]
    accepted: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What one pass of the model was, for metrics."""

    pictures: int
    seconds: float


class ModelWorker:
    """One detector, the pictures that wait for it, and the thread that scores them.

    Pictures that wait when the thread is free are scored together. Nothing waits for a batch to
    fill, so an idle service answers at once.
    """

    def __init__(
        self,
        detector: PictureDetector,
        *,
        queue: int,
        batch_size: int,
        reading: ReadingOptions,
        longest_wait_s: float = 15.0,
        threshold: float | None = None,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        """Prepare a worker; `start` begins to score.

        Args:
            detector: scores the pictures.
            queue: most pictures that wait.
            batch_size: most pictures scored together.
            reading: how pictures are read; its `max_pixels` is checked by the header.
            longest_wait_s: expected wait, at the present speed, from which pictures are refused
                although the queue has room; well below the time limit of a request.
            threshold: score from which pictures are NG, in place of the model's own.
            on_batch: called after every pass of the model, in the worker's thread.
        """
        self._longest_wait_s = longest_wait_s
        self.detector = detector
        self.threshold, self._reading = threshold, reading
        self._queue, self._batch_size, self._on_batch = queue, batch_size, on_batch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._seconds_each = 0.1  # of a picture, lately
        self._thread = threading.Thread(target=self._run, name=f"score {detector.name}")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Score what was accepted, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def is_ready(self) -> bool:
        """Whether the thread runs and takes pictures."""
        return self._thread.is_alive() and not self._stopping

    @property
    def waiting(self) -> int:
        """Number of pictures that wait."""
        return len(self._jobs)

    @property
    def wait_s(self) -> float:
        """Expected seconds until a new picture would be scored."""
        return self._seconds_each * (1 + len(self._jobs))

    @property
    def is_full(self) -> bool:
        """Whether no picture is taken now."""
        waiting = len(self._jobs)
        return waiting >= self._queue or (waiting > 0 and self.wait_s > self._longest_wait_s)

    def submit(self, requests: Sequence[PictureRequest]) -> list[Future[PictureAnswer]]:
        """Accept all pictures of a request, or none.

        Raises:
            QueueFullError: they do not fit into the queue, or the worker stops.
        """
        jobs = [_Job(request, Future()) for request in requests]
        with self._changed:
            too_many = len(self._jobs) + len(jobs) > self._queue
            if self._stopping or self.is_full or too_many:
                raise QueueFullError
            self._jobs.extend(jobs)
            self._changed.notify()
        return [job.answer for job in jobs]

    def _run(self) -> None:
        with ThreadPoolExecutor(_DECODERS, thread_name_prefix="picture") as pool:
            while jobs := self._next():
                self._score(jobs, pool)

    def _next(self) -> list[_Job]:
        """Wait for pictures and take those that fit into a batch; [] at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stopping)
            count = min(len(self._jobs), self._batch_size)
            taken = [self._jobs.popleft() for _ in range(count)]
        pixels = accumulate(count_pixels(job.request.content) for job in taken)
        fitting = max(1, sum(total <= BATCH_PIXELS for total in pixels))
        with self._changed:
            self._jobs.extendleft(reversed(taken[fitting:]))
        return taken[:fitting]

    def _score(self, jobs: list[_Job], pool: ThreadPoolExecutor) -> None:
        """Score a batch; whatever fails, every picture gets an answer or an error."""
        begin = time.perf_counter()
        jobs = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        try:
            opened = list(pool.map(self._open, jobs))
            pictures = [each for each in opened if isinstance(each, OpenPicture)]
            results = iter(score_pictures(self.detector, pictures, self.threshold))
            for job, picture in zip(jobs, opened, strict=True):
                if isinstance(picture, OpenPicture):
                    pool.submit(self._answer, job, picture, next(results))
                else:
                    job.answer.set_result(PictureAnswer(self._error_row(job, picture)))
        except Exception as error:
            log_fault(f"a batch of {len(jobs)} pictures failed", error)
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)
        if jobs:
            seconds = time.perf_counter() - begin
            self._seconds_each += 0.2 * (seconds / len(jobs) - self._seconds_each)
            self._on_batch(BatchReport(len(jobs), seconds))

    def _open(self, job: _Job) -> OpenPicture | ImageReadError:
        request = job.request
        try:
            return open_picture(
                self.detector.setup, request.content, self._reading, product=request.product
            )
        except ImageReadError as error:
            return error

    def _answer(
        self, job: _Job, picture: OpenPicture, result: AnomalyResult | ImageReadError
    ) -> None:
        try:
            with closing(picture):
                latency_ms = 1000 * (time.perf_counter() - job.accepted)
                if isinstance(result, ImageReadError):
                    answer = PictureAnswer(self._error_row(job, result))
                else:
                    answer = answer_of(job.request, picture.windows, result, latency_ms)
            job.answer.set_result(answer)
        except Exception as error:
            log_fault("an answer could not be made", error)
            job.answer.set_exception(error)

    def _error_row(self, job: _Job, error: ImageReadError) -> ResultRow:
        """Return the row of an unreadable picture, with its name in place of its byte count."""
        name, said = job.request.name, str(error)
        given = f"{len(job.request.content)} bytes"
        said = said.replace(given, name or "the picture", 1) if said.startswith(given) else said
        return ResultRow(name, self.detector.name, status="error", error=said)
