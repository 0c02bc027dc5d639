"""Expand files, folders, patterns, URLs and lists into single pictures in a stable order."""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from faprompt.errors import ConfigError, ImageReadError
from faprompt.files import is_url, natural_key, whole_name
from faprompt.imaging import IMAGE_EXTENSIONS
from faprompt.prediction.input_lists import NO_PATH, list_of, read_list
from faprompt.storage import StoredFile, list_url, local_path, open_folder
from faprompt.work import LOCK_NAME

_IGNORED_FOLDERS = frozenset({"__macosx"})
_LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_NO_ENDING, _LINK = "without extension", "linked folder"
_PLURALS = {_LINK: "linked folders", NO_PATH: "list rows without a path"}
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
        (r"/loss\.png", ("loss.csv", "checkpoint.safetensors")),  # Windows keeps no lock file
        (r"/figure\.png", ("figure.csv", "study.md")),
    )
)  # fmt: skip
_OWN_FOLDERS = frozenset({"maps", "overlays", "thumbs", "gallery", "curves"})


def list_inputs(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    column: str | None = None,
    exclude: Iterable[str | os.PathLike[str]] = (),
    left_out: Counter[str] | None = None,
) -> Iterator[StoredFile]:
    """Yield every picture that the inputs name, each once, while folders and lists are read.

    A folder gives the files below it that have a picture's extension, in any case; links
    to folders are not followed. A pattern (`*`, `?`, `[...]`, `**`) gives what it matches,
    by the same rule unless it spells an extension itself. A file is always taken;
    reading it shows whether it is a picture. A folder that cannot be listed is taken too, and
    is an error when it is read. Pictures that an earlier run wrote (maps, overlays,
    thumbnails, explanations, galleries, curves) are skipped, unless the input names the
    folder they are in.

    A URL of an object storage is a file, a folder or a pattern too; a folder of it that cannot
    be listed is an error. `file://` URLs become local paths. A list is `@parts.txt` with one path
    or URL a line, or a column of `@parts.csv` or `@parts.parquet`, and may be a URL itself. What
    a list names is a file and is taken as it is. A relative path in it begins at the working
    directory.

    Args:
        inputs: their order is kept; within a folder or a pattern the order is natural
            ("part2" before "part10").
        column: of the lists that are tables; None: `path`.
        exclude: folders whose files are skipped, unless they are named themselves.
        left_out: gets the number of other files by kind, such as ".gif". Hidden files and
            those of operating systems are not counted.

    Yields:
        The path as the user would write it, relative ones stay relative. The stamp is "" except
        where a storage told it in its listing. Memory holds one local folder or pattern, or one
        folder of a storage; where several inputs or a list could name a picture twice, also 16
        bytes and their object for each picture, about 0.1 KB.

    Raises:
        ImageReadError: an input names nothing, a folder holds no picture, or a storage cannot be
            listed; when the input is reached.
        ConfigError: an unknown kind of storage, a web address, a list of another kind, no such
            column, or a column without a list.
        MissingExtraError: a URL without the extra `storage`, or a Parquet list without pyarrow.
    """
    named = [os.fspath(each) for each in inputs]
    if column is not None and all(list_of(each) is None for each in named):
        raise ConfigError(
            f"--column {column}: it names a column of a list such as @parts.csv, and no input is "
            "a list."
        )
    barred = tuple(_folder_text(folder) for folder in exclude)
    others: Counter[str] = Counter() if left_out is None else left_out
    unique = len(named) == 1 and list_of(named[0]) is None
    seen: set[bytes] = set()
    for name in named:
        for file in _input_files(name, column, barred, others):
            if not unique:
                digest = hashlib.blake2b(
                    whole_name(file.path).encode(errors="surrogateescape"), digest_size=16
                ).digest()
                if digest in seen:
                    continue
                seen.add(digest)
            yield file


def _input_files(
    named: str, column: str | None, barred: tuple[str, ...], others: Counter[str]
) -> Iterator[StoredFile]:
    """Yield what one input names, and refuse one that names nothing."""
    place = list_of(named)
    named = local_path(named)
    before, none = others.copy(), True
    files: Iterator[StoredFile]
    if place is not None:
        files = (StoredFile(plain_path(each), "") for each in read_list(place, column, others))
    elif is_url(named):
        files = _stored_pictures(named, others)
    else:
        files = (StoredFile(os.fspath(path), "") for path in _expand(named, others))
    if place is None and not _folder_text(named).startswith(barred):
        files = (file for file in files if not whole_name(file.path).startswith(barred))
    for file in files:
        none = False
        yield file
    if none:
        raise ImageReadError(_nothing_found(named, others - before))


def plain_path(text: str) -> str:
    """Return the path of a `file://` URL; a bad one stays, and is an error when it is read."""
    with suppress(ConfigError):
        return local_path(text)
    return text


def expand_inputs(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    exclude: Iterable[str | os.PathLike[str]] = (),
    left_out: Counter[str] | None = None,
) -> list[Path]:
    """List every local picture that the inputs name: files, folders, patterns, and lists of them.

    Args:
        inputs, exclude, left_out: as for `list_inputs`, whose rules apply.

    Returns:
        Each file once, as the user would write it: relative stays relative.

    Raises:
        ConfigError: an input is a URL of an object storage, or a list names one.
        ImageReadError: an input names nothing, or a folder holds no picture.
    """
    named = [os.fspath(each) for each in inputs]
    for each in named:
        _refuse_url(local_path(each))
    paths: list[Path] = []
    for file in list_inputs(named, exclude=exclude, left_out=left_out):
        _refuse_url(file.path)
        paths.append(Path(file.path))
    return paths


def _refuse_url(named: str) -> None:
    if is_url(named):
        raise ConfigError(
            f"{named}: local files are read here, and no URLs; `faprompt predict` and "
            "`list_inputs` take URLs. Download the pictures first."
        )


def describe_left_out(left_out: Counter[str]) -> str:
    """Describe in one line what folders hold besides pictures.

    Example:
        >>> describe_left_out(Counter({".heic": 3, "linked folder": 2}))
        '3 .heic, 2 linked folders'
    """
    told = [
        f"{count} {_PLURALS.get(kind, kind) if count > 1 else kind}"
        for kind, count in sorted(left_out.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    more = len(told) - _MOST_KINDS
    return ", ".join(told[:_MOST_KINDS]) + (f" and {more} other kinds" if more > 0 else "")


def _folder_text(path: str | os.PathLike[str]) -> str:
    """Return the absolute path, or the URL, with a separator at the end."""
    whole = whole_name(path)
    return whole.rstrip("/") + "/" if is_url(whole) else os.path.join(whole, "")


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
        for path in (Path(root, name) for name in names):
            if _is_picture(path, folder, others, hidden=hidden):
                yield path
    yield from (Path(error.filename) for error in unlisted)


def _match(named: str, others: Counter[str]) -> Iterator[Path]:
    """Yield the files that match a pattern, and folders that cannot be listed."""
    head, tail = os.path.split(named)
    ending = os.path.splitext(tail)[1]
    matches = [Path(name) for name in glob.glob(named, recursive=True) if not os.path.isdir(name)]
    if ending and not glob.has_magic(ending):
        yield from (path for path in matches if not _is_own(path, named))
    else:
        yield from (path for path in matches if _is_picture(path, named, others))
    for folder in glob.glob(os.path.join(head, ""), recursive=True) if head else ():
        try:
            os.scandir(folder).close()
        except OSError:  # glob skips it silently
            yield Path(folder)


def _stored_pictures(url: str, others: Counter[str]) -> Iterator[StoredFile]:
    """Yield the file of a URL, or the pictures of a folder or pattern; count the other files."""
    tail = url.rpartition("/")[2]
    ending = os.path.splitext(tail)[1] if glob.has_magic(tail) else ""
    spelt = ending and not glob.has_magic(ending)
    start = url.find("/", url.find("://") + 3) if glob.has_magic(url) else len(url)
    is_file = functools.cache(_is_stored)  # asked once for the pictures of a folder
    try:
        for file in list_url(url):
            folders = [each.casefold() for each in file.path[start:].split("/")[:-1]]
            if file.path == url:
                yield file
            elif spelt:
                if not _is_own(file.path, url, is_file):
                    yield file
            elif _IGNORED_FOLDERS.isdisjoint(folders):
                hidden = any(each.startswith(".") for each in folders)
                if _is_picture(file.path, url, others, hidden=hidden, is_file=is_file):
                    yield file
    except OSError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageReadError(f"{url}: {reason.removeprefix(f'{url}: ')}") from error


def _is_stored(url: str) -> bool:
    """Return whether an object storage has a file; `..` in the URL is the folder above."""
    scheme, _, place = url.partition("://")
    folder, _, name = posixpath.normpath(place).rpartition("/")
    return open_folder(f"{scheme}://{folder}").exists(name)


def _is_picture(
    path: str | Path,
    named: str | Path,
    others: Counter[str],
    *,
    hidden: bool = False,
    is_file: Callable[[str], bool] = os.path.isfile,
) -> bool:
    """Return whether a file of a folder or pattern is one of its pictures; count other files."""
    name = os.path.basename(path)
    picture = _is_picture_name(name)
    litter = hidden or name.startswith(".") or name.casefold() in _LITTER
    if (litter and not picture) or _is_own(path, named, is_file):
        return False
    if not picture:
        others[os.path.splitext(name)[1].casefold() or _NO_ENDING] += 1
    return picture


def _is_own(
    path: str | Path, named: str | Path, is_file: Callable[[str], bool] = os.path.isfile
) -> bool:
    """Return whether an earlier run wrote a file and its folder was not named itself."""
    text = str(path) if is_url(path) else Path(os.path.abspath(path)).as_posix()
    folder, stem = os.path.split(text)[0], Path(path).stem.removesuffix("-overlay")
    for pattern, beside in _OWN_FILES:
        if pattern.search(text) and all(
            is_file(os.path.join(folder, name.format(stem=stem))) for name in beside
        ):
            is_named = _folder_text(named).startswith(_folder_text(folder))
            return not (is_named and os.path.basename(folder) in _OWN_FOLDERS)
    return False


def _is_picture_name(name: str) -> bool:
    """Return whether a name has the extension of a picture and is no "._" file of macOS."""
    return not name.startswith("._") and os.path.splitext(name)[1].casefold() in IMAGE_EXTENSIONS


def _nothing_found(named: str, others: Counter[str]) -> str:
    if list_of(named) is not None:
        rest = f" ({describe_left_out(others)})" if others else ""
        return f"{named}: this list names no picture{rest}."
    if os.path.isdir(named) or (is_url(named) and not glob.has_magic(named)):
        kinds = ", ".join(sorted(IMAGE_EXTENSIONS))
        rest = f"; it holds {describe_left_out(others)}" if others else ""
        return f"{named}: no pictures in this folder or below it (looked for {kinds}){rest}."
    if glob.has_magic(named):
        return f"{named}: the pattern matches no picture; quote it if the shell changed it."
    return f"{named}: no such file or folder; check the path."
