"""The authors' tensors under our names, and everything that is not theirs refused."""

import pytest
import torch

from faprompt.errors import ModelError
from faprompt.model_import import read_released
from tests.golden import recipe
from tests.helpers import golden

WIDTH = 32
DEAD = {
    "compound_prompt_projections.0.weight": torch.zeros(896, WIDTH),
    "compound_prompt_projections.0.bias": torch.zeros(896),
    "token_prefix_pos": torch.zeros(1, 1, 1, WIDTH),
    "token_suffix_neg": torch.zeros(1, 1, 70, WIDTH),
    "tokenized_prompts_pos": torch.zeros(1, 77, dtype=torch.int64),
}


def faprompt_state(**options):
    return golden.tensors(recipe.faprompt_state(3, width=WIDTH, **options))


def anomalyclip_state(**options):
    return golden.tensors(recipe.anomalyclip_state(3, width=WIDTH, **options))


def test_faprompts_shapes_tell_the_options():
    options = {"prompts": 3, "normal_tokens": 4, "abnormal_tokens": 1, "patches": 6}
    found = read_released("faprompt", faprompt_state(**options, depth=5, length=2), embed_dim=WIDTH)
    assert found.options == {**options, "deep_depth": 5, "deep_length": 2}
    assert found.left_behind == ()


def test_faprompts_tensors_arrive_unchanged():
    state = faprompt_state()
    ours = read_released("faprompt", {**state, **DEAD}, embed_dim=WIDTH)
    assert torch.equal(ours.state["prompts.normal_context"], state["ctx_pos"][0, 0])
    assert torch.equal(ours.state["prompts.abnormal_tokens"], state["ctx_neg"][0])
    for index in range(8):
        wanted = state[f"compound_prompts_text.{index}"]
        assert torch.equal(ours.state["prompts.deep_prompts"][index], wanted)
    for layer in ("linear1", "linear2"):
        for kind in ("weight", "bias"):
            wanted = state[f"patch_meta_net.{layer}.{kind}"]
            assert torch.equal(ours.state[f"prior.{layer}.{kind}"], wanted)
    assert len(ours.state) == 7
    assert ours.left_behind == tuple(sorted(DEAD))


def test_anomalyclips_tensors_arrive_unchanged():
    state = anomalyclip_state(tokens=6, depth=12, length=3)
    ours = read_released("anomalyclip", {**state, **DEAD}, embed_dim=WIDTH)
    assert ours.options == {"context_tokens": 6, "deep_depth": 12, "deep_length": 3}
    assert torch.equal(ours.state["normal_context"], state["ctx_pos"][0, 0])
    assert torch.equal(ours.state["abnormal_context"], state["ctx_neg"][0, 0])
    assert torch.equal(ours.state["deep_prompts"][10], state["compound_prompts_text.10"])
    assert ours.left_behind == tuple(sorted(DEAD))


def test_half_precision_checkpoints_become_float32():
    state = {key: value.half() for key, value in faprompt_state().items()}
    ours = read_released("faprompt", state, embed_dim=WIDTH)
    assert {tensor.dtype for tensor in ours.state.values()} == {torch.float32}


@pytest.mark.parametrize("key", ["ctx_pos", "ctx_neg", "patch_meta_net.linear2.bias"])
def test_a_missing_tensor_is_named(key):
    state = faprompt_state()
    del state[key]
    with pytest.raises(ModelError, match=f"lacks '{key}'. Besides what was read it holds"):
        read_released("faprompt", state, embed_dim=WIDTH)


def test_a_gap_in_the_deep_prompts_is_named():
    state = faprompt_state()
    del state["compound_prompts_text.3"]
    with pytest.raises(ModelError, match="lacks 'compound_prompts_text.3'"):
        read_released("faprompt", state, embed_dim=WIDTH)
    for key in list(state):
        if key.startswith("compound_prompts_text."):
            del state[key]
    with pytest.raises(ModelError, match="lacks the deep prompts"):
        read_released("faprompt", state, embed_dim=WIDTH)


@pytest.mark.parametrize(
    ("key", "shape", "told"),
    [
        ("ctx_pos", (5, WIDTH), r"'ctx_pos' should be \(1, 1, any, any\), got shape \(5, 32\)"),
        ("ctx_pos", (15, 1, 5, WIDTH), r"should be \(1, 1, any, any\), got shape \(15,"),
        ("ctx_neg", (2, 10, 2, WIDTH), r"'ctx_neg' should be \(1, any, any, any\)"),
        ("patch_meta_net.linear1.bias", (1, 20), r"should be \(any\), got"),
        ("compound_prompts_text.2", (5, WIDTH), r"text.2' should be \(4, 32\), got shape \(5, 32"),
    ],
)
def test_tensors_of_another_shape_are_named(key, shape, told):
    state = {**faprompt_state(), key: torch.zeros(shape)}
    with pytest.raises(ModelError, match=told):
        read_released("faprompt", state, embed_dim=WIDTH)


def test_psi_of_another_backbone_is_refused():
    with pytest.raises(ModelError, match="psi takes 320 numbers, which is no multiple of .* 48"):
        read_released("faprompt", faprompt_state(), embed_dim=48)


@pytest.mark.parametrize("key", ["meta_net.linear1.weight", "compound_prompts_text.x"])
def test_unknown_tensors_are_refused(key):
    with pytest.raises(ModelError, match="does not know|lacks"):
        read_released("faprompt", {**faprompt_state(), key: torch.zeros(4, WIDTH)}, embed_dim=WIDTH)


def test_the_other_methods_checkpoint_is_refused():
    with pytest.raises(ModelError, match="does not know: patch_meta_net.*Choose it with --method"):
        state = {k: v[:, :1] if k == "ctx_neg" else v for k, v in faprompt_state().items()}
        read_released("anomalyclip", state, embed_dim=WIDTH)
    with pytest.raises(ModelError, match="lacks 'patch_meta_net.linear1.weight'"):
        read_released("faprompt", anomalyclip_state(), embed_dim=WIDTH)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(ModelError, match="ctx_pos should be tensors"):
        read_released("faprompt", {**faprompt_state(), "ctx_pos": [1.0]}, embed_dim=WIDTH)


class TestAprilGAN:
    def layers(self, **changes):
        drawn = {
            f"fc.{number}.{kind}": torch.full(shape, float(number))
            for number in range(3)
            for kind, shape in (("weight", (8, WIDTH)), ("bias", (8,)))
        }
        return {key: tensor for key, tensor in {**drawn, **changes}.items() if tensor is not None}

    def test_layers_arrive_unchanged_in_their_order(self):
        theirs = {key: tensor.half() for key, tensor in self.layers().items()}
        ours = read_released("april-gan", theirs, embed_dim=WIDTH)
        assert ours.options == {} and ours.left_behind == ()
        assert set(ours.state) == {key.replace("fc", "linears") for key in theirs}
        for key, tensor in theirs.items():
            found = ours.state[key.replace("fc", "linears")]
            assert found.dtype == torch.float32 and torch.equal(found, tensor.float())

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"fc.1.bias": None}, "lacks 'fc.1.bias'. Besides what was read it holds fc.2.bias"),
            ({"fc.1.weight": None}, "lacks 'fc.1.weight'"),
            ({"fc.0.weight": None}, "lacks 'fc.0.weight'"),
            ({"fc.2.weight": torch.zeros(8, 7)}, r"'fc.2.weight' should be \(8, 32\), got .*7\)"),
            ({"fc.0.weight": torch.zeros(8)}, r"'fc.0.weight' should be \(any, any\)"),
            ({"fc.0.bias": torch.zeros(9)}, r"'fc.0.bias' should be \(8\), got shape \(9,\)"),
            ({"fc.3.bias": torch.zeros(8)}, "does not know: fc.3.bias"),
            ({"fc.0.bias": 1.0}, "fc.0.bias should be tensors"),
        ],
    )
    def test_what_is_not_theirs_is_refused(self, changes, told):
        with pytest.raises(ModelError, match=told):
            read_released("april-gan", self.layers(**changes), embed_dim=WIDTH)

    def test_other_tensors_are_refused(self):
        with pytest.raises(ModelError, match="lacks the linear layers"):
            read_released("april-gan", anomalyclip_state(), embed_dim=WIDTH)
