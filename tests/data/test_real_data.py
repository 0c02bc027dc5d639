"""The real pictures beside the repository, where they are at hand."""

from __future__ import annotations

import pytest

from faprompt.data import by_defect_type, check_dataset, read_dataset, read_mask
from tests.helpers.shared import shared_data


@pytest.fixture
def brain():
    return shared_data() / "brain_mri"


@pytest.fixture
def tiles():
    return shared_data() / "magnetic_tile"


def test_brain_mri_equals_the_paper(brain):
    check = check_dataset(brain)
    assert check.dataset == "brainmri"
    assert (check.normal, check.anomalous) == (98, 155)
    assert check.matches_paper is True
    assert check.problems == () and check.usable


def test_brain_mri_oddities_are_those_its_users_report(brain):
    """22 groups of equal files with 25 to spare; six PNG files called .jpg."""
    told = "\n".join(check_dataset(brain).warnings)
    assert "25 exact copies in 22 groups" in told
    assert "6 hold another format than their name says" in told and "(PNG)" in told


def test_magnetic_tile_counts(tiles):
    check = check_dataset(tiles)
    assert check.dataset == "magnetic_tile"
    assert check.matches_paper is None
    assert check.problems == check.warnings == ()
    assert check.classes["magnetic_tile"].with_mask == 172
    groups = by_defect_type(read_dataset(tiles))
    assert {kind: (len(group), sum(s.label for s in group)) for kind, group in groups.items()} == {
        "Blowhole": (235, 115),
        "Crack": (177, 57),
    }


def test_magnetic_tile_masks_are_small_and_never_empty(tiles):
    for sample in read_dataset(tiles):
        truth = read_mask(sample)
        strict = read_mask(sample, policy="strict")
        assert truth.any() == strict.any() == bool(sample.label)
        assert truth.mean() < 0.5 and not (strict & ~truth).any()
