"""AnomalyCLIP: the suite, its layers and its loss."""

import pytest
import torch
import torch.nn.functional as F

from faprompt import losses
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageOptions
from faprompt.config import to_mapping
from faprompt.errors import ConfigError
from faprompt.methods.anomalyclip import AnomalyCLIPConfig
from faprompt.methods.registry import build_method
from faprompt.scoring import abnormal_probability, upsample
from tests.helpers import small
from tests.methods.suite import LearnedSuite


class AnomalyCLIPSuite(LearnedSuite):
    name = "anomalyclip"
    parameters = (43_008, 5_555_200)


class TestSuite(AnomalyCLIPSuite):
    pass


class TestSuiteOfTwoLayers(AnomalyCLIPSuite):
    options = {"map_layers": (1, 2), "round_deep_to_half": True}


@pytest.fixture(scope="module")
def features():
    with torch.no_grad():
        return small.backbone().encode_image(small.pixels(), ImageOptions(layers=(1, 2)))


def run(method, features):
    return method(features, small.backbone().text)


def test_the_codes_constants():
    assert to_mapping(AnomalyCLIPConfig()) == {
        "image_size": 518, "sigma_px": 4.0,
        "picture_handling": "upright", "context_tokens": 12, "deep_depth": 9,
        "deep_length": 4, "class_word": "object", "abnormal_word": "damaged",
        "temperature": 0.07, "map_layers": (), "local_weight": 4.0, "round_deep_to_half": False,
    }  # fmt: skip


def test_official_rounds_the_deep_prompts_and_reads_as_released_and_nothing_else():
    official = build_method("anomalyclip", small.backbone(), preset="official").config
    assert to_mapping(official) == {
        **to_mapping(AnomalyCLIPConfig()), "round_deep_to_half": True,
        "picture_handling": "released",
    }  # fmt: skip


def test_end_tokens_stand_at_15_and_16(monkeypatch):
    """Counted from 0: after the start, twelve learned vectors, and the words."""
    places, plain, backbone = [], TextTower.encode, small.backbone()
    ending = backbone.text.embed_tokens(torch.tensor(backbone.tokenizer.end))

    def spy(text, prefix, suffixes, end, deep=None):
        assert all(torch.equal(row[end], ending) for row in suffixes)
        places.append(prefix.length + end)
        return plain(text, prefix, suffixes, end, deep)

    monkeypatch.setattr(TextTower, "encode", spy)
    small.method("anomalyclip").static_text(backbone.text)
    assert places == [15, 16]


def test_both_prompts_have_a_context_of_their_own():
    method = small.method("anomalyclip")
    with torch.no_grad():
        before = method.static_text(small.backbone().text)
        method.abnormal_context += torch.linspace(-1, 1, 64)
        after = method.static_text(small.backbone().text)
    assert torch.equal(before[0], after[0])
    assert (before[1] - after[1]).abs().max() > 1e-3


def test_the_map_is_the_mean_over_layers_and_the_score_the_softmax(features):
    with torch.no_grad():
        out = run(small.method("anomalyclip", map_layers=(1, 2)), features)
    maps = [
        abnormal_probability(features.patch_tokens[layer], out.text_pair).reshape(3, 4, 4)
        for layer in (1, 2)
    ]
    assert (maps[0] - maps[1]).abs().max() > 1e-3
    torch.testing.assert_close(out.layer_maps, torch.stack(maps))
    torch.testing.assert_close(out.patch_map, (maps[0] + maps[1]) / 2)
    image = abnormal_probability(features.class_token[:, None], out.text_pair)[:, 0]
    torch.testing.assert_close(out.score, image)


def test_the_last_layer_is_read_unless_told():
    assert small.method("anomalyclip").image_options.layers is None
    assert small.method("anomalyclip", map_layers="1,2").image_options.layers == (1, 2)


def test_the_loss_sums_the_layers_and_weighs_them(features):
    method = small.method("anomalyclip", map_layers=(1, 2), local_weight=3)
    out, label, mask = run(method, features), torch.tensor([0, 1, 1]), torch.zeros(3, 56, 56)
    mask[1:, :20, :30] = 1
    terms = method.loss(out, label, mask)
    assert set(terms) == {"image", "local"}
    torch.testing.assert_close(terms["image"], F.cross_entropy(out.image_logits, label))
    wanted = sum(losses.local_loss(upsample(grid, (56, 56)), mask) for grid in out.layer_maps)
    torch.testing.assert_close(terms["local"], 3 * wanted)


@pytest.mark.parametrize("layers", ["0", "3", "1,2,7"])
def test_layers_the_tower_does_not_have_are_refused(layers):
    with pytest.raises(ConfigError, match=r"anomalyclip on test-tiny: map_layers .* 1\.\.2"):
        build_method("anomalyclip", small.backbone(), {"map_layers": layers})


def test_counts_below_one_are_refused():
    with pytest.raises(ConfigError, match="context_tokens should.*deep_length should"):
        build_method("anomalyclip", small.backbone(), {"context_tokens": 0, "deep_length": 0})
