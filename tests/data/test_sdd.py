"""KolektorSDD: bands of a picture, palette masks, a quarter of the normal bands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from faprompt.data import check_dataset, dataset_info, read_dataset, read_mask
from faprompt.data.layout_reader import paper_normals
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders, industrial


class TestSdd(ReaderSuite):
    name = "sdd"
    classes = {"sdd": (4, 3, 3)}
    classes_of_all = {"sdd": (15, 3, 3)}
    test_the_same_from_a_meta_json = None  # that format holds whole pictures only
    mask_suffix = "_label"

    def build(self, root):
        industrial.sdd(root)

    def size_of(self, sample):
        return {0: 3, 3: 3, 6: 5}[sample.region[1]], 14

    def marked_pixels(self, sample):
        return {0: 5, 3: 10, 6: 10}[sample.region[1]]


@pytest.fixture
def root(tmp_path):
    industrial.sdd(tmp_path)
    return tmp_path


def places(found):
    return [(s.image_path.relative_to(found.root).as_posix(), s.region[1], s.label) for s in found]


def test_bands_and_their_labels(root):
    found = read_dataset(root, subset="all")
    assert places(found)[:6] == [
        ("kos2/Part2.jpg", 0, 0), ("kos2/Part2.jpg", 3, 0), ("kos2/Part2.jpg", 6, 0),
        ("kos2/Part10.jpg", 0, 0), ("kos2/Part10.jpg", 3, 0), ("kos2/Part10.jpg", 6, 1),
    ]  # fmt: skip
    crossing = [place for place in places(found) if place[0] == "kos10/Part1.jpg"]
    assert [label for _, _, label in crossing] == [1, 1, 0]
    assert {sample.defect_type for sample in found if sample.label} == {"defect"}
    assert {sample.defect_type for sample in found if not sample.label} == {"good"}


def test_the_quarter_is_drawn_from_the_natural_order_of_the_bands(root):
    every = [place for place in places(read_dataset(root, subset="all")) if not place[2]]
    kept = [place for place in places(read_dataset(root)) if not place[2]]
    assert kept == [every[at] for at in paper_normals(15)]


def test_palette_masks_are_read_as_grey(root):
    """85 in the file: marked by "reference"; by "strict" too, as no value is above 127."""
    path = root / "kos2/Part10_label.bmp"
    with Image.open(path) as stored:
        assert stored.mode == "P" and np.asarray(stored).max() == 1
        assert np.asarray(stored.convert("L")).max() == 85
    part = next(s for s in read_dataset(root) if s.image_path.name == "Part10.jpg" and s.label)
    for policy in ("reference", "strict"):
        assert read_mask(part, policy=policy).sum() == 10
    assert read_mask(replace(part, region=None)).shape == industrial.SDD_SIZE


def test_orphans_on_both_sides_shift_nothing(root):
    (root / "kos2/Part2_label.bmp").unlink()
    (root / "kos10/Part0.jpg").unlink()
    found = read_dataset(root, subset="all")
    assert found.orphan_masks == (root / "kos10/Part0_label.bmp",)
    assert any("left out: kos2/Part2.jpg" in line for line in found.warnings)
    assert (found.normal, found.anomalous) == (9, 3)
    assert found.problems == ()


def test_two_masks_of_one_picture_block(root):
    folders.mask(root / "kos10/Part1_label.png", size=industrial.SDD_SIZE)
    found = read_dataset(root)
    assert "kos10/Part1.jpg has several masks" in found.problems[0]
    assert found.anomalous == 1
    with pytest.raises(DatasetError, match="several masks"):
        found.require_usable()


@pytest.mark.parametrize("damage", ["mask", "size", "picture", "rows"])
def test_what_cannot_be_cut_blocks(root, damage):
    if damage == "mask":
        (root / "kos10/Part1_label.bmp").write_bytes(b"BM no picture")
    elif damage == "size":
        folders.mask(root / "kos10/Part1_label.bmp", size=(14, 11))
    elif damage == "picture":
        (root / "kos10/Part1.jpg").write_bytes(b"no picture")
    else:
        folders.picture(root / "kos10/Part1.jpg", size=(2, 14))
    found = read_dataset(root, subset="all")
    told = {
        "mask": "Part1_label.bmp cannot be read", "size": "14x11",
        "picture": "Part1.jpg cannot be read", "rows": "Part1.jpg: 2 rows cannot be cut",
    }[damage]  # fmt: skip
    assert len(found.problems) == 1 and told in found.problems[0]
    assert (found.normal, found.anomalous) == (14, 1)
    check = check_dataset(root)
    assert not check.usable


def test_the_counts_of_a_whole_download(root):
    """1143 normal bands give 286; a re-upload with one file more gives 287 and a warning."""
    info = dataset_info("sdd")
    assert (info.normal, info.anomalous) == (286, 54)
    assert any("not the paper's sdd" in line for line in read_dataset(root).warnings)


def test_a_single_picture_with_a_defect_in_every_band_needs_no_draw(tmp_path):
    industrial.sdd_picture(tmp_path / "kos01/Part0", rows=(0, 11))
    found = read_dataset(tmp_path)
    assert (found.normal, found.anomalous) == (0, 3)
    assert not any("normal samples are kept" in line for line in found.warnings)


def test_upper_case_names(tmp_path):
    industrial.sdd_picture(tmp_path / "KOS01/PART0", rows=(0, 2))
    (tmp_path / "KOS01/PART0.jpg").rename(tmp_path / "KOS01/PART0.JPG")
    (tmp_path / "KOS01/PART0_label.bmp").rename(tmp_path / "KOS01/PART0_label.BMP")
    assert read_dataset(tmp_path, subset="all").counts()["sdd"].with_mask == 1


def test_the_second_kolektor_set_is_refused(tmp_path):
    folders.picture(tmp_path / "train/10301.png")
    folders.mask(tmp_path / "train/10301_GT.png")
    with pytest.raises(DatasetError, match="is not sdd: .*it looks like KolektorSDD2"):
        read_dataset(tmp_path, dataset="sdd")


def test_another_folder_is_refused(tmp_path):
    folders.picture(tmp_path / "kos01/Part0.jpg")
    with pytest.raises(DatasetError, match="expected kosNN/Part.*found kos01"):
        read_dataset(tmp_path, dataset="sdd")
