"""TCP, V1 and V2, beside every number of htyao89's own code."""

import pytest

from tests.helpers import golden_prompts as prompts

WOVEN = ["Woven_001", "Woven_068", "Blotchy_099"]  # the first two are both a "woven texture"


@pytest.fixture(scope="module", params=["tcp_v1", "tcp_v2"])
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
    ("prefix", "options", "stage"),
    [
        ("one", {"injection_layer": 8}, "one/text_features"),
        ("one", {"knowledge_weight": 7.9}, "one/loss_knowledge"),
        ("one", {"knowledge": "winclip"}, "one/knowledge_features"),
        ("one", {"abnormal_word": "anomalous"}, "one/token_ids"),
        ("one", {"temperature": 0.07}, "one/logits"),
        ("harness", {"temperature": 0.07}, "harness/image_logits"),
        ("harness", {"map_temperature": 0.01}, "harness/patch_probability"),
    ],
)
def test_a_wrong_option_is_seen(prefix, options, stage):
    rebuilt = prompts.Rebuilt("tcp_v1", prefix, **options)
    rows = prompts.compare_forward(rebuilt, f"{prefix}/")
    assert stage in {row.stage for row in rows if row.distance > row.limit}


@pytest.mark.parametrize(
    "training", [{"eps": 1e-8}, {"weight_decay": 0.0}, {"betas": (0.5, 0.999)}]
)
def test_a_wrong_training_is_seen(training):
    rows = prompts.compare_steps(prompts.Rebuilt("tcp_v1", "one"), **training)
    far = {row.stage for row in rows if row.distance > row.limit}
    assert "one/after/meta_net.linear2.weight" in far


def test_a_knowledge_term_of_the_batch_alone_is_seen():
    rebuilt = prompts.Rebuilt("tcp_v1", "two_first_class")
    rebuilt.method.begin_training([])
    far = {
        row.stage
        for row in [
            *prompts.compare_forward(rebuilt, "two_first_class/"),
            *prompts.compare_gradients(rebuilt),
        ]
        if row.distance > row.limit
    }
    assert {"two_first_class/loss_knowledge", "two_first_class/grad/ctx"} <= far


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("shown", [WOVEN, WOVEN[:1], WOVEN[2:]])
def test_a_name_that_two_classes_share_counts_twice(shown, given):
    """4.941 is the authors' term over the rows of all three; over two names it is 5.109."""
    options = {"knowledge_classes": tuple(WOVEN)} if given else {}
    rebuilt = prompts.Rebuilt("tcp_v1", "two", **options)
    if not given:
        rebuilt.method.begin_training(WOVEN)
    names = (shown * 4)[:4]
    output = rebuilt.method(rebuilt.features(), rebuilt.backbone.text, class_names=names)
    assert output.text.terms["knowledge"].item() == pytest.approx(4.941, abs=5e-4)


def test_without_known_classes_the_batchs_own_count_once_each():
    rebuilt = prompts.Rebuilt("tcp_v1", "two")
    rebuilt.method.begin_training([])
    names = [WOVEN[0], WOVEN[0], WOVEN[1], WOVEN[2]]
    output = rebuilt.method(rebuilt.features(), rebuilt.backbone.text, class_names=names)
    assert output.text.terms["knowledge"].item() == pytest.approx(4.941, abs=5e-4)
