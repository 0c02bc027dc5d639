"""One suite for every method: a child states the name and inherits the tests.

`LearnedSuite` is for methods that train, `TrainingFreeSuite` for those that do not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures
from faprompt.config import to_mapping
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.methods.base import Method, ParameterCount
from faprompt.methods.registry import (
    build_method,
    describe_methods,
    list_methods,
    method_class,
    preset_config,
)
from faprompt.models import load_detector
from faprompt.references import ReferenceBank, References
from tests.helpers import export, large, small


class NoDouble(TorchDispatchMode):
    """Refuses float64 tensors, as Apple's MPS does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        wide = [t for t in tree_leaves(made) if isinstance(t, Tensor) and t.dtype == torch.float64]
        assert not wide, f"{func} makes float64"
        return made


class MethodSuite:
    """What holds for all methods.

    `parameters` is how many move on the paper's backbone and how many its authors report,
    `prompts` how many prompt scores there are, `official` and `common` whether those presets
    exist, `more_presets` what others there are, `pixel_map` whether the patch map comes in
    pixels, `out_of_range` options of its own that should be refused, `class_name`
    what a picture may show, `exports` whether it can be traced with any number of pictures,
    `stacks_squares` whether its patches are those of several squares. `side` and `patch` are
    in pixels and go with `backbone`.
    """

    name: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    side: ClassVar[int] = small.SIDE
    patch: ClassVar[int] = 14
    kind: ClassVar[str]
    parameters: ClassVar[tuple[int, int]] = (0, 0)
    prompts: ClassVar[int] = 1
    class_name: ClassVar[str] = "pill"
    learns: ClassVar[bool]
    official: ClassVar[bool]
    common: ClassVar[bool] = True
    more_presets: ClassVar[tuple[str, ...]] = ()
    pixel_map: ClassVar[bool] = False
    out_of_range: ClassVar[dict[str, Any]] = {"temperature": 0}
    exports: ClassVar[bool] = True
    stacks_squares: ClassVar[bool] = False

    @classmethod
    def backbone(cls) -> Backbone:
        """What all tests run on."""
        return small.backbone()

    @classmethod
    def pixels(cls, count: int = 3, height: int = 0, width: int = 0) -> torch.Tensor:
        """Pictures of `side` unless told."""
        return small.pixels(count, height or cls.side, width or cls.side)

    @classmethod
    def build(cls, **options) -> Method:
        """A method whose parameters are no longer those its seed drew."""
        return small.method(cls.name, **{**cls.options, **options})

    @classmethod
    def build_large(cls) -> Method:
        """As in the paper, but without numbers."""
        return large.method(cls.name)

    @classmethod
    @cache
    def shared(cls) -> tuple[Detector, ImageFeatures]:
        """A detector for tests that do not change it, and its features of three pictures."""
        method = cls.build().eval()
        detector = Detector(cls.backbone(), method, name=f"small-{cls.name}")
        with torch.no_grad():
            return detector, method.encode_image(cls.backbone(), cls.pixels())

    @pytest.fixture
    def detector(self) -> Detector:
        return self.shared()[0]

    @pytest.fixture
    def features(self) -> ImageFeatures:
        return self.shared()[1]

    def map_size(self, rows: int, columns: int) -> tuple[int, int]:
        """What a patch map of so many patches measures."""
        return (rows * self.patch, columns * self.patch) if self.pixel_map else (rows, columns)

    def run(self, method: Method, features, **keywords):
        return method(features, self.backbone().text, **keywords)

    def test_it_is_in_the_list(self):
        row = next(row for row in describe_methods() if row["name"] == self.name)
        assert self.name in list_methods()
        assert row["kind"] == self.kind
        presets = [*["paper", "official"][: 1 + self.official], *self.more_presets]
        presets += ["common"] if self.common else []
        assert row["presets"] == list(dict.fromkeys(presets)) == list(row["backbones"])
        if self.common:
            assert row["backbones"]["common"] == "ViT-L-14-336"
            assert preset_config(self.name, "common").image_size == 518

    def test_it_has_as_many_parameters_as_published(self):
        live, reported = self.parameters
        assert sum(p.numel() for p in self.build_large().parameters()) == live
        assert method_class(self.name).parameters_at_full_size == ParameterCount(live, reported)
        row = next(row for row in describe_methods() if row["name"] == self.name)
        assert (row["parameters"], row["reported_parameters"]) == (live, reported)
        assert (live > 0) == self.learns

    def test_shapes_and_ranges(self, detector, features):
        with torch.no_grad():
            out = self.run(detector.method, features)
            scores, maps = detector(self.pixels())
        assert out.score.shape == scores.shape == (3,)
        cells = self.side // self.patch
        assert out.patch_map.shape == (3, *self.map_size(cells, cells))
        assert maps.shape == (3, self.side, self.side)
        for values in (out.score, out.patch_map, scores, maps):
            assert values.dtype == torch.float32
            assert values.min() >= 0 and values.max() <= 1
        assert scores.std() > 0 and maps.std() > 1e-4  # pictures and places differ

    def test_no_tensor_is_wider_than_apples_mps_allows(self, detector, monkeypatch):
        """`scoring._double` knows that MPS has no float64; nothing else may ask for it."""
        monkeypatch.setattr("faprompt.scoring._double", Tensor.float)
        with torch.no_grad(), NoDouble():
            detector(self.pixels())

    def test_alone_equals_in_a_batch(self, detector):
        pixels = self.pixels(4)
        with torch.no_grad():
            scores, maps = detector(pixels)
            alone = [detector(one[None]) for one in pixels]
        torch.testing.assert_close(scores, torch.cat([s for s, _ in alone]), rtol=0, atol=1e-5)
        torch.testing.assert_close(maps, torch.cat([m for _, m in alone]), rtol=0, atol=1e-5)

    def test_input_need_not_be_square(self, detector):
        rows, columns = self.side // self.patch, self.side // self.patch + 2
        height, width = rows * self.patch, columns * self.patch
        pixels = self.pixels(2, height, width)
        with torch.no_grad():
            output = detector.encode(pixels)
            _, maps = detector(pixels)
            _, turned = detector(pixels.mT)
        assert output.patch_map.shape == (2, *self.map_size(rows, columns))
        assert maps.shape == (2, height, width) and turned.shape == (2, width, height)

    def test_the_map_is_as_large_as_a_picture_that_is_not_square(self, detector):
        picture = small.picture(60, 140)
        found = [detector.predict(picture)]
        if detector.method.uses_class_names:
            found += detector.predict_batch([picture], class_names=[self.class_name])
        for result in found:
            assert 0 <= result.score <= 1
            assert result.score_map.shape == result.image_size == (60, 140)
            assert result.score_map.min() >= 0 and result.score_map.max() <= 1
            assert result.score_map.std() > 1e-5

    def test_masked_pixels_leave_score_map_and_references(self, detector):
        """To the bit, with tiles and references too."""
        image, mask = small.picture(60, 100), np.zeros((60, 100), np.bool_)
        mask[:40, 50:] = True
        changed, known = image.copy(), small.picture(60, 100, seed=1)
        changed[mask] = 255 - image[mask]
        masked = detector.with_setup(mask=mask, tiles=2)
        if self.stacks_squares:
            for refused in (masked.predict, masked.reference_tokens, detector.reference_tokens):
                with pytest.raises(ConfigError, match="reads a picture as several squares"):
                    refused(image)
            return
        tokens = masked.reference_tokens(known)
        known[mask] = 255 - known[mask]
        again = masked.reference_tokens(known)
        for part, other in zip(tokens, again, strict=True):
            assert all(np.array_equal(part[layer], other[layer]) for layer in part)
        memory = References({"": ReferenceBank.of({"known": tokens})})
        made = masked.with_setup(references=memory)
        first, second = made.predict(image), made.predict(changed)
        assert first.score == second.score and 0 <= first.score <= 1
        np.testing.assert_array_equal(first.score_map, second.score_map)
        assert first.score_map.shape == (60, 100) and np.isfinite(first.score_map).all()
        assert not first.score_map[mask].any() and first.score_map[~mask].min() >= 0
        assert first.score_map[~mask].std() > 1e-5

    def test_a_reference_has_half_the_score_of_its_text(self, detector):
        if self.stacks_squares:
            return
        known = small.picture(60, 60, seed=1)
        memory = ReferenceBank.of({"known": detector.reference_tokens(known)})
        made = detector.with_setup(references=References({"": memory}))
        plain, found = detector.predict(known), made.predict(known)
        assert found.score == pytest.approx(plain.score / 2, abs=0.02)
        np.testing.assert_allclose(found.score_map, plain.score_map / 2, rtol=0, atol=0.02)
        other = small.picture(60, 60, seed=2)
        assert made.predict(other).score > detector.predict(other).score / 2 + 0.02

    def test_one_tile_is_the_whole_picture_to_the_bit(self, detector):
        image = small.picture(60, 60)
        plain = detector.predict(image)
        tiled = detector.with_setup(tiles=1).predict(image)
        assert tiled.score == plain.score
        np.testing.assert_array_equal(tiled.score_map, plain.score_map)

    def test_saved_equals_loaded(self, detector, tmp_path):
        detector.save_pretrained(tmp_path / "model")
        loaded = load_detector(tmp_path / "model")
        with torch.no_grad():
            ours, theirs = detector(self.pixels()), loaded(self.pixels())
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
        assert loaded.method.config == detector.method.config
        assert loaded.name == detector.name
        assert not any(p.requires_grad for p in loaded.method.parameters())

    def test_options_survive_json(self, detector):
        config = detector.method.config
        plain = json.loads(json.dumps(to_mapping(config)))
        assert build_method(self.name, self.backbone(), plain).config == config

    def test_static_text_given_equals_computed(self, detector, features):
        with torch.no_grad():
            static = detector.method.static_text(self.backbone().text)
            given = self.run(detector.method, features, static=static)
            computed = self.run(detector.method, features)
        assert torch.equal(given.score, computed.score)
        assert torch.equal(given.patch_map, computed.patch_map)

    def test_the_tensor_door_gives_the_same_with_and_without_gradients(self, detector):
        scores, maps = detector(self.pixels())
        with torch.no_grad():
            still_scores, still_maps = detector(self.pixels())
        torch.testing.assert_close(scores.detach(), still_scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(maps.detach(), still_maps, rtol=0, atol=1e-6)

    def test_exported_before_any_prediction_it_gives_the_same(self):
        cold = Detector(self.backbone(), self.build().eval().requires_grad_(False), name="cold")
        assert bool(cold.method.export_obstacle) != (self.exports and not self.stacks_squares)
        if not self.exports:
            with pytest.raises(RuntimeError):
                export.export_cold(cold, self.pixels(2), open_batch=False)
            with torch.no_grad():
                found, wanted = cold(self.pixels(2)), self.shared()[0](self.pixels(2))
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
            return
        program = export.export_cold(cold, self.pixels(2))
        export.assert_equal_after_export(program, cold, self.shared()[0], self.pixels(5))

    def test_prompt_scores_come_on_request(self, detector, features):
        with torch.no_grad():
            assert self.run(detector.method, features).prompt_scores is None
            scores = self.run(detector.method, features, with_prompt_scores=True).prompt_scores
        assert scores.shape == (3, self.prompts)
        assert scores.min() >= 0 and scores.max() <= 1

    def test_the_seed_decides_and_the_global_state_is_left_alone(self):
        def draw(seed):
            method = build_method(self.name, self.backbone(), self.options, seed=seed)
            return [p.detach().clone() for p in method.parameters()]

        torch.manual_seed(42)
        before = torch.get_rng_state()
        first = draw(7)
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(5)  # what was drawn elsewhere must not matter
        assert all(torch.equal(a, b) for a, b in zip(first, draw(7), strict=True))
        pairs = zip(first, draw(8), strict=True)  # but for what begins as ones or zeros
        same = [torch.equal(a, b) for a, b in pairs if a.min() < a.max()]
        assert bool(same) == self.learns and not any(same)

    def test_no_part_of_the_backbone_is_the_methods_own(self):
        method = self.build()
        frozen = {id(p) for p in self.backbone().parameters()}
        assert not frozen & {id(p) for p in method.parameters()}
        assert set(method.state_dict()) == {name for name, _ in method.named_parameters()}
        assert not any(p.requires_grad for p in self.backbone().parameters())

    def test_unknown_options_are_refused_with_the_known_ones(self):
        with pytest.raises(ConfigError, match="unknown option 'sigma'.*Known: .*sigma_px"):
            build_method(self.name, self.backbone(), {"sigma": 4})

    def test_options_out_of_range_are_all_told(self):
        options = {"image_size": 0, "sigma_px": -1, **self.out_of_range}
        with pytest.raises(ConfigError) as caught:
            build_method(self.name, self.backbone(), options)
        for told in ("image_size should be at least 1", *(f"{name} should" for name in options)):
            assert told in str(caught.value)

    @pytest.mark.parametrize("sigma", [600.5, 1e308])
    def test_a_map_cannot_be_smoothed_by_more_than_its_size(self, sigma):
        with pytest.raises(ConfigError, match="sigma_px should be 0 to image_size=600, got"):
            build_method(self.name, self.backbone(), {"image_size": 600, "sigma_px": sigma})

    def test_unknown_presets_are_refused_with_the_known_ones(self):
        with pytest.raises(ConfigError, match="no preset 'mine'; known: paper"):
            build_method(self.name, self.backbone(), preset="mine")

    def test_an_image_size_that_does_not_split_into_patches_is_refused(self):
        low = 60 // self.patch * self.patch
        told = f"image_size=60 .*{self.patch}-pixel patches .*{low} or {low + self.patch} would"
        with pytest.raises(ConfigError, match=told):
            Detector(self.backbone(), self.build(image_size=60), name="odd")


class LearnedSuite(MethodSuite):
    """Methods whose parameters move; they state `parameters`."""

    learns = True
    kind = "learned"
    official = True
    stages: ClassVar[tuple[tuple[int, int], ...]] = ((0, 1),)  # epoch and epochs, one a stage
    steps: ClassVar[int] = 15  # that suffice to take a tenth off the loss

    def test_gradients_reach_every_parameter_and_nothing_else(self, features):
        method = self.build()
        assert method.learns
        reached = []
        for stage in self.stages:
            method.zero_grad()
            with self.untouched_backbone():
                self.step(method, features, [0, 1, 0], stage)
            for name, parameter in method.named_parameters():
                assert parameter.requires_grad == (parameter.grad is not None), (stage, name)
                if parameter.requires_grad:
                    assert parameter.grad.isfinite().all() and parameter.grad.any(), name
                    reached.append(name)
        assert sorted(reached) == sorted(name for name, _ in method.named_parameters())

    @pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
    def test_a_batch_of_one_kind_trains(self, features, labels):
        for stage in self.stages:
            terms = self.step(self.build(), features, labels, stage)
            assert all(term.ndim == 0 and term.isfinite() for term in terms.values())

    def test_one_step_lowers_the_loss_by_what_its_gradient_promises(self, features):
        """Plain descent on one batch, by a step that should take a thousandth off its loss."""
        for stage in self.stages:
            method = self.build()
            with self.untouched_backbone():
                before = self.step(method, features, [0, 1, 0], stage)
                moving = [p for p in method.parameters() if p.grad is not None]
                steepness = sum(float(p.grad.square().sum()) for p in moving)
                promised = 1e-3 * total(before)
                torch.optim.SGD(moving, lr=promised / steepness).step()
                after = self.step(method, features, [0, 1, 0], stage)
            lowered = total(before) - total(after)
            assert 0.5 * promised < lowered < 1.5 * promised, stage

    def test_learning_lowers_the_loss(self, features):
        for stage in self.stages:
            method = self.build()
            optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
            values = []
            with self.untouched_backbone():
                for _ in range(self.steps):
                    optimizer.zero_grad()
                    values.append(total(self.step(method, features, [0, 1, 0], stage)))
                    optimizer.step()
            assert values[-1] < 0.9 * values[0], stage

    @contextmanager
    def untouched_backbone(self) -> Iterator[None]:
        """What runs inside changes no bit of it and leaves no gradient there."""
        before = {key: value.clone() for key, value in self.backbone().state_dict().items()}
        yield
        for key, value in self.backbone().state_dict().items():
            assert torch.equal(value, before[key]), key
        assert all(p.grad is None for p in self.backbone().parameters())

    def step(
        self, method: Method, features, labels, stage: tuple[int, int] | None = None
    ) -> dict[str, torch.Tensor]:
        """Forward, loss, gradients, in the first stage or another."""
        masks = np.zeros((3, self.side, self.side), np.float32)
        masks[:, 10:30, 20:40] = np.array(labels, np.float32)[:, None, None]
        method.train().begin_epoch(*(stage or self.stages[0]))
        terms = method.loss(
            self.run(method, features), torch.tensor(labels), torch.from_numpy(masks)
        )
        sum(terms.values()).backward()
        return terms


def total(terms: dict[str, torch.Tensor]) -> float:
    """What is minimised."""
    return sum(term.item() for term in terms.values())


class TrainingFreeSuite(MethodSuite):
    """Methods that are used as they are."""

    learns = False
    kind = "training-free"
    official = False

    def test_there_is_nothing_to_train(self, features):
        method = self.build()
        output = self.run(method, features)
        assert not method.learns
        with pytest.raises(TypeError, match=f"'{self.name}' has no parameters to train"):
            method.loss(output, torch.zeros(3, dtype=torch.int64), torch.zeros(3, 56, 56))
