"""Judged pictures are moved, and nothing is ever overwritten or lost."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from faprompt.prediction import ResultRow
from faprompt.watching.folder_looks import identify
from faprompt.watching.verdict_folders import VerdictFolders
from faprompt.watching.watch_ledger import WatchLedger


@pytest.fixture
def home(tmp_path):
    (tmp_path / "in" / "gear").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.fixture
def ledger(home):
    ledger = WatchLedger(home / "out")
    yield ledger
    ledger.close()


@pytest.fixture(params=["same file system", "another file system"])
def folders(home, ledger, request, monkeypatch):
    if request.param != "same file system":
        real = os.rename

        def rename(source, target):
            if str(source).startswith(str(home / "in")):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            real(source, target)

        monkeypatch.setattr(os, "rename", rename)
    return VerdictFolders(home / "in", home / "out", ledger)


def judged(ledger, path, verdict="NG", content=b"picture"):
    path.write_bytes(content)
    row = ResultRow(str(path), "red", verdict=verdict)
    ledger.record(identify(str(path)), row, move=True, due=None)


def tree(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix == ".png"
    }


def test_pictures_keep_their_place_below_the_folder(home, ledger, folders):
    judged(ledger, home / "in" / "a.png", "OK", b"a")
    judged(ledger, home / "in" / "gear" / "a.png", "NG", b"b")
    judged(ledger, home / "in" / "c.png", "REVIEW", b"c")
    folders.move_all()
    assert tree(home) == {"out/OK/a.png": b"a", "out/NG/gear/a.png": b"b", "out/REVIEW/c.png": b"c"}
    assert list(ledger.moves()) == []


def test_no_file_is_overwritten(home, ledger, folders):
    (home / "out" / "NG").mkdir()
    (home / "out" / "NG" / "a.png").write_bytes(b"of somebody else")
    for content in (b"first", b"second", b"second", b""):
        judged(ledger, home / "in" / "a.png", content=content)
        folders.move_all()
    moved = tree(home)
    assert moved.pop("out/NG/a.png") == b"of somebody else"
    assert sorted(moved) == [f"out/NG/a-{n}.png" for n in (2, 3, 4, 5)]
    assert sorted(moved.values()) == [b"", b"first", b"second", b"second"]


def test_a_picture_that_changed_stays(home, ledger, folders):
    path = home / "in" / "a.png"
    judged(ledger, path)
    path.write_bytes(b"a new picture")
    folders.move_all()
    assert tree(home) == {"in/a.png": b"a new picture"} and list(ledger.moves()) == []


def test_a_picture_that_is_gone_is_forgotten(home, ledger, folders):
    judged(ledger, home / "in" / "a.png")
    (home / "in" / "a.png").unlink()
    folders.move_all()
    assert tree(home) == {} and list(ledger.moves()) == []


def test_a_move_that_ended_before_it_was_noted(home, ledger, folders):
    path, target = home / "in" / "a.png", home / "out" / "NG" / "a.png"
    judged(ledger, path)
    target.parent.mkdir()
    ledger.begin_move(1, str(target))
    shutil.move(path, target)
    folders.move_all()
    assert tree(home) == {"out/NG/a.png": b"picture"} and list(ledger.moves()) == []


def test_a_copy_that_ended_before_the_picture_was_removed(home, ledger, folders):
    path, target = home / "in" / "a.png", home / "out" / "NG" / "a.png"
    judged(ledger, path)
    target.parent.mkdir()
    ledger.begin_move(1, str(target))
    shutil.copy2(path, target)
    folders.move_all()
    assert tree(home) == {"out/NG/a.png": b"picture"} and list(ledger.moves()) == []


def test_a_picture_that_cannot_be_moved_waits_and_holds_up_no_other(
    home, ledger, monkeypatch, caplog
):
    folders = VerdictFolders(home / "in", home / "out", ledger)
    judged(ledger, home / "in" / "a.png")
    judged(ledger, home / "in" / "b.png")
    real = os.rename

    def rename(source, target):
        if str(source).endswith("in/a.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        real(source, target)

    with monkeypatch.context() as broken, caplog.at_level("WARNING", logger="faprompt"):
        broken.setattr(os, "rename", rename)
        folders.move_all()
        folders.move_all()
    assert tree(home) == {"in/a.png": b"picture", "out/NG/b.png": b"picture"}
    assert caplog.text.count("cannot be moved") == 1
    folders.move_all()
    assert sorted(tree(home)) == ["out/NG/a.png", "out/NG/b.png"]


def test_a_picture_that_is_replaced_during_the_move_is_put_back(home, ledger, monkeypatch):
    path = home / "in" / "a.png"
    judged(ledger, path)
    real = os.rename

    def rename(source, target):
        if str(source) == str(path):
            path.write_bytes(b"a longer picture")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    VerdictFolders(home / "in", home / "out", ledger).move_all()
    assert tree(home) == {"in/a.png": b"a longer picture"} and list(ledger.moves()) == []
