"""Expand files, folders and patterns into one list of files in a stable order."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from faprompt.errors import ImageReadError
from faprompt.files import natural_key
from faprompt.imaging import IMAGE_EXTENSIONS
from faprompt.work import LOCK_NAME

_IGNORED_FOLDERS = frozenset({"__macosx"})
_LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_NO_ENDING, _LINK = "without extension", "linked folder"
_MOST_KINDS = 8  # of files left out, named in one line

_HASHED = r"[^/]*-[0-9a-f]{16}"
_RESULTS = ("results.jsonl", "run.json")
# Files that earlier runs wrote: the end of their path, and the files beside them ("{stem}" is
# the file name without its ending).
_OWN_FILES = tuple(
    (re.compile(f"(?:{pattern})$"), beside)
    for pattern, beside in (
        (rf"/(maps|overlays|thumbs)/{_HASHED}(-overlay|-large)?\.(jpg|png|npy)",
         tuple(f"../{name}" for name in _RESULTS)),
        (rf"/shards/\d+-of-\d+/(maps|overlays|thumbs)/{_HASHED}(-overlay|-large)?\.(jpg|png|npy)",
         ("../../../run.json",)),
        (r"/(results\.(jsonl|csv|parquet)|run\.json|report\.html)", _RESULTS),
        (rf"/{_HASHED}\.(png|html|json)", ("{stem}.html", "{stem}.json")),  # explain
        (r"/gallery/[^/]+\.png", ("gallery.csv", "../metrics.json")),
        (r"/curves/[^/]+\.png", ("{stem}.csv", "../metrics.json")),
        (r"/loss\.png", ("loss.csv", LOCK_NAME)),
        (r"/figure\.png", ("figure.csv", "study.md")),
    )
)  # fmt: skip
_OWN_FOLDERS = frozenset({"maps", "overlays", "thumbs", "gallery", "curves"})


def expand_inputs(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    exclude: Iterable[str | os.PathLike[str]] = (),
    left_out: Counter[str] | None = None,
) -> list[Path]:
    """List every picture that the inputs name.

    A folder gives the files below it that have a picture's extension, in any case; links
    to folders are not followed. A pattern (`*`, `?`, `[...]`, `**`) gives what it matches,
    by the same rule unless it spells an extension itself. A file is always taken;
    reading it shows whether it is a picture. A folder that cannot be listed is taken too, and
    is an error when it is read. Pictures that an earlier run wrote (maps, overlays,
    thumbnails, explanations, galleries, curves) are skipped, unless the input names the
    folder they are in.

    Args:
        inputs: their order is kept; within a folder or a pattern the order is natural
            ("part2" before "part10").
        exclude: folders whose files are skipped, unless they are named themselves.
        left_out: gets the number of other files by kind, such as ".gif". Hidden files and
            those of operating systems are not counted.

    Returns:
        Each file once, as the user would write it: relative stays relative.

    Raises:
        ImageReadError: an input names nothing, or a folder holds no picture.
    """
    barred = tuple(_folder_text(folder) for folder in exclude)
    found: dict[str, Path] = {}
    others: Counter[str] = Counter()
    for item in inputs:
        named = os.fspath(item)
        before = others.copy()
        paths = list(_expand(named, others))
        if not _folder_text(named).startswith(barred):
            paths = [path for path in paths if not os.path.abspath(path).startswith(barred)]
        if not paths:
            raise ImageReadError(_nothing_found(named, others - before))
        for path in paths:
            found.setdefault(os.path.abspath(path), path)
    if left_out is not None:
        left_out.update(others)
    return list(found.values())


def describe_left_out(left_out: Counter[str]) -> str:
    """Describe in one line what folders hold besides pictures.

    Example:
        >>> describe_left_out(Counter({".heic": 3, "linked folder": 2}))
        '3 .heic, 2 linked folders'
    """
    told = [
        f"{count} {kind}{'s' if count > 1 and kind == _LINK else ''}"
        for kind, count in sorted(left_out.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    more = len(told) - _MOST_KINDS
    return ", ".join(told[:_MOST_KINDS]) + (f" and {more} other kinds" if more > 0 else "")


def _folder_text(path: str | os.PathLike[str]) -> str:
    """Return the absolute path with a separator at the end."""
    return os.path.join(os.path.abspath(path), "")


def _expand(named: str, others: Counter[str]) -> Iterator[Path]:
    if os.path.isdir(named):
        found = _walk(Path(named), others)
    elif _is_there(named) or not glob.has_magic(named):
        found = iter([Path(named)] if _is_there(named) else ())
    else:
        found = _match(named, others)
    return iter(sorted(found, key=natural_key))


def _is_there(named: str) -> bool:
    """Return whether a path exists; one that cannot be accessed counts as existing."""
    try:
        os.lstat(named)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return not glob.has_magic(named)
    return True


def _walk(folder: Path, others: Counter[str]) -> Iterator[Path]:
    unlisted: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=unlisted.append):
        folders[:] = [name for name in folders if name.casefold() not in _IGNORED_FOLDERS]
        hidden = any(part.startswith(".") for part in Path(root).relative_to(folder).parts)
        links = 0 if hidden else sum(os.path.islink(os.path.join(root, name)) for name in folders)
        others.update({_LINK: links} if links else ())
        yield from _pictures((Path(root, name) for name in names), folder, others, hidden=hidden)
    yield from (Path(error.filename) for error in unlisted)


def _match(named: str, others: Counter[str]) -> Iterator[Path]:
    """Yield the files that match a pattern, and folders that cannot be listed."""
    head, tail = os.path.split(named)
    ending = os.path.splitext(tail)[1]
    matches = [Path(name) for name in glob.glob(named, recursive=True) if not os.path.isdir(name)]
    if ending and not glob.has_magic(ending):
        yield from (path for path in matches if not _is_own(path, named))
    else:
        yield from _pictures(matches, Path(named), others)
    for folder in glob.glob(os.path.join(head, ""), recursive=True) if head else ():
        try:
            os.scandir(folder).close()
        except OSError:  # glob skips it silently
            yield Path(folder)


def _pictures(
    paths: Iterable[Path], named: Path, others: Counter[str], *, hidden: bool = False
) -> Iterator[Path]:
    """Yield the pictures among the files of a folder or pattern; count the other files."""
    for path in paths:
        picture = _is_picture_name(path.name)
        litter = hidden or path.name.startswith(".") or path.name.casefold() in _LITTER
        if (litter and not picture) or _is_own(path, named):
            continue
        if picture:
            yield path
        else:
            others[path.suffix.casefold() or _NO_ENDING] += 1


def _is_own(path: Path, named: str | Path) -> bool:
    """Return whether an earlier run wrote a file and its folder was not named itself."""
    text = Path(os.path.abspath(path)).as_posix()
    folder, stem = os.path.split(text)[0], path.stem.removesuffix("-overlay")
    for pattern, beside in _OWN_FILES:
        if pattern.search(text) and all(
            os.path.isfile(os.path.join(folder, name.format(stem=stem))) for name in beside
        ):
            is_named = _folder_text(named).startswith(_folder_text(folder))
            return not (is_named and os.path.basename(folder) in _OWN_FOLDERS)
    return False


def _is_picture_name(name: str) -> bool:
    """Return whether a name has the extension of a picture and is no "._" file of macOS."""
    return not name.startswith("._") and os.path.splitext(name)[1].casefold() in IMAGE_EXTENSIONS


def _nothing_found(named: str, others: Counter[str]) -> str:
    if os.path.isdir(named):
        kinds = ", ".join(sorted(IMAGE_EXTENSIONS))
        rest = f"; it holds {describe_left_out(others)}" if others else ""
        return f"{named}: no pictures in this folder or below it (looked for {kinds}){rest}."
    if glob.has_magic(named):
        return f"{named}: the pattern matches no picture; quote it if the shell changed it."
    return f"{named}: no such file or folder; check the path."
