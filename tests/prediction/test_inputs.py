"""Files, folders and patterns become one list in a stable order."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from faprompt.errors import ImageReadError
from faprompt.prediction import expand_inputs
from faprompt.prediction.input_paths import describe_left_out
from faprompt.training.checkpoint import CHECKPOINT_NAME
from faprompt.work import LOCK_NAME
from tests.helpers.systems import needs_posix


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


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


KEY = "b-0123456789abcdef"
RUN = [f"maps/{KEY}.png", f"maps/{KEY}.npy", f"overlays/{KEY}.jpg", f"thumbs/{KEY}.jpg"]
RUN += [f"thumbs/{KEY}-overlay.jpg", "results.jsonl", "run.json", "report.html", "results.csv"]


@pytest.mark.parametrize("place", ["", "faprompt-results", "deep/er/res2"])
def test_what_an_earlier_run_wrote_is_no_input(tree, place, monkeypatch):
    """A run can also have ended between writing an overlay and its row."""
    make(tree / place, *RUN)
    wanted, left_out = [f"set/{name}" for name in IN_ORDER], Counter()
    assert names(expand_inputs(["set"], left_out=left_out)) == wanted
    assert left_out == {".txt": 1, ".bak": 1}
    assert set(names(expand_inputs(["set/**"]))) == {*wanted, "set/__MACOSX/part2.jpg"}
    overlay = f"{tree / place}/overlays/{KEY}.jpg"
    for named in (overlay, f"{tree / place}/overlays", f"{tree / place}/overlays/*.jpg"):
        assert names(expand_inputs([named])) == [overlay]  # named itself: taken
    monkeypatch.chdir(tree)
    assert names(expand_inputs(["."])) == IN_ORDER


@pytest.mark.parametrize("name", ["maps", "overlays", "thumbs", "gallery", "curves"])
def test_a_users_own_folder_is_read_whatever_its_name(tree, name):
    own = [f"{name}/{KEY}.png", f"{name}/city.png"]
    make(tree, *own, f"sub/{name}/city.png")
    found = names(expand_inputs(["set"]))
    assert {f"set/{path}" for path in own} < set(found) and f"set/sub/{name}/city.png" in found
    make(tree, *RUN)  # a run into the folder itself, beside the user's own pictures
    assert f"set/{name}/city.png" in names(expand_inputs(["set"]))


def test_pictures_that_other_verbs_wrote_are_no_inputs(tree):
    make(tree, f"{KEY}.png", f"{KEY}.html", f"{KEY}.json")  # explain
    make(tree, "eval/metrics.json", "eval/gallery/gallery.csv", "eval/gallery/missed.png")
    make(tree, "eval/curves/mug.png", "eval/curves/mug.csv")
    make(tree, "model/loss.png", "model/loss.csv", f"model/{LOCK_NAME}")
    make(tree, "windows/loss.png", "windows/loss.csv", f"windows/{CHECKPOINT_NAME}")
    make(tree, "study/figure.png", "study/figure.csv", "study/study.md")
    assert names(expand_inputs(["set"])) == [f"set/{name}" for name in IN_ORDER]
    for name in ("eval/metrics.json", f"model/{LOCK_NAME}", "study/study.md", f"{KEY}.html"):
        (tree / name).unlink()  # then nothing says that they are ours
    (tree / "windows" / CHECKPOINT_NAME).unlink()
    assert len(expand_inputs(["set"])) == len(IN_ORDER) + 6


@needs_posix
def test_other_kinds_of_files_are_counted(tree):
    make(tree, "a.heic", "b.HEIC", "sub/c.gif", "sub/d.nii", "e", ".hidden", ".git/x", "Icon\r")
    (tree / "elsewhere").symlink_to(tree / "sub")
    left_out = Counter()
    expand_inputs(["set", "set/b.bmp"], left_out=left_out)
    assert left_out == {
        ".heic": 2, ".gif": 1, ".nii": 1, ".txt": 1, ".bak": 1, "without extension": 1,
        "linked folder": 1,
    }  # fmt: skip
    assert describe_left_out(left_out).startswith(
        "2 .heic, 1 .bak, 1 .gif, 1 .nii, 1 .txt, 1 linked"
    )
    by_pattern = Counter()
    expand_inputs(["set/*"], left_out=by_pattern)
    assert by_pattern == {".heic": 2, ".txt": 1, ".bak": 1, "without extension": 1}


def test_many_other_kinds_are_named_in_part():
    left_out = Counter({f".{letter}": 20 - n for n, letter in enumerate("abcdefghij")})
    assert describe_left_out(left_out).endswith("13 .h and 2 other kinds")
    assert describe_left_out(Counter({"linked folder": 2})) == "2 linked folders"


def test_a_folder_without_pictures_says_what_it_holds(tree):
    make(tree, "scans/a.nii", "scans/b.nii")
    with pytest.raises(ImageReadError, match=r"no pictures .*; it holds 2 \.nii\."):
        expand_inputs(["set/scans"])


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
