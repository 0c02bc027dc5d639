"""The quarter of the normal samples: sizes, members, and scikit-learn as the rival."""

from __future__ import annotations

from pathlib import Path

import pytest

from faprompt.data.layout_reader import SUBSETS, Reading, paper_normals
from faprompt.records import Sample


@pytest.mark.parametrize(
    ("count", "kept"), [(1508, 377), (1143, 286), (2256, 564), (3143, 786), (1146, 287)]
)
def test_sizes(count, kept):
    """ELPV, SDD, AITEX and LAG as the paper counts them, and SDD's re-upload with 400 files."""
    places = paper_normals(count)
    assert len(places) == len(set(places)) == kept
    assert places == sorted(places)
    assert places[0] >= 0 and places[-1] < count
    assert all(type(place) is int for place in places)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 98, 1143, 1508, 2256, 3143])
def test_members_are_those_of_the_published_converters(count):
    selection = pytest.importorskip("sklearn.model_selection")
    _, test = selection.train_test_split(list(range(count)), test_size=0.25, random_state=42)
    assert paper_normals(count) == sorted(test)


def test_elpv_begins_with_the_published_cells():
    """Places among the probability-0 rows of the real `labels.csv`, as its first hundred lines
    have them: cell0075 is the 16th such row, cell0088 the 24th, and so on."""
    rows = {75: 15, 88: 23, 97: 29, 99: 30, 100: 31}
    assert paper_normals(1508)[:5] == list(rows.values())


@pytest.mark.parametrize(("count", "places"), [(0, []), (1, [0]), (8, [1, 5])])
def test_small_counts(count, places):
    assert paper_normals(count) == places


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="0 or more, got -1"):
        paper_normals(-1)


@pytest.fixture
def samples():
    labels = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0]  # eight normal: places 1 and 5 among them stay
    return [Sample(Path(f"{at}.png"), label, "a") for at, label in enumerate(labels)]


def test_paper_keeps_every_anomalous_sample_and_the_order(samples):
    reading = Reading()
    kept = reading.take_subset(samples)
    assert [sample.image_path.stem for sample in kept] == ["1", "2", "5", "7"]
    assert reading.warnings == [
        "2 of 8 normal samples are kept, as in the paper; subset 'all' keeps every one"
    ]


def test_equal_samples_are_told_apart_by_their_place():
    copies = [Sample(Path("a.png"), 0, "a") for _ in range(8)]
    assert len(Reading().take_subset(copies)) == 2


def test_all_keeps_everything_without_a_word(samples):
    assert SUBSETS == ("paper", "all")
    twins = [samples[0]] * 8
    reading = Reading(subset="all")
    assert reading.take_subset(samples) == samples
    assert len(reading.take_subset(twins)) == 8
    assert reading == Reading(subset="all")


def test_without_normal_samples_nothing_is_drawn(samples):
    reading = Reading()
    bad = [sample for sample in samples if sample.label]
    assert reading.take_subset(bad) == bad and reading == Reading()
