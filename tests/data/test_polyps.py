"""Polyp sets: four that the paper uses, told apart from each other and from their neighbours."""

from __future__ import annotations

import json
import shutil
import uuid

import pytest

from faprompt.data import check_dataset, detect_dataset, read_dataset, read_mask
from faprompt.data.segmented import foreign_polyps
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders

KVASIR_IDS = (
    "cju0qkwl35piu0993l0dewei2",
    "cju16jgnyzp970878melv7r25",
    "cjyzk8qieoboa0848ogj51wwm",  # the real set is not all cju
    "ck2bxknhjvs1x0794iogrq49k",
)
NUMBERS = ("1", "2", "10", "100")


def uuids(count: int) -> list[str]:
    return [str(uuid.uuid5(uuid.NAMESPACE_URL, str(number))) for number in range(count)]


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


def kvasir_ids(count: int) -> list[str]:
    return [f"cju{number:022d}" for number in range(count)]


class TestColon(ReaderSuite):
    name = "cvc_colondb"
    folder = "CVC-ColonDB"
    classes = {"colon": (0, 4, 4)}

    def build(self, root):
        folders.pairs(root / "images", root / "masks", NUMBERS)


class TestClinicPackage(ReaderSuite):
    name = "cvc_clinicdb"
    folder = "CVC-ClinicDB"
    classes = {"colon": (0, 4, 4)}

    def build(self, root):
        folders.pairs(root / "images", root / "masks", NUMBERS)


class TestClinicArchive(TestClinicPackage):
    """TIFF, and a folder name with a blank."""

    def build(self, root):
        folders.pairs(root / "Original", root / "Ground Truth", NUMBERS, kinds=(".tif", ".tif"))


class TestClinicKaggle(TestClinicPackage):
    """The same pictures in two formats; one is taken."""

    def build(self, root):
        for kind in ("PNG", "TIF"):
            base, suffix = root / kind, f".{kind.lower()}"
            folders.pairs(base / "Original", base / "Ground Truth", NUMBERS, kinds=(suffix, suffix))

    def test_png_is_taken_and_tif_told(self, root):
        found = read_dataset(root)
        assert {sample.image_path.suffix for sample in found} == {".png"}
        assert {path.suffix for sample in found for path in sample.mask_paths} == {".png"}
        assert any("left out: TIF" in line for line in found.warnings)


class TestKvasirOriginal(ReaderSuite):
    """Masks are JPEG."""

    name = "kvasir"
    folder = "Kvasir-SEG"
    classes = {"colon": (0, 4, 4)}
    policy = "strict"

    def build(self, root):
        folders.pairs(root / "images", root / "masks", KVASIR_IDS, kinds=(".jpg", ".jpg"))
        box = {"label": "polyp", "xmin": 3, "ymin": 2, "xmax": 7, "ymax": 4}
        boxes = {stem: {"height": 9, "width": 14, "bbox": [box]} for stem in KVASIR_IDS}
        (root / "kavsir_bboxes.json").write_text(json.dumps(boxes))

    def test_jpeg_masks_differ_between_the_policies_and_it_is_told(self, root):
        found = read_dataset(root)
        for sample in found:
            noisy = read_mask(sample, policy="reference")
            assert noisy.sum() > 15 and noisy[2:5, 3:8].all()
        assert any("masks are JPEG" in line and "'strict'" in line for line in found.warnings)
        assert "JPG masks" in found.reason


class TestKvasirNested(TestKvasirOriginal):
    """Kaggle's copy."""

    def build(self, root):
        super().build(root / "Kvasir-SEG")


class TestKvasirPackage(ReaderSuite):
    """Masks are PNG; the folder's name does not matter."""

    name = "kvasir"
    classes = {"colon": (0, 4, 4)}

    def build(self, root):
        folders.pairs(root / "images", root / "masks", KVASIR_IDS)

    def test_the_format_of_the_masks_is_stated(self, root):
        found = read_dataset(root)
        assert "PNG masks" in found.reason
        assert not any("JPEG" in line for line in found.warnings)


class TestEndo(ReaderSuite):
    name = "endo"
    folder = "EndoTect_2020_Segmentation_Test_Dataset"
    classes = {"colon": (0, 4, 4)}

    def build(self, root):
        folders.pairs(root / "images", root / "masks", uuids(4), kinds=(".jpg", ".png"))


class TestEndoOtherwiseNamed(TestEndo):
    """AnomalyCLIP takes any folder beside `masks` for the pictures."""

    def build(self, root):
        folders.pairs(root / "test set é", root / "masks", uuids(4), kinds=(".jpg", ".png"))


def test_pairing_is_by_name_and_orphans_are_told_on_both_sides(tmp_path):
    root = tmp_path / "CVC-ColonDB"
    folders.pairs(root / "images", root / "masks", NUMBERS)
    (root / "masks/1.png").unlink()
    stray = folders.mask(root / "masks/99.png")
    found = read_dataset(root)
    assert found.unmasked == (root / "images/1.png",)
    assert found.orphan_masks == (stray,)
    assert {s.image_path.stem: [m.stem for m in s.mask_paths] for s in found} == {
        "1": [], "2": ["2"], "10": ["10"], "100": ["100"],
    }  # fmt: skip
    assert {s.image_path.stem for s in found if not s.has_pixel_label} == {"1"}


def test_every_sample_is_a_polyp(tmp_path):
    folders.pairs(tmp_path / "images", tmp_path / "masks", KVASIR_IDS)
    for sample in read_dataset(tmp_path):
        assert (sample.label, sample.class_name, sample.defect_type) == (1, "colon", "polyp")


def test_all_forms_of_clinic_give_the_same_records(tmp_path):
    roots = [tmp_path / kind / "CVC-ClinicDB" for kind in ("package", "archive", "prepared")]
    folders.pairs(roots[0] / "images", roots[0] / "masks", NUMBERS)
    folders.pairs(roots[1] / "Original", roots[1] / "Ground Truth", NUMBERS)
    folders.mvtec_class(
        roots[2] / "colon", normal={}, defects={"polyp": [f"{n}.png" for n in NUMBERS]},
        mask_name="{stem}.png",
    )  # fmt: skip

    def facts(root):
        return [
            (s.image_path.name, s.label, s.class_name, s.defect_type, s.has_pixel_label, s.dataset,
             [path.name for path in s.mask_paths])
            for s in read_dataset(root, dataset="cvc_clinicdb")
        ]  # fmt: skip

    assert facts(roots[0]) == facts(roots[1]) == facts(roots[2])
    assert len(facts(roots[0])) == 4


def test_a_list_is_read_under_the_datasets_name(tmp_path):
    folders.picture(tmp_path / "images/1.png")
    folders.mask(tmp_path / "masks/1.png")
    row = folders.record("images/1.png", 1, mask="masks/1.png", class_name="colon")
    folders.write_meta(tmp_path / "meta.json", {"test": {"colon": [row]}})
    for name in ("cvc_colondb", "cvc_clinicdb", "kvasir", "endo"):
        found = read_dataset(tmp_path, dataset=name)
        assert (found.name, found.anomalous) == (name, 1)
        assert any("0 + 1 instead of" in line for line in found.warnings)


@pytest.mark.parametrize(
    ("stems", "name"),
    [(numbers(380), "cvc_colondb"), (numbers(612), "cvc_clinicdb"), (uuids(200), "endo")],
)
def test_the_published_count_names_the_dataset(tmp_path, stems, name):
    folders.empty_pairs(tmp_path / "images", tmp_path / "masks", stems)
    found = read_dataset(tmp_path)
    assert found.name == name
    assert "exactly the published number" in found.reason
    assert not any("not the paper's" in line for line in found.warnings)


@pytest.mark.parametrize("stems", [numbers(379), numbers(4), uuids(199), ["a", "b"]])
def test_what_could_be_anybodys_is_not_guessed(tmp_path, stems):
    folders.empty_pairs(tmp_path / "images", tmp_path / "masks", stems)
    with pytest.raises(
        DatasetError, match="could be any of cvc_colondb, cvc_clinicdb, .*tn3k; name"
    ):
        read_dataset(tmp_path)
    for name in ("cvc_colondb", "cvc_clinicdb", "kvasir", "endo"):
        assert len(read_dataset(tmp_path, dataset=name)) == len(stems)


def test_file_names_beat_the_folders_name(tmp_path):
    root = tmp_path / "CVC-ColonDB"
    folders.pairs(root / "images", root / "masks", KVASIR_IDS)
    assert read_dataset(root).name == "kvasir"
    with pytest.raises(DatasetError, match="is not cvc_colondb.*found kvasir"):
        read_dataset(root, dataset="cvc_colondb")


def test_a_name_against_a_count_is_left_to_the_user(tmp_path):
    root = tmp_path / "CVC-ColonDB"
    folders.empty_pairs(root / "images", root / "masks", numbers(612))
    with pytest.raises(DatasetError, match="'cvc_colondb', 'cvc_clinicdb'"):
        read_dataset(root)


@pytest.mark.parametrize(
    ("folder", "name", "stems", "told"),
    [
        ("CVC-ClinicDB", "cvc_clinicdb", numbers(62), "PraNet's test part, the paper uses all 612"),
        ("CVC-ClinicDB", "cvc_clinicdb", numbers(550), "PraNet's training part"),
        ("Kvasir", "kvasir", kvasir_ids(100), "PraNet's test part, the paper uses all 1000"),
        ("Kvasir", "kvasir", kvasir_ids(900), "PraNet's training part"),
        ("CVC-ColonDB", "cvc_colondb", numbers(300), "older official release"),
    ],
)
def test_parts_and_older_releases_are_known_by_their_count(tmp_path, folder, name, stems, told):
    root = tmp_path / "TestDataset" / folder
    folders.empty_pairs(root / "images", root / "masks", stems)
    found = read_dataset(root)
    assert found.name == name
    assert any(told in line for line in found.warnings)
    assert any(f"0 + {len(stems)} instead of" in line for line in found.warnings)


def test_one_picture_more_is_no_pranet_part(tmp_path):
    root = tmp_path / "CVC-ClinicDB"
    folders.empty_pairs(root / "images", root / "masks", numbers(63))
    assert not any("PraNet" in line for line in read_dataset(root).warnings)


def test_pranets_mixed_training_folder_is_refused(tmp_path):
    folders.empty_pairs(tmp_path / "images", tmp_path / "masks", [*numbers(5), *kvasir_ids(9)])
    for name in ("auto", "kvasir", "cvc_clinicdb"):
        with pytest.raises(DatasetError, match="TrainDataset.*give one set by itself"):
            read_dataset(tmp_path, dataset=name)


def plain_kvasir(root):
    for kind in ("dyed-lifted-polyps", "esophagitis", "normal-cecum", "polyps"):
        folders.picture(root / kind / "1.jpg")


def hyper_kvasir(root):
    folders.picture(root / "labeled-images/lower-gi-tract/1.jpg")
    folders.pairs(root / "segmented-images/images", root / "segmented-images/masks", uuids(2))


def hyper_segmented(root):
    folders.empty_pairs(root / "images", root / "masks", uuids(1000), kind=".jpg")


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (plain_kvasir, "plain Kvasir set.*Kvasir-SEG, with images/ and masks/"),
        (hyper_kvasir, "HyperKvasir, another set"),
        (hyper_segmented, "HyperKvasir, another set"),
    ],
)
def test_neighbours_are_refused_with_a_hint(tmp_path, build, told):
    build(tmp_path)
    for name in ("auto", "kvasir", "endo"):
        with pytest.raises(DatasetError, match=told):
            read_dataset(tmp_path, dataset=name)


def test_hyper_kvasirs_segmented_folder_is_refused_by_its_name(tmp_path):
    hyper_kvasir(tmp_path)
    with pytest.raises(DatasetError, match="HyperKvasir"):
        read_dataset(tmp_path / "segmented-images", dataset="endo")


def test_cvc_300_is_another_set(tmp_path):
    root = tmp_path / "CVC-300"
    folders.empty_pairs(root / "images", root / "masks", numbers(60))
    for name in ("auto", "cvc_colondb"):
        with pytest.raises(DatasetError, match="CVC-300, another set than CVC-ColonDB"):
            read_dataset(root, dataset=name)
    assert foreign_polyps(root.parent) is None


def test_the_test_datasets_folder_names_what_lies_below(tmp_path):
    for folder, stems in (("CVC-ClinicDB", NUMBERS), ("CVC-ColonDB", NUMBERS), ("K", KVASIR_IDS)):
        folders.pairs(tmp_path / folder / "images", tmp_path / folder / "masks", stems)
    told = r"CVC-ClinicDB \(cvc_clinicdb\), CVC-ColonDB \(cvc_colondb\), K \(kvasir\)"
    with pytest.raises(DatasetError, match=told):
        read_dataset(tmp_path)


def test_masks_alone_and_pictures_alone_are_refused_by_name(tmp_path):
    folders.mask(tmp_path / "masks/1.png")
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError, match="is not kvasir: expected images.*found images, masks"):
        read_dataset(tmp_path, dataset="kvasir")
    shutil.rmtree(tmp_path / "masks")
    folders.picture(tmp_path / "images" / f"{KVASIR_IDS[0]}.jpg")
    with pytest.raises(DatasetError, match="found images"):
        read_dataset(tmp_path, dataset="kvasir")


def test_two_formats_in_one_folder_are_a_clash(tmp_path):
    root = tmp_path / "CVC-ClinicDB"
    for kind in (".png", ".tif"):
        folders.pairs(root / "images", root / "masks", ["1", "2"], kinds=(kind, ".png"))
    problems = read_dataset(root).problems
    assert len(problems) == 2
    assert "masks/1.png could be the mask of images/1.png, images/1.tif" in problems[0]


def test_two_spellings_of_a_folder_are_refused_by_name(tmp_path):
    folders.pairs(tmp_path / "images", tmp_path / "masks", KVASIR_IDS)
    shutil.copytree(tmp_path / "images", tmp_path / "Images")
    with pytest.raises(DatasetError, match="holds Images, images; only one"):
        read_dataset(tmp_path, dataset="kvasir")
    with pytest.raises(DatasetError, match="holds Images, images; only one"):
        detect_dataset(tmp_path)


def test_without_a_single_mask_nothing_can_be_measured(tmp_path):
    folders.pairs(tmp_path / "images", tmp_path / "masks", KVASIR_IDS)
    shutil.rmtree(tmp_path / "masks")
    folders.mask(tmp_path / "masks/other.png")
    check = check_dataset(tmp_path)
    assert check.dataset == "kvasir" and not check.usable
    assert any("pixel figures are undefined" in line for line in check.warnings)


def test_image_figures_are_told_to_be_undefined(tmp_path):
    folders.pairs(tmp_path / "images", tmp_path / "masks", KVASIR_IDS)
    check = check_dataset(tmp_path)
    assert check.usable
    assert any(
        "image figures are undefined, one label only, for colon" in w for w in check.warnings
    )


def test_a_mask_of_another_size_is_a_problem(tmp_path):
    folders.pairs(tmp_path / "images", tmp_path / "masks", KVASIR_IDS)
    folders.mask(tmp_path / f"masks/{KVASIR_IDS[0]}.png", size=(14, 9))
    problems = check_dataset(tmp_path).problems
    assert len(problems) == 1 and "14x9" in problems[0] and "9x14" in problems[0]
