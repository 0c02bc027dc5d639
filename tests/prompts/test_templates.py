"""Handcrafted sentences: counts, wording, and the average over an ensemble."""

import pytest
import torch

from faprompt.clip._open_clip import open_clip_module
from faprompt.clip.weights import load_backbone
from faprompt.prompts import templates


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
    ours = templates.ensemble(backbone, texts)
    torch.testing.assert_close(ours, mean / mean.norm(), rtol=0, atol=1e-5)
    plain = sum(rows) / len(rows)
    assert (ours - plain / plain.norm()).abs().max() > 1e-4  # lengths differ, so this is another
