"""Class names on their way from a labelled set to the prompts, through both workshops."""

import pytest

from faprompt.data import Dataset
from faprompt.evaluation import EvaluationConfig, evaluate
from faprompt.imaging.transform import Transform
from faprompt.methods.class_prompts import ClassPromptMethod
from faprompt.training.config import TrainingConfig
from faprompt.training.loop import train
from faprompt.training.run import epoch_order
from tests.evaluation import toys
from tests.helpers import small


@pytest.fixture
def told(monkeypatch):
    """The names of every batch, as the prompts get them."""
    batches = []
    plain = ClassPromptMethod.name_classes

    def spy(self, class_names, count):
        batches.append(list(class_names))
        return plain(self, class_names, count)

    monkeypatch.setattr(ClassPromptMethod, "name_classes", spy)
    return batches


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
    config = TrainingConfig(
        epochs=1, batch_size=5, seed=3, cache_dir=str(tmp_path / "cache"), tensorboard=False
    )
    samples = dataset.samples
    train(
        small.method("coop"),
        small.backbone(),
        samples,
        Transform(image_size=(small.SIDE, small.SIDE)),
        config,
        out_dir=tmp_path / "out",
    )
    order = epoch_order(len(samples), seed=3, epoch=0)
    assert [name for batch in told for name in batch] == [samples[i].class_name for i in order]


def test_methods_that_do_not_ask_are_not_told(dataset):
    detector = small.detector("anomalyclip")
    assert not detector.method.uses_class_names
    images = [small.picture()]
    named = detector.predict_batch(images, class_names=["nut"])
    assert named[0].score == detector.predict_batch(images)[0].score
