"""Read and write files by name: in a local folder, or in an object storage through fsspec.

A location is a local path or a URL such as `s3://bucket/folder`. fsspec and the package of the
storage (s3fs, gcsfs, adlfs, huggingface_hub) know addresses and credentials, from their own
variables and files. Every request is repeated when it fails for a reason that may pass.

Three traps of fsspec are kept away from: its `glob`, `find` and `walk` leave out folders whose
listing fails, its `isfile` answers False when a request fails, and a file that is open for writing
is stored as far as it got when an error ends its block.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol
from urllib.request import url2pathname

from faprompt.errors import ConfigError
from faprompt.files import is_url as is_url  # also a name of this module
from faprompt.files import (
    natural_key,
    new_file,
    write_atomically,
)
from faprompt.storage_requests import find_file_system, request
from faprompt.work import load_extra, lock_folder, logger

_MAGIC = frozenset("*?[")


class StoredFile(NamedTuple):
    """A file that a listing names."""

    path: str  # as a user would write it: a URL or a local path
    stamp: str  # "size-version" of the content; "" where the listing does not tell

    @property
    def size(self) -> int | None:
        """Size in bytes, by the stamp; None where it does not tell."""
        size = self.stamp.partition("-")[0]
        return int(size) if size.isdecimal() else None


class OutputFolder(Protocol):
    """A folder that a run writes into. Names are relative to it, with "/" between folders."""

    @property
    def location(self) -> str:
        """The path or URL of the folder."""

    def write(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Write a file whole or not at all; folders are created.

        With `durable` it also survives a power cut.
        """

    def new_file(self, name: str, *, durable: bool = False) -> AbstractContextManager[IO[bytes]]:
        """Yield a stream whose content becomes the file when the block ends without an error."""

    def read(self, name: str) -> bytes:
        """Return the content of a file; FileNotFoundError where there is none."""

    def exists(self, name: str) -> bool:
        """Return whether there is a file of this name."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a sub-folder, sorted; [] where it does not exist."""

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    def lock(self, folder: str = "") -> AbstractContextManager[None]:
        """Hold the folder, or a sub-folder, against other runs where the storage has locks.

        Raises:
            FolderInUseError: another run holds it. An object storage has no locks.
        """


def local_path(location: str) -> str:
    """Return the path of a `file://` URL, and every other location as it is.

    Percent signs with two hex digits are decoded, as `Path.as_uri` writes them.

    Raises:
        ConfigError: the URL names another machine.
    """
    if not location.lower().startswith("file://"):
        return location
    host, slash, path = location[len("file://") :].partition("/")
    if host.lower() not in ("", "localhost") or not slash:
        raise ConfigError(
            f"{location}: a file URL has three slashes and a whole path, such as file:///data/lot7."
        )
    return url2pathname(f"/{path}")


def open_folder(location: str | os.PathLike[str]) -> OutputFolder:
    """Return the folder of a location; nothing is created yet.

    Raises:
        ConfigError: an unknown kind of storage.
        MissingExtraError: fsspec, or the package of this storage, is not installed.
    """
    place = local_path(os.fspath(location))
    if not is_url(place):
        return LocalFolder(Path(place))
    file_system, path = find_file_system(place)
    return StoredFolder(place.rstrip("/"), file_system, path.rstrip("/"))


def read_url(url: str) -> bytes:
    """Return the content of a file of an object storage; failing requests are repeated.

    The file is read by one request. A body that is cut off is an error that is repeated.

    Raises:
        ConfigError, MissingExtraError: as `open_folder`.
        OSError: no such file, no permission, or the last error of the repeated requests.
    """
    if not is_url(place := local_path(url)):
        return Path(place).read_bytes()
    file_system, path = find_file_system(url)
    content: bytes = request(file_system, "cat_file", path, what=url)
    return content


def stamp_url(url: str) -> str:
    """Return size and version of a file of an object storage, as a listing tells them.

    Raises:
        ConfigError, MissingExtraError, OSError: as `read_url`.
    """
    file_system, path = find_file_system(url)
    return _stamp(request(file_system, "info", path, what=url))


@contextmanager
def local_copy(location: str) -> Iterator[Path]:
    """Yield the path of a local file, or of a temporary copy of one of an object storage.

    Raises:
        ConfigError, MissingExtraError, OSError: as `read_url`; of a local file nothing.
    """
    place = local_path(location)
    if not is_url(place):
        yield Path(place)
        return
    file_system, path = find_file_system(place)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        request(file_system, "get_file", path, os.fspath(copy), what=place)
        yield copy


def list_url(url: str) -> Iterator[StoredFile]:
    """Yield the files below a folder of an object storage, those of a pattern, or the file itself.

    Folder by folder in natural order, so that memory holds the listings of a folder and of those
    above it. A URL that ends in "/" is a folder. A name with `*`, `?` or `[` is a pattern, unless
    there is a file of that name; `**` stands for any folders.

    Raises:
        ConfigError, MissingExtraError: as `open_folder`.
        FileNotFoundError: the URL names nothing.
        OSError: the storage cannot be listed.
    """
    file_system, path = find_file_system(url)
    scheme, _, rest = url.partition("://")
    owner, slash, _ = rest.partition("/")
    root = f"{scheme}://{owner}/" if slash and _MAGIC.isdisjoint(owner) else f"{scheme}://"
    none = True
    try:
        for info in _find(file_system, path, url):
            none = False
            yield _listed(info, root)
    except FileNotFoundError as error:
        reason = "" if path.strip("/") in str(error) else f" ({error})"
        raise FileNotFoundError(f"no such file or folder{reason}; check the URL.") from error
    if none:
        raise FileNotFoundError("it holds no file; check the URL.")


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """An `OutputFolder` on a local disk."""

    path: Path

    @property
    def location(self) -> str:
        """The path of the folder."""
        return os.fspath(self.path)

    def write(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Write a file atomically."""
        target = self._target(name)
        try:
            write_atomically(target, content, durable=durable)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content, durable=durable)

    @contextmanager
    def new_file(self, name: str, *, durable: bool = False) -> Iterator[IO[bytes]]:
        """Yield a stream to a hidden neighbour that takes the file's place at the end."""
        target = self._target(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_file(target, durable=durable) as stream:
            yield stream

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        return self._target(name).read_bytes()

    def exists(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        return self._target(name).is_file()

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a sub-folder, without hidden ones."""
        place = self.path / folder
        if not place.is_dir():
            return []
        files = (entry.name for entry in os.scandir(place) if entry.is_file())
        return sorted(name for name in files if not name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        self._target(name).unlink(missing_ok=True)

    def lock(self, folder: str = "") -> AbstractContextManager[None]:
        """Hold the folder with a lock file."""
        return lock_folder(self.path / folder)

    def _target(self, name: str) -> Path:
        return self.path / name


@dataclass(frozen=True, slots=True)
class StoredFolder:
    """An `OutputFolder` in an object storage, whose files appear whole when they are complete."""

    location: str  # URL, without "/" at the end
    file_system: Any = field(repr=False)  # of fsspec
    path: str = field(repr=False)  # as the file system names it

    def write(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Upload a file; what a storage has confirmed is durable."""
        request(self.file_system, "pipe_file", self._path(name), content, what=self._name(name))

    @contextmanager
    def new_file(self, name: str, *, durable: bool = False) -> Iterator[IO[bytes]]:
        """Yield a temporary file that is uploaded at the end."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            with copy.open("wb") as stream:
                yield stream
            place = self._path(name)
            request(self.file_system, "put_file", str(copy), place, what=self._name(name))

    def read(self, name: str) -> bytes:
        """Download a file."""
        return read_url(self._name(name))

    def exists(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        try:
            info = request(self.file_system, "info", self._path(name), what=self._name(name))
        except FileNotFoundError:
            return False
        return bool(info["type"] == "file")

    def names(self, folder: str) -> list[str]:
        """List a sub-folder, without hidden files."""
        try:
            entries = _entries(self.file_system, self._path(folder).rstrip("/"))
        except FileNotFoundError:
            return []
        files = (str(each["name"]).rpartition("/")[2] for each in entries if _is_file(each))
        return sorted(name for name in files if not name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        try:
            request(self.file_system, "rm_file", self._path(name), what=self._name(name))
        except FileNotFoundError:
            return

    def lock(self, folder: str = "") -> AbstractContextManager[None]:
        """Hold nothing: an object storage has no locks."""
        return nullcontext()

    def _name(self, name: str) -> str:
        return f"{self.location}/{name}"

    def _path(self, name: str) -> str:
        return f"{self.path}/{name}"


def _find(file_system: Any, path: str, url: str) -> Iterator[dict[str, Any]]:
    """Yield what a URL names: a file, the files of a folder, or those of a pattern."""
    if not url.endswith("/"):
        with suppress(FileNotFoundError, PermissionError):  # it may be a folder that is listed
            info = request(file_system, "info", path, what=url)
            if info["type"] == "file":
                yield info
                return
    yield from _walk(file_system, path) if _MAGIC.isdisjoint(path) else _match(file_system, path)


def _walk(
    file_system: Any, path: str, enters: Callable[[str], bool] = lambda name: True
) -> Iterator[dict[str, Any]]:
    """Yield the files below a path in natural order; `enters` chooses the folders."""
    for entry in sorted(_entries(file_system, path), key=lambda each: natural_key(each["name"])):
        name = str(entry["name"])
        if _is_file(entry):
            yield entry
        elif entry["type"] == "directory" and name.strip("/") != path.strip("/"):
            if enters(name):
                with suppress(FileNotFoundError):  # removed meanwhile
                    yield from _walk(file_system, name, enters)
        elif entry["type"] == "directory" and name.endswith("/"):
            logger.warning("%s/: the files of a folder without a name are left out; name them in a "
                           "list.", name)  # fmt: skip


def _match(file_system: Any, pattern: str) -> Iterator[dict[str, Any]]:
    """Yield the files that match a pattern; only folders that may hold some are listed."""
    parts = pattern.split("/")
    plain = next(at for at, part in enumerate(parts) if not _MAGIC.isdisjoint(part))
    try:
        matches = re.compile(load_extra("storage", "fsspec.utils").glob_translate(pattern)).match
    except ValueError as error:
        raise ConfigError(f"{pattern}: {error}.") from error

    def enters(name: str) -> bool:
        level = name.count("/")
        if "**" in parts[: level + 1]:
            return True
        return level < len(parts) - 1 and fnmatchcase(name.rpartition("/")[2], parts[level])

    for info in _walk(file_system, "/".join(parts[:plain]), enters):
        if matches(str(info["name"])):
            yield info


def _entries(file_system: Any, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = request(
        file_system, "ls", path, what=path, detail=True, refresh=True
    )
    return found


def _is_file(entry: dict[str, Any]) -> bool:
    """Return whether an entry of a listing is a file, and not the mark of an empty folder."""
    return bool(entry["type"] == "file" and not str(entry["name"]).endswith("/"))


def _listed(info: dict[str, Any], root: str) -> StoredFile:
    """Return a listed file by its URL; `root` is its beginning, as the user wrote it."""
    name = str(info["name"]).lstrip("/")
    return StoredFile(
        root + (name if root.endswith("://") else name.partition("/")[2]), _stamp(info)
    )


def _stamp(info: dict[str, Any]) -> str:
    """Return size and version of a file, by what its storage tells of it."""
    for key in ("ETag", "etag", "md5Hash", "content_md5", "oid", "blob_id", "LastModified",
                "last_modified", "mtime", "created"):  # fmt: skip
        if version := info.get(key):
            if isinstance(version, datetime):  # `ls` of memory:// has numbers, `info` dates
                version = version.timestamp()
            version = str(version).strip('"')
            return f"{info.get('size')}-{version}"
    return ""
