"""Plain folders: good beside defects, masks flat, in subfolders, beside, or nowhere."""

from __future__ import annotations

import pytest

from faprompt.data import read_dataset
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders


def pictures(root):
    for kind, count in (("good", 3), ("dent", 2), ("scratch", 2)):
        for name in folders.names(count):
            folders.picture(root / kind / name)


class TestWithoutMasks(ReaderSuite):
    name = "folder"
    folder = "cups"
    classes = {"cups": (3, 4, 0)}

    def build(self, root):
        pictures(root)


class TestMasksPerDefect(ReaderSuite):
    name = "folder"
    folder = "cups"
    classes = {"cups": (3, 4, 4)}

    def build(self, root):
        pictures(root)
        for kind in ("dent", "scratch"):
            for name in folders.names(2):
                folders.mask(root / "ground_truth" / kind / name)


class TestMasksFlat(ReaderSuite):
    name = "folder"
    folder = "cups"
    classes = {"cups": (2, 3, 3)}

    def build(self, root):
        for kind, names in (("ok", ["o1", "o2"]), ("dent", ["d1", "d2"]), ("scratch", ["s1"])):
            for name in names:
                folders.picture(root / kind / f"{name}.jpg")
                folders.mask(root / "Masks" / f"{name}_mask.png", value=255 * (kind != "ok"))


class TestMasksBeside(ReaderSuite):
    name = "folder"
    folder = "cups"
    classes = {"cups": (3, 4, 4)}

    def build(self, root):
        pictures(root)
        for path in (*root.glob("dent/*"), *root.glob("scratch/*"), *root.glob("good/9.png")):
            folders.mask(
                path.with_name(f"{path.stem}_mask.png"), value=255 * (path.parent.name != "good")
            )


def test_defect_types(tmp_path):
    pictures(tmp_path)
    found = read_dataset(tmp_path)
    assert {s.defect_type: s.label for s in found} == {"dent": 1, "good": 0, "scratch": 1}


def test_orphans_on_both_sides(tmp_path):
    TestMasksPerDefect().build(tmp_path)
    (tmp_path / "ground_truth/dent/8.png").unlink()
    (tmp_path / "scratch/9.png").unlink()
    stray = folders.mask(tmp_path / "ground_truth/burn/1.png")
    found = read_dataset(tmp_path)
    assert found.unmasked == (tmp_path / "dent/8.png",)
    assert found.orphan_masks == (stray, tmp_path / "ground_truth/scratch/9.png")


def test_a_lost_mask_beside_pictures_is_no_picture(tmp_path):
    TestMasksBeside().build(tmp_path)
    (tmp_path / "dent/8.png").unlink()
    (tmp_path / "good/9.png").unlink()
    found = read_dataset(tmp_path)
    assert (found.normal, found.anomalous) == (2, 3)
    assert found.orphan_masks == (tmp_path / "dent/8_mask.png", tmp_path / "good/9_mask.png")


def test_names_ending_like_masks_are_pictures_where_nothing_is_a_mask(tmp_path):
    folders.picture(tmp_path / "good/ffp2_mask.png")
    folders.picture(tmp_path / "torn/ffp3_mask.png")
    found = read_dataset(tmp_path)
    assert (found.normal, found.anomalous, found.orphan_masks) == (1, 1, ())


def test_one_flat_mask_for_two_pictures_blocks(tmp_path):
    pictures(tmp_path)
    folders.mask(tmp_path / "masks/8.png")
    found = read_dataset(tmp_path)
    assert len(found.problems) == 1
    assert "masks/8.png could be the mask of dent/8.png, scratch/8.png" in found.problems[0]


def test_two_mask_folders_are_refused(tmp_path):
    TestMasksPerDefect().build(tmp_path)
    folders.mask(tmp_path / "masks/dent/8.png")
    with pytest.raises(DatasetError, match="holds ground_truth, masks; only one"):
        read_dataset(tmp_path)


def test_no_normal_folder_is_refused(tmp_path):
    folders.picture(tmp_path / "dent/1.png")
    for dataset in ("auto", "folder"):
        with pytest.raises(DatasetError, match="dent"):
            read_dataset(tmp_path, dataset=dataset)


def test_pictures_without_folders_are_refused(tmp_path):
    folders.picture(tmp_path / "1.png")
    with pytest.raises(DatasetError, match="1 pictures but no labels"):
        read_dataset(tmp_path)


def test_the_test_part_of_a_tree_hints_at_the_masks_above(tmp_path):
    folders.mvtec_class(tmp_path, normal={"good": ["1.png"]}, defects={"dent": ["1.png"]})
    found = read_dataset(tmp_path / "test")
    assert found.name == "folder"
    assert any("give the folder above" in line for line in found.warnings)


def test_folders_without_pictures_are_told(tmp_path):
    pictures(tmp_path)
    folders.picture(tmp_path / "more/dent/1.png")
    assert any("directly in more" in line for line in read_dataset(tmp_path).warnings)


def test_normal_pictures_alone(tmp_path):
    folders.picture(tmp_path / "good/1.png")
    found = read_dataset(tmp_path)
    assert (found.normal, found.anomalous) == (1, 0)
