"""CoOp and CoCoOp beside every number of KaiyangZhou/CoOp's own code."""

import pytest

from tests.helpers import golden_prompts as prompts


@pytest.fixture(scope="module", params=["coop", "cocoop"])
def compared(request):
    return request.param, prompts.compare(request.param)


def test_no_number_is_left_out(compared):
    name, rows = compared
    assert sorted(row.stage for row in rows) == sorted(prompts.load(name))


def test_every_number_equals_the_authors(compared):
    """Features, logits, losses within 1e-4; gradients 1e-3 and steps 1e-4 of their length."""
    _, rows = compared
    assert not [row for row in rows if not row.distance <= row.limit]


@pytest.mark.parametrize(
    ("name", "prefix", "options", "stage"),
    [
        ("coop", "one", {"temperature": 0.07}, "one/logits"),
        ("coop", "one", {"plain_path": False}, "one/image_features"),
        ("coop", "one", {"abnormal_word": "damaged"}, "one/text_features"),
        ("coop", "harness", {"map_temperature": 0.01}, "harness/patch_probability"),
        ("coop", "harness", {"local_weight": 4.0}, "harness/loss_total"),
        ("cocoop", "one", {"normal_word": ""}, "one/prompts_tokens_0_to_15"),
        ("cocoop", "harness", {"local_weight": 3.9}, "harness/loss_local"),
        ("cocoop", "harness", {"plain_path": True}, "harness/patch_features"),
    ],
)
def test_a_wrong_option_is_seen(name, prefix, options, stage):
    rebuilt = prompts.Rebuilt(name, prefix, **options)
    rows = prompts.compare_forward(rebuilt, f"{prefix}/")
    assert stage in {row.stage for row in rows if row.distance > row.limit}


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("coop", {"weight_decay": 0.0}),
        ("coop", {"momentum": 0.85}),
        ("coop", {"warmup_epochs": 0}),
        ("cocoop", {"batch_size": 4}),
        ("cocoop", {"optimizer": "adam"}),
    ],
)
def test_a_wrong_training_is_seen(name, training):
    rows = prompts.compare_steps(prompts.Rebuilt(name, "one"), **training)
    far = {row.stage for row in rows if row.distance > row.limit}
    assert any(stage.startswith("one/after/") and stage.endswith("ctx") for stage in far)
