"""Names, detection and its refusals."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import faprompt.data
from faprompt.data import dataset_info, detect_dataset, list_datasets, read_dataset
from faprompt.data.known_readers import _DETECTION
from faprompt.errors import ConfigError, DatasetError
from tests.helpers import folders


def test_names_are_unique_and_written_by_hand():
    names = [reader.name for group in _DETECTION for reader in group]
    assert len(names) == len(set(names))
    assert set(names) == set(list_datasets())
    assert {"mvtec", "visa", "brainmri", "br35h", "magnetic_tile"} <= set(names)
    assert "auto" not in names


def test_info():
    info = dataset_info("mvtec")
    assert (info.normal, info.anomalous) == (467, 1258)
    assert dataset_info("folder").normal is None
    for name in list_datasets():
        assert dataset_info(name).title and dataset_info(name).layout


@pytest.mark.parametrize(
    ("wrong", "meant"), [("mvtek", "mvtec"), ("magnetic-tile", "magnetic_tile"), ("VisA", "visa")]
)
def test_unknown_names_are_refused_with_the_likely_one(tmp_path, wrong, meant):
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'.*Known: auto, mvtec, visa"):
        read_dataset(tmp_path, dataset=wrong)
    with pytest.raises(ConfigError, match="There is no dataset 'xyz'. Known"):
        dataset_info("xyz")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        read_dataset(tmp_path / "absent")


def test_text_paths_do(tmp_path):
    folders.yes_no(tmp_path)
    assert read_dataset(str(tmp_path)).samples == read_dataset(tmp_path).samples


def test_an_empty_folder_is_refused_with_the_choices(tmp_path):
    with pytest.raises(DatasetError) as told:
        read_dataset(tmp_path)
    assert all(name in str(told.value) for name in list_datasets())
    assert "\n" not in str(told.value)


def test_two_datasets_in_one_folder_are_refused_with_both_names(tmp_path):
    folders.visa_own(tmp_path)
    folders.magnetic_tile(tmp_path)
    with pytest.raises(
        DatasetError, match="several.*visa .*magnetic_tile.*'visa', 'magnetic_tile'"
    ):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, dataset="visa").name == "visa"
    assert read_dataset(tmp_path, dataset="magnetic_tile").name == "magnetic_tile"


def test_a_list_decides_over_folders_and_says_so(tmp_path):
    folders.mvtec_class(tmp_path / "tile", normal={"good": ["1.png"]}, defects={"oil": ["1.png"]})
    rows = [folders.record("tile/test/good/1.png", 0, class_name="tile")]
    folders.write_meta(tmp_path / "meta.json", {"test": {"tile": rows}})
    by_list = read_dataset(tmp_path)
    assert len(by_list) == 1 and by_list.reason == "meta.json"
    assert any("folders alone would be 'mvtec'" in line for line in by_list.warnings)
    assert len(read_dataset(tmp_path, dataset="mvtec")) == 2


def test_own_classes_may_be_called_mvtec_and_are_told_apart(tmp_path):
    folders.mvtec_class(tmp_path / "mug", normal={"good": ["1.png"]}, defects={"chip": ["1.png"]})
    found = read_dataset(tmp_path, dataset="mvtec")
    assert found.name == "mvtec"
    assert any("classes the paper does not have: mug" in line for line in found.warnings)
    assert read_dataset(tmp_path).name == "mvtec_style"
    assert read_dataset(tmp_path).warnings == ()


def test_the_neighbour_is_refused(tmp_path):
    folders.mvtec_class(tmp_path / "tile", normal={"good": ["1.png"]}, defects={"oil": ["1.png"]})
    for wrong in ("visa", "btad", "brainmri", "magnetic_tile", "folder"):
        with pytest.raises(DatasetError, match=f"is not {wrong}: expected .*; found mvtec"):
            read_dataset(tmp_path, dataset=wrong)


def test_one_level_too_low_names_the_level_above(tmp_path):
    folders.mvtec_class(tmp_path / "tile", normal={"good": ["1.png"]}, defects={"oil": ["1.png"]})
    with pytest.raises(DatasetError, match="folder above, .*tile, looks like mvtec"):
        read_dataset(tmp_path / "tile/ground_truth")


def test_one_level_too_high_names_what_lies_below(tmp_path):
    folders.yes_no(tmp_path / "scans")
    folders.magnetic_tile(tmp_path / "tiles")
    with pytest.raises(DatasetError, match=r"holds scans \(yes_no\), tiles \(magnetic_tile\)"):
        read_dataset(tmp_path)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DatasetError, match="it is a file"):
        read_dataset(tmp_path / "a.txt")


def test_detection_gives_its_reason(tmp_path):
    folders.magnetic_tile(tmp_path)
    reader, reason = detect_dataset(tmp_path)
    assert reader.name == "magnetic_tile"
    assert reason == "folders MT_Blowhole, MT_Crack, MT_Free"


def test_differing_counts_are_told_with_both_numbers(tmp_path):
    folders.mvtec_class(tmp_path / "tile", normal={"good": ["1.png"]}, defects={"oil": ["1.png"]})
    told = " ".join(read_dataset(tmp_path).warnings)
    assert "tile 1 + 1 instead of 33 + 84" in told
    assert "classes missing: bottle, cable, capsule, carpet, grid and 9 more" in told
    train = read_dataset(tmp_path, split="train")
    assert train.warnings == ()


def test_every_warning_of_auto_is_there_by_name(tmp_path):
    folders.mvtec_class(tmp_path / "tile", normal={"good": ["1.png"]}, defects={"oil": ["1.png"]})
    assert read_dataset(tmp_path) == read_dataset(tmp_path, dataset="mvtec")


def test_data_imports_only_the_base_layer_and_imaging():
    """No torch either."""
    base = {f"faprompt.{name}" for name in ("config", "errors", "files", "records", "work")}
    known = base | {"faprompt.data", "faprompt.imaging"}
    seen = set()
    for file in Path(faprompt.data.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                seen.add(node.module)
            elif isinstance(node, ast.Import):
                seen |= {alias.name for alias in node.names}
    ours = {name for name in seen if name.startswith("faprompt")}
    assert {".".join(name.split(".")[:2]) for name in ours} == known
    assert not {name.split(".")[0] for name in seen} & {"torch", "torchvision", "matplotlib"}


# Known datasets in the forms that other projects prepare: an MVTec tree or a `meta.json`.
# (dataset, class, normal pictures, kind of defect, anomalous pictures, do the trees hold masks)
PREPARED_TREES = [
    ("sdd", "SDD", ["kos01_Part5_1.png"], "defect", ["kos01_Part5_0.png"], True),
    ("aitex", "AITEX", ["2306_0001_000_05_3.png"], "Broken_end", ["0001_002_00_8.png"], True),
    ("dagm", "Class1", ["1.PNG"], "defect", ["2.PNG"], True),
    ("elpv", "elpv", ["1.png"], "defect", ["2.png"], False),
    ("lag", "lag", ["1.jpg"], "glaucoma", ["1.jpg"], False),
    ("brainmri", "brain", ["1.png"], "tumor", ["1.png"], False),
    ("headct", "brain", ["100.png"], "hemorrhage", ["1.png", "2.png"], False),
    ("headct", "headct", ["100.png"], "defect", ["1.png", "2.png"], False),
    ("tn3k", "thyroid", [], "nodule", ["0000.jpg", "0001.jpg"], True),
]


@pytest.mark.parametrize(("name", "class_name", "good", "defect", "bad", "masked"), PREPARED_TREES)
def test_a_tree_is_read_under_its_name(tmp_path, name, class_name, good, defect, bad, masked):
    folders.mvtec_class(
        tmp_path / class_name,
        normal={"good": good} if good else {},
        defects={defect: bad},
        mask_name="{stem}_mask.png" if masked else None,
    )
    found = read_dataset(tmp_path, dataset=name)
    assert (found.name, found.normal, found.anomalous) == (name, len(good), len(bad))
    assert {sample.dataset for sample in found} == {name}
    assert found.counts()[class_name].with_mask == masked * len(bad)
    assert any(sample.has_pixel_label for sample in found) is masked
    # by itself such a tree carries no mark of the dataset
    if good:
        assert read_dataset(tmp_path).name == "mvtec_style"
    with pytest.raises(DatasetError, match="mvtec_style, which has no subset 'all'.*sdd.*elpv"):
        read_dataset(tmp_path, dataset=name, subset="all")


@pytest.mark.parametrize("name", ["sdd", "realiad", "brainmri"])
def test_a_list_is_read_under_its_name(tmp_path, name):
    folders.write_meta(tmp_path / "meta.json", folders.listed(tmp_path))
    found = read_dataset(tmp_path, dataset=name)
    assert (found.name, len(found)) == (name, 5)
    assert {sample.dataset for sample in found} == {name}
