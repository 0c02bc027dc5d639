"""Record in SQLite which pictures were judged, moved and delivered.

The database is the truth. A picture is judged once its row is committed there; `results.jsonl` is
a copy that is completed after an interruption, and a webhook is sent from here until the receiver
takes it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from faprompt.errors import ConfigError
from faprompt.prediction.result_rows import ResultRow

LEDGER_NAME = "watch.sqlite"
RESULTS_NAME = "results.jsonl"
_VERSION = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS judged (
    sequence INTEGER PRIMARY KEY,  -- 1, 2, 3 ... in the order of results.jsonl
    file BLOB NOT NULL,            -- absolute path, in the bytes of the file system
    size INTEGER NOT NULL,         -- bytes
    mtime_ns INTEGER NOT NULL,     -- modification time, nanoseconds since 1970
    line BLOB NOT NULL,            -- line of results.jsonl
    line_end INTEGER NOT NULL,     -- bytes of results.jsonl up to the end of the line
    verdict TEXT,                  -- OK, REVIEW, NG, or NULL
    to_move INTEGER NOT NULL,      -- 1 until the picture is in the folder of its verdict
    target BLOB,                   -- where it is moved, once that is known
    key TEXT NOT NULL,             -- idempotency key of the delivery
    due REAL,                      -- seconds since 1970 of the next attempt; NULL: none wanted
    attempts INTEGER NOT NULL DEFAULT 0,
    UNIQUE (file, size, mtime_ns)
);
CREATE INDEX IF NOT EXISTS by_due ON judged (due) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_move ON judged (sequence) WHERE to_move = 1;
"""


class Identity(NamedTuple):
    """A file and the state of its content, as `--resume` of `predict` compares them."""

    file: str  # absolute path
    size: int  # bytes
    mtime_ns: int  # modification time, nanoseconds since 1970


class Move(NamedTuple):
    """A judged picture that waits to be moved."""

    sequence: int
    identity: Identity
    verdict: str
    target: str | None  # path of an attempt that was interrupted


class Delivery(NamedTuple):
    """A row that waits to be sent."""

    sequence: int
    key: str  # the same for every attempt
    line: bytes  # line of results.jsonl
    attempts: int  # that failed so far


class WatchLedger:
    """The database `watch.sqlite` of an output folder; threads may share one object."""

    def __init__(self, folder: Path) -> None:
        """Open the database, and create it where there is none.

        Raises:
            ConfigError: the file is damaged or of another version of this package.
            OSError: it cannot be written; the disk may be full.
        """
        self.path = folder / LEDGER_NAME
        self._lock = threading.RLock()
        try:
            self._base = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._base.execute("PRAGMA synchronous = FULL")
            (found,) = self._base.execute("PRAGMA user_version").fetchone()
            if found not in (0, _VERSION):
                raise ConfigError(f"{self.path} is of version {found}, and this package reads "
                                  f"{_VERSION}; choose another output folder.")  # fmt: skip
            self._base.executescript(f"BEGIN; {_TABLE} PRAGMA user_version = {_VERSION}; COMMIT;")
        except BaseException as error:
            if hasattr(self, "_base"):
                self._base.close()
            if type(error) is sqlite3.DatabaseError:  # its subclasses are faults of the disk
                raise ConfigError(f"{self.path} cannot be read ({error}); restore it from a copy, "
                                  "or choose another output folder.") from error  # fmt: skip
            if isinstance(error, sqlite3.Error):
                raise OSError(f"{self.path} cannot be written: {error}.") from error
            raise

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._base.close()

    def __len__(self) -> int:
        """Return the number of judged pictures."""
        return self._one("SELECT count(*) FROM judged")[0]

    def knows(self, identity: Identity) -> bool:
        """Return whether this content of a file was judged."""
        wanted = "SELECT 1 FROM judged WHERE file = ? AND size = ? AND mtime_ns = ?"
        return self._one(wanted, _stored(identity)) is not None

    def record(self, identity: Identity, row: ResultRow, *, move: bool, due: float | None) -> bool:
        """Add a row; False, and nothing is added, where this content was judged before.

        Args:
            identity: file that was judged.
            row: its result.
            move: whether the picture is to be moved.
            due: time of the first delivery, seconds since 1970; None: it is not delivered.
        """
        line = row.to_line()
        with self._transaction():
            if self.knows(identity):
                return False
            self._base.execute(
                "INSERT INTO judged (file, size, mtime_ns, line, line_end, verdict, to_move, key, "
                "due) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*_stored(identity), line, self._length() + len(line), row.verdict, int(move),
                 str(uuid.uuid4()), due),
            )  # fmt: skip
        return True

    def moves(self) -> Iterator[Move]:
        """Yield the pictures that wait to be moved, the oldest first."""
        sequence = 0
        while found := self._one(
            "SELECT sequence, file, size, mtime_ns, verdict, target FROM judged "
            "WHERE to_move = 1 AND sequence > ? ORDER BY sequence LIMIT 1", (sequence,),
        ):  # fmt: skip
            sequence, file, size, mtime_ns, verdict, target = found
            identity = Identity(os.fsdecode(file), size, mtime_ns)
            yield Move(sequence, identity, verdict, None if target is None else os.fsdecode(target))

    def begin_move(self, sequence: int, target: str) -> None:
        """Record where a picture is about to be moved."""
        with self._transaction():
            self._base.execute("UPDATE judged SET target = ? WHERE sequence = ?",
                               (os.fsencode(target), sequence))  # fmt: skip

    def end_move(self, sequence: int, *, moved: bool) -> None:
        """Record that a picture was moved, or that it stays."""
        with self._transaction():
            self._base.execute(
                "UPDATE judged SET to_move = 0, target = CASE WHEN ? THEN target END "
                "WHERE sequence = ?", (moved, sequence),
            )  # fmt: skip

    def next_delivery(self, now: float) -> Delivery | None:
        """Return the row that has been due for longest; None where none is due."""
        found = self._one(
            "SELECT sequence, key, line, attempts FROM judged WHERE due <= ? "
            "ORDER BY due, sequence LIMIT 1", (now,),
        )  # fmt: skip
        return None if found is None else Delivery(*found)

    def waiting_deliveries(self) -> int:
        """Return how many rows were not delivered yet."""
        return self._one("SELECT count(*) FROM judged WHERE due IS NOT NULL")[0]

    def delivered(self, sequence: int) -> None:
        """Record that the receiver took a row."""
        with self._transaction():
            self._base.execute("UPDATE judged SET due = NULL WHERE sequence = ?", (sequence,))

    def postpone(self, sequence: int, due: float) -> None:
        """Record a failed attempt, and the time of the next one."""
        with self._transaction():
            self._base.execute("UPDATE judged SET due = ?, attempts = attempts + 1 "
                               "WHERE sequence = ?", (due, sequence))  # fmt: skip

    def complete_results(self) -> None:
        """Append the rows that `results.jsonl` lacks; an incomplete last line is written again.

        Raises:
            ConfigError: the file has other content; it is left as it is.
            OSError: the disk is full. The next call goes on from there.
        """
        path = self.path.with_name(RESULTS_NAME)
        length = path.stat().st_size if path.exists() else 0
        whole = self._length()
        if length == whole:
            return
        found = self._one("SELECT sequence, line_end, line FROM judged WHERE line_end <= ? "
                          "ORDER BY line_end DESC LIMIT 1", (length,))  # fmt: skip
        sequence, end, line = found or (0, 0, b"")
        (following,) = self._one("SELECT line FROM judged WHERE sequence > ? "
                                 "ORDER BY sequence LIMIT 1", (sequence,)) or (b"",)  # fmt: skip
        if length > whole or not _fits(path, end, line, following):
            raise ConfigError(
                f"{path} has rows that are not in {self.path.name}, so another program wrote it. "
                "Move it away (it is written anew), or choose another output folder."
            )
        with path.open("ab", buffering=0) as stream:
            stream.truncate(end)
            while found := self._one("SELECT sequence, line FROM judged WHERE sequence > ? "
                                     "ORDER BY sequence LIMIT 1", (sequence,)):  # fmt: skip
                sequence, line = found
                if stream.write(line) != len(line):
                    raise OSError(f"{path}: the line was not written whole; is the disk full?")

    def _length(self) -> int:
        """Return the bytes of a complete `results.jsonl`."""
        return self._one("SELECT coalesce(max(line_end), 0) FROM judged "
                         "WHERE sequence = (SELECT max(sequence) FROM judged)")[0]  # fmt: skip

    def _one(self, query: str, values: tuple = ()) -> tuple:
        with self._lock:
            return self._base.execute(query, values).fetchone()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise


def _stored(identity: Identity) -> tuple[bytes, int, int]:
    return os.fsencode(identity.file), identity.size, identity.mtime_ns


def _fits(path: Path, end: int, line: bytes, following: bytes) -> bool:
    """Return whether a file has a line before the byte `end`, and then part of the next one."""
    if not path.exists():
        return True
    with path.open("rb") as stream:
        stream.seek(end - len(line))
        return stream.read(len(line)) == line and following.startswith(stream.read())
