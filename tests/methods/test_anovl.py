"""AnoVL: the suite, its tokens, views and map, and an adapter that leaves nothing behind."""

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import roc_auc_score

from faprompt.clip.vision import ImageOptions
from faprompt.config import to_mapping
from faprompt.errors import ConfigError
from faprompt.evaluation import evaluate
from faprompt.explanation.picture_explanation import explain_picture
from faprompt.imaging import picture_views
from faprompt.imaging.picture_views import altered_views
from faprompt.methods import anovl
from faprompt.methods.registry import build_method, preset_config, preset_options
from faprompt.prompts import templates
from faprompt.scoring import pair_logits
from tests.evaluation import toys
from tests.helpers import small
from tests.methods.suite import TrainingFreeSuite


class AnoVLSuite(TrainingFreeSuite):
    name = "anovl"
    more_presets = ("common", "adapted", "visa", "visa-adapted")
    pixel_map = True


class TestSuite(AnoVLSuite):
    def test_exported_before_any_prediction_it_gives_the_same(self, monkeypatch):
        for name in ("ANGLES", "SHIFTS"):  # one view of each kind is enough
            monkeypatch.setattr(picture_views, name, getattr(picture_views, name)[:1])
        super().test_exported_before_any_prediction_it_gives_the_same()


class TestSuiteOfTheAdapter(AnoVLSuite):
    options = {"adapt_steps": 2, "views": False, "value_blocks": 1}
    exports = False  # it trains while it scores


class TestSuiteOfTwoSquares(AnoVLSuite):
    options = {"squares": True, "views": False}
    stacks_squares = True


def see(method, count=2, seed=0):
    with torch.no_grad():
        return method.encode_image(small.backbone(), small.pixels(count, seed=seed))


def run(method, features, **keywords):
    with torch.no_grad():
        return method(features, small.backbone().text, **keywords)


def test_the_codes_constants_and_presets():
    paper = {
        "image_size": 240, "sigma_px": 0.0,
        "picture_handling": "upright", "class_word": "object", "use_class_names": True,
        "average": "mean-norm", "temperature": 1.0, "interpolation": "bilinear",
        "position_filter": "bicubic", "value_blocks": 12, "views": True, "squares": False,
        "textures": templates.ANOVL_TEXTURES, "adapt_steps": 0, "adapter": "prompts",
        "learning_rate": 1e-3, "carry_moments": False, "seed": 111, "raw_class_names": True,
    }  # fmt: skip
    visa = {**paper, "squares": True, "views": False, "adapter": "linear", "seed": 42}
    wanted = {
        "paper": paper,
        "adapted": {**paper, "adapt_steps": 5},
        "visa": visa,
        "visa-adapted": {**visa, "adapt_steps": 5},
        "common": {
            **paper, "image_size": 518, "interpolation": "bicubic", "raw_class_names": False,
            "position_filter": "bilinear",
        },
    }  # fmt: skip
    assert {name: to_mapping(preset_config("anovl", name)) for name in wanted} == wanted
    for name in ("paper", "adapted", "visa", "visa-adapted"):  # a benchmark's identity holds it
        assert preset_options("anovl", name)["position_filter"] == "bicubic"
    assert small.detector("anovl").transform.interpolation == "bilinear"


def test_tokens_come_from_its_own_v_v_path():
    pixels = small.pixels(2)
    for blocks, clipped in ((12, 2), (2, 2), (1, 1)):
        ours = see(small.method("anovl", value_blocks=blocks, views=False))
        wanted = small.backbone().encode_image(pixels, ImageOptions(value_blocks=clipped))
        assert torch.equal(ours.patch_tokens[2], wanted.patch_tokens[2])
    with_all, with_one = (see(small.method("anovl", value_blocks=n, views=False)) for n in (2, 1))
    assert (with_all.patch_tokens[2] - with_one.patch_tokens[2]).abs().max() > 0.01
    assert torch.equal(with_all.class_token, with_one.class_token)


def test_without_v_v_blocks_it_is_the_original_stream():
    ours = see(small.method("anovl", value_blocks=0, views=False))
    plain = small.backbone().encode_image(
        small.pixels(2), ImageOptions(value_path=False, class_ln_post=True)
    )
    assert torch.equal(ours.class_token, plain.class_token)
    assert torch.equal(ours.patch_tokens[2], plain.patch_tokens[2])


def test_the_score_is_the_mean_over_22_views():
    method = small.method("anovl")
    pixels = small.pixels(2)
    scores = []
    for view in (pixels, *altered_views(pixels)):
        token = (
            small.backbone()
            .encode_image(view, ImageOptions(value_path=False, class_ln_post=True))
            .class_token
        )
        cosines = F.normalize(token, dim=-1) @ method.text_pair.T
        scores.append(cosines.softmax(dim=-1)[:, 1])
    assert len(scores) == 22
    out = run(method, see(method))
    torch.testing.assert_close(out.score, torch.stack(scores).mean(dim=0), rtol=0, atol=1e-6)
    alone = run(small.method("anovl", views=False), see(method))
    assert torch.equal(alone.score, out.score)  # the features decide
    alone = run(method, see(small.method("anovl", views=False)))
    torch.testing.assert_close(alone.score, scores[0], rtol=0, atol=1e-6)


def test_the_map_is_the_mean_of_nine_stretched_to_the_corners():
    method = small.method("anovl", views=False)
    features = see(method)
    cosines = F.normalize(features.patch_tokens[2], dim=-1) @ method.text_pair.T
    chance = cosines.softmax(dim=-1)[..., 1].reshape(2, 4, 4)
    mean = torch.zeros(2, 4, 4)
    for row in range(4):
        for column in range(4):
            near = [
                chance[:, min(max(row + y, 0), 3), min(max(column + x, 0), 3)]
                for y in (-1, 0, 1)
                for x in (-1, 0, 1)
            ]
            mean[:, row, column] = sum(near) / 9
    out = run(method, features)
    assert out.patch_map.shape == (2, 56, 56)
    torch.testing.assert_close(out.patch_map[:, ::55, ::55], mean[:, ::3, ::3], rtol=0, atol=1e-6)
    wanted = F.interpolate(mean[:, None], size=56, mode="bilinear", align_corners=True)[:, 0]
    torch.testing.assert_close(out.patch_map, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("raw", [True, False])
def test_textures_are_told_with_other_words(raw):
    method = small.method("anovl", textures=("carpet", "woven_cloth"), raw_class_names=raw)
    for name, domain in (
        ("woven_cloth", "texture"), ("woven cloth", "texture"), ("carpet", "texture"),
        ("tile", "object"),
    ):  # fmt: skip
        lines = templates.anovl_templates(domain)
        rows = []
        for states in templates.ANOVL_STATES:
            said = name if raw else name.replace("_", " ")
            texts = [line.format(state.format(said)) for state in states for line in lines]
            assert len(texts) == 462
            mean = small.backbone().encode_texts(texts).mean(dim=0)
            rows.append(mean / mean.norm())
        ours = method.class_pair(small.backbone().text, name)
        torch.testing.assert_close(ours, torch.stack(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize("squares", [False, True])
def test_the_position_filter_reaches_tokens_and_views(squares):
    """At the grid of the table itself no filter has an effect."""
    pixels = small.pixels(1, 84, 84)
    found = []
    for name in ("bilinear", "bicubic"):
        method = small.method("anovl", image_size=84, position_filter=name, squares=squares)
        with torch.no_grad():
            found.append(method.encode_image(small.backbone(), pixels))
    plain, cubic = found
    assert method.image_options.position_filter == "bicubic"  # part of every cache key
    assert (plain.patch_tokens[2] - cubic.patch_tokens[2]).abs().max() > 1e-3
    assert ((plain.views - cubic.views).abs().amax(dim=(0, 2)) > 1e-3).all()
    for features, name in zip(found, ("bilinear", "bicubic"), strict=True):
        wanted = small.backbone().encode_image(
            pixels, ImageOptions(value_path=False, class_ln_post=True, position_filter=name)
        )
        torch.testing.assert_close(features.views[:, 0], wanted.class_token, rtol=0, atol=1e-5)


class TestTwoSquares:
    def test_each_square_is_seen_alone_and_the_maps_are_joined(self):
        squares = small.method("anovl", squares=True, views=False)
        alone = small.method("anovl", views=False)
        pixels = small.pixels(2, 56, 80)
        left, right = pixels[..., :56], pixels[..., 24:]
        with torch.no_grad():
            seen = squares.encode_image(small.backbone(), pixels)
            parts = [run(alone, alone.encode_image(small.backbone(), x)) for x in (left, right)]
        out = run(squares, seen)
        torch.testing.assert_close(out.score, (parts[0].score + parts[1].score) / 2)
        maps = [part.patch_map for part in parts]
        wanted = torch.cat(
            [maps[0][..., :24], (maps[0][..., 24:] + maps[1][..., :32]) / 2, maps[1][..., 32:]],
            dim=-1,
        )
        torch.testing.assert_close(out.patch_map, wanted, rtol=0, atol=1e-6)
        with torch.no_grad():
            turned = squares.encode_image(small.backbone(), left.new_zeros(1, 3, 80, 56))
        assert run(squares, turned).patch_map.shape == (1, 80, 56)

    @pytest.mark.parametrize("shape", [(60, 90), (90, 60), (60, 60), (30, 200)])
    def test_pictures_of_any_shape_are_seen_by_their_shorter_edge(self, shape):
        """The map of squares, brought to the picture's size, equals `predict`'s."""
        detector = small.detector("anovl", squares=True, views=False, adapt_steps=1)
        image = small.picture(*shape)
        size = {
            (60, 90): (56, 84), (90, 60): (84, 56), (60, 60): (56, 56), (30, 200): (56, 373)
        }[shape]  # fmt: skip
        assert detector.model_size(shape) == size
        pixels = detector.to_pixels(image)
        assert pixels.shape == (3, *size)
        result = detector.predict(image)
        with torch.no_grad():
            score, score_map = detector(pixels[None])
        assert result.score == pytest.approx(float(score), abs=1e-6)
        assert score_map.shape == (1, *size) and result.score_map.shape == shape
        wanted = F.interpolate(score_map[None], size=shape, mode="bilinear")[0, 0]
        torch.testing.assert_close(torch.tensor(result.score_map), wanted, rtol=0, atol=1e-6)

    def test_pictures_of_several_shapes_come_in_one_batch(self):
        detector = small.detector("anovl", squares=True, views=False)
        images = [small.picture(60, 90, seed=1), small.picture(90, 60, seed=2)]
        together = detector.predict_batch(images, class_names=["pill", "tile"])
        for image, name, result in zip(images, ("pill", "tile"), together, strict=True):
            (alone,) = detector.predict_batch([image], class_names=[name])
            assert alone.score == pytest.approx(result.score, abs=1e-6)
            np.testing.assert_allclose(alone.score_map, result.score_map, atol=1e-6)
            assert result.score_map.shape == image.shape[:2]

    def test_explained_it_is_what_predict_says(self):
        detector = small.detector("anovl", squares=True, views=False)
        explained = explain_picture(detector, small.picture(60, 90))
        assert explained.model_size == (56, 84)
        assert explained.result.score == detector.predict(small.picture(60, 90)).score

    def test_maps_are_measured_in_the_shape_of_their_picture(self, tmp_path):
        """At the model's resolution a mask's shorter edge is 56 pixels, too."""
        detector = small.detector("anovl", squares=True, views=False, use_class_names=False)
        dataset = toys.dataset(tmp_path, classes=("mug",))
        maps, masks, scores = [], [], []
        for sample in dataset.samples:
            picture = Image.open(sample.image_path)
            truth = Image.new("L", picture.size)
            if sample.label:
                truth = Image.open(sample.mask_paths[0])
            with torch.no_grad():
                score, score_map = detector(detector.to_pixels(np.asarray(picture))[None])
            height, width = score_map.shape[1:]
            assert (height, width) == (56, picture.width * 56 // picture.height)
            truth = truth.resize((width, height), Image.Resampling.BILINEAR)
            maps.append(score_map.numpy().ravel())
            masks.append(np.asarray(truth).ravel() > 127)
            scores.append(float(score))
        found = evaluate(detector, dataset)
        assert [image.score for image in found.images] == pytest.approx(scores, abs=1e-6)
        wanted = roc_auc_score(np.concatenate(masks), np.concatenate(maps))
        assert found.mean["pixel_auroc"] == pytest.approx(wanted, abs=1e-4)


def test_both_folders_of_macaroni_are_macaroni():
    method = small.method("anovl")
    features = see(method)
    one = run(method, features, class_names=["macaroni1", "macaroni2"])
    other = run(method, features, class_names=["macaroni", "macaroni"])
    assert torch.equal(one.patch_map, other.patch_map)


class TestAdaptation:
    @pytest.mark.parametrize(
        ("width", "adapter", "count"),
        [(640, "prompts", 592_284), (768, "prompts", 710_556), (640, "linear", 410_240)],
    )
    def test_as_many_parameters_as_the_code_trains(self, width, adapter, count):
        weights = anovl.draw_adapter(width, adapter, torch.Generator().manual_seed(0))
        assert sum(w.numel() for w in weights) == count

    @pytest.mark.parametrize("adapter", ["prompts", "linear"])
    def test_tokens_move_as_the_equations_say(self, adapter):
        """The same steps with a torch module and its own AdamW."""
        steps, text = 3, small.backbone().text
        options = {"adapt_steps": steps, "adapter": adapter, "temperature": 0.02}
        method = small.method("anovl", **options, views=False)
        tokens = see(method).patch_tokens[2][0]
        pair = method.class_pair(text, "pill")
        rows = torch.cat(method.state_features(text, "pill"))
        words = rows / rows.norm(dim=1, keepdim=True)
        assert words.shape == (924, 64)
        draw = torch.Generator().manual_seed(111)
        layer = torch.nn.Linear(64, 924 if adapter == "prompts" else 64)
        with torch.no_grad():
            for parameter in (layer.weight, layer.bias):
                parameter.uniform_(-(64**-0.5), 64**-0.5, generator=draw)

        def moved(x):
            made = layer(x / x.norm(dim=1, keepdim=True))
            return 0.5 * x + 0.5 * (torch.tanh(made) @ words if adapter == "prompts" else made)

        def chances(x):
            y = moved(x)
            return (y / y.norm(dim=1, keepdim=True) @ pair.T / 0.02).softmax(dim=1)

        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.01)
        for _ in range(steps):
            p, q = chances(tokens), chances(tokens + 0.055 * torch.randn(16, 64, generator=draw))
            loss = -(p * p.log()).sum(dim=1).mean()
            loss = loss + 0.5 * (-q[:, 1].log() - p[:, 0].log()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ours = method.adapt(tokens, text, "pill", anovl.PatchLayout((4, 4), 14))
        # AdamW turns the rounding of near-zero gradients into whole steps, hence the tolerance
        torch.testing.assert_close(ours, moved(tokens).detach(), rtol=0, atol=1e-3)
        assert (ours - tokens).abs().max() > 0.1

    def test_steps_lower_its_loss(self):
        method = small.method("anovl", views=False)
        tokens, draw = see(method).patch_tokens[2][0], torch.Generator().manual_seed(3)
        noised = tokens + 0.5 * torch.randn(tokens.shape, generator=draw)
        words = F.normalize(torch.randn(924, 64, generator=draw), dim=1)
        weights = [w.requires_grad_() for w in anovl.draw_adapter(64, "prompts", draw)]
        optimizer, found = torch.optim.AdamW(weights, lr=1e-3), []
        for _ in range(10):
            clean, other = (
                pair_logits(anovl.move(x, weights, words)[None], method.text_pair, temperature=0.01)
                for x in (tokens, noised)
            )
            loss = anovl.adaptation_loss(clean[0], other[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        assert found[-1] < 0.9 * found[0]

    @pytest.mark.parametrize("adapter", ["prompts", "linear"])
    def test_gradients_reach_the_adapter_and_nothing_else(self, adapter, monkeypatch):
        """Though tokens, pair and the whole text tower would take one."""
        method = small.method("anovl", adapt_steps=1, adapter=adapter, views=False)
        text = deepcopy(small.backbone().text).requires_grad_()
        tokens = see(method).patch_tokens[2][0].requires_grad_()
        pair = method.class_pair(text, "pill").requires_grad_()
        drawn, draw = [], anovl.draw_adapter
        monkeypatch.setattr(method, "class_pair", lambda *_: pair)
        monkeypatch.setattr(anovl, "draw_adapter", lambda *a: drawn.extend(draw(*a)) or drawn)
        out = method.adapt(tokens, text, "pill", anovl.PatchLayout((4, 4), 14))
        assert not out.requires_grad and len(drawn) == 2
        assert all(weight.grad.any() for weight in drawn)
        for leaf in (tokens, pair, *text.parameters()):
            assert leaf.is_leaf and leaf.grad is None

    def test_nothing_is_left_behind(self):
        method = small.method("anovl", adapt_steps=2, views=False)
        first = run(method, see(method, 1)).patch_map
        run(method, see(method, 1, seed=9))
        assert torch.equal(run(method, see(method, 1)).patch_map, first)
        assert method._moments == {}

    def test_each_class_has_moments_of_its_own(self):
        """Though macaroni1 and macaroni2 are called the same in all sentences."""
        method = small.method("anovl", adapt_steps=2, views=False, carry_moments=True)
        features = see(method, 1)
        first = run(method, features, class_names=["macaroni1"]).patch_map
        second = run(method, features, class_names=["macaroni2"]).patch_map
        third = run(method, features, class_names=["macaroni1"]).patch_map
        assert torch.equal(first, second) and (first - third).abs().max() > 1e-6
        assert set(method._moments) == {"macaroni1", "macaroni2"}

    def test_moments_are_carried_where_asked(self):
        method = small.method("anovl", adapt_steps=2, views=False, carry_moments=True)
        features = see(method, 1)
        first, second = run(method, features).patch_map, run(method, features).patch_map
        assert (first - second).abs().max() > 1e-6
        plain = run(small.method("anovl", adapt_steps=2, views=False), features).patch_map
        assert torch.equal(first, plain)
        other_class = run(method, features, class_names=["pill"]).patch_map
        alone = small.method("anovl", adapt_steps=2, views=False)
        assert torch.equal(other_class, run(alone, features, class_names=["pill"]).patch_map)

    def test_it_works_inside_inference_mode(self):
        detector = small.detector("anovl", adapt_steps=1, views=False)
        image = small.picture()
        adapted = detector.predict(image)
        plain = small.detector("anovl", views=False).predict(image)
        assert adapted.score == plain.score  # the class token is not adapted
        assert abs(adapted.score_map - plain.score_map).max() > 1e-4


def test_options_out_of_range_are_refused():
    options = {"value_blocks": -1, "adapt_steps": -2, "learning_rate": 0}
    with pytest.raises(ConfigError) as caught:
        build_method("anovl", small.backbone(), options)
    for told in ("value_blocks should be at least 0, got -1", "adapt_steps should be",
                 "learning_rate should be above 0"):  # fmt: skip
        assert told in str(caught.value)
    with pytest.raises(ConfigError, match="carry_moments wants adapt_steps above 0"):
        build_method("anovl", small.backbone(), {"carry_moments": True})
