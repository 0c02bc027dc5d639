"""DAGM 2007: labels told by masks, both parts, nested classes, names in capitals."""

from __future__ import annotations

import shutil

import pytest

from faprompt.data import published_counts, read_dataset
from faprompt.data.class_trees import DagmReader
from faprompt.data.dataset_catalog import dataset_of_classes
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders, industrial


class TestDagm(ReaderSuite):
    name = "dagm"
    train_refused = ""
    classes = {"Class1": (2, 2, 2), "Class2": (2, 2, 2), "Class10": (2, 2, 2)}
    mask_suffix = "_label"

    def build(self, root):
        industrial.dagm(root)


@pytest.fixture
def root(tmp_path):
    industrial.dagm(tmp_path)
    return tmp_path


def test_labels_come_from_the_masks(root):
    found = read_dataset(root)
    own = [s for s in found if s.class_name == "Class2"]
    assert [(s.image_path.name, s.label, s.defect_type) for s in own] == [
        ("0008.PNG", 0, "good"), ("0009.PNG", 1, "defect"), ("0010.PNG", 1, "defect"),
        ("0011.PNG", 0, "good"),
    ]  # fmt: skip
    assert own[0].image_path == root / "Class2/Class2/Test/0008.PNG"
    assert all(sample.has_pixel_label for sample in found)
    assert found.class_names() == ("Class1", "Class2", "Class10")


def test_train_part_holds_both_labels(root):
    found = read_dataset(root, split="train")
    assert (found.normal, found.anomalous) == (6, 6)
    assert {sample.image_path.parent.name for sample in found} == {"Train"}
    assert {sample.split for sample in found} == {"train"}


def test_a_mask_that_the_list_announces_is_missed(root):
    (root / "Class1/Test/Label/0009_label.PNG").unlink()
    (root / "Class2/Class2/Test/label/0009_label.PNG").unlink()
    found = read_dataset(root)
    assert found.unmasked == (root / "Class1/Test/0009.PNG",)
    assert found.counts()["Class1"].anomalous == 2 and found.counts()["Class1"].with_mask == 1
    # without a list nobody can know
    assert found.counts()["Class2"].anomalous == 1


def test_masks_win_over_the_list(root):
    folders.mask(root / "Class1/Test/Label/0011_label.PNG")
    found = read_dataset(root)
    assert found.counts()["Class1"].anomalous == 3
    assert any("masks win: Class1/Test/0011.PNG" in line for line in found.warnings)


def test_a_lost_mask_shifts_no_other(root):
    folders.mask(root / "Class10/Test/Label/0007_label.PNG")
    found = read_dataset(root)
    assert found.orphan_masks == (root / "Class10/Test/Label/0007_label.PNG",)
    assert found.counts()["Class10"].with_mask == 2


def test_two_masks_of_one_picture_block(root):
    folders.mask(root / "Class1/Test/Label/0009_label.bmp")
    found = read_dataset(root)
    assert any("0009.PNG has several masks" in line for line in found.problems)
    assert found.counts()["Class1"].anomalous == 2


def test_a_class_without_masks_or_list_blocks(root):
    shutil.rmtree(root / "Class2/Class2/Test/label")
    found = read_dataset(root)
    assert found.class_names() == ("Class1", "Class10")
    assert "nothing in Class2/Class2/Test/Label says" in found.problems[0]


def test_a_list_alone_gives_image_labels(root):
    for mask in (root / "Class1/Test/Label").glob("*.PNG"):
        mask.unlink()
    found = read_dataset(root)
    own = [sample for sample in found if sample.class_name == "Class1"]
    assert [sample.label for sample in own] == [0, 1, 1, 0]
    assert not any(sample.has_pixel_label for sample in own)
    assert any("no masks for Class1" in line for line in found.warnings)
    assert found.unmasked == ()


def test_a_list_that_is_no_text_is_told(root):
    (root / "Class1/Test/Label/Labels.txt").write_bytes(b"\xff\xfe\x00\x81")
    found = read_dataset(root)
    assert any("Class1/Test/Label/Labels.txt cannot be read" in line for line in found.warnings)
    assert len(found) == 12


def test_a_class_without_the_part_is_told(root):
    shutil.rmtree(root / "Class10/Test")
    found = read_dataset(root)
    assert any("no test pictures in Class10" in line for line in found.warnings)
    assert found.class_names() == ("Class1", "Class2")


def test_folder_names_in_any_case(tmp_path):
    industrial.dagm_class(tmp_path / "CLASS3", label_folder="LABEL", parts=("TEST",))
    found = read_dataset(tmp_path)
    assert found.name == "dagm" and found.counts()["Class3"].with_mask == 2
    with pytest.raises(DatasetError, match="train split is empty. no train pictures in CLASS3"):
        read_dataset(tmp_path, split="train")


def test_two_spellings_of_one_part_are_not_recognised(root):
    (root / "Class1/test").mkdir()
    assert DagmReader().recognise(root) is None
    with pytest.raises(DatasetError, match="only one of them is wanted"):
        read_dataset(root, dataset="dagm")


def test_another_folder_is_refused(tmp_path):
    folders.picture(tmp_path / "Class1/Test/1.png")
    with pytest.raises(DatasetError, match="expected Class<n>/Test.*found Class1"):
        read_dataset(tmp_path, dataset="dagm")


def test_a_list_with_capital_keys_over_the_same_tree(root):
    def rows(part):
        return {
            "Class1": [
                folders.record(f"Class1/{part}/0008.PNG", 0, class_name="Class1"),
                folders.record(
                    f"Class1/{part}/0009.PNG", 1, class_name="Class1",
                    mask=f"Class1/{part}/Label/0009_label.PNG",
                ),
            ]
        }  # fmt: skip

    by_folder = read_dataset(root, dataset="dagm")
    folders.write_meta(root / "list.json", {"Train": rows("Train"), "Test": rows("Test")})
    found = read_dataset(root / "list.json", dataset="dagm")
    assert found.name == "dagm"
    wanted = [(s.image_path, s.label, s.mask_paths, s.class_name) for s in by_folder][:2]
    assert [(s.image_path, s.label, s.mask_paths, s.class_name) for s in found] == wanted


def test_plain_class_names_tell_the_dataset_only_together():
    names = frozenset(published_counts("dagm"))
    assert len(names) == 10 and dataset_of_classes(names) == "dagm"
    assert dataset_of_classes(names - {"Class10"}) is None
    assert dataset_of_classes(frozenset({"Class1"})) is None
