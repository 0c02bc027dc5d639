"""Names and order: what counts as a picture, and natural order as a total order."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faprompt.data.picture_files import (
    IMAGE_EXTENSIONS,
    MASK_EXTENSIONS,
    examples,
    find_folder,
    is_image_name,
    is_normal_name,
    list_folders,
    list_images,
    relative_name,
    unnested,
)
from faprompt.errors import DatasetError
from faprompt.files import natural_key
from tests.helpers import folders


def test_digit_runs_are_numbers():
    wanted = ["a/2", "a/10", "a/010", "a 1/1", "b2c3", "b2c10", "b10c1", "B11"]
    assert sorted(reversed(wanted), key=natural_key) == [
        "a/2", "a/010", "a/10", "a 1/1", "b2c3", "b2c10", "b10c1", "B11",
    ]  # fmt: skip


def test_folders_come_before_their_deeper_names():
    """`a/z` precedes `a b/a`: folder names are compared whole, not with the slash in them."""
    assert sorted(["a b/a", "a/z", "a-b/a"], key=natural_key) == ["a/z", "a b/a", "a-b/a"]


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab1209 /.éÉ²٣", max_size=8), max_size=4))
def test_order_is_total(texts):
    """Every order of the input gives one output, and only equal texts are equal."""
    results = {tuple(sorted(order, key=natural_key)) for order in itertools.permutations(texts)}
    assert len(results) == 1
    assert len({natural_key(text) for text in texts}) == len(set(texts))


def test_extensions():
    pictures = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
    assert pictures == MASK_EXTENSIONS
    assert pictures | {".webp", ".dcm", ".dicom"} == IMAGE_EXTENSIONS
    assert all(is_image_name("a" + suffix.upper()) for suffix in IMAGE_EXTENSIONS)


@pytest.mark.parametrize(
    "name",
    ["Thumbs.db", ".DS_Store", "._a.png", ".a.png", "a.gif", "a.png.txt", "png", "a", "a.PNG~"],
)
def test_what_is_no_picture(name):
    assert not is_image_name(name)


def test_normal_names_ignore_case():
    for name in ("good", "ok", "normal", "no", "OK", "Normal", "NORMAL", "non_glaucoma", "Good"):
        assert is_normal_name(name)
    for name in ("ko", "not good", "goods", "anomaly", "yes"):
        assert not is_normal_name(name)


def test_listing_skips_litter_and_what_lies_deeper(tmp_path):
    for name in ("10.png", "9.JPG", "deep/1.png", "trap.png/1.png"):
        folders.picture(tmp_path / name)
    folders.litter(tmp_path)
    assert [path.name for path in list_images(tmp_path)] == ["9.JPG", "10.png"]
    assert [path.name for path in list_folders(tmp_path)] == ["deep", "trap.png"]
    assert list_images(tmp_path / "absent") == list_folders(tmp_path / "9.JPG") == []


def test_find_folder_ignores_case(tmp_path):
    (tmp_path / "Masks").mkdir()
    assert find_folder(tmp_path, "mask", "masks") == tmp_path / "Masks"
    assert find_folder(tmp_path, "truth") is None
    (tmp_path / "mask").mkdir()
    with pytest.raises(DatasetError, match="mask, Masks; only one of them"):
        find_folder(tmp_path, "mask", "masks")


def test_unlistable_folders_are_told(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(DatasetError, match="cannot be listed: Permission denied"):
        list_images(tmp_path)


def test_relative_name(tmp_path):
    assert relative_name(tmp_path / "a/b.png", tmp_path) == "a/b.png"
    assert relative_name(tmp_path / "b.png", tmp_path / "a") == (tmp_path / "b.png").as_posix()


def test_examples():
    assert examples([]) == ""
    assert examples("abcde") == "a, b, c, d, e"
    assert examples("abcdefg") == "a, b, c, d, e and 2 more"


def test_accents_sort_together_however_they_are_coded():
    composed, parts = (unicodedata.normalize(form, "é2") for form in ("NFC", "NFD"))
    assert composed != parts
    assert sorted(["é10", parts, composed, "é1"], key=natural_key)[0] == "é1"
    assert sorted(["é10", parts, composed, "é1"], key=natural_key)[-1] == "é10"


def test_a_folder_nested_in_itself(tmp_path):
    folders.picture(tmp_path / "Class1/class1/Test/1.png")
    folders.picture(tmp_path / "Class2/Class1/1.png")
    folders.picture(tmp_path / "Class3/Class3/1.png")
    folders.picture(tmp_path / "Class3/2.png")
    assert unnested(tmp_path / "Class1") == tmp_path / "Class1/class1"
    assert unnested(tmp_path / "Class2") == tmp_path / "Class2"
    assert unnested(tmp_path / "Class3") == tmp_path / "Class3"
