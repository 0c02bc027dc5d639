"""Ground truth at the model's size, and options."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image

from faprompt.config import from_mapping
from faprompt.errors import ConfigError, DatasetError, ImageReadError
from faprompt.training.features import Pictures
from faprompt.training.training_config import WORK_OPTIONS, TrainingConfig
from faprompt.training.training_masks import (
    choose_samples,
    learning_warnings,
    read_masks,
    resize_mask,
)
from faprompt.work import no_progress
from tests.helpers.log import logged_notes
from tests.training import toys


def read(samples, size=toys.IMAGE_SIZE):
    return read_masks(samples, size, policy="reference", readers=2, progress=no_progress)


def test_masks_equal_the_authors_chain_of_torchvision(samples):
    """utils.py and train.py: Resize, CenterCrop, ToTensor on the Pillow mask, then 0.5."""
    from faprompt.clip.spec import open_clip_module

    open_clip_module()  # lets torchvision be imported beside a CPU torch
    from torchvision import transforms

    chain = transforms.Compose(
        [transforms.Resize(toys.IMAGE_SIZE), transforms.CenterCrop(toys.IMAGE_SIZE),
         transforms.ToTensor()]
    )  # fmt: skip
    ours = read(samples).batch(range(len(samples)))
    assert ours.dtype == torch.float32
    for index, sample in enumerate(samples):
        wanted = torch.zeros(toys.IMAGE_SIZE)
        if sample.label:
            grey = np.array(Image.open(sample.mask_paths[0]).convert("L")) > 0
            wanted = chain(Image.fromarray(grey.astype(np.uint8) * 255, mode="L"))[0]
            assert wanted.any()
        assert torch.equal(ours[index], (wanted > 0.5).float())


def test_any_grey_above_zero_counts_and_thin_lines_vanish(samples, tmp_path):
    grey = np.zeros((48, 36), np.uint8)
    grey[10:40, 5:30] = 1
    Image.fromarray(grey).save(samples[1].mask_paths[0])
    assert read(samples).batch([1]).sum() > 0
    line = np.zeros((100, 100), bool)
    line[50] = True
    assert not resize_mask(line, (10, 10)).any() and resize_mask(line, (100, 100)).sum() == 100


def test_batches_come_in_the_order_asked_and_odd_sizes_unpack(samples):
    masks = read(samples, (11, 7))  # 77 bits do not fill whole bytes
    assert masks.batch([3, 1]).shape == (2, 11, 7)
    assert torch.equal(masks.batch([3, 1]).flip(0), masks.batch([1, 3]))
    assert masks.fingerprint() != read(samples[::-1], (11, 7)).fingerprint()


def test_anomalous_pictures_without_masks(samples, tmp_path):
    bare = [replace(s, mask_paths=(), has_pixel_label=False) if s.label else s for s in samples]
    with pytest.raises(DatasetError, match="3 anomalous picture.*unmasked=skip"):
        choose_samples(bare, "refuse")
    assert choose_samples(bare, "skip") == ([s for s in bare if not s.label], 3)
    assert choose_samples(bare, "empty") == (bare, 3)
    assert choose_samples(samples, "refuse") == (samples, 0)
    unlabelled_normal = [replace(s, has_pixel_label=False) if not s.label else s for s in samples]
    assert choose_samples(unlabelled_normal, "refuse") == (unlabelled_normal, 0)
    with pytest.raises(DatasetError, match="no picture to train on"):
        choose_samples([bare[1]], "skip")
    with logged_notes() as notes:
        report = toys.run(toys.faprompt(), bare, tmp_path, options={"unmasked": "skip"})
    assert report.anomalous == 0 and "3 anomalous picture(s) without a mask: skip." in notes


def only(samples, label):
    return [sample for sample in samples if sample.label == label]


def redraw(samples, value):
    """Give every anomalous picture a mask of one value."""
    for sample in only(samples, 1):
        Image.new("L", (36, 48), value).save(sample.mask_paths[0])
    return samples


@pytest.mark.parametrize(
    ("choose", "told"),
    [
        (lambda s: only(s, 0), ["All 4 pictures are normal: what an anomalous picture"]),
        (lambda s: only(s, 1), ["All 3 pictures are anomalous: what a normal picture"]),
        (lambda s: s[:1], ["There is 1 picture only"]),
        (lambda s: redraw(s, 0), ["No anomalous picture (3) has a marked pixel"]),
        (lambda s: redraw(s, 255), ["The masks of all 3 anomalous pictures mark every pixel"]),
        (
            lambda s: only(redraw(s, 0), 1),
            ["All 3 pictures are anomalous", "No anomalous picture (3) has a marked pixel"],
        ),
        (lambda s: s, []),
    ],
)
def test_what_cannot_be_learned_is_reported_and_logged(choose, told, samples, tmp_path, caplog):
    chosen = choose(samples)
    options = {"epochs": 1, "cache": "off"}
    with caplog.at_level("WARNING", logger="faprompt"):
        report = toys.run(toys.faprompt(), chosen, tmp_path, options=options)
    assert len(report.warnings) == len(told)
    for line, start in zip(report.warnings, told, strict=True):
        assert line.startswith(start)
    assert tuple(record.getMessage() for record in caplog.records) == report.warnings


def test_masks_that_vanish_at_the_models_size_are_named(samples):
    marked = [0.0, 0.2, 0.0, 0.0, 0.0, 0.3, 0.0]
    (line,) = learning_warnings(samples, marked)
    assert line.startswith("1 of 3 anomalous pictures have no marked pixel at the model's size")
    assert str(samples[3].image_path) in line
    assert read(samples).marked() == [
        pytest.approx(float(mask.mean())) for mask in read(samples).batch(range(7))
    ]


def test_missing_pictures_and_misfit_masks_are_named(samples, tmp_path):
    missing = [replace(samples[0], image_path=tmp_path / "gone.png")]
    with pytest.raises(ImageReadError, match="gone.png cannot be opened"):
        Pictures(missing, toys.TRANSFORM).fingerprints()
    Image.new("L", (30, 30)).save(samples[1].mask_paths[0])
    with pytest.raises(DatasetError, match="1_mask.png is 30x30"):
        read(samples)


def test_defaults_are_the_papers():
    config = TrainingConfig()
    assert (config.epochs, config.batch_size, config.learning_rate) == (7, 8, 1e-3)
    assert (config.betas, config.seed, config.eps, config.weight_decay) == (
        (0.5, 0.999), 111, 1e-8, 0,
    )  # fmt: skip
    assert (config.optimizer, config.schedule, config.warmup_epochs) == ("adam", "constant", 0)


def test_options_as_the_command_line_gives_them():
    values = {"betas": "0.9,0.99", "epochs": "3", "tensorboard": "no", "cache": "off"}
    config = from_mapping(TrainingConfig, values, what="training options")
    assert (config.betas, config.epochs) == ((0.9, 0.99), 3)
    assert (config.tensorboard, config.cache) == (False, "off")
    assert from_mapping(TrainingConfig, {"tensorboard": "auto"}, what="").tensorboard == "auto"
    with pytest.raises(ConfigError, match="unknown option 'lr'"):
        from_mapping(TrainingConfig, {"lr": 1}, what="training options")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("epochs", 0, "epochs should be at least 1, got 0"),
        ("batch_size", 0, "batch_size should be at least 1"),
        ("encode_batch_size", 0, "encode_batch_size should be at least 1"),
        ("readers", 0, "readers should be at least 1"),
        ("checkpoint_every_steps", -1, "checkpoint_every_steps should be at least 0"),
        ("cache_limit_gb", -1.0, "cache_limit_gb should be at least 0"),
        ("weight_decay", -0.1, "weight_decay should be 0 to 1e\\+30, got -0.1"),
        ("learning_rate", 0.0, "learning_rate should be above 0"),
        ("learning_rate", float("nan"), "learning_rate should be above 0"),
        ("learning_rate", float("inf"), "learning_rate should be above 0 and at most 1e\\+30"),
        ("weight_decay", float("nan"), "weight_decay should be 0 to 1e\\+30"),
        ("weight_decay", float("inf"), "weight_decay should be 0 to 1e\\+30"),
        ("eps", 0.0, "eps should be above 0"),
        ("warmup_epochs", -1, "warmup_epochs should be at least 0"),
        ("warmup_rate", 0.0, "warmup_rate should be above 0"),
        ("momentum", 1.0, "momentum should be at least 0 and below 1, got 1.0"),
        ("momentum", -0.1, "momentum should be at least 0 and below 1"),
        ("momentum", float("nan"), "momentum should be at least 0 and below 1"),
        ("momentum", 0.5, "momentum=0.5 is of sgd, and optimizer is adam"),
        ("betas", (0.5, 1.0), "betas should be at least 0 and below 1"),
        ("betas", (0.5,), "betas should be two numbers"),
    ],
)
def test_options_out_of_range(name, value, told):
    with pytest.raises(ValueError, match=told):
        TrainingConfig(**{name: value})


def test_work_options_are_options():
    assert set(WORK_OPTIONS) < {field.name for field in fields(TrainingConfig)}
