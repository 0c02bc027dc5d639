"""Sentences as a tree: the same features as one by one, each shared token run once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faprompt.clip.tokens import grow_tree
from faprompt.prompts.descriptions import state_sentences
from faprompt.prompts.prompt_parts import sentence_tree

rows = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=12)


def draw(*shape, seed=0):
    return 0.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestGrowing:
    @given(rows)
    def test_every_sentence_is_a_branch(self, sentences):
        tree = grow_tree(sentences)
        for sentence, end in zip(sentences, tree.ends.tolist(), strict=True):
            seen = tree.sees[end].nonzero()[0]
            order = tree.depth[seen].argsort()
            assert tree.ids[seen[order]].tolist() == sentence
            assert tree.depth[seen[order]].tolist() == list(range(len(sentence)))

    @given(rows)
    def test_a_token_for_each_beginning_and_no_more(self, sentences):
        beginnings = {tuple(s[:stop]) for s in sentences for stop in range(1, len(s) + 1)}
        assert len(grow_tree(sentences).ids) == len(beginnings)

    def test_filos_sentences_share_most_of_their_tokens(self, backbone):
        lines = state_sentences("metal nut", ["cracks", "corrosion"])[1]
        tree = sentence_tree(backbone.tokenizer, lines)
        single = sum(len(backbone.tokenizer.ids(line)) + 1 for line in lines)
        assert len(tree.ends) == len(lines) == 63 and len(tree.ids) < 0.55 * single


class TestEncoding:
    lines = ("damaged nut at top left.", "nut.", "damaged nut at top.", "a damaged nut.", "nut.")

    def one_by_one(self, backbone, prefix):
        text = backbone.text
        ids = backbone.tokenizer(self.lines)[:, 1:]
        return text.encode(prefix, text.embed_tokens(ids), text.find_end(ids))

    @pytest.mark.parametrize("length", [1, 6])
    def test_equals_one_by_one(self, length, backbone):
        text, vectors = backbone.text, draw(length, backbone.spec.text.width)
        prefix = text.encode_prefix(vectors)
        found = text.encode_tree(prefix, sentence_tree(backbone.tokenizer, self.lines))
        torch.testing.assert_close(found, self.one_by_one(backbone, prefix), rtol=0, atol=1e-5)

    def test_so_do_gradients_of_the_prefix(self, backbone):
        text, gradients = backbone.text, []
        with torch.inference_mode():  # as where a picture was scored before training
            tree = sentence_tree(backbone.tokenizer, self.lines)
        weights = draw(len(self.lines), backbone.spec.embed_dim, seed=1)
        for road in ("tree", "rows"):
            vectors = draw(4, backbone.spec.text.width).requires_grad_()
            prefix = text.encode_prefix(vectors)
            if road == "tree":
                found = text.encode_tree(prefix, tree)
            else:
                found = self.one_by_one(backbone, prefix)
            (found * weights).sum().backward()
            gradients.append(vectors.grad)
        assert gradients[0].abs().max() > 0.1
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-4)

    def test_without_a_prefix_it_is_plain_text(self, backbone):
        text = backbone.text
        empty = text.encode_prefix(torch.zeros(0, backbone.spec.text.width))
        ids = [[backbone.tokenizer.start, *backbone.tokenizer.ids(x), backbone.tokenizer.end]
               for x in self.lines]  # fmt: skip
        found = text.encode_tree(empty, grow_tree(ids))
        wanted = backbone.encode_texts(self.lines)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)

    def test_too_long_prompts_are_refused(self, backbone):
        prefix = backbone.text.encode_prefix(draw(74, backbone.spec.text.width))
        with pytest.raises(ValueError, match="79 tokens does not fit into 77"):
            backbone.text.encode_tree(prefix, grow_tree([range(5), range(2)]))
