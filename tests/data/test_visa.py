"""VisA in its three public forms, and the refusals where its split is not to be had."""

from __future__ import annotations

import shutil

import pytest

from faprompt.data import read_dataset, read_mask
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders


class TestOwnTree(ReaderSuite):
    name = "visa"
    train_refused = ""
    classes = {"candle": (3, 2, 2), "pcb1": (3, 2, 2)}

    def build(self, root):
        folders.visa_own(root)


class TestReorganised(ReaderSuite):
    name = "visa"
    train_refused = ""
    classes = {"candle": (3, 2, 2), "pcb1": (3, 2, 2)}

    def build(self, root):
        folders.visa_reorganised(root)


class TestAnomalibsTree(TestReorganised):
    """The same tree without the `1cls` level."""

    def build(self, root):
        folders.visa_reorganised(root)
        for name in folders.VISA_ROWS:
            (root / "1cls" / name).rename(root / name)
        (root / "1cls").rmdir()


@pytest.fixture
def own(tmp_path):
    folders.visa_own(tmp_path)
    return tmp_path


def split_file(root):
    return root / "split_csv/1cls.csv"


def test_public_and_reorganised_tree_give_the_same_records(tmp_path):
    folders.visa_own(tmp_path / "own")
    folders.visa_reorganised(tmp_path / "other")

    def facts(root):
        return sorted(
            (s.class_name, s.label, s.defect_type, s.image_path.name, s.has_pixel_label,
             [m.name for m in s.mask_paths])
            for s in read_dataset(root)
        )  # fmt: skip

    assert facts(tmp_path / "own") == facts(tmp_path / "other")


def test_small_class_ids_are_marked_under_both_policies(own):
    for sample in read_dataset(own):
        for policy in ("reference", "strict"):
            assert read_mask(sample, policy=policy).sum() == (15 if sample.label else 0)


def test_train_rows(own):
    found = read_dataset(own, split="train")
    assert [(s.class_name, s.label, s.image_path.name) for s in found] == [
        ("candle", 0, "0008.JPG"), ("pcb1", 0, "0008.JPG"),
    ]  # fmt: skip


def test_without_its_split_file_visa_is_refused_with_the_way_out(own):
    split_file(own).unlink()
    for dataset in ("auto", "visa"):
        with pytest.raises(DatasetError, match="1cls.csv is missing.*spot-diff"):
            read_dataset(own, dataset=dataset)


def test_two_class_form_alone_is_refused(tmp_path):
    folders.mvtec_class(
        tmp_path / "2cls_fewshot/candle", normal={"ok": ["1.JPG"]}, defects={"bad": ["1.JPG"]}
    )
    with pytest.raises(DatasetError, match="2cls_fewshot.*1cls"):
        read_dataset(tmp_path, dataset="visa")


def test_missing_pictures_block_and_missing_masks_do_not(own):
    (own / "candle/Data/Images/Normal/0010.JPG").unlink()
    (own / "pcb1/Data/Masks/Anomaly/008.png").unlink()
    found = read_dataset(own)
    assert found.counts()["candle"].normal == 2
    assert len(found.problems) == 1
    assert "candle/Data/Images/Normal/0010.JPG" in found.problems[0]
    assert found.unmasked == (own / "pcb1/Data/Images/Anomaly/008.JPG",)
    assert found.counts()["pcb1"].with_mask == 1


def test_unlisted_masks_are_orphans(own):
    stray = folders.mask(own / "pcb1/Data/Masks/Anomaly/077.png")
    assert read_dataset(own).orphan_masks == (stray,)


def test_a_class_without_masks_has_image_labels(own):
    shutil.rmtree(own / "pcb1/Data/Masks")
    found = read_dataset(own)
    pixels = {s.class_name: s.has_pixel_label for s in found}
    assert pixels == {"candle": True, "pcb1": False}
    assert any("no masks for pcb1" in line for line in found.warnings)
    assert found.unmasked == ()


def test_header_is_trimmed_and_byte_order_mark_ignored(own):
    rows = split_file(own).read_text().split("\n", 1)[1]
    split_file(own).write_text("\ufeffObject , Split, LABEL,image, mask\n" + rows, encoding="utf-8")
    assert len(read_dataset(own)) == 10


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("object,split,label,image,mask\ncandle,test,odd,a.JPG,\n", "line 2: label.*'odd'"),
        ("object,split,label,image,mask\ncandle,test,normal,,\n", "line 2: there is no image"),
        ("object,split,image,mask\ncandle,test,a.JPG,\n", "should have the columns.*it has object"),
        ("", "should have the columns"),
        ("object,split,label,image,mask\n", "test split is empty"),
    ],
)
def test_broken_split_files_are_refused(own, text, told):
    split_file(own).write_text(text)
    with pytest.raises(DatasetError, match=told):
        read_dataset(own)


def test_split_file_that_is_no_text(own):
    split_file(own).write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_dataset(own)
