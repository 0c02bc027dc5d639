"""Prompts of learned vectors and frozen words, and what the frozen tower says of states."""

import pytest
import torch

from faprompt.clip.text import DeepPrompts
from faprompt.prompts.prompt_parts import (
    SentenceEncoder,
    encode_prompts,
    start_vector,
    word_vectors,
)
from faprompt.prompts.templates import (
    WINCLIP_STATES,
    WINCLIP_TEMPLATES,
    StateTexts,
    mean_direction,
    sentences,
)
from tests.helpers import small

LINES = ["object.", "a damaged metal nut."]


@pytest.fixture(scope="module")
def speaker():
    return SentenceEncoder(small.backbone().text, small.backbone().tokenizer)


def test_a_context_of_real_words_gives_the_plain_sentence(speaker):
    """Token vectors in the learned ones' place: the tower cannot tell."""
    text, tokenizer = speaker.text, speaker.tokenizer
    start = text.encode_prefix(start_vector(text, tokenizer))
    for shared in (True, False):
        ids = tokenizer(["a photo"])[0, 1:3]
        context = text.embed_tokens(ids if shared else ids.expand(2, -1))
        found = encode_prompts(text, start, context, *word_vectors(text, tokenizer, LINES))
        wanted = speaker.encode_texts([f"a photo {line}" for line in LINES])
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_words_may_be_shared_and_deep_prompts_reach_the_tower(speaker):
    text, tokenizer = speaker.text, speaker.tokenizer
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randn(3, 4, text.spec.width, generator=generator)
    deep = DeepPrompts(torch.randn(1, 2, text.spec.width, generator=generator), False)
    words, end = word_vectors(text, tokenizer, ["object."])
    for layers in (None, deep):
        start = text.encode_prefix(start_vector(text, tokenizer), layers)
        found = encode_prompts(text, start, contexts, words[0], int(end[0]), layers)
        joined = torch.cat([contexts, words.expand(3, -1, -1)], dim=1)
        assert torch.equal(found, text.encode(start, joined, 4 + int(end[0]), layers))
    without = encode_prompts(text, start, contexts, words[0], int(end[0]))
    assert (found - without).abs().max() > 1e-3


def test_the_start_token_is_a_copy_without_gradient(speaker):
    start = start_vector(speaker.text, speaker.tokenizer)
    table = speaker.text.token_embedding.weight
    assert torch.equal(start[0], table[speaker.tokenizer.start]) and not start.requires_grad
    assert start.untyped_storage().data_ptr() != table.untyped_storage().data_ptr()


class Counting(SentenceEncoder):
    """A speaker that counts the sentences it is asked for."""

    asked = 0

    def encode_texts(self, texts):
        Counting.asked += len(texts)
        return SentenceEncoder.encode_texts(self, texts)


def test_the_sentences_of_a_class_are_encoded_once(speaker):
    counting = Counting(speaker.text, speaker.tokenizer)
    texts = StateTexts(WINCLIP_STATES, lambda name: WINCLIP_TEMPLATES)
    for average in ("norm-mean-norm", "mean-norm", "norm-mean-norm"):
        with torch.inference_mode():
            pair = texts.pair(counting, "metal nut", average)
        for row, words in zip(pair, WINCLIP_STATES, strict=True):
            lines = sentences(WINCLIP_TEMPLATES, words, "metal nut")
            wanted = mean_direction(speaker.encode_texts(lines), average)
            torch.testing.assert_close(row, wanted)
    assert Counting.asked == 154 + 88
    normal, abnormal = texts.features(counting, "metal nut")
    assert len(normal) == 154 and len(abnormal) == 88
    assert not normal.is_inference() and not normal.requires_grad
    texts.features(counting, "pill")
    assert Counting.asked == 2 * (154 + 88)
