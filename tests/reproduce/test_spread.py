"""The spread of prompts over a dataset: its maps, intervals, files and refusals."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from faprompt.reproduce.spread import (
    MapPoint,
    SpreadRow,
    draw_samples,
    embed,
    gather_prompt_maps,
    over_models,
    prompt_spread,
    spaced_samples,
)
from faprompt.reproduce.spread_measures import MEASURES, pair_distance, silhouettes

from faprompt.data.picture_files import relative_name
from faprompt.errors import ConfigError, ImageReadError
from faprompt.imaging import read_image
from faprompt.reproduce.spread_figure import _numbers, redraw_spread, write_spread
from tests.evaluation import toys
from tests.helpers import small


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return toys.dataset(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def detectors():
    return {
        "a": small.detector("anomalyclip-ensemble", prompts=3),
        "b": small.detector("anomalyclip-ensemble", prompts=3, stir=0.1),
        "anomalyclip": small.detector("anomalyclip"),
    }


@pytest.fixture(scope="module")
def spread(dataset, detectors):
    return prompt_spread(detectors.items(), dataset, per_label=4, replicates=60)


def rows(spread, **wanted):
    return [row for row in spread.rows if all(getattr(row, key) == v for key, v in wanted.items())]


def test_maps_are_those_of_the_scoring_pass(dataset, detectors):
    chosen = dataset.samples[3:6]
    found = gather_prompt_maps(detectors["a"], chosen)
    assert found.maps.shape == (3, 3, 16) and found.maps.dtype == np.float32
    assert found.labels.tolist() == [sample.label for sample in chosen]
    image = read_image(chosen[1].image_path).array
    parts = detectors["a"].explain(image)[2]
    np.testing.assert_array_equal(found.maps[1], parts.prompt_maps[0].flatten(1).numpy())
    assert found.paths == tuple(sample.image_path for sample in chosen)


def test_pictures_are_drawn_by_kind_in_order_and_by_the_seed(dataset):
    chosen = draw_samples(dataset.samples, per_label=3, seed=1)
    assert [sample.label for sample in chosen].count(0) == 3 and len(chosen) == 6
    places = [dataset.samples.index(sample) for sample in chosen]
    assert places == sorted(set(places))
    assert draw_samples(dataset.samples, per_label=3, seed=1) == chosen
    assert any(draw_samples(dataset.samples, per_label=3, seed=s) != chosen for s in (2, 3))
    assert draw_samples(dataset.samples, per_label=99, seed=1) == list(dataset.samples)


def test_spaced_pictures_are_at_even_steps_of_each_kind(dataset):
    normal = [sample for sample in dataset.samples if sample.label == 0]
    anomalous = [sample for sample in dataset.samples if sample.label == 1]
    chosen = spaced_samples(dataset.samples, per_label=2)
    assert [s for s in chosen if s.label == 0] == [normal[2], normal[6]]
    assert [s for s in chosen if s.label == 1] == [anomalous[2], anomalous[7]]
    assert [dataset.samples.index(s) for s in chosen] == sorted(map(dataset.samples.index, chosen))
    assert {s.class_name for s in chosen} == {"mug", "nut"}, "both classes have their share"
    for count in (1, 3, 7, 8, 99):
        chosen = spaced_samples(dataset.samples, per_label=count)
        assert len({s.image_path for s in chosen}) == len(chosen) == min(count, 8) + min(count, 10)
    assert spaced_samples(normal, per_label=2) == [normal[2], normal[6]], "of one kind alone too"
    with pytest.raises(ValueError, match="per_label should be at least 1, got 0"):
        spaced_samples(dataset.samples, per_label=0)


def test_where_the_dataset_lies_moves_no_number(dataset, detectors, tmp_path_factory, spread):
    """The bootstrap draws pictures by their names below the dataset's folder."""
    moved = toys.dataset(tmp_path_factory.mktemp("moved"))
    given = [("a", detectors["a"])]
    found = prompt_spread(given, moved, per_label=4, replicates=60)
    assert list(found.rows) == rows(spread, model="a")
    assert list(found.points) == [point for point in spread.points if point.model == "a"]


def test_numbers_are_of_the_maps_and_lie_in_their_intervals(spread, dataset, detectors):
    chosen = draw_samples(dataset.samples, per_label=4, seed=0)
    maps = gather_prompt_maps(detectors["a"], chosen).maps
    (row,) = rows(spread, model="a", pictures="all", measure="distance")
    assert row.value == pytest.approx(pair_distance(maps).mean(), rel=1e-5)
    (row,) = rows(spread, model="a", pictures="all", measure="silhouette")
    assert row.value == pytest.approx(silhouettes(maps, np.ones((8, 1)))[0], abs=1e-6)
    for row in rows(spread, model="a"):
        assert (row.count, row.prompts) == (8 if row.pictures == "all" else 4, 3)
        assert row.low <= row.value <= row.high and row.low < row.high
    kinds = {(row.pictures, row.measure) for row in rows(spread, model="a")}
    assert kinds == {(k, m) for k in ("all", "normal", "anomalous") for m in MEASURES}


def test_several_models_of_a_method_get_a_mean_and_students_interval():
    def row(value):
        return SpreadRow("m", "x", "all", 9, 10, "distance", value, 0.0, 1.0)

    (mean,) = over_models([row(0.2), row(0.3), row(0.4), replace(row(0.9), method="alone")])
    assert (mean.method, mean.model, mean.count, mean.value) == ("m", "", 3, pytest.approx(0.3))
    half = 4.302653 * 0.1 / 3**0.5  # t of two degrees of freedom
    assert (mean.low, mean.high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))
    (wide,) = over_models([row(0.1), row(0.9)])
    assert (wide.low, wide.high) == (0.0, 1.0)  # no distance lies outside


def test_one_prompt_has_points_and_no_numbers(spread):
    assert rows(spread, model="anomalyclip") == []
    assert sum(point.model == "anomalyclip" for point in spread.points) == 8
    assert sum(point.model == "a" for point in spread.points) == 24
    assert len(rows(spread, model="")) == 3 * len(MEASURES)


def test_points_belong_to_their_maps(spread, dataset, detectors):
    chosen = draw_samples(dataset.samples, per_label=4, seed=0)
    maps = gather_prompt_maps(detectors["a"], chosen).maps
    places = embed(maps, seed=0).reshape(8, 3, 2)
    assert places.std() > 0.1
    for point in spread.points:
        if point.model == "a":
            number = [relative_name(s.image_path, dataset.root) for s in chosen].index(point.path)
            assert point.label == chosen[number].label
            wanted = places[number, point.prompt - 1]
            assert (point.x, point.y) == (pytest.approx(wanted[0]), pytest.approx(wanted[1]))


def test_the_same_seed_gives_the_same(spread, dataset, detectors):
    assert prompt_spread(detectors.items(), dataset, per_label=4, replicates=60) == spread


def test_figures_are_drawn_from_their_csv_alone(spread, tmp_path):
    paths = write_spread(spread, tmp_path)
    names = ["prompt-maps.csv", "prompt-spread.csv", "prompt-maps.svg", "prompt-maps.png",
             "prompt-spread.svg", "prompt-spread.png"]  # fmt: skip
    assert [path.name for path in paths] == names
    told = list(csv.DictReader((tmp_path / "prompt-spread.csv").open()))
    assert [float(row["value"]) for row in told] == [row.value for row in spread.rows]
    before = {path.name: path.read_bytes() for path in paths}
    for path in paths[2:]:
        path.unlink()
    redraw_spread(tmp_path)
    assert {path.name: path.read_bytes() for path in paths} == before
    svg = before["prompt-maps.svg"].decode()
    assert "anomalyclip-ensemble: a" in svg and "maps of anomalous pictures" in svg
    assert "mean of 2 models" in before["prompt-spread.svg"].decode()


def test_numbers_that_would_overlap_are_one_text():
    def points(*middles):
        corners = [MapPoint("m", "s", "a", 0, n, *c) for n, c in ((1, (0, 0)), (1, (100, 100)))]
        return corners + [
            MapPoint("m", "s", "a", 0, n, *middle)
            for n, middle in enumerate(middles, start=1)
            for _ in range(5)
        ]

    apart = _numbers(points((20, 20), (80, 80), (20, 80)))
    assert apart == [((20, 20), "1"), ((80, 80), "2"), ((20, 80), "3")]
    assert _numbers(points((50, 50), (52, 50), (51, 53), (20, 20))) == [
        ((20, 20), "4"), ((51, 51), "1-3"),
    ]  # fmt: skip
    chain = [(40 + n, 50) for n in range(10)]
    ((_, told),) = _numbers(points(*chain))
    assert told == "1-10"
    assert _numbers(points((50, 50), (90, 90), (50, 51)))[1][1] == "1 3"
    assert _numbers(points((50, 50))) == [], "one prompt needs no number"


def test_without_numbers_only_the_points_are_drawn(dataset, detectors, tmp_path):
    found = prompt_spread([("one", detectors["anomalyclip"])], dataset, per_label=2, replicates=0)
    names = [path.name for path in write_spread(found, tmp_path)]
    assert found.rows == () and names[2:] == ["prompt-maps.svg", "prompt-maps.png"]


def test_refusals(dataset, detectors, tmp_path):
    with pytest.raises(ValueError, match="at least one detector"):
        prompt_spread([], dataset)
    with pytest.raises(ValueError, match="per_label should be at least 1, got 0"):
        prompt_spread(detectors.items(), dataset, per_label=0)
    with pytest.raises(ValueError, match="replicates should be 0"):
        prompt_spread(detectors.items(), dataset, replicates=7)
    with pytest.raises(ConfigError, match="clip has no abnormality prompts to tell apart"):
        prompt_spread([("c", small.detector("clip"))], dataset, per_label=1)
    with pytest.raises(ConfigError, match="at least 4 maps, got 2"):
        prompt_spread([("x", detectors["anomalyclip"])], dataset, per_label=1)
    gone = replace(dataset.samples[0], image_path=tmp_path / "gone.png")
    with pytest.raises(ImageReadError, match="gone.png"):
        gather_prompt_maps(detectors["a"], [gone])
    with pytest.raises(ConfigError, match="prompt-maps.csv cannot be read"):
        redraw_spread(tmp_path)
    (tmp_path / "prompt-maps.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="is no prompt-maps.csv of ours"):
        redraw_spread(tmp_path)
