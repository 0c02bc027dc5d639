"""Which files are complete, and which are left out."""

from __future__ import annotations

import os

import pytest

from faprompt.watching.folder_looks import FolderLooks, identify
from tests.helpers.systems import needs_posix


def nothing(_identity) -> bool:
    return False


def names(found) -> list[str]:
    return [os.path.basename(path) for path in found]


def test_a_picture_is_complete_when_two_looks_agree(tmp_path):
    looks, path = FolderLooks(tmp_path), tmp_path / "a.png"
    path.write_bytes(b"1")
    assert names(looks.look(nothing)) == []
    path.write_bytes(b"12")
    assert names(looks.look(nothing)) == []
    assert names(looks.look(nothing)) == ["a.png"]
    assert names(looks.look(nothing)) == ["a.png"]  # until it is known


def test_space_that_was_reserved_does_not_count_as_complete(tmp_path):
    """Some programs make the file as large as it will be, then write it."""
    looks, path = FolderLooks(tmp_path), tmp_path / "a.png"
    for time_ns in (1, 2, 3):
        path.write_bytes(bytes(10))
        os.utime(path, ns=(time_ns, time_ns))
        assert names(looks.look(nothing)) == []
    assert names(looks.look(nothing)) == ["a.png"]


def test_a_renamed_picture_is_seen_whole(tmp_path):
    looks, part = FolderLooks(tmp_path), tmp_path / "a.png.part"
    part.write_bytes(b"123")
    assert not looks.look(nothing) and not looks.look(nothing)
    part.rename(tmp_path / "a.png")
    looks.look(nothing)
    assert names(looks.look(nothing)) == ["a.png"]


@needs_posix
def test_the_oldest_comes_first_and_hidden_files_do_not(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    wanted = ["sub/deep/c.PNG", "b.tif", "a.jpg"]
    others = [".d.png", "e.txt", "out/f.png", ".hidden/g.png", "noending"]
    for at, name in enumerate(wanted + others):
        (tmp_path / name).write_bytes(b"1")
        os.utime(tmp_path / name, ns=(at, at))
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "linked").symlink_to(tmp_path / "out")
    looks = FolderLooks(tmp_path, exclude={str(tmp_path / "out")})
    looks.look(nothing)
    assert list(looks.look(nothing)) == [str(tmp_path / name) for name in wanted]


def test_what_is_known_is_asked_once_until_it_changes(tmp_path):
    path, asked = tmp_path / "a.png", []
    path.write_bytes(b"1")

    def known(identity):
        asked.append(identity)
        return True

    looks = FolderLooks(tmp_path)
    for _ in range(3):
        assert not looks.look(known)
    assert asked == [identify(str(path))]
    path.write_bytes(b"12")
    looks.look(known)
    assert len(asked) == 2


def test_a_folder_that_is_gone_is_an_error_and_one_below_it_is_not(tmp_path, caplog, monkeypatch):
    home = tmp_path / "in"
    looks = FolderLooks(home)
    with pytest.raises(FileNotFoundError):
        looks.look(nothing)
    (home / "closed").mkdir(parents=True)
    (home / "a.png").write_bytes(b"1")
    real = os.scandir

    def scandir(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with caplog.at_level("WARNING", logger="faprompt"):
        looks.look(nothing)
        assert names(looks.look(nothing)) == ["a.png"]
    assert caplog.text.count("closed cannot be listed") == 1
