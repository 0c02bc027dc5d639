"""Prompts of learned vectors and frozen words, and what the frozen tower says of states."""

import json
from importlib.resources import files

import pytest
import torch

from faprompt.clip.text import DeepPrompts
from faprompt.data.published_counts import published_counts
from faprompt.data.registry import list_datasets
from faprompt.prompts.descriptions import phrases
from faprompt.prompts.prompt_parts import (
    SentenceEncoder,
    display_name,
    encode_prompts,
    name_pictures,
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


@pytest.fixture(scope="module")
def told():
    """`display_names.json` as it is written."""
    return json.loads(files("faprompt.prompts").joinpath("display_names.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def classes():
    """Every class of every dataset that the paper counts."""
    return {name for dataset in list_datasets() for name in published_counts(dataset)}


def test_names_that_say_nothing_are_said_in_words():
    names = ["01", "Class10", "CLASS10", "sdd", "AITEX", "Woven_104", "brain", "tn3k"]
    assert name_pictures(names, 8, otherwise="object") == [
        "industrial part", "textured surface", "textured surface", "metal part", "fabric",
        "woven texture", "brain scan", "thyroid",
    ]  # fmt: skip
    assert name_pictures(names, 8, otherwise="object", raw=True) == names


def test_plain_words_stay_as_they_are(classes, told):
    known = {"metal_nut", "bottle", "pcb1", "macaroni1", "bracket_black", "colon", "fundus"}
    assert known < classes and not known & set(told)
    for name in (classes - set(told)) | {"Metal_Nut", "my_part_7"}:
        assert display_name(name) == name.replace("_", " ")


def test_no_class_of_a_known_dataset_is_left_without_a_word(classes):
    assert len(classes) > 50
    for name in classes - {"macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4"}:
        said = display_name(name)
        assert said.replace(" ", "").isalpha() and said not in list_datasets(), name


def test_what_is_displayed_is_displayed_as_itself(told):
    assert told and all(display_name(words) == words for words in told.values())


def test_both_names_of_a_class_have_the_same_phrases(told):
    for name, words in told.items():
        assert phrases(name) and phrases(name) == phrases(words), name


def test_nobody_knowing_is_the_other_word_raw_or_not():
    for raw in (True, False):
        assert name_pictures(["", " "], 2, otherwise="object", raw=raw) == ["object", "object"]
        assert name_pictures(None, 2, otherwise="object", raw=raw) == ["object", "object"]
