"""TN3K's test part: JPEG masks, a trainval part beside it, and a list that is no truth."""

from __future__ import annotations

import pytest

from faprompt.data import read_dataset, read_mask
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders

STEMS = ("0000", "0001", "0010", "0613")
JPEG = (".jpg", ".jpg")


class TestTn3k(ReaderSuite):
    name = "tn3k"
    folder = "tn3k"
    classes = {"thyroid": (0, 4, 4)}
    policy = "strict"

    def build(self, root):
        folders.pairs(root / "test-image", root / "test-mask", STEMS, kinds=JPEG)
        folders.pairs(root / "trainval-image", root / "trainval-mask", ["0000"], kinds=JPEG)
        (root / "label4test.csv").write_text("0000,0\n0001,1\n0010,0\n0613,1\n")
        (root / "tn3k-trainval-fold0.json").write_text('{"train": [0], "val": [1]}')

    def test_trainval_is_left_out_and_told(self, root):
        found = read_dataset(root)
        assert {path.image_path.parent.name for path in found} == {"test-image"}
        told = next(line for line in found.warnings if "left out" in line)
        assert "trainval-image" in told and "trainval-mask" in told and "test-" not in told

    def test_benign_nodules_are_anomalous_too(self, root):
        found = read_dataset(root)
        assert {(s.label, s.class_name, s.defect_type) for s in found} == {(1, "thyroid", "nodule")}

    def test_jpeg_noise_counts_in_one_policy_only(self, root):
        for sample in read_dataset(root):
            noisy, clean = (read_mask(sample, policy=p) for p in ("reference", "strict"))
            assert clean.sum() == 15 and noisy.sum() > 15
            assert not (clean & ~noisy).any()
        assert any("masks are JPEG" in line for line in read_dataset(root).warnings)


class TestNested(TestTn3k):
    def build(self, root):
        super().build(root / "tn3k")


def test_the_published_count_is_compared(tmp_path):
    stems = [f"{number:04d}" for number in range(614)]
    folders.empty_pairs(tmp_path / "test-image", tmp_path / "test-mask", stems, kind=".jpg")
    assert not any("not the paper's" in line for line in read_dataset(tmp_path).warnings)
    (tmp_path / "test-image/0613.jpg").unlink()
    found = read_dataset(tmp_path)
    assert any("0 + 613 instead of 0 + 614" in line for line in found.warnings)
    assert found.orphan_masks == (tmp_path / "test-mask/0613.jpg",)


def test_images_and_masks_are_tn3k_by_name_only(tmp_path):
    folders.pairs(tmp_path / "images", tmp_path / "masks", STEMS)
    with pytest.raises(DatasetError, match="is no dataset we know"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, dataset="tn3k").counts()["thyroid"].with_mask == 4


def test_trainval_given_by_mistake_is_known_by_its_count(tmp_path):
    stems = [f"{number:04d}" for number in range(2879)]
    folders.empty_pairs(tmp_path / "images", tmp_path / "masks", stems, kind=".jpg")
    told = read_dataset(tmp_path, dataset="tn3k").warnings
    assert any("trainval part, the paper uses the 614" in line for line in told)


def test_without_masks_it_is_refused(tmp_path):
    folders.picture(tmp_path / "test-image/0000.jpg")
    with pytest.raises(DatasetError, match="is not tn3k: expected test-image.*found test-image"):
        read_dataset(tmp_path, dataset="tn3k")
