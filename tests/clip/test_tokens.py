"""Token ids against open_clip's tokenizer, a cut-down vocabulary, and sentences as a tree."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faprompt.clip.backbone import build_backbone
from faprompt.clip.spec import open_clip_module
from faprompt.clip.tokens import END, START, Tokenizer, bpe_ids, grow_tree
from faprompt.prompts.descriptions import state_sentences
from faprompt.prompts.prompt_parts import sentence_tree

SENTENCES = ["a photo of a damaged object.", "Flawless  CABLE", "anomalous"]


@pytest.fixture(scope="module")
def vocabulary():
    kept = {START, END}
    for sentence in SENTENCES:
        kept.update(bpe_ids(sentence))
    return tuple(sorted(kept))


@pytest.fixture(scope="module")
def cut(spec, state, vocabulary):
    """The small backbone with nothing but the rows its sentences need."""
    text = replace(spec.text, vocab_size=len(vocabulary))
    rows = state["token_embedding.weight"][list(vocabulary)]
    return build_backbone(
        replace(spec, text=text, vocabulary=vocabulary),
        {**state, "token_embedding.weight": rows},
        name="cut",
    )


class TestWhole:
    def test_equals_open_clips_tokenizer(self):
        ids = Tokenizer()(SENTENCES)
        theirs = open_clip_module().tokenizer.tokenize(SENTENCES)
        assert torch.equal(ids, theirs[:, : ids.shape[1]])
        assert not theirs[:, ids.shape[1] :].any()

    def test_known_ids(self):
        """The words of FAPrompt's abnormal prompts, and CLIP's start and end tokens."""
        assert Tokenizer().ids("damaged object.") == [13568, 14115, 269]
        assert (Tokenizer().start, Tokenizer().end) == (49406, 49407)

    def test_ids_of_nothing(self):
        assert Tokenizer().ids("") == []
        assert Tokenizer()([""]).tolist() == [[START, END]]

    def test_a_text_beyond_the_context_is_refused(self):
        fits = "object " * 75
        assert Tokenizer()([fits]).shape == (1, 77)
        with pytest.raises(ValueError, match="A text of 78 tokens exceeds 77"):
            Tokenizer()(["x", fits + "object"])
        with pytest.raises(ValueError, match="A text of 5 tokens exceeds 4"):
            Tokenizer(context_length=4)(["a b c"])

    def test_knows_everything(self):
        assert Tokenizer().knows("zyzzyva 電池")


class TestCut:
    def test_features_are_those_of_the_whole_table(self, cut, backbone):
        assert cut.text.token_embedding.weight.shape[0] < 20
        torch.testing.assert_close(
            cut.encode_texts(SENTENCES), backbone.encode_texts(SENTENCES), rtol=0, atol=1e-6
        )

    def test_ids_count_kept_rows_and_the_end_stays_largest(self, cut, vocabulary):
        tokenizer = cut.tokenizer
        assert tokenizer.end == len(vocabulary) - 1
        assert tokenizer.start == len(vocabulary) - 2
        ids = tokenizer.ids(SENTENCES[0])
        assert [vocabulary[row] for row in ids] == bpe_ids(SENTENCES[0])

    def test_an_unknown_word_is_named(self, cut):
        assert cut.tokenizer.knows("damaged cable")
        assert not cut.tokenizer.knows("damaged bottle")
        with pytest.raises(ValueError, match="no token 'bottle' .in 'a damaged bottle.'.; reword"):
            cut.encode_texts(["a damaged bottle."])

    @pytest.mark.parametrize(
        "vocabulary",
        [(START, END, 5), (5, 5, START, END), (5, START), (5, END), ()],
        ids=["falling", "repeated", "no end", "no start", "empty"],
    )
    def test_a_crooked_vocabulary_is_refused(self, vocabulary):
        with pytest.raises(ValueError, match="vocabulary should rise"):
            Tokenizer(vocabulary)


def test_a_single_text_is_no_list_of_texts():
    with pytest.raises(TypeError, match=r"\['object\.'\]"):
        Tokenizer()("object.")


rows = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=12)


class TestTree:
    @given(rows)
    def test_every_sentence_is_a_branch_and_every_beginning_one_token(self, sentences):
        tree = grow_tree(sentences)
        beginnings = {tuple(s[:stop]) for s in sentences for stop in range(1, len(s) + 1)}
        assert len(tree.ids) == len(beginnings)
        for sentence, end in zip(sentences, tree.ends.tolist(), strict=True):
            seen = tree.sees[end].nonzero()[0]
            order = tree.depth[seen].argsort()
            assert tree.ids[seen[order]].tolist() == sentence
            assert tree.depth[seen[order]].tolist() == list(range(len(sentence)))

    def test_filos_sentences_share_most_of_their_tokens(self, backbone):
        lines = state_sentences("metal nut", ["cracks", "corrosion"])[1]
        tree = sentence_tree(backbone.tokenizer, lines)
        single = sum(len(backbone.tokenizer.ids(line)) + 1 for line in lines)
        assert len(tree.ends) == len(lines) == 63 and len(tree.ids) < 0.55 * single
