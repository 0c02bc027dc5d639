"""HeadCT: a list with a blank in its header decides, and numbers meet padded names."""

from __future__ import annotations

import pytest

from faprompt.data import check_dataset, detect_dataset, read_dataset
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders

MODES = ("RGB", "RGBA", "LA", "P", "L")


def head_ct(root, *, pictures="head_ct/head_ct", ids=range(8, 13), anomalous=(8, 9, 12)):
    """Labels that no order of the ids could give."""
    rows = [f"{number},{int(number in anomalous)}" for number in ids]
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_text("id, hemorrhage\n" + "\n".join(rows) + "\n")
    for number in ids:
        mode = MODES[number % len(MODES)]
        folders.picture(root / pictures / f"{number:03d}.png", mode=mode)


class TestNested(ReaderSuite):
    name = "headct"
    classes = {"brain": (2, 3, 0)}

    def build(self, root):
        head_ct(root)

    def test_the_list_decides(self, root):
        labels = {s.image_path.stem: s.label for s in read_dataset(root)}
        assert labels == {"008": 1, "009": 1, "010": 0, "011": 0, "012": 1}


class TestUnnested(TestNested):
    def build(self, root):
        head_ct(root, pictures="head_ct")


@pytest.fixture
def root(tmp_path):
    head_ct(tmp_path)
    return tmp_path


def test_both_forms_give_the_same_records(tmp_path):
    def facts(root):
        return [
            (s.image_path.name, s.label, s.class_name, s.defect_type, s.has_pixel_label)
            for s in read_dataset(root)
        ]

    head_ct(tmp_path / "a")
    head_ct(tmp_path / "b", pictures="head_ct")
    assert facts(tmp_path / "a") == facts(tmp_path / "b")
    assert facts(tmp_path / "a")[0] == ("008.png", 1, "brain", "hemorrhage", False)


def test_both_levels_are_read_once(root):
    head_ct(root, pictures="head_ct")
    found = read_dataset(root)
    assert len(found) == 5
    assert {s.image_path.parent for s in found} == {root / "head_ct/head_ct"}
    assert any(line == "left out: head_ct/*" for line in found.warnings)


def test_all_two_hundred_equal_the_paper(tmp_path):
    head_ct(tmp_path, ids=range(200), anomalous=range(100))
    check = check_dataset(tmp_path)
    assert check.matches_paper is True
    assert (check.normal, check.anomalous) == (100, 100)
    assert read_dataset(tmp_path).samples[7].image_path.name == "007.png"


def test_header_without_the_blank_and_with_a_byte_order_mark(root):
    rows = (root / "labels.csv").read_text().split("\n", 1)[1]
    (root / "labels.csv").write_text("\ufeffID,Hemorrhage\n\n" + rows, encoding="utf-8")
    assert detect_dataset(root)[0].name == "headct"
    assert len(read_dataset(root)) == 5


def test_a_missing_picture_blocks_and_a_further_one_is_told(root):
    (root / "head_ct/head_ct/010.png").unlink()
    folders.picture(root / "head_ct/head_ct/099.png")
    folders.picture(root / "head_ct/head_ct/scan é.png")
    found = read_dataset(root)
    assert found.problems == ("1 ids of labels.csv have no picture: 10",)
    assert len(found) == 4
    told = "2 not in labels.csv and left out: head_ct/head_ct/099.png, head_ct/head_ct/scan é.png"
    assert told in found.warnings


def test_two_pictures_of_one_number_are_not_chosen_between(root):
    folders.picture(root / "head_ct/head_ct/8.png")
    found = read_dataset(root)
    assert len(found) == 4 and len(found.problems) == 1
    assert "id 8 of labels.csv could be any of" in found.problems[0]
    assert "008.png" in found.problems[0] and "/8.png" in found.problems[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,label\n8,1\n", "should have the header id, hemorrhage; it has id, label"),
        ("", "should have the header id, hemorrhage; it has nothing"),
        ("id, hemorrhage\n8,2\n", "line 2: should be an id and 0 or 1, got '8,2'"),
        ("id, hemorrhage\n8,1\nx,1\n", "line 3: should be an id"),
        ("id, hemorrhage\n8,1,0\n", "line 2: 3 cells where the header has 2"),
        ("id, hemorrhage\n8,1\n8,0\n", "line 3: id 8 stands twice"),
        ("id, hemorrhage\n", "test split is empty.*5 not in labels.csv"),
    ],
)
def test_broken_lists_are_refused(root, text, told):
    (root / "labels.csv").write_text(text)
    with pytest.raises(DatasetError, match=told):
        read_dataset(root, dataset="headct")


def test_a_list_that_is_no_text(root):
    (root / "labels.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_dataset(root, dataset="headct")
    with pytest.raises(DatasetError, match="is no dataset we know"):
        read_dataset(root)


def test_without_its_list_it_is_refused(root):
    (root / "labels.csv").unlink()
    with pytest.raises(DatasetError, match="is not headct.*found head_ct and no labels.csv"):
        read_dataset(root, dataset="headct")
