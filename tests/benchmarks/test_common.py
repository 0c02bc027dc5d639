"""Plumbing of the benchmarks."""

from __future__ import annotations

import csv

import pytest

from benchmarks import common


def test_rows_are_added_and_columns_may_grow(tmp_path):
    path = tmp_path / "results" / "speed.csv"
    common.append_csv(path, {"maps": 10, "seconds": 0.5})
    common.append_csv(path, {"maps": 20, "seconds": 0.9, "note": "a, b"})
    common.append_csv(path, {"maps": 30})
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"maps": "10", "seconds": "0.5", "note": ""},
        {"maps": "20", "seconds": "0.9", "note": "a, b"},
        {"maps": "30", "seconds": "", "note": ""},
    ]
    assert [each.name for each in path.parent.iterdir()] == ["speed.csv"]


def test_the_machine_is_named():
    record = common.machine_record()
    assert int(record["cores"]) >= 1
    assert all(record[name] for name in ("date", "cpu", "python", "numpy", "scipy"))


def test_median_leaves_the_warm_up_out():
    calls = []
    assert common.median_seconds(lambda: calls.append(1), 3, warmup=2) >= 0
    assert len(calls) == 5
    with pytest.raises(ValueError, match="repeats should be at least 1, got 0"):
        common.median_seconds(lambda: None, 0)
