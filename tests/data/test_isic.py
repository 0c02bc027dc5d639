"""ISIC 2016's test part: as the archive gives it, and in the two prepared forms."""

from __future__ import annotations

import pytest

from faprompt.data import read_dataset
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders

DATA, TRUTH = "ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"
STEMS = ("ISIC_0000003", "ISIC_0000012", "ISIC_0010001", "ISIC_0011392")
KINDS = (".jpg", ".png")


def archive(root):
    folders.pairs(root / DATA, root / TRUTH, STEMS, kinds=KINDS, suffix="_Segmentation")


def skin(base):
    """As AnomalyCLIP asks for it."""
    folders.pairs(base / "test/bad", base / TRUTH, STEMS, kinds=KINDS, suffix="_Segmentation")


def isic(base):
    """As AdaCLIP asks for it."""
    folders.pairs(
        base / "test/anomaly", base / "ground_truth/anomaly", STEMS,
        kinds=KINDS, suffix="_Segmentation",
    )  # fmt: skip


class TestArchive(ReaderSuite):
    name = "isic"
    classes = {"skin": (0, 4, 4)}
    mask_suffix = "_Segmentation"

    def build(self, root):
        archive(root)

    def test_training_pairs_are_not_read(self, root):
        before = read_dataset(root)
        folders.pairs(
            root / "ISBI2016_ISIC_Part1_Training_Data",
            root / "ISBI2016_ISIC_Part1_Training_GroundTruth",
            ["ISIC_0000000"], kinds=KINDS, suffix="_Segmentation",
        )  # fmt: skip
        after = read_dataset(root)
        assert after.samples == before.samples
        assert any("left out: ISBI2016_ISIC_Part1_Training" in line for line in after.warnings)


class TestPreparedSkin(TestArchive):
    def build(self, root):
        skin(root / "skin")


class TestPreparedIsic(TestArchive):
    def build(self, root):
        isic(root / "isic")


FORMS = (archive, skin, isic)


def test_all_forms_give_the_same_records(tmp_path):
    def facts(root):
        return [
            (s.image_path.name, s.label, s.class_name, s.defect_type, s.has_pixel_label,
             [path.name for path in s.mask_paths])
            for s in read_dataset(root)
        ]  # fmt: skip

    for number, form in enumerate(FORMS):
        form(tmp_path / str(number))
    assert facts(tmp_path / "0") == facts(tmp_path / "1") == facts(tmp_path / "2")
    assert facts(tmp_path / "0")[0] == (
        "ISIC_0000003.jpg", 1, "skin", "lesion", True, ["ISIC_0000003_Segmentation.png"],
    )  # fmt: skip


def test_every_picture_is_a_lesion_whatever_its_folder_is_called(tmp_path):
    folders.pairs(tmp_path / "test/good", tmp_path / TRUTH, STEMS, suffix="_Segmentation")
    found = read_dataset(tmp_path)
    assert (found.name, found.normal, found.anomalous) == ("isic", 0, 4)


def test_several_folders_of_pictures_share_the_masks(tmp_path):
    for kind, stems in (("melanoma", STEMS[:1]), ("naevus é", STEMS[1:])):
        folders.pairs(
            tmp_path / "test" / kind, tmp_path / TRUTH, stems, kinds=KINDS, suffix="_Segmentation"
        )
    found = read_dataset(tmp_path)
    assert found.counts()["skin"].with_mask == 4
    assert found.unmasked == found.orphan_masks == ()


def test_orphans_on_both_sides(tmp_path):
    archive(tmp_path)
    (tmp_path / DATA / "ISIC_0000003.jpg").unlink()
    (tmp_path / TRUTH / "ISIC_0000012_Segmentation.png").unlink()
    found = read_dataset(tmp_path)
    assert found.unmasked == (tmp_path / DATA / "ISIC_0000012.jpg",)
    assert found.orphan_masks == (tmp_path / TRUTH / "ISIC_0000003_Segmentation.png",)


@pytest.mark.parametrize("later", ["ISIC-2017_Test_v2_Data", "ISIC2018_Task1-2_Test_Input"])
def test_later_challenges_are_refused(tmp_path, later):
    folders.pairs(tmp_path / later, tmp_path / "truth", STEMS, suffix="_segmentation")
    with pytest.raises(DatasetError, match=f"later challenge .{later}/.; the paper uses part 1"):
        read_dataset(tmp_path, dataset="isic")


def test_the_later_suffix_is_read_by_name_only(tmp_path):
    folders.pairs(tmp_path / "images", tmp_path / "masks", STEMS, suffix="_segmentation")
    with pytest.raises(DatasetError, match="is no dataset we know"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, dataset="isic").counts()["skin"].with_mask == 4


@pytest.mark.parametrize(
    ("count", "told"), [(600, "ISIC 2017"), (900, "training part"), (1000, "ISIC 2018")]
)
def test_other_parts_are_known_by_their_count(tmp_path, count, told):
    stems = [f"ISIC_{number:07d}" for number in range(count)]
    folders.empty_pairs(tmp_path / "images", tmp_path / "masks", stems)
    found = read_dataset(tmp_path, dataset="isic")
    assert any(told in line for line in found.warnings)


def test_the_published_count_names_it(tmp_path):
    stems = [f"ISIC_{number:07d}" for number in range(379)]
    folders.empty_pairs(tmp_path / "images", tmp_path / "masks", stems)
    found = read_dataset(tmp_path)
    assert found.name == "isic"
    assert not any("not the paper's" in line for line in found.warnings)


def test_other_pictures_in_the_archives_folders_are_not_guessed(tmp_path):
    folders.pairs(tmp_path / DATA, tmp_path / TRUTH, ["mole1"], suffix="_Segmentation")
    with pytest.raises(DatasetError, match="is no dataset we know"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path, dataset="isic")) == 1


def test_other_test_folders_are_left_to_their_readers(tmp_path):
    folders.mvtec_class(tmp_path, normal={"good": ["1.png"]}, defects={"chip": ["1.png"]})
    assert read_dataset(tmp_path).name == "mvtec_style"


def test_one_folder_alone_is_refused(tmp_path):
    folders.picture(tmp_path / DATA / "ISIC_0000003.jpg")
    with pytest.raises(DatasetError, match=f"is not isic: expected {DATA}.*found {DATA}"):
        read_dataset(tmp_path, dataset="isic")
