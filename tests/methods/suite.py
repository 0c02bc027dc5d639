"""One suite for every method: a child states the name and inherits the tests.

`LearnedSuite` is for methods that train, `TrainingFreeSuite` for those that do not.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from faprompt.clip.vision import ImageFeatures
from faprompt.config import to_mapping
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.methods.base import Method
from faprompt.methods.registry import build_method, describe_methods, list_methods
from faprompt.model_folder import load_detector
from tests.helpers import small


class MethodSuite:
    """What holds for all methods.

    `prompts` is how many prompt scores there are, `official` whether that preset exists,
    `more_presets` what others there are, `pixel_map` whether the patch map comes in pixels,
    `out_of_range` options of its own that should be refused.
    """

    name: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    prompts: ClassVar[int] = 1
    learns: ClassVar[bool]
    official: ClassVar[bool]
    more_presets: ClassVar[tuple[str, ...]] = ()
    pixel_map: ClassVar[bool] = False
    out_of_range: ClassVar[dict[str, Any]] = {"temperature": 0}

    @classmethod
    @cache
    def shared(cls) -> tuple[Detector, ImageFeatures]:
        """A detector for tests that do not change it, and its features of three pictures."""
        detector = small.detector(cls.name, **cls.options)
        with torch.no_grad():
            features = detector.method.encode_image(small.backbone(), small.pixels())
        return detector, features

    @pytest.fixture
    def detector(self) -> Detector:
        return self.shared()[0]

    @pytest.fixture
    def features(self) -> ImageFeatures:
        return self.shared()[1]

    def map_size(self, rows: int, columns: int) -> tuple[int, int]:
        """What a patch map of so many patches of 14 pixels measures."""
        return (rows * 14, columns * 14) if self.pixel_map else (rows, columns)

    def build(self, **options) -> Method:
        return small.method(self.name, **{**self.options, **options})

    def run(self, method: Method, features, **keywords):
        return method(features, small.backbone().text, **keywords)

    def test_it_is_in_the_list(self):
        row = next(row for row in describe_methods() if row["name"] == self.name)
        assert self.name in list_methods()
        assert row["kind"] == ("learned" if self.learns else "training-free")
        assert (row["parameters"] > 0) == self.learns
        assert row["presets"] == [*["paper", "official"][: 1 + self.official], *self.more_presets]

    def test_shapes_and_ranges(self, detector, features):
        with torch.no_grad():
            out = self.run(detector.method, features)
            scores, maps = detector(small.pixels())
        assert out.score.shape == scores.shape == (3,)
        assert out.patch_map.shape == (3, *self.map_size(4, 4)) and maps.shape == (
            3,
            small.SIDE,
            small.SIDE,
        )
        for values in (out.score, out.patch_map, scores, maps):
            assert values.dtype == torch.float32
            assert values.min() >= 0 and values.max() <= 1
        assert scores.std() > 0 and maps.std() > 1e-4  # pictures and places differ

    def test_alone_equals_in_a_batch(self, detector):
        pixels = small.pixels(4)
        with torch.no_grad():
            scores, maps = detector(pixels)
            alone = [detector(one[None]) for one in pixels]
        torch.testing.assert_close(scores, torch.cat([s for s, _ in alone]), rtol=0, atol=1e-5)
        torch.testing.assert_close(maps, torch.cat([m for _, m in alone]), rtol=0, atol=1e-5)

    def test_input_need_not_be_square(self, detector):
        pixels = small.pixels(2, 56, 84)
        with torch.no_grad():
            output = detector.encode(pixels)
            _, maps = detector(pixels)
            _, turned = detector(pixels.mT)
        assert output.patch_map.shape == (2, *self.map_size(4, 6))
        assert maps.shape == (2, 56, 84) and turned.shape == (2, 84, 56)

    def test_saved_equals_loaded(self, detector, tmp_path):
        detector.save_pretrained(tmp_path / "model")
        loaded = load_detector(tmp_path / "model")
        with torch.no_grad():
            ours, theirs = detector(small.pixels()), loaded(small.pixels())
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
        assert loaded.method.config == detector.method.config
        assert loaded.name == detector.name
        assert not any(p.requires_grad for p in loaded.parameters())

    def test_options_survive_json(self):
        config = self.build().config
        plain = json.loads(json.dumps(to_mapping(config)))
        assert build_method(self.name, small.backbone(), plain).config == config

    def test_static_text_given_equals_computed(self, detector, features):
        with torch.no_grad():
            static = detector.method.static_text(small.backbone().text)
            given = self.run(detector.method, features, static=static)
            computed = self.run(detector.method, features)
        assert torch.equal(given.score, computed.score)
        assert torch.equal(given.patch_map, computed.patch_map)

    def test_the_tensor_door_gives_the_same_with_and_without_gradients(self, detector):
        scores, maps = detector(small.pixels())
        with torch.no_grad():
            still_scores, still_maps = detector(small.pixels())
        torch.testing.assert_close(scores.detach(), still_scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(maps.detach(), still_maps, rtol=0, atol=1e-6)

    def test_prompt_scores_come_on_request(self, detector, features):
        with torch.no_grad():
            assert self.run(detector.method, features).prompt_scores is None
            scores = self.run(detector.method, features, with_prompt_scores=True).prompt_scores
        assert scores.shape == (3, self.prompts)
        assert scores.min() >= 0 and scores.max() <= 1

    def test_the_seed_decides_and_the_global_state_is_left_alone(self):
        def draw(seed):
            method = build_method(self.name, small.backbone(), self.options, seed=seed)
            return [p.detach().clone() for p in method.parameters()]

        torch.manual_seed(42)
        before = torch.get_rng_state()
        first = draw(7)
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(5)  # what was drawn elsewhere must not matter
        assert all(torch.equal(a, b) for a, b in zip(first, draw(7), strict=True))
        same = [torch.equal(a, b) for a, b in zip(first, draw(8), strict=True)]
        assert bool(same) == self.learns and not any(same)

    def test_no_part_of_the_backbone_is_the_methods_own(self):
        method = self.build()
        frozen = {id(p) for p in small.backbone().parameters()}
        assert not frozen & {id(p) for p in method.parameters()}
        assert set(method.state_dict()) == {name for name, _ in method.named_parameters()}
        assert not any(p.requires_grad for p in small.backbone().parameters())

    def test_unknown_options_are_refused_with_the_known_ones(self):
        with pytest.raises(ConfigError, match="unknown option 'sigma'.*Known: .*sigma_px"):
            build_method(self.name, small.backbone(), {"sigma": 4})

    def test_options_out_of_range_are_all_told(self):
        options = {"image_size": 0, "sigma_px": -1, **self.out_of_range}
        with pytest.raises(ConfigError) as caught:
            build_method(self.name, small.backbone(), options)
        for told in ("image_size should be at least 1", *(f"{name} should" for name in options)):
            assert told in str(caught.value)

    def test_unknown_presets_are_refused_with_the_known_ones(self):
        with pytest.raises(ConfigError, match="no preset 'mine'; known: paper"):
            build_method(self.name, small.backbone(), preset="mine")

    def test_an_image_size_that_does_not_split_into_patches_is_refused(self):
        with pytest.raises(ConfigError, match="image_size=60 .*14-pixel patches .*56 or 70 would"):
            small.detector(self.name, **{**self.options, "image_size": 60})


class LearnedSuite(MethodSuite):
    """Methods whose parameters move."""

    learns = True
    official = True

    def test_gradients_reach_every_parameter_and_nothing_else(self, features):
        method = self.build()
        before = {k: v.clone() for k, v in small.backbone().state_dict().items()}
        self.step(method, features, [0, 1, 0])
        assert method.learns
        for name, parameter in method.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name
        assert all(p.grad is None for p in small.backbone().parameters())
        for key, value in small.backbone().state_dict().items():
            assert torch.equal(value, before[key]), key

    @pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
    def test_a_batch_of_one_kind_trains(self, features, labels):
        terms = self.step(self.build(), features, labels)
        assert all(term.ndim == 0 and term.isfinite() for term in terms.values())

    def test_learning_lowers_the_loss(self, features):
        method = self.build()
        optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
        values = []
        for _ in range(15):
            optimizer.zero_grad()
            terms = self.step(method, features, [0, 1, 0])
            values.append(sum(term.item() for term in terms.values()))
            optimizer.step()
        assert values[-1] < 0.9 * values[0]

    def step(self, method: Method, features, labels) -> dict[str, torch.Tensor]:
        """Forward, loss, gradients."""
        masks = np.zeros((3, small.SIDE, small.SIDE), np.float32)
        masks[:, 10:30, 20:40] = np.array(labels, np.float32)[:, None, None]
        terms = method.loss(
            self.run(method, features), torch.tensor(labels), torch.from_numpy(masks)
        )
        sum(terms.values()).backward()
        return terms


class TrainingFreeSuite(MethodSuite):
    """Methods that are used as they are."""

    learns = False
    official = False

    def test_there_is_nothing_to_train(self, features):
        method = self.build()
        output = self.run(method, features)
        assert not method.learns
        with pytest.raises(TypeError, match=f"'{self.name}' has nothing to train"):
            method.loss(output, torch.zeros(3, dtype=torch.int64), torch.zeros(3, 56, 56))
