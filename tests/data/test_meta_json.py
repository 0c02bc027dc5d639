"""`meta.json` as other projects write it, with every variant met so far."""

from __future__ import annotations

import json

import pytest

from faprompt.data import read_dataset, read_mask
from faprompt.data.picture_files import PathFinder, path_parts
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders
from tests.helpers.folders import record


class TestMetaJson(ReaderSuite):
    name = "meta_json"
    train_refused = "train split is empty"
    classes = {"mug": (3, 2, 2)}

    def build(self, root):
        folders.write_meta(root / "meta.json", folders.listed(root))


class TestFileBesideTheFolder(ReaderSuite):
    """`meta_<name>.json` next to the data folder, whose name begins every path."""

    name = "meta_json"
    train_refused = "train split is empty"
    classes = {"mug": (3, 2, 2)}

    def build(self, root):
        content = folders.listed(root / "mugs")
        for row in content["test"]["mug"]:
            row["img_path"] = f"mugs/{row['img_path']}"
            row["mask_path"] = f"mugs/{row['mask_path']}" if row["mask_path"] else ""
        folders.write_meta(root / "meta_mugs.json", content)


@pytest.fixture
def root(tmp_path):
    folders.write_meta(tmp_path / "meta.json", folders.listed(tmp_path))
    return tmp_path


def rewrite(root, change):
    """Change every record of the list in place."""
    content = json.loads((root / "meta.json").read_text())
    for rows in content["test"].values():
        for row in rows:
            change(row)
    folders.write_meta(root / "meta.json", content)


def facts(found):
    return [(s.image_path, s.mask_paths, s.label, s.has_pixel_label) for s in found]


def test_fields(root):
    samples = {s.image_path.name: s for s in read_dataset(root)}
    anomalous = samples["a8.png"]
    assert (anomalous.label, anomalous.class_name, anomalous.defect_type) == (1, "mug", "chip")
    assert anomalous.mask_paths == (root / "truth/a8.png",)
    assert samples["n8.png"].defect_type == "good"
    assert all(sample.has_pixel_label for sample in samples.values())


@pytest.mark.parametrize("spelling", ["Test", "TEST", "test"])
def test_split_names_ignore_case(root, spelling):
    content = folders.listed(root)
    folders.write_meta(root / "meta.json", {spelling: content["test"], "Train": {}})
    assert len(read_dataset(root)) == 5


def test_train_entry_may_be_missing_or_chosen(root):
    rows = folders.listed(root)["test"]
    folders.write_meta(root / "meta.json", {"test": rows})
    assert len(read_dataset(root)) == 5
    folders.write_meta(root / "meta.json", {"Train": {"mug": rows["mug"][:2]}, "test": rows})
    found = read_dataset(root, split="train")
    assert [s.split for s in found] == ["train", "train"]


def test_dummy_records_are_skipped_and_counted(root):
    content = folders.listed(root)
    content["test"]["mug"] += [record("", 0), record("", 0), {"anomaly": 1}]
    folders.write_meta(root / "meta.json", content)
    found = read_dataset(root)
    assert len(found) == 5
    assert any("3 records without a picture" in line for line in found.warnings)


@pytest.mark.parametrize(
    "prefix",
    ["/home/someone/data/mugs/", "/a/b/../", "C:\\Users\\me\\mugs\\", "mugs/", "\\\\nas\\x\\"],
)
def test_paths_of_another_machine_are_found_by_their_tails(root, prefix):
    before = facts(read_dataset(root))

    def move(row):
        for key in ("img_path", "mask_path"):
            row[key] = prefix + row[key] if row[key] else ""

    rewrite(root, move)
    found = read_dataset(root)
    assert facts(found) == before
    assert any("7 paths of another machine" in line for line in found.warnings)


def test_longest_tail_wins(tmp_path):
    for place in ("no/1.png", "brain/no/1.png", "1.png"):
        folders.picture(tmp_path / place)
    finder = PathFinder(tmp_path)
    assert finder.find("/x/brain/no/1.png") == tmp_path / "brain/no/1.png"
    assert finder.find("/x/heart/no/1.png") == tmp_path / "no/1.png"
    assert finder.find("/x/heart/yes/1.png") == tmp_path / "1.png"
    assert finder.rescued == 3
    assert finder.find("brain/no/1.png") == tmp_path / "brain/no/1.png"
    assert finder.rescued == 3
    assert finder.find("2.png") is None
    assert finder.find("a" * 5000) is None and finder.find("a\0b") is None
    assert finder.find("brain") is None, "a folder is no file"


def test_existing_absolute_paths_are_taken_as_they_are(tmp_path):
    image = folders.picture(tmp_path / "elsewhere/1.png")
    content = {"test": {"mug": [record(image.as_posix(), 0)]}}
    folders.write_meta(tmp_path / "set/meta.json", content)
    found = read_dataset(tmp_path / "set")
    assert [s.image_path for s in found] == [image]
    assert found.warnings == ()


def test_untidy_separators_are_no_rescue(root):
    before = facts(read_dataset(root))
    rewrite(root, lambda row: row.update(img_path="./" + row["img_path"].replace("/", "//")))
    rewrite(root, lambda row: row.update(mask_path=row["mask_path"].replace("/", "\\")))
    found = read_dataset(root)
    assert facts(found) == before
    assert found.warnings == ()
    assert path_parts("a\\.\\b//./c") == ["a", "b", "c"]


def test_null_mask_is_no_mask(root):
    rewrite(root, lambda row: row.update(mask_path=row["mask_path"] or None))
    assert read_dataset(root).counts()["mug"].with_mask == 2


@pytest.mark.parametrize("fill", ["blank", "missing"])
def test_masks_all_blank_or_missing_mean_image_labels(root, fill):
    for name in ("a8", "a9"):
        path = folders.mask(root / f"truth/{name}.png", value=0)
        if fill == "missing":
            path.unlink()
    found = read_dataset(root)
    assert not any(s.has_pixel_label or s.mask_paths for s in found)
    assert found.unmasked == ()
    assert any("all masks of mug are missing or blank" in line for line in found.warnings)


def test_one_real_mask_makes_the_class_pixel_labelled(root):
    folders.mask(root / "truth/a8.png", value=0)
    found = read_dataset(root)
    assert found.counts()["mug"].with_mask == 2
    assert [read_mask(s).any() for s in found if s.label] == [False, True]


def test_one_missing_mask_leaves_one_picture_out_of_pixel_figures(root):
    (root / "truth/a8.png").unlink()
    found = read_dataset(root)
    assert found.unmasked == (root / "pictures/a8.png",)
    pixels = {s.image_path.name: s.has_pixel_label for s in found}
    assert pixels == {"a8.png": False, "a9.png": True, "n8.png": True, "n9.png": True,
                      "n10.png": True}  # fmt: skip


def test_a_shortened_mask_path_never_hits_the_picture(tmp_path):
    """`/old/masks/1.png` shortened to `1.png` is the picture itself."""
    folders.picture(tmp_path / "1.png")
    folders.picture(tmp_path / "2.png")
    folders.mask(tmp_path / "masks/2.png")
    rows = [record("1.png", 1, mask="/old/truth/1.png"), record("2.png", 1, mask="masks/2.png")]
    folders.write_meta(tmp_path / "meta.json", {"test": {"mug": rows}})
    found = read_dataset(tmp_path)
    assert [s.mask_paths for s in found] == [(), (tmp_path / "masks/2.png",)]
    assert found.unmasked == (tmp_path / "1.png",)


def test_further_keys_are_kept(root):
    rewrite(root, lambda row: row.update(view_id="C1", depth=3, tags=["a"]))
    (first, *_) = read_dataset(root)
    assert first.extra == {"view_id": "C1", "depth": "3", "tags": '["a"]'}


def test_the_record_wins_over_its_key_and_that_is_told_once(root):
    rewrite(root, lambda row: row.update(cls_name="cup"))
    found = read_dataset(root)
    assert found.class_names() == ("cup",)
    (line,) = found.warnings
    assert "cup under mug" in line


def test_a_record_without_class_takes_the_key(root):
    rewrite(root, lambda row: (row.pop("cls_name"), row.pop("specie_name")))
    found = read_dataset(root)
    assert found.class_names() == ("mug",)
    assert {s.defect_type for s in found} == {""}


def test_named_after_its_records_or_its_classes(root):
    assert read_dataset(root).name == "meta_json"
    rewrite(root, lambda row: row.update(cls_name="wood"))
    assert read_dataset(root).name == "mvtec"
    rewrite(root, lambda row: row.update(dataset_name="kitchen"))
    found = read_dataset(root)
    assert found.name == "kitchen" and {s.dataset for s in found} == {"kitchen"}


def test_missing_pictures_block(root):
    (root / "pictures/n9.png").unlink()
    found = read_dataset(root)
    assert len(found) == 4
    (problem,) = found.problems
    assert "1 pictures named in meta.json" in problem and "pictures/n9.png" in problem


def test_repeats_are_told_and_contradictions_block(root):
    content = folders.listed(root)
    rows = content["test"]["mug"]
    folders.write_meta(root / "meta.json", {"test": {"mug": [*rows, rows[0]]}})
    twice = read_dataset(root)
    assert len(twice) == 6 and twice.problems == ()
    assert any("listed more than once: pictures/n8.png" in line for line in twice.warnings)
    folders.write_meta(root / "meta.json", {"test": {"mug": [*rows, {**rows[0], "anomaly": 1}]}})
    (problem,) = read_dataset(root).problems
    assert "normal and as anomalous: pictures/n8.png" in problem


@pytest.mark.parametrize("value", [True, 1, 1.0, "1"])
def test_labels_in_any_spelling_of_one(root, value):
    rewrite(root, lambda row: row.update(anomaly=value if row["anomaly"] else 0))
    assert read_dataset(root).anomalous == 2


@pytest.mark.parametrize("value", [2, -1, "yes", None, 0.5, [1]])
def test_other_labels_are_refused_naming_the_record(root, value):
    content = folders.listed(root)
    content["test"]["mug"][3]["anomaly"] = value
    folders.write_meta(root / "meta.json", content)
    with pytest.raises(DatasetError, match="class 'mug', record 3: anomaly should be 0 or 1"):
        read_dataset(root)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"test": {"mug": {}}}, "class 'mug': should be a list"),
        ({"test": {"mug": ["a.png"]}}, "record 0: should be an object, got 'a.png'"),
        ({"test": {"mug": [{"img_path": 3, "anomaly": 0}]}}, "img_path should be text, got 3"),
        ({"train": {}}, "one 'test' entry; its entries are 'train'"),
        ({"test": {}, "Test": {}}, "one 'test' entry; its entries are 'test', 'Test'"),
        ({"test": {}}, "test split is empty"),
        ({"test": {"mug": [{"img_path": "gone.png", "anomaly": 0}]}}, "empty.*gone.png"),
    ],
)
def test_other_shapes_are_refused(tmp_path, content, told):
    folders.write_meta(tmp_path / "meta.json", content)
    with pytest.raises(DatasetError, match=told):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [([], "holds a list"), ({"test": []}, "entry 'test': should look like"), ({}, "are nothing")],
)
def test_other_tools_files_are_refused_by_name_only(tmp_path, content, told):
    """Supervisely and Real-IAD have files of that name; they must not hide a readable folder."""
    folders.write_meta(tmp_path / "meta.json", content)
    with pytest.raises(DatasetError, match=told):
        read_dataset(tmp_path, dataset="meta_json")
    folders.yes_no(tmp_path)
    assert read_dataset(tmp_path).name == "yes_no"


def test_broken_json_is_refused_and_not_passed_over(tmp_path):
    (tmp_path / "meta.json").write_text('{"test": ')
    folders.yes_no(tmp_path)
    with pytest.raises(DatasetError, match="no readable JSON"):
        read_dataset(tmp_path)


def test_byte_order_mark_is_ignored(root):
    text = (root / "meta.json").read_text()
    (root / "meta.json").write_text("\ufeff" + text, encoding="utf-8")
    assert len(read_dataset(root)) == 5


def test_several_lists_want_a_choice(root):
    (root / "meta.json").rename(root / "meta_one.json")
    folders.write_meta(root / "meta_two.json", folders.listed(root))
    with pytest.raises(DatasetError, match="meta_one.json, meta_two.json.*path of one"):
        read_dataset(root)
    assert len(read_dataset(root / "meta_two.json")) == 5
