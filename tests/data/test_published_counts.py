"""The paper's counts: totals from its text, and how a reading is compared with them."""

from __future__ import annotations

import pytest

from faprompt.data import compare_counts, list_datasets, published_counts
from faprompt.data.dataset import ClassCount
from faprompt.data.published_counts import MISPRINTS, dataset_of_classes


@pytest.mark.parametrize(
    ("dataset", "classes", "normal", "anomalous"),
    [
        ("mvtec", 15, 467, 1258),
        ("visa", 12, 962, 1200),
        ("btad", 3, 451, 290),
        ("mpdd", 6, 176, 282),
        ("dtd_synthetic", 12, 357, 947),
        ("dagm", 10, 6996, 1054),
        ("sdd", 1, 286, 54),
        ("aitex", 1, 564, 183),
        ("elpv", 1, 377, 715),
        ("brainmri", 1, 98, 155),
        ("headct", 1, 100, 100),
        ("br35h", 1, 1500, 1500),
        ("lag", 1, 786, 1711),
        ("cvc_colondb", 1, 0, 380),
        ("cvc_clinicdb", 1, 0, 612),
        ("kvasir", 1, 0, 1000),
        ("endo", 1, 0, 200),
        ("isic", 1, 0, 379),
        ("tn3k", 1, 0, 614),
    ],
)
def test_totals(dataset, classes, normal, anomalous):
    """Against the overview table, which was written from other sources than the class table."""
    counts = published_counts(dataset)
    assert len(counts) == classes
    assert sum(count[0] for count in counts.values()) == normal
    assert sum(count[1] for count in counts.values()) == anomalous
    assert dataset in list_datasets()


def test_tile_has_84_and_the_misprint_is_noted():
    assert published_counts("mvtec")["tile"] == (33, 84)
    assert "83" in MISPRINTS["mvtec", "tile"]


def test_class_names_belong_to_one_dataset_only():
    """Detection by class names rests on this."""
    several = [name for name in list_datasets() if len(published_counts(name)) > 1]
    names = [name for dataset in several for name in published_counts(dataset)]
    assert len(names) == len(set(names))
    assert dataset_of_classes(frozenset({"tile", "candle"})) is None
    assert dataset_of_classes(frozenset()) is None
    assert dataset_of_classes(frozenset({"brain"})) is None


def counts_of(dataset: str) -> dict[str, ClassCount]:
    return {name: ClassCount(n, a, a) for name, (n, a) in published_counts(dataset).items()}


def test_equal_counts_match():
    for name in list_datasets():
        if published_counts(name):
            assert compare_counts(name, counts_of(name)).matches is True


def test_one_picture_more_or_less_does_not_match():
    counts = counts_of("visa") | {"pcb3": ClassCount(100, 100, 100)}
    found = compare_counts("visa", counts)
    assert found.matches is False
    assert found.differences == ("normal + anomalous differ: pcb3 100 + 100 instead of 101 + 100",)


def test_a_missing_class_does_not_match():
    counts = counts_of("mpdd")
    del counts["tubes"]
    found = compare_counts("mpdd", counts)
    assert (found.matches, found.differences) == (False, ("classes missing: tubes",))


def test_a_pooled_dataset_is_compared_by_its_total():
    """Prepared copies call the one group of BrainMRI otherwise, or split it."""
    assert compare_counts("brainmri", {"headct2": ClassCount(98, 155, 0)}).matches
    split = {"a": ClassCount(90, 100, 0), "b": ClassCount(8, 55, 0)}
    assert compare_counts("brainmri", split).matches
    assert not compare_counts("brainmri", {"brain": ClassCount(155, 98, 0)}).matches


def test_what_the_paper_does_not_have_is_neither():
    assert compare_counts("magnetic_tile", {"magnetic_tile": ClassCount(1, 1, 1)}).matches is None
    assert compare_counts("visa", counts_of("visa"), split="train").matches is None


def test_classes_that_were_left_out_on_purpose_are_not_compared():
    counts = counts_of("btad")
    others = ("02", "03")
    found = compare_counts("btad", {"01": counts["01"]}, left_out=others)
    assert (found.matches, found.differences) == (True, ())
    wrong = compare_counts("btad", {"01": ClassCount(20, 49, 49)}, left_out=others)
    assert wrong.differences == ("normal + anomalous differ: 01 20 + 49 instead of 21 + 49",)
    split = compare_counts("brainmri", {"a": ClassCount(90, 100, 0)}, left_out=("b",))
    assert split.matches is None, "the paper counts the pooled group alone"
