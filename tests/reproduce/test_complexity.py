"""Table 3: what is counted is exact; what is timed is only there, as tests do not time."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from faprompt.clip import wide_resnet
from faprompt.clip.weights import TEST_TINY, load_backbone
from faprompt.errors import ConfigError, ModelError
from faprompt.methods import full_shot, rd4ad
from faprompt.methods.registry import METHODS, build_method, list_methods
from faprompt.reproduce import complexity, cost_models
from faprompt.reproduce.cell_runner import RunContext
from faprompt.reproduce.complexity import (
    MethodCost,
    Timing,
    measure_costs,
    read_cost,
    write_cost,
)
from faprompt.reproduce.cost_page import write_costs
from faprompt.reproduce.experiment import parse_experiment
from faprompt.reproduce.experiment_parts import CostOptions

OPTIONS = CostOptions(
    methods=("clip", "faprompt"), backbone="test-tiny", batch_size=2, warmup=0, repeats=2
)
CONFIG = replace(
    parse_experiment({"title": "K and M", "figure": "costs", "complexity": {}}),
    complexity=OPTIONS, paper="it is slower.",
)  # fmt: skip


def measure(options, out, **changes):
    return measure_costs(options, RunContext(out=out), **changes)


def write(config, costs, out, *, drawn=False):
    return write_costs(config, costs, RunContext(out=out), drawn=drawn)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Once: fitted to small pictures, as speed is not what is tested."""
    out = tmp_path_factory.mktemp("costs")
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        return out, measure(OPTIONS, out)


def again(*_, **__):
    pytest.fail("measured again")


def small(patch, side=56):
    fit = cost_models.fit_to_backbone

    def smaller(*arguments, **options):
        return {**fit(*arguments, **options), "image_size": side}

    patch.setattr(cost_models, "fit_to_backbone", smaller)


def test_parameters_are_the_methods_own(measured):
    clip, faprompt = measured[1]
    built = build_method("faprompt", load_backbone("test-tiny"))
    assert faprompt.live == sum(p.numel() for p in built.parameters()) > 0
    assert (clip.live, clip.reported) == (0, 0)
    assert faprompt.reported is None, "the authors counted at another size"


def test_what_trains_has_three_times_and_the_rest_one(measured):
    clip, faprompt = measured[1]
    assert clip.inference.median > 0 and clip.step is None and clip.cached_step is None
    assert min(t.median for t in (faprompt.inference, faprompt.step, faprompt.cached_step)) > 0
    assert clip.image_size == 56


def test_median_and_spread_leave_the_warm_up_out(monkeypatch):
    ticks = iter([0.0, 9.0, 10.0, 10.1, 20.0, 20.3, 30.0, 30.2])
    monkeypatch.setattr(complexity, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    timing = complexity.time_call(lambda: None, CostOptions(warmup=1, repeats=3), "x")
    assert timing == Timing(200.0, 100.0)


def test_the_same_call_goes_on(measured, tmp_path, monkeypatch, caplog):
    out, costs = measured
    caplog.set_level("INFO", "faprompt")
    monkeypatch.setattr(
        complexity, "measure_method", lambda *_, **__: pytest.fail("measured again")
    )
    assert measure(OPTIONS, out) == costs
    assert all(line.endswith("(kept)") for line in caplog.messages) and len(caplog.messages) == 2
    measured_again = []
    monkeypatch.setattr(
        complexity,
        "measure_method",
        lambda n, *_, **__: measured_again.append(n) or [MethodCost(n, 0)],
    )
    measure(replace(OPTIONS, repeats=3), tmp_path)
    assert measured_again == ["clip", "faprompt"], "with other options nothing is kept"
    (tmp_path / "costs" / "clip.json").write_text("{")
    measure(replace(OPTIONS, repeats=3), tmp_path)
    assert measured_again[2:] == ["clip"], "a file cut off is measured again"


def test_a_method_that_cannot_be_is_told_and_tried_again(tmp_path, monkeypatch):
    def refuse(name, *_, **__):
        if name == "clip":
            raise ConfigError("no room for it.")
        return [MethodCost(name, 3, 3, inference=Timing(1.0, 0.1))]

    monkeypatch.setattr(complexity, "measure_method", refuse)
    costs = measure(OPTIONS, tmp_path)
    assert costs[0] == MethodCost("clip", reason="no room for it")
    page = write(CONFIG, costs, tmp_path)
    assert "clip was not measured: no room for it." in page
    monkeypatch.undo()
    monkeypatch.setattr(complexity, "measure_method", lambda n, *_, **__: [MethodCost(n, 7)])
    assert [c.live for c in measure(OPTIONS, tmp_path)] == [7, 3]


FULL_SHOT = replace(OPTIONS, methods=("patchcore", "rd4ad"), normal_pictures=5)
FILO = {"phrases": ("a flaw",), "context_tokens": 3, "grounding": "self"}


def stop_after(count, patch, error):
    """The measuring, which goes well `count` times; returns what was taken to be measured."""
    times = iter([Timing(float(n), 0.5) for n in range(1, count + 1)])

    def timing(call, options, label):
        try:
            return next(times)
        except StopIteration:
            raise error from None

    patch.setattr(complexity, "time_call", timing)


def test_a_killed_run_goes_on_within_a_method(tmp_path, monkeypatch, caplog):
    small(monkeypatch)
    options = replace(OPTIONS, methods=("faprompt",))
    stop_after(2, monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        measure(options, tmp_path)
    caplog.set_level("INFO", "faprompt")
    caplog.clear()  # of what an earlier test's level let through
    stop_after(1, monkeypatch, AssertionError("measured again"))
    (cost,) = measure(options, tmp_path)
    assert (cost.inference, cost.step) == (Timing(1.0, 0.5), Timing(2.0, 0.5))
    assert cost.cached_step == Timing(1.0, 0.5)
    assert caplog.messages[:3] == [
        "faprompt: inference (kept)",
        "faprompt: training step (kept)",
        "faprompt: step on cached tokens ...",
    ]
    monkeypatch.setattr(
        complexity, "measure_method", lambda *_, **__: pytest.fail("measured again")
    )
    assert measure(options, tmp_path) == (cost,)


def test_what_was_measured_before_a_failure_is_shown_and_kept(tmp_path, monkeypatch, caplog):
    small(monkeypatch)
    options = replace(OPTIONS, methods=("faprompt",))
    caplog.set_level("INFO", "faprompt")
    stop_after(1, monkeypatch, MemoryError("no room."))
    (cost,) = measure(options, tmp_path)
    assert (cost.inference, cost.step, cost.reason) == (Timing(1.0, 0.5), None, "no room")
    assert caplog.messages[-1] == (
        f"faprompt: {cost.live:,} parameters, 1.0 ± 0.5 ms a picture, incomplete (no room)"
    )
    page = write(CONFIG, [cost], tmp_path)
    assert "faprompt was not measured in full: no room." in page
    stop_after(2, monkeypatch, AssertionError("measured again"))
    (whole,) = measure(options, tmp_path)
    assert whole == replace(cost, reason="", step=Timing(1.0, 0.5), cached_step=Timing(2.0, 0.5))


def test_a_record_of_an_older_run_is_kept_where_it_is_complete(tmp_path):
    identity = {"method": "clip"}
    path = tmp_path / "costs" / "clip.json"
    assert read_cost(path, identity) == (None, False)
    cost = MethodCost("clip", 3, 3, inference=Timing(1.0, 0.5))
    for complete in (False, True):
        write_cost(path, identity, cost, complete=complete)
        assert read_cost(path, identity) == (cost, complete)
    record = json.loads(path.read_text())
    for name in ("network", "memory"):
        del record["cost"][name]
    del record["complete"]
    path.write_text(json.dumps(record))
    assert read_cost(path, identity) == (cost, True)
    assert read_cost(path, {"method": "coop"}) == (None, False)
    write_cost(path, identity, replace(cost, reason="no room"), complete=True)
    assert read_cost(path, identity) == (cost, False), "it is tried again, with what there is"


def test_what_only_patchcore_asks_for_leaves_the_others_figures_alone():
    fewer = replace(OPTIONS, normal_pictures=5)
    for name in list_methods():
        about = {"drawn": True, "device": "cpu", "precision": "fp32"}
        ours, theirs = (complexity.cost_identity(o, name, **about) for o in (OPTIONS, fewer))
        assert (ours != theirs) == (name == "patchcore")


def test_long_calls_are_announced(monkeypatch, caplog):
    """Calls of 9, 1, 6 and 6 seconds: after the first and the third."""
    ticks = iter([0.0, 9.0, 10.0, 11.0, 20.0, 26.0, 30.0, 36.0])
    monkeypatch.setattr(complexity, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    caplog.set_level("INFO", "faprompt")
    complexity.time_call(lambda: None, CostOptions(warmup=1, repeats=3), "x")
    assert caplog.messages == ["x, call 2 of 4 ...", "x, call 4 of 4 ..."]


def test_each_measurement_is_announced_under_its_methods_name(monkeypatch, caplog):
    small(monkeypatch)
    monkeypatch.setattr(complexity, "LONG_MS", 0.0)
    caplog.set_level("INFO", "faprompt")
    *_, cost = complexity.measure_method("coop", load_backbone("test-tiny"), OPTIONS)
    assert cost.cached_step is not None
    labels = ("inference", "training step", "step on cached tokens")
    assert caplog.messages == [
        f"coop: {text}{end}" for text in labels for end in (" ...", ", call 2 of 2 ...")
    ]
    assert all(cls.name == name for name, cls in METHODS.items())


@pytest.mark.parametrize("cached", [True, False])
def test_training_looks_at_tokens_alone_and_at_the_first_stage(monkeypatch, cached):
    fit = cost_models.fit_to_backbone
    options = {**FILO, "image_size": 56}
    monkeypatch.setattr(cost_models, "fit_to_backbone", lambda *a, **o: {**fit(*a, **o), **options})
    backbone = load_backbone("test-tiny")
    detector = cost_models.build_measured("filo", backbone, preset="common", normal_pictures=1)
    complexity.build_call(
        "inference", detector, 2
    )()  # as in a study; what it leaves behind is no hindrance
    seen, before = [], {n: p.detach().clone() for n, p in detector.method.named_parameters()}
    detector.method.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    complexity.build_call("cached_step" if cached else "step", detector, 2)()
    assert [features.pixels for features in seen] == [None]
    moved = {n for n, p in detector.method.named_parameters() if not torch.equal(p, before[n])}
    assert moved and not any(name.startswith("adapter.") for name in moved)
    assert detector.method.training


def test_patchcore_has_no_step_and_says_its_memory(tmp_path, monkeypatch):
    pytest.importorskip("anomalib")
    small(monkeypatch)
    options = replace(FULL_SHOT, methods=("patchcore",))
    (cost,) = measure(options, tmp_path)
    assert (cost.live, cost.reported, cost.memory) == (0, 0, 8), "a tenth of 5 x 16 patches"
    assert (cost.step, cost.cached_step, cost.network) == (None, None, "")
    assert cost.inference.median > 0 and not cost.reason
    page = write(replace(CONFIG, complexity=options), [cost], tmp_path)
    assert (
        "patchcore compares each patch with a drawn memory of 8, the size it keeps of 5 normal"
        in page
    )
    assert "| patchcore | 0 | 0 | - | - | - | - |" in page
    (row,) = csv.DictReader((tmp_path / "table.csv").open())
    assert (row["memory"], row["network"], row["step_ms"]) == ("8", "", "")


class Halves(torch.nn.Module):
    """In place of a student: one parameter, and half of what the teacher sees."""

    def __init__(self):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, maps):
        return tuple(self.share * planes.roll(1, dims=-1) for planes in maps)


def test_rd4ad_stands_on_its_own_network(tmp_path, monkeypatch):
    pytest.importorskip("anomalib")
    monkeypatch.setattr(wide_resnet, "_SHAPE", wide_resnet._TEST_SHAPE)
    monkeypatch.setattr(cost_models, "pretrained_spec", lambda *_: TEST_TINY)
    monkeypatch.setattr(rd4ad, "Student", Halves)
    small(monkeypatch, 64)
    options = replace(FULL_SHOT, methods=("rd4ad",), backbone="ViT-B-32")
    (cost,) = measure(options, tmp_path, drawn=True)
    assert (cost.live, cost.reported, cost.image_size) == (1, None, 64)
    assert min(t.median for t in (cost.inference, cost.step, cost.cached_step)) > 0
    assert (cost.network, cost.memory) == ("wide_resnet50_2", 0)
    others = MethodCost("clip", 0, 0, inference=Timing(1.0, 0.5), image_size=518)
    page = write(replace(CONFIG, complexity=options), [others, cost], tmp_path, drawn=True)
    assert "pictures of 518x518 px; training" in page
    assert "rd4ad was measured on its own network, wide_resnet50_2, with pictures of 64x64" in page
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(row["network"], row["image_size"]) for row in rows] == [
        ("", "518"), ("wide_resnet50_2", "64"),
    ]  # fmt: skip


@pytest.mark.slow
def test_rd4ads_student_is_counted_as_published(monkeypatch):
    pytest.importorskip("anomalib")
    small(monkeypatch, 64)
    stop_after(3, monkeypatch, AssertionError)
    *_, cost = complexity.measure_method("rd4ad", load_backbone("test-wide-resnet"), FULL_SHOT)
    assert (cost.live, cost.reported, cost.network) == (83_802_624, 83_802_624, "")


def test_without_its_networks_weights_rd4ad_is_a_reason(tmp_path, monkeypatch):
    def load(name, **options):
        if name == "wide_resnet50_2":
            raise ModelError("The weights of wide_resnet50_2 are not on this machine.")
        return load_backbone(name, **options)

    small(monkeypatch)
    monkeypatch.setattr(cost_models, "load_backbone", load)
    costs = measure(replace(OPTIONS, methods=("rd4ad", "clip")), tmp_path)
    assert costs[0] == MethodCost(
        "rd4ad", reason="The weights of wide_resnet50_2 are not on this machine"
    )
    assert costs[1].inference is not None


def test_without_the_extra_full_shot_methods_are_reasons(tmp_path, monkeypatch):
    real = full_shot.importlib.import_module

    def refuse(name):
        if name.startswith("anomalib"):
            raise ImportError("No module named 'anomalib'")
        return real(name)

    small(monkeypatch)
    monkeypatch.setattr(wide_resnet, "_SHAPE", wide_resnet._TEST_SHAPE)
    monkeypatch.setattr(cost_models, "pretrained_spec", lambda *_: TEST_TINY)
    monkeypatch.setattr(full_shot.importlib, "import_module", refuse)
    full_shot.anomalib_module.cache_clear()
    options = replace(FULL_SHOT, methods=(*FULL_SHOT.methods, "clip"), backbone="ViT-B-32")
    costs = measure(options, tmp_path, drawn=True)
    advice = "pip install 'faprompt[baselines]'"
    assert [advice in cost.reason for cost in costs] == [True, True, False]
    assert costs[2].inference is not None


def test_the_record_tells_the_machine(measured):
    record = json.loads((measured[0] / "costs" / "faprompt.json").read_text())["identity"]
    assert f"torch {torch.__version__}" in record["machine"] and record["backbone"] == "test-tiny"
