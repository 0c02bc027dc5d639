"""Move judged pictures into folders named by their verdict, and never over another file."""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from faprompt.files import replace_file, temporary_name
from faprompt.watching.folder_looks import identify
from faprompt.watching.watch_ledger import Move, WatchLedger
from faprompt.work import logger


class VerdictFolders:
    """The folders OK, REVIEW and NG of an output folder; subfolders stay as they were."""

    def __init__(self, folder: Path, out_dir: Path, ledger: WatchLedger) -> None:
        """Prepare moves.

        Args:
            folder: watched folder; a picture keeps its place below it.
            out_dir: the folders of the verdicts are here.
            ledger: tells which pictures wait.
        """
        self._folder, self._out, self._ledger = Path(os.path.abspath(folder)), out_dir, ledger
        self._reported: set[str] = set()

    def move_all(self) -> None:
        """Move every picture that waits.

        A picture that is gone or was changed after its verdict stays: its new content gets a
        verdict of its own. An interrupted move is finished. A picture that cannot be moved waits
        for the next call; the reason is logged once.
        """
        reported, self._reported = self._reported, set()
        for move in self._ledger.moves():
            try:
                moved = self._finish(move)
            except OSError as error:
                reason = f"{error.strerror}"
                if reason not in reported | self._reported:
                    logger.warning("%s cannot be moved to %s (%s); this is tried again.",
                                   move.identity.file, self._out, reason)  # fmt: skip
                self._reported.add(reason)
                continue
            self._ledger.end_move(move.sequence, moved=moved)

    def _finish(self, move: Move) -> bool:
        """Move a picture, or finish an interrupted move; False where it stays."""
        source = Path(move.identity.file)
        if identify(str(source)) != move.identity:
            return move.target is not None and os.path.lexists(move.target)
        if move.target is not None and _same_content(source, Path(move.target)):
            source.unlink()  # the copy to another file system was finished before the interruption
            return True
        return self._move(move, source)

    def _move(self, move: Move, source: Path) -> bool:
        target = next(t for t in _numbered(self._wanted(move)) if not os.path.lexists(t))
        target.parent.mkdir(parents=True, exist_ok=True)
        self._ledger.begin_move(move.sequence, str(target))
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(source, target)
            if identify(str(source)) == move.identity:
                source.unlink()
        if _is_same(move, target) or os.path.lexists(source):
            return True
        os.rename(target, source)  # it was replaced between the check and the move
        return False

    def _wanted(self, move: Move) -> Path:
        file = Path(move.identity.file)
        below = file.relative_to(self._folder) if file.is_relative_to(self._folder) else file.name
        return self._out / move.verdict / below


def _numbered(path: Path) -> Iterator[Path]:
    """Yield a path, then the same with -2, -3 ... before its ending."""
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1


def _copy(source: Path, target: Path) -> None:
    """Copy a file with its times, so that the target appears when it is complete and on disk."""
    temporary = temporary_name(target)
    try:
        shutil.copy2(source, temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        replace_file(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _same_content(source: Path, target: Path) -> bool:
    return target.is_file() and filecmp.cmp(source, target, shallow=False)


def _is_same(move: Move, target: Path) -> bool:
    """Return whether the moved file is the judged one; file systems round times differently."""
    found = identify(str(target))
    if found is None or found.size != move.identity.size:
        return False
    return abs(found.mtime_ns - move.identity.mtime_ns) <= 2_000_000_000
