"""CoOp, CoCoOp and TCP: the suite for each, class names, and each formula recomputed."""

import pytest
import torch
import torch.nn.functional as F

from faprompt import losses
from faprompt.clip.text import Injection
from faprompt.clip.tokens import END, START, Tokenizer, bpe_ids
from faprompt.config import to_mapping
from faprompt.errors import ConfigError
from faprompt.methods.coop import CoCoOp, CoOpConfig, distinct
from faprompt.methods.registry import build_method
from faprompt.methods.tcp import TCPConfig, TCPV2Config
from faprompt.prompts.prompt_parts import word_vectors
from faprompt.prompts.templates import WINCLIP_STATES, WINCLIP_TEMPLATES, sentences
from faprompt.scoring import unit, upsample
from tests.helpers import small
from tests.helpers.blocks import run_block
from tests.methods.suite import LearnedSuite

NAMES = ["metal_nut", "pill", "metal_nut"]
LABEL = torch.tensor([0, 1, 0])


class ClassPromptSuite(LearnedSuite):
    """Besides the suite: the text follows the class."""

    official = False

    def test_each_picture_is_read_with_its_own_class(self, detector, features):
        method = detector.method
        assert method.uses_class_names
        with torch.no_grad():
            mixed = self.run(method, features, class_names=NAMES)
            for name in ("metal nut", "pill"):
                whole = self.run(method, features, class_names=[name] * 3)
                rows = [i for i, n in enumerate(NAMES) if n.replace("_", " ") == name]
                torch.testing.assert_close(mixed.score[rows], whole.score[rows])
                torch.testing.assert_close(mixed.patch_map[rows], whole.patch_map[rows])
            nameless = self.run(method, features)
        assert (mixed.patch_map - nameless.patch_map).abs().max() > 1e-4

    def test_an_unknown_class_is_the_class_word(self, detector, features):
        with torch.no_grad():
            unnamed = self.run(detector.method, features)
            word = self.run(detector.method, features, class_names=["object", "", " "])
        torch.testing.assert_close(unnamed.score, word.score)
        torch.testing.assert_close(unnamed.patch_map, word.patch_map)

    def test_class_names_can_be_switched_off(self, features):
        method = self.build(use_class_names=False)
        assert not method.uses_class_names
        with torch.no_grad():
            told = self.run(method, features, class_names=NAMES)
            untold = self.run(method, features)
        torch.testing.assert_close(told.patch_map, untold.patch_map)

    def test_the_detector_passes_names_on(self, detector):
        pixels = small.pixels()
        with torch.no_grad():
            scores, maps = detector(pixels, class_names=NAMES)
            out = detector.encode(pixels, class_names=NAMES)
            _, nameless = detector(pixels)
        torch.testing.assert_close(scores, out.score)
        assert (maps - nameless).abs().max() > 1e-5
        images = [small.picture(seed=i) for i in range(2)]
        named = detector.predict_batch(images, class_names=["pill", "carpet"])
        alone = detector.predict_batch(images[1:], class_names=["carpet"])
        assert named[1].score == pytest.approx(alone[0].score, abs=1e-5)

    def test_a_class_without_tokens_is_refused_with_a_way_out(self, detector, features):
        method = self.build()
        method._tokenizer = small_vocabulary(method.config)
        with pytest.raises(ConfigError, match=rf"{self.name}: .*no token.*use_class_names=false"):
            self.run(method, features, class_names=["pill"] * 3)

    def test_temperatures_and_weights_out_of_range_are_refused(self):
        options = {"map_temperature": 0, "local_weight": -1, "context_tokens": 0}
        with pytest.raises(ConfigError) as caught:
            build_method(self.name, small.backbone(), options)
        for told in ("map_temperature should", "local_weight should", "context_tokens should"):
            assert told in str(caught.value)


def small_vocabulary(config):
    known = f"{config.normal_word} {config.abnormal_word} {config.class_word}."
    return Tokenizer(tuple(sorted({*bpe_ids(known), START, END})))


class TestCoOpSuite(ClassPromptSuite):
    name = "coop"
    parameters = (9_216, 9_216)


class CoCoOpSuite(ClassPromptSuite):
    name = "cocoop"
    parameters = (83_760, 83_760)
    more_presets = ("original",)


class TestCoCoOpSuite(CoCoOpSuite):
    pass


class TestCoCoOpSuiteOfItsOriginal(CoCoOpSuite):
    options = dict(CoCoOp.presets["original"])


class TCPSuite(ClassPromptSuite):
    name = "tcp-v1"
    parameters = (743_616, 743_616)
    more_presets = ("image-only",)


class TestTCPV1Suite(TCPSuite):
    pass


class TestTCPV2Suite(TCPSuite):
    name = "tcp-v2"


@pytest.fixture(scope="module")
def features():
    with torch.no_grad():
        return small.backbone().encode_image(small.pixels())


def run(method, features, **keywords):
    return method(features, small.backbone().text, **keywords)


def masks():
    found = torch.zeros(3, 56, 56)
    found[1, 5:30, 10:40] = 1
    return found


def plain_text(context, line):
    """A prompt encoded token by token, all 77 positions, none shared: [SOT] context line [EOT]."""
    backbone = small.backbone()
    text, ids = backbone.text, backbone.tokenizer
    row = [*ids.ids(line), ids.end]
    vectors = torch.zeros(77, context.shape[-1])
    vectors[0] = text.embed_tokens(torch.tensor(ids.start))
    vectors[1 : 1 + len(context)] = context
    vectors[1 + len(context) : 1 + len(context) + len(row)] = text.embed_tokens(torch.tensor(row))
    empty = text.encode_prefix(vectors[:0])
    return text.encode(empty, vectors[None], len(context) + len(row))[0]


class TestCoOp:
    def test_its_constants(self):
        assert to_mapping(CoOpConfig()) == {
            "image_size": 518, "sigma_px": 4.0,
            "picture_handling": "upright", "context_tokens": 12, "normal_word": "normal",
            "abnormal_word": "anomalous", "class_word": "object", "use_class_names": True,
            "temperature": 0.01, "map_temperature": 0.07, "local_weight": 0.0, "plain_path": True,
        }  # fmt: skip

    def test_it_reads_clips_own_tokens(self):
        options = small.method("coop").image_options
        assert not options.value_path and options.class_ln_post

    def test_the_prompts_are_those_of_the_templates(self, features):
        method = small.method("coop")
        with torch.no_grad():
            pair = run(method, features, class_names=NAMES).text_pair
            for row, name in enumerate(["metal nut", "pill", "metal nut"]):
                for state, word in enumerate(("normal", "anomalous")):
                    wanted = plain_text(method.context, f"{word} {name}.")
                    torch.testing.assert_close(pair[row, state], wanted, rtol=0, atol=1e-5)

    def test_score_and_map_have_a_temperature_each(self, features):
        method = small.method("coop", temperature=0.5, map_temperature=0.2)
        with torch.no_grad():
            out = run(method, features)
        image = unit(features.class_token) @ unit(out.text_pair).T / 0.5
        torch.testing.assert_close(out.score, image.softmax(-1)[:, 1])
        patches = unit(features.patch_tokens[2]) @ unit(out.text_pair).T / 0.2
        torch.testing.assert_close(out.patch_map.flatten(1), patches.softmax(-1)[..., 1])

    def test_masks_teach_it_nothing(self, features):
        method = small.method("coop")
        out = run(method, features)
        terms = method.loss(out, LABEL, masks())
        assert set(terms) == {"image"}
        torch.testing.assert_close(terms["image"], F.cross_entropy(out.image_logits, LABEL))


class TestCoCoOp:
    def test_without_its_net_it_is_coop(self, features):
        method = small.method("cocoop", temperature=0.01)
        coop = small.method("coop")
        with torch.no_grad():
            method.learner.context.copy_(coop.context)
            method.learner.meta_net.linear2.weight.zero_()
            method.learner.meta_net.linear2.bias.zero_()
            ours = run(method, features, class_names=NAMES)
            theirs = run(coop, features, class_names=NAMES)
        torch.testing.assert_close(ours.text_pair, theirs.text_pair, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.score, theirs.score, rtol=0, atol=1e-4)

    def test_the_image_shifts_every_vector_of_both_prompts(self, features):
        method = small.method("cocoop")
        net = method.learner.meta_net
        with torch.no_grad():
            pair = run(method, features).text_pair
            for row, token in enumerate(unit(features.class_token)):
                hidden = (net.linear1.weight @ token + net.linear1.bias).relu()
                shift = net.linear2.weight @ hidden + net.linear2.bias
                for state, word in enumerate(("normal", "anomalous")):
                    wanted = plain_text(method.learner.context + shift, f"{word} object.")
                    torch.testing.assert_close(pair[row, state], wanted, rtol=0, atol=1e-5)
        assert pair.shape == (3, 2, 64) and (pair[0, 0] - pair[1, 0]).abs().max() > 1e-4

    def test_paper_trains_it_as_anomalyclip(self, features):
        method = small.method("cocoop")
        options = method.image_options
        assert options.value_path and not options.class_ln_post
        assert method.config.temperature == 0.07
        out = run(method, features)
        terms = method.loss(out, LABEL, masks())
        assert set(terms) == {"image", "local"}
        wanted = 4 * losses.local_loss(upsample(out.patch_map, (56, 56)), masks())
        torch.testing.assert_close(terms["local"], wanted)

    def test_original_sees_plain_tokens_and_no_mask(self, features):
        method = build_method("cocoop", small.backbone(), preset="original")
        options = method.image_options
        assert not options.value_path and options.class_ln_post
        assert method.config.temperature == 0.01
        assert set(method.loss(run(method, features), LABEL, masks())) == {"image"}


class TestTCP:
    def test_the_two_forms_differ_in_their_sentences_alone(self):
        first, second = to_mapping(TCPConfig()), to_mapping(TCPV2Config())
        assert {k: (first[k], second[k]) for k in first if first[k] != second[k]} == {
            "knowledge": ("plain", "winclip")
        }

    def known(self, name, features):
        method = small.method(name)
        with torch.no_grad():
            return method.encode_pairs(small.backbone().text, ["metal nut", "pill"])[1]

    def test_v1_knows_one_sentence_a_state(self, features):
        lines = ["This is a photo of {}.", "This is a photo of damaged {}."]
        for row, name in enumerate(("metal nut", "pill")):
            wanted = unit(small.backbone().encode_texts([line.format(name) for line in lines]))
            found = self.known("tcp-v1", features)[row]
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)

    def test_v2_knows_all_of_winclips(self, features):
        found = self.known("tcp-v2", features)
        for state, words in enumerate(WINCLIP_STATES):
            lines = sentences(WINCLIP_TEMPLATES, words, "pill")
            assert len(lines) == (154, 88)[state]
            each = torch.cat([unit(small.backbone().encode_texts([line])) for line in lines])
            torch.testing.assert_close(found[1, state], unit(each.mean(0)), rtol=0, atol=1e-5)

    def test_injecting_what_stands_there_changes_nothing(self, features):
        """The second block's input at positions 1..4, written over itself."""
        method = small.method("tcp-v1")
        text, tokenizer = small.backbone().text, small.backbone().tokenizer
        with torch.no_grad():
            words, end = word_vectors(text, tokenizer, ["pill."])
            suffix = torch.cat([method.context, words[0]])
            start = text.encode_prefix(method.start_word)
            plain = text.encode(start, suffix[None], 4 + end)
            stream = (
                torch.cat([method.start_word, suffix])
                + text.positional_embedding[: 1 + len(suffix)]
            )
            block = text.transformer.resblocks[0]
            mask = torch.full((len(stream), len(stream)), float("-inf")).triu(1)
            caught = run_block(block, stream[None], mask)
            again = text.encode(start, suffix[None], 4 + end, Injection(caught[:, 1:5], 2))
            other = text.encode(start, suffix[None], 4 + end, Injection(caught[:, 2:6], 2))
        torch.testing.assert_close(again, plain, rtol=0, atol=1e-5)
        assert (other - plain).abs().max() > 1e-4

    def test_each_prompt_gets_its_own_vectors(self):
        method = small.method("tcp-v1")
        text, tokenizer = small.backbone().text, small.backbone().tokenizer
        own = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            start = text.encode_prefix(method.start_word)
            words, end = word_vectors(text, tokenizer, ["pill.", "damaged pill."])
            suffixes = torch.cat([method.context.expand(2, -1, -1), words], dim=1)
            both = text.encode(start, suffixes, 4 + end, Injection(own, 2))
            for row in range(2):
                alone = text.encode(
                    start, suffixes[row, None], 4 + end[row, None], Injection(own[row, None], 2)
                )
                torch.testing.assert_close(both[row], alone[0], rtol=0, atol=1e-5)

    def test_knowledge_becomes_the_injected_vectors(self):
        method = small.method("tcp-v1")
        text, tokenizer = small.backbone().text, small.backbone().tokenizer
        net = method.meta_net
        with torch.no_grad():
            texts, known = method.encode_pairs(text, ["pill"])
            for state, line in enumerate(("pill.", "damaged pill.")):
                hidden = net.linear1.weight @ known[0, state] + net.linear1.bias
                hidden = hidden / (1 + (-1.702 * hidden).exp())
                own = (net.linear2.weight @ hidden + net.linear2.bias).reshape(1, 4, 64)
                words, end = word_vectors(text, tokenizer, [line])
                suffix = torch.cat([method.context, words[0]])[None]
                start = text.encode_prefix(method.start_word)
                wanted = text.encode(start, suffix, 4 + end, Injection(own, 2))[0]
                torch.testing.assert_close(texts[0, state], wanted, rtol=0, atol=1e-5)

    def test_vectors_cannot_be_injected_into_a_shared_prefix(self):
        text = small.backbone().text
        prefix = text.encode_prefix(torch.zeros(3, 64))
        with pytest.raises(ValueError, match="begin at position 1, but a prefix of 3 is shared"):
            text.encode(prefix, torch.zeros(1, 4, 64), 3, Injection(torch.zeros(1, 4, 64), 2))

    def test_the_knowledge_term_is_the_mean_over_all_texts(self, features):
        method = small.method("tcp-v1", knowledge_classes=("carpet", "metal_nut"))
        terms = method.loss(run(method, features, class_names=NAMES), LABEL, masks())
        assert set(terms) == {"image", "local", "knowledge"}
        texts, known = method.encode_pairs(small.backbone().text, ["metal nut", "pill", "carpet"])
        cosines = [
            unit(t) @ k for t, k in zip(texts.flatten(0, 1), known.flatten(0, 1), strict=True)
        ]
        wanted = 8 * (1 - sum(cosines) / 6)
        torch.testing.assert_close(terms["knowledge"], wanted)

    def test_knowledge_learned_under_inference_mode_serves_training(self, features):
        method = small.method("tcp-v1")
        with torch.inference_mode():
            run(method, features, class_names=NAMES)
        terms = method.loss(run(method, features, class_names=NAMES), LABEL, masks())
        sum(terms.values()).backward()
        assert method.context.grad.any()

    def test_image_only_leaves_the_map_untaught(self, features):
        method = build_method("tcp-v2", small.backbone(), preset="image-only")
        assert method.image_options.value_path
        terms = method.loss(run(method, features), LABEL, masks())
        assert set(terms) == {"image", "knowledge"}

    def test_layers_and_weights_out_of_range_are_refused(self):
        with pytest.raises(ConfigError, match="knowledge_weight should.*injection_layer should"):
            build_method("tcp-v1", small.backbone(), {"injection_layer": 1, "knowledge_weight": -1})


def test_distinct_keeps_order():
    assert distinct(NAMES) == (["metal_nut", "pill"], [0, 1, 0])
