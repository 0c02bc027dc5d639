"""CAP against prompts put together by hand and encoded in slow float64."""

import numpy as np
import pytest
import torch

from faprompt.prompts.compound import CompoundPrompts
from faprompt.prompts.prompt_parts import INIT_STD
from tests.helpers import golden, naive
from tests.helpers.compare import close

OPTIONS = {
    "prompts": 3, "normal_tokens": 5, "abnormal_tokens": 2, "deep_depth": 9, "deep_length": 4,
    "class_word": "object", "abnormal_word": "damaged", "round_to_half": False,
}  # fmt: skip
WIDTH = 128


def build(seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prompts = CompoundPrompts(golden.backbone(), **{**OPTIONS, **options})
        for parameter in prompts.parameters():  # large enough to matter beside the words
            torch.nn.init.normal_(parameter, std=0.5)
    return prompts


@pytest.fixture(scope="module")
def slow_state():
    return naive.as_numpy(golden.clip_state())


def slow_encode(state, prompts, own_tokens, words):
    """One prompt from its parts: start, V, its own tokens, the words, end."""
    ids = golden.backbone().tokenizer
    table = state["token_embedding.weight"]
    tail = table[[*ids.ids(words), ids.end]]
    context = prompts.normal_context.detach().double().numpy()
    vectors = np.concatenate([table[[ids.start]], context, own_tokens, tail])
    deep = list(prompts.deep_prompts.detach().double().numpy())
    return naive.encode_prompt(state, vectors, len(vectors) - 1, heads=2, deep=deep)


def own_tokens(prompts, index):
    return prompts.abnormal_tokens[index].detach().double().numpy()


@pytest.mark.parametrize("deep_length", [4, 6, 8])
def test_first_pass_equals_prompts_written_out(slow_state, deep_length):
    """Lengths beyond E overwrite words, own tokens and even the end, as the public code does."""
    prompts = build(deep_length=deep_length)
    first = prompts.encode(golden.backbone().text)
    close(
        first.normal_text, slow_encode(slow_state, prompts, np.zeros((0, WIDTH)), "object."), 2e-5
    )
    for index, text in enumerate(first.abnormal_text):
        own = own_tokens(prompts, index)
        close(text, slow_encode(slow_state, prompts, own, "damaged object."), 2e-5)


@pytest.mark.parametrize("deep_length", [4, 8])
def test_the_prior_is_added_to_the_abnormal_tokens_and_to_nothing_else(slow_state, deep_length):
    prompts = build(deep_length=deep_length)
    text = golden.backbone().text
    prior = torch.from_numpy(np.random.default_rng(1).standard_normal((2, WIDTH))).float()
    refined = prompts.encode_refined(text, prompts.encode(text).prefix, prior)
    assert refined.shape == (2, 3, WIDTH)
    for image in range(2):
        for index in range(3):
            own = own_tokens(prompts, index) + prior[image].double().numpy()
            wanted = slow_encode(slow_state, prompts, own, "damaged object.")
            close(refined[image, index], wanted, 2e-5)


def test_without_a_prior_the_second_pass_is_the_first():
    prompts, text = build(), golden.backbone().text
    first = prompts.encode(text)
    refined = prompts.encode_refined(text, first.prefix, torch.zeros(2, WIDTH))
    torch.testing.assert_close(refined, first.abnormal_text.expand(2, -1, -1))
    prior = torch.linspace(-1, 1, WIDTH)[None]
    moved = prompts.encode_refined(text, first.prefix, prior)
    assert (moved[0] - first.abnormal_text).abs().max() > 1e-2


def test_each_image_is_refined_by_its_own_prior():
    prompts, text = build(), golden.backbone().text
    prefix = prompts.encode(text).prefix
    prior = torch.from_numpy(np.random.default_rng(2).standard_normal((3, WIDTH))).float()
    together = prompts.encode_refined(text, prefix, prior)
    alone = torch.cat([prompts.encode_refined(text, prefix, row[None]) for row in prior])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_end_tokens_stand_at_8_and_11():
    prompts = build()
    assert 1 + len(prompts.normal_context) + len(prompts.normal_words) - 1 == 8
    own = prompts.abnormal_tokens.shape[1]
    assert 1 + len(prompts.normal_context) + own + len(prompts.abnormal_words) - 1 == 11


def test_parameters_are_drawn_small_and_words_are_no_parameters():
    prompts = CompoundPrompts(golden.backbone(), **{**OPTIONS, "prompts": 40})
    shapes = {name: tuple(p.shape) for name, p in prompts.named_parameters()}
    assert shapes == {
        "normal_context": (5, WIDTH),
        "abnormal_tokens": (40, 2, WIDTH),
        "deep_prompts": (8, 4, WIDTH),
    }
    for vectors in (prompts.abnormal_tokens, prompts.deep_prompts):
        assert vectors.std().item() == pytest.approx(INIT_STD, rel=0.05)
    assert set(prompts.state_dict()) == set(shapes)


@pytest.mark.parametrize(("depth", "layers"), [(1, 0), (2, 1), (9, 8), (40, 11)])
def test_deep_prompts_reach_as_deep_as_asked_or_as_there_are_layers(depth, layers):
    prompts = build(deep_depth=depth)
    assert prompts.deep_prompts.shape == (layers, 4, WIDTH)
    assert prompts.encode(golden.backbone().text).abnormal_text.isfinite().all()


def test_other_words_make_other_prompts():
    text = golden.backbone().text
    plain = build().encode(text)
    other = build(abnormal_word="broken").encode(text)
    assert torch.equal(plain.normal_text, other.normal_text)
    assert (plain.abnormal_text - other.abnormal_text).abs().max() > 1e-3
    renamed = build(class_word="bottle").encode(text)
    assert (plain.normal_text - renamed.normal_text).abs().max() > 1e-3
