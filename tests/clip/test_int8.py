"""8-bit matrices: against rounding by hand, alone as in a batch, and what is refused."""

import pytest
import torch

from faprompt.clip import int8_linear
from faprompt.clip.backbone import build_backbone
from faprompt.clip.int8_linear import Int8Linear, is_exact
from faprompt.clip.weights import load_backbone
from faprompt.errors import ConfigError
from faprompt.models import load_detector
from faprompt.work import pick_precision

needs_units = pytest.mark.skipif(not is_exact(), reason="this processor has no 8-bit units")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def linear():
    weight, bias = draw(24, 40), draw(24, seed=1)
    return weight, bias, Int8Linear(weight, bias)


def rounded(values):
    """float64 rows rounded to 127 steps on either side of zero."""
    scale = values.double().abs().amax(dim=-1, keepdim=True) / 127
    return (values.double() / scale.float().double()).round() * scale


@needs_units
def test_it_equals_rounded_rows_multiplied_exactly(linear):
    weight, bias, layer = linear
    tokens = draw(3, 7, 40, seed=2) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    wanted = rounded(tokens) @ rounded(weight).T + bias.double()
    largest = wanted.abs().amax(dim=(1, 2), keepdim=True)
    assert float(((layer(tokens) - wanted).abs() / largest).max()) < 2e-3  # a half may round off
    exact = tokens.double() @ weight.double().T + bias.double()
    assert 1e-4 < float(((layer(tokens) - exact).abs() / largest).max()) < 0.03


def test_rows_of_zeros_give_the_bias(linear):
    _, bias, layer = linear
    assert torch.equal(layer(torch.zeros(2, 40)), bias.expand(2, -1))


@needs_units
def test_alone_equals_in_a_batch(backbone, spec, state):
    pixels = draw(3, 3, 56, 56)
    pixels[1] *= 100
    low = build_backbone(spec, state, name="low").set_precision("int8")
    together = low.encode_image(pixels)
    for index in range(3):
        alone = low.encode_image(pixels[index : index + 1])
        torch.testing.assert_close(alone.class_token[0], together.class_token[index])
    exact = backbone.encode_image(pixels)
    for found, wanted in (
        (together.class_token, exact.class_token),
        *zip(together.patch_tokens.values(), exact.patch_tokens.values(), strict=True),
    ):
        cosine = torch.cosine_similarity(found, wanted, dim=-1)
        assert 1e-7 < float((1 - cosine).max()) < 1e-2


@needs_units
def test_the_fingerprint_is_that_of_the_weights(backbone, spec, state):
    low = build_backbone(spec, state, name="low").set_precision("int8")
    assert low.precision == "int8"
    assert low.state_fingerprint() == backbone.state_fingerprint()
    with pytest.raises(ValueError, match="rounded to int8 already; load the backbone again"):
        low.set_precision("fp32")


@needs_units
def test_tiny_scores_nearly_the_same_and_says_its_precision():
    exact, low = load_detector("tiny"), load_detector("tiny", precision="int8")
    assert exact.backbone.precision == "fp32"
    assert low.decided_by() == exact.decided_by() | {"precision": "int8"}
    pixels = draw(2, 3, 256, 256)
    with torch.no_grad():
        scores, maps = low(pixels)
        wanted_scores, wanted_maps = exact(pixels)
    assert 0 < float((scores - wanted_scores).abs().max()) < 0.05
    assert 0 < float((maps - wanted_maps).abs().max()) < 0.2


def test_processors_without_8_bit_units_are_refused(spec, state, monkeypatch):
    monkeypatch.setattr(int8_linear, "is_exact", lambda: False)
    with pytest.raises(ConfigError, match="needs a processor with 8-bit multiplication units"):
        build_backbone(spec, state, name="x").set_precision("int8")


@pytest.mark.parametrize("name", ["efficientnet-lite0", "test-wide-resnet"])
def test_networks_without_transformers_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is a convolutional network: use fp32"):
        load_backbone(name, precision="int8")


def test_other_devices_are_refused(spec, state):
    elsewhere = build_backbone(spec, state, name="x").to("meta")
    with pytest.raises(ConfigError, match="int8 is for CPUs; on meta use bf16 or fp16"):
        elsewhere.set_precision("int8")


@pytest.mark.parametrize(
    ("device", "wanted"), [("cpu", "fp32"), ("mps", "fp32"), ("cuda:1", "bf16")]
)
def test_auto_is_never_int8(device, wanted):
    assert pick_precision("auto", device) == wanted
    assert pick_precision("int8", device) == "int8"
