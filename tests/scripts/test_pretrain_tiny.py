"""The pretraining goes on where it was stopped, and writes what loads."""

import csv
from pathlib import Path

import pytest
import torch

from faprompt.clip.weights import load_backbone
from faprompt.config import parse_toml
from scripts import pretrain_tiny
from scripts.pretrain_tiny import balanced_entropy, rate, run

CONFIG = Path(pretrain_tiny.__file__).with_suffix(".toml")


@pytest.fixture
def config():
    config = parse_toml(CONFIG.read_text())
    config["run"] |= {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "log_every": 1}
    config["run"] |= {"snapshot_every": 1, "ship": [2, 4]}
    config["data"]["image_size"] = 64
    config["backbone"] |= {"vision_width": 32, "vision_heads": 1, "vision_layers": 2}
    config["backbone"] |= {"stem_channels": [8, 8, 16], "text_layers": 1, "embed_dim": 16}
    return config


def weights(folder):
    return load_backbone(folder).state_dict()


def test_stopped_and_gone_on_is_as_never_stopped(config, tmp_path, monkeypatch):
    run(config, tmp_path / "whole")
    learn, calls = pretrain_tiny.learn, []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return learn(*arguments)

    monkeypatch.setattr(pretrain_tiny, "learn", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "parts")
    run(config, tmp_path / "parts")
    whole, parts = (
        weights(tmp_path / "whole" / "backbone"),
        weights(tmp_path / "parts" / "backbone"),
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert len(calls) == 6  # three, the stop, and the two after the checkpoint at 2
    two, four = (weights(tmp_path / "whole" / "snapshots" / f"00000{n}") for n in (2, 4))
    assert any(not torch.equal(two[key], four[key]) for key in whole)
    assert all(torch.allclose(whole[k], (two[k] + four[k]) / 2, atol=2e-3) for k in whole)
    for name in ("whole", "parts"):  # the third step was taken twice, and stands there once
        with (tmp_path / name / "log.csv").open() as file:
            assert [row["pictures"] for row in csv.DictReader(file)] == ["4", "8", "12", "16"]


def test_a_snapshot_that_is_not_there_is_named(config, tmp_path):
    config["run"] |= {"steps": 1, "ship": [1, 7]}
    with pytest.raises(SystemExit, match="snapshot of step 7 "):
        run(config, tmp_path)


def test_the_rate_warms_up_stays_and_falls(config):
    config["run"]["steps"], top = 1000, config["optimizer"]["learning_rate"]
    warm = config["optimizer"]["warmup_steps"]
    assert rate(config, 0) == pytest.approx(top / warm)
    assert rate(config, warm) == rate(config, 640) == top
    assert rate(config, 825) == pytest.approx(top / 2)
    assert rate(config, 999) == pytest.approx(top * 0.01)


def test_marked_and_unmarked_patches_weigh_the_same():
    logit = torch.zeros(1, 100)
    few = torch.zeros(1, 100)
    few[:, :5] = 1
    sides = [5 / 6 * 0.693147, 95 / 96 * 0.693147]
    assert balanced_entropy(logit, few).item() == pytest.approx(sum(sides), abs=1e-5)
    assert balanced_entropy(logit + 9 * (2 * few - 1), few).item() < 0.001
