"""Both doors of a detector, on a small drawn backbone."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from faprompt.clip.weights import load_backbone
from faprompt.detector import Detector
from faprompt.errors import ImageReadError, ModelError
from faprompt.records import Region
from faprompt.results import AnomalyResult
from tests.helpers import small


@pytest.fixture(scope="module")
def detector():
    return small.detector()


def same(first: AnomalyResult, second: AnomalyResult) -> None:
    assert first.score == second.score
    np.testing.assert_array_equal(first.score_map, second.score_map)


def close(first: AnomalyResult, second: AnomalyResult) -> None:
    assert first.score == pytest.approx(second.score, abs=1e-5)
    np.testing.assert_allclose(first.score_map, second.score_map, rtol=0, atol=1e-5)


class TestPredict:
    def test_every_kind_of_picture_gives_the_same(self, detector, tmp_path):
        path, array = small.picture_file(tmp_path / "part.png"), small.picture()
        wanted = detector.predict(array)
        memory = io.BytesIO()
        Image.fromarray(array).save(memory, "PNG")
        for source in (path, str(path), path.read_bytes(), memory.getvalue(), Image.open(path)):
            same(detector.predict(source), wanted)

    @pytest.mark.parametrize("threshold", [None, 0.5])
    def test_a_score_that_is_no_number_is_refused_with_the_reason(self, threshold):
        detector = small.detector()
        with torch.no_grad():
            detector.method.prompts.normal_context.fill_(float("inf"))
        detector.refresh()
        with pytest.raises(ModelError, match="small-faprompt gives a score that is no number"):
            detector.predict(small.picture(), threshold=threshold)

    def test_grey_arrays_are_pictures_too(self, detector):
        grey = small.picture()[..., 0]
        same(detector.predict(grey), detector.predict(np.stack([grey] * 3, axis=-1)))

    def test_a_result_is_whole_and_in_the_pictures_own_size(self, detector):
        result = detector.predict(small.picture(61, 83))
        assert result.image_size == result.score_map.shape == (61, 83)
        assert result.score_map.dtype == np.float32
        assert result.score_map.min() >= 0 and result.score_map.max() <= 1
        assert result.score_map.std() > 1e-3
        assert 0 <= result.score <= 1 and isinstance(result.score, float)
        assert result.model == "small-faprompt"
        assert (result.verdict, result.threshold, result.regions) == (None, None, ())
        assert result.prompt_scores is None

    def test_the_map_is_smoothed_at_the_models_size_and_stretched_to_the_pictures(self, detector):
        image = small.picture(40, 100)
        with torch.no_grad():
            grid = detector.encode(detector.to_pixels(image)[None]).patch_map
        model = torch.nn.functional.interpolate(grid[:, None], size=(56, 56), mode="bilinear")
        smooth = torch.from_numpy(gaussian_filter(model[0, 0].numpy(), 2.0))
        wanted = torch.nn.functional.interpolate(
            smooth[None, None], size=(40, 100), mode="bilinear"
        )
        ours = detector.predict(image).score_map
        np.testing.assert_allclose(ours, wanted[0, 0].numpy(), rtol=0, atol=1e-5)

    def test_a_threshold_gives_verdict_and_regions(self, detector):
        image = small.picture()
        score_map = detector.predict(image).score_map
        middle = float(np.quantile(score_map, 0.9))
        result = detector.predict(image, threshold=middle)
        assert result.threshold == middle
        assert result.verdict == ("NG" if result.score >= middle else "OK")
        assert result.regions and all(isinstance(region, Region) for region in result.regions)
        assert sum(region.area_px for region in result.regions) == (score_map >= middle).sum()
        assert result.regions[0].peak == pytest.approx(score_map.max())
        assert detector.predict(image, threshold=0.0).verdict == "NG"
        strict = detector.predict(image, threshold=1.0)
        assert (strict.verdict, strict.regions) == ("OK", ())

    def test_the_models_own_threshold_holds_unless_the_call_names_one(self):
        detector = small.detector(threshold=0.0)
        assert detector.predict(small.picture()).verdict == "NG"
        assert detector.predict(small.picture(), threshold=1.0).verdict == "OK"
        assert detector.predict(small.picture()).threshold == 0.0

    def test_prompt_scores_on_request(self, detector):
        result = detector.predict(small.picture(), with_prompt_scores=True)
        assert len(result.prompt_scores) == 10
        assert all(isinstance(score, float) and 0 <= score <= 1 for score in result.prompt_scores)
        assert len(set(result.prompt_scores)) > 1

    def test_bit_depth_reaches_the_reader(self, detector, tmp_path):
        dark = small.picture()[..., 0].astype(np.uint16) << 4  # 12 of 16 bits
        Image.fromarray(dark).save(tmp_path / "deep.png")
        plain = detector.predict(tmp_path / "deep.png")
        told = detector.predict(tmp_path / "deep.png", bit_depth=12)
        assert abs(plain.score - told.score) > 1e-4
        eight_bit = detector.predict(small.picture()[..., 0])
        assert told.score == pytest.approx(eight_bit.score, abs=5e-2)

    def test_unreadable_pictures_are_refused_by_name(self, detector, tmp_path):
        (tmp_path / "broken.png").write_bytes(b"no picture")
        with pytest.raises(ImageReadError, match="broken.png"):
            detector.predict(tmp_path / "broken.png")
        with pytest.raises(ImageReadError, match="nowhere.png: no such file"):
            detector.predict("nowhere.png")

    def test_nothing_is_remembered_between_calls(self, detector):
        first = detector.predict(small.picture(seed=1))
        detector.predict(small.picture(seed=2), threshold=0.1, with_prompt_scores=True)
        same(detector.predict(small.picture(seed=1)), first)

    def test_what_pictures_show_cannot_be_changed_between_calls(self, detector):
        with pytest.raises(AttributeError, match="class_name"):
            detector.class_name = "mug"
        assert detector.class_name is None

    def test_many_threads_may_share_one_detector(self, detector):
        images = [small.picture(seed=seed) for seed in range(6)]
        alone = [detector.predict(image) for image in images]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(detector.predict, images))
        for first, second in zip(alone, together, strict=True):
            same(first, second)


class TestManyPictures:
    SIZES = ((60, 80), (33, 47), (56, 56), (90, 20), (64, 64))

    def images(self):
        return [small.picture(*size, seed=i) for i, size in enumerate(self.SIZES)]

    @pytest.mark.parametrize("batch_size", [1, 2, 8])
    def test_a_stream_gives_what_single_calls_give_in_order(self, detector, batch_size):
        results = list(detector.stream(self.images(), batch_size=batch_size, threshold=0.4))
        assert len(results) == 5
        for image, result in zip(self.images(), results, strict=True):
            alone = detector.predict(image, threshold=0.4)
            close(result, alone)
            assert result.verdict == alone.verdict
            assert result.image_size == image.shape[:2]

    def test_a_stream_passes_its_options_on_and_reads_paths(self, detector, tmp_path):
        paths = [small.picture_file(tmp_path / f"{i}.png", seed=i) for i in range(3)]
        results = list(detector.stream(paths, batch_size=2, with_prompt_scores=True))
        assert [len(result.prompt_scores) for result in results] == [10, 10, 10]
        close(results[2], detector.predict(paths[2]))

    def test_a_stream_reads_no_further_than_it_has_to(self, detector):
        taken = []

        def endless():
            while True:
                taken.append(1)
                yield small.picture()

        next(detector.stream(endless(), batch_size=3))
        assert len(taken) == 3

    def test_a_stream_reads_deep_pictures_as_told(self, detector, tmp_path):
        dark = small.picture()[..., 0].astype(np.uint16) << 4
        Image.fromarray(dark).save(tmp_path / "deep.png")
        (result,) = detector.stream([tmp_path / "deep.png"], bit_depth=12)
        close(result, detector.predict(tmp_path / "deep.png", bit_depth=12))
        assert abs(result.score - detector.predict(tmp_path / "deep.png").score) > 1e-4

    def test_an_empty_stream_is_empty(self, detector):
        assert list(detector.stream([])) == []
        assert detector.predict_batch([]) == []

    def test_a_batch_size_below_one_is_refused(self, detector):
        with pytest.raises(ValueError, match="batch_size should be at least 1, got 0"):
            list(detector.stream([small.picture()], batch_size=0))

    @pytest.mark.parametrize("batch_size", [2.0, "2", True, None])
    def test_a_batch_size_that_is_no_whole_number_is_refused(self, detector, batch_size):
        with pytest.raises(TypeError, match="batch_size should be a whole number, got"):
            detector.stream([small.picture()], batch_size=batch_size)

    @pytest.mark.parametrize(
        ("image", "error"),
        [
            (np.zeros((5, 5), np.uint8), ValueError),
            (np.zeros((3, 5, 5), np.uint8), ValueError),
            (np.zeros((5, 5, 3), np.float32), ValueError),
            (np.zeros((0, 5, 3), np.uint8), ValueError),
            ("part.png", TypeError),
            (b"bytes", TypeError),
            (Image.new("RGB", (8, 8)), TypeError),
            (None, TypeError),
        ],
    )
    def test_a_batch_of_anything_but_rgb_bytes_is_refused(self, detector, image, error):
        with pytest.raises(error, match=r"image should be .*uint8.*`predict` and `stream`"):
            detector.predict_batch([small.picture(), image])

    @pytest.mark.parametrize("images", ["part.png", b"bytes", Path("a.png"), iter([])])
    def test_a_batch_that_is_no_list_is_refused(self, detector, images):
        with pytest.raises(TypeError, match="a batch is a list of arrays, got a .*`predict`"):
            detector.predict_batch(images)

    def test_a_batch_may_be_one_array(self, detector):
        both = np.stack([small.picture(seed=1), small.picture(seed=2)])
        assert [r.score for r in detector.predict_batch(both)] == [
            r.score for r in detector.predict_batch(list(both))
        ]

    def test_class_names_are_one_for_each_picture(self, detector):
        images = [small.picture(), small.picture()]
        with pytest.raises(ValueError, match="each of the 2 pictures, got 3"):
            detector.predict_batch(images, class_names=["a", "b", "c"])
        with pytest.raises(ValueError, match="each of the 1 pictures, got 0"):
            detector.predict_batch(images[:1], class_names=[])
        with pytest.raises(TypeError, match="got the text 'mug'"):
            detector.predict_batch(images, class_names="mug")
        with pytest.raises(ValueError, match="each of the 2 pictures, got 1"):
            detector.predict_batch(images, class_names=["a"])
        with pytest.raises(ValueError, match="each of the 2 pictures, got 3"):
            detector(small.pixels(2), class_names=["a", "b", "c"])


class TestBadPicturesInAStream:
    def sources(self, tmp_path):
        """Three good files, a broken one in the middle, and one more that is missing."""
        good = [small.picture_file(tmp_path / f"{i}.png", seed=i) for i in range(3)]
        (tmp_path / "broken.png").write_bytes(b"no picture")
        return [good[0], good[1], tmp_path / "broken.png", good[2], tmp_path / "gone.png"]

    @pytest.mark.parametrize("batch_size", [1, 2, 8])
    def test_raise_gives_what_came_before_and_then_the_error(self, detector, tmp_path, batch_size):
        sources, results = self.sources(tmp_path), []
        stream = detector.stream(sources, batch_size=batch_size)
        with pytest.raises(ImageReadError, match="broken.png"):
            results.extend(stream)
        assert len(results) == 2
        for source, result in zip(sources, results, strict=False):
            close(result, detector.predict(source))

    @pytest.mark.parametrize("batch_size", [1, 2, 8])
    def test_skip_leaves_it_out_and_logs_its_path(self, detector, tmp_path, batch_size, caplog):
        sources = self.sources(tmp_path)
        results = list(detector.stream(sources, batch_size=batch_size, on_error="skip"))
        for number, result in zip((0, 1, 3), results, strict=True):
            close(result, detector.predict(sources[number]))
        told = [record.getMessage() for record in caplog.records if record.name == "faprompt"]
        assert len(told) == 2 and all(line.startswith("skipped: ") for line in told)
        assert "broken.png" in told[0] and "gone.png: no such file" in told[1]

    @pytest.mark.parametrize("on_error", ["raise", "skip"])
    def test_other_errors_come_after_what_was_read_too(self, detector, on_error):
        def fail():
            yield small.picture()
            raise RuntimeError("the camera is gone")

        for source, error in ((fail(), RuntimeError), ([small.picture(), 5], TypeError)):
            results = []
            with pytest.raises(error):
                results.extend(detector.stream(source, on_error=on_error))
            assert len(results) == 1

    def test_only_bad_pictures_are_no_results(self, detector):
        assert list(detector.stream(["a.png", "b.png"], on_error="skip")) == []

    @pytest.mark.parametrize("on_error", ["ignore", None, True])
    def test_an_unknown_value_is_refused_at_once(self, detector, on_error):
        with pytest.raises(ValueError, match="on_error should be 'raise' or 'skip', got"):
            detector.stream([], on_error=on_error)


class TestThresholds:
    @pytest.mark.parametrize("threshold", [5, -0.1, 1.0001, float("nan"), float("inf")])
    def test_out_of_range_is_refused_everywhere(self, detector, threshold):
        image = small.picture()
        for call in (
            lambda: detector.predict(image, threshold=threshold),
            lambda: detector.predict_batch([image], threshold=threshold),
            lambda: detector.predict_batch([], threshold=threshold),
            lambda: detector.stream([image], threshold=threshold),
            lambda: detector.explain(image, threshold=threshold),
            lambda: small.detector(threshold=threshold),
        ):
            with pytest.raises(ValueError, match="threshold should be from 0 to 1, got"):
                call()

    @pytest.mark.parametrize("threshold", ["0.5", True, [0.5]])
    def test_what_is_no_number_is_refused(self, detector, threshold):
        with pytest.raises(TypeError, match="threshold should be a number from 0 to 1"):
            detector.predict(small.picture(), threshold=threshold)

    @pytest.mark.parametrize(
        ("options", "error", "told"),
        [
            ({"bit_depth": "12"}, TypeError, "bit_depth should be a whole number, got '12'"),
            ({"bit_depth": 12.5}, TypeError, "bit_depth should be a whole number, got 12.5"),
            ({"bit_depth": 99}, ValueError, "bit_depth should be 1 to 32, got 99"),
            ({"max_pixels": 0}, ValueError, "max_pixels should be at least 1, got 0"),
            ({"max_pixels": 1e6}, TypeError, "max_pixels should be a whole number"),
        ],
    )
    def test_options_of_reading_are_checked_too(self, detector, options, error, told):
        for call in (detector.predict, lambda image, **o: detector.stream([image], **o)):
            with pytest.raises(error, match=told):
                call(small.picture(), **options)

    def test_numpys_numbers_are_numbers(self, detector):
        result = detector.predict(small.picture(), threshold=np.float32(0.25))
        assert result.threshold == 0.25


class TestNotes:
    def test_the_readers_notes_are_on_the_result(self, detector, tmp_path):
        frames = [Image.fromarray(small.picture(seed=seed)) for seed in (1, 2)]
        frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
        plain = small.picture_file(tmp_path / "one.png")
        assert detector.predict(tmp_path / "two.tif").notes == ("frame 0 of 2",)
        notes = [r.notes for r in detector.stream([plain, tmp_path / "two.tif"], batch_size=2)]
        assert notes == [(), ("frame 0 of 2",)]
        assert detector.predict_batch([small.picture()])[0].notes == ()

    def test_the_pixel_limit_reaches_the_reader(self, detector, tmp_path):
        path = small.picture_file(tmp_path / "part.png")
        for call in (detector.predict, lambda p, **o: list(detector.stream([p], **o))):
            with pytest.raises(ImageReadError, match="above the limit of 4,799"):
                call(path, max_pixels=60 * 80 - 1)
            call(path, max_pixels=60 * 80)


class TestTensorDoor:
    def test_it_is_the_road_that_predict_takes(self, detector):
        image = small.picture(56, 56)
        result = detector.predict(image)
        with torch.no_grad():
            scores, maps = detector(detector.to_pixels(image)[None])
        assert result.score == pytest.approx(scores.item(), abs=1e-6)
        np.testing.assert_allclose(result.score_map, maps[0].numpy(), rtol=0, atol=1e-6)

    def test_gradients_are_allowed_after_predictions_were_made(self, detector):
        detector.predict(small.picture(56, 56))
        scores, maps = detector(small.pixels(2))
        grads = torch.autograd.grad(scores.sum() + maps.sum(), list(detector.method.parameters()))
        assert all(grad.isfinite().all() and grad.any() for grad in grads)

    def test_a_frozen_detector_computes_its_text_once(self, monkeypatch):
        detector = small.detector()
        pixels = small.pixels(2)
        wanted = detector(pixels)[0].detach()
        detector.method.requires_grad_(False)
        monkeypatch.setattr(detector.method, "static_text", lambda text: 1 / 0)
        scores, _ = detector(pixels)
        torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-6)

    def test_pixels_that_do_not_split_into_patches_are_refused(self, detector):
        with pytest.raises(ValueError, match="50x56 pixels do not split into 14-pixel patches"):
            detector(torch.zeros(1, 3, 50, 56))


class TestRefresh:
    def changed(self):
        """A detector, its first score, and parameters moved since."""
        detector = small.detector()
        before = detector.predict(small.picture()).score
        with torch.no_grad():
            for parameter in detector.method.parameters():
                parameter += 0.2 * torch.ones_like(parameter).cumsum(-1).sin()
        return detector, before

    def test_changed_parameters_count_after_refresh(self):
        detector, before = self.changed()
        detector.refresh()
        after = detector.predict(small.picture()).score
        assert abs(after - before) > 1e-4
        with torch.no_grad():
            fresh = detector.method(
                small.backbone().encode_image(detector.to_pixels(small.picture())[None]),
                small.backbone().text,
            )
        assert after == pytest.approx(fresh.score.item(), abs=1e-5)

    def test_moving_a_detector_moves_its_text_features(self):
        detector, _ = self.changed()
        moved = detector.to("cpu").predict(small.picture()).score
        detector.refresh()
        assert moved == detector.predict(small.picture()).score


def test_the_fingerprint_tells_detectors_apart():
    first = small.detector().fingerprint()
    assert small.detector(threshold=0.5).fingerprint() == first  # no score depends on it
    rounded = Detector(load_backbone("test-tiny", precision="bf16"), small.method(), name="x")
    others = [
        small.detector(sigma_px=3.0),
        small.detector(stir=0.2),
        small.detector(image_size=70),
        small.detector("anomalyclip"),
        rounded,
        Detector(load_backbone("test-tiny:gelu"), small.method(), name="x"),
    ]
    assert len({first, *(other.fingerprint() for other in others)}) == 7
