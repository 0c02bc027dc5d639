"""AnomalyCLIP Ensemble*: the suite, and what ties it to AnomalyCLIP."""

import pytest
import torch

from faprompt import losses
from faprompt.config import to_mapping
from faprompt.errors import ConfigError
from faprompt.methods.anomalyclip import AnomalyCLIPConfig, AnomalyCLIPEnsembleConfig
from faprompt.methods.registry import build_method
from faprompt.scoring import abnormal_probability
from tests.helpers import small
from tests.methods.suite import LearnedSuite
from tests.methods.test_coop import features  # noqa: F401 - a fixture

LABEL = torch.tensor([0, 1, 0])


class EnsembleSuite(LearnedSuite):
    name = "anomalyclip-ensemble"
    parameters = (125_952, 125_952 + 5_512_192)


class TestSuite(EnsembleSuite):
    prompts = 10


class TestSuiteHeldApart(EnsembleSuite):
    options = {"prompts": 3, "orthogonal_weight": 0.1, "map_layers": (1, 2)}
    prompts = 3


def run(method, tokens, **keywords):
    return method(tokens, small.backbone().text, **keywords)


def test_its_constants_are_anomalyclips():
    wanted = {**to_mapping(AnomalyCLIPConfig()), "prompts": 10, "orthogonal_weight": 0.0}
    assert to_mapping(AnomalyCLIPEnsembleConfig()) == wanted


def test_one_prompt_is_anomalyclip(features):  # noqa: F811
    single, plain = small.method("anomalyclip-ensemble", prompts=1), small.method("anomalyclip")
    state = {k: v.reshape(p.shape) for (k, v), p in
             zip(plain.state_dict().items(), single.parameters(), strict=True)}  # fmt: skip
    single.load_state_dict(state)
    with torch.no_grad():
        ours, theirs = run(single, features), run(plain, features)
    torch.testing.assert_close(ours.score, theirs.score)
    torch.testing.assert_close(ours.patch_map, theirs.patch_map)


def test_the_prototype_is_the_mean_before_it_is_normalised(features):  # noqa: F811
    method = small.method("anomalyclip-ensemble", prompts=3)
    with torch.no_grad():
        out = run(method, features, with_prompt_scores=True)
        rows = method.static_text(small.backbone().text)
    assert rows.shape == (4, 64)
    pair = torch.stack([rows[0], (rows[1] + rows[2] + rows[3]) / 3])
    torch.testing.assert_close(out.text_pair, pair)
    image = features.class_token[:, None]
    torch.testing.assert_close(out.score, abnormal_probability(image, pair)[:, 0])
    for k in range(3):
        alone = abnormal_probability(image, torch.stack([rows[0], rows[1 + k]]))[:, 0]
        torch.testing.assert_close(out.prompt_scores[:, k], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_orthogonality_is_an_option(features, weight):  # noqa: F811
    method = small.method("anomalyclip-ensemble", prompts=3, orthogonal_weight=weight)
    out = run(method, features)
    terms = method.loss(out, LABEL, torch.zeros(3, 56, 56))
    assert set(terms) == {"image", "local"} | ({"orthogonal"} if weight else set())
    if weight:
        torch.testing.assert_close(
            terms["orthogonal"], 0.1 * losses.orthogonality(out.text.abnormal)
        )


def test_options_out_of_range_are_refused():
    options = {"prompts": 0, "orthogonal_weight": -1}
    with pytest.raises(ConfigError, match="prompts should.*orthogonal_weight should"):
        build_method("anomalyclip-ensemble", small.backbone(), options)
