"""Which pictures a gallery shows."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from faprompt.data import Dataset
from faprompt.reproduce.experiment_parts import GalleryOptions
from faprompt.reproduce.gallery_choice import choose_pictures
from tests.evaluation import toys


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return toys.dataset(tmp_path_factory.mktemp("toy"))


def choose(dataset, **options):
    return choose_pictures(dataset, GalleryOptions(**options))


def names(chosen, group="pictures"):
    return [
        (c.sample.class_name, c.sample.defect_type, c.sample.image_path.stem)
        for c in chosen
        if c.group == group
    ]


def parted(sample, spots):
    """Draw the mask of a sample anew, with these squares."""
    with Image.open(sample.mask_paths[0]) as file:
        height, width = np.asarray(file).shape
    truth = np.zeros((height, width), np.uint8)
    for y, x in spots:
        truth[y : y + 4, x : x + 4] = 255
    Image.fromarray(truth).save(sample.mask_paths[0])


class TestByClass:
    def test_kinds_take_turns_and_normal_ones_come_last(self, dataset):
        found = names(choose(dataset, anomalous=3, normal=1, several=0))
        assert [name for name, *_ in found] == ["mug"] * 4 + ["nut"] * 4
        for rows in (found[:4], found[4:]):
            kinds = [kind for _, kind, _ in rows]
            assert set(kinds[:2]) == {"dent", "chip"} and kinds[2] == kinds[0] and kinds[3] == ""
            assert len(set(rows)) == 4

    def test_the_seed_decides_and_nothing_else(self, dataset):
        first = choose(dataset)
        assert first == choose(dataset)
        others = {tuple(names(choose(dataset, seed=seed))) for seed in range(8)}
        assert len(others) > 3

    def test_a_class_draws_for_itself(self, dataset):
        alone = Dataset("toy", dataset.root, tuple(s for s in dataset if s.class_name == "nut"))
        both = [name for name in names(choose(dataset)) if name[0] == "nut"]
        assert names(choose(alone)) == both

    def test_a_longer_choice_begins_like_a_shorter(self, dataset):
        short, long = (names(choose(dataset, anomalous=n, normal=0)) for n in (2, 4))
        assert long[:2] == short[:2] and long[4:6] == short[2:]

    def test_no_more_than_there_are(self, dataset):
        found = choose(dataset, anomalous=99, normal=99, several=0)
        assert len(found) == len(dataset) and len({id(c.sample) for c in found}) == len(found)

    def test_why_says_what_it_was_drawn_from(self, dataset):
        told = {c.why for c in choose(dataset, anomalous=3, several=0)}
        assert told == {
            "dent, drawn from 3 pictures", "chip, drawn from 2 pictures",
            "normal, drawn from 4 pictures",
        }  # fmt: skip

    def test_pictures_with_a_mask_go_first(self, tmp_path):
        bare = toys.dataset(tmp_path, classes=("mug",), masked=False)
        assert len(names(choose(bare, anomalous=5, normal=0))) == 5, "without any, all count"
        one = toys.sample(tmp_path, "mug", "dent", 1)
        samples = [one if s.image_path == one.image_path else s for s in bare]
        mixed = Dataset("toy", tmp_path, tuple(samples))
        assert names(choose(mixed, anomalous=5, normal=0)) == [("mug", "dent", "1")]


class TestSeveral:
    @pytest.fixture
    def dataset(self, tmp_path):
        found = toys.dataset(tmp_path)
        spots = [(5, 5), (5, 20), (20, 5), (20, 20), (30, 40)]
        for name, kind, number, count in (
            ("mug", "dent", "0", 3), ("mug", "dent", "1", 5), ("mug", "chip", "0", 4),
            ("nut", "dent", "2", 2),
        ):  # fmt: skip
            (one,) = (
                s for s in found
                if (s.class_name, s.defect_type, s.image_path.stem) == (name, kind, number)
            )  # fmt: skip
            parted(one, spots[:count])
        return found

    def test_most_parts_first_and_classes_take_turns(self, dataset):
        found = choose(dataset, anomalous=0, normal=0, several=3)
        assert names(found, "several") == [
            ("mug", "dent", "1"), ("nut", "dent", "2"), ("mug", "chip", "0"),
        ]  # fmt: skip
        assert [c.parts for c in found] == [5, 2, 4]
        assert found[0].why == "dent, its mask has 5 parts"

    def test_one_part_is_not_several(self, dataset):
        assert len(choose(dataset, anomalous=0, normal=0, several=99)) == 4

    def test_a_mask_that_cannot_be_read_is_passed_over(self, dataset):
        (one,) = (c.sample for c in choose(dataset, anomalous=0, normal=0, several=1))
        one.mask_paths[0].write_bytes(b"no picture")
        assert id(one) not in {id(c.sample) for c in choose(dataset, several=9)[8:]}
