"""Every rule of a likely cause, on drawn pictures on either side of its limit."""

from __future__ import annotations

import numpy as np
import pytest

from faprompt.evaluation import causes
from faprompt.evaluation.causes import contrast, count_parts, likely_cause

SIDE = 148  # a patch of 37 is 4 pixels
CENTRE = (slice(60, 80), slice(60, 80))  # 1.8 % of the picture
ELSEWHERE = (slice(110, 120), slice(20, 30))


def noise(spread=10.0):
    grey = np.random.default_rng(0).normal(120, spread, (SIDE, SIDE, 1))
    return np.rint(grey).clip(0, 255).astype(np.uint8).repeat(3, axis=2)


def flat(*spots, base=0.1):
    """A map of one level with spots (place, level)."""
    score_map = np.full((SIDE, SIDE), base, np.float32)
    for place, level in spots:
        score_map[place] = level
    return score_map


def marked(*places):
    mask = np.zeros((SIDE, SIDE), bool)
    for place in places:
        mask[place] = True
    return mask


def painted(place, shift, image=None):
    image = noise() if image is None else image.copy()
    image[place] = (image[place].astype(int) + shift).clip(0, 255)
    return image


def anomalous(image, score_map, mask, **changes):
    options = {"label": 1, "score": 0.3, "threshold": 0.5, **changes}
    return likely_cause(image, score_map, mask, **options)


def normal(image, score_map, **changes):
    return anomalous(image, score_map, None, **{"label": 0, "score": 0.7, **changes})


class TestOfDefects:
    @pytest.mark.parametrize(("pixels", "cause"), [(43, "tiny"), (44, "unexplained")])
    def test_tiny_is_less_than_a_five_hundredth(self, pixels, cause):
        """0.002 of 148 x 148 is 43.8 pixels."""
        mask = np.zeros((SIDE, SIDE), bool)
        mask[60:71, 60:64] = np.arange(44).reshape(11, 4) < pixels
        found = anomalous(painted(mask, 90), flat((CENTRE, 0.9)), mask)
        assert found.cause == cause
        assert found.numbers["defect_share"] == pytest.approx(pixels / SIDE**2)

    def test_many_small_parts_are_as_tiny_as_the_largest(self):
        spots = [(slice(y, y + 5), slice(x, x + 5)) for y in (20, 60, 100) for x in (20, 60, 100)]
        mask = marked(*spots)
        found = anomalous(painted(mask, 90), flat(*((spot, 0.9) for spot in spots)), mask)
        assert mask.mean() > causes.TINY and found.cause == "tiny"
        assert found.numbers["parts"] == 9

    @pytest.mark.parametrize(("shift", "cause"), [(3, "subtle"), (8, "unexplained")])
    def test_subtle_is_less_than_half_the_spread(self, shift, cause):
        found = anomalous(painted(CENTRE, shift), flat((CENTRE, 0.9)), marked(CENTRE))
        assert found.cause == cause
        assert found.numbers["defect_contrast"] == pytest.approx(shift / 10, abs=0.15)

    @pytest.mark.parametrize(("left", "cause"), [(84, "unexplained"), (85, "overshadowed")])
    def test_a_peak_farther_than_a_patch_overshadows(self, left, cause):
        """The last column of the mask is 79; a patch is 4 pixels."""
        peak = (slice(60, 80), slice(left - 1, left + 20))
        found = anomalous(painted(CENTRE, 30), flat((CENTRE, 0.5), (peak, 0.9)), marked(CENTRE))
        assert found.cause == cause
        reached = (0.5 - 0.1) / (0.9 - 0.1) if cause == "overshadowed" else 1
        assert found.numbers["reached"] == pytest.approx(reached)

    @pytest.mark.parametrize(("level", "cause"), [(0.49, "overshadowed"), (0.51, "unexplained")])
    def test_a_part_with_less_than_half_is_overshadowed_by_another(self, level, cause):
        """From the median of 0.1 to the peak of 0.9, half is 0.5."""
        mask = marked(CENTRE, ELSEWHERE)
        found = anomalous(painted(mask, 30), flat((CENTRE, 0.9), (ELSEWHERE, level)), mask)
        assert (found.cause, found.numbers["parts"]) == (cause, 2)
        assert found.numbers["weakest_part"] == pytest.approx((level - 0.1) / 0.8)

    @pytest.mark.parametrize(("margin", "cause"), [(3, "artefact"), (4, "overshadowed")])
    def test_a_response_within_a_patch_of_the_border_is_an_artefact(self, margin, cause):
        """A patch is 4 of 148 pixels; a distance of 3 lies within, wherever the peak is."""
        peak = (slice(margin, margin + 12), slice(60, 80))
        score_map = flat((peak, 0.85), ((slice(margin + 8, margin + 12), slice(60, 80)), 0.9))
        assert anomalous(painted(CENTRE, 30), score_map, marked(CENTRE)).cause == cause
        found = anomalous(painted(CENTRE, 30), flat((peak, 0.9)), marked(CENTRE))
        assert found.cause == cause
        assert ("overshadowed" in found.also) == (cause == "artefact")

    def test_the_first_rule_names_the_cause_and_the_rest_are_told(self):
        dot = (slice(60, 64), slice(60, 64))
        found = anomalous(painted(dot, 2), flat(((slice(0, 12), slice(60, 80)), 0.9)), marked(dot))
        assert found.cause == "tiny" and found.also == ("subtle", "artefact", "overshadowed")
        assert found.why == "0.07 % of the picture"

    def test_no_mask_no_word(self):
        found = anomalous(noise(), flat((CENTRE, 0.9)), None)
        assert (found.cause, found.also) == ("unexplained", ())
        assert "no mask" in found.why

    def test_a_flat_map_has_no_response(self):
        found = anomalous(painted(CENTRE, 30), flat(), marked(CENTRE))
        assert found.cause == "unexplained"
        assert set(found.numbers) == {"margin", "defect_share", "parts", "defect_contrast"}


class TestOfFalseAlarms:
    def test_a_calm_place_is_unexplained(self):
        found = normal(noise(), flat((CENTRE, 0.9)))
        assert (found.cause, found.why) == ("unexplained", "no rule holds")
        assert found.numbers["margin"] == pytest.approx(0.2)

    @pytest.mark.parametrize(("grey", "cause"), [(246, "artefact"), (244, "unexplained")])
    def test_a_white_spot_is_an_artefact(self, grey, cause):
        image = noise()
        image[CENTRE] = grey
        assert normal(image, flat((CENTRE, 0.9))).cause == cause

    @pytest.mark.parametrize(("columns", "cause"), [(5, "artefact"), (4, "unexplained")])
    def test_a_quarter_of_the_response_is_enough(self, columns, cause):
        image = noise().clip(30, 230)
        image[60:80, 60 : 60 + columns] = 5
        found = normal(image, flat((CENTRE, 0.9)))
        assert (found.cause, found.numbers["extreme_share"]) == (cause, columns / 20)

    def test_a_black_background_is_none(self):
        image = noise()
        image[:, 50:] = 2
        found = normal(image, flat((CENTRE, 0.9)))
        assert found.numbers["extreme_share"] == 1 and found.cause != "artefact"

    def test_rules_of_defects_stay_out(self):
        found = normal(noise(), flat(((slice(1, 9), slice(60, 80)), 0.9)))
        assert (found.cause, found.also) == ("artefact", ())


class TestMeasures:
    def test_contrast_by_hand(self):
        """The ring of a square of 20 begins 3 pixels from it and ends after 2 + 7."""
        image, area = painted(CENTRE, 35), marked(CENTRE)
        distance = np.full(area.shape, np.inf)
        ys, xs = np.nonzero(area)
        for y, x in np.ndindex(area.shape):
            distance[y, x] = np.hypot(ys - y, xs - x).min()
        grey = image[..., 0].astype(float)
        ring = grey[(distance > 2) & (distance <= 9)]
        wanted = (grey[area].mean() - ring.mean()) / ring.std()
        assert contrast(image, area) == pytest.approx(wanted) and wanted > 3

    def test_edges_count_where_the_mean_is_the_same(self):
        image = np.full((SIDE, SIDE, 3), 120, np.uint8)
        rows, columns = np.indices((20, 20)) // 4
        image[CENTRE] = (120 + 40 * (2 * ((rows + columns) % 2) - 1))[..., None]
        assert image[CENTRE].mean() == pytest.approx(120, abs=4)
        assert contrast(image, marked(CENTRE)) > 5

    def test_an_area_without_surroundings_has_none(self):
        assert contrast(noise(), np.ones((SIDE, SIDE), bool)) is None
        assert contrast(noise(), np.zeros((SIDE, SIDE), bool)) is None

    def test_large_pictures_measure_as_small_ones(self):
        image, mask = painted(CENTRE, 30), marked(CENTRE)
        score_map = flat((ELSEWHERE, 0.9), (CENTRE, 0.4))
        big = [a.repeat(7, 0).repeat(7, 1) for a in (image, score_map, mask)]
        small, large = anomalous(image, score_map, mask), anomalous(*big)
        assert large.cause == small.cause == "overshadowed"
        for name in ("defect_share", "reached", "response_share", "border_distance"):
            assert large.numbers[name] == pytest.approx(small.numbers[name], abs=0.02)

    def test_parts_touch_at_corners_and_specks_do_not_count(self):
        mask = np.zeros((50, 100), bool)
        mask[5:10, 5:10] = mask[10:15, 10:15] = True  # one
        mask[30:35, 60:65] = mask[45, 90] = True
        assert count_parts(mask) == 3
        assert count_parts(mask, least_share=1 / 1000) == 2  # 5 of 5000 pixels
        assert count_parts(~np.ones((4, 4), bool)) == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image": np.zeros((SIDE, SIDE), np.uint8)}, r"image should be \(height, width, 3\)"),
        ({"score_map": np.zeros((3, 4))}, r"score_map \(3, 4\) does not fit the image \(148, 148"),
        ({"mask": np.zeros((3, 4), bool)}, r"mask \(3, 4\) does not fit"),
        ({"label": 2}, "label should be 0"),
    ],
)
def test_refusals(changes, told):
    given = {"image": noise(), "score_map": flat(), "mask": None, "label": 0, **changes}
    with pytest.raises(ValueError, match=told):
        likely_cause(**given, score=0.5)
