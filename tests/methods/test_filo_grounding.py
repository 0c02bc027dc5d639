"""FiLo with its position found: by its own map, and by a tiny Grounding DINO."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from faprompt.errors import ConfigError, ModelError
from faprompt.imaging.transform import Transform
from faprompt.methods.filo import _blur
from faprompt.methods.grounding import box_position, dim_outside
from faprompt.methods.registry import build_method
from faprompt.models import load_detector
from faprompt.prompts.descriptions import POSITIONS
from faprompt.records import Sample
from faprompt.scoring import unit
from faprompt.training.features import Encoder, Pictures
from faprompt.training.training_config import TrainingConfig
from tests.helpers import dino as tiny_dino
from tests.helpers import small
from tests.methods.suite import LearnedSuite
from tests.methods.test_coop import plain_text

SHORT = {"phrases": ("a flaw",), "context_tokens": 3, "adapter_epochs": 1}


class TestSelfGroundedSuite(LearnedSuite):
    name = "filo"
    parameters = (225_693_792, 225_693_792)
    options = {**SHORT, "grounding": "self"}
    official = False
    more_presets = ("common", "clean")
    stages = ((0, 2), (1, 2))
    pixel_map = True
    out_of_range = {"temperature": 0, "grounding_side": 0}
    exports = False  # its second look depends on where the first one's peak is


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return tiny_dino.write(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def options(folder):
    return {**SHORT, "grounding": "dino", "grounding_model": str(folder), "grounding_side": 64}


@torch.no_grad()
def look(method, pixels=None, **keywords):
    method.eval()
    features = method.encode_image(small.backbone(), small.pixels() if pixels is None else pixels)
    return features, method(features, small.backbone().text, **keywords)


def texts_at(method, class_token, position):
    """The pair of one image by its sentences alone."""
    rows = []
    learners = (method.normal_prompts, method.abnormal_prompts)
    for learner, lines in zip(learners, method.words.describe("object"), strict=True):
        if position is not None and learner is method.abnormal_prompts:
            lines = [line for line in lines if line.endswith(f" at {POSITIONS[position]}.")]
        context = learner(method.adapter(class_token[None]))[0]
        each = torch.stack([unit(plain_text(context, line)) for line in lines])
        rows.append(unit(each.mean(dim=0)))
    return torch.stack(rows)


@torch.no_grad()
def check(method, features, out, image):
    """Text, map before it is dimmed, and score of one image, from its position alone."""
    pair = texts_at(method, features.class_token[image], out.positions[image])
    torch.testing.assert_close(out.text_pair[image], pair, rtol=0, atol=1e-5)
    patch_map = _blur(out.layer_maps.mean(dim=0))[image]
    token = unit(method.adapter(features.class_token))[image]
    score = (token @ pair[1] / math.sqrt(2) + patch_map.max()) / 2
    torch.testing.assert_close(out.score[image], score.clamp(0, 1), rtol=0, atol=1e-5)
    return patch_map


class TestSelf:
    def test_the_position_is_the_peak_of_the_first_look(self):
        _, first = look(small.method("filo", **SHORT))
        method = small.method("filo", **SHORT, grounding="self")
        features, out = look(method)
        for image, score_map in enumerate(first.patch_map.numpy()):
            row, column = np.unravel_index(score_map.argmax(), score_map.shape)
            down, across = int(3 * (row + 0.5) / 56), int(3 * (column + 0.5) / 56)
            assert out.positions[image] == 3 * down + across
            patch_map = check(method, features, out, image)
            torch.testing.assert_close(out.patch_map[image], patch_map)
        assert first.positions == (None,) and len(set(out.positions)) > 1
        assert (out.patch_map - first.patch_map).abs().max() > 1e-4

    def test_features_without_pixels_are_not_grounded(self):
        plain, grounded = small.method("filo", **SHORT), small.method(
            "filo", **SHORT, grounding="self"
        )  # fmt: skip
        features, out = look(plain)
        assert features.pixels is None
        with torch.no_grad():
            seen = grounded.encode_image(small.backbone(), small.pixels())
            again = grounded(replace(seen, pixels=None), small.backbone().text)
        assert torch.equal(again.patch_map, out.patch_map) and torch.equal(again.score, out.score)
        assert again.positions == (None,)

    def test_training_keeps_no_pixels(self, tmp_path):
        Image.fromarray(small.picture()).save(tmp_path / "a.png")
        sample = Sample(image_path=tmp_path / "a.png", label=0, class_name="nut")
        method = small.method("filo", **SHORT, grounding="self")
        pictures = Pictures([sample], Transform(image_size=(small.SIDE, small.SIDE)))
        encoder = Encoder(method, small.backbone(), pictures, TrainingConfig())
        ((_, features),) = encoder.encode([0])
        assert features.pixels is None and list(features.patch_tokens) == [2, 4]


class TestDino:
    def test_position_texts_and_map_follow_the_boxes(self, options, monkeypatch):
        method = small.method("filo", **options)
        found = iter(
            [torch.tensor([[0.9, 0.1, 0.2, 0.2], [0.3, 0.5, 0.1, 0.4]]), torch.empty(0, 4),
             torch.tensor([[172.5 / 518, 0.5, 0.2, 0.2]])]
        )  # fmt: skip
        asked = []

        def find(pixels, phrases):
            asked.append((pixels, phrases))
            return next(found)

        monkeypatch.setattr(method._dino, "find", find)
        features, out = look(method)
        assert out.positions == (2, 4, None)
        for image in range(3):
            patch_map = check(method, features, out, image)
            dimmed = dim_outside(patch_map[None], [out.boxes[image]])[0]
            torch.testing.assert_close(out.patch_map[image], dimmed)
            assert torch.equal(asked[image][0], small.pixels()[image])
            assert asked[image][1] == ("a flaw",)
        torch.testing.assert_close(out.patch_map[1] / 0.7, check(method, features, out, 1))

    @pytest.mark.parametrize("slips", [True, False])
    def test_box_slips_reach_the_choice_and_the_map(self, options, monkeypatch, slips):
        method = small.method("filo", **options, box_slips=slips)
        assert method._dino.slips is slips
        monkeypatch.setattr(method._dino, "find", lambda *_: torch.tensor([[0.0, 0.5, 0.5, 0.5]]))
        features, out = look(method)
        wanted = 0.7 * check(method, features, out, 0)
        if not slips:  # from -14 to 14 pixels
            wanted[14:42, :14] /= 0.7
        torch.testing.assert_close(out.patch_map[0], wanted)

    def test_the_phrases_are_those_of_each_pictures_class(self, options, monkeypatch):
        method = small.method("filo", **{**options, "phrases": ()})
        asked = []
        monkeypatch.setattr(
            method._dino, "find", lambda _, phrases: asked.append(phrases) or torch.empty(0, 4)
        )
        look(method, class_names=["metal_nut", "", "pcb3"])
        look(method, class_names=["macaroni1", "macaroni2", "pcb4"])
        assert [words[:1] for words in asked] == [
            ("cracks",), (), ("oxidation on the copper traces",),
            ("uneven shape",), ("irregular shape",), ("oxidation on the copper traces",),
        ]  # fmt: skip

    def test_the_model_itself_speaks_and_alone_as_in_a_batch(self, options):
        method = small.method("filo", **options)
        _, out = look(method)
        assert out.positions == tuple(box_position(found) for found in out.boxes)
        assert sum(len(found) for found in out.boxes) > 0
        for image, pixels in enumerate(small.pixels()):
            _, alone = look(method, pixels[None])
            assert torch.equal(alone.boxes[0], out.boxes[image])
            torch.testing.assert_close(
                alone.patch_map[0], out.patch_map[image], rtol=0, atol=1e-5
            )  # fmt: skip

    def test_it_is_neither_saved_nor_trained_but_part_of_the_fingerprint(self, options, tmp_path):
        detector = small.detector("filo", **options)
        plain = small.detector("filo", **SHORT)
        assert set(detector.method.state_dict()) == set(plain.method.state_dict())
        assert detector.method.sources == (detector.method._dino.fingerprint,)
        assert plain.method.sources == () and detector.fingerprint() != plain.fingerprint()
        detector.save_pretrained(tmp_path / "model")
        loaded = load_detector(tmp_path / "model")
        image = small.picture(50, 70)
        mine, theirs = detector.predict(image), loaded.predict(image)
        assert mine.score == theirs.score and (mine.score_map == theirs.score_map).all()

    @pytest.mark.parametrize("kind", ["none", "self"])
    def test_a_model_folder_without_it_needs_no_weights(self, options, kind, folder, tmp_path):
        gone = {**options, "grounding": kind, "grounding_model": str(tmp_path / "gone")}
        detector = small.detector("filo", **gone)
        detector.save_pretrained(tmp_path / "model")
        image = small.picture(50, 70)
        assert (
            load_detector(tmp_path / "model").predict(image).score == detector.predict(image).score
        )

    def test_a_model_folder_with_it_says_what_is_missing(self, options, folder, tmp_path):
        moved = shutil.copytree(folder, tmp_path / "dino")
        detector = small.detector("filo", **{**options, "grounding_model": str(moved)})
        detector.save_pretrained(tmp_path / "model")
        shutil.rmtree(moved)
        with pytest.raises(ModelError, match=r"config\.json: grounding_model=.*no such folder"):
            load_detector(tmp_path / "model")


class TestRefusals:
    def test_a_grounding_nobody_knows(self):
        with pytest.raises(ConfigError, match="grounding: 'sam' is none of none, self, dino"):
            build_method("filo", small.backbone(), {"grounding": "sam"})

    def test_dino_without_a_model(self):
        with pytest.raises(ConfigError, match="grounding=dino wants grounding_model.*got none"):
            build_method("filo", small.backbone(), {"grounding": "dino"})
