"""Read and write files by name: in a local folder, or in an object storage through fsspec.

A location is a local path or a URL such as `s3://bucket/folder`. fsspec and the package of the
storage (s3fs, gcsfs, adlfs, huggingface_hub) know addresses and credentials, from their own
variables and files. Every request is repeated when it fails for a reason that may pass.
"""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar

from faprompt.errors import ConfigError
from faprompt.files import temporary_name, write_atomically
from faprompt.work import load_extra, lock_folder, logger

WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # before each repeated request, up to twice as long
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # one letter is a drive of Windows
_LASTING = (
    FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, FileExistsError,
    ImportError, MemoryError, NotImplementedError, ValueError, TypeError,
)  # fmt: skip
_MEMORY_BYTES = 2**26  # of a new file before it goes to the disk
_Result = TypeVar("_Result")


class StoredFile(NamedTuple):
    """A file that a listing names."""

    path: str  # as a user would write it: a URL or a local path
    stamp: str  # size and version of the content; "" where the listing does not tell


class OutputFolder(Protocol):
    """A folder that a run writes into. Names are relative to it, with "/" between folders."""

    @property
    def location(self) -> str:
        """The path or URL of the folder."""

    def write(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Write a file whole or not at all; folders are created.

        With `durable` it also survives a power cut.
        """

    def new_file(self, name: str) -> AbstractContextManager[IO[bytes]]:
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


def is_url(location: str | os.PathLike[str]) -> bool:
    """Return whether a location is a URL; `file://` counts as one.

    Example:
        >>> is_url("s3://bucket/part.png"), is_url("C:/part.png"), is_url("lot/part.png")
        (True, False, False)
    """
    return _URL.match(os.fspath(location)) is not None


def local_path(location: str) -> str:
    """Return the path of a `file://` URL, and every other location as it is."""
    return location[len("file://") :] if location.lower().startswith("file://") else location


def open_folder(location: str | os.PathLike[str]) -> OutputFolder:
    """Return the folder of a location; nothing is created yet.

    Raises:
        ConfigError: an unknown kind of storage.
        MissingExtraError: fsspec, or the package of this storage, is not installed.
    """
    place = local_path(os.fspath(location))
    if not is_url(place):
        return LocalFolder(Path(place))
    file_system, path = _file_system(place)
    return StoredFolder(place.rstrip("/"), file_system, path.rstrip("/"))


def read_url(url: str) -> bytes:
    """Return the content of a file of an object storage; failing requests are repeated.

    Raises:
        ConfigError, MissingExtraError: as `open_folder`.
        OSError: no such file, no permission, or the last error of the repeated requests.
    """
    file_system, path = _file_system(url)
    content: bytes = repeat(lambda: file_system.cat_file(path), url)
    return content


def list_url(url: str) -> Iterator[StoredFile]:
    """Yield the files below a folder of an object storage, those of a pattern, or the file itself.

    Folder by folder in the order of their names, so that memory holds one listing at a time.

    Raises:
        FileNotFoundError: the URL names nothing.
        OSError: the storage cannot be listed.
    """
    file_system, path = _file_system(url)
    scheme = url[: url.index("://") + 3]
    pattern = any(mark in path for mark in "*?[")
    found = False
    for info in _match(file_system, path) if pattern else _walk(file_system, path):
        found = True
        yield StoredFile(scheme + str(info["name"]).lstrip("/"), _stamp(info))
    if not found:
        raise FileNotFoundError(f"{url}: no such file or folder; check the URL.")


def repeat(action: Callable[[], _Result], what: str) -> _Result:
    """Call an action until it succeeds, with growing pauses; lasting errors are raised at once.

    Args:
        action: a request that may be repeated.
        what: its file, for the log and the error.

    Raises:
        OSError: the last error, after `WAITS_S`.
    """
    for wait in WAITS_S:
        try:
            return action()
        except _LASTING:
            raise
        except Exception as error:  # each storage has its own kinds
            pause = wait * (1 + random.random())  # many readers must not come back together
            logger.debug("%s: %s; again in %.1f s", what, error, pause)
            time.sleep(pause)
    try:
        return action()
    except _LASTING:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"{what}: failed {len(WAITS_S) + 1} times ({reason}).") from error


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
    def new_file(self, name: str) -> Iterator[IO[bytes]]:
        """Yield a stream to a hidden neighbour that takes the file's place at the end."""
        target = self._target(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(target)
        try:
            with temporary.open("wb") as stream:
                yield stream
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

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
        target = f"{self.path}/{name}"
        repeat(lambda: self.file_system.pipe_file(target, content), self._name(name))

    @contextmanager
    def new_file(self, name: str) -> Iterator[IO[bytes]]:
        """Yield a temporary stream that is uploaded at the end."""
        with tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES) as stream:
            yield stream
            repeat(lambda: self._upload(stream, name), self._name(name))

    def read(self, name: str) -> bytes:
        """Download a file."""
        content: bytes = repeat(
            lambda: self.file_system.cat_file(f"{self.path}/{name}"), self._name(name)
        )
        return content

    def exists(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        found: bool = repeat(
            lambda: self.file_system.isfile(f"{self.path}/{name}"), self._name(name)
        )
        return found

    def names(self, folder: str) -> list[str]:
        """List a sub-folder."""
        place = f"{self.path}/{folder}".rstrip("/")
        try:
            entries = repeat(
                lambda: self.file_system.ls(place, detail=True, refresh=True), self._name(folder)
            )
        except FileNotFoundError:
            return []
        files = (entry["name"] for entry in entries if entry["type"] == "file")
        return sorted(str(name).rpartition("/")[2] for name in files)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        try:
            repeat(lambda: self.file_system.rm_file(f"{self.path}/{name}"), self._name(name))
        except FileNotFoundError:
            return

    def lock(self, folder: str = "") -> AbstractContextManager[None]:
        """Hold nothing: an object storage has no locks."""
        return nullcontext()

    def _name(self, name: str) -> str:
        return f"{self.location}/{name}"

    def _upload(self, stream: IO[bytes], name: str) -> None:
        stream.seek(0)
        with self.file_system.open(f"{self.path}/{name}", "wb") as target:
            shutil.copyfileobj(stream, target, io.DEFAULT_BUFFER_SIZE * 128)


def _file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it."""
    fsspec = load_extra("storage", "fsspec.core")
    try:
        file_system, path = fsspec.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        scheme = url.partition("://")[0]
        raise ConfigError(
            f"{url}: reading {scheme}:// needs a package that is not installed ({error}); "
            "pip install 'faprompt[storage]' covers s3; gs needs gcsfs, az needs adlfs."
        ) from error
    except ValueError as error:
        raise ConfigError(f"{url}: this kind of storage is unknown ({error}).") from error
    return file_system, str(path)


def _walk(file_system: Any, path: str) -> Iterator[dict[str, Any]]:
    """Yield the files below a path, sorted by name in each folder."""
    try:
        entries = repeat(lambda: file_system.ls(path, detail=True, refresh=True), path)
    except FileNotFoundError:
        return
    for entry in sorted(entries, key=lambda entry: str(entry["name"])):
        if entry["type"] == "directory":
            if str(entry["name"]).rstrip("/") != path.rstrip("/"):
                yield from _walk(file_system, entry["name"])
        elif not str(entry["name"]).endswith("/"):  # the mark of an empty folder
            yield entry


def _match(file_system: Any, pattern: str) -> Iterator[dict[str, Any]]:
    found = repeat(lambda: file_system.glob(pattern, detail=True), pattern)
    yield from (info for _, info in sorted(found.items()) if info["type"] == "file")


def _stamp(info: dict[str, Any]) -> str:
    """Return size and version of a listed file, by what this storage tells of it."""
    for key in ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "mtime", "created"):
        if info.get(key):
            return f"{info.get('size')}-{info[key]}"
    return ""
