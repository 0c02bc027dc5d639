"""LAG: a quarter of the normal pictures, label files as a second witness, no attention maps."""

from __future__ import annotations

import numpy as np
import pytest

from faprompt.data import read_dataset
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders

NORMAL, ANOMALOUS = "non_glaucoma", "suspicious_glaucoma"


def lag(root, *, level="image", normal=7, anomalous=3, extras=True):
    """Both kinds, with the maps and the label files that the archive brings."""
    for label, (kind, count) in enumerate(((NORMAL, normal), (ANOMALOUS, anomalous))):
        for name in folders.names(count, ".jpg"):
            image = folders.picture(root / kind / level / name)
            if extras:
                folders.mask(root / kind / "attention_map" / name)
                text = root / kind / "label" / f"{image.stem}.txt"
                text.parent.mkdir(parents=True, exist_ok=True)
                text.write_text(f"{label}\n")


class TestLag(ReaderSuite):
    name = "lag"
    folder = "LAG_database_part_1"
    classes = {"fundus": (2, 3, 0)}  # ceil(7 / 4) of the normal ones
    classes_of_all = {"fundus": (7, 3, 0)}

    def build(self, root):
        lag(root)

    def test_attention_maps_are_no_masks_and_no_pictures(self, root):
        found = read_dataset(root, subset="all")
        assert len(found) == 10
        for sample in found:
            assert sample.mask_paths == () and not sample.has_pixel_label
            assert sample.image_path.parent.name == "image"
        told = f"{NORMAL}/attention_map, {ANOMALOUS}/attention_map"
        assert any(told in line for line in found.warnings)


class TestFlat(ReaderSuite):
    name = "lag"
    classes = {"fundus": (2, 3, 0)}
    classes_of_all = {"fundus": (7, 3, 0)}

    def build(self, root):
        lag(root, level=".", extras=False)


@pytest.fixture
def root(tmp_path):
    lag(tmp_path)
    return tmp_path


def test_the_quarter_is_drawn_in_natural_order(root):
    """Against scikit-learn's split, from which the published converters take it."""
    from sklearn.model_selection import train_test_split

    names = sorted(folders.names(7, ".jpg"), key=lambda name: int(name.split(".")[0]))
    _, wanted = train_test_split(names, test_size=0.25, random_state=42)
    kept = {s.image_path.name for s in read_dataset(root) if not s.label}
    assert kept == set(wanted)
    assert any("2 of 7 normal samples are kept" in line for line in read_dataset(root).warnings)


def test_the_whole_set_equals_the_paper(tmp_path):
    for kind, count in ((NORMAL, 3143), (ANOMALOUS, 1711)):
        (tmp_path / kind / "image").mkdir(parents=True)
        for number in range(count):
            (tmp_path / kind / "image" / f"{number}.jpg").touch()
    found = read_dataset(tmp_path)
    assert (found.normal, found.anomalous) == (786, 1711)
    assert not any("not the paper's" in line for line in found.warnings)
    drawn = np.random.RandomState(42).permutation(3143)[:786]
    kept = [int(s.image_path.stem) for s in found if not s.label]
    assert kept == sorted(drawn.tolist())


def test_records(root):
    facts = {(s.label, s.class_name, s.defect_type) for s in read_dataset(root)}
    assert facts == {(0, "fundus", "good"), (1, "fundus", ANOMALOUS)}


def test_one_kind_flat_and_the_other_not(tmp_path):
    lag(tmp_path, level=".", extras=False)
    for name in folders.names(2, ".jpg", start=50):
        folders.picture(tmp_path / ANOMALOUS / "image" / name)
    found = read_dataset(tmp_path, subset="all")
    assert (found.normal, found.anomalous) == (7, 2)


def test_attention_maps_inside_a_flat_folder_are_left_out(tmp_path):
    lag(tmp_path, level=".")
    found = read_dataset(tmp_path, subset="all")
    assert len(found) == 10 and found.problems == ()
    assert any("attention_map" in line for line in found.warnings)


def test_label_files_that_contradict_block(root):
    (root / NORMAL / "label/9.txt").write_text("1")
    found = read_dataset(root)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("1 label files say another class than their folder: ")
    assert f"{NORMAL}/label/9.txt" in found.problems[0]
    with pytest.raises(DatasetError, match="label files say another class"):
        found.require_usable()


def test_label_files_that_say_nothing_are_told(root):
    (root / NORMAL / "label/9.txt").write_text("")
    (root / ANOMALOUS / "label/9.txt").write_text("glaucoma")
    found = read_dataset(root)
    assert found.problems == ()
    told = f"2 label files hold no 0 or 1: {NORMAL}/label/9.txt, {ANOMALOUS}/label/9.txt"
    assert told in found.warnings


def test_label_files_of_other_names_are_told(root):
    for file in (root / NORMAL / "label").iterdir():
        file.rename(file.with_name(f"x{file.name}"))
    told = read_dataset(root).warnings
    assert f"label files of {NORMAL} are not called like its pictures" in told


def test_missing_label_files_are_no_matter(root):
    (root / NORMAL / "label/9.txt").unlink()
    found = read_dataset(root)
    assert found.problems == () and not any("label files" in line for line in found.warnings)


def test_one_kind_alone_is_refused(tmp_path):
    folders.picture(tmp_path / NORMAL / "image/1.jpg")
    (tmp_path / ANOMALOUS / "image").mkdir(parents=True)
    with pytest.raises(DatasetError, match=f"is not lag: expected.*found {NORMAL}, {ANOMALOUS}"):
        read_dataset(tmp_path, dataset="lag")


def test_one_level_too_low_names_the_level_above(root):
    with pytest.raises(DatasetError, match="looks like lag; give that one"):
        read_dataset(root / ANOMALOUS)


def test_two_spellings_are_refused_by_name(root):
    folders.picture(root / "Non_Glaucoma/image/1.jpg")
    with pytest.raises(DatasetError, match="holds Non_Glaucoma, non_glaucoma; only one"):
        read_dataset(root, dataset="lag")
