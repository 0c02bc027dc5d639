"""Write, identify and lock files: helpers that every package may import.

Ours; the locks are those of the library `filelock`, which torch brings along.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from faprompt.errors import FolderInUseError

_FORMULA_STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n")
_DIGITS = re.compile(r"([0-9]+)")
LOCK_NAME = ".faprompt.lock"  # stays in the folder; an empty file that locks nothing by itself


def write_atomically(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file so that readers see the old content or the new one, never a part.

    Args:
        path: file to write; its folder exists.
        content: whole content of the file.
        durable: also wait until the disk has it, so that a power cut keeps it.

    Raises:
        OSError: the folder does not exist or cannot be written. Nothing is left behind.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_name(path: Path) -> Path:
    """Return a hidden neighbour of `path` that no other process writes."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits; the file is read in blocks.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def natural_key(path: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Return a sort key that compares runs of digits as numbers, folder by folder, without case.

    Equal keys mean equal text: if two names differ only in case, in leading zeros or in how an
    accent is encoded, the plain text decides.

    Example:
        >>> sorted(["b/2.png", "b/10.png", "B/1.png", "a b/3.png"], key=natural_key)
        ['a b/3.png', 'B/1.png', 'b/2.png', 'b/10.png']
    """
    text = os.fspath(path)
    return tuple(_natural_part(part) for part in text.split("/")), text


def _natural_part(part: str) -> tuple[Any, ...]:
    folded = unicodedata.normalize("NFC", part).casefold()
    # split() with a group alternates text and digits, so text meets text and numbers numbers
    return tuple(int(run) if at % 2 else run for at, run in enumerate(_DIGITS.split(folded)))


def csv_text(text: str) -> str:
    """Return text for a CSV cell; what a spreadsheet would run as a formula gets a ' in front.

    Formulas begin with =, +, - or @, also in their full-width forms, or with white space that a
    spreadsheet drops (OWASP, "CSV Injection"). Use it for text such as names of files and
    classes, not for numbers.

    Example:
        >>> csv_text("=1+1.png"), csv_text("part-1.png")
        ("'=1+1.png", 'part-1.png')
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


@contextmanager
def lock_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder for one run; it is created when missing.

    The operating system releases the lock when the process ends, however it ends. Folders
    that were created here are removed again if the run ends before it writes anything.

    Raises:
        FolderInUseError: another run is writing into the folder.
    """
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


def _remove_unused(folders: list[Path]) -> None:
    """Remove a folder that holds the lock alone, and the empty folders around it."""
    with suppress(OSError):  # a folder that stays is no harm
        if folders and os.listdir(folders[0]) == [LOCK_NAME]:
            (folders[0] / LOCK_NAME).unlink()
            for folder in folders:
                folder.rmdir()
