"""Datumaro exports: the first label of each picture, and what is refused."""

from __future__ import annotations

import json

import pytest

from faprompt.data import read_dataset
from faprompt.data.datumaro import DatumaroReader
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders


def content(root):
    """Three normal pictures, two anomalous ones of kinds chip and dent."""
    kinds = {"n8": 0, "n9": 0, "n10": 0, "a8": 1, "a9": 2}
    for stem in kinds:
        folders.picture(root / f"images/default/{stem}.png")
    return {
        "info": {},
        "categories": {"label": {"labels": [{"name": n} for n in ("Normal", "chip", "dent")]}},
        "items": [
            {"id": stem, "image": {"path": f"{stem}.png"},
             "annotations": [{"type": "bbox", "label_id": 2}, {"type": "label", "label_id": kind},
                             {"type": "label", "label_id": 1}]}
            for stem, kind in kinds.items()
        ],
    }  # fmt: skip


def write(root, data):
    file = root / "annotations/default.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


class TestDatumaro(ReaderSuite):
    name = "datumaro"
    classes = {"default": (3, 2, 0)}

    def build(self, root):
        write(root, content(root))


@pytest.fixture
def data(tmp_path):
    return content(tmp_path)


def test_the_first_label_is_the_kind(tmp_path, data):
    found = read_dataset(write(tmp_path, data))
    kinds = {s.image_path.stem: (s.defect_type, s.label) for s in found}
    assert kinds == {
        "a8": ("chip", 1), "a9": ("dent", 1),
        "n8": ("good", 0), "n9": ("good", 0), "n10": ("good", 0),
    }  # fmt: skip
    assert not any(sample.has_pixel_label for sample in found)


def test_which_labels_are_normal_and_the_class_can_be_told(tmp_path, data):
    reader = DatumaroReader(class_name="mug", normal_labels=frozenset({"Chip"}))
    found = reader.read(write(tmp_path, data))
    assert [s.image_path.stem for s in found if not s.label] == ["a8"]
    assert found.class_names() == ("mug",)


def test_younger_files_say_media(tmp_path, data):
    for item in data["items"]:
        item["media"] = item.pop("image")
    assert len(read_dataset(write(tmp_path, data))) == 5


def test_unlabelled_and_missing_pictures(tmp_path, data):
    data["items"][0]["annotations"] = [{"type": "bbox", "label_id": 1}]
    del data["items"][1]["annotations"]
    (tmp_path / "images/default/a8.png").unlink()
    found = read_dataset(write(tmp_path, data))
    assert len(found) == 2
    assert found.warnings == ("2 pictures without a label are left out",)
    assert "a8.png" in found.problems[0]


@pytest.mark.parametrize("label", [3, -1, None, "chip"])
def test_labels_that_are_not_in_the_table(tmp_path, data, label):
    data["items"][3]["annotations"] = [{"type": "label", "label_id": label}]
    with pytest.raises(DatasetError, match="item 'a8': there is no label .*Normal, chip, dent"):
        read_dataset(write(tmp_path, data))


@pytest.mark.parametrize("item", ["a8", {}, {"image": {}}])
def test_items_without_a_picture(tmp_path, data, item):
    data["items"].append(item)
    with pytest.raises(DatasetError, match="item 5: should have an id or an image path"):
        read_dataset(write(tmp_path, data))


def test_several_exports_want_a_choice(tmp_path, data):
    (write(tmp_path, data).parent / "other.json").write_text(json.dumps(data))
    with pytest.raises(DatasetError, match="default.json, other.json.*path of one"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("wrong", [{}, {"items": []}, {"items": [], "categories": {"label": 1}}])
def test_other_json_is_none(tmp_path, wrong):
    write(tmp_path, wrong)
    with pytest.raises(DatasetError, match="holds no Datumaro export"):
        read_dataset(tmp_path, dataset="datumaro")
