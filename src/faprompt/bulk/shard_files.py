"""Read and write the files of one shard: parts, `done.json` and `manifest.jsonl.gz`.

Under the output folder, a shard has

    run.json                                    settings of all shards, by the first that starts
    plan.json                                   after `--shard plan/N`
    shards/00007-of-00040/manifest.jsonl.gz     its pictures, after `--shard plan/N`
    shards/00007-of-00040/parts/part-00000-...  rows, see `shard_parts`
    shards/00007-of-00040/done.json             written when every picture has a row
    shards/00007-of-00040/overlays/...          pictures, as of `predict`

A run as a whole has the same without `shards/...`. Part names hold the first digits of the
settings' fingerprint, and some of chance, so that two processes that do one shard at a time
write different files.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from faprompt.bulk.shard_parts import PartKind, PartRow, decode_part, encode_part
from faprompt.bulk.shard_split import FileDigest, Shard
from faprompt.errors import ShardError
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import OutputFolder, StoredFile

RUN, PLAN, DONE, MANIFEST = "run.json", "plan.json", "done.json", "manifest.jsonl.gz"
_PART = re.compile(r"part-(\d{5,})-([0-9a-f]{8})[0-9a-f]{8}\.(parquet|jsonl)")


@dataclass(frozen=True, slots=True)
class PartFact:
    """What `done.json` says of a part."""

    rows: int
    digest: str  # of the content

    @classmethod
    def of(cls, rows: int, content: bytes) -> PartFact:
        """Return the facts of a part."""
        return cls(rows, hashlib.blake2b(content, digest_size=16).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneMark:
    """`done.json`: what a finished shard holds."""

    fingerprint: str  # of `run.json`
    pictures: FileDigest  # its pictures, each once, with the stamps that its rows have
    listed: FileDigest  # what the inputs named of this shard, with the stamps of the listing
    listing: FileDigest  # what the inputs named for all shards
    errors: int  # rows of pictures that could not be read
    parts: Mapping[str, PartFact]  # by name
    seconds: float = field(compare=False)  # of the run that finished it
    version: str = field(compare=False)  # of faprompt
    finished: str = field(compare=False)  # time, ISO 8601
    command: str = field(default="", compare=False)  # that made it, with "I/N" for the shard

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        digests = {n: getattr(self, n).to_dict() for n in ("pictures", "listed", "listing")}
        parts = {name: asdict(part) for name, part in self.parts.items()}
        plain = {name: getattr(self, name) for name in self.__slots__}
        return _json({**plain, **digests, "parts": parts})

    @classmethod
    def from_bytes(cls, content: bytes) -> DoneMark:
        """Read the file; ValueError, KeyError or TypeError when it is damaged."""
        values = json.loads(content)
        for name in ("pictures", "listed", "listing"):
            values[name] = FileDigest.from_dict(values[name])
        values["parts"] = {n: PartFact(**part) for n, part in values["parts"].items()}
        return cls(**values)


def fingerprint_of(run: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the settings in `run.json`, 64 hex digits."""
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()


def write_run(out: OutputFolder, run: Mapping[str, Any]) -> None:
    """Write `run.json`."""
    out.write(RUN, _json(run), durable=True)


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """The files of one shard in an output folder."""

    out: OutputFolder
    shard: Shard

    def part_names(self) -> list[str]:
        """Return the names of all parts, also of those that do not count, sorted."""
        return [n for n in self.out.names(f"{self.shard.folder}parts") if _PART.fullmatch(n)]

    def write_part(
        self, number: int, fingerprint: str, rows: Sequence[ResultRow], stamps: Mapping[str, str],
        kind: PartKind,
    ) -> tuple[str, PartFact]:  # fmt: skip
        """Write a part; return its name and facts."""
        content, ending = encode_part(rows, stamps, kind)
        name = f"part-{number:05}-{fingerprint[:8]}{secrets.token_hex(4)}.{ending}"
        self.out.write(self._part(name), content, durable=True)
        return name, PartFact.of(len(rows), content)

    def read_content(self, name: str) -> bytes:
        """Return the content of a part."""
        return self.out.read(self._part(name))

    def read_part(self, name: str, content: bytes, fact: PartFact) -> list[PartRow]:
        """Return the rows of a part that counts.

        Raises:
            ShardError: it is not the part that `done.json` describes.
        """
        if PartFact.of(fact.rows, content) != fact:
            raise ShardError(f"shard {self.shard}: {name} is damaged")
        try:
            return decode_part(name, content)
        except ValueError as error:
            raise ShardError(f"shard {self.shard}: {error}") from error

    def remove_part(self, name: str) -> None:
        """Remove a part."""
        self.out.remove(self._part(name))

    def read_done(self) -> DoneMark | None:
        """Return what `done.json` says; None where it is missing or damaged."""
        try:
            return DoneMark.from_bytes(self.out.read(f"{self.shard.folder}{DONE}"))
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write_done(self, mark: DoneMark) -> None:
        """Write `done.json`."""
        self.out.write(f"{self.shard.folder}{DONE}", mark.to_bytes(), durable=True)

    def remove_done(self) -> None:
        """Remove `done.json`."""
        self.out.remove(f"{self.shard.folder}{DONE}")

    def write_manifest(self, files: Iterable[StoredFile]) -> int:
        """Write the list of its pictures; return the number of bytes."""
        lines = "".join(json.dumps(file) + "\n" for file in files)
        content = gzip.compress(lines.encode(), 6, mtime=0)
        self.out.write(f"{self.shard.folder}{MANIFEST}", content, durable=True)
        return len(content)

    def read_manifest(self) -> list[StoredFile]:
        """Return the pictures that the plan gave to this shard.

        Raises:
            ShardError: the manifest is missing or damaged.
        """
        name = f"{self.shard.folder}{MANIFEST}"
        try:
            lines = gzip.decompress(self.out.read(name)).splitlines()
            return [StoredFile(*json.loads(line)) for line in lines]
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise ShardError(
                f"{name} is missing or damaged ({error}); "
                f"run --shard plan/{self.shard.count} again."
            ) from error

    def _part(self, name: str) -> str:
        return f"{self.shard.folder}parts/{name}"


def fingerprint_in(name: str) -> str:
    """Return the first digits of the fingerprint that a part's name holds."""
    found = _PART.fullmatch(name)
    assert found is not None, name
    return found[2]


def number_in(name: str) -> int:
    """Return the number of a part."""
    found = _PART.fullmatch(name)
    assert found is not None, name
    return int(found[1])


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
