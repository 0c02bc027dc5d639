"""The training benchmark runs, keeps a row, and computes what it says it computes."""

import argparse
import csv

import pytest

from benchmarks import training


def test_the_small_size_runs_and_keeps_a_row(tmp_path, monkeypatch, capsys):
    out = tmp_path / "training.csv"
    line = f"training --small --pictures 2 --batch-size 2 --epochs 1 --repeats 1 --out {out}"
    monkeypatch.setattr("sys.argv", [*line.split(), "--naive-repeats", "1"])
    training.main()
    with out.open() as file:
        (row,) = csv.DictReader(file)
    for name in training.Seconds.__slots__:
        assert float(row[f"{name}_s"]) > 0
    assert (row["pictures"], row["precision"], row["small"]) == ("2", "fp32", "True")
    last = capsys.readouterr().out.splitlines()[-1]
    assert "naive / ours, 1 epochs" in last
    assert float(last.split()[-1]) == pytest.approx(float(row["naive_epochs_over_ours"]), abs=0.006)


def test_ratios_follow_from_the_seconds():
    seconds = training.Seconds(
        one_pass=80.0, step=5.0, run=130.0, run_images=84.0, run_steps=36.0,
        naive_images=120.0, naive_prompts=30.0,
    )  # fmt: skip
    options = argparse.Namespace(epochs=7, pictures=8, batch_size=8)
    ratio = training.ratios(seconds, options)
    assert ratio["run_over_pass_plus_text"] == pytest.approx(130 / (80 + 7 * 5))
    assert ratio["run_images_over_pass"] == pytest.approx(84 / 80)
    assert ratio["naive_prompts_over_ours"] == 6
    assert ratio["naive_later_epoch_over_ours"] == 30
    assert ratio["set_pass_h"] == pytest.approx(1725 * 10 / 3600)
    assert ratio["set_text_h"] == pytest.approx(7 * 216 * 5 / 3600)
    ours = 1725 * 10 + 7 * 216 * 5
    assert ratio["set_epochs_over_pass"] == pytest.approx(ours / 17250)
    assert ratio["naive_epochs_over_ours"] == pytest.approx(7 * 216 * 150 / ours)
