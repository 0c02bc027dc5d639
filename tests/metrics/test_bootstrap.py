"""Bootstrap intervals against plain repetition of images, and against known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from faprompt.metrics import (
    METRIC_NAMES,
    AnomalyMetrics,
    MetricResult,
    aupro,
    auroc,
    average_precision,
    f1_max,
    mean_replicates,
    percentile_intervals,
)
from faprompt.metrics.bootstrap import (
    PixelReplicates,
    image_ids,
    image_tallies,
    paired_interval,
    poisson_weights,
    replicate_values,
)
from faprompt.metrics.labelled_pixels import LabelledPixels
from faprompt.metrics.ranking import auroc_of, average_precision_of, f1_max_of
from faprompt.metrics.region_overlap import aupro_of
from faprompt.metrics.tally import UndefinedMetricError
from tests.helpers.score_maps import draw_maps, nasty_maps

REPLICATES = 40
PINNED = [[4, 0, 0, 2, 0, 0, 0, 0], [1, 0, 1, 2, 3, 1, 2, 1]]
KEYS = [f"mug/{i}.png" for i in range(9)]
ROADS = {"auroc": auroc_of, "ap": average_precision_of, "f1": f1_max_of}
ROADS["aupro"] = lambda tally: aupro_of(tally, fpr_limit=0.3)


@pytest.fixture(scope="module")
def images():
    """Scores, labels, maps and masks of nine images in two sizes."""
    wide, wide_masks = draw_maps(6, (12, 17), seed=5, separation=1.0)
    tall, tall_masks = draw_maps(3, (19, 9), seed=6, separation=1.0)
    score_maps = [m.astype(np.float32) for m in wide + tall]
    masks = wide_masks + tall_masks
    labels = np.array([int(mask.any()) for mask in masks])
    labels[0] = labels[3] = 0
    return np.array([m.max() for m in score_maps]), labels, score_maps, masks


def fed(images, *, mode="binned", rows=None, portions=(), keys=KEYS, **options):
    scores, labels, score_maps, masks = images
    rows = np.arange(len(scores)) if rows is None else np.asarray(rows)
    metrics = AnomalyMetrics(mode, replicates=REPLICATES, **options)
    for part in np.split(rows, portions):
        metrics.update(
            scores[part], labels[part], [score_maps[i] for i in part], [masks[i] for i in part],
            keys=[keys[i] for i in part],
        )  # fmt: skip
    return metrics


def labelled(score_maps, masks):
    return [LabelledPixels.of(*pair) for pair in zip(score_maps, masks, strict=True)]


def store_of(score_maps, masks, *, most_cells, order=None, portion=1):
    store = PixelReplicates(REPLICATES, most_cells=most_cells)
    order = np.arange(len(masks)) if order is None else np.asarray(order)
    ids, pixels = image_ids(range(len(masks)), seed=0), labelled(score_maps, masks)
    for start in range(0, len(order), portion):
        part = order[start : start + portion]
        store.add([pixels[i] for i in part], ids[part])
    return store


def repeated(road, first, second, weights, **options):
    """A metric of images that are each there as often as their weight says."""
    rows = np.repeat(np.arange(len(weights)), weights.astype(int))
    try:
        return road([first[i] for i in rows], [second[i] for i in rows], **options)
    except UndefinedMetricError:
        return math.nan


def flat(road):
    def of_pixels(score_maps, masks):
        if not score_maps:
            return math.nan
        arrays = (np.concatenate([a.ravel() for a in part]) for part in (score_maps, masks))
        return road(*arrays)

    return of_pixels


class TestDraws:
    def test_they_are_poisson(self):
        drawn = poisson_weights(image_ids(range(2000), seed=3), range(100)).ravel()
        shares = np.bincount(drawn.astype(int), minlength=8)[:8] / len(drawn)
        wanted = stats.poisson.pmf(np.arange(8), 1)
        assert shares == pytest.approx(wanted, abs=5 * np.sqrt(0.25 / len(drawn)))

    def test_images_and_replicates_are_drawn_apart(self):
        drawn = poisson_weights(image_ids(range(300), seed=0), range(300))
        for table in (np.corrcoef(drawn), np.corrcoef(drawn.T)):
            others = table[~np.eye(300, dtype=bool)]
            assert abs(others.mean()) < 0.01 and abs(others).max() < 0.35

    def test_they_stay_the_same_for_ever(self):
        drawn = poisson_weights(image_ids(["a", "b/ü"], seed=0), range(8))
        assert drawn.tolist() == PINNED

    def test_seed_and_key_decide_and_nothing_else(self):
        ids = image_ids(["a", "b", 1, "1"], seed=1)
        assert ids[2] == ids[3] and len(set(ids.tolist())) == 3
        assert ids[0] != image_ids(["a"], seed=2)[0]
        assert ids[2] != image_ids([1], seed=1, kind="number")[0]
        whole = poisson_weights(ids, range(50))
        assert np.array_equal(whole[1:2, 20:], poisson_weights(ids[1:2], range(20, 50)))


class TestAgainstRepetition:
    @pytest.mark.parametrize("mode", ["binned", "exact"])
    def test_every_replicate_equals_repeated_images(self, images, mode):
        """So few pixels keep a cell each, so pixel metrics are equal as well."""
        scores, labels, score_maps, masks = images
        values = fed(images, mode=mode, seed=4).replicate_values()
        assert tuple(values) == METRIC_NAMES
        weights = poisson_weights(image_ids(KEYS, seed=4), range(REPLICATES)).T
        rivals = {
            "image_auroc": (auroc, scores, labels),
            "image_ap": (average_precision, scores, labels),
            "image_f1_max": (f1_max, scores, labels),
            "pixel_auroc": (flat(auroc), score_maps, masks),
            "pixel_ap": (flat(average_precision), score_maps, masks),
            "pixel_f1_max": (flat(f1_max), score_maps, masks),
            "aupro": (aupro, score_maps, masks),
        }
        for name, (road, *pair) in rivals.items():
            wanted = [repeated(road, *pair, row) for row in weights]
            assert values[name] == pytest.approx(wanted, abs=1e-8, nan_ok=True), name

    @pytest.mark.parametrize(
        "name", ["plain", "sigmoid", "crowded about a half", "heavy tail up", "outliers of 1e30"]
    )
    def test_coarse_cells_are_within_their_tolerance(self, name):
        """20,000 pixels in at most 8,192 cells: 2e-4 for the areas, 1e-3 for AP and F1."""
        score_maps, masks = nasty_maps(name, count=10, size=(48, 42), separation=1.0)
        store = store_of(score_maps, masks, most_cells=8192)
        values = replicate_values(store.tallies(), ROADS)
        assert len(store._cells) <= 8192
        weights = poisson_weights(image_ids(range(10), seed=0), range(REPLICATES)).T
        rivals = {"auroc": flat(auroc), "ap": flat(average_precision), "f1": flat(f1_max)}
        for key, road in {**rivals, "aupro": aupro}.items():
            wanted = [repeated(road, score_maps, masks, row) for row in weights[:8]]
            allowed = 1e-3 if key in ("ap", "f1") else 2e-4
            assert values[key][:8] == pytest.approx(wanted, abs=allowed, nan_ok=True), key


def test_intervals_hold_the_truth_as_often_as_they_say():
    """AUROC of two normal distributions one apart; 150 studies of 50 + 50 images."""
    rng = np.random.default_rng(11)
    truth = stats.norm.cdf(1 / math.sqrt(2))
    labels = np.repeat([False, True], 50)
    held = 0
    for study in range(150):
        scores = rng.standard_normal(100) + labels
        ids = image_ids(range(100), seed=study)
        values = replicate_values(image_tallies(scores, labels, ids, 100), {"a": auroc_of})
        low, high = percentile_intervals(values)["a"]
        held += low <= truth <= high
    assert 0.89 <= held / 150 <= 0.985  # three standard errors about 95 % less a little


class TestOrder:
    def test_neither_portions_nor_order_count(self, images):
        whole = fed(images).replicate_values()
        rows = [4, 0, 8, 2, 6, 1, 7, 3, 5]
        other = fed(images, rows=rows, portions=[1, 5]).replicate_values()
        for name in METRIC_NAMES:
            assert np.array_equal(whole[name], other[name], equal_nan=True), name

    @pytest.mark.parametrize("name", ["plain", "heavy tails", "each image elsewhere"])
    @pytest.mark.parametrize("portion", [1, 7, 40])
    def test_not_to_the_bit_even_where_cells_are_joined(self, name, portion):
        score_maps, masks = nasty_maps(name, count=40, size=(15, 16), separation=1.0)
        once = store_of(score_maps, masks, most_cells=300).state()
        order = np.random.default_rng(1).permutation(40)
        again = store_of(score_maps, masks, most_cells=300, order=order, portion=portion)
        for key, array in again.state().items():
            assert np.array_equal(array, once[key]), key
        assert once["shift"] > 0 and 75 < len(once["cells"]) <= 300


class TestIntervals:
    def test_they_are_percentiles_of_the_replicates(self, images):
        metrics = fed(images)
        result, values = metrics.compute(), metrics.replicate_values()
        assert set(result.intervals) == set(METRIC_NAMES)
        for name, (low, high) in result.intervals.items():
            known = values[name][~np.isnan(values[name])]
            assert (low, high) == pytest.approx(np.percentile(known, [2.5, 97.5]))
            assert 0 <= low < high <= 1
        assert result.to_dict()["intervals"]["aupro"] == list(result.intervals["aupro"])

    def test_the_figures_themselves_stay(self, images):
        scores, labels, score_maps, masks = images
        plain = AnomalyMetrics()
        plain.update(scores, labels, score_maps, masks, keys=KEYS)
        result = plain.compute()
        assert result.values == fed(images).compute().values
        assert result.intervals == {} and "intervals" not in result.to_dict()
        assert plain.replicate_values() == {}

    def test_later_images_are_seen(self, images):
        metrics = fed(images, rows=range(5))
        before = metrics.replicate_values()
        scores, labels, score_maps, masks = (part[5:] for part in images)
        metrics.update(scores, labels, score_maps, masks, keys=KEYS[5:])
        whole = fed(images).replicate_values()
        after = metrics.replicate_values()
        for name in METRIC_NAMES:
            assert np.array_equal(after[name], whole[name], equal_nan=True)
            assert not np.array_equal(after[name], before[name], equal_nan=True)

    def test_undefined_replicates_are_left_out(self):
        metrics = AnomalyMetrics(replicates=400)
        metrics.update(np.linspace(0, 1, 20), np.arange(20) == 12)
        drawn = metrics.replicate_values()["image_auroc"]
        assert np.isnan(drawn).mean() == pytest.approx(math.exp(-1), abs=0.07)
        low, high = metrics.compute().intervals["image_auroc"]
        assert 0 < low < 12 / 19 < high < 1

    def test_without_a_value_there_is_no_interval(self):
        metrics = AnomalyMetrics(replicates=REPLICATES)
        metrics.update([0.1, 0.2, 0.3], [0, 0, 0])
        result = metrics.compute()
        assert result.values == {} and result.intervals == {}
        assert AnomalyMetrics(replicates=REPLICATES).compute().intervals == {}

    def test_images_without_a_mask_are_drawn_for_image_metrics_only(self, images):
        scores, labels, score_maps, masks = images
        holes = [None if i in (1, 4) else m for i, m in enumerate(masks)]
        metrics = AnomalyMetrics(replicates=REPLICATES)
        metrics.update(scores, labels, score_maps, holes, keys=KEYS)
        rest = fed(images, rows=[0, 2, 3, 5, 6, 7, 8]).replicate_values()
        whole, found = fed(images).replicate_values(), metrics.replicate_values()
        for name in METRIC_NAMES:
            wanted = whole if name.startswith("image") else rest
            assert np.array_equal(found[name], wanted[name], equal_nan=True), name

    def test_images_of_one_key_are_drawn_together(self):
        """Each score three times under one key says no more than once."""
        scores, labels = np.random.default_rng(0).standard_normal(30), np.arange(30) % 2
        once, thrice = (AnomalyMetrics(replicates=REPLICATES) for _ in range(2))
        once.update(scores, labels, keys=range(30))
        for _ in range(3):
            thrice.update(scores, labels, keys=range(30))
        for name in ("image_auroc", "image_ap", "image_f1_max"):
            assert thrice.replicate_values()[name] == pytest.approx(once.replicate_values()[name])

    def test_unnamed_images_are_numbered_as_they_come(self, images):
        scores, labels, score_maps, masks = images
        single, together = (AnomalyMetrics(replicates=REPLICATES) for _ in range(2))
        together.update(scores, labels, score_maps, masks)
        for i in range(9):
            single.update(scores[i : i + 1], labels[i : i + 1], [score_maps[i]], [masks[i]])
        assert single.compute() == together.compute()
        assert together.compute().intervals != fed(images).compute().intervals

    def test_exact_scores_beyond_float32_have_intervals(self):
        score_map = np.array([[1e39, 2.0, 1.0, -1e39]])
        metrics = AnomalyMetrics("exact", replicates=REPLICATES)
        metrics.update([1.0, 2.0], [0, 1], [score_map] * 2, [score_map > 1e30, score_map > 5])
        assert metrics.compute().intervals["pixel_auroc"] == (1.0, 1.0)

    def test_the_record_takes_intervals_last(self):
        result = MetricResult({"aupro": 0.5}, {}, 1, 1, {"aupro": (0.4, 0.6)})
        assert dict(result) == {"aupro": 0.5, "normal": 1, "anomalous": 1}
        assert result.to_dict()["intervals"] == {"aupro": [0.4, 0.6]}


class TestSoundness:
    """An interval contains its own value, or there is none."""

    @pytest.mark.parametrize("count", [1, 2, 3])
    @pytest.mark.parametrize("keyed", [True, False])
    def test_of_few_images(self, count, keyed):
        """`count` normal and `count` anomalous images, ten times over."""
        left_out = 0
        for study in range(10):
            maps = np.random.default_rng(study).random((2 * count, 24, 24))
            masks = np.zeros((2 * count, 24, 24), int)
            masks[:count, 5:12, 5:12] = 1
            maps += 0.6 * masks
            metrics = AnomalyMetrics(replicates=REPLICATES, seed=study)
            metrics.update(
                [m.max() for m in maps], [int(i < count) for i in range(2 * count)], maps, masks,
                keys=range(2 * count) if keyed else None,
            )  # fmt: skip
            result = metrics.compute()
            for name, (low, high) in result.intervals.items():
                assert low - 1e-9 <= result[name] <= high + 1e-9, name
                assert high - low > 1e-9 or result[name] == 1, name
            drawn = percentile_intervals(metrics.replicate_values())
            left_out += len(drawn.keys() - result.intervals.keys())
        assert left_out > 0, "the case of this test occurred"

    def test_one_image_alone_has_no_interval(self):
        """All replicates repeat the one image, which says nothing of others."""
        metrics = AnomalyMetrics(replicates=REPLICATES)
        mask = np.array([[0, 1, 1, 0]])
        metrics.update([1.0], [1], [np.array([[0.1, 0.9, 0.2, 0.5]])], [mask])
        result = metrics.compute()
        assert result["pixel_auroc"] == 0.75
        assert "aupro" in result and result.intervals == {}

    def test_a_value_outside_has_none(self):
        drawn = {"pixel_ap": np.linspace(0.5, 0.9, 101), "aupro": np.linspace(0, 1, 101)}
        around = {"pixel_ap": 0.95, "aupro": 0.5}
        assert percentile_intervals(drawn, around) == {"aupro": pytest.approx((0.025, 0.975))}
        assert percentile_intervals(drawn, {"pixel_ap": 0.6}).keys() == {"pixel_ap"}
        assert percentile_intervals(drawn).keys() == drawn.keys()

    def test_a_difference_outside_has_none(self):
        first, second = np.linspace(0.5, 0.9, 101), np.full(101, 0.5)
        assert paired_interval(first, second, difference=0.2) == pytest.approx((0.01, 0.39))
        assert paired_interval(first, second, difference=0.4) is None
        assert paired_interval(first, first, difference=0.0) == (0.0, 0.0)


class TestMean:
    def test_replicates_are_averaged_one_by_one(self):
        groups = [np.array([0.1, 0.5, 0.9]), np.array([0.9, 0.5, 0.1])]
        assert mean_replicates(groups) == pytest.approx([0.5, 0.5, 0.5])

    def test_a_hole_takes_the_next_value_of_its_own_group(self):
        groups = [np.array([np.nan, 0.25, np.nan]), np.array([0.0, 0.0, 0.5])]
        assert mean_replicates(groups).tolist() == [0.125, 0.125, 0.375]

    def test_a_group_without_any_value_does_not_count(self):
        nothing = np.full(3, np.nan)
        groups = [nothing, np.array([0.25, 0.5, 0.75])]
        assert mean_replicates(groups).tolist() == [0.25, 0.5, 0.75]
        assert np.isnan(mean_replicates([nothing])).all()
        assert percentile_intervals({"aupro": nothing}) == {}


class TestState:
    @pytest.mark.parametrize("mode", ["binned", "exact"])
    @pytest.mark.parametrize("keys", [KEYS, None])
    def test_goes_on_to_the_same_bit(self, images, mode, keys):
        scores, labels, score_maps, masks = images
        whole = AnomalyMetrics(mode, 0.2, replicates=REPLICATES, seed=5, pro_200=True)
        half = AnomalyMetrics(mode, 0.2, replicates=REPLICATES, seed=5, pro_200=True)
        for start in range(9):
            part = slice(start, start + 1)
            named = None if keys is None else keys[part]
            for metrics in (whole, half):
                metrics.update(
                    scores[part], labels[part], score_maps[part], masks[part], keys=named
                )
            if start in (0, 4):
                half = AnomalyMetrics.from_state(half.state())
        assert half.compute() == whole.compute() and (half.mode, half.fpr_limit) == (mode, 0.2)
        assert half.compute().intervals and "pro_200" in half.compute()

    def test_nothing_seen_comes_back_as_nothing(self):
        for mode in ("binned", "exact"):
            empty = AnomalyMetrics(mode, replicates=REPLICATES)
            assert AnomalyMetrics.from_state(empty.state()).compute() == empty.compute()

    def test_the_state_is_a_copy(self, images):
        metrics = fed(images)
        before = metrics.compute()
        copy = AnomalyMetrics.from_state(metrics.state())
        copy.update(*(part[:4] for part in images), keys=["x", "y", "z", "w"])
        assert metrics.compute() == before != copy.compute()

    def test_coarse_cells_come_back(self):
        score_maps, masks = nasty_maps("plain", count=8, size=(15, 16), separation=1.0)
        store = store_of(score_maps, masks, most_cells=300)
        again = PixelReplicates.from_state(store.state())
        for mine, other in zip(store.tallies(), again.tallies(), strict=True):
            assert np.array_equal(mine.normal, other.normal)
            assert np.array_equal(mine.overlap, other.overlap)


@pytest.mark.parametrize("replicates", [1, 39, -5])
def test_refuses_too_few_replicates(replicates):
    with pytest.raises(ValueError, match=r"0 \(no intervals\) or at least 40, got"):
        AnomalyMetrics(replicates=replicates)


@pytest.mark.parametrize(
    ("keys", "error", "told"),
    [
        (["a"], ValueError, r"keys should hold one entry per image \(2\)"),
        ("ab", ValueError, "keys should hold one entry per image"),
        ([0.5, 1.5], TypeError, "keys should be names or whole numbers"),
    ],
)
@pytest.mark.parametrize("replicates", [0, REPLICATES])
def test_refuses_keys_that_do_not_fit(keys, error, told, replicates):
    metrics = AnomalyMetrics(replicates=replicates)
    with pytest.raises(error, match=told):
        metrics.update([0.1, 0.2], [0, 1], keys=keys)
    assert metrics.compute()["normal"] == 0


def test_a_paired_interval_is_of_the_differences_and_leaves_common_luck_out():
    draw = np.random.default_rng(3)
    luck, own = draw.normal(0.8, 0.1, 200), draw.normal(0, 0.01, (2, 200))
    first, second = luck + own[0] + 0.02, luck + own[1]
    low, high = paired_interval(first, second)
    assert (low, high) == pytest.approx(tuple(np.quantile(first - second, (0.025, 0.975))))
    assert high - low < 0.2 * np.ptp(np.quantile(first, (0.025, 0.975)))
    assert paired_interval(second, first) == pytest.approx((-high, -low))


def test_a_paired_interval_wants_replicates_that_both_define():
    first, second = np.full(200, 0.9), np.full(200, 0.5)
    first[:90], second[110:] = np.nan, np.nan
    assert paired_interval(first, second) == pytest.approx((0.4, 0.4)), "20 remain"
    second[109] = np.nan
    assert paired_interval(first, second) is None
