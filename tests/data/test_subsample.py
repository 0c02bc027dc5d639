"""The quarter of the normal samples: sizes, members, and scikit-learn as the rival."""

from __future__ import annotations

from pathlib import Path

import pytest

from faprompt.data.dataset import Notes
from faprompt.data.subsample import SUBSETS, paper_normals, take_subset
from faprompt.errors import ConfigError
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
    notes = Notes()
    kept = take_subset(samples, "paper", notes)
    assert [sample.image_path.stem for sample in kept] == ["1", "2", "5", "7"]
    assert notes.warnings == [
        "2 of 8 normal samples are kept, as in the paper; subset 'all' keeps every one"
    ]


def test_equal_samples_are_told_apart_by_their_place(samples):
    twins = [samples[0]] * 8
    assert len(take_subset(twins, "all", Notes())) == 8
    copies = [Sample(Path("a.png"), 0, "a") for _ in range(8)]
    assert len(take_subset(copies, "paper", Notes())) == 2


def test_all_keeps_everything_without_a_word(samples):
    notes = Notes()
    assert take_subset(samples, "all", notes) == samples
    assert notes == Notes()


def test_without_normal_samples_nothing_is_drawn(samples):
    notes = Notes()
    bad = [sample for sample in samples if sample.label]
    assert take_subset(bad, "paper", notes) == bad and notes == Notes()


def test_other_subsets_are_refused(samples):
    assert SUBSETS == ("paper", "all")
    with pytest.raises(ConfigError, match="'paper' or 'all', got 'half'"):
        take_subset(samples, "half", Notes())
