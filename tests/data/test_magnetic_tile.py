"""Magnetic tiles: masks beside their pictures, one class, kinds of defects kept apart."""

from __future__ import annotations

import pytest

from faprompt.data import by_defect_type, read_dataset
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders


class TestMagneticTile(ReaderSuite):
    name = "magnetic_tile"
    classes = {"magnetic_tile": (4, 5, 5)}

    def build(self, root):
        folders.magnetic_tile(root)


@pytest.fixture
def root(tmp_path):
    folders.magnetic_tile(tmp_path)
    return tmp_path


def test_each_kind_of_defect_meets_all_normal_tiles(root):
    found = read_dataset(root)
    groups = by_defect_type(found)
    assert {kind: (sum(s.label == 0 for s in group), sum(s.label for s in group))
            for kind, group in groups.items()} == {"Blowhole": (4, 3), "Crack": (4, 2)}  # fmt: skip
    assert list(groups) == ["Blowhole", "Crack"]
    assert [s for s in found if s.label == 0 or s.defect_type == "Crack"] == groups["Crack"]


def test_orphans_on_both_sides(root):
    (root / "MT_Crack/Imgs/exp1_num_8.png").unlink()
    (root / "MT_Blowhole/Imgs/exp1_num_9.jpg").unlink()
    (root / "MT_Free/Imgs/exp1_num_10.jpg").unlink()
    (root / "MT_Free/Imgs/exp1_num_11.png").unlink()
    found = read_dataset(root)
    assert found.unmasked == (root / "MT_Crack/Imgs/exp1_num_8.jpg",)
    assert found.orphan_masks == (
        root / "MT_Blowhole/Imgs/exp1_num_9.png",
        root / "MT_Free/Imgs/exp1_num_10.png",
    )
    assert (found.normal, found.anomalous) == (3, 4)


def test_no_masks_at_all_means_image_labels(root):
    for path in root.rglob("*.png"):
        path.unlink()
    found = read_dataset(root)
    assert len(found) == 9 and not any(sample.has_pixel_label for sample in found)


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "MT_notes").mkdir()
    with pytest.raises(DatasetError, match="expected MT_<Kind>/Imgs.*found MT_notes"):
        read_dataset(tmp_path, dataset="magnetic_tile")
