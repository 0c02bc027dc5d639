"""CLIP without learning: the suite, and its two roads through the image tower."""

import pytest
import torch

from faprompt.errors import ConfigError
from faprompt.methods.registry import build_method
from faprompt.prompts import templates
from faprompt.scoring import abnormal_probability
from tests.helpers import small
from tests.methods.suite import TrainingFreeSuite


class TestSuiteOfOnePhoto(TrainingFreeSuite):
    name = "clip"


class TestSuiteOfTheEnsemble(TrainingFreeSuite):
    name = "clip-ac"


class TestSuiteOfTheValuePath(TrainingFreeSuite):
    name = "clip"
    options = {"value_path": True, "class_ln_post": True, "prompt_set": "winclip"}


def encode(**keywords):
    with torch.no_grad():
        return small.backbone().encode_image(small.pixels(), **keywords)


def output(name="clip", **options):
    method = small.method(name, **options)
    features = encode(value_path=method.value_path, class_ln_post=method.class_ln_post)
    return method(features, small.backbone().text)


def test_clip_compares_pictures_with_two_sentences():
    texts = ["a photo of a normal object.", "a photo of an anomalous object."]
    pair = small.backbone().encode_texts(texts)
    plain = encode(value_path=False)
    out = output()
    wanted = abnormal_probability(plain.class_token[:, None], pair)[:, 0]
    torch.testing.assert_close(out.score, wanted)
    wanted = abnormal_probability(plain.patch_tokens[2], pair).reshape(3, 4, 4)
    torch.testing.assert_close(out.patch_map, wanted)


def test_clip_ac_compares_with_eighty_sentences_a_side():
    rows = []
    for word in ("normal", "anomalous"):
        texts = [line.format(f"{word} object") for line in templates.IMAGENET_TEMPLATES]
        features = torch.nn.functional.normalize(small.backbone().encode_texts(texts), dim=-1)
        rows.append(features.mean(dim=0))
    wanted = abnormal_probability(encode(value_path=False).class_token[:, None], torch.stack(rows))
    torch.testing.assert_close(output("clip-ac").score, wanted[:, 0])


def test_the_class_word_is_in_the_sentences():
    scores = output().score
    assert (output(class_word="bottle").score - scores).abs().max() > 1e-5
    assert torch.equal(output(class_word="object").score, scores)


def test_the_value_path_changes_the_map_and_the_last_norm_the_score():
    plain, value, normed = output(), output(value_path=True), output(class_ln_post=True)
    torch.testing.assert_close(plain.score, value.score)
    assert (plain.patch_map - value.patch_map).abs().max() > 1e-3
    assert torch.equal(plain.patch_map, normed.patch_map)
    assert (plain.score - normed.score).abs().max() > 1e-4


def test_unknown_prompt_sets_are_refused():
    with pytest.raises(ConfigError, match="'openai' is none of clip, clip-ac, winclip"):
        build_method("clip", small.backbone(), {"prompt_set": "openai"})
