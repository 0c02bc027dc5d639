"""The learning rate of every epoch, the groups, and resumption whatever moves the parameters."""

import math
from typing import ClassVar

import pytest
import torch

from faprompt.errors import ConfigError
from faprompt.training.training_config import TrainingConfig, recipe_config, run_options
from faprompt.training.training_steps import build_optimizer, learning_rate_at, set_learning_rate
from tests.training import toys
from tests.training.test_resume import interrupt_at, rows

KINDS = {
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.01},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1},
    "sgd without momentum": {"optimizer": "sgd", "learning_rate": 0.1},
}
SCHEDULES = {
    "constant": {"warmup_epochs": 1, "warmup_rate": 1e-4},
    "cosine": {"schedule": "cosine"},
}


def rates(**options):
    config = TrainingConfig(**options)
    return [learning_rate_at(config, epoch) for epoch in range(config.epochs)]


class TestSchedule:
    def test_coops_by_hand(self):
        """0.001 (1 + cos(pi (e - 1) / 50)): at e = 26 the cosine is 0, at 1 and 17 1 and ~0.5."""
        config = recipe_config("coop", "paper", {})
        found = [learning_rate_at(config, epoch) for epoch in (0, 1, 2, 26, 49)]
        cosines = [1.0, math.cos(math.radians(3.6)), 0.0, math.cos(math.radians(172.8))]
        assert found[0] == 1e-5
        assert found[1:] == pytest.approx([0.001 * (1 + c) for c in cosines], rel=1e-12, abs=1e-15)
        assert found[2] == pytest.approx(0.00199802672843)
        assert found[4] == pytest.approx(7.8852986e-6, rel=1e-6)

    def test_without_warmup_it_is_torchs(self):
        config = TrainingConfig(schedule="cosine", epochs=9, learning_rate=0.3)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
        theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=9)
        for epoch in range(9):
            assert learning_rate_at(config, epoch) == pytest.approx(theirs.get_last_lr()[0])
            optimizer.step()
            theirs.step()

    def test_the_cosine_begins_after_the_warmup_and_spans_all_epochs(self):
        plain = rates(schedule="cosine", epochs=6)
        warm = rates(schedule="cosine", epochs=6, warmup_epochs=2, warmup_rate=3e-6)
        assert warm == [3e-6, 3e-6, *plain[:4]]

    def test_constant(self):
        assert rates(epochs=3) == [1e-3] * 3
        assert rates(epochs=3, warmup_epochs=1) == [1e-5, 1e-3, 1e-3]
        assert rates(epochs=1, warmup_epochs=5) == [1e-5]


class TestGroups:
    def test_each_has_its_share_of_every_rate(self):
        method = toys.anomalyclip()
        method.rate_factors = {"deep_": 0.1, "abnormal_context": 0.5}
        optimizer = build_optimizer(method, TrainingConfig())
        set_learning_rate(optimizer, 0.02)
        found = {tuple(g["param_names"]): g["lr"] for g in optimizer.param_groups}
        assert found == {
            ("normal_context",): 0.02, ("abnormal_context",): 0.01, ("deep_prompts",): 0.002,
        }  # fmt: skip

    def test_a_share_is_a_slower_step(self, samples, tmp_path):
        """SGD without momentum: one step of a tenth of the rate is a tenth of the step."""
        whole, slow, start = toys.anomalyclip(), toys.anomalyclip(), toys.anomalyclip()
        slow.rate_factors = {"abnormal_context": 0.1}
        options = {"optimizer": "sgd", "learning_rate": 0.5, "epochs": 1, "batch_size": 7}
        toys.run(whole, samples, tmp_path, options=options, out="whole")
        toys.run(slow, samples, tmp_path, options=options, out="slow")
        step = (whole.abnormal_context - start.abnormal_context).detach()
        slow_step = (slow.abnormal_context - start.abnormal_context).detach()
        assert step.abs().max() > 1e-4
        torch.testing.assert_close(slow_step, 0.1 * step, rtol=1e-3, atol=1e-7)
        assert torch.equal(whole.normal_context, slow.normal_context)

    def test_all_options_arrive(self):
        method = toys.anomalyclip()
        sgd = build_optimizer(method, TrainingConfig(**KINDS["sgd"], weight_decay=0.3))
        assert type(sgd) is torch.optim.SGD
        wanted = {"momentum": 0.9, "weight_decay": 0.3, "nesterov": False, "dampening": 0}
        assert {name: sgd.defaults[name] for name in wanted} == wanted
        for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
            values = {"betas": (0.1, 0.2), "eps": 0.4, "weight_decay": 0.3}
            built = build_optimizer(method, TrainingConfig(optimizer=name, **values))
            assert type(built) is kind
            assert {name: built.defaults[name] for name in values} == values


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_and_resumed_is_uninterrupted(kind, schedule, samples, tmp_path):
    """Also with groups, which count parameters in another order than the method does."""
    options = {**KINDS[kind], **SCHEDULES[schedule]}

    def method(seed=1):
        built = toys.anomalyclip(seed)
        built.rate_factors = {"abnormal_context": 0.1}
        return built

    whole, resumed = method(), method(seed=2)
    report = toys.run(whole, samples, tmp_path, options=options, out="whole")
    with pytest.raises(KeyboardInterrupt):
        toys.run(method(), samples, tmp_path, options=options, progress=interrupt_at("steps", 4))
    again = toys.run(resumed, samples, tmp_path, options=options, resume=True)
    assert again.resumed_at == 4
    toys.assert_same(whole, resumed)
    assert rows(again) == rows(report)


def test_the_memory_of_sgd_matters_to_that(samples, tmp_path, monkeypatch):
    """The test above would see it lost."""
    options = KINDS["sgd"]
    whole, resumed = toys.anomalyclip(), toys.anomalyclip()
    toys.run(whole, samples, tmp_path, options=options, out="whole")
    with pytest.raises(KeyboardInterrupt):
        toys.run(
            toys.anomalyclip(), samples, tmp_path, options=options,
            progress=interrupt_at("steps", 4),
        )  # fmt: skip
    monkeypatch.setattr(torch.optim.SGD, "load_state_dict", lambda *_: None)
    toys.run(resumed, samples, tmp_path, options=options, resume=True)
    assert not torch.equal(whole.normal_context, resumed.normal_context)


class TestStages:
    """A method that freezes some of its parameters in some epochs."""

    options: ClassVar = {**KINDS["adamw"], "weight_decay": 0.1, "epochs": 3}

    @staticmethod
    def staged(seed=1):
        built = toys.anomalyclip(seed)
        built.staged, built.asked = True, []

        def begin_epoch(epoch, epochs):
            built.asked.append((epoch, epochs))
            for name, parameter in built.named_parameters():
                parameter.requires_grad_((name == "normal_context") == (epoch == epochs - 1))

        built.begin_epoch = begin_epoch
        return built

    def test_what_rests_does_not_move_be_it_by_decay(self, samples, tmp_path):
        start, one, whole = toys.anomalyclip(), self.staged(), self.staged()
        with pytest.raises(KeyboardInterrupt):
            toys.run(
                one, samples, tmp_path, options=self.options, progress=interrupt_at("steps", 6)
            )
        toys.run(whole, samples, tmp_path, options=self.options, out="whole")
        assert whole.asked == [(0, 3), (0, 3), (1, 3), (2, 3)]  # once to hear a refusal
        assert torch.equal(one.normal_context, start.normal_context)
        assert not torch.equal(whole.normal_context, start.normal_context)
        assert torch.equal(whole.abnormal_context, one.abnormal_context)
        assert not torch.equal(one.abnormal_context, start.abnormal_context)

    @pytest.mark.parametrize("step", [2, 6, 8])  # of 9, three an epoch
    def test_interrupted_and_resumed_is_uninterrupted(self, step, samples, tmp_path):
        whole, resumed = self.staged(), self.staged(seed=2)
        toys.run(whole, samples, tmp_path, options=self.options, out="whole")
        with pytest.raises(KeyboardInterrupt):
            toys.run(
                self.staged(), samples, tmp_path, options=self.options,
                progress=interrupt_at("steps", step),
            )  # fmt: skip
        toys.run(resumed, samples, tmp_path, options=self.options, resume=True)
        toys.assert_same(whole, resumed)

    def test_their_epochs_are_fixed_once_it_began(self, samples, tmp_path):
        toys.run(self.staged(), samples, tmp_path, options=self.options)
        with pytest.raises(ConfigError, match="epochs was 3, is now 4"):
            toys.run(
                self.staged(), samples, tmp_path, resume=True,
                options={**self.options, "epochs": 4},
            )  # fmt: skip


class TestEpochsOfACosine:
    def test_are_fixed_once_it_began(self, samples, tmp_path):
        options = {"schedule": "cosine", "epochs": 2}
        toys.run(toys.anomalyclip(), samples, tmp_path, options=options)
        for epochs in (1, 3):
            with pytest.raises(ConfigError, match=f"epochs was 2, is now {epochs}"):
                toys.run(
                    toys.anomalyclip(), samples, tmp_path, resume=True,
                    options={**options, "epochs": epochs},
                )  # fmt: skip

    def test_are_part_of_what_a_run_is(self):
        assert "epochs" not in run_options(TrainingConfig())
        found = run_options(TrainingConfig(schedule="cosine", epochs=4))
        assert found["epochs"] == 4 and "cache" not in found and "device" not in found

    def test_may_grow_at_a_constant_rate_after_warmup(self, samples, tmp_path):
        at_once, later = toys.anomalyclip(), toys.anomalyclip()
        options = SCHEDULES["constant"]
        toys.run(at_once, samples, tmp_path, options={**options, "epochs": 2}, out="at_once")
        toys.run(later, samples, tmp_path, options={**options, "epochs": 1})
        toys.run(later, samples, tmp_path, options={**options, "epochs": 2}, resume=True)
        toys.assert_same(at_once, later)
