"""What the user named, files, folders and patterns, as one list of files in a stable order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from faprompt.errors import ImageReadError
from faprompt.imaging import IMAGE_EXTENSIONS

_IGNORED_FOLDERS = frozenset({"__macosx"})


def expand_inputs(
    inputs: Iterable[str | os.PathLike[str]], *, exclude: Iterable[str | os.PathLike[str]] = ()
) -> list[Path]:
    """Every picture that the inputs name.

    A folder gives the files below it that have a picture's extension, in any case; links
    to folders are not followed. A pattern (`*`, `?`, `[...]`, `**`) gives what it matches,
    by the same rule unless it spells an extension itself. A file is always taken: whether
    it is a picture shows when it is read.

    Args:
        inputs: in the user's order, which is kept; within a folder or a pattern the order
            is natural ("part2" before "part10").
        exclude: folders whose files are left out where a folder or a pattern reaches into
            them, such as `artifact_folders(out_dir)`; what is named itself is taken.

    Returns:
        Each file once, as the user would write it: relative stays relative.

    Raises:
        ImageReadError: an input names nothing, or a folder holds no picture.
    """
    barred = tuple(_folder_text(folder) for folder in exclude)
    found: dict[str, Path] = {}
    for item in inputs:
        named = os.fspath(item)
        paths = list(_expand(named))
        if not _folder_text(named).startswith(barred):
            paths = [path for path in paths if not os.path.abspath(path).startswith(barred)]
        if not paths:
            raise ImageReadError(_nothing_found(named))
        for path in paths:
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def natural_key(path: str | os.PathLike[str]) -> tuple[tuple[tuple[int, int | str], ...], ...]:
    """Sort key that reads runs of digits as numbers, folder by folder, whatever the case.

    Example:
        >>> sorted(["b/1", "a10.png", "a2.png"], key=natural_key)
        ['a2.png', 'a10.png', 'b/1']
    """
    return tuple(_part_key(part) for part in Path(path).parts)


def _folder_text(path: str | os.PathLike[str]) -> str:
    """Absolute, with a separator at the end, so that "out" is no beginning of "output"."""
    return os.path.join(os.path.abspath(path), "")


def _part_key(part: str) -> tuple[tuple[int, int | str], ...]:
    pieces = re.split(r"([0-9]+)", part.casefold())
    numbered = tuple((0, int(piece)) if piece.isdecimal() else (1, piece) for piece in pieces)
    return (*numbered, (2, part))  # equal but for case or leading zeros: still a fixed order


def _expand(named: str) -> Iterator[Path]:
    path = Path(named)
    if path.is_dir():
        yield from sorted(_walk(path), key=natural_key)
    elif os.path.lexists(path) or not glob.has_magic(named):
        if os.path.lexists(path):
            yield path
    else:
        spelled = bool(path.suffix) and not glob.has_magic(path.suffix)
        for match in sorted(glob.glob(named, recursive=True), key=natural_key):
            if os.path.isdir(match):
                continue
            if spelled or _is_picture_name(os.path.basename(match)):
                yield Path(match)


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name.casefold() not in _IGNORED_FOLDERS]
        yield from (Path(root, name) for name in names if _is_picture_name(name))


def _is_picture_name(name: str) -> bool:
    """Thumbs.db, .DS_Store and their kin have no picture's extension; macOS's "._" twins do."""
    return not name.startswith("._") and os.path.splitext(name)[1].casefold() in IMAGE_EXTENSIONS


def _nothing_found(named: str) -> str:
    if os.path.isdir(named):
        kinds = ", ".join(sorted(IMAGE_EXTENSIONS))
        return f"{named}: no pictures in this folder or below it (looked for {kinds})."
    if glob.has_magic(named):
        return f"{named}: the pattern matches no picture; quote it if the shell changed it."
    return f"{named}: no such file or folder; check the path."
