"""Folders named one by one, from Python and from a description file."""

from __future__ import annotations

import json

import pytest

from faprompt.data import read_dataset, read_folders, read_mask
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders


def pictures(root):
    """Three good, two later ones, two chips and a dent; masks flat in `truth`."""
    for name, files in {
        "parts": ["8.png", "9.png", "10.png"],
        "later": ["n1.png", "n2.png"],
        "chips": ["c8.png", "c9.png"],
        "dents": ["d1.png"],
    }.items():
        for file in files:
            folders.picture(root / name / file)
    for stem in ("c8", "c9", "d1"):
        folders.mask(root / "truth" / f"{stem}_mask.png")


ALL = 'normal = "parts"\nabnormal = ["chips", "dents"]\nmasks = "truth"\n'


class TestDescription(ReaderSuite):
    name = "folders"
    folder = "cups"
    classes = {"cups": (3, 3, 3)}

    def build(self, root):
        pictures(root)
        (root / "folders.toml").write_text(ALL)


class TestJsonDescription(TestDescription):
    classes = {"mug": (3, 3, 3)}

    def build(self, root):
        pictures(root)
        told = {"normal": ["parts"], "abnormal": ["chips", "dents"], "masks": "truth"}
        (root / "folders.json").write_text(json.dumps({**told, "class_name": "mug"}))


class TestOwnNormalTest(TestDescription):
    classes = {"cups": (2, 3, 3)}

    def build(self, root):
        pictures(root)
        (root / "folders.toml").write_text(ALL + 'normal_test = "later"\n')


class TestMasksPerFolder(TestDescription):
    def build(self, root):
        pictures(root)
        for stem in ("c8", "c9"):
            source = root / "truth" / f"{stem}_mask.png"
            (root / "truth/chips").mkdir(exist_ok=True)
            source.rename(root / "truth/chips" / source.name)
        (root / "folders.toml").write_text(ALL)


class TestMasksBeside(TestDescription):
    def build(self, root):
        pictures(root)
        for stem in ("c8", "c9", "d1"):
            place = root / ("dents" if stem == "d1" else "chips")
            (root / "truth" / f"{stem}_mask.png").rename(place / f"{stem}_mask.png")
        (root / "truth").rmdir()
        (root / "folders.toml").write_text(ALL.replace('masks = "truth"\n', ""))


@pytest.fixture
def root(tmp_path):
    pictures(tmp_path)
    return tmp_path


def test_from_python(root):
    found = read_folders(
        normal=root / "parts",
        abnormal=[root / "chips", str(root / "dents")],
        masks=root / "truth",
        class_name="cup",
    )
    assert found.name == "folders" and found.root == root
    assert found.class_names() == ("cup",)
    assert {(s.defect_type, s.label) for s in found} == {("good", 0), ("chips", 1), ("dents", 1)}
    assert all(sample.has_pixel_label for sample in found)
    assert read_mask(next(s for s in found if s.label)).sum() == 15
    assert found.reason == "normal pictures in parts, abnormal ones in chips, dents"


def test_folders_may_lie_anywhere(root, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    folders.picture(other / "bad/x.png")
    monkeypatch.chdir(root)
    found = read_folders(normal="parts", abnormal=other / "bad")
    assert (found.normal, found.anomalous) == (3, 1)
    assert all(sample.image_path.is_absolute() for sample in found)
    assert not any(sample.has_pixel_label for sample in found)


def test_normal_test_makes_two_splits(root):
    given = {
        "normal": root / "parts",
        "normal_test": root / "later",
        "abnormal": root / "chips",
        "masks": root / "truth",
    }
    test, train = read_folders(**given), read_folders(**given, split="train")
    assert [s.image_path.name for s in test] == ["c8.png", "c9.png", "n1.png", "n2.png"]
    assert [s.image_path.name for s in train] == ["8.png", "9.png", "10.png"]
    assert {s.split for s in train} == {"train"} and train.anomalous == 0
    assert test.orphan_masks == (root / "truth/d1_mask.png",)
    with pytest.raises(DatasetError, match="no 'val' split; it has 'test' and 'train'"):
        read_folders(**given, split="val")
    with pytest.raises(DatasetError, match="without normal_test, has no 'train' split"):
        read_folders(normal=root / "parts", split="train")


def test_orphans_on_both_sides(root):
    (root / "truth/c8_mask.png").unlink()
    (root / "chips/c9.png").unlink()
    found = read_folders(
        normal=root / "parts", abnormal=[root / "chips", root / "dents"], masks=root / "truth"
    )
    assert found.unmasked == (root / "chips/c8.png",)
    assert found.orphan_masks == (root / "truth/c9_mask.png",)


def test_a_description_of_any_name(root):
    file = root / "shelf.toml"
    file.write_text(ALL)
    found = read_dataset(file)
    assert found.name == "folders" and found.reason == "shelf.toml" and len(found) == 6
    with pytest.raises(DatasetError, match="holds no folders.toml or folders.json"):
        read_dataset(root, dataset="folders")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"normal": "none"}, "normal folder .*none does not exist"),
        ({"abnormal": ["chips", "none"]}, "abnormal folder .*none does not exist"),
        ({"normal_test": "empty"}, "normal_test folder .*empty holds no pictures"),
        ({"abnormal": "."}, "holds no pictures itself; name its folders one by one: chips"),
        ({"masks": "none"}, "masks folder .*none does not exist"),
        ({"normal_test": "parts"}, "parts is named twice; one folder has one role"),
        ({"abnormal": ["parts"]}, "named twice"),
        ({"masks": "chips"}, "named twice"),
        ({"abnormal": ["chips", "more/chips"]}, "several abnormal folders are called chips"),
        ({"normal": []}, "normal names no folder"),
    ],
)
def test_odd_folders_are_refused(root, change, told):
    (root / "empty").mkdir()
    folders.picture(root / "more/chips/1.png")
    given = {"normal": "parts", "abnormal": ["chips"], "masks": "truth", **change}
    full = {
        role: [root / x for x in value] if isinstance(value, list) else root / value
        for role, value in given.items()
    }
    with pytest.raises(DatasetError, match=told):
        read_folders(**full)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'normal' is missing"),
        ('normal = "parts"\nabnormals = "x"\nmask = 1\n', "'abnormals' is unknown; 'mask' is unk"),
        ("normal = 1", "'normal' should be a folder or a list of them, got 1"),
        ("normal = []", "'normal' should be a folder or a list"),
        ('normal = ["a", 2]', "'normal' should be a folder or a list"),
        ('normal = "parts"\nmasks = ["truth"]', "'masks' should be text"),
        ('normal = "parts"\nclass_name = 3', "'class_name' should be text"),
        ("normal = ", "no readable TOML"),
    ],
)
def test_descriptions_that_cannot_be_followed(root, text, told):
    (root / "folders.toml").write_text(text)
    with pytest.raises(DatasetError, match=told):
        read_dataset(root)


def test_json_that_is_no_description(root):
    (root / "folders.json").write_text("[]")
    with pytest.raises(DatasetError, match="should hold normal, abnormal"):
        read_dataset(root)
