"""Score pictures on several devices of one machine: a process for each, one queue for all."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from faprompt.errors import FapromptError
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import StoredFile

_WAITING = 64  # pictures handed out ahead, for each device
_LOOK_S = 1.0  # between two looks whether all processes live


class DeviceError(FapromptError):
    """The process of a device failed."""


def pooled_rows(
    worker_rows: Callable[[str, Iterable[StoredFile]], Iterator[ResultRow]],
    devices: Sequence[str],
    files: Sequence[StoredFile],
) -> Iterator[ResultRow]:
    """Yield one row for each picture, in order, from one process for each device.

    A device takes its next picture when it is ready for it, so that a slow one gets fewer.
    Pictures are read by the processes; only paths and rows pass between them.

    Args:
        worker_rows: picklable; called in each process with its device and an iterator of files.
        devices: names such as "cuda:0"; one may be there several times.
        files: pictures, each once.

    Raises:
        DeviceError: a process failed or was killed. All are ended.
    """
    context = multiprocessing.get_context("spawn")
    tasks: Any = context.Queue(maxsize=_WAITING * len(devices))
    results: Any = context.Queue()
    workers = [
        _start(context, worker_rows, device, tasks, results, len(devices)) for device in devices
    ]
    stop = threading.Event()
    feeder = threading.Thread(target=_feed, args=(tasks, files, len(workers), stop), daemon=True)
    feeder.start()
    early: dict[str, ResultRow] = {}  # rows that came before their turn
    try:
        for file in files:
            while file.path not in early:
                row = _next_row(results, workers, devices)
                early[row.path] = row
            yield early.pop(file.path)
        for worker in workers:
            worker.join()
    finally:
        stop.set()
        for worker in workers:
            worker.terminate()
            worker.join()
        for each in (tasks, results):
            each.cancel_join_thread()
            each.close()


def _start(context: SpawnContext, *arguments: Any) -> BaseProcess:
    process = context.Process(target=_work, args=arguments, daemon=True)
    process.start()
    return process


def _work(
    worker_rows: Callable[[str, Iterable[StoredFile]], Iterator[ResultRow]],
    device: str,
    tasks: Any,
    results: Any,
    share: int,
) -> None:
    """Score pictures until the queue says None; an exception is sent in place of a row."""
    if device == "cpu":  # several at once must not each use all cores
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // share)))
    try:
        for row in worker_rows(device, iter(tasks.get, None)):
            results.put(row)
    except KeyboardInterrupt:  # the process that started this one says so
        pass
    except BaseException as error:
        results.put(f"{type(error).__name__}: {error}")


def _feed(tasks: Any, files: Sequence[StoredFile], workers: int, stop: threading.Event) -> None:
    for item in [*files, *[None] * workers]:
        while not stop.is_set():
            try:
                tasks.put(item, timeout=_LOOK_S)
                break
            except queue.Full:
                continue
            except ValueError:  # the queue was closed
                return


def _next_row(results: Any, workers: Sequence[BaseProcess], devices: Sequence[str]) -> ResultRow:
    while True:
        for worker, device in zip(workers, devices, strict=True):
            if worker.exitcode not in (None, 0) and results.empty():
                raise DeviceError(
                    f"the process of device {device} ended with {worker.exitcode}; "
                    "what was written before is kept, run again to go on."
                )
        try:
            found = results.get(timeout=_LOOK_S)
        except queue.Empty:
            if all(worker.exitcode == 0 for worker in workers) and results.empty():
                raise DeviceError("the processes ended without a row for every picture.") from None
            continue
        if isinstance(found, ResultRow):
            return found
        raise DeviceError(f"the process of a device failed: {found}")
