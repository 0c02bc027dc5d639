"""Split the inputs of a run into shards, and digest lists of files.

The shard of a picture follows from its path alone, so that it is the same on every machine and
stays the same when other pictures are added.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any, ClassVar

from faprompt.config import ShardNumber
from faprompt.storage import StoredFile

_DIGEST_BYTES = 16
_DIGESTS = 2 ** (8 * _DIGEST_BYTES)


@dataclass(frozen=True, slots=True)
class Shard(ShardNumber):
    """One of `count` parts of a run, counted from 1; or a run as a whole."""

    whole: bool = False  # a run without shard folders
    forms: ClassVar[str] = "I/N, such as 7/40, or plan/N"

    @property
    def folder(self) -> str:
        """The folder of its files, such as "shards/00007-of-00040/"; "" for a whole run."""
        return "" if self.whole else f"shards/{self.name}/"

    def holds(self, path: str) -> bool:
        """Return whether a picture belongs to this shard."""
        return self.whole or shard_of(path, self.count) == self.index


WHOLE_RUN = Shard(1, 1, whole=True)


def shard_of(path: str, count: int) -> int:
    """Return the shard of a picture, 1..count, by a hash of its path as it is written."""
    digest = hashlib.blake2b(_path_bytes(path), digest_size=8).digest()
    return int.from_bytes(digest, "big") % count + 1


@dataclass(slots=True)
class FileDigest:
    """Number and digest of files and their stamps, in any order; digests add up over shards."""

    files: int = 0
    total: int = 0

    def add(self, file: StoredFile) -> None:
        """Count one file."""
        text = _path_bytes(file.path) + b"\0" + file.stamp.encode()
        digest = hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()
        self.files += 1
        self.total = (self.total + int.from_bytes(digest, "big")) % _DIGESTS

    def __add__(self, other: FileDigest) -> FileDigest:
        return FileDigest(self.files + other.files, (self.total + other.total) % _DIGESTS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return {"files": self.files, "digest": f"{self.total:0{2 * _DIGEST_BYTES}x}"}

    @classmethod
    def from_dict(cls, values: Any) -> FileDigest:
        """Read the values of `to_dict`; KeyError, TypeError or ValueError for others."""
        return cls(int(values["files"]), int(values["digest"], 16))


def _path_bytes(path: str) -> bytes:
    return path.replace(os.sep, "/").encode(errors="surrogatepass")
