"""Writing `meta.json`, so that what we read others can read."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from faprompt.data import read_dataset, write_meta_json
from faprompt.errors import DatasetError
from tests.helpers import folders


@pytest.fixture
def found(tmp_path):
    folders.mvtec_class(
        tmp_path / "set/bottle", normal={"good": ["1.png"]}, defects={"crack": ["1.png", "é2.png"]}
    )
    return read_dataset(tmp_path / "set")


def test_the_form_other_projects_expect(found):
    """Opened as they do: `meta["test"][class]`, paths joined to the root."""
    path = write_meta_json(found, found.root / "meta.json")
    content = json.loads(path.read_bytes().decode("ascii"))
    assert list(content) == ["train", "test"] and content["train"] == {}
    assert content["test"]["bottle"][0] == {
        "img_path": "bottle/test/crack/1.png",
        "mask_path": "bottle/ground_truth/crack/1_mask.png",
        "cls_name": "bottle",
        "specie_name": "crack",
        "anomaly": 1,
        "dataset_name": "mvtec",
    }
    assert content["test"]["bottle"][-1]["mask_path"] == ""
    for row in content["test"]["bottle"]:
        assert os.path.isfile(os.path.join(found.root, row["img_path"]))


def test_further_keys_survive(found):
    first, *rest = found.samples
    marked = replace(found, samples=(replace(first, extra={"view_id": "C1"}), *rest))
    path = write_meta_json(marked, found.root / "meta.json")
    assert read_dataset(path).samples[0].extra == {"view_id": "C1", "dataset_name": "mvtec"}


def test_train_split_goes_under_train(found):
    train = read_dataset(found.root, split="train")
    content = json.loads(write_meta_json(train, found.root / "meta.json").read_text())
    assert content["test"] == {} and len(content["train"]["bottle"]) == 1


def test_a_list_beside_the_folder_names_the_folder(found):
    path = write_meta_json(found, found.root.parent / "meta_set.json")
    rows = json.loads(path.read_text())["test"]["bottle"]
    assert rows[0]["img_path"] == "set/bottle/test/crack/1.png"
    assert len(read_dataset(path)) == 3


def test_a_list_elsewhere_names_pictures_in_full(found, tmp_path):
    path = write_meta_json(found, tmp_path / "lists/new/meta.json")
    rows = json.loads(path.read_text())["test"]["bottle"]
    assert os.path.isabs(rows[0]["img_path"]) and os.path.isabs(rows[0]["mask_path"])
    assert read_dataset(path).counts() == found.counts()


def test_relative_roots_give_the_same_file(found, monkeypatch):
    first = write_meta_json(found, found.root / "meta.json").read_text()
    monkeypatch.chdir(found.root)
    again = read_dataset(".", dataset="mvtec")
    assert write_meta_json(again, "meta.json").read_text() == first


def test_a_linked_root_is_still_relative(found, tmp_path):
    (tmp_path / "link").symlink_to(found.root)
    path = write_meta_json(found, tmp_path / "link/meta.json")
    assert json.loads(path.read_text())["test"]["bottle"][0]["img_path"].startswith("bottle/")


def test_replaces_whole_files_and_leaves_nothing_behind(found, monkeypatch):
    path = write_meta_json(found, found.root / "meta.json")
    before = path.read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_meta_json(replace(found, name="other"), path)
    assert path.read_text() == before
    assert sorted(p.name for p in found.root.iterdir()) == ["bottle", "meta.json"]


def test_what_the_format_cannot_hold_is_refused(found):
    first, *rest = found.samples
    for unfit in (
        replace(first, region=(0, 0, 4, 4)),
        replace(first, mask_paths=first.mask_paths * 2),
    ):
        with pytest.raises(
            DatasetError, match="1 samples are regions or have several masks or drawn ones: 1.png"
        ):
            write_meta_json(replace(found, samples=(unfit, *rest)), found.root / "meta.json")
    assert not (found.root / "meta.json").exists()
