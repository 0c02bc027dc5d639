"""What a dataset offers once it is read."""

from __future__ import annotations

import pytest

from faprompt.data import read_dataset
from faprompt.errors import DatasetError
from tests.helpers.folders import mvtec_class, names


@pytest.fixture
def tree(tmp_path):
    """Two classes; one defect of `mug` and one of `nut` lack their mask."""
    root = tmp_path / "own"
    for name in ("mug", "nut"):
        mvtec_class(root / name, normal={"good": names(2)}, defects={"dent": names(3)})
        (root / name / "ground_truth" / "dent" / "9_mask.png").unlink()
    return read_dataset(root)


def test_with_classes_keeps_the_named_ones(tree):
    chosen = tree.with_classes(["nut", "nut"])
    assert chosen.class_names() == ("nut",)
    assert (chosen.normal, chosen.anomalous, len(chosen)) == (2, 3, 5)
    assert chosen.samples == tuple(s for s in tree.samples if s.class_name == "nut")
    assert chosen.left_out_classes == ("mug",)
    assert tree.left_out_classes == ()


def test_with_classes_leaves_the_other_classes_lost_masks_out(tree):
    assert len(tree.unmasked) == 2
    assert tree.warnings[0].startswith("2 anomalous without a mask")
    chosen = tree.with_classes(["nut"])
    assert [path.parts[-4:-1] for path in chosen.unmasked] == [("nut", "test", "dent")]
    assert chosen.warnings[0].startswith("1 anomalous without a mask")


def test_with_classes_without_a_name_changes_nothing(tree):
    assert tree.with_classes(()) is tree


def test_with_classes_refuses_names_that_are_not_there(tree):
    with pytest.raises(DatasetError, match=r"no class 'Mug', 'plate'\. Its classes: mug, nut\."):
        tree.with_classes(["plate", "mug", "Mug"])
    with pytest.raises(TypeError, match="list of class names"):
        tree.with_classes("mug")
