"""Class names on their way from a labelled set to the prompts, through both workshops."""

from dataclasses import replace

import pytest
import torch

from faprompt.config import to_mapping
from faprompt.data import Dataset
from faprompt.data.dataset_catalog import display_name
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.evaluation import EvaluationConfig, evaluate
from faprompt.imaging.transform import Transform
from faprompt.methods.coop import ClassPromptMethod
from faprompt.methods.tcp import TCPV1
from faprompt.training.training_config import TrainingConfig
from faprompt.training.training_loop import train_method
from faprompt.training.training_steps import TrainingTask, epoch_order
from tests.evaluation import toys
from tests.helpers import export, small


def overhear(monkeypatch, cls, name, place):
    """The names that a method of `cls` is given, as an argument at this place, call by call."""
    calls, plain = [], getattr(cls, name)

    def spy(self, *given):
        calls.append(list(given[place]))
        return plain(self, *given)

    monkeypatch.setattr(cls, name, spy)
    return calls


@pytest.fixture
def told(monkeypatch):
    """The names of every batch, as the prompts get them."""
    return overhear(monkeypatch, ClassPromptMethod, "name_classes", 0)


@pytest.fixture
def encoded(monkeypatch):
    """The classes whose texts TCP encodes."""
    return overhear(monkeypatch, TCPV1, "encode_pairs", 1)


def learn(method, samples, tmp_path, *, resume=False, **options):
    """One epoch."""
    config = TrainingConfig(
        epochs=1, cache_dir=str(tmp_path / "cache"), tensorboard=False, **options
    )
    task = TrainingTask(
        method=method, backbone=small.backbone(), config=config, out_dir=tmp_path / "out",
        transform=Transform(image_size=(small.SIDE, small.SIDE)), resume=resume,
    )  # fmt: skip
    train_method(task, samples)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return toys.dataset(tmp_path / "set")


@pytest.mark.parametrize("resolution", ["model", "picture"])
def test_evaluation_passes_them_on(dataset, told, resolution):
    detector = small.detector("coop")
    evaluate(detector, dataset, EvaluationConfig(batch_size=4, resolution=resolution))
    wanted = [sample.class_name for sample in dataset.samples]
    assert [name for batch in told for name in batch] == wanted
    assert {"mug", "nut"} == set(wanted) and len(told[0]) == 4


def test_training_passes_them_on_in_the_order_of_the_epoch(dataset, told, tmp_path):
    samples = dataset.samples
    learn(small.method("coop"), samples, tmp_path, batch_size=5, seed=3)
    order = epoch_order(len(samples), seed=3, epoch=0)
    *steps, last = told  # the last batch is scored once more after the last update
    assert [name for batch in steps for name in batch] == [samples[i].class_name for i in order]
    assert last == steps[-1]


@pytest.mark.parametrize("given", [(), ("pill", "sdd")])
def test_tcp_learns_from_the_texts_of_all_classes_at_every_step(dataset, encoded, tmp_path, given):
    method = small.method("tcp-v1", knowledge_classes=given)
    before = to_mapping(method.config), set(method.state_dict())
    learn(method, dataset.samples, tmp_path, batch_size=1)
    wanted = set(map(display_name, given or ("mug", "nut")))
    *steps, _ = encoded  # the last batch is scored once more after the last update
    assert len(steps) == len(dataset.samples)
    for names in steps:
        assert len(names) == len(set(names)) and wanted <= set(names)
        assert set(names) - wanted < {"mug", "nut"}  # given others, the batch's own class
    assert {names[0] for names in steps} == {"mug", "nut"}
    assert (to_mapping(method.config), set(method.state_dict())) == before


def test_what_tcp_was_told_in_training_is_of_no_use_to_inference(dataset, encoded):
    method = small.method("tcp-v1")
    method.begin_training(["mug", "nut", "pill"])
    method.eval()
    with torch.no_grad():
        features = method.encode_image(small.backbone(), small.pixels())
        method(features, small.backbone().text, class_names=["cup"] * 3)
    assert encoded == [["cup"]]


def test_without_class_names_tcp_learns_from_its_word_alone(dataset, encoded, tmp_path):
    method = small.method("tcp-v1", use_class_names=False)
    learn(method, dataset.samples, tmp_path, batch_size=6)
    assert encoded and all(names == ["object"] for names in encoded)


@pytest.mark.parametrize("name", ["tcp-v1", "faprompt"])
def test_training_says_its_classes_once_and_sorted(dataset, tmp_path, monkeypatch, name):
    method = small.method(name, **({} if name == "tcp-v1" else {"prompts": 2}))
    calls = []
    monkeypatch.setattr(type(method), "begin_training", lambda self, names: calls.append(names))
    learn(method, [*reversed(dataset.samples)], tmp_path, batch_size=6)
    assert calls == [["mug", "nut"]]


def test_a_run_is_not_resumed_with_other_names(dataset, tmp_path):
    renamed = [replace(sample, class_name="cup") for sample in dataset.samples]
    learn(small.method("coop"), dataset.samples, tmp_path, batch_size=6)
    learn(small.method("coop"), dataset.samples, tmp_path, batch_size=6, resume=True)
    with pytest.raises(ConfigError, match="another run: data.class_names was"):
        learn(small.method("coop"), renamed, tmp_path, batch_size=6, resume=True)


def test_names_nobody_asks_for_may_change(dataset, tmp_path):
    renamed = [replace(sample, class_name="cup") for sample in dataset.samples]
    learn(small.method("anomalyclip"), dataset.samples, tmp_path, batch_size=6)
    learn(small.method("anomalyclip"), renamed, tmp_path, batch_size=6, resume=True)


def test_methods_that_do_not_ask_are_not_told(dataset):
    detector = small.detector("anomalyclip")
    assert not detector.method.uses_class_names
    images = [small.picture()]
    named = detector.predict_batch(images, class_names=["nut"])
    assert named[0].score == detector.predict_batch(images)[0].score


@pytest.mark.parametrize("name", ["clip", "coop", "cocoop", "tcp-v1", "filo"])
def test_one_name_is_of_all_pictures(name):
    method = small.method(name, **({"context_tokens": 2} if name == "filo" else {})).eval()
    fixed = Detector(small.backbone(), method, name=name, class_name="pill")
    plain = Detector(small.backbone(), method, name=name)
    with torch.no_grad():
        wanted = plain(small.pixels(3), class_names=["pill"] * 3)
        other = plain(small.pixels(3), class_names=["screw"] * 3)
        for found in (fixed(small.pixels(3)), plain(small.pixels(3), class_names=["pill"])):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert (other[1] - wanted[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["clip", "cocoop", "tcp-v1"])
def test_a_detector_of_one_class_exports_before_any_prediction(name):
    """Its sentences are encoded for the first time in the export, and again after it."""
    cold, rival = (
        Detector(
            small.backbone(),
            small.method(name).eval().requires_grad_(False),
            name=name,
            class_name="pill",
        )  # fmt: skip
        for _ in range(2)
    )
    program = export.export_cold(cold, small.pixels(2))
    export.assert_equal_after_export(program, cold, rival, small.pixels(5))
