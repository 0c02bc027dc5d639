"""MVTec trees: MVTec AD, its followers, your own classes, one class alone."""

from __future__ import annotations

import shutil

import pytest

from faprompt.data import read_dataset, read_mask
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders
from tests.helpers.systems import needs_posix


def bottle(root, **options):
    folders.mvtec_class(
        root / "bottle",
        normal={"good": folders.names(3)},
        defects={"broken_large": folders.names(3), "contamination": folders.names(2)},
        **options,
    )


class TestMvtec(ReaderSuite):
    name = "mvtec"
    train_refused = ""
    classes = {"bottle": (3, 5, 5), "tile": (2, 1, 1)}

    def build(self, root):
        bottle(root)
        folders.mvtec_class(
            root / "tile", normal={"good": folders.names(2)}, defects={"oil": ["000.png"]}
        )


class TestBtad(ReaderSuite):
    """Masks as PNG and as BMP, pictures as BMP and as PNG, never the one name expected."""

    name = "btad"
    train_refused = ""
    classes = {"01": (2, 2, 2), "03": (3, 2, 2)}

    def build(self, root):
        for name, image, truth in (("01", ".bmp", ".png"), ("03", ".bmp", ".bmp")):
            folders.mvtec_class(
                root / name,
                normal={"ok": folders.names(2 if name == "01" else 3, image)},
                defects={"ko": folders.names(2, image)},
                mask_name="{stem}" + truth,
            )


class TestMpdd(ReaderSuite):
    name = "mpdd"
    train_refused = ""
    classes = {"connector": (1, 2, 2), "tubes": (2, 1, 1)}

    def build(self, root):
        for name, normal, anomalous in (("connector", 1, 2), ("tubes", 2, 1)):
            folders.mvtec_class(
                root / name,
                normal={"good": folders.names(normal)},
                defects={"parts_mismatch": folders.names(anomalous)},
            )


class TestDtdSynthetic(ReaderSuite):
    """Woven_068 calls its normal pictures mesh_000.png and so on."""

    name = "dtd_synthetic"
    train_refused = ""
    classes = {"Woven_068": (3, 2, 2)}

    def build(self, root):
        folders.mvtec_class(
            root / "Woven_068",
            normal={"good": ["mesh_000.png", "mesh_002.png", "mesh_010.png"]},
            defects={"bad": folders.names(2)},
        )


class TestOwnClasses(ReaderSuite):
    """Blanks and accents in names, capitals in extensions, other words for good."""

    name = "mvtec_style"
    train_refused = ""
    classes = {"Gehäuse 2": (3, 2, 2), "Gehäuse 10": (1, 1, 1)}

    def build(self, root):
        folders.mvtec_class(
            root / "Gehäuse 2",
            normal={"OK": folders.names(2, ".JPG"), "Normal": ["né.PNG"]},
            defects={"Kratzer tief": ["Fläche 1.TIF", "Fläche 10.webp"]},
        )
        folders.mvtec_class(
            root / "Gehäuse 10", normal={"good": ["1.jpeg"]}, defects={"Fleck": ["1.bmp"]}
        )


class TestOneClass(ReaderSuite):
    """The class level is missing: the folder's name is the class."""

    name = "mvtec"
    train_refused = ""
    folder = "bottle"
    classes = {"bottle": (3, 5, 5)}

    def build(self, root):
        bottle(root.parent)

    def test_one_level_too_high(self, root):
        """One level up is a dataset too: the same class among its like."""
        assert read_dataset(root.parent).counts() == read_dataset(root).counts()


class TestImageLabelsOnly(ReaderSuite):
    name = "mvtec"
    train_refused = ""
    classes = {"bottle": (3, 5, 0)}

    def build(self, root):
        bottle(root, mask_name=None)

    def test_no_pixel_labels(self, root):
        found = read_dataset(root)
        assert not any(sample.has_pixel_label for sample in found)
        with pytest.raises(DatasetError, match="no pixel label"):
            read_mask(found.samples[0])


@pytest.fixture
def tree(tmp_path):
    bottle(tmp_path)
    return tmp_path


def test_defect_types_and_labels(tree):
    found = read_dataset(tree)
    kinds = {sample.image_path.parent.name: sample.defect_type for sample in found}
    assert kinds == {
        "broken_large": "broken_large", "contamination": "contamination", "good": "good",
    }  # fmt: skip
    assert {s.defect_type: s.label for s in found} == {
        "broken_large": 1, "contamination": 1, "good": 0,
    }  # fmt: skip


def test_train_split_is_normal_only(tree):
    found = read_dataset(tree, split="train")
    assert [(s.label, s.split, s.image_path.name) for s in found] == [(0, "train", "0.png")]


def test_lost_mask_and_lost_picture_do_not_shift_the_others(tree):
    before = {s.image_path: s.mask_paths for s in read_dataset(tree)}
    lost_mask = tree / "bottle/ground_truth/broken_large/8_mask.png"
    lost_picture = tree / "bottle/test/contamination/9.png"
    lost_mask.unlink()
    lost_picture.unlink()

    found = read_dataset(tree)

    unmasked = tree / "bottle/test/broken_large/8.png"
    assert found.unmasked == (unmasked,)
    assert found.orphan_masks == (tree / "bottle/ground_truth/contamination/9_mask.png",)
    assert any("bottle/test/broken_large/8.png" in line for line in found.warnings)
    assert any("contamination/9_mask.png" in line for line in found.warnings)
    assert found.problems == ()
    rest = {s.image_path: s.mask_paths for s in found if s.image_path != unmasked}
    assert rest == {p: m for p, m in before.items() if p not in (unmasked, lost_picture)}


def test_without_its_mask_a_picture_leaves_pixel_figures_only(tree):
    (tree / "bottle/ground_truth/broken_large/8_mask.png").unlink()
    samples = {s.image_path.relative_to(tree).as_posix(): s for s in read_dataset(tree)}
    alone = samples["bottle/test/broken_large/8.png"]
    assert (alone.label, alone.has_pixel_label, alone.mask_paths) == (1, False, ())
    assert samples["bottle/test/broken_large/9.png"].has_pixel_label
    assert samples["bottle/test/good/8.png"].has_pixel_label


def test_stems_match_exactly(tmp_path):
    """`1` is part of `10`, and is not its mask."""
    folders.mvtec_class(
        tmp_path / "bottle",
        normal={"good": ["0.png"]},
        defects={"broken_large": ["1.png", "10.png"]},
    )
    (tmp_path / "bottle/ground_truth/broken_large/1_mask.png").unlink()
    masks = {s.image_path.name: [m.name for m in s.mask_paths] for s in read_dataset(tmp_path)}
    assert masks == {"0.png": [], "1.png": [], "10.png": ["10_mask.png"]}


def test_two_masks_for_one_picture_block(tree):
    folders.mask(tree / "bottle/ground_truth/broken_large/8.bmp")
    found = read_dataset(tree)
    assert len(found.problems) == 1
    for part in ("broken_large/8.png has several masks", "8.bmp", "8_mask.png"):
        assert part in found.problems[0]
    assert found.unmasked == found.orphan_masks == ()
    torn = next(s for s in found if s.image_path == tree / "bottle/test/broken_large/8.png")
    assert (torn.mask_paths, torn.has_pixel_label) == ((), False)
    with pytest.raises(DatasetError, match="cannot be used yet.*several masks"):
        found.require_usable()


def test_masks_of_a_defect_that_has_no_pictures_are_orphans(tree):
    shutil.rmtree(tree / "bottle/test/contamination")
    found = read_dataset(tree)
    assert [path.name for path in found.orphan_masks] == ["8_mask.png", "9_mask.png"]


def test_blank_masks_of_normal_pictures_are_left_alone(tree):
    folders.mask(tree / "bottle/ground_truth/good/8_mask.png", value=0)
    found = read_dataset(tree)
    assert found.orphan_masks == () and found.problems == ()
    assert all(not sample.mask_paths for sample in found if sample.label == 0)


def test_ground_truth_without_a_single_fitting_mask_means_image_labels(tree):
    shutil.rmtree(tree / "bottle/ground_truth")
    folders.mask(tree / "bottle/ground_truth/broken_large/77_mask.png")
    found = read_dataset(tree)
    assert not any(sample.has_pixel_label for sample in found)
    assert found.unmasked == ()
    assert [path.name for path in found.orphan_masks] == ["77_mask.png"]
    assert any("image labels only" in line for line in found.warnings)


def test_unlabelled_and_nested_pictures_are_told(tree):
    folders.picture(tree / "bottle/test/loose.png")
    folders.picture(tree / "bottle/test/deep/deeper/1.png")
    (tree / "mug/train/good").mkdir(parents=True)
    found = read_dataset(tree, dataset="mvtec")
    assert len(found) == 8
    assert any("1 pictures lie directly in bottle/test" in line for line in found.warnings)
    assert any("bottle/test/deep holds no pictures" in line for line in found.warnings)
    assert any("no test pictures in mug" in line for line in found.warnings)


def test_no_normal_pictures_at_all(tree):
    shutil.rmtree(tree / "bottle/test/good")
    found = read_dataset(tree)
    assert (found.normal, found.anomalous) == (0, 5)


def test_class_of_the_current_folder(tree, monkeypatch):
    monkeypatch.chdir(tree / "bottle")
    assert read_dataset(".").class_names() == ("bottle",)
    assert read_dataset(".").name == "mvtec"
    monkeypatch.chdir(tree / "bottle/test")
    assert read_dataset("..").class_names() == ("bottle",)


@needs_posix
def test_a_linked_folder_keeps_its_own_name(tree, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "tile"
    link.symlink_to(tree / "bottle")
    assert read_dataset(link).class_names() == ("tile",)


@pytest.mark.parametrize(
    ("inside", "who"),
    [
        ("bottle/test_public/good", "MVTec AD 2"),
        ("juice_bottle/test/logical_anomalies", "MVTec LOCO"),
        ("bagel/test/crack/rgb", "MVTec 3D-AD"),
    ],
)
def test_later_mvtec_sets_are_refused_by_name(tmp_path, inside, who):
    folders.picture(tmp_path / inside / "000.png")
    if who.endswith("3D-AD"):
        (tmp_path / "bagel/test/crack/xyz").mkdir()
    with pytest.raises(DatasetError, match=who):
        read_dataset(tmp_path)
    with pytest.raises(DatasetError, match=who):
        read_dataset(tmp_path, dataset="mvtec")


def test_an_empty_test_part_is_refused(tmp_path):
    (tmp_path / "bottle/test/good").mkdir(parents=True)
    with pytest.raises(
        DatasetError, match="test split is empty.*bottle/test/good holds no pictures"
    ):
        read_dataset(tmp_path, dataset="mvtec")


@pytest.fixture
def shelf(tmp_path):
    """Good pictures of two classes and nothing else."""
    for name, kind in (("mug", "good"), ("nut", "OK")):
        for number in range(3):
            folders.picture(tmp_path / "shelf" / name / "train" / kind / f"{number}.png")
    return tmp_path / "shelf"


def test_a_tree_of_train_alone_has_a_train_split(shelf):
    found = read_dataset(shelf, split="train")
    assert (found.name, found.normal, found.anomalous) == ("mvtec_style", 6, 0)
    assert found.class_names() == ("mug", "nut") and found.warnings == ()
    assert found.reason == "MVTec tree (train/ inside) of mug, nut"
    one = read_dataset(shelf / "mug", split="train")
    assert one.class_names() == ("mug",) and len(one) == 3
    assert read_dataset(shelf, "mvtec_style", split="train").samples == found.samples


def test_a_published_set_is_recognised_by_train_alone(shelf):
    (shelf / "mug").rename(shelf / "bottle")
    shutil.rmtree(shelf / "nut")
    assert read_dataset(shelf, split="train").name == "mvtec"


@pytest.mark.parametrize("inside", ["", "mug"])
def test_nothing_to_measure_is_said(shelf, inside):
    with pytest.raises(DatasetError, match=r"has train/ and no test/.*<class>/test/<defect>"):
        read_dataset(shelf / inside)


def test_classes_that_lack_the_split_are_named(shelf, tree):
    for name in ("mug", "nut"):
        (shelf / name).rename(tree / name)
    assert "no test pictures in mug, nut" in read_dataset(tree, "mvtec_style").warnings
    train = read_dataset(tree, "mvtec_style", split="train")
    assert {"mug", "nut"} <= set(train.class_names())
    assert not any("pictures in mug" in line for line in train.warnings)


def test_train_without_a_folder_of_normal_pictures_is_no_tree(tmp_path):
    """A YOLO export, for one."""
    folders.picture(tmp_path / "train" / "images" / "0.png")
    with pytest.raises(DatasetError, match="no dataset we know"):
        read_dataset(tmp_path, split="train")
