"""Send requests to object storages through fsspec; repeat those that may succeed later.

Two traps of s3fs are kept away from: it asks for the size of a file before it reads it, which
doubles the requests, and botocore repeats each of its repetitions again.
"""

from __future__ import annotations

import inspect
import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from faprompt.errors import ConfigError, MissingExtraError
from faprompt.work import load_extra, logger

WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # before each repeated request, up to twice as long
PATIENCE_S = 120.0  # no request is repeated later than this after the first
LONGEST_REQUEST_S = 600.0  # a request that takes longer has failed
CONNECTIONS = 64  # most at one time to an S3 storage; botocore has 10
_NOTED_WAIT_S = 4.0  # waits from this on are notes for the user
_LASTING = (
    FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, FileExistsError,
    ImportError, MemoryError, NotImplementedError, ValueError, TypeError,
)  # fmt: skip
# Errors of botocore and google-auth that no repetition mends, by the names of their classes.
_LASTING_NAMES = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError",
     "DefaultCredentialsError"}
)  # fmt: skip
_PASSING_STATUS = frozenset({408, 409, 425, 429})  # of those below 500
_PASSING_CODES = frozenset(  # of S3, with status 400
    {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "SlowDown",
     "Throttling", "ThrottlingException", "RequestThrottled", "TooManyRequests"}
)  # fmt: skip
_Result = TypeVar("_Result")


def repeat(action: Callable[[], _Result], what: str) -> _Result:
    """Call an action until it succeeds, with growing pauses; lasting errors are raised at once.

    Args:
        action: a request that may be repeated.
        what: its file, for the log and the error.

    Raises:
        OSError: an error that lasts, or the last one after `WAITS_S` or `PATIENCE_S`.
    """
    end = time.monotonic() + PATIENCE_S
    waits = iter(WAITS_S)
    attempts = 0
    while True:
        attempts += 1
        try:
            return action()
        except Exception as error:  # each storage has its own kinds
            if isinstance(error, _LASTING):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            if not _may_pass(error):
                raise OSError(f"{what}: {reason}") from error
            wait = next(waits, end)
            pause = wait * (1 + random.random())  # readers must not come back together
            if time.monotonic() + pause > end:
                times = "once" if attempts == 1 else f"{attempts} times"
                raise OSError(f"{what}: failed {times} ({reason}).") from error
        level = logging.INFO if wait >= _NOTED_WAIT_S else logging.DEBUG
        logger.log(level, "%s: %s; tried again in %.0f s", what, reason, pause)
        time.sleep(pause)


def _may_pass(error: Exception) -> bool:
    """Return whether a failed request may succeed later, by the answer of the storage."""
    if not _LASTING_NAMES.isdisjoint(kind.__name__ for kind in type(error).__mro__):
        return False
    status, code = _answer(error)
    if code in _PASSING_CODES:
        return True
    return status is None or status >= 500 or status in _PASSING_STATUS


def _answer(error: BaseException) -> tuple[int | None, str]:
    """Return HTTP status and error code of a failed request, as far as its error tells them."""
    for each in (error, error.__cause__):  # s3fs translates those of botocore
        answer = getattr(each, "response", None)
        if isinstance(answer, dict):
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, str(answer.get("Error", {}).get("Code", ""))
    # Not the cause: that of a body that is cut off is an error of aiohttp with the code 400.
    for owner in (getattr(error, "response", None), error):
        for name in ("status_code", "status", "code"):
            if isinstance(status := getattr(owner, name, None), int):
                return status, ""
    return None, ""


def find_file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises:
        ConfigError: an unknown kind of storage, a web address, or a chained URL.
        MissingExtraError: fsspec, or the package of this storage, is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme.lower() in ("http", "https"):
        raise ConfigError(
            f"{url}: web addresses are not read; download the files first, or name them in their "
            "storage (s3, gs, az, hf)."
        )
    if "::" in url:
        raise ConfigError(f"{url}: chained URLs (::) are not read; unpack the archive first.")
    fsspec = load_extra("storage", "fsspec.core")
    options = _s3_options() if scheme.lower() in ("s3", "s3a") else {}
    try:
        file_system, path = fsspec.url_to_fs(
            f"{scheme.lower()}://{rest}", use_listings_cache=False, **options
        )
    except ImportError as error:
        raise MissingExtraError(
            f"{url}: reading {scheme}:// needs a package that is not installed ({error}); "
            "pip install 'faprompt[storage]' covers s3; gs needs gcsfs, az needs adlfs."
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{url}: this kind of storage is unknown ({error}); known are s3, gs, az, hf, memory "
            "and file."
        ) from error
    return file_system, str(path)


def _s3_options() -> dict[str, Any]:
    """Return options for s3fs; those of the user's fsspec settings count more.

    s3fs has timeouts (5 s to connect, 15 s without a byte), and repeats five times within two
    seconds. botocore would repeat each of these five times too: a server that does not answer
    would hold a request for minutes.
    """
    ours: dict[str, Any] = {"max_pool_connections": CONNECTIONS}
    if not {"AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"} & set(os.environ):
        ours["retries"] = {"total_max_attempts": 1}
    settings = load_extra("storage", "fsspec.config").conf
    given = {**settings.get("s3", {}), **settings.get("s3a", {})}.get("config_kwargs") or {}
    return {"config_kwargs": {**ours, **given}}


def request(file_system: Any, method: str, *arguments: Any, what: str, **options: Any) -> Any:
    """Call a method of a file system until it succeeds; see `repeat`."""
    if getattr(file_system, "async_impl", False):  # fsspec ends these after a time
        options["timeout"] = LONGEST_REQUEST_S
    action = getattr(file_system, method)
    return repeat(lambda: action(*arguments, **options), what)


def read_file(file_system: Any, path: str, what: str) -> bytes:
    """Return the content of a file, by one request until it succeeds; see `repeat`."""
    options = {"max_concurrency": 1} if _splits_reads(file_system) else {}
    content: bytes = request(file_system, "cat_file", path, what=what, **options)
    return content


def _splits_reads(file_system: Any) -> bool:
    """Return whether s3fs would ask for the size first, to read large files in parts."""
    reads = getattr(file_system, "_cat_file", None)
    if reads is None or "s3" not in file_system.protocol:
        return False
    return "max_concurrency" in inspect.signature(reads).parameters
