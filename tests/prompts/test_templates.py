"""Handcrafted sentences: counts, wording, and the average over an ensemble."""

import pytest
import torch

from faprompt.clip.spec import open_clip_module
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


def test_clip_compares_two_sentences_in_good_english():
    pair = [
        templates.sentences(templates.CLIP_TEMPLATES, states, "object")
        for states in templates.CLIP_STATES
    ]
    assert pair == [["a photo of a normal object."], ["a photo of an anomalous object."]]


ENSEMBLES = {  # templates, states, class, counts, some normal and some abnormal sentences
    "winclip": (
        templates.WINCLIP_TEMPLATES, templates.WINCLIP_STATES, "metal_nut", (22, 154, 88),
        {"a jpeg corrupted photo of the flawless metal nut.",
         "a photo of a small metal nut without defect."},
        {"a photo of the metal nut with damage for anomaly detection.",
         "a photo of a damaged metal nut for visual inspection."},
    ),
    "clip-ac": (
        templates.IMAGENET_TEMPLATES, templates.CLIP_AC_STATES, "object", (80, 80, 80),
        {"itap of my normal object."}, {"a bad photo of a anomalous object."},
    ),
    "april-gan": (
        templates.APRIL_TEMPLATES, templates.APRIL_STATES, "cable", (35, 245, 175),
        {"there is the flawless cable in the scene."},
        {"a black and white photo of a broken cable.", "a photo of the cool cable with damage."},
    ),
    "anovl object": (
        templates.anovl_templates("object"), templates.ANOVL_STATES, "screw", (66, 462, 462),
        {"a manufacturing image of the normal screw"},
        {"a manufacturing image of a small imperfect screw",
         "an industrial photo of the screw with flaw for anomaly detection"},
    ),
    "anovl texture": (
        templates.anovl_templates("texture"), templates.ANOVL_STATES, "screw", (66, 462, 462),
        {"a surface picture of the normal screw"},
        {"a cropped surface picture of a blemished screw",
         "a textural photo of the large abnormal screw"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_have_the_published_sentences(name):
    lines, states, class_name, counts, some_normal, some_abnormal = ENSEMBLES[name]
    normal, abnormal = (templates.sentences(lines, side, class_name) for side in states)
    for found, count in zip((lines, normal, abnormal), counts, strict=True):
        assert len(found) == len(set(found)) == count
    assert some_normal <= set(normal) and some_abnormal <= set(abnormal)
    stops = [text.endswith(".") for text in normal + abnormal]
    assert not any(stops) if name.startswith("anovl") else all(stops)


def test_an_ensemble_is_the_mean_of_unit_or_of_raw_features_made_unit(backbone):
    texts = templates.sentences(templates.WINCLIP_TEMPLATES[:3], ("{}", "damaged {}"), "nut")
    rows = [backbone.encode_texts([text])[0] for text in texts]
    features = backbone.encode_texts(texts)
    of_unit, of_raw = sum(row / row.norm() for row in rows), sum(rows)
    for wanted, average in ((of_unit, "norm-mean-norm"), (of_raw, "mean-norm")):
        ours = templates.mean_direction(features, average)
        torch.testing.assert_close(ours, wanted / wanted.norm(), rtol=0, atol=1e-5)
    default = templates.mean_direction(features)
    assert torch.equal(default, templates.mean_direction(features, "norm-mean-norm"))
    assert (of_unit / of_unit.norm() - of_raw / of_raw.norm()).abs().max() > 1e-4  # lengths differ


def test_an_ensemble_is_open_clips_zero_shot_classifier(backbone):
    """Its helper builds one direction a class; we build one a state."""
    from types import SimpleNamespace

    build_zero_shot_classifier = open_clip_module().build_zero_shot_classifier

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
