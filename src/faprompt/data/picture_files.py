"""What lies in a folder: pictures and subfolders, in an order that never depends on the disk."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from faprompt.errors import DatasetError

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

# Compared without case; "NORMAL", "Good" and "OK" are met in the wild.
NORMAL_NAMES = frozenset({"good", "ok", "normal", "no", "non_glaucoma"})

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_DIGITS = re.compile(r"([0-9]+)")


def natural_key(path: str) -> tuple[Any, ...]:
    """Sort key that compares digit runs as numbers, folder by folder, ignoring case.

    Equal keys mean equal text: where two names differ only in case, in leading zeros or in
    how an accent is coded, the plain text decides.

    Example:
        >>> sorted(["b/2.png", "b/10.png", "B/1.png", "a b/3.png"], key=natural_key)
        ['a b/3.png', 'B/1.png', 'b/2.png', 'b/10.png']
    """
    return tuple(_part_key(part) for part in path.split("/")), path


def _part_key(part: str) -> tuple[Any, ...]:
    folded = unicodedata.normalize("NFC", part).casefold()
    # split() with a group alternates text and digits, so like always meets like
    return tuple(int(run) if at % 2 else run for at, run in enumerate(_DIGITS.split(folded)))


def stem_key(path: Path) -> str:
    """The stem as two files have to share it; accents compare equal however they are coded."""
    return unicodedata.normalize("NFC", path.stem)


def is_litter(name: str) -> bool:
    """True for what systems and tools leave behind: hidden files, `Thumbs.db`, `__MACOSX`."""
    return name.startswith(".") or name.casefold() in _LITTER


def is_image_name(name: str) -> bool:
    """True when the extension is on the allow-list; the content is not looked at.

    Example:
        >>> is_image_name("A.JPG"), is_image_name("Thumbs.db"), is_image_name("._A.jpg")
        (True, False, False)
    """
    return not is_litter(name) and os.path.splitext(name)[1].casefold() in IMAGE_EXTENSIONS


def is_normal_name(name: str) -> bool:
    """True for the folder names that hold normal pictures: good, ok, normal, no, …"""
    return name.casefold() in NORMAL_NAMES


def list_images(folder: Path) -> list[Path]:
    """Pictures lying directly in `folder`, in natural order; empty when there is no such folder."""
    return [path for path in _entries(folder) if is_image_name(path.name) and path.is_file()]


def list_files(folder: Path, *extensions: str) -> list[Path]:
    """Files directly in `folder` with one of these extensions, in natural order."""
    return [
        path
        for path in _entries(folder)
        if path.suffix.casefold() in extensions and not is_litter(path.name) and path.is_file()
    ]


def list_folders(folder: Path) -> list[Path]:
    """Subfolders of `folder` in natural order, litter left out."""
    return [path for path in _entries(folder) if not is_litter(path.name) and is_folder(path)]


def is_folder(path: Path) -> bool:
    """True for a folder; False for anything else, and for what may not be looked at."""
    return os.path.isdir(path)


def holds_images(folder: Path) -> bool:
    """True when at least one picture lies directly in `folder`."""
    return any(is_image_name(name) and (folder / name).is_file() for name in _scan(folder))


def find_folder(root: Path, *names: str) -> Path | None:
    """The subfolder of `root` with one of these names, compared without case.

    Raises:
        DatasetError: several subfolders fit, such as `no` and `No`.
    """
    wanted = {name.casefold() for name in names}
    found = [path for path in list_folders(root) if path.name.casefold() in wanted]
    if len(found) > 1:
        raise DatasetError(
            f"{root} holds {examples(path.name for path in found)}; only one of them is wanted. "
            "Keep one and move the others elsewhere."
        )
    return found[0] if found else None


def folders_beside(root: Path, read: Collection[Path]) -> list[Path]:
    """Folders below `root` that are not read and lead to nothing that is, topmost level only."""
    left_out: list[Path] = []
    for folder in list_folders(root):
        if folder in read:
            continue
        if any(path.is_relative_to(folder) for path in read):
            left_out += folders_beside(folder, read)
        else:
            left_out.append(folder)
    return left_out


def unnested(folder: Path) -> Path:
    """`folder`, or the folder of its own name inside it: some archives bring `Class1/Class1/`."""
    inside = None if holds_images(folder) else find_folder(folder, folder.name)
    return folder if inside is None else inside


def folder_name(path: Path) -> str:
    """The folder's own name, also where the path is `.` or ends in `..`; links keep theirs."""
    return os.path.basename(os.path.abspath(path))


def relative_name(path: Path, root: Path) -> str:
    """`path` as text with forward slashes, relative to `root` when it lies below it."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def examples(names: Iterable[str], *, limit: int = 5) -> str:
    """A list for a message, cut after a few names.

    Example:
        >>> examples(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    every = list(names)
    rest = len(every) - limit
    shown = ", ".join(every[:limit])
    return f"{shown} and {rest} more" if rest > 0 else shown


def read_json(file: Path) -> Any:
    """The content of a JSON file, with or without a byte order mark.

    Raises:
        DatasetError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is no readable JSON: {error}.") from error


def _entries(folder: Path) -> list[Path]:
    return [folder / name for name in sorted(_scan(folder), key=natural_key)]


def _scan(folder: Path) -> list[str]:
    try:
        return os.listdir(folder) if is_folder(folder) else []
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}.") from error
