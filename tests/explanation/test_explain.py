"""The parts of a score: they are those of `predict`, and they make it again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from faprompt.errors import ConfigError
from faprompt.explanation import Vocabulary, explain_picture
from faprompt.scoring import unit
from tests.helpers import small

LEARNED = {
    "faprompt": {"prompts": 3},
    "anomalyclip": {},
    "anomalyclip-ensemble": {"prompts": 3, "map_layers": (1, 2)},
}
PAIRS = ("clip", "clip-ac", "coop", "cocoop", "tcp-v1")  # whose parts are known
PLAIN = {name: {} for name in (*PAIRS, "april-gan", "anovl", "filo")}


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(small.backbone())


def explain(vocabulary, name="faprompt", image=None, threshold=None, **options):
    detector = small.detector(name, **options)
    image = small.picture() if image is None else image
    found = explain_picture(detector, image, vocabulary=vocabulary, threshold=threshold)
    return detector, found


@pytest.mark.parametrize("name", [*LEARNED, *PLAIN])
def test_the_explained_result_is_predicts_bit_for_bit(vocabulary, name):
    options = {**LEARNED, **PLAIN}[name]
    detector, found = explain(vocabulary, name, threshold=0.4, **options)
    plain = detector.predict(small.picture(), threshold=0.4)
    assert found.result.score == plain.score
    np.testing.assert_array_equal(found.result.score_map, plain.score_map)
    assert (found.result.verdict, found.result.regions) == (plain.verdict, plain.regions)
    with_prompts = detector.predict(small.picture(), with_prompt_scores=True)
    assert found.result.prompt_scores == with_prompts.prompt_scores


@pytest.mark.parametrize("name", [*LEARNED, *PAIRS])
def test_the_parts_make_the_score_again(vocabulary, name):
    _, found = explain(vocabulary, name, **{**LEARNED, **PLAIN}[name])
    made = sum(term.weight * term.value for term in found.terms)
    assert made == pytest.approx(found.result.score, abs=1e-6)
    assert sum(term.weight for term in found.terms) == pytest.approx(1)
    assert found.joined().endswith(f"= {found.result.score:.4f}")


def test_the_parts_of_faprompt_are_those_of_its_formula(vocabulary):
    _, found = explain(vocabulary, prompts=3, coarse_share=0.75)
    coarse, refined = found.stages.values()
    assert [term.weight for term in found.terms] == pytest.approx([0.5, 0.375, 0.125])
    assert found.terms[1].value == pytest.approx(coarse.max())
    assert found.terms[2].value == pytest.approx(refined.max())
    np.testing.assert_allclose(found.fused, (coarse + refined) / 2, atol=1e-6)
    assert abs(coarse - refined).max() > 1e-3  # the prior did something


def test_without_a_second_pass_there_is_one_map_and_no_prior(vocabulary):
    _, found = explain(vocabulary, prompts=3, refine=False)
    assert (found.stages, found.patches) == ({}, ())
    assert [term.weight for term in found.terms] == [0.5, 0.5]
    assert found.terms[1].value == pytest.approx(found.fused.max())
    assert all(prompt.shifted_words == () for prompt in found.prompts)
    assert any("no prior" in note for note in found.notes())


def test_maps_of_the_prompts_join_into_the_fused_map_as_the_texts_do(vocabulary):
    """The prototype's cosine is a sum of the prompts', weighted by the length of their texts."""
    detector = small.detector("anomalyclip-ensemble", prompts=3)
    _, output, parts = detector.explain(small.picture())
    texts, temperature = output.text.abnormal, detector.method.config.temperature
    features = detector.method.encode_image(
        detector.backbone, detector.to_pixels(small.picture())[None]
    )
    normal = unit(features.patch_tokens[max(features.patch_tokens)][0]) @ unit(output.text.pair[0])
    cosines = parts.prompt_maps[0].flatten(1).logit() * temperature + normal  # of each prompt
    share = texts.norm(dim=-1) / len(texts) / texts.mean(dim=0).norm()
    joined = ((share @ cosines - normal) / temperature).sigmoid()
    torch.testing.assert_close(joined, output.patch_map[0].flatten(), atol=1e-5, rtol=0)
    mean = parts.prompt_maps[0].mean(dim=0).flatten()
    assert (mean - joined).abs().max() > 1e-3  # which is not their mean


def test_maps_of_faprompts_prompts_come_from_both_passes(vocabulary):
    detector = small.detector(prompts=3)
    _, output, parts = detector.explain(small.picture())
    features = detector.method.encode_image(
        detector.backbone, detector.to_pixels(small.picture())[None]
    )
    tokens = features.patch_tokens[max(features.patch_tokens)][0]
    for number in range(3):
        passes = [
            (unit(tokens) @ torch.stack([unit(output.normal_text), unit(text)]).T / 0.07)
            .softmax(dim=-1)[:, 1]
            for text in (output.abnormal_text[number], output.refined_text[0, number])
        ]  # fmt: skip
        wanted = torch.stack(passes).mean(dim=0)
        torch.testing.assert_close(parts.prompt_maps[0, number].flatten(), wanted)


@pytest.mark.parametrize("name", ["faprompt", "anomalyclip", "anomalyclip-ensemble"])
def test_one_prompt_alone_is_the_fused_map(vocabulary, name):
    options = {} if name == "anomalyclip" else {"prompts": 1}
    _, found = explain(vocabulary, name, **options)
    (prompt,) = found.prompts
    np.testing.assert_allclose(prompt.grid, found.fused, atol=1e-6)
    assert prompt.score == pytest.approx(found.result.score, abs=1e-6)


def test_maps_of_several_layers_are_stages(vocabulary):
    _, found = explain(vocabulary, "anomalyclip-ensemble", prompts=2, map_layers=(1, 2))
    assert list(found.stages) == ["of block 1", "of block 2"]
    np.testing.assert_allclose(found.fused, np.mean(list(found.stages.values()), axis=0), atol=1e-6)


@pytest.mark.parametrize("size", [(60, 80), (90, 33)])
def test_patches_are_listed_in_the_priors_order_and_in_pixels(vocabulary, size):
    detector, found = explain(vocabulary, prompts=2, patches=5, image=small.picture(*size))
    output = detector.explain(small.picture(*size))[1]
    rows, columns = found.fused.shape
    assert [p.row * columns + p.column for p in found.patches] == output.selected[0].tolist()
    assert [p.rank for p in found.patches] == [1, 2, 3, 4, 5]
    height, width = size
    before = next(iter(found.stages.values()))
    for patch in found.patches:
        x0, y0, x1, y1 = patch.box
        assert abs((x0 + x1) / 2 - (patch.column + 0.5) * width / columns) <= 1
        assert abs((y0 + y1) / 2 - (patch.row + 0.5) * height / rows) <= 1
        assert patch.chance == pytest.approx(float(before[patch.row, patch.column]))


def test_the_words_are_those_of_the_learned_vectors(vocabulary):
    detector = small.detector(prompts=2)
    tokens = detector.method.prompts.abnormal_tokens
    (number,) = detector.backbone.tokenizer.ids("cracked")
    with torch.no_grad():
        tokens[1, 0] = detector.backbone.text.token_embedding.weight[number]
    detector.refresh()
    found = explain_picture(detector, small.picture(), vocabulary=vocabulary)
    assert found.prompts[1].words[0][0].word == "cracked"
    assert len(found.context_words) == 5 and len(found.prompts[0].words) == 2
    prior = detector.explain(small.picture())[1].prior
    wanted = vocabulary.nearest((tokens + prior[0])[1], 3)
    assert list(found.prompts[1].shifted_words) == wanted


@pytest.mark.parametrize("name", PLAIN)
def test_methods_without_prompts_give_what_they_have(vocabulary, name):
    _, found = explain(vocabulary, name, **PLAIN[name])
    assert (found.prompts, found.patches, found.has_words) == ((), (), False)
    assert any(f"{name} has no abnormality prompts" in note for note in found.notes())
    unreported = f"{name} does not report the terms of its score."
    assert (unreported in found.notes()) == (not found.terms) == (name not in PAIRS)


def test_the_dictionary_holds_all_and_is_json(vocabulary):
    _, found = explain(vocabulary, prompts=2, threshold=0.1)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["score"] == found.result.score and told["verdict"] == "NG"
    assert sum(t["part"] for t in told["score_terms"]) == pytest.approx(told["score"], abs=1e-6)
    np.testing.assert_allclose(told["maps"]["fused"], found.fused, atol=1e-6)
    np.testing.assert_allclose(told["prompts"][1]["map"], found.prompts[1].grid, atol=1e-6)
    assert len(told["patches"]) == 10 and told["patches"][0]["box"] == [*found.patches[0].box]
    words = told["prompts"][0]["nearest_words"]
    assert words[0][0]["word"] == found.prompts[0].words[0][0].word
    assert vocabulary.caution() in told["notes"]


def test_the_drawn_map_is_the_score_map(vocabulary):
    _, found = explain(vocabulary, prompts=2)
    drawn = found.render(found.fused, found.result.image_size)
    np.testing.assert_allclose(drawn, found.result.score_map, atol=1e-6)


def test_pictures_seen_as_several_tiles_are_refused(vocabulary):
    detector = small.detector("winclip", windows=(2,))
    square = explain_picture(detector, small.picture(64, 64), vocabulary=vocabulary)
    assert square.result.score == detector.predict(small.picture(64, 64)).score
    with pytest.raises(ConfigError, match="picture of 80x60 as several squares.*tiles=false"):
        explain_picture(detector, small.picture(60, 80), vocabulary=vocabulary)
