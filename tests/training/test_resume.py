"""Interrupted and resumed equals uninterrupted, wherever the interrupt falls."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from faprompt.errors import ConfigError, FapromptError, ModelError
from faprompt.training.checkpoint import load_checkpoint
from tests.helpers.log import logged_notes
from tests.training import toys


def interrupt_at(stage, done):
    def progress(at, count, total):
        if (at, count) == (stage, done):
            raise KeyboardInterrupt

    return progress


def rows(report):
    with report.loss_csv.open() as file:
        return [{k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(file)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train once without an interrupt; the folder, the method and the report."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faprompt.training.loss_log._draw_curves", lambda *losses: b"")
        with toys.one_thread():
            method = toys.faprompt()
            report = toys.run(method, toys.draw_samples(folder), folder, out="whole")
    return folder, method, report


@pytest.fixture
def whole(trained, tmp_path):
    """A copy of that run and of its cache, which a test may spoil."""
    folder, method, report = trained
    for name in ("whole", "cache"):
        shutil.copytree(folder / name, tmp_path / name)
    paths = {n: tmp_path / "whole" / getattr(report, n).name for n in ("loss_csv", "checkpoint")}
    return method, replace(report, **paths)


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_interrupted_in_the_loop(step, whole, samples, tmp_path):
    method, report = whole
    with pytest.raises(KeyboardInterrupt):
        toys.run(toys.faprompt(), samples, tmp_path, progress=interrupt_at("steps", step))
    resumed = toys.faprompt(seed=50)  # its own start is overwritten
    again = toys.run(resumed, samples, tmp_path, resume=True)
    toys.assert_same(method, resumed)
    assert again.resumed_at == step and again.steps == report.steps
    assert rows(again) == rows(report)
    assert again.epoch_means == report.epoch_means


def test_interrupted_twice_and_with_streamed_features(whole, samples, tmp_path):
    for step in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            toys.run(
                toys.faprompt(), samples, tmp_path, progress=interrupt_at("steps", step),
                resume=True, options={"cache": "off"},
            )  # fmt: skip
    resumed = toys.faprompt()
    toys.run(resumed, samples, tmp_path, resume=True)
    toys.assert_same(whole[0], resumed)


def test_killed_between_two_checkpoints(whole, samples, tmp_path):
    """No chance to save: the last regular checkpoint counts, later rows of the log do not."""

    class Killed(BaseException):
        pass

    def kill(stage, done, total):
        if stage == "steps" and done == 5:
            raise Killed

    with pytest.raises(Killed):
        toys.run(
            toys.faprompt(), samples, tmp_path, progress=kill,
            options={"checkpoint_every_steps": 4},
        )  # fmt: skip
    resumed = toys.faprompt()
    again = toys.run(resumed, samples, tmp_path, resume=True)
    assert again.resumed_at == 4
    toys.assert_same(whole[0], resumed)
    assert rows(again) == rows(whole[1])


def test_interrupted_inside_the_update_keeps_the_last_checkpoint(
    whole, samples, tmp_path, monkeypatch
):
    calls = []
    step = torch.optim.Adam.step

    def torn_step(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            next(iter(self.param_groups[0]["params"])).data.add_(1)  # half an update
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", torn_step)
    with pytest.raises(KeyboardInterrupt):
        toys.run(toys.faprompt(), samples, tmp_path)
    monkeypatch.undo()
    resumed = toys.faprompt()
    assert toys.run(resumed, samples, tmp_path, resume=True).resumed_at == 3
    toys.assert_same(whole[0], resumed)


def test_interrupted_while_the_cache_is_filled(whole, samples, tmp_path):
    options = {"cache_dir": str(tmp_path / "other_cache")}
    with pytest.raises(KeyboardInterrupt):
        toys.run(
            toys.faprompt(), samples, tmp_path, progress=interrupt_at("images", 4), options=options
        )
    resumed = toys.faprompt()
    with logged_notes() as notes:
        report = toys.run(resumed, samples, tmp_path, resume=True, options=options)
    toys.assert_same(whole[0], resumed)
    assert report.encoded == 3
    assert any("4 of 7 pictures are in" in note for note in notes)
    assert any("to resume from" in note for note in notes)


def test_more_epochs_later_equal_more_epochs_at_once(samples, tmp_path):
    at_once, later = toys.faprompt(), toys.faprompt()
    toys.run(at_once, samples, tmp_path, options={"epochs": 3}, out="at_once")
    toys.run(later, samples, tmp_path, options={"epochs": 1})
    report = toys.run(later, samples, tmp_path, options={"epochs": 3}, resume=True)
    assert report.resumed_at == 3
    toys.assert_same(at_once, later)


def test_a_finished_run_resumes_to_itself(whole, samples, tmp_path):
    again = toys.faprompt(seed=9)
    report = toys.run(again, samples, tmp_path, out="whole", resume=True)
    toys.assert_same(whole[0], again)
    assert (report.resumed_at, report.steps, report.features) == (6, 6, None)


def test_fewer_epochs_than_done_are_refused(whole, samples, tmp_path):
    with pytest.raises(ConfigError, match="has done 6 steps and epochs=1 are only 3"):
        toys.run(
            toys.faprompt(), samples, tmp_path, out="whole", resume=True, options={"epochs": 1}
        )


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("learning_rate", 2e-3, "learning_rate was 0.001, is now 0.002"),
        ("batch_size", 4, "batch_size was 3, is now 4"),
        ("betas", (0.9, 0.999), r"betas was \[0.5, 0.999\], is now \[0.9, 0.999\]"),
        ("seed", 1, "seed was 111, is now 1"),
        ("cache_dtype", "float16", "cache_dtype was float32, is now float16"),
    ],
)
def test_other_options_are_refused_by_name(option, value, told, whole, samples, tmp_path):
    with pytest.raises(ConfigError, match=told):
        toys.run(
            toys.faprompt(), samples, tmp_path, out="whole", resume=True, options={option: value}
        )


def test_other_data_methods_and_backbones_are_refused_by_name(whole, samples, tmp_path):
    def resume(method=None, pictures=samples, **keywords):
        toys.run(
            method or toys.faprompt(), pictures, tmp_path, out="whole", resume=True, **keywords
        )

    with pytest.raises(ConfigError, match="data.pictures was 7, is now 6"):
        resume(pictures=samples[:-1])
    with pytest.raises(ConfigError, match="data.labels was"):
        resume(pictures=[replace(samples[0], label=1, has_pixel_label=True,
                                 mask_paths=samples[1].mask_paths), *samples[1:]])  # fmt: skip
    with pytest.raises(ConfigError, match="method.sigma_px was 10.0, is now 4.0"):
        resume(toys.faprompt(sigma_px=4.0))
    with pytest.raises(ConfigError, match="method.name was faprompt, is now anomalyclip"):
        resume(toys.anomalyclip())
    with pytest.raises(ConfigError, match="features.backbone was"):
        resume(backbone=toys.draw_backbone(seed=4))
    with pytest.raises(ConfigError, match=r"features.transform.image_size was \[40, 32\]"):
        resume(transform=replace(toys.TRANSFORM, image_size=(32, 32)))
    with Image.open(samples[2].image_path) as picture:
        picture.rotate(90).resize((36, 48)).save(samples[2].image_path)
    with pytest.raises(ConfigError, match="data.picture_files was"):
        resume()


def test_an_unfinished_run_is_not_overwritten(samples, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        toys.run(toys.faprompt(), samples, tmp_path, progress=interrupt_at("steps", 2))
    with pytest.raises(ConfigError, match=r"unfinished run \(2 of 6 steps\); resume it"):
        toys.run(toys.faprompt(), samples, tmp_path)
    toys.run(toys.faprompt(), samples, tmp_path, resume=True)
    fresh = toys.run(toys.faprompt(), samples, tmp_path)  # a finished one is
    assert fresh.resumed_at == 0 and len(rows(fresh)) == 6


def test_the_checkpoint_is_safetensors_and_json(whole):
    path = whole[1].checkpoint
    with safe_open(str(path), framework="pt") as file:
        header = json.loads(file.metadata()["faprompt_training"])
        names = set(file.keys())
    parameters = set(toys.parameters(whole[0]))
    assert header["step"] == 6 and header["identity"]["method"]["name"] == "faprompt"
    assert {f"method/{name}" for name in parameters} <= names
    assert {f"optimizer/exp_avg_sq/{name}" for name in parameters} <= names
    assert not list(path.parent.glob("*.tmp"))


def test_a_damaged_or_foreign_checkpoint_is_refused(whole, samples, tmp_path):
    path = whole[1].checkpoint
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        ModelError, match=r"header alone .*file has 100.*delete it to train from the start"
    ):
        load_checkpoint(path)
    save_file({"a": torch.zeros(1)}, str(path))
    with pytest.raises(FapromptError, match="not a training checkpoint"):
        toys.run(toys.faprompt(), samples, tmp_path, out="whole", resume=True)


def rewrite(path, *, change=lambda tensors: None, **header):
    """Change tensors and entries of the header of a checkpoint."""
    with safe_open(str(path), framework="pt") as file:
        values = json.loads(file.metadata()["faprompt_training"])
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    change(tensors)
    save_file(tensors, str(path), metadata={"faprompt_training": json.dumps({**values, **header})})


@pytest.mark.parametrize(
    "header",
    [
        {"step": "6"}, {"step": -1}, {"steps": None}, {"loss_names": 3}, {"loss_names": [1]},
        {"seconds": {}}, {"seconds": {"images": "x", "steps": 0}}, {"identity": []},
        {"step": 5}, {"loss_names": ["one"]}, {"format": 1}, {"more": 1}, {"step": float("nan")},
    ],
)  # fmt: skip
def test_a_crooked_header_is_refused(header, whole):
    rewrite(whole[1].checkpoint, **header)
    with pytest.raises(ModelError, match="not a training checkpoint of this version"):
        load_checkpoint(whole[1].checkpoint)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"<html>", b"\xff" * 64, b"PK\3\4"])
def test_a_file_that_is_something_else_is_refused(content, whole):
    whole[1].checkpoint.write_bytes(content)
    with pytest.raises(ModelError, match="not a training checkpoint of this version"):
        load_checkpoint(whole[1].checkpoint)


def spoil(key, value):
    def change(tensors):
        tensors[key] = value(tensors[key]) if key in tensors else value(None)

    return change


NAME = "prompts.normal_context"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (spoil(f"method/{NAME}", lambda t: t * float("nan")), f"{NAME} holds values that are not"),
        (spoil(f"method/{NAME}", lambda t: t.int()), f"{NAME} is stored as int32, wanted float32"),
        (spoil(f"method/{NAME}", lambda t: t[:1].clone()), "does not fit 'faprompt'"),
        (spoil(f"optimizer/exp_avg/{NAME}", lambda t: t / 0), f"exp_avg/{NAME} is not finite"),
        (spoil(f"optimizer/exp_avg/{NAME}", lambda t: t[:1].clone()), "fits no parameter"),
        (spoil("optimizer/strange", lambda _: torch.zeros(1)), "strange fits no parameter"),
    ],
)
def test_tensors_that_cannot_be_resumed_are_named(change, told, whole, samples, tmp_path):
    rewrite(whole[1].checkpoint, change=change)
    with pytest.raises(ModelError, match=told):
        toys.run(toys.faprompt(), samples, tmp_path, out="whole", resume=True)
