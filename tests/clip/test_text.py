"""The text tower against open_clip's own, against the equations, and against itself unsplit."""

import pytest
import torch

from faprompt.clip.spec import open_clip_module
from faprompt.clip.text import DeepPrompts
from faprompt.clip.tokens import grow_tree
from faprompt.prompts.prompt_parts import sentence_tree
from tests.helpers import naive
from tests.helpers.compare import close

SENTENCES = [
    "object.",
    "a photo of a damaged object.",
    "A cropped photo of the Flawless CABLE, for visual inspection!",
    "x",
]
LENGTH, WIDTH = 11, 128


def draw(*shape, seed=0, std=0.5):
    return std * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def encode_split(text, prompts, split, end, deep=None):
    """Prompts (N, L, width) that share their first `split` vectors."""
    prefix = text.encode_prefix(prompts[0, :split], deep)
    return text.encode(prefix, prompts[:, split:], end - split, deep)


@pytest.fixture
def text(backbone):
    return backbone.text


@pytest.fixture
def prompts():
    """Three prompts that begin with the same nine vectors."""
    drawn = draw(3, LENGTH, WIDTH)
    drawn[:, :9] = drawn[:1, :9]
    return drawn


class TestSentences:
    def test_equal_open_clips_text_features(self, backbone, rival):
        """open_clip computes all 77 positions; ours stops at the longest end token."""
        tokens = open_clip_module().tokenizer.tokenize(SENTENCES)
        assert tokens.shape == (4, 77)
        close(backbone.encode_texts(SENTENCES), rival.encode_text(tokens).detach())

    def test_padding_after_the_end_changes_nothing(self, backbone):
        ids = backbone.tokenizer(SENTENCES[:2])
        padded = torch.zeros(2, 77, dtype=torch.int64)
        padded[:, : ids.shape[1]] = ids
        close(backbone.text.encode_tokens(padded), backbone.text.encode_tokens(ids), 1e-6)

    def test_whatever_stands_after_the_end_changes_nothing(self, backbone):
        ids = backbone.tokenizer(SENTENCES[:1])
        more = torch.cat([ids, torch.randint(1, 49000, (1, 5))], dim=1)
        close(backbone.text.encode_tokens(more), backbone.text.encode_tokens(ids), 1e-6)

    def test_alone_equals_in_a_batch(self, backbone):
        together = backbone.encode_texts(SENTENCES)
        for sentence, wanted in zip(SENTENCES, together, strict=True):
            close(backbone.encode_texts([sentence])[0], wanted)


class TestAgainstTheEquations:
    @pytest.mark.parametrize("deep_shape", [None, (3, 4), (4, 2), (9, 4)])
    def test_all_77_positions(self, text, slow_state, deep_shape):
        vectors = draw(77, WIDTH)
        deep = None if deep_shape is None else DeepPrompts(draw(*deep_shape, WIDTH, seed=1))
        matrices = () if deep is None else deep.vectors.double().numpy()
        wanted = naive.encode_prompt(
            slow_state, vectors.double().numpy(), LENGTH - 1, heads=2, deep=matrices
        )
        ours = encode_split(text, vectors[None, :LENGTH], 6, LENGTH - 1, deep)
        close(ours[0], wanted, 1e-4)

    def test_deep_prompts_longer_than_the_prompt(self, text, slow_state):
        vectors, deep = draw(5, WIDTH), DeepPrompts(draw(2, 8, WIDTH, seed=1))
        wanted = naive.encode_prompt(
            slow_state, vectors.double().numpy(), 4, heads=2, deep=deep.vectors.double().numpy()
        )
        close(encode_split(text, vectors[None], 3, 4, deep)[0], wanted, 1e-4)


class TestSplit:
    @pytest.mark.parametrize("split", range(10))
    @pytest.mark.parametrize("deep_length", [0, 1, 4, 8])
    def test_changes_nothing_wherever_it_lies(self, text, prompts, split, deep_length):
        """With length 8 the deep prompts overwrite the prefix and reach into the suffix."""
        deep = DeepPrompts(draw(3, deep_length, WIDTH, seed=1)) if deep_length else None
        prompts[:, : max(split, 9)] = prompts[:1, : max(split, 9)]
        whole = encode_split(text, prompts, 0, LENGTH - 1, deep)
        close(encode_split(text, prompts, split, LENGTH - 1, deep), whole)

    def test_prompts_may_end_at_different_places(self, text, prompts):
        ends = torch.tensor([10, 9, 10])
        together = encode_split(text, prompts, 6, ends)
        for index, end in enumerate(ends.tolist()):
            alone = encode_split(text, prompts[index : index + 1, : end + 1], 6, end)
            close(together[index], alone[0])

    def test_one_prefix_serves_suffixes_of_different_lengths(self, text, prompts):
        prefix = text.encode_prefix(prompts[0, :6])
        short = text.encode(prefix, prompts[:, 6:9], 2)
        close(short, encode_split(text, prompts[:, :9], 0, 8))
        close(text.encode(prefix, prompts[:, 6:], 4), encode_split(text, prompts, 0, 10))

    def test_a_prompt_beyond_the_context_is_refused(self, text):
        prefix = text.encode_prefix(draw(70, WIDTH))
        assert text.encode(prefix, draw(1, 7, WIDTH), 6).isfinite().all()
        with pytest.raises(ValueError, match="A prompt of 78 tokens does not fit into 77; shorten"):
            text.encode(prefix, draw(1, 8, WIDTH), 7)


def inputs_of_blocks(text, run):
    """What each block normed first, layer -> list of (B, L, width), while `run()` ran."""
    seen, hooks = {}, []
    for number, block in enumerate(text.transformer.resblocks, start=1):
        note = lambda _, args, n=number: seen.setdefault(n, []).append(args[0].detach())  # noqa: E731
        hooks.append(block.ln_1.register_forward_pre_hook(note))
    run()
    for hook in hooks:
        hook.remove()
    return seen


class TestDeepPrompts:
    def test_stand_before_their_layers_and_nowhere_else(self, text, prompts):
        """Three matrices: layers 2, 3 and 4 of 5, positions 1..4."""
        deep = DeepPrompts(draw(3, 4, WIDTH, seed=1))
        seen = inputs_of_blocks(text, lambda: encode_split(text, prompts, 0, LENGTH - 1, deep))
        for layer in range(1, 6):
            stream = seen[layer][-1]
            for index, matrix in enumerate(deep.vectors, start=2):
                assert torch.equal(stream[0, 1:5], matrix) == (index == layer)
            if 2 <= layer <= 4:
                assert torch.equal(stream[2, 1:5], deep.vectors[layer - 2])

    def test_changing_the_first_leaves_block_one_alone(self, text, prompts):
        streams = []
        for seed in (1, 2):
            deep = DeepPrompts(draw(3, 4, WIDTH, seed=seed))
            run = lambda deep=deep: encode_split(text, prompts, 6, LENGTH - 1, deep)  # noqa: E731
            streams.append(inputs_of_blocks(text, run))
        for before, after in zip(streams[0][1], streams[1][1], strict=True):
            assert torch.equal(before, after)
        assert not torch.equal(streams[0][2][0], streams[1][2][0])

    def test_position_zero_and_later_ones_carry_on(self, text, prompts):
        deep = DeepPrompts(draw(3, 4, WIDTH, seed=1))
        encode = lambda d: encode_split(text, prompts, 0, LENGTH - 1, d)  # noqa: E731
        without = inputs_of_blocks(text, lambda: encode(None))[2][-1]
        with_deep = inputs_of_blocks(text, lambda: encode(deep))[2][-1]
        assert torch.equal(without[:, :1], with_deep[:, :1])
        assert torch.equal(without[:, 5:], with_deep[:, 5:])

    def test_depth_one_inserts_nothing(self, text, prompts):
        nothing = DeepPrompts(torch.empty(0, 4, WIDTH))
        with_it = encode_split(text, prompts, 6, LENGTH - 1, nothing)
        assert torch.equal(with_it, encode_split(text, prompts, 6, LENGTH - 1))

    def test_matrices_beyond_the_last_layer_are_never_read(self, text, prompts):
        vectors = draw(7, 4, WIDTH, seed=1)
        spoiled = vectors.clone()
        spoiled[4:] = torch.nan  # five blocks read D_2..D_5 only
        ours = encode_split(text, prompts, 6, LENGTH - 1, DeepPrompts(spoiled))
        assert torch.equal(ours, encode_split(text, prompts, 6, LENGTH - 1, DeepPrompts(vectors)))

    @pytest.mark.parametrize("split", [3, 6])
    def test_gradients_equal_those_of_the_unsplit_prompt(self, text, prompts, split):
        """At 3 the deep prompts of length 6 lie on both sides of the split."""
        weights, found = draw(3, 48, seed=2), []
        for place in (0, split):
            vectors = draw(3, 6, WIDTH, seed=1).requires_grad_()
            own = prompts.clone().requires_grad_()
            features = encode_split(text, own, place, LENGTH - 1, DeepPrompts(vectors))
            (features * weights).sum().backward()
            found.append((vectors.grad, own.grad[:, place:], own.grad))
        assert found[0][0].abs().sum(dim=(1, 2)).min() > 0
        close(found[1][0], found[0][0], 1e-4)
        # the shared prefix is the first prompt's: its gradient is the sum over all three
        wanted = found[0][2][:, :split].sum(dim=0)
        close(found[1][2][0, :split], wanted, 1e-4)

    def test_rounding_to_half_is_seen_by_values_and_gradients(self, text, prompts):
        vectors = draw(3, 4, WIDTH, seed=1).requires_grad_()
        rounded = encode_split(text, prompts, 6, LENGTH - 1, DeepPrompts(vectors, True))
        by_hand = DeepPrompts(vectors.detach().half().float())
        assert torch.equal(rounded, encode_split(text, prompts, 6, LENGTH - 1, by_hand))
        (rounded.sum() * 1e-12).backward()
        assert vectors.grad.abs().max() == 0  # below float16's smallest number


class TestTree:
    """Sentences as a tree have the features they have one by one."""

    lines = ("damaged nut at top left.", "nut.", "damaged nut at top.", "a damaged nut.", "nut.")

    def one_by_one(self, backbone, prefix):
        ids = backbone.tokenizer(self.lines)[:, 1:]
        return backbone.text.encode(
            prefix, backbone.text.embed_tokens(ids), backbone.text.find_end(ids)
        )

    @pytest.mark.parametrize("length", [1, 6])
    def test_equals_one_by_one_and_so_do_gradients_of_the_prefix(self, length, backbone):
        text, found, gradients = backbone.text, [], []
        with torch.inference_mode():  # as where an image was scored before training
            tree = sentence_tree(backbone.tokenizer, self.lines)
        weights = draw(len(self.lines), 48, seed=1)
        for encode in (lambda prefix: text.encode_tree(prefix, tree),
                       lambda prefix: self.one_by_one(backbone, prefix)):  # fmt: skip
            vectors = draw(length, WIDTH).requires_grad_()
            found.append(encode(text.encode_prefix(vectors)))
            (found[-1] * weights).sum().backward()
            gradients.append(vectors.grad)
        torch.testing.assert_close(*found, rtol=0, atol=1e-5)
        assert gradients[0].abs().max() > 0.1
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-4)

    def test_without_a_prefix_it_is_plain_text(self, backbone):
        start, end = backbone.tokenizer.start, backbone.tokenizer.end
        tree = grow_tree([[start, *backbone.tokenizer.ids(line), end] for line in self.lines])
        empty = backbone.text.encode_prefix(torch.zeros(0, WIDTH))
        found, wanted = backbone.text.encode_tree(empty, tree), backbone.encode_texts(self.lines)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)

    def test_too_long_prompts_are_refused(self, text):
        with pytest.raises(ValueError, match="79 tokens does not fit into 77"):
            text.encode_tree(text.encode_prefix(draw(74, WIDTH)), grow_tree([range(5), range(2)]))
