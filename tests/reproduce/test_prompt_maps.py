"""Maps of prompts: which pictures, how far they lie apart, where they are embedded, the files."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from faprompt.data.picture_files import relative_name
from faprompt.errors import ConfigError, ImageReadError, MissingExtraError
from faprompt.imaging import read_image
from faprompt.reproduce.prompt_maps import (
    ModelMaps,
    embed,
    gather_prompt_maps,
    map_prompts,
    pair_distance,
    spaced_samples,
)
from faprompt.reproduce.prompt_spread import distance_difference
from faprompt.reproduce.spread_figure import distance_dots, redraw_spread, write_spread
from faprompt.reproduce.study_claims import mean_interval, welch_interval
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


def mapped(name, detector, dataset, *, per_label=4):
    return map_prompts(
        detector, dataset, per_label=per_label, method=detector.method.name, model=name,
        embedded=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def models(dataset, detectors):
    return [mapped(name, detector, dataset) for name, detector in detectors.items()]


def test_maps_are_those_of_the_scoring_pass(dataset, detectors):
    chosen = dataset.samples[3:6]
    maps = gather_prompt_maps(detectors["a"], chosen)
    assert maps.shape == (3, 3, 16) and maps.dtype == np.float32
    image = read_image(chosen[1].image_path).array
    parts = detectors["a"].explain(image)[2]
    np.testing.assert_array_equal(maps[1], parts.prompt_maps[0].flatten(1).numpy())


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


def test_the_distance_is_a_mean_over_pairs():
    maps = np.random.default_rng(4).random((6, 3, 20)).astype(np.float32)
    for number, picture in enumerate(maps):
        pairs = list(combinations(picture.astype(float), 2))
        distance = np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in pairs])
        assert pair_distance(maps)[number] == pytest.approx(distance, rel=1e-5)
    alike = np.stack([maps[:, 0] * 0.5, maps[:, 0] * 0.5 + 0.25], axis=1)
    np.testing.assert_allclose(pair_distance(alike), 0.25, atol=1e-6)
    np.testing.assert_allclose(pair_distance(0.25 * maps + 0.5), 0.25 * pair_distance(maps), 1e-3)


def test_numbers_are_of_the_maps_of_the_chosen_pictures(models, dataset, detectors):
    chosen = spaced_samples(dataset.samples, per_label=4)
    maps = gather_prompt_maps(detectors["a"], chosen)
    assert models[0].distances == pytest.approx(pair_distance(maps).tolist())
    assert models[0].labels == tuple(sample.label for sample in chosen)
    dots = {d.series: d for d in distance_dots(models[:1])}
    assert set(dots) == {"all pictures", "normal pictures", "anomalous pictures"}
    for series, count in (("all pictures", 8), ("normal pictures", 4), ("anomalous pictures", 4)):
        dot = dots[series]
        assert dot.note == f"mean of {count}" and dot.low <= dot.value <= dot.high
    assert dots["all pictures"].value == pytest.approx(pair_distance(maps).mean())


def test_where_the_dataset_lies_moves_no_number(models, detectors, tmp_path_factory):
    moved = toys.dataset(tmp_path_factory.mktemp("moved"))
    assert mapped("a", detectors["a"], moved) == models[0], "and the same seed gives the same"


def maps_of(method, model, distances, labels=(0, 1)):
    return ModelMaps(method, model, labels, tuple(distances), ())


def test_several_models_of_a_method_get_a_mean_and_students_interval():
    models = [maps_of("m", f"seed {n}", (d, d)) for n, d in enumerate((0.2, 0.3, 0.4))]
    dots = [d for d in distance_dots([*models, maps_of("one", "one", (0.9, 0.8))])
            if d.series == "all pictures"]  # fmt: skip
    titles = ["m: seed 0", "m: seed 1", "m: seed 2", "m, mean of 3 models", "one"]
    assert [dot.label for dot in dots] == titles
    mean = dots[3]
    assert (mean.value, mean.note) == (pytest.approx(0.3), "mean of 3")
    assert (mean.low, mean.high) == pytest.approx(mean_interval([0.2, 0.3, 0.4]))
    (wide,) = [
        d for d in distance_dots([maps_of("m", "a", (0.1, 0.1)), maps_of("m", "b", (0.9, 0.9))])
        if "mean" in d.label and d.series == "all pictures"
    ]  # fmt: skip
    assert (wide.low, wide.high) == (0.0, 1.0)  # no distance lies outside


def test_pictures_of_one_kind_are_shown_once():
    assert len(distance_dots([maps_of("m", "a", (0.1, 0.2), labels=(1, 1))])) == 1


class TestDifference:
    def test_over_seeds_it_is_welchs(self):
        models = [maps_of("w", f"s{n}", (d, d + 0.1)) for n, d in enumerate((0.3, 0.4, 0.5))]
        models += [maps_of("n", f"s{n}", (d, d + 0.1)) for n, d in enumerate((0.1, 0.15))]
        found = distance_difference(models, "w", "n", "shelf")
        assert found.value == pytest.approx(0.45 - 0.175)
        assert found.interval == pytest.approx(welch_interval([0.35, 0.45, 0.55], [0.15, 0.2]))
        assert (found.over, found.where) == ("seeds", "distance on shelf: w less n")

    def test_of_one_seed_it_is_paired_over_pictures(self):
        models = [maps_of("w", "w", (0.3, 0.5, 0.4), (0, 1, 1)),
                  maps_of("n", "n", (0.1, 0.2, 0.15), (0, 1, 1))]  # fmt: skip
        found = distance_difference(models, "w", "n", "shelf")
        assert found.interval == pytest.approx(mean_interval([0.2, 0.3, 0.25]))
        assert found.over == "pictures" and found.significant

    def test_without_distances_there_is_none(self):
        assert distance_difference([maps_of("w", "w", (0.3, 0.4))], "w", "n", "shelf") is None
        models = [maps_of("w", "w", (0.3, 0.4)), maps_of("n", "n", ())]
        assert distance_difference(models, "w", "n", "shelf") is None


def test_one_prompt_has_points_and_no_numbers(models):
    assert models[2].distances == () and len(models[2].points) == 8
    assert len(models[0].points) == 24
    assert not any("anomalyclip:" in dot.label for dot in distance_dots(models))


def test_points_belong_to_their_maps(models, dataset, detectors):
    chosen = spaced_samples(dataset.samples, per_label=4)
    places = embed(gather_prompt_maps(detectors["a"], chosen)).reshape(8, 3, 2)
    assert places.std() > 0.1
    names = [relative_name(s.image_path, dataset.root) for s in chosen]
    for point in models[0].points:
        number = names.index(point.path)
        assert point.label == chosen[number].label
        assert (point.x, point.y) == pytest.approx(tuple(places[number, point.prompt - 1]))


def test_figures_are_drawn_from_their_csv_alone(models, tmp_path):
    paths = write_spread(models, tmp_path)
    assert {path.name for path in paths} == {
        f"{name}.{form}" for name in ("prompt-maps", "prompt-spread")
        for form in ("csv", "svg", "png")
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "prompt-spread.csv").open()))
    assert [float(row["value"]) for row in rows] == [d.value for d in distance_dots(models)]
    before = {path.name: path.read_bytes() for path in paths}
    for path in paths:
        if path.suffix != ".csv":
            path.unlink()
    redraw_spread(tmp_path)
    assert {path.name: path.read_bytes() for path in paths} == before
    svg = before["prompt-maps.svg"].decode()
    assert "anomalyclip-ensemble: a" in svg and "anomalous pictures" in svg and "prompt 3" in svg
    assert "mean of 2 models" in before["prompt-spread.svg"].decode()


def test_points_go_seed_by_seed(models, tmp_path):
    pairs = (("x", "seed 1"), ("x", "seed 2"), ("y", "seed 1"), ("y", "seed 2"))
    mapped = [
        replace(models[0], method=m, model=s,
                points=tuple(replace(p, method=m, model=s) for p in models[0].points))
        for m, s in pairs
    ]  # fmt: skip
    write_spread(mapped, tmp_path)
    rows = csv.DictReader((tmp_path / "prompt-maps.csv").open())
    assert list(dict.fromkeys((row["method"], row["model"]) for row in rows)) == [
        ("x", "seed 1"), ("y", "seed 1"), ("x", "seed 2"), ("y", "seed 2"),
    ]  # fmt: skip


def test_without_distances_only_the_points_are_drawn(models, tmp_path):
    names = {path.name for path in write_spread(models[2:], tmp_path)}
    assert names == {"prompt-maps.csv", "prompt-maps.svg", "prompt-maps.png", "prompt-spread.csv"}
    assert {path.name for path in redraw_spread(tmp_path)} == {"prompt-maps.svg", "prompt-maps.png"}


def test_refusals(dataset, detectors, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="clip has no abnormality prompts to compare"):
        mapped("c", small.detector("clip"), dataset, per_label=1)
    with pytest.raises(ConfigError, match="at least 4 maps, got 2"):
        mapped("x", detectors["anomalyclip"], dataset, per_label=1)
    gone = replace(dataset.samples[0], image_path=tmp_path / "gone.png")
    with pytest.raises(ImageReadError, match="gone.png"):
        gather_prompt_maps(detectors["a"], [gone])
    with pytest.raises(ConfigError, match="prompt-maps.csv cannot be read"):
        redraw_spread(tmp_path)
    (tmp_path / "prompt-maps.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="is no prompt-maps.csv of a study"):
        redraw_spread(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'faprompt\[figures\]'"):
        embed(np.zeros((4, 1, 3)))
