"""Nearest words: a token's own vector, its neighbours by hand, chance, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from faprompt.clip.tokens import Tokenizer
from faprompt.clip.weights import load_backbone
from faprompt.explanation import NearWord, Vocabulary


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("tiny")


@pytest.fixture(scope="module")
def vocabulary(backbone):
    return Vocabulary(backbone)


def row(backbone, word):
    (number,) = backbone.tokenizer.ids(word)
    return backbone.text.token_embedding.weight[number]


@pytest.mark.parametrize("word", ["damaged", "object", "scratch", "."])
def test_the_vector_of_a_token_is_that_token_at_any_length(backbone, vocabulary, word):
    vectors = torch.stack([row(backbone, word), 0.01 * row(backbone, word)])
    for found in vocabulary.nearest(vectors, 2):
        assert found[0].word == word and found[0].cosine == pytest.approx(1, abs=1e-5)
        assert found[1].word != word and found[1].cosine < 1


def test_neighbours_are_those_of_plain_cosines(backbone, vocabulary):
    vector = np.random.default_rng(3).normal(size=backbone.spec.text.width)
    table = backbone.text.token_embedding.weight.numpy()[:-2]  # start and end come last
    cosines = table @ vector / np.linalg.norm(table, axis=1) / np.linalg.norm(vector)
    best = np.argsort(-cosines)[:3]
    (found,) = vocabulary.nearest(torch.from_numpy(vector).float()[None], 3)
    assert [near.word for near in found] == [vocabulary.words[i] for i in best]
    assert [near.cosine for near in found] == pytest.approx(cosines[best], abs=1e-5)


def test_start_and_end_are_no_words(backbone, vocabulary):
    tokenizer = backbone.tokenizer
    ends = backbone.text.token_embedding.weight[[tokenizer.start, tokenizer.end]]
    told = {near.word for found in vocabulary.nearest(ends, 5) for near in found}
    assert not told & {"<start>", "<end>"}
    assert len(vocabulary.words) == backbone.spec.text.vocab_size - 2


def test_words_say_whether_they_end(backbone):
    words = backbone.tokenizer.words()
    assert words[-2:] == ["<start>", "<end>"] and len(words) == backbone.spec.text.vocab_size
    assert "damaged" in words and "defe-" in words
    whole = Tokenizer().words()
    assert len(whole) == 49_408
    pieces = [whole[i] for i in Tokenizer().ids("defect")]
    assert "".join(piece.removesuffix("-") for piece in pieces) == "defect"


def test_chance_is_what_random_vectors_reach(backbone, vocabulary):
    noise = np.random.default_rng(9).normal(size=(4000, backbone.spec.text.width))
    table = backbone.text.token_embedding.weight.numpy()[:-2]
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    nearest = (noise / np.linalg.norm(noise, axis=1, keepdims=True) @ table.T).max(axis=1)
    assert (nearest > vocabulary.chance).mean() == pytest.approx(0.05, abs=0.025)
    assert (
        f"{vocabulary.chance:.2f}" in vocabulary.caution() and "183 tokens" in vocabulary.caution()
    )


def test_words_no_nearer_than_chance_stand_in_brackets(vocabulary):
    near = [(NearWord("hole", vocabulary.chance + 0.01),), (NearWord("a", vocabulary.chance),)]
    assert vocabulary.brief(near) == "hole · (a)"


def test_refusals(vocabulary):
    with pytest.raises(ValueError, match=r"vectors should be \(N, 128\), got \(1, 7\)"):
        vocabulary.nearest(torch.zeros(1, 7))
    for count in (0, 184):
        with pytest.raises(ValueError, match=f"count should be 1 to 183, got {count}"):
            vocabulary.nearest(torch.zeros(1, 128), count)


def test_a_backbone_without_words_has_an_empty_vocabulary():
    assert Vocabulary(load_backbone("test-wide-resnet")).words == []
