"""Remarks on a dataset, from facts alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faprompt.data import Dataset, PictureFacts, check_dataset, dataset_remarks, read_facts
from faprompt.data.remarks import inverted_remarks
from faprompt.records import Sample
from tests.helpers import folders

ROOT = Path("/data/own")


def fact(name, label=1, *, marked=None, digest="", error="", class_name="mug", region=None):
    sample = Sample(ROOT / name, label, class_name, has_pixel_label=True, region=region)
    return PictureFacts(sample, digest or name, marked, error)


def remarks(*facts, **options):
    samples = tuple(one.sample for one in facts)
    return dataset_remarks(Dataset("own", ROOT, samples, **options), facts)


def shares(*values, class_name="mug"):
    return [fact(f"{class_name}{i}", marked=v, class_name=class_name) for i, v in enumerate(values)]


class TestInvertedMasks:
    def test_a_class_is_named_with_count_and_share(self):
        found = inverted_remarks(
            [*shares(0.92, 0.95, 0.3), *shares(0.1, 0.2, class_name="nut"), fact("n", 0, marked=0)]
        )
        assert list(found) == [
            "class mug: 2 of 3 masks mark most of their picture (94 % in the median); "
            "if they are inverted, exchange black and white"
        ]

    @pytest.mark.parametrize(
        ("values", "count"),
        [
            ((0.92,), 1),
            ((0.51, 0.6), 2),
            ((0.92, 0.08, 0.05, 0.02), 1),
            ((0.92, 0.08), 1),
            ((0.9, 0.8, 0.01, 0.02, 0.24), 2),
            ((1.0, 1.0), 2),
            ((0.92, 0.0, 0.0), 1),
        ],
    )
    def test_inverted(self, values, count):
        (line,) = inverted_remarks(shares(*values))
        assert f": {count} of {np.count_nonzero(values)} masks" in line

    @pytest.mark.parametrize(
        "values",
        [
            (),
            (0.0, 0.0),
            (None, None),
            (0.5, 0.5),
            (0.02, 0.4, 0.92),  # defects of every size
            (0.6, 0.1, 0.2),
            tuple(np.linspace(0.01, 0.99, 40)),  # half of the lesions fill most of the picture
            tuple(np.random.default_rng(0).beta(1.2, 2.5, 379)),  # as skin lesions are spread
        ],
    )
    def test_large_defects_alone_are_no_reason(self, values):
        assert list(inverted_remarks(shares(*values))) == []

    def test_normal_pictures_do_not_count(self):
        normal = [fact(f"n{i}", 0, marked=0.0) for i in range(9)]
        assert len(list(inverted_remarks([*normal, *shares(0.9, 0.9)]))) == 1

    def test_it_is_the_same_in_a_check(self, tmp_path):
        folders.mvtec_class(
            tmp_path / "mug", normal={"good": ["0.png"]}, defects={"chip": folders.names(3)}
        )
        assert not any("inverted" in line for line in check_dataset(tmp_path).warnings)
        for path in (tmp_path / "mug" / "ground_truth" / "chip").iterdir():
            Image.fromarray(255 - np.array(Image.open(path))).save(path)
        check = check_dataset(tmp_path)
        (line,) = [line for line in check.warnings if "inverted" in line]
        assert "class mug: 3 of 3 masks" in line and "(88 % in the median)" in line
        assert check.usable and check.problems == ()


class TestOthers:
    def test_a_sound_set_has_none(self):
        assert remarks(fact("a", 0, marked=0.0), fact("b", 1, marked=0.1)) == ()

    def test_the_readers_warnings_come_first(self):
        told = remarks(fact("a", marked=0.0), warnings=("240 of 960 normal samples are kept",))
        assert told == (
            "240 of 960 normal samples are kept",
            "masks without a single marked pixel: a",
        )

    def test_pixel_metrics_that_rest_on_fewer_pictures(self):
        told = remarks(
            *shares(0.1, 0.1, None, None), *shares(0.1, class_name="nut"),
            *shares(None, None, class_name="cup"), fact("x", error="gone"),
        )  # fmt: skip
        assert told == (
            "1 unreadable, left out: x",
            "anomalous pictures with a mask, which alone count in pixel metrics: mug 2 of 4",
        )

    def test_copies_and_contradictions(self):
        told = remarks(
            fact("a", 0, digest="1", marked=0.0), fact("b", 0, digest="1", marked=0.0),
            fact("c", 1, digest="2", marked=0.1), fact("d", 0, digest="2", marked=0.0),
            fact("e", 0, digest="3", error="cut off"), fact("f", 0, digest="3", error="cut off"),
        )  # fmt: skip
        assert told == (
            "2 unreadable, left out: e, f",
            "1 with equal content, normal and anomalous at once: c = d",
            "1 exact copies in 1 groups: a = b",
        )

    def test_regions_of_one_file_are_no_copies(self):
        parts = [fact("a", i % 2, digest="1", marked=0.1, region=(0, i, 9, i + 1)) for i in (0, 1)]
        assert remarks(*parts) == ()


def test_facts_are_read_from_the_files(tmp_path):
    folders.mvtec_class(
        tmp_path / "mug", normal={"good": ["0.png"]}, defects={"chip": ["1.png", "2.png"]}
    )
    place = tmp_path / "mug" / "test" / "chip"
    masks = tmp_path / "mug" / "ground_truth" / "chip"
    samples = [
        Sample(place / "1.png", 1, "mug", mask_paths=(masks / "1_mask.png",), has_pixel_label=True),
        Sample(place / "2.png", 1, "mug"),
        Sample(place / "1.png", 0, "mug", has_pixel_label=True),
        Sample(place / "gone.png", 1, "mug"),
        Sample(place / "2.png", 1, "mug", mask_paths=(place / "no.png",), has_pixel_label=True),
    ]
    found = read_facts(samples, policy="reference")
    assert [one.marked for one in found] == [pytest.approx(15 / (9 * 14)), None, 0.0, None, None]
    assert found[0].digest == found[2].digest != found[1].digest == found[4].digest
    assert "gone.png" in found[3].error and found[3].digest == ""
    assert [bool(one.error) for one in found] == [False, False, False, True, False]
