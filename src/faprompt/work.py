"""Run long work: folder locks, device, precision, the log, progress, and reading ahead.

Notes for the person who started a run go to `logger` as INFO, warnings as WARNING. The command
line prints both on stderr; a Python program sees what its own logging setup shows.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from faprompt.errors import ConfigError, FolderInUseError, MissingExtraError

Item = TypeVar("Item")
Result = TypeVar("Result")

ProgressCallback = Callable[[str, int, int], None]  # (stage, units done, units in all)

logger = logging.getLogger("faprompt")

LOCK_NAME = ".faprompt.lock"  # an empty file that locks nothing by itself; it stays, but on Windows


def no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress: the default of every `progress` parameter."""


def load_extra(extra: str, module: str) -> Any:
    """Import a module that only an optional extra installs, when it is first used.

    Args:
        extra: name of the extra, such as "figures".
        module: full name of the module, such as "matplotlib.figure".

    Raises:
        MissingExtraError: the module cannot be imported; the message names the command.
    """
    # without it onnxruntime sends usage events to its maker
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{package} is needed here and cannot be imported ({error}); "
            f"install it with: pip install 'faprompt[{extra}]'."
        ) from error


def can_draw(what: str) -> bool:
    """Return whether matplotlib is installed; where it is not, log that `what` is not drawn."""
    if importlib.util.find_spec("matplotlib"):
        return True
    logger.info("%s not drawn: pip install 'faprompt[figures]' for matplotlib.", what)
    return False


def pick_device(device: str) -> str:
    """Return the device itself, or for "auto" the fastest one of this machine.

    Raises:
        ConfigError: torch cannot use the device here.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used here: {error}") from error
    return device


def pick_precision(precision: str, device: str) -> str:
    """Return the precision itself, or for "auto" bf16 on a CUDA device and fp32 elsewhere."""
    if precision != "auto":
        return precision
    return "bf16" if device.startswith("cuda") else "fp32"


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, waiting: int = 2
) -> Iterator[Result]:
    """Call a function on every item in threads and return the results in order.

    Args:
        function: called once for each item; its exception is raised in place of the result.
        items: read only as far as threads are free.
        workers: number of threads.
        waiting: most results in memory that the caller has not taken yet, for each thread.
    """
    source = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        futures: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(source, workers * waiting)
        )
        try:
            while futures:
                result = futures.popleft().result()
                futures.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            for future in futures:
                future.cancel()


@contextmanager
def hold_folders(*folders: Path) -> Iterator[None]:
    """Lock the folders that a run writes into, each once.

    Raises:
        FolderInUseError: another run is writing into one of them.
    """
    with ExitStack() as held:
        for folder in dict.fromkeys(folder.resolve() for folder in folders):
            held.enter_context(lock_folder(folder))
        yield


@contextmanager
def lock_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder for one run; it is created when missing.

    The operating system releases the lock when the process ends, however it ends. Folders
    that were created here are removed again if the run ends before it writes anything.

    Raises:
        FolderInUseError: another run is writing into the folder.
    """
    from filelock import FileLock, Timeout

    place = Path(folder)
    created = [path for path in (place, *place.parents) if not path.exists()]
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderInUseError(
            f"{place} is being written by another run; "
            "wait until it ends, or choose another folder."
        ) from error
    try:
        yield
    finally:
        _remove_unused(created)
        lock.release()
        if sys.platform == "win32":  # it removes no open file; `release` has removed this one
            _remove_empty(created)


def _remove_unused(folders: list[Path]) -> None:
    """Remove a folder that holds the lock alone, and the empty folders around it."""
    with suppress(OSError):  # a folder that stays is no harm
        if folders and os.listdir(folders[0]) == [LOCK_NAME]:
            (folders[0] / LOCK_NAME).unlink()
            _remove_empty(folders)


def _remove_empty(folders: list[Path]) -> None:
    """Remove a folder and those around it, up to the first that holds something."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
