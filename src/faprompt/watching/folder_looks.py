"""Find pictures in a watched folder that are written completely.

The folder is listed again and again ("looks"). That needs no help of the operating system, and so
works on network shares too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Container
from pathlib import Path

from faprompt.imaging import IMAGE_EXTENSIONS
from faprompt.watching.watch_ledger import Identity
from faprompt.work import logger


class FolderLooks:
    """Looks at a folder. Memory holds the files that were there at the last look."""

    def __init__(self, folder: Path, *, exclude: Container[str] = ()) -> None:
        """Watch a folder and all folders below it.

        Args:
            folder: as the user named it; it may be missing for a time, as an unmounted share is.
            exclude: absolute paths of folders that are not looked into.
        """
        self.folder, self._exclude = folder, exclude
        self._last: dict[str, Identity] = {}
        self._done: dict[str, Identity] = {}
        self._warned: set[str] = set()

    def look(self, known: Callable[[Identity], bool]) -> dict[str, Identity]:
        """Return the complete pictures that are not known yet, the oldest first.

        A picture is complete when its size and modification time are the same in two looks one
        after the other. So it makes no difference whether it was written in place or renamed.

        Args:
            known: returns whether a file needs no verdict any more; it is asked again only after
                the file has changed or was gone.

        Returns:
            Path, as the user would name it, and identity of each picture.

        Raises:
            OSError: the folder cannot be listed.
        """
        now = self._list()
        self._done = {path: each for path, each in self._done.items() if now.get(path) == each}
        ready = {}
        for path, identity in now.items():
            if self._done.get(path) == identity:
                continue
            if known(identity):
                self._done[path] = identity
            elif self._last.get(path) == identity:
                ready[path] = identity
        self._last = now
        return dict(sorted(ready.items(), key=lambda pair: (pair[1].mtime_ns, pair[0])))

    def _list(self) -> dict[str, Identity]:
        found: dict[str, Identity] = {}
        waiting = [os.fspath(self.folder)]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        self._take(entry, found, waiting)
            except OSError as error:
                if folder == os.fspath(self.folder):
                    raise
                if folder not in self._warned:
                    self._warned.add(folder)
                    logger.warning("%s cannot be listed (%s); its pictures wait.", folder,
                                   error.strerror)  # fmt: skip
        return found

    def _take(self, entry: os.DirEntry[str], found: dict[str, Identity], waiting: list) -> None:
        """Add an entry to the files, or to the folders that are still to be listed."""
        if entry.name.startswith("."):  # a program that writes, or the system, hides it
            return
        if entry.is_dir(follow_symlinks=False):
            if os.path.abspath(entry.path) not in self._exclude:
                waiting.append(entry.path)
        elif os.path.splitext(entry.name)[1].casefold() in IMAGE_EXTENSIONS:
            identity = identify(entry.path)
            if identity is not None:
                found[entry.path] = identity


def identify(path: str) -> Identity | None:
    """Return the identity of a regular file; None for another kind, and where there is no file."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(state.st_mode):
        return None
    return Identity(os.path.abspath(path), state.st_size, state.st_mtime_ns)
