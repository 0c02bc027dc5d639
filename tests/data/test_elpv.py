"""ELPV: three columns without a header, uncertain cells, the published quarter."""

from __future__ import annotations

import hashlib

import pytest

from faprompt.data import read_dataset
from faprompt.data.layout_reader import paper_normals
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders, industrial
from tests.helpers.shared import shared_data

# SHA-256 of the 377 normal cells of the paper's test split: their sorted paths, one a line
FINGERPRINT = "f5100c8625db1ce585c6402ba0d1658aecd578e5f84df61ce8f6b383178d8280"


class TestElpv(ReaderSuite):
    name = "elpv"
    classes = {"elpv": (3, 3, 0)}
    classes_of_all = {"elpv": (10, 3, 0)}

    def build(self, root):
        industrial.elpv(root)


class TestRepository(TestElpv):
    """The data folder deep inside, as the repository has it today."""

    def build(self, root):
        industrial.elpv(root / "src/elpv_dataset/data")


@pytest.fixture
def root(tmp_path):
    industrial.elpv(tmp_path)
    return tmp_path


def rows_of(root):
    return (root / "labels.csv").read_text().splitlines()


def rewrite(root, rows):
    (root / "labels.csv").write_text("\n".join(rows) + "\n")


def test_labels_types_and_uncertain_cells(root):
    found = read_dataset(root, subset="all")
    assert [s.image_path.stem for s in found if s.label] == ["cell0016", "cell0020", "cell0021"]
    names = {sample.image_path.stem for sample in found}
    assert not names & {"cell0017", "cell0019"} and len(names) == 13
    assert any("2 cells of probability 1/3 or 2/3 are left out" in w for w in found.warnings)
    assert {s.image_path.stem[-2:]: s.defect_type for s in found}["16"] == "mono"
    assert {s.image_path.stem[-2:]: s.defect_type for s in found}["21"] == "poly"
    assert not any(sample.has_pixel_label for sample in found)
    assert found.problems == ()


def test_the_draw_follows_the_rows_and_not_the_names(root):
    rewrite(root, reversed(rows_of(root)))
    sound = [row.split()[0] for row in rows_of(root) if row.split()[1] == "0.0"]
    kept = {s.image_path.relative_to(root).as_posix() for s in read_dataset(root) if not s.label}
    assert kept == {sound[place] for place in paper_normals(10)}
    assert [s.image_path.stem for s in read_dataset(root)] == sorted(
        s.image_path.stem for s in read_dataset(root)
    )


def test_a_lost_picture_blocks_and_changes_nothing_else(root):
    before = read_dataset(root)
    lost = next(sample for sample in before if not sample.label)
    lost.image_path.unlink()
    found = read_dataset(root)
    assert [s for s in before if s != lost] == list(found)
    assert found.problems == (
        f"1 pictures named in labels.csv are not there: images/{lost.image_path.name}",
    )


def test_pictures_off_the_list_are_told(root):
    folders.picture(root / "images/zusätzlich.png")
    found = read_dataset(root, subset="all")
    assert len(found) == 13
    assert any("not in labels.csv and left out: images/zus" in line for line in found.warnings)


def test_probabilities_are_compared_with_a_tolerance(root):
    rewrite(root, [row.replace("0.3333333333333333", "0.33333") for row in rows_of(root)])
    assert read_dataset(root).anomalous == 3


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("images/cell0099.png 0.5 mono", "line 16: probability should be .*got 0.5"),
        ("images/cell0099.png nan mono", "line 16: probability should be .*got nan"),
        ("images/cell0099.png high mono", "line 16: probability should be .*got high"),
        ("images/cell0099.png 0.0", r"line 16: should be picture, probability.*got \["),
        ("images/cell0099.png 0.0 other", "line 16: should be picture.*'other'"),
        ("images/cell0008.png 0.0 mono", "names a picture twice"),
    ],
)
def test_broken_rows_are_refused(root, row, told):
    rewrite(root, [*rows_of(root), row])
    with pytest.raises(DatasetError, match=told):
        read_dataset(root)


def test_blank_lines_and_a_byte_order_mark_are_ignored(root):
    text = "\n\n".join(rows_of(root))
    (root / "labels.csv").write_text("\ufeff" + text + "\n\n", encoding="utf-8")
    assert len(read_dataset(root, subset="all")) == 13


@pytest.mark.parametrize("text", [b"id, hemorrhage\n0,1\n", b"\xff\xfe\x00\x81", b""])
def test_another_list_of_that_name_is_not_ours(root, text):
    (root / "labels.csv").write_bytes(text)
    with pytest.raises(DatasetError, match="is not elpv: expected labels.csv .*found images"):
        read_dataset(root, dataset="elpv")


def test_the_real_cells_are_those_of_the_published_converters():
    folder = shared_data() / "elpv"
    if not folder.is_dir():
        pytest.skip("needs the real ELPV in ../shared/data/elpv")
    found = read_dataset(folder)
    assert (found.normal, found.anomalous) == (377, 715)
    kept = sorted(f"images/{sample.image_path.name}" for sample in found if not sample.label)
    assert hashlib.sha256("\n".join(kept).encode()).hexdigest() == FINGERPRINT
