"""Real-IAD: labels from the lists, views, resolutions, lists beside the class folders."""

from __future__ import annotations

import json

import pytest

from faprompt.data import read_dataset
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders, industrial


class TestRealIad(ReaderSuite):
    name = "realiad"
    train_refused = ""
    classes = {"toy": (4, 2, 2), "u_block": (4, 2, 2)}

    def build(self, root):
        industrial.realiad(root)


class TestSingleViewLists(TestRealIad):
    def build(self, root):
        industrial.realiad(root, lists="realiad_jsons/realiad_jsons_sv", pictures="realiad_512")


class TestListsBesideTheClasses(TestRealIad):
    def build(self, root):
        industrial.realiad(root, lists="", pictures="")


@pytest.fixture
def root(tmp_path):
    industrial.realiad(tmp_path)
    return tmp_path


def list_file(root, name="toy"):
    return root / "realiad_jsons/realiad_jsons" / f"{name}.json"


def test_the_list_gives_the_label_and_not_the_folder(root):
    own = [sample for sample in read_dataset(root) if sample.class_name == "toy"]
    parts = [(s.image_path.parent.parent.name, s.extra["view"], s.label) for s in own]
    assert parts == [
        ("AK", "C1", 1), ("AK", "C2", 0), ("AK", "C1", 1),
        ("OK", "C1", 0), ("OK", "C2", 0), ("OK", "C1", 0),
    ]  # fmt: skip
    assert [s.defect_type for s in own] == ["AK", "good", "AK", "good", "good", "good"]
    assert all(sample.has_pixel_label for sample in own)


def test_train_is_normal_only(root):
    found = read_dataset(root, split="train")
    assert (found.normal, found.anomalous) == (4, 0)
    assert {sample.split for sample in found} == {"train"}


def test_the_finest_resolution_is_read_and_told(root):
    industrial.realiad(root, pictures="realiad_256")
    found = read_dataset(root)
    assert {sample.image_path.relative_to(root).parts[0] for sample in found} == {"realiad_1024"}
    told = "of realiad_1024, realiad_256, realiad_1024 is read"
    assert told in found.warnings


def test_missing_files(root):
    bad = root / "realiad_1024/toy/NG/AK"
    (bad / "S0009/toy_0009_NG_AK_C1_2023_mask.png").unlink()
    (root / "realiad_1024/toy/OK/S0010/toy_0010_OK_C1_2023.jpg").unlink()
    found = read_dataset(root)
    assert found.unmasked == (bad / "S0009/toy_0009_NG_AK_C1_2023.jpg",)
    assert found.problems == (
        "1 pictures named in the lists are not there: "
        "realiad_1024/toy/OK/S0010/toy_0010_OK_C1_2023.jpg",
    )
    assert found.counts()["toy"].normal == 3


def test_a_class_without_masks_has_image_labels(root):
    for mask in (root / "realiad_1024/toy").rglob("*_mask.png"):
        mask.unlink()
    found = read_dataset(root)
    assert {s.class_name for s in found if s.has_pixel_label} == {"u_block"}
    assert "no masks for toy: image labels only" in found.warnings and found.unmasked == ()


def test_a_list_without_its_class_is_told(root):
    industrial.write_list(list_file(root, "zipper"), {"train": [], "test": []})
    assert "no pictures in realiad_1024 of zipper" in read_dataset(root).warnings


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"meta": {}}, "should have a list 'test' of records"),
        ({"test": {}}, "should have a list 'test' of records"),
        (["test"], "should have a list 'test' of records"),
        ({"test": [3]}, "test record 0: should be an object, got 3"),
        ({"test": [{"anomaly_class": "OK"}]}, "record 0: anomaly_class and image_path"),
        (
            {"test": [{"anomaly_class": "OK", "image_path": "a.jpg", "mask_path": 3}]},
            "mask_path text or null",
        ),
    ],
)
def test_broken_lists_are_refused(root, content, told):
    list_file(root).write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=f"toy.json.*{told}"):
        read_dataset(root)


def test_a_list_that_is_no_json_is_refused(root):
    list_file(root).write_text("{")
    with pytest.raises(DatasetError, match="toy.json is no readable JSON"):
        read_dataset(root)


def test_folders_without_lists_are_refused(tmp_path):
    folders.picture(tmp_path / "toy/OK/S0001/toy_0001_OK_C1_1.jpg")
    with pytest.raises(DatasetError, match="is not realiad: expected realiad_1024.*found toy"):
        read_dataset(tmp_path, dataset="realiad")
