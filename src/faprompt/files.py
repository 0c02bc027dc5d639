"""Write, identify and sort files: helpers that every package may import."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_FORMULA_STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n")
_DIGITS = re.compile(r"([0-9]+)")
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\.|$)", re.IGNORECASE)
_WAITS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # on Windows, for a program that reads a file
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # one letter is a drive of Windows


def write_atomically(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file so that readers see the old content or the new one, never a part.

    Args:
        path: file to write; its folder exists.
        content: whole content of the file.
        durable: also wait until the disk has it and its name, so that a power cut keeps it.

    Raises:
        OSError: the folder does not exist or cannot be written. Nothing is left behind.
    """
    with new_file(path, durable=durable) as file:
        file.write(content)


@contextmanager
def new_file(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """Yield a stream to a hidden neighbour, which takes the place of `path` at the end.

    Raises:
        OSError: as for `write_atomically`. Whatever is raised, nothing is left behind.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        replace_file(temporary, path)
        if durable:
            sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_file(source: Path, target: Path) -> None:
    """Put a file in the place of another one.

    Windows refuses this while another program, such as a virus scanner, has the target open; it
    is then tried again for two seconds.

    Raises:
        OSError: the last error.
    """
    for wait in _WAITS_S if sys.platform == "win32" else ():
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(wait)
    os.replace(source, target)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder; Windows writes them by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_url(location: str | os.PathLike[str]) -> bool:
    """Return whether a location is a URL; `file://` counts as one.

    Example:
        >>> is_url("s3://bucket/part.png"), is_url("C:/part.png"), is_url("lot/part.png")
        (True, False, False)
    """
    return _URL.match(os.fspath(location)) is not None


def whole_name(location: str | os.PathLike[str]) -> str:
    """Return what identifies a file: its absolute path, links not followed, or its URL."""
    return os.fspath(location) if is_url(location) else os.path.abspath(location)


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


def csv_table(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as the text of a CSV file; None is an empty cell.

    Example:
        >>> csv_table([["name", "score"], ["a", None], ["b", 0.5]])
        'name,score\\na,\\nb,0.5\\n'
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def printable(text: object) -> str:
    """Return text on one line, with characters escaped that act on a terminal or cannot be seen.

    Control characters, line and paragraph separators, halves of surrogate pairs, and marks
    that turn the direction of writing or cannot be seen become \\n, \\x1b, \\u202e and the like.
    The two joiners that scripts and emoji need are kept.

    Example:
        >>> printable("a\\tb\\x1b[2J.png")
        'a\\\\tb\\\\x1b[2J.png'
    """
    return "".join(map(_escape, str(text)))


def _escape(character: str) -> str:
    plain = unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if plain or character in "\u200c\u200d":
        return character
    return character.encode("unicode_escape").decode("ascii")


def natural_key(path: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Return a sort key that compares digit runs as numbers, folder by folder, ignoring case.

    Equal keys mean equal text: where two names differ only in case, in leading zeros or in
    how an accent is coded, the plain text decides.

    Example:
        >>> sorted(["b/2.png", "b/10.png", "B/1.png", "a b/3.png"], key=natural_key)
        ['a b/3.png', 'B/1.png', 'b/2.png', 'b/10.png']
    """
    text = os.fspath(path)
    return tuple(_part_key(part) for part in text.replace(os.sep, "/").split("/")), text


def _part_key(part: str) -> tuple[Any, ...]:
    folded = unicodedata.normalize("NFC", part).casefold()
    # split() with a group alternates text and digits, so text is compared with text only
    return tuple(int(run) if at % 2 else run for at, run in enumerate(_DIGITS.split(folded)))


def unique_stem(path: str, *, absolute: bool = True) -> str:
    """Return a file name without ending that is the same for a path in every run.

    It is the stem, made safe, and 64 bits of the absolute path or the URL, so that files of one
    name in two folders get two names. Without `absolute` they are of the path as it is written.
    That name, and the name of a URL, is the same on every machine.
    """
    whole = path.replace(os.sep, "/")
    if absolute and not is_url(path):
        whole = Path(os.path.abspath(path)).as_posix()
    digest = hashlib.blake2s(whole.encode(errors="surrogateescape"), digest_size=8)
    stem = re.sub(r"[^\w.-]", "_", Path(path).stem)[:48]
    return _no_device(f"{stem}-{digest.hexdigest()}")


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """Return for each name a file name without ending that every system can store.

    Characters that Windows refuses become "_", as do spaces and dots at the end and names of
    its devices. Names that would be one file on a system that ignores case, or that codes accents
    in another way, get -2, -3 ... at the end.

    Example:
        >>> file_stems(["a/b", "Screw", "screw", "nul", "part: 1."])
        {'a/b': 'a_b', 'Screw': 'Screw', 'screw': 'screw-2', 'nul': '_nul', 'part: 1.': 'part_ 1_'}
    """
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]|[. ]$', "_", name) or "_"
        stem, number = plain, 1
        while (key := _same_file(_no_device(stem))) in taken:
            number += 1
            stem = f"{plain}-{number}"
        taken.add(key)
        stems[name] = _no_device(stem)
    return stems


def _no_device(name: str) -> str:
    """Return a file name that Windows does not take for one of its devices, such as AUX."""
    return f"_{name}" if _DEVICES.match(name) else name


def _same_file(name: str) -> str:
    """Return a text that is equal for names that some file systems take for one file."""
    return unicodedata.normalize("NFC", name).casefold()
