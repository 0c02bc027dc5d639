"""COCO annotations: every form of a segmentation, where pictures lie, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from faprompt.data import CocoReader, check_dataset, read_dataset, read_mask
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders

RECTANGLE = [3, 2, 8, 2, 8, 5, 3, 5]  # the pixels that `folders.mask` marks
HEIGHT, WIDTH = folders.SIZE


def rectangle_runs():
    """The same pixels as run lengths down the columns."""
    return [3 * HEIGHT + 2, 3, *[6, 3] * 4, HEIGHT - 5 + (WIDTH - 8) * HEIGHT]


def content(root, *, normal=3, anomalous=2, below="images"):
    """Pictures `n8.png` ... and `a8.png` ... of the kinds chip and dent, and their annotations."""
    names = [f"n{8 + at}.png" for at in range(normal)]
    names += [f"a{8 + at}.png" for at in range(anomalous)]
    for name in names:
        folders.picture(root / below / name)
    images = [
        {"id": at, "file_name": name, "height": HEIGHT, "width": WIDTH}
        for at, name in enumerate(names)
    ]
    categories = [{"id": 1, "name": "chip"}, {"id": 2, "name": "dent"}, {"id": 3, "name": "Good"}]
    annotations = [
        {"id": 100 + at, "image_id": image["id"], "category_id": 1 + at % 2,
         "bbox": [3, 2, 5, 3], "segmentation": [list(RECTANGLE)]}
        for at, image in enumerate(images[normal:])
    ]  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": categories}


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


class CocoSuite(ReaderSuite):
    """The ground truth lies in the annotations, so masks have no names of their own."""

    name = "coco"
    test_the_same_from_a_meta_json = None  # that format holds whole pictures only

    def test_masks_pair_by_name(self, root):
        for sample in read_dataset(root):
            assert len(sample.mask_paths) == sample.label
            assert all(path.suffix == ".json" for path in sample.mask_paths)


class TestImagesBeside(CocoSuite):
    classes = {"parts": (3, 2, 2)}

    def build(self, root):
        write(root / "parts.json", content(root, below=""))


class TestImagesFolder(CocoSuite):
    classes = {"instances_default": (3, 2, 2)}

    def build(self, root):
        write(root / "annotations/instances_default.json", content(root))


class TestImagesInSubset(CocoSuite):
    classes = {"instances_default": (3, 2, 2)}

    def build(self, root):
        data = content(root, below="images/default")
        write(root / "annotations/instances_default.json", data)
        write(root / "annotations/other.json", {"images": []})


@pytest.fixture
def data(tmp_path):
    return content(tmp_path)


def read(tmp_path, data):
    return CocoReader().read(write(tmp_path / "parts.json", data))


def by_name(found):
    return {sample.image_path.name: sample for sample in found}


def test_fields(tmp_path, data):
    samples = by_name(read(tmp_path, data))
    first = samples["a8.png"]
    assert (first.label, first.class_name, first.defect_type) == (1, "parts", "chip")
    assert first.mask_paths == (tmp_path / "parts.json",) and first.has_pixel_label
    normal = samples["n8.png"]
    assert (normal.label, normal.defect_type, normal.mask_paths) == (0, "good", ())
    assert normal.has_pixel_label and not read_mask(normal).any()


def test_the_file_itself_is_recognised(tmp_path, data):
    file = write(tmp_path / "parts.json", data)
    assert read_dataset(file).samples == read_dataset(tmp_path).samples
    assert read_dataset(file).name == "coco"


@pytest.mark.parametrize("form", ["polygon", "two polygons", "runs", "compressed"])
def test_every_form_gives_the_same_mask(tmp_path, data, form):
    """Compressed: "m0" is 29 = 3 x 9 + 2, each "0" repeats, "d1" is 52 more than the 6 before."""
    runs = rectangle_runs()
    halves = [[3, 2, 8, 2, 8, 4, 3, 4], [3, 4, 8, 4, 8, 5, 3, 5]]
    forms = {
        "polygon": [RECTANGLE],
        "two polygons": halves,
        "runs": {"size": [HEIGHT, WIDTH], "counts": runs},
        "compressed": {"size": [HEIGHT, WIDTH], "counts": "m0360000000d1"},
    }
    assert sum(runs) == HEIGHT * WIDTH
    data["annotations"][0]["segmentation"] = forms[form]
    truth = read_mask(by_name(read(tmp_path, data))["a8.png"])
    wanted = np.zeros(folders.SIZE, bool)
    wanted[2:5, 3:8] = True
    np.testing.assert_array_equal(truth, wanted)


def test_annotations_of_one_picture_are_united(tmp_path, data):
    data["annotations"].append(
        {"id": 7, "image_id": 3, "category_id": 2, "iscrowd": 1,
         "segmentation": {"counts": [0, 2, HEIGHT * WIDTH - 2]}}
    )  # fmt: skip
    sample = by_name(read(tmp_path, data))["a8.png"]
    assert sample.defect_type == "chip+dent"
    truth = read_mask(sample)
    assert truth.sum() == 15 + 2 and truth[:2, 0].all()


def test_normal_categories_do_not_count(tmp_path, data):
    data["annotations"].append({"id": 7, "image_id": 0, "category_id": 3, "bbox": [0, 0, 1, 1]})
    assert by_name(read(tmp_path, data))["n8.png"].label == 0
    data["annotations"].append({"id": 8, "image_id": 0, "category_id": 1, "bbox": [0, 0, 1, 1]})
    assert by_name(read(tmp_path, data))["n8.png"].label == 1


@pytest.mark.parametrize("nothing", [None, [], [[]], {}])
def test_boxes_alone_give_image_labels(tmp_path, data, nothing):
    for annotation in data["annotations"]:
        annotation["segmentation"] = nothing
    found = read(tmp_path, data)
    assert (found.normal, found.anomalous) == (3, 2)
    assert not any(sample.has_pixel_label or sample.mask_paths for sample in found)
    assert found.warnings == ("2 pictures have boxes without outlines: image labels only",)


def test_half_a_mask_is_none(tmp_path, data):
    """A box beside an outline: the outline alone would call the box normal."""
    data["annotations"].append({"id": 7, "image_id": 3, "category_id": 2, "bbox": [0, 0, 2, 2]})
    found = read(tmp_path, data)
    samples = by_name(found)
    assert not samples["a8.png"].has_pixel_label and samples["a9.png"].has_pixel_label
    assert found.unmasked == (tmp_path / "images/a8.png",)
    assert any("1 pictures have boxes" in line and "pixel figures" in line
               for line in found.warnings)  # fmt: skip


def test_class_name(tmp_path, data):
    assert read(tmp_path, data).class_names() == ("parts",)
    file = write(tmp_path / "tile.json", data)
    assert CocoReader().read(file).name == "coco", "a file's stem is no class of MVTec"


def test_sizes_that_disagree_are_refused_when_read(tmp_path, data):
    for image in data["images"]:
        image["height"] += 1
    write(tmp_path / "parts.json", data)
    found = by_name(read_dataset(tmp_path))
    for name in ("a8.png", "n8.png"):
        with pytest.raises(DatasetError, match=f"{name}.* picture of 10x14, but it is 9x14"):
            read_mask(found[name])
    check = check_dataset(tmp_path)
    assert not check.usable and len(check.problems) == 5


def test_sizes_may_be_left_out(tmp_path, data):
    for image in data["images"]:
        del image["height"], image["width"]
    assert read_mask(by_name(read(tmp_path, data))["a8.png"]).sum() == 15


def test_an_unreadable_picture_without_a_size_is_left_to_the_check(tmp_path, data):
    del data["images"][3]["height"]
    (tmp_path / "images/a8.png").write_bytes(b"")
    found = read(tmp_path, data)
    assert found.unmasked == (tmp_path / "images/a8.png",) and len(found) == 5


def test_pictures_named_from_another_machine(tmp_path, data):
    for image in data["images"]:
        image["file_name"] = "/home/someone/parts/images/" + image["file_name"]
    found = read(tmp_path, data)
    assert len(found) == 5
    assert any("5 paths of another machine" in line for line in found.warnings)


def test_missing_pictures_block_and_unlisted_ones_are_told(tmp_path, data):
    (tmp_path / "images/n9.png").rename(tmp_path / "images/x.png")
    found = read(tmp_path, data)
    assert len(found) == 4
    assert "1 pictures named in parts.json" in found.problems[0] and "n9.png" in found.problems[0]
    assert found.warnings == ("1 pictures beside them are not listed, left out",)


def test_annotations_of_unlisted_pictures_are_told(tmp_path, data):
    data["annotations"] += [
        {"id": 7, "image_id": 77, "category_id": 1},
        {"id": 8, "image_id": [1], "category_id": 1},
    ]
    assert any("2 annotations belong" in line for line in read(tmp_path, data).warnings)


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ([[0, 0, 1, 1]], "three corners or more, got 4 numbers"),
        ([0, 0, 5, 0, 5, 5], "an outline should be a list of numbers, got 0"),
        ([[0, 0, 1, float("inf"), 2, 2]], "not finite"),
        ([["a"] * 6], "could not convert"),
        ("outline", "should be a list of numbers, got 'o'"),
        (5, "not iterable"),
        ({"counts": [1, 2, 3]}, "add up to 6 pixels, and 9x14 has 126"),
        ({"counts": [-1, 127]}, "not be negative"),
        ({"counts": [float("inf")]}, "infinity"),
        ({"counts": "z"}, "'z' is no letter"),
        ({"size": [14, 9], "counts": [126]}, r"run lengths are for \(14, 9\)"),
        ({"size": [9, 14]}, "add up to 0 pixels"),
        ([[0, 0, 1e300, 5, 2, 2]], "beyond 1e.07 pixels"),
    ],
)
def test_shapes_that_cannot_be_drawn_are_problems(tmp_path, data, segmentation, told):
    data["annotations"][0]["segmentation"] = segmentation
    found = read(tmp_path, data)
    (problem,) = found.problems
    assert problem.startswith("1 cannot be drawn: annotation 100 (")
    with pytest.raises(DatasetError, match=told):
        found.require_usable()
    assert not by_name(found)["a8.png"].has_pixel_label


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data["annotations"][0].update(category_id=9), "no category 9.*1, 2, 3"),
        (lambda data: data["annotations"][0].update(category_id={}), "no category None"),
        (lambda data: data["images"][1].update(id=0), "the image id 0 twice"),
        (lambda data: data["images"][1].pop("id"), "every image should have an id"),
        (lambda data: data["categories"][1].pop("id"), "every category should have an id"),
        (lambda data: data["images"][1].update(file_name=" "), "image 1: file_name"),
        (lambda data: data["images"].append("x"), "images, record 5: should be an object"),
        (lambda data: data["images"].clear(), "test split is empty"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path, data, change, told):
    change(data)
    with pytest.raises(DatasetError, match=told):
        read(tmp_path, data)


def test_several_files_want_a_choice(tmp_path, data):
    for name in ("train", "val"):
        write(tmp_path / f"annotations/instances_{name}.json", data)
    with pytest.raises(DatasetError, match="instances_train.json, instances_val.json.*path of one"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path / "annotations/instances_val.json")) == 5


def test_other_json_is_no_coco(tmp_path):
    write(tmp_path / "a.json", {"images": [], "annotations": {}})
    folders.picture(tmp_path / "1.png")
    with pytest.raises(DatasetError, match="holds no COCO annotations"):
        read_dataset(tmp_path, dataset="coco")
    with pytest.raises(DatasetError, match="it is a file"):
        read_dataset(tmp_path / "a.json")
