"""`no` and `yes`: BrainMRI, Br35H, and your own pictures."""

from __future__ import annotations

import shutil

import pytest

from faprompt.data import check_dataset, read_dataset
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders


class TestBrainMriNested(ReaderSuite):
    """The Kaggle archive holds everything twice; one level is read."""

    name = "brainmri"
    classes = {"brain": (3, 4, 0)}

    def build(self, root):
        folders.yes_no(root / "brain_tumor_dataset")
        shutil.copytree(root / "brain_tumor_dataset", root, dirs_exist_ok=True)

    def test_what_is_left_out_is_told(self, root):
        assert any("left out: no, yes" in line for line in read_dataset(root).warnings)


class TestBr35h(ReaderSuite):
    """`pred/` and the Mask-RCNN part are no labelled pictures."""

    name = "br35h"
    classes = {"brain": (3, 4, 0)}

    def build(self, root):
        folders.yes_no(root)
        folders.picture(root / "pred/pred0.jpg")
        folders.picture(root / "Br35H-Mask-RCNN/TRAIN/y1.jpg")

    def test_what_is_left_out_is_told(self, root):
        assert any("Br35H-Mask-RCNN, pred" in line for line in read_dataset(root).warnings)


class TestYesNo(ReaderSuite):
    name = "yes_no"
    folder = "welds"
    classes = {"welds": (3, 4, 0)}

    def build(self, root):
        folders.yes_no(root)


@pytest.fixture
def scans(tmp_path):
    folders.yes_no(tmp_path, normal=98, anomalous=155)
    return tmp_path


def test_the_published_counts_name_the_dataset(scans):
    check = check_dataset(scans)
    assert (check.dataset, check.matches_paper) == ("brainmri", True)


def test_one_picture_less_is_nobodys_dataset(scans):
    (scans / "yes/Y8.JPG").unlink()
    assert read_dataset(scans).name == "yes_no"
    named = check_dataset(scans, dataset="brainmri")
    assert (named.dataset, named.matches_paper) == ("brainmri", False)
    assert any("98 + 154 instead of 98 + 155" in line for line in named.warnings)


def test_a_third_kind_makes_it_a_plain_folder(tmp_path):
    folders.yes_no(tmp_path)
    folders.picture(tmp_path / "unsure/1.png")
    found = read_dataset(tmp_path)
    assert found.name == "folder"
    assert (found.normal, found.anomalous) == (3, 5)


def test_no_in_two_spellings_is_refused_by_name(tmp_path):
    folders.yes_no(tmp_path)
    shutil.copytree(tmp_path / "no", tmp_path / "No")
    with pytest.raises(DatasetError, match="holds No, no; only one of them"):
        read_dataset(tmp_path, dataset="brainmri")


def test_the_neighbour_is_refused_by_name(scans):
    with pytest.raises(DatasetError, match="is not br35h.*found brainmri"):
        read_dataset(scans, dataset="br35h")
