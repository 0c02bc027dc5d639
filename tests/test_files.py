"""Files are written whole, identified by content, and written by one run at a time."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest

from faprompt import files
from faprompt.errors import FolderInUseError
from faprompt.files import (
    csv_text,
    file_digest,
    file_stems,
    natural_key,
    temporary_name,
    unique_stem,
    write_atomically,
)
from faprompt.work import LOCK_NAME, lock_folder

HOLD = """
import sys, time
from faprompt.work import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_write_that_fails_keeps_the_old_content_and_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "results.csv"
    write_atomically(target, b"old")

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["results.csv"]
    assert temporary_name(target).parent == tmp_path


@pytest.mark.parametrize(("refusals", "written"), [(0, b"new"), (3, b"new"), (99, b"old")])
def test_windows_waits_for_a_program_that_reads_the_file(tmp_path, monkeypatch, refusals, written):
    target, replace, waits, calls = tmp_path / "results.csv", os.replace, [], []
    target.write_bytes(b"old")

    def busy(source, goal):
        calls.append(goal)
        if len(calls) <= refusals:
            raise PermissionError("[WinError 5] Access is denied")
        replace(source, goal)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(files.time, "sleep", waits.append)
    if written == b"old":
        with pytest.raises(PermissionError):
            write_atomically(target, b"new")
    else:
        write_atomically(target, b"new")
    assert target.read_bytes() == written
    assert os.listdir(tmp_path) == ["results.csv"]
    assert len(waits) == min(refusals, 7) and sum(waits) < 2


def test_other_systems_do_not_wait(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(files.time, "sleep", lambda _: pytest.fail("it waited"))
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "a", b"")


def test_windows_flushes_no_folder(tmp_path, monkeypatch):
    """It cannot open one; files are flushed on every system."""
    flushed, sync = [], os.fsync

    def note(descriptor):
        flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", note)
    write_atomically(tmp_path / "a", b"x", durable=True)
    assert flushed == [False, True] if os.name == "posix" else [False]
    flushed.clear()
    monkeypatch.setattr(files, "sys", SimpleNamespace(platform="win32"))
    write_atomically(tmp_path / "b", b"x", durable=True)
    assert flushed == [False] and (tmp_path / "b").read_bytes() == b"x"


def test_files_take_anothers_place_in_one_way():
    source = Path(files.__file__).parent
    texts = {path.name: path.read_text(encoding="utf-8") for path in source.rglob("*.py")}
    assert [name for name, text in texts.items() if "os.replace(" in text] == ["files.py"]


def test_names_that_windows_or_macos_take_for_one_file_are_kept_apart():
    composed, split = "caf\u00e9", "cafe\u0301"
    stems = file_stems([composed, split, "CAF\u00c9", "COM1.x", "lpt\u00b9", "a\tb", "x" * 9 + " "])
    assert [*stems.values()] == [
        composed, f"{split}-2", "CAF\u00c9-3", "_COM1.x", "_lpt\u00b9", "a_b", "x" * 9 + "_",
    ]  # fmt: skip
    assert unique_stem("in/AUX.png").startswith("AUX-")  # with more after it: no device
    assert unique_stem("in/AUX.1.png").startswith("_AUX.1-")
    assert not set('<>:"/\\|?*') & set(unique_stem('a<b>:c"|?*.png'))


def test_the_digest_is_that_of_the_content(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_second_run_is_refused_while_the_first_one_holds_the_folder(tmp_path):
    folder = tmp_path / "new" / "out"
    refused = pytest.raises(FolderInUseError, match="being written by another run")
    with lock_folder(folder), refused, lock_folder(folder):
        pass
    with lock_folder(folder):
        pass  # free again


def test_a_run_that_fails_leaves_no_empty_folder_and_no_folder_is_lost(tmp_path):
    def fail_in(folder):
        with lock_folder(folder):
            raise KeyboardInterrupt

    for name in ("new", "new/deep/er", "kept"):
        (tmp_path / "kept").mkdir(exist_ok=True)
        with pytest.raises(KeyboardInterrupt):
            fail_in(tmp_path / name)
    assert os.listdir(tmp_path) == ["kept"]
    with pytest.raises(KeyboardInterrupt), lock_folder(tmp_path / "used"):
        (tmp_path / "used" / "result").write_bytes(b"x")
        raise KeyboardInterrupt
    assert (tmp_path / "used" / "result").is_file()


def test_windows_frees_the_folder_after_the_lock(tmp_path, monkeypatch):
    """It removes no open file; filelock removes its own when it lets go."""
    unlink = Path.unlink

    def refuse(path, missing_ok=False):
        assert path.name == LOCK_NAME
        raise PermissionError("[WinError 32] The file is used by another process")

    class WindowsLock(filelock.FileLock):
        def release(self, force=False):
            super().release(force)
            unlink(Path(self.lock_file))

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(filelock, "FileLock", WindowsLock)
    monkeypatch.setattr(Path, "unlink", refuse)
    with lock_folder(tmp_path / "new" / "deep"):
        pass
    with lock_folder(tmp_path / "used" / "deep"):
        (tmp_path / "used" / "deep" / "result").write_bytes(b"x")
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "result", "used"]


def test_a_killed_process_frees_the_folder(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FolderInUseError, match="another run"), lock_folder(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with lock_folder(tmp_path):
        pass


def test_text_for_a_spreadsheet():
    assert [csv_text(text) for text in ("", "a=b", "'=1", "=1", "\n=1", "＠a")] == [
        "", "a=b", "'=1", "'=1", "'\n=1", "'＠a",
    ]  # fmt: skip


def test_natural_key():
    shuffled = ["a1/b", "a01/b", "A2", "a10", "a2", "a", "b/2", "b/10", "a1"]
    assert sorted(shuffled, key=natural_key) == sorted(reversed(shuffled), key=natural_key)
    assert sorted(["x10y2", "x9y30", "x10y1"], key=natural_key) == ["x9y30", "x10y1", "x10y2"]
    assert sorted(["a2", "A2"], key=natural_key) == ["A2", "a2"]
