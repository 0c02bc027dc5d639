"""Time and disk against arithmetic by hand."""

from __future__ import annotations

import pytest

from faprompt.reproduce.estimate import (
    Rate,
    _untrained,
    absent_weights,
    count_pictures,
    describe_estimate,
    estimate,
    measure,
)
from tests.reproduce import toys


def test_published_counts_stand_in_for_data_that_is_not_there():
    plan = toys.plan(methods=["clip", "faprompt"], datasets=["btad", "brainmri"])
    found = estimate(plan)
    assert (found.evaluations, found.trainings) == (4, 1)
    assert found.pictures == 2 * (741 + 253)
    mvtec, epochs, rate = 467 + 1258, 1, Rate()
    training = mvtec * (rate.score_seconds + epochs * rate.step_seconds)
    assert found.seconds == pytest.approx(found.pictures * rate.score_seconds + training)
    assert found.cache_bytes == mvtec * 1370 * 768 * 4
    assert found.uncounted == () and not found.measured


def test_what_this_version_lacks_costs_nothing():
    plan = toys.plan(methods=["cap"], datasets=["btad"])
    found = estimate(plan)
    assert (found.evaluations, found.pictures, found.seconds, found.out_bytes) == (0, 0, 0, 0)


def test_pictures_that_are_there_are_counted(tmp_path):
    toys.shelf(tmp_path / "shelf")
    (tmp_path / "drawer").mkdir()
    plan = toys.plan(tmp_path)
    assert [count_pictures(source) for source in plan.sources] == [8, None]
    found = estimate(plan)
    assert found.uncounted == ("drawer",) and found.pictures == 2 * 8
    assert "not counted, their size is not known: drawer" in describe_estimate(found)


def test_columns_that_train_alike_share_the_training():
    """Twice the same FAPrompt, and one with other options."""
    methods = [
        {"name": "faprompt", "label": label, "options": {"prompts": prompts}}
        for label, prompts in (("a", 3), ("b", 3), ("c", 4))
    ]
    found = estimate(toys.plan(methods=methods, datasets=["btad", "mpdd"], seeds=[1, 2]))
    assert (found.cells, found.evaluations, found.trainings) == (12, 8, 4)


def test_measuring_times_this_machine(told):
    plan = toys.plan(backbones=["test-tiny"], methods=[toys.CLIP, toys.FAPROMPT, "cap"])
    rates = measure(plan, device="cpu", precision="fp32")
    assert told() == []
    assert set(rates) == {"clip", "faprompt"}
    assert all(rate.measured and rate.score_seconds > 0 for rate in rates.values())
    assert rates["clip"].step_seconds == 0 < rates["faprompt"].step_seconds
    assert rates["faprompt"].token_bytes == (16 * 64 + 64) * 4 + 8, "4x4 patches, class token, mark"
    assert "measured on this machine" in describe_estimate(estimate(plan, rates))


def test_a_backbone_that_cannot_be_had_is_told_and_assumed(told):
    plan = toys.plan(backbones=["nowhere.pt"], methods=["clip"])
    assert measure(plan, device="cpu", precision="fp32") == {}
    assert "clip cannot be measured: No backbone 'nowhere.pt'" in told()[0]


def test_weights_that_are_not_here(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    own = tmp_path / "own.pt"
    own.write_bytes(b"weights")
    names = ["tiny", "test-tiny", f"{own}:gelu", "ViT-L-14-336", "nowhere.pt"]
    plan = toys.plan(backbones=names, methods=["clip"])
    assert absent_weights(plan) == [
        "ViT-L-14-336 is not on this machine and would be downloaded",
        "nowhere.pt is no known backbone, and no file or folder here",
    ]
    cached = tmp_path / ".cache" / "clip" / "ViT-L-14-336px.pt"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"weights")
    assert len(absent_weights(plan)) == 1


def test_epochs_are_the_recipes_unless_given():
    """CoOp's 50 and CoCoOp's original 10, of 467 + 1258 pictures of MVTec AD."""
    methods = ["coop", {"name": "cocoop", "preset": "original"}]

    def seconds(**training):
        return estimate(toys.plan(methods=methods, datasets=["btad"], training=training)).seconds

    step = 1725 * Rate().step_seconds
    assert seconds(epochs=1) - 2 * step == pytest.approx(seconds() - (50 + 10) * step)


def test_what_is_measured_is_what_the_preset_builds():
    """WinCLIP's `common` sees 518 pixels, but `tiny` is read at its own size."""
    plan = toys.plan(backbones=["tiny"], methods=[{"name": "winclip", "preset": "common"}])
    detector = _untrained(plan.columns[0], "cpu", "fp32")
    side = detector.backbone.spec.vision.image_size
    assert detector.transform.image_size == (side, side) and side < 518


def test_methods_with_an_image_pass_of_their_own_are_measured_by_it(told):
    """WinCLIP wants windows beside the tokens, and FiLo's layers are named for a deeper tower."""
    filo = {"name": "filo", "options": {"image_size": 56}, "train_on": "shelf"}
    winclip = {"name": "winclip", "options": {"image_size": 56}}
    plan = toys.plan(backbones=["test-tiny"], methods=[filo, winclip])
    rates = measure(plan, device="cpu", precision="fp32")
    assert told() == []
    assert rates["filo"].step_seconds > 0 == rates["winclip"].step_seconds


def test_some_classes_count_by_their_own_published_numbers():
    sets = ["btad", {"id": "btad", "classes": ["01"]}, {"id": "visa", "classes": ["pcb3", "pcb4"]}]
    plan = toys.plan(methods=["clip"], datasets=sets)
    assert [count_pictures(source) for source in plan.sources] == [451 + 290, 70, 402]
