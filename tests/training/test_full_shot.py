"""Full-shot training: which pictures are learned from, class by class, and what is left on disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from faprompt.clip.vision import ImageFeatures
from faprompt.config import to_mapping
from faprompt.data import read_dataset
from faprompt.detector import Detector
from faprompt.errors import ConfigError, DatasetError
from faprompt.imaging import read_image
from faprompt.methods.registry import build_method
from faprompt.model_folder import read_config
from faprompt.models import load_detector
from faprompt.training import full_shot_training as room
from faprompt.training.full_shot_training import read_normal, train_classes
from faprompt.training.training_config import TrainingConfig
from faprompt.training.training_session import TrainOptions, train
from faprompt.training.training_steps import TrainingTask
from tests.helpers import folders, small
from tests.helpers.log import logged_notes

pytest.importorskip("anomalib")
OPTIONS = {"image_size": 56, "centre_crop": 0, "coreset": 0.5}
CONFIG = TrainingConfig(epochs=1, batch_size=2, cache="off", tensorboard=False)


@pytest.fixture
def shelf(tmp_path):
    for name, count in (("mug", 3), ("nut", 2)):
        folders.mvtec_class(
            tmp_path / "sets" / name,
            normal={"good": ["8.png", "9.png"]},
            defects={"chip": ["0.png", "1.png"]},
        )
        for number in range(count):
            folders.picture(tmp_path / "sets" / name / "train" / "good" / f"{number}.png")
    return tmp_path / "sets"


def task(detector, out, config=CONFIG):
    return TrainingTask(
        method=detector.method, backbone=detector.backbone, transform=detector.transform,
        config=config, out_dir=out,
    )  # fmt: skip


def learn(dataset, tmp_path, **options):
    method = build_method("patchcore", small.backbone(), {**OPTIONS, **options})
    detector = Detector(small.backbone(), method, name="learned")
    with logged_notes() as notes:
        report = train_classes(task(detector, tmp_path / "out"), dataset)
    return detector, report, notes


def test_every_class_is_learned_from_its_own_normal_pictures(shelf, tmp_path):
    train = read_normal(shelf)
    detector, report, notes = learn(train, tmp_path, coreset=1.0)
    method = detector.method
    assert method.config.classes == ("mug", "nut") and method.config.memory == (48, 32)
    assert notes == ["mug: 48 of 48 patches kept.", "nut: 32 of 32 patches kept."]
    assert (report.pictures, report.normal, report.anomalous, report.steps) == (5, 5, 0, 0)
    for sample in train.samples:
        image = read_image(sample.image_path).array
        other = {"mug": "nut", "nut": "mug"}[sample.class_name]
        names = [sample.class_name, other]
        own, strange = detector.predict_batch([image, image], class_names=names)
        assert own.score < 0.01 < 0.05 < strange.score


def test_anomalous_pictures_are_left_out(shelf, tmp_path):
    mixed = read_dataset(shelf, split="test")
    detector, report, _ = learn(mixed, tmp_path)
    assert report.pictures == 4 and detector.method.config.memory == (16, 16)


def test_a_class_without_normal_pictures_is_said_and_left_out(shelf, tmp_path):
    mixed = read_dataset(shelf, split="test")
    samples = tuple(s for s in mixed.samples if s.label or s.class_name == "nut")
    detector, _, notes = learn(replace(mixed, samples=samples), tmp_path)
    assert notes[0] == "Skipped, because they have no normal picture: mug."
    assert detector.method.config.classes == ("nut",)


def test_no_train_split_or_nothing_normal_says_what_to_do(shelf, tmp_path):
    bare = tmp_path / "bare" / "cup"
    folders.mvtec_class(bare, normal={}, defects={"chip": ["0.png"]}, train=())
    with pytest.raises(DatasetError, match=r"train split is empty.*put them into <class>/train"):
        read_normal(tmp_path / "bare")
    with pytest.raises(DatasetError, match=r"no normal picture in its test split.*A full-shot"):
        read_normal(tmp_path / "bare", split="test")


def test_what_training_writes_cannot_be_given(shelf, tmp_path):
    with pytest.raises(
        ConfigError, match="classes and memory are set by the training of patchcore"
    ):
        learn(read_normal(shelf), tmp_path, classes=("mug",), memory=(3,))


def test_the_seed_decides_the_memory(shelf, tmp_path):
    first, again = (learn(read_normal(shelf), tmp_path)[0].method for _ in range(2))
    assert torch.equal(first.models[0].patches, again.models[0].patches)
    config = replace(CONFIG, seed=5)
    method = build_method("patchcore", small.backbone(), OPTIONS)
    other = Detector(small.backbone(), method, name="x")
    train_classes(task(other, tmp_path / "o", config), read_normal(shelf))
    assert not torch.equal(first.models[0].patches, method.models[0].patches)


def test_a_model_folder_from_one_call(shelf, tmp_path):
    options = TrainOptions(
        method="patchcore", preset="common", backbone="test-tiny", options={"image_size": 56},
        training=to_mapping(CONFIG), name="parts",
    )  # fmt: skip
    report = train(read_normal(shelf), tmp_path / "model", options)
    config = read_config(tmp_path / "model")
    assert config["options"]["classes"] == ["mug", "nut"] and report.encoded == 5
    training = config["training"]
    assert (training["split"], training["normal"]) == ("train", 5)
    assert "learning_rate" not in training and "epochs" not in training
    loaded = load_detector(tmp_path / "model")
    assert loaded.method.config.classes == ("mug", "nut")


class _Narrow(torch.nn.Module):
    """Stands for RD4AD's student, which has 335 MB: one convolution a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = torch.nn.ModuleList(torch.nn.Conv2d(n, n, 1) for n in (256, 512, 1024))

    def forward(self, maps):
        return tuple(conv(m) for conv, m in zip(self.stages, maps, strict=True))


def test_students_go_through_the_common_loop_each_in_a_folder(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr("faprompt.methods.rd4ad.Student", _Narrow)
    training = {"epochs": 2, "batch_size": 2, "cache": "off", "tensorboard": False}
    training |= {"optimizer": "adam", "learning_rate": 1e-3}
    options = TrainOptions(
        method="rd4ad", backbone="test-wide-resnet", options={"image_size": 64},
        training=training, name="students",
    )  # fmt: skip
    report = train(read_normal(shelf), tmp_path / "model", options)
    assert (report.steps, report.pictures, len(report.epoch_means)) == (2 * (2 + 1), 5, 2)
    places = sorted(path.name for path in (tmp_path / "model" / "classes").iterdir())
    assert places == ["0-mug", "1-nut"]
    assert (tmp_path / "model" / "classes" / "0-mug" / "loss.csv").is_file()
    loaded = load_detector(tmp_path / "model")
    first, second = loaded.method.models
    assert not torch.equal(first.stages[0].weight, second.stages[0].weight)
    assert set(read_config(tmp_path / "model")["training"]["final_losses"]) >= {"distillation"}

    cached = {**training, "cache": "on", "cache_dir": str(tmp_path / "cache")}
    apart = replace(options, training=cached)
    assert train(read_normal(shelf), tmp_path / "cached", apart).features == "cached"
    other = load_detector(tmp_path / "cached").method.models
    assert torch.equal(other[1].stages[2].weight, second.stages[2].weight)

    taken = []
    monkeypatch.setattr(
        "faprompt.training.training_steps.TrainingRun.take_step", lambda self, *_: taken.append(1)
    )
    again = train(shelf, tmp_path / "model", replace(options, resume=True))
    assert again.resumed_at == 6 and not taken
    features = small.pixels(1, 64, 64)
    with torch.no_grad():
        ours = load_detector(tmp_path / "model")(features, class_names=["nut"])[0]
        assert torch.equal(ours, loaded(features, class_names=["nut"])[0])


def test_features_of_one_picture_are_asked_for_once(shelf, tmp_path, monkeypatch):
    seen = []
    plain = room.Encoder._encode

    def spy(self, pixels) -> ImageFeatures:
        seen.append(len(pixels))
        return plain(self, pixels)

    monkeypatch.setattr(room.Encoder, "_encode", spy)
    learn(read_normal(shelf), tmp_path)
    assert seen == [1] * 5
