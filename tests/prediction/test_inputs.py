"""Files, folders and patterns become one list in a stable order."""

from __future__ import annotations

import os

import pytest

from faprompt.errors import ImageReadError
from faprompt.prediction import artifact_folders, expand_inputs, natural_key


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with pictures and what lies about among them; the current folder."""
    names = ["part10.png", "part2.JPG", "sub/Teil ß.TIFF", "sub/deep/検査.webp", "b.bmp"]
    clutter = ["Thumbs.db", ".DS_Store", "._part2.JPG", "notes.txt", "__MACOSX/part2.jpg"]
    clutter += ["sub/desktop.ini", "part2.JPG.bak"]
    for name in names + clutter:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "set"


IN_ORDER = ["b.bmp", "part2.JPG", "part10.png", "sub/deep/検査.webp", "sub/Teil ß.TIFF"]


def names(paths):
    return [path.as_posix() for path in paths]


def test_a_folder_gives_its_pictures_in_natural_order(tree):
    assert names(expand_inputs([tree])) == [f"{tree.as_posix()}/{name}" for name in IN_ORDER]
    assert names(expand_inputs(["set"])) == [f"set/{name}" for name in IN_ORDER]


def test_a_named_file_is_always_tried(tree):
    assert names(expand_inputs(["set/notes.txt", "set/._part2.JPG"])) == [
        "set/notes.txt",
        "set/._part2.JPG",
    ]


def test_patterns(tree):
    assert names(expand_inputs(["set/part*"])) == ["set/part2.JPG", "set/part10.png"]
    assert names(expand_inputs(["set/*.txt"])) == ["set/notes.txt"]
    assert names(expand_inputs(["set/**/*.TIFF"])) == ["set/sub/Teil ß.TIFF"]
    assert len(expand_inputs(["set/**"])) == 5 + 1  # __MACOSX was named by the pattern


def test_a_file_with_brackets_in_its_name_is_a_file(tree):
    (tree / "shot[1].png").write_bytes(b"x")
    assert names(expand_inputs(["set/shot[1].png"])) == ["set/shot[1].png"]


def test_the_order_of_inputs_is_kept_and_each_file_comes_once(tree):
    given = ["set/part10.png", "set", str(tree / "b.bmp"), "./set/part10.png"]
    found = names(expand_inputs(given))
    assert found[0] == "set/part10.png"
    assert len(found) == len(IN_ORDER) == len(set(found))


def test_the_output_folder_is_left_out(tree):
    (tree / "out/overlays").mkdir(parents=True)
    (tree / "out/overlays/b.jpg").write_bytes(b"x")
    (tree / "output.png").write_bytes(b"x")
    found = names(expand_inputs(["set"], exclude=["set/out"]))
    assert "set/output.png" in found and "set/out/overlays/b.jpg" not in found
    for named in ("set/out/overlays/b.jpg", "set/out/overlays"):  # named itself: taken
        assert names(expand_inputs([named], exclude=["set/out"])) == ["set/out/overlays/b.jpg"]


def test_a_run_into_its_own_input_folder_does_not_read_its_overlays(tree):
    before = expand_inputs(["set"], exclude=artifact_folders("set"))
    for name in ("maps", "overlays", "thumbs"):
        (tree / name).mkdir()
        (tree / name / "b.png").write_bytes(b"x")
    assert expand_inputs(["set"], exclude=artifact_folders("set")) == before
    assert len(expand_inputs(["set"])) == len(before) + 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("set/nothing.png", "nothing.png: no such file or folder"),
        ("set/*.gif", r"gif: the pattern matches no picture"),
        ("empty", "empty: no pictures in this folder or below it"),
    ],
)
def test_nothing_found_names_the_input(tree, given, message):
    os.mkdir("empty")
    with pytest.raises(ImageReadError, match=message):
        expand_inputs(["set", given])


def test_natural_key():
    shuffled = ["a1/b", "a01/b", "A2", "a10", "a2", "a", "b/2", "b/10", "a1"]
    assert sorted(shuffled, key=natural_key) == sorted(reversed(shuffled), key=natural_key)
    assert sorted(["x10y2", "x9y30", "x10y1"], key=natural_key) == ["x9y30", "x10y1", "x10y2"]
    assert sorted(["a2", "A2"], key=natural_key) == ["A2", "a2"]
