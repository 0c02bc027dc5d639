"""CLIP without learning: the suite, its sentences, and its roads through the image tower."""

import pytest
import torch

from faprompt.clip.vision import ImageOptions
from faprompt.config import to_mapping
from faprompt.errors import ConfigError
from faprompt.methods.registry import build_method, preset_config
from faprompt.prompts import templates
from faprompt.scoring import abnormal_probability
from tests.helpers import small
from tests.methods.suite import TrainingFreeSuite


class PlainSuite(TrainingFreeSuite):
    more_presets = ("common",)


class TestSuiteOfOnePhoto(PlainSuite):
    name = "clip"


class TestSuiteOfTheEnsemble(PlainSuite):
    name = "clip-ac"


class TestSuiteOfSeveralLayers(PlainSuite):
    name = "clip-ac"
    options = {"map_layers": (1, 2), "prompt_set": "april-gan", "average": "mean-norm"}


class TestSuiteOfTheValuePath(PlainSuite):
    name = "clip"
    options = {"value_path": True, "class_ln_post": True, "prompt_set": "winclip"}


def encode(**keywords):
    with torch.no_grad():
        return small.backbone().encode_image(small.pixels(), ImageOptions(**keywords))


def output(name="clip", class_names=None, **options):
    method = small.method(name, **options)
    features = encode(**to_mapping(method.image_options))
    return method(features, small.backbone().text, class_names=class_names)


def test_presets():
    paper = {
        "image_size": 518, "sigma_px": 4.0,
        "picture_handling": "upright", "class_word": "object", "use_class_names": True,
        "raw_class_names": True, "average": "norm-mean-norm", "temperature": 0.07,
        "prompt_set": "clip", "value_path": False, "class_ln_post": False, "map_layers": (),
    }  # fmt: skip
    common = {**paper, "class_ln_post": True, "raw_class_names": False}
    for name in ("clip", "clip-ac"):
        assert to_mapping(preset_config(name, "paper")) == {**paper, "prompt_set": name}
        assert to_mapping(preset_config(name, "common")) == {**common, "prompt_set": name}


def test_clip_compares_pictures_with_two_sentences():
    texts = ["a photo of a normal object.", "a photo of an anomalous object."]
    pair = small.backbone().encode_texts(texts)
    plain = encode(value_path=False)
    out = output()
    wanted = abnormal_probability(plain.class_token[:, None], pair)[:, 0]
    torch.testing.assert_close(out.score, wanted)
    wanted = abnormal_probability(plain.patch_tokens[2], pair).reshape(3, 4, 4)
    torch.testing.assert_close(out.patch_map, wanted)


@pytest.mark.parametrize(
    ("prompt_set", "lines", "count"),
    [("clip-ac", templates.IMAGENET_TEMPLATES, 80), ("april-gan", templates.APRIL_TEMPLATES, 35)],
)
def test_clip_ac_compares_with_many_sentences_a_side(prompt_set, lines, count):
    assert len(lines) == count
    rows = []
    for word in ("normal", "anomalous"):
        texts = [line.format(f"{word} object") for line in lines]
        features = torch.nn.functional.normalize(small.backbone().encode_texts(texts), dim=-1)
        rows.append(features.mean(dim=0))
    wanted = abnormal_probability(encode(value_path=False).class_token[:, None], torch.stack(rows))
    torch.testing.assert_close(output("clip-ac", prompt_set=prompt_set).score, wanted[:, 0])


@pytest.mark.parametrize(
    ("options", "nut", "cell"),
    [({}, "metal_nut", "elpv"), ({"raw_class_names": False}, "metal nut", "solar cell"),
     ({"use_class_names": False}, "object", "object")],
)  # fmt: skip
def test_each_picture_is_compared_with_its_class(options, nut, cell):
    found = output(class_names=["metal_nut", "elpv", ""], **options).score
    tokens = encode(value_path=False).class_token
    for row, name in enumerate((nut, cell, "object")):
        texts = [f"a photo of a normal {name}.", f"a photo of an anomalous {name}."]
        pair = small.backbone().encode_texts(texts)
        wanted = abnormal_probability(tokens[row, None, None], pair)[0, 0]
        torch.testing.assert_close(found[row], wanted)


def test_the_map_of_several_layers_is_their_mean():
    first, last = (output(map_layers=(layer,)).patch_map for layer in (1, 2))
    assert (first - last).abs().max() > 1e-3 and torch.equal(last, output().patch_map)
    both = output(map_layers=(2, 1, 1))
    torch.testing.assert_close(both.patch_map, (first + last) / 2)
    assert torch.equal(both.score, output().score)


def test_layers_beyond_the_tower_are_refused():
    with pytest.raises(ConfigError, match=r"map_layers should lie in 1..2, got \(2, 3\)"):
        build_method("clip", small.backbone(), {"map_layers": (2, 3)})


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
    with pytest.raises(ConfigError, match="'openai' is none of clip, clip-ac, winclip, april-gan"):
        build_method("clip", small.backbone(), {"prompt_set": "openai"})
