"""Layouts of other tools: named with what to do, and never read as an MVTec tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faprompt.data import detect_dataset, read_dataset
from faprompt.errors import DatasetError
from tests.helpers.folders import mask, mvtec_class, names, picture

BOX = "0 0.5 0.5 0.1 0.1\n"
OUTLINE = "3 0.1 0.1 0.9 1e-05 .5 0.5\n"
CONFIG = "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['scratch']\n"
XML = "<?xml version='1.0'?>\n<annotation>\n<filename>0.jpg</filename></annotation>\n"
LABELME = json.dumps({"version": "5.4", "shapes": [], "imagePath": "0.jpg"})


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def draw(root: Path, *files: str, text: str = "") -> None:
    """Pictures at `.jpg` and `.png`, and text in all other files."""
    for name in files:
        path = root / name
        if path.suffix in (".jpg", ".png"):
            picture(path)
        else:
            write(path, text)


def yolo_splits(root):
    for split in ("train", "valid", "test"):
        draw(root, f"{split}/images/0.jpg", f"{split}/labels/0.txt", text=BOX)
    write(root / "data.yaml", CONFIG)


LAYOUTS = {
    "yolo by split": (yolo_splits, r"YOLO export \(test/images with test/labels/\*\.txt\)"),
    "yolo, test alone": (
        lambda r: draw(r, "test/images/0.jpg", "test/labels/0.txt", text=BOX), "YOLO export",
    ),
    "yolo, split below": (
        lambda r: draw(r, "images/test/0.jpg", "labels/test/0.txt", text=BOX), "YOLO export",
    ),
    "yolo, flat": (lambda r: draw(r, "images/0.jpg", "labels/0.txt", text=BOX), "YOLO export"),
    "yolo, other case": (
        lambda r: draw(r, "test/Images/0.jpg", "test/Labels/0.txt", text=BOX), "YOLO export",
    ),
    "yolo, files beside pictures": (
        lambda r: draw(r, "0.jpg", "0.txt", text=BOX), r"YOLO export \(\*\.txt beside",
    ),
    "yolo, outlines": (
        lambda r: draw(r, "test/0.jpg", "test/0.txt", text=OUTLINE), r"YOLO export \(test/\*\.txt",
    ),
    "darknet": (
        lambda r: draw(r, "obj_train_data/0.jpg", "obj_train_data/0.txt", text=BOX), "YOLO export",
    ),
    "yolo without labels": (
        lambda r: (draw(r, "test/images/0.jpg"), write(r / "data.yaml", CONFIG)),
        "YOLO export, described in a data.yaml",
    ),
    "voc": (
        lambda r: draw(r, "JPEGImages/0.jpg", "Annotations/0.xml", text=XML),
        r"Pascal VOC \(Annotations/\*\.xml\)",
    ),
    "voc by split": (
        lambda r: draw(r, "test/JPEGImages/0.jpg", "test/Annotations/0.xml", text=XML),
        "Pascal VOC",
    ),
    "voc, files beside pictures": (
        lambda r: draw(r, "test/0.jpg", "test/0.xml", text=XML), r"Pascal VOC \(test/\*\.xml",
    ),
    "labelme": (lambda r: draw(r, "0.jpg", "0.json", text=LABELME), "LabelMe"),
    "supervisely": (
        lambda r: draw(r, "test/img/0.jpg", "test/ann/0.jpg.json", text="{}"), "Supervisely",
    ),
    "cvat": (lambda r: draw(r, "images/0.jpg", "annotations.xml", text="<x/>"), "CVAT"),
    "cityscapes": (
        lambda r: draw(
            r, "leftImg8bit/test/berlin/0_leftImg8bit.png", "gtFine/test/berlin/0_color.png"
        ),
        "Cityscapes",
    ),
    "pictures and masks by split": (
        lambda r: (draw(r, "test/images/0.jpg"), mask(r / "test/masks/0.png")),
        r"pictures and masks by split \(test/images, test/masks\)",
    ),
    "classes": (
        lambda r: draw(r, *(f"{s}/{k}/0.jpg" for s in ("train", "test") for k in ("cat", "dog"))),
        r"test/ holds cat, dog and no folder of normal pictures.*ImageFolder",
    ),
    "classes, test alone": (
        lambda r: draw(r, "test/cat/0.jpg", "test/dog/0.jpg"), "ImageFolder",
    ),
    "one class of several": (
        lambda r: draw(r, "animals/test/cat/0.jpg", "animals/test/dog/0.jpg"),
        "in animals/, test/ holds cat, dog",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("dataset", ["auto", "mvtec_style"])
def test_it_is_named_with_what_to_do(tmp_path, name, dataset):
    build, told = LAYOUTS[name]
    root = tmp_path / "shelf" / "set"
    root.mkdir(parents=True)
    build(root)
    with pytest.raises(DatasetError, match=told) as refused:
        read_dataset(root, dataset)
    assert "good" in str(refused.value)


def test_coco_by_split_names_the_folders_to_give(tmp_path):
    content = {
        "images": [{"id": 0, "file_name": "0.jpg", "height": 9, "width": 14}],
        "annotations": [], "categories": [{"id": 1, "name": "x"}],
    }  # fmt: skip
    for split in ("train", "test"):
        draw(tmp_path, f"{split}/0.jpg", f"{split}/_annotations.coco.json",
             text=json.dumps(content))  # fmt: skip
    with pytest.raises(DatasetError, match=r"it holds test \(coco\), train \(coco\); give one"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path / "test").normal == 1
    for split in ("train", "test"):
        draw(tmp_path / "b", f"{split}2017/0.jpg", f"annotations/instances_{split}2017.json",
             text=json.dumps(content))  # fmt: skip
    with pytest.raises(DatasetError, match="several annotation files .*give the path of one"):
        read_dataset(tmp_path / "b")


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("folders.toml", 'normal = "parts"\n', "folders.toml describes folders"),
        ("folders.json", '{"normal": ["parts"]}', "folders.json describes folders"),
        ("annotations/default.json", '{"items": [], "categories": {}}', "a Datumaro export"),
    ],
)
def test_lists_of_earlier_versions_want_a_table(tmp_path, file, content, told):
    draw(tmp_path, "parts/0.jpg")
    write(tmp_path / file, content)
    for place in (tmp_path, tmp_path / file):
        with pytest.raises(DatasetError, match=f"{told}, which is not read; write a table with"):
            read_dataset(place)


class TestOurOwnTreesStay:
    def test_words_of_layouts_may_be_names_of_defects(self, tmp_path):
        mvtec_class(
            tmp_path / "mug", normal={"good": names(2)},
            defects={"label": names(1), "labels": names(1), "masks": names(1)},
        )  # fmt: skip
        found = read_dataset(tmp_path)
        assert (found.name, found.normal, found.anomalous) == ("mvtec_style", 2, 3)

    def test_texts_beside_pictures_may_be_anything(self, tmp_path):
        mvtec_class(tmp_path / "mug", normal={"good": ["0.png"]}, defects={"chip": ["1.png"]})
        for text in ("a white mug", "3 cups", "1 2 3", ""):
            write(tmp_path / "mug" / "test" / "good" / "0.txt", text)
            picture(tmp_path / "mug" / "0.png")
            write(tmp_path / "mug" / "0.txt", text)
            write(tmp_path / "mug" / "0.json", '{"shapes": 3}')
            assert read_dataset(tmp_path / "mug").name == "mvtec_style"

    @pytest.mark.parametrize("kept", ["test/good", "train/good", "ground_truth/chip"])
    def test_one_sign_of_an_mvtec_tree_is_enough(self, tmp_path, kept):
        """Normal pictures in either split, or masks."""
        draw(tmp_path / "mug", "test/chip/1.png", f"{kept}/2.png")
        reader, _ = detect_dataset(tmp_path)
        assert reader.name == "mvtec_style"

    def test_an_unreadable_list_is_no_layout(self, tmp_path):
        draw(tmp_path, "good/0.jpg", "bad/0.jpg", "data.yaml", "0.json", text="{")
        assert read_dataset(tmp_path).name == "folder"
