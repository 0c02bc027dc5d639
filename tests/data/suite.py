"""What every reader has to prove. A new reader inherits this and says how its folder is drawn."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path

import pytest

from faprompt.data import (
    MaskPolicy,
    check_dataset,
    detect_dataset,
    read_dataset,
    read_mask,
)
from faprompt.data.dataset import Dataset
from faprompt.data.known_readers import _DETECTION
from faprompt.errors import ConfigError, DatasetError
from faprompt.records import Sample
from tests.helpers import folders


class ReaderSuite:
    """Inherit, and set these."""

    name: str  # what `auto` has to answer
    classes: dict[str, tuple[int, int, int]]  # class -> normal, anomalous, with mask
    folder = "data"  # the root folder's name
    mask_suffix = "_mask"  # what a mask's name may have beyond its picture's
    classes_of_all: dict[str, tuple[int, int, int]] | None = None  # subset "all"; None: has none
    train_refused = "no 'train' split"  # the error for split "train"; "" if there is one
    policy: MaskPolicy = "reference"  # "strict" where masks are JPEG, whose contours are noisy

    def build(self, root: Path) -> None:
        """Draw the dataset below `root`."""
        raise NotImplementedError

    def picture_stem(self, mask: Path) -> str:
        """The stem of the picture that a mask file belongs to."""
        return mask.stem.removesuffix(self.mask_suffix)

    def size_of(self, sample: Sample) -> tuple[int, int]:
        """(height, width) of a sample."""
        return folders.SIZE

    def marked_pixels(self, sample: Sample) -> int:
        """How many pixels of an anomalous sample are marked."""
        return 3 * 5

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """A folder that the test may change."""
        return self._draw(tmp_path)

    @pytest.fixture(scope="class")
    @classmethod
    def drawn(cls, tmp_path_factory) -> Path:
        """A folder that no test changes."""
        return cls()._draw(tmp_path_factory.mktemp(cls.name))

    def _draw(self, place: Path) -> Path:
        root = place / "shelf" / self.folder
        root.mkdir(parents=True)
        self.build(root)
        return root

    def test_counts(self, drawn):
        found = read_dataset(drawn)
        assert _counts(found) == self.classes
        assert found.normal == sum(normal for normal, _, _ in self.classes.values())
        assert found.anomalous == sum(anomalous for _, anomalous, _ in self.classes.values())
        assert len(found) == found.normal + found.anomalous

    def test_recognised_by_auto(self, drawn):
        found = read_dataset(drawn)
        assert found.name == self.name
        assert {sample.dataset for sample in found} == {self.name}
        assert found.reason

    def test_read_by_name_like_by_auto(self, drawn):
        by_name = read_dataset(drawn, dataset=self.name)
        assert by_name.samples == read_dataset(drawn).samples

    def test_not_taken_for_another(self, drawn):
        reader, _ = detect_dataset(drawn)
        rank = next(rank for rank, group in enumerate(_DETECTION) if reader in group)
        others = [other for group in _DETECTION[: rank + 1] for other in group if other != reader]
        assert [other.name for other in others if other.recognise(drawn)] == []

    def test_natural_order(self, drawn):
        def runs(path: Path) -> list[list[tuple[bool, object]]]:
            parts = path.relative_to(drawn).as_posix().casefold().split("/")
            return [
                [(not digits, int("".join(run)) if digits else "".join(run))
                 for digits, run in itertools.groupby(part, str.isdigit)]
                for part in parts
            ]  # fmt: skip

        paths = [sample.image_path for sample in read_dataset(drawn)]
        assert paths == sorted(paths, key=runs)
        places = [(sample.image_path, sample.region) for sample in read_dataset(drawn)]
        assert len(places) == len(set(places))

    def test_order_does_not_come_from_the_disk(self, root, monkeypatch):
        wanted, plain = read_dataset(root), os.listdir
        for seed in range(3):
            shuffle = random.Random(seed)
            monkeypatch.setattr(os, "listdir", lambda path, s=shuffle: _shuffled(plain(path), s))
            assert read_dataset(root) == wanted

    def test_read_twice_equal(self, drawn):
        assert read_dataset(drawn) == read_dataset(drawn)

    def test_stray_files_change_nothing(self, root):
        before = read_dataset(root)
        folders.litter(root)
        after = read_dataset(root)
        assert after == before

    def test_masks_pair_by_name(self, drawn):
        for sample in read_dataset(drawn):
            assert not (sample.label == 0 and sample.mask_paths)
            for path in sample.mask_paths:
                assert self.picture_stem(path) == sample.image_path.stem

    def test_masks_have_the_pictures_size(self, drawn):
        for sample in read_dataset(drawn):
            if not sample.has_pixel_label:
                continue
            truth = read_mask(sample, policy=self.policy)
            assert truth.shape == self.size_of(sample) and truth.dtype == bool
            assert truth.sum() == (self.marked_pixels(sample) if sample.label else 0)

    def test_files_exist(self, drawn):
        for sample in read_dataset(drawn):
            assert sample.image_path.is_file()
            assert all(path.is_file() for path in sample.mask_paths)

    def test_check_is_content(self, drawn):
        check = check_dataset(drawn)
        assert check.problems == ()
        assert check.usable
        assert check.to_dict()["dataset"] == self.name
        told = check.to_dict()["classes"]
        assert {name: tuple(count.values()) for name, count in told.items()} == self.classes

    def test_one_level_too_high(self, drawn):
        with pytest.raises(DatasetError, match=rf"it holds {drawn.name} \({self.name}\)"):
            read_dataset(drawn.parent)

    def test_empty_folder_refused(self, tmp_path):
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(DatasetError, match="found no folders|holds no "):
            read_dataset(empty, dataset=self.name)

    def test_unknown_split_refused(self, drawn):
        with pytest.raises(DatasetError, match="'validation'"):
            read_dataset(drawn, split="validation")
        if self.train_refused:
            with pytest.raises(DatasetError, match=self.train_refused):
                read_dataset(drawn, split="train")
        else:
            assert {sample.split for sample in read_dataset(drawn, split="train")} == {"train"}

    def test_subset(self, drawn):
        if self.classes_of_all is None:
            with pytest.raises(DatasetError, match=f"read as {self.name}.* no subset 'all'"):
                read_dataset(drawn, subset="all")
            return
        every, paper = read_dataset(drawn, subset="all"), read_dataset(drawn, subset="paper")
        assert _counts(every) == self.classes_of_all
        assert paper == read_dataset(drawn)
        assert [sample for sample in every if sample in paper.samples] == list(paper)
        assert every == read_dataset(drawn, self.name, subset="all")
        assert any(f"{paper.normal} of {every.normal} normal" in line for line in paper.warnings)

    def test_unknown_subset_refused(self, drawn):
        with pytest.raises(ConfigError, match="'paper' or 'all', got 'half'"):
            read_dataset(drawn, subset="half")

    def test_the_same_from_a_meta_json(self, root):
        before = read_dataset(root)
        after = read_dataset(
            folders.write_meta(root / "exported.json", folders.meta_of(before, root))
        )
        assert after.name == self.name
        assert list(map(_facts, after)) == list(map(_facts, before))


def _counts(found: Dataset) -> dict[str, tuple[int, int, int]]:
    return {
        name: (count.normal, count.anomalous, count.with_mask)
        for name, count in found.counts().items()
    }


def _facts(sample):
    return (
        sample.image_path,
        sample.mask_paths,
        sample.label,
        sample.class_name,
        sample.defect_type,
        sample.has_pixel_label,
        sample.split,
        sample.dataset,
    )


def _shuffled(entries: list[str], shuffle: random.Random) -> list[str]:
    return shuffle.sample(sorted(entries), len(entries))
