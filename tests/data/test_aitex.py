"""AITEX: slices of strips, united masks, strips without any, a quarter of the normal slices."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from faprompt.data import compare_counts, read_dataset, read_mask
from faprompt.data.dataset import ClassCount
from faprompt.data.layout_reader import paper_normals
from faprompt.data.sliced_pictures import AitexReader
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import industrial

# (strip, left edge) -> marked columns, three rows high
MARKED = {
    ("0001_002_00", 0): 6, ("0001_002_00", 256): 7, ("0044_019_04", 0): 4,
    ("0044_019_04", 512): 10, ("0094_027_05", 256): 10,
}  # fmt: skip


class TestAitex(ReaderSuite):
    name = "aitex"
    classes = {"aitex": (2, 5, 5)}
    classes_of_all = {"aitex": (8, 5, 5)}
    test_the_same_from_a_meta_json = None  # that format holds whole pictures only

    def build(self, root):
        industrial.aitex(root)

    def picture_stem(self, mask):
        return re.sub(r"_mask[0-9]*$", "", mask.stem)

    def size_of(self, sample):
        x0, _, x1, _ = sample.region
        return industrial.STRIP_HEIGHT, x1 - x0

    def marked_pixels(self, sample):
        return 3 * MARKED[sample.image_path.stem, sample.region[0]]


class TestKaggle(TestAitex):
    """`Defect_images/Defect_images`, `Mask_images/Mask_images`."""

    def build(self, root):
        industrial.aitex(root, nested=True)


@pytest.fixture
def root(tmp_path):
    industrial.aitex(tmp_path)
    return tmp_path


def test_slices_with_a_mark_are_kept_and_their_neighbours_discarded(root):
    bad = [sample for sample in read_dataset(root, subset="all") if sample.label]
    assert {(s.image_path.stem, s.region[0]): s.region[2] for s in bad} == {
        ("0001_002_00", 0): 256, ("0001_002_00", 256): 512, ("0044_019_04", 0): 256,
        ("0044_019_04", 512): 600, ("0094_027_05", 256): 300,
    }  # fmt: skip
    assert {s.image_path.stem: s.defect_type for s in bad} == {
        "0001_002_00": "Broken_end", "0044_019_04": "Fuzzyball", "0094_027_05": "Knots",
    }  # fmt: skip


def test_two_masks_are_united(root):
    """Both files belong to both slices; each slice shows the part that lies in it."""
    parts = [s for s in read_dataset(root) if s.image_path.stem == "0044_019_04"]
    assert [len(part.mask_paths) for part in parts] == [2, 2]
    assert read_mask(parts[0]).any(axis=0).nonzero()[0].tolist() == [10, 11, 12, 13]
    assert read_mask(parts[1]).any(axis=0).nonzero()[0].tolist() == list(range(78, 88))


def test_a_strip_without_a_mask_is_left_out_and_told(root):
    found = read_dataset(root, subset="all")
    assert "0100_025_08.png" not in {sample.image_path.name for sample in found}
    assert any("left out: Defect_images/0100_025_08.png" in line for line in found.warnings)
    assert found.problems == () and found.unmasked == ()


def test_a_blank_mask_is_told(root):
    industrial.strip_mask(root / "Mask_images/0100_025_08_mask.png", 600, columns=(0, 0))
    found = read_dataset(root)
    assert found.anomalous == 5
    told = "without a marked pixel, so not one slice is used: Defect_images/0100_025_08.png"
    assert told in found.warnings


def test_normal_slices_in_order_and_their_quarter(root):
    every = [s for s in read_dataset(root, subset="all") if not s.label]
    assert [(s.image_path.name, s.region[0], s.region[2]) for s in every] == [
        ("0002_000_05.png", 0, 256), ("0002_000_05.png", 256, 512), ("0002_000_05.png", 512, 600),
        ("0010_000_05.png", 0, 256), ("0010_000_05.png", 256, 512), ("0010_000_05.png", 512, 600),
        ("0018_00_01.png", 0, 256), ("0018_00_01.png", 256, 512),
    ]  # fmt: skip
    kept = [s for s in read_dataset(root) if not s.label]
    assert kept == [every[at] for at in paper_normals(8)]
    assert all(sample.has_pixel_label for sample in every)


def whiten(path, *, left):
    with Image.open(path) as picture:
        white = picture.copy()
    white.paste(255, (left, 0, *white.size))
    white.save(path)


def test_blank_padding_is_a_normal_slice(root):
    """The paper's 564 includes the white ends of the strips."""
    whiten(root / "NODefect_images/2306881-210020u/0002_000_05.png", left=256)
    assert read_dataset(root, subset="all").normal == 8


def test_strips_may_lie_without_a_folder_of_their_fabric(root):
    industrial.strip(root / "NODefect_images/0030_000_05.png", 256)
    assert read_dataset(root, subset="all").normal == 9


def test_orphans_clashes_and_damage(root):
    stray = industrial.strip_mask(root / "Mask_images/0777_002_00_mask.png", 600, columns=(0, 9))
    industrial.strip_mask(root / "Mask_images/0001_002_00.png", 600, columns=(0, 9))
    industrial.strip_mask(root / "Mask_images/0094_027_05_mask.png", 301, columns=(0, 9))
    (root / "NODefect_images/2608691-ä/0018_00_01.png").write_bytes(b"")
    found = read_dataset(root, subset="all")
    assert found.orphan_masks == (stray,)
    told = "\n".join(found.problems)
    assert "0001_002_00.png has several masks" in told
    assert "8x301" in told and "0018_00_01.png cannot be read" in told
    assert len(found.problems) == 3
    assert (found.normal, found.anomalous) == (6, 2)


@pytest.mark.parametrize("name", ["Mask_images", "NODefect_images", "Defect_images"])
def test_a_missing_folder_is_named(root, name):
    (root / name).rename(root / "other")
    for dataset in ("auto", "aitex"):
        with pytest.raises(DatasetError, match=f"expected Defect_images/.*; {name} missing"):
            read_dataset(root, dataset=dataset)


def test_two_spellings_of_one_folder_are_not_recognised(root):
    (root / "mask_images").mkdir()
    assert AitexReader().recognise(root) is None
    with pytest.raises(DatasetError, match="only one of them is wanted"):
        read_dataset(root, dataset="aitex")


@pytest.mark.parametrize(
    ("normal", "anomalous", "matches"),
    [(564, 183, True), (564, 180, True), (564, 186, True), (564, 179, False), (563, 183, False)],
)
def test_the_papers_count_holds_within_three(normal, anomalous, matches):
    found = compare_counts("aitex", {"aitex": ClassCount(normal, anomalous, anomalous)})
    assert found.matches is matches
    exact = (normal, anomalous) == (564, 183)
    told = f"{normal} + {anomalous} instead of 564 + 183"
    assert any(told in line for line in found.remarks + found.differences) is not exact
    assert bool(found.remarks) is (matches and not exact)


def test_other_datasets_have_no_tolerance():
    assert compare_counts("sdd", {"sdd": ClassCount(286, 53, 53)}).matches is False
