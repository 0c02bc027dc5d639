"""The table of the bundled model: rivals, groups and means."""

import numpy as np
import pytest

from benchmarks import tiny
from benchmarks.rivals import RIVALS
from faprompt.data import read_dataset
from faprompt.metrics import AnomalyMetrics
from faprompt.synthetic import write_dataset


def test_rivals_are_measured_in_every_group(tmp_path):
    write_dataset(tmp_path / "set", kinds="test", count=12, seed=1, size=64)
    dataset = read_dataset(tmp_path / "set")
    found = tiny.measure_rivals(dataset)
    assert found.keys() == RIVALS.keys()
    for groups in found.values():
        values = [result["pixel_auroc"] for name, result in groups.items() if name != "mean"]
        assert len(values) == dataset.anomalous
        assert groups["mean"]["pixel_auroc"] == pytest.approx(np.mean(values))


def test_the_mean_of_two_groups_has_a_narrower_interval_than_either():
    random = np.random.default_rng(0)
    each = {}
    for name in ("a", "b"):
        labels = np.arange(60) % 2
        metrics = AnomalyMetrics(replicates=200)
        metrics.update(random.normal(labels, 1), labels, keys=[f"{name}{n}" for n in range(60)])
        each[name] = metrics
    groups = tiny.with_mean(
        {name: m.compute() for name, m in each.items()},
        {name: m.replicate_values() for name, m in each.items()},
    )
    assert groups["mean"]["image_auroc"] == pytest.approx(
        (groups["a"]["image_auroc"] + groups["b"]["image_auroc"]) / 2
    )
    wide = {name: np.ptp(result.intervals["image_auroc"]) for name, result in groups.items()}
    assert 0 < wide["mean"] < min(wide["a"], wide["b"])
    assert groups["mean"].anomalous == 60 and "pixel_auroc" not in groups["mean"]


def test_a_pair_without_a_name_is_refused():
    with pytest.raises(SystemExit, match="NAME=FOLDER"):
        tiny._named("runs/test")
