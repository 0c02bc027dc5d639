"""Handcrafted sentences: counts, wording, and the average over an ensemble."""

import pytest
import torch

from faprompt.clip._open_clip import open_clip_module
from faprompt.clip.weights import load_backbone
from faprompt.prompts import templates
from faprompt.prompts.prompt_parts import SentenceEncoder
from faprompt.prompts.templates import StateTexts


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("test-tiny")


def test_the_80_templates_are_open_clips():
    theirs = {line("{}") for line in open_clip_module().OPENAI_IMAGENET_TEMPLATES}
    assert len(templates.IMAGENET_TEMPLATES) == len(set(templates.IMAGENET_TEMPLATES)) == 80
    assert set(templates.IMAGENET_TEMPLATES) == theirs


def test_winclip_has_22_templates_and_its_ensemble_154_and_88_sentences():
    lines = templates.WINCLIP_TEMPLATES
    assert len(lines) == len(set(lines)) == 22
    normal, abnormal = (
        templates.sentences(lines, states, "metal_nut") for states in templates.WINCLIP_STATES
    )
    assert len(set(normal)) == len(normal) == 154
    assert len(set(abnormal)) == len(abnormal) == 88
    assert "a jpeg corrupted photo of the flawless metal nut." in normal
    assert "a photo of a small metal nut without defect." in normal
    assert "a photo of the metal nut with damage for anomaly detection." in abnormal
    assert "a photo of a damaged metal nut for visual inspection." in abnormal


def test_clip_compares_two_sentences_in_good_english():
    pair = [
        templates.sentences(templates.CLIP_TEMPLATES, states, "object")
        for states in templates.CLIP_STATES
    ]
    assert pair == [["a photo of a normal object."], ["a photo of an anomalous object."]]


def test_clip_ac_has_80_sentences_a_side_with_the_plain_article():
    normal, abnormal = (
        templates.sentences(templates.IMAGENET_TEMPLATES, states, "object")
        for states in templates.CLIP_AC_STATES
    )
    assert len(set(normal)) == len(set(abnormal)) == 80
    assert "a bad photo of a anomalous object." in abnormal
    assert "itap of my normal object." in normal


def test_an_ensemble_is_the_mean_of_unit_features_made_unit(backbone):
    texts = templates.sentences(templates.WINCLIP_TEMPLATES[:3], ("{}", "damaged {}"), "nut")
    rows = [backbone.encode_texts([text])[0] for text in texts]
    mean = sum(row / row.norm() for row in rows) / len(rows)
    ours = templates.mean_direction(backbone.encode_texts(texts))
    torch.testing.assert_close(ours, mean / mean.norm(), rtol=0, atol=1e-5)
    plain = sum(rows) / len(rows)
    assert (ours - plain / plain.norm()).abs().max() > 1e-4  # lengths differ, so this is another


def test_the_mean_of_raw_features_is_the_other_average(backbone):
    texts = templates.sentences(templates.WINCLIP_TEMPLATES[:3], ("{}", "damaged {}"), "nut")
    mean = sum(backbone.encode_texts([text])[0] for text in texts)
    ours = templates.mean_direction(backbone.encode_texts(texts), "mean-norm")
    torch.testing.assert_close(ours, mean / mean.norm(), rtol=0, atol=1e-5)


def test_an_ensemble_is_open_clips_zero_shot_classifier(backbone):
    """Its helper builds one direction a class; we build one a state."""
    from types import SimpleNamespace

    from open_clip import build_zero_shot_classifier

    class Model:
        visual = SimpleNamespace(image_size=56)
        context_length = 77

        def parameters(self):
            return backbone.parameters()

        def encode_text(self, ids, normalize=False):
            features = backbone.text.encode_tokens(ids)
            return torch.nn.functional.normalize(features, dim=-1) if normalize else features

    states = ("flawless nut", "damaged nut")
    lines = [lambda state, line=line: line.format(state) for line in templates.WINCLIP_TEMPLATES]
    theirs = build_zero_shot_classifier(
        Model(), backbone.tokenizer, states, lines, num_classes_per_batch=1, device="cpu"
    )
    states = StateTexts((("flawless {}",), ("damaged {}",)), lambda _: templates.WINCLIP_TEMPLATES)
    ours = states.pair(SentenceEncoder(backbone.text, backbone.tokenizer), "nut")
    torch.testing.assert_close(ours, theirs.T, rtol=0, atol=1e-5)


def test_the_code_of_winclip_has_21_lines_and_20_different_ones():
    lines = templates.WINCLIP_TEMPLATES_OF_CODE
    assert (len(lines), len(set(lines))) == (21, 20)
    lost = {"a cropped photo of a {}.", "a jpeg corrupted photo of a {}."}
    assert set(templates.WINCLIP_TEMPLATES) - set(lines) == lost
    assert lines.count("a jpeg corrupted photo of the {}.") == 2


def test_april_gan_has_35_templates_and_245_and_175_sentences():
    lines = templates.APRIL_TEMPLATES
    assert len(set(lines)) == len(lines) == 35
    normal, abnormal = (
        templates.sentences(lines, states, "cable") for states in templates.APRIL_STATES
    )
    assert (len(set(normal)), len(set(abnormal))) == (245, 175)
    assert "there is the flawless cable in the scene." in normal
    assert "a black and white photo of a broken cable." in abnormal
    assert "a photo of the cool cable with damage." in abnormal


@pytest.mark.parametrize(
    ("domain", "sentence"),
    [
        ("object", "a manufacturing image of a small imperfect screw"),
        ("object", "an industrial photo of the screw with flaw for anomaly detection"),
        ("texture", "a cropped surface picture of a blemished screw"),
        ("texture", "a textural photo of the large abnormal screw"),
    ],
)
def test_anovl_has_66_templates_and_462_sentences_a_side(domain, sentence):
    lines = templates.anovl_templates(domain)
    assert len(set(lines)) == len(lines) == 66
    normal, abnormal = (
        templates.sentences(lines, states, "screw") for states in templates.ANOVL_STATES
    )
    assert len(set(normal)) == len(set(abnormal)) == 462
    assert sentence in abnormal and not any(text.endswith(".") for text in normal + abnormal)
    assert any(text.endswith(" normal screw") for text in normal)
