"""What a result and the other public records promise: equality, hash, text, plain values."""

import copy
import json
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

import faprompt
from faprompt.calibration import GoodScores
from faprompt.errors import ImageReadError
from faprompt.imaging import ReadImage, encode_jpeg, overlay
from faprompt.imaging.picture_windows import ArrayWindows
from faprompt.prediction.result_pictures import draw_pictures
from faprompt.prediction.result_rows import ResultRow
from faprompt.regions import find_regions
from faprompt.results import AnomalyResult

HEIGHT, WIDTH = 30, 40


def scored(threshold: float | None = 0.6, *, peak: float = 0.9) -> AnomalyResult:
    """A result with one square of this map value, judged at a threshold."""
    score_map = np.full((HEIGHT, WIDTH), 0.1, np.float32)
    score_map[10:18, 20:28] = peak
    known = threshold is not None
    return AnomalyResult(
        score=peak, score_map=score_map, image_size=(HEIGHT, WIDTH), model="drawn",
        verdict=("NG" if peak >= threshold else "OK") if known else None,
        threshold=threshold, map_threshold=threshold,
        regions=find_regions(score_map, threshold) if known else (),
        prompt_scores=(0.2, peak), notes=("frame 0 of 2",),
    )  # fmt: skip


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)


OTHERS = {
    "score": 0.8, "image_size": (HEIGHT, WIDTH + 1), "model": "other", "verdict": "REVIEW",
    "threshold": 0.5, "review_threshold": 0.4, "map_threshold": 0.5, "p_value": 0.01,
    "product": "cup", "regions": (), "prompt_scores": None, "notes": (),
    "score_map": np.full((HEIGHT, WIDTH), 0.1, np.float32),
}  # fmt: skip


class TestEquality:
    def test_copies_are_equal_and_find_each_other(self):
        first = scored()
        for other in (scored(), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
            assert other == first and hash(other) == hash(first)
            assert {first: "found"}[other] == "found" and len({first, other}) == 1

    @pytest.mark.parametrize("name", [field.name for field in fields(AnomalyResult)])
    def test_every_field_counts(self, name):
        changes = {name: OTHERS[name]}
        if name == "image_size":
            changes["score_map"] = np.zeros((HEIGHT, WIDTH + 1), np.float32)
        assert replace(scored(), **changes) != scored()

    def test_one_pixel_of_the_map_counts(self):
        other = scored()
        other.score_map[0, 0] += np.float32(1e-6)
        assert other != scored() and hash(other) == hash(scored())  # the hash reads no map

    def test_something_else_is_not_equal(self):
        assert scored() != scored().to_dict() and scored() != 0.9 and scored() is not None

    def test_a_predicted_picture_is_equal_to_itself_predicted_again(self):
        detector = faprompt.load_detector("tiny")
        first, again = (detector.predict(picture(), threshold=0.0) for _ in range(2))
        assert first == again and first != detector.predict(picture(), threshold=1.0)

    def test_pictures_in_memory(self):
        first = ReadImage(picture(), ("turned",))
        assert first == ReadImage(picture(), ("turned",)) != ReadImage(picture())
        assert hash(first) == hash(ReadImage(picture(), ("turned",)))
        assert first != ReadImage(picture()[:-1], ("turned",)) and first != picture
        assert repr(first) == "<ReadImage 40x30 px, 1 notes>"

    def test_good_scores(self):
        first = GoodScores(np.array([0.2, 0.1]), np.array([0.3, 0.4]))
        assert first == GoodScores(np.array([0.1, 0.2]), np.array([0.4, 0.3]))  # both are sorted
        assert first != GoodScores(np.array([0.1, 0.2]), np.array([0.4, 0.5])) and first != 1
        assert len({first, copy.deepcopy(first)}) == 1
        assert repr(first) == "<GoodScores 2 from 0.1 to 0.2>"


class TestText:
    def test_facts_and_no_array(self):
        assert repr(scored()) == (
            "<AnomalyResult score=0.9, NG, 40x30 px, 1 regions, model='drawn'>"
        )
        calibrated = replace(scored(), p_value=0.00990099, product="cup")
        assert repr(calibrated) == (
            "<AnomalyResult score=0.9, NG, cup, p=0.0099, 40x30 px, 1 regions, model='drawn'>"
        )
        assert repr(scored(None)) == (
            "<AnomalyResult score=0.9, 40x30 px, 0 regions, model='drawn'>"
        )

    def test_many_regions_stay_one_line(self):
        regions = scored().regions * 1000
        assert len(repr(replace(scored(), regions=regions))) < 100


class TestPlainValues:
    def test_are_json_and_complete(self):
        result = scored()
        values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        left_out = {"score_map", "image_size"}
        assert {*values} == {f.name for f in fields(result)} - left_out | {"width", "height"}
        assert (values["height"], values["width"]) == (HEIGHT, WIDTH)
        assert values["regions"] == [
            {"bbox": [20, 10, 28, 18], "area_px": 64, "peak": pytest.approx(0.9), "mean":
             pytest.approx(0.9)}
        ]  # fmt: skip
        assert values["score"] == 0.9 and values["prompt_scores"] == [0.2, 0.9]
        assert values["notes"] == ["frame 0 of 2"]

    def test_the_order_is_that_of_results_jsonl(self):
        row, result = list(ResultRow("a.png", "m").to_dict()), list(scored().to_dict())
        assert [name for name in row if name in result] == [n for n in result if n in row]


class TestOverlay:
    def test_regions_have_an_outline(self):
        image = picture()
        before, marked = image.copy(), scored().overlay(image)
        assert marked.dtype == np.uint8 and marked.shape == (HEIGHT, WIDTH, 3)
        assert np.array_equal(image, before)
        changed = (marked != image).any(axis=2)
        assert changed[10:18, 20:28].all()  # the tint
        assert (marked[9, 20:28] == (255, 233, 100)).all()  # the line outside of it
        assert not changed[:4].any() and not changed[:, :10].any()

    def test_the_map_is_shown_without_a_threshold(self):
        expected = overlay(picture(), scored().score_map, alpha=0.5)
        assert np.array_equal(scored(None).overlay(picture()), expected)

    @pytest.mark.parametrize("verdict", ["NG", "REVIEW"])
    def test_a_bad_picture_without_regions_shows_its_map(self, verdict):
        marked = replace(scored(), regions=(), verdict=verdict).overlay(picture())
        assert np.array_equal(marked, overlay(picture(), scored().score_map, alpha=0.5))

    def test_deep_values_are_read_with_their_window(self):
        values = picture()[..., 0].astype(np.uint16) + 500
        grey = np.repeat(picture()[..., :1], 3, axis=2)
        marked = scored(None).overlay(values, window=(627.5, 255))
        assert np.array_equal(marked, scored(None).overlay(grey))

    def test_a_good_picture_stays_as_it_is(self):
        image = picture()
        calm = scored(peak=0.3).overlay(image)
        assert np.array_equal(calm, image) and not np.shares_memory(calm, image)

    @pytest.mark.parametrize("result", [scored(), scored(None), scored(peak=0.3)])
    def test_is_the_picture_of_the_report(self, result):
        drawn = draw_pictures(
            ArrayWindows(picture()), result, with_overlay=True, with_thumbnails=False
        )
        assert encode_jpeg(result.overlay(picture())) == drawn.overlay

    def test_takes_a_picture_in_any_form(self, tmp_path):
        path, grey = tmp_path / "part.png", picture()[..., 0]
        Image.fromarray(picture()).save(path)
        expected = scored().overlay(picture())
        for source in (path, str(path), path.read_bytes(), Image.open(path)):
            assert np.array_equal(scored().overlay(source), expected)
        assert np.array_equal(scored().overlay(grey), scored().overlay(np.dstack([grey] * 3)))

    def test_reads_with_the_bit_depth_of_the_camera(self):
        wide = picture()[..., 0].astype(np.uint16) * 16
        plain = scored(peak=0.3)
        read = plain.overlay(wide, bit_depth=12)[..., 0].astype(int)
        assert np.abs(read - picture()[..., 0]).max() <= 1  # 4095 is 255, not 255.94
        assert plain.overlay(wide).max() < 20

    def test_refuses_what_does_not_fit(self, tmp_path):
        with pytest.raises(ValueError, match=r"score_map \(30, 40\) does not fit the image"):
            scored().overlay(picture()[:-1])
        with pytest.raises(ValueError, match="does not fit the image"):
            scored(peak=0.3).overlay(picture()[:-1])
        with pytest.raises(ImageReadError, match="no such file"):
            scored().overlay(tmp_path / "none.png")
        with pytest.raises(ImageReadError, match="more pixels|too large|limit"):
            scored().overlay(picture(), max_pixels=100)


def test_a_map_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"should be \(height, width\)"):
        AnomalyResult(0.5, np.zeros(3), (1, 3), "m")
    with pytest.raises(ValueError, match=r"should have the size of the image, \(3, 1\)"):
        AnomalyResult(0.5, np.zeros((1, 3)), (3, 1), "m")
