"""The whole of `train`: what moves, what it learns, and that it does so the same way twice."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from faprompt.errors import DatasetError, FapromptError, MissingExtraError
from faprompt.methods.base import Method, MethodConfig, MethodOutput
from faprompt.training.training_steps import epoch_order
from tests.training import toys


def test_loss_falls_and_the_defects_come_out_on_top(samples, tmp_path):
    method = toys.faprompt()
    report = toys.run(method, samples, tmp_path, options={"epochs": 15, "learning_rate": 5e-3})
    losses = [means["total"] for means in report.epoch_means]
    assert losses[-1] < 0.8 * losses[0]
    pixels = torch.stack([toys.pixels(s) for s in samples])
    with torch.no_grad():
        output = method(toys.backbone().encode_image(pixels), toys.backbone().text)
    normal, anomalous = output.score[0::2], output.score[1::2]
    assert anomalous.min() > normal.max()


@pytest.mark.parametrize("build", [toys.faprompt, toys.anomalyclip])
def test_exactly_the_methods_parameters_move(build, samples, tmp_path):
    clip, method = toys.draw_backbone(), build()
    before, start = clip.state_fingerprint(), toys.parameters(method)
    buffers = {name: b.clone() for name, b in method.named_buffers()}
    report = toys.run(method, samples, tmp_path, backbone=clip)
    moved = {name for name, p in method.named_parameters() if not torch.equal(p, start[name])}
    assert moved == set(start)
    assert clip.state_fingerprint() == before
    assert all(p.grad is None and not p.requires_grad for p in clip.parameters())
    assert all(torch.equal(b, buffers[name]) for name, b in method.named_buffers())
    assert not method.training
    assert (report.steps, report.pictures, report.normal, report.anomalous) == (6, 7, 4, 3)


class HandmadeSGD(torch.optim.Optimizer):
    """v <- 0.9 v + g + 5e-4 p and p <- p - r v, in the words of the formula."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.0})

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            slope = p.grad + 5e-4 * p
            speed = self.state[p].get("speed", torch.zeros_like(p))
            self.state[p]["speed"] = 0.9 * speed + slope
            p -= self.param_groups[0]["lr"] * self.state[p]["speed"]


def handmade_adamw(parameters):
    """Its decay by hand before the step of an Adam without any."""
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1e-3, betas=(0.5, 0.999))

    def decay(*_):
        with torch.no_grad():
            for p in parameters:
                p *= 1 - optimizer.param_groups[0]["lr"] * 0.3

    optimizer.register_step_pre_hook(decay)
    return optimizer


@pytest.mark.parametrize(
    ("options", "rival_optimizer", "rates"),
    [
        ({}, lambda p: torch.optim.Adam(p, betas=(0.5, 0.999)), [1e-3]),
        ({"optimizer": "adamw", "weight_decay": 0.3}, handmade_adamw, [1e-3]),
        (
            {
                "optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 5e-4,
                "schedule": "cosine", "warmup_epochs": 1,
            },
            HandmadeSGD, [1e-5, 0.02, 0.015],  # 0.01 (1 + cos(pi / 3))
        ),
    ],
    ids=["adam", "adamw", "sgd"],
)  # fmt: skip
def test_equals_a_plain_loop(options, rival_optimizer, rates, samples, tmp_path):
    """The rival: features by hand, in the same order, with a loop of torch's own."""
    method, rival = toys.faprompt(), toys.faprompt()
    toys.run(method, samples, tmp_path, options={"epochs": len(rates), **options})
    clip = toys.backbone()
    pixels = [toys.pixels(s) for s in samples]
    height, width = toys.IMAGE_SIZE
    masks = torch.zeros(len(samples), height, width)
    for index, sample in enumerate(samples):
        for path in sample.mask_paths:
            grey = Image.open(path).resize((width, height), Image.Resampling.BILINEAR)
            masks[index] = torch.from_numpy(np.asarray(grey) > 127).float()
    labels = torch.tensor([s.label for s in samples])
    optimizer = rival_optimizer(rival.parameters())
    for epoch, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        for batch in torch.tensor(epoch_order(7, seed=111, epoch=epoch)).split(3):
            with torch.no_grad():
                features = clip.encode_image(torch.stack([pixels[i] for i in batch]))
            terms = rival.loss(rival(features, clip.text), labels[batch], masks[batch])
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
    toys.assert_moved_alike(method, rival, toys.faprompt())


def test_same_seed_same_parameters_and_another_seed_others(samples, tmp_path):
    first, second, other = toys.faprompt(), toys.faprompt(), toys.faprompt()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    toys.run(first, samples, tmp_path, out="first")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    toys.run(second, samples, tmp_path, out="second")
    toys.run(other, samples, tmp_path, out="other", options={"seed": 112})
    toys.assert_same(first, second)
    assert not torch.equal(first.prompts.normal_context, other.prompts.normal_context)


def test_a_batch_of_one_and_a_batch_of_all(samples, tmp_path):
    one = toys.run(toys.faprompt(), samples, tmp_path, options={"batch_size": 1}, out="one")
    large = toys.run(toys.faprompt(), samples, tmp_path, options={"batch_size": 64}, out="all")
    assert (one.steps, large.steps) == (14, 2)
    assert all(math.isfinite(value) for value in one.epoch_means[-1].values())


def test_several_layers_and_a_region(samples, tmp_path):
    part = [replace(samples[0], region=(0, 0, 20, 30)), replace(samples[1], region=(4, 8, 36, 48))]
    report = toys.run(toys.anomalyclip(map_layers=(2, 4)), [*part, *samples[2:]], tmp_path)
    assert report.steps == 6
    with pytest.raises(DatasetError, match="does not lie within"):
        wrong = replace(samples[0], region=(0, 0, 37, 48))
        toys.run(toys.anomalyclip(), [wrong], tmp_path, out="wrong")


def test_the_order_is_a_permutation_that_depends_on_seed_and_epoch():
    orders = [tuple(epoch_order(50, seed=s, epoch=e)) for s in (1, 2) for e in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(orders)) == 4
    assert orders[0] == tuple(epoch_order(50, seed=1, epoch=0))


def test_csv_and_png(samples, tmp_path, draws):
    seen = []
    report = toys.run(toys.faprompt(), samples, tmp_path, progress=lambda *call: seen.append(call))
    with report.loss_csv.open() as file:
        rows = list(csv.DictReader(file))
    terms = ["local", "image_focal", "orthogonal", "prior"]
    assert list(rows[0]) == ["epoch", "step", *terms, "total", "seconds"]
    assert [(r["epoch"], r["step"]) for r in rows] == [
        ("1", "1"), ("1", "2"), ("1", "3"), ("2", "4"), ("2", "5"), ("2", "6"),
    ]  # fmt: skip
    for row in rows:
        assert float(row["total"]) == pytest.approx(sum(float(row[t]) for t in terms), rel=1e-5)
        assert float(row["seconds"]) >= 0  # to a tenth of a millisecond
    second = [float(row["total"]) for row in rows[3:]]
    assert report.epoch_means[1]["total"] == pytest.approx(sum(second) / 3, rel=1e-6)
    with Image.open(report.loss_png) as picture:
        assert picture.format == "PNG" and picture.size == (1200, 480)
    assert [call[1:] for call in seen if call[0] == "steps"] == [(n, 6) for n in range(1, 7)]
    assert [call[1] for call in seen if call[0] == "images"] == list(range(1, 8))
    assert [call[1] for call in seen if call[0] == "masks"] == [1, 2, 3]


def test_seconds_are_told_apart(samples, tmp_path):
    options = {"tensorboard": False}
    first = toys.run(toys.faprompt(), samples, tmp_path, out="a", options=options)
    again = toys.run(toys.faprompt(), samples, tmp_path, out="b", options=options)
    streamed = toys.run(
        toys.faprompt(), samples, tmp_path, out="c", options={**options, "cache": "off"}
    )
    assert (first.encoded, again.encoded, streamed.encoded) == (7, 0, 14)
    assert first.image_seconds > 0 and again.image_seconds == 0 and streamed.image_seconds > 0
    with streamed.loss_csv.open() as file:
        each = [float(row["seconds"]) for row in csv.DictReader(file)]
    rounding = 0.6e-4 * len(each)  # half of the last digit written, and a little
    told = streamed.image_seconds + streamed.step_seconds
    assert told == pytest.approx(sum(each), abs=rounding)


class Diverging(Method):
    """Its loss stops being a number in the third step; so does only its gradient, on demand."""

    name = "diverging"
    config_class = MethodConfig

    def __init__(self, *, only_gradient=False):
        super().__init__()
        self.config = MethodConfig()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))
        self.only_gradient, self.calls = only_gradient, 0

    def forward(self, features, text, *, static=None, with_prompt_scores=False):
        self.calls += 1
        score = self.weight.expand(len(features.class_token))
        return MethodOutput(score=score, patch_map=score[:, None, None])

    def loss(self, output, label, mask):
        inner = (self.weight - self.weight.detach()).abs().sqrt()  # slope 0/0 at 0
        if self.calls < 3:
            return {"fine": output.score.mean(), "odd": 0 * self.weight}
        odd = inner if self.only_gradient else output.score.mean() * float("nan")
        return {"fine": output.score.mean(), "odd": odd}


def test_a_loss_that_is_no_number_names_step_and_terms(samples, tmp_path):
    method = Diverging()
    with pytest.raises(FapromptError, match=r"Step 3 \(epoch 1, batch 3\).*fine=.*odd=nan"):
        toys.run(method, samples, tmp_path, options={"checkpoint_every_steps": 1})
    assert method.weight.isfinite()
    assert (tmp_path / "out" / "loss.csv").read_text().count("\n") == 3


def test_a_gradient_that_is_no_number_names_the_parameter(samples, tmp_path):
    with pytest.raises(FapromptError, match="gradients of weight"):
        toys.run(Diverging(only_gradient=True), samples, tmp_path)


class Exploding(Diverging):
    """Finite loss and gradient in every step; the update itself overflows, or its score does."""

    def loss(self, output, label, mask):
        return {"fine": 1e9 * output.score[0]}


class Quiet(Exploding):
    """The parameter stays finite, and what it makes of a picture does not."""

    def forward(self, features, text, **options):
        output = super().forward(features, text, **options)
        if self.training:
            return output
        return MethodOutput(score=output.score * 1e38, patch_map=output.patch_map)

    def loss(self, output, label, mask):
        return {"fine": output.score[0]}


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize(
    ("build", "rate", "told"),
    [
        (Exploding, 1e30, "parameters weight after it"),
        (Quiet, 1e30, "scores or maps after it"),
    ],
)
def test_the_last_update_is_looked_at_too(build, rate, told, epochs, samples, tmp_path):
    """One step in all, or one in the second epoch after a warm-up that changes little."""
    options = {
        "optimizer": "sgd", "learning_rate": rate, "batch_size": 7, "epochs": epochs,
        "warmup_epochs": epochs - 1, "momentum": 0.0,
    }  # fmt: skip
    method = build()
    wanted = rf"Step {epochs} \(epoch {epochs}, batch 1\) is not finite: {told}"
    with pytest.raises(FapromptError, match=f"{wanted}.*A lower learning_rate often helps"):
        toys.run(method, samples, tmp_path, options=options)
    assert (tmp_path / "out" / "checkpoint.safetensors").exists() == (epochs == 2)


def test_scores_that_are_not_finite_are_a_sentence_before_the_loss_fails(samples, tmp_path):
    """The first update sends the parameters so far that FAPrompt's scores are no numbers."""
    options = {"learning_rate": 1e12, "batch_size": 3, "epochs": 1}
    with pytest.raises(FapromptError, match=r"Step 2 \(epoch 1, batch 2\) is not finite: scores"):
        toys.run(toys.faprompt(), samples, tmp_path, options=options)
    assert not (tmp_path / "out" / "checkpoint.safetensors").exists()


def test_no_checkpoint_holds_what_is_not_finite(samples, tmp_path):
    method = Exploding()
    options = {
        "optimizer": "sgd", "learning_rate": 1e30, "batch_size": 3, "checkpoint_every_steps": 1,
    }  # fmt: skip
    with pytest.raises(FapromptError, match=r"Step 1 .*parameters weight after it"):
        toys.run(method, samples, tmp_path, options=options)
    assert not (tmp_path / "out" / "checkpoint.safetensors").exists()


def test_an_interrupt_writes_no_checkpoint_that_is_not_finite(samples, tmp_path):
    method = Exploding()

    def interrupt(stage, done, total):
        if stage == "steps":
            raise KeyboardInterrupt

    options = {"optimizer": "sgd", "learning_rate": 1e30, "batch_size": 3}
    with pytest.raises(KeyboardInterrupt):
        toys.run(method, samples, tmp_path, options=options, progress=interrupt)
    assert not (tmp_path / "out" / "checkpoint.safetensors").exists()


def test_what_cannot_be_trained_is_refused(samples, tmp_path):
    class Still(Diverging):
        name = "still"

        def __init__(self):
            super().__init__()
            del self.weight

    with pytest.raises(TypeError, match="'still' has no parameters to train"):
        toys.run(Still(), samples, tmp_path)
    thawed = toys.draw_backbone()
    thawed.text.ln_final.weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"frozen.*text\.ln_final\.weight"):
        toys.run(toys.faprompt(), samples, tmp_path, backbone=thawed)


def test_tensorboard_is_written_only_where_it_is(samples, tmp_path, monkeypatch):
    import sys
    import types

    written, module = [], types.ModuleType("torch.utils.tensorboard")

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    options = {"epochs": 1, "batch_size": 7, "tensorboard": "auto"}
    report = toys.run(toys.faprompt(), samples, tmp_path, options=options)
    assert written[0] == (str(tmp_path / "out" / "tensorboard"), 1) and written[-1] == "closed"
    total = report.epoch_means[0]["total"]
    assert ("loss/total", pytest.approx(total), 1) in written
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    toys.run(toys.faprompt(), samples, tmp_path, options=options, out="without")
    with pytest.raises(MissingExtraError, match=r"faprompt\[tensorboard\]"):
        toys.run(toys.faprompt(), samples, tmp_path, options={"tensorboard": True}, out="must")
