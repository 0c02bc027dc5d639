"""`AnomalyMetrics`: the same numbers however the images come in."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as rival

from faprompt.metrics import METRIC_NAMES, AnomalyMetrics, MetricResult
from tests.helpers.aupro_reference import aupro_by_thresholds
from tests.helpers.score_maps import draw_maps

MODES = ("binned", "exact")


@pytest.fixture
def images():
    """Scores, labels, maps and masks of eight images in two sizes."""
    wide, wide_masks = draw_maps(5, (12, 17), seed=5)
    tall, tall_masks = draw_maps(3, (19, 9), seed=6)
    score_maps = [m.astype(np.float32) for m in wide + tall]
    masks = wide_masks + tall_masks
    labels = np.array([int(mask.any()) for mask in masks])
    labels[0] = 0
    scores = np.array([m.max() for m in score_maps])
    return scores, labels, score_maps, masks


def fed(images, *, mode="exact", portions=None, order=None):
    scores, labels, score_maps, masks = images
    order = np.arange(len(scores)) if order is None else np.asarray(order)
    metrics = AnomalyMetrics(mode)
    for rows in np.split(order, portions or []):
        metrics.update(
            scores[rows], labels[rows], [score_maps[i] for i in rows], [masks[i] for i in rows]
        )
    return metrics


def assert_same(result, expected):
    assert result.values == pytest.approx(expected.values, abs=1e-12)
    assert result.undefined == expected.undefined
    assert (result.normal, result.anomalous) == (expected.normal, expected.anomalous)


@pytest.mark.parametrize("mode", MODES)
def test_equals_the_rivals(images, mode):
    scores, labels, score_maps, masks = images
    result = fed(images, mode=mode).compute()
    flat = np.concatenate([m.ravel() for m in score_maps])
    truth = np.concatenate([m.ravel() for m in masks])
    for level, s, y in (("image", scores, labels), ("pixel", flat, truth)):
        precision, recall, _ = rival.precision_recall_curve(y, s)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        assert result[f"{level}_auroc"] == pytest.approx(rival.roc_auc_score(y, s), abs=1e-9)
        assert result[f"{level}_ap"] == pytest.approx(rival.average_precision_score(y, s), abs=1e-9)
        assert result[f"{level}_f1_max"] == pytest.approx(f1.max(), abs=1e-9)
    assert result["aupro"] == pytest.approx(aupro_by_thresholds(score_maps, masks), abs=1e-9)
    assert (result["normal"], result["anomalous"]) == ((labels == 0).sum(), labels.sum())
    assert result.undefined == {}


@given(
    order=st.permutations(range(8)),
    portions=st.lists(st.integers(0, 8), max_size=4).map(sorted),
    mode=st.sampled_from(MODES),
)
@settings(max_examples=30, deadline=None)
def test_neither_portions_nor_order_count(order, portions, mode):
    score_maps, masks = draw_maps(8, (6, 7), seed=8)
    labels = np.array([1, 0, 1, 0, 1, 0, 1, 0])
    images = np.linspace(0, 1, 8), labels, score_maps, masks
    in_turn = fed(images, mode=mode, portions=portions, order=order).compute()
    assert_same(in_turn, fed(images, mode=mode).compute())


@pytest.mark.parametrize("mode", MODES)
def test_reset_forgets(images, mode):
    metrics = fed(images, mode=mode)
    metrics.reset()
    assert metrics.compute() == AnomalyMetrics(mode).compute()
    assert (metrics.mode, metrics.fpr_limit) == (mode, 0.3)


@pytest.mark.parametrize("mode", MODES)
def test_compute_may_be_repeated_and_continued(images, mode):
    metrics = fed(images, mode=mode, order=[0, 1, 2, 3, 4])
    assert metrics.compute() == metrics.compute()
    scores, labels, score_maps, masks = images
    metrics.update(scores[5:], labels[5:], score_maps[5:], masks[5:])
    assert metrics.compute().values == pytest.approx(fed(images, mode=mode).compute().values)


@pytest.mark.parametrize("mode", MODES)
def test_keeps_no_hold_on_what_came_in(images, mode):
    scores, labels, score_maps, masks = images
    metrics = fed(images, mode=mode)
    before = metrics.compute()
    scores *= -1
    labels[:] = 1
    for score_map, mask in zip(score_maps, masks, strict=True):
        score_map *= -1
        mask[:] = True
    assert metrics.compute() == before


def test_images_without_a_map_or_a_mask_count_for_image_metrics_only(images):
    scores, labels, score_maps, masks = images
    metrics = AnomalyMetrics("exact")
    holes = [None if i in (1, 4) else m for i, m in enumerate(score_maps)]
    gaps = [None if i in (1, 2, 4) else m for i, m in enumerate(masks)]
    metrics.update(scores, labels, holes, gaps)
    whole = [0, 3, 5, 6, 7]
    result, rest = metrics.compute(), fed(images, order=whole).compute()
    assert result["image_auroc"] == fed(images).compute()["image_auroc"]
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"):
        assert result[name] == pytest.approx(rest[name])


def test_arrays_lists_and_number_types_agree():
    score_maps, masks = draw_maps(3, (8, 9))
    rounded = np.round(4 * np.stack(score_maps))
    truth = np.stack(masks)
    labels = [0, 1, 1]
    expected = None
    for dtype in (np.float64, np.float32, np.float16, np.int8):
        for mask_type in (bool, np.uint8, np.float32):
            for mode in MODES:
                metrics = AnomalyMetrics(mode)
                metrics.update([1, 2, 3], labels, rounded.astype(dtype), truth.astype(mask_type))
                metrics.update([1], [True], list(rounded[:1].astype(dtype)), list(truth[:1]))
                result = metrics.compute()
                expected = expected or result
                assert_same(result, expected)


def test_a_large_update_equals_single_ones(images):
    score_maps, masks = draw_maps(30, (5, 6), seed=9)
    labels = np.arange(30) % 2
    single, together = AnomalyMetrics(), AnomalyMetrics()
    together.update(labels, labels, np.stack(score_maps), np.stack(masks))
    for i in range(30):
        single.update(labels[i : i + 1], labels[i : i + 1], [score_maps[i]], [masks[i]])
    assert single.compute().values == pytest.approx(together.compute().values)


def test_only_the_order_of_scores_counts(images):
    scores, labels, score_maps, masks = images
    squashed = AnomalyMetrics("exact")
    squashed.update(
        np.exp(scores), labels, [np.exp(m.astype(np.float64)) for m in score_maps], masks
    )
    assert squashed.compute().values == pytest.approx(fed(images).compute().values)


def test_exact_sees_beyond_float32():
    fine = 0.5 + 1e-12 * np.arange(6, dtype=np.float64).reshape(2, 3)
    mask = fine > 0.5 + 2.5e-12
    exact, binned = AnomalyMetrics("exact"), AnomalyMetrics("binned")
    for metrics in (exact, binned):
        metrics.update([0.1], [1], [fine], [mask])
    assert exact.compute()["pixel_auroc"] == 1.0
    assert "same score" in binned.compute().undefined["pixel_auroc"]


def test_fpr_limit_is_used(images):
    scores, labels, score_maps, masks = images
    for fpr_limit in (0.05, 1.0):
        metrics = AnomalyMetrics("exact", fpr_limit)
        metrics.update(scores, labels, score_maps, masks)
        expected = aupro_by_thresholds(score_maps, masks, fpr_limit)
        assert metrics.compute()["aupro"] == pytest.approx(expected, abs=1e-12)


# What is added up


def keyed(images, rows, **options):
    scores, labels, score_maps, masks = images
    metrics = AnomalyMetrics(replicates=40, pro_200=True, **options)
    metrics.update(
        scores[rows], labels[rows], [score_maps[i] for i in rows], [masks[i] for i in rows],
        keys=[f"{i}.png" for i in rows],
    )  # fmt: skip
    return metrics


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("load", [lambda m: m, lambda m: AnomalyMetrics.from_state(m.state())])
@pytest.mark.parametrize("chunks", [[[0, 1, 2, 3], [4, 5], [6, 7]], [[0], [1, 2, 3, 4, 5, 6, 7]]])
def test_merged_metrics_are_those_of_one_stream(images, mode, load, chunks):
    whole = keyed(images, range(8), mode=mode)
    first, *others = (load(keyed(images, rows, mode=mode)) for rows in chunks)
    for other in others:
        before = other.compute()
        first.compute()  # what was computed is not kept
        first.merge(other)
        assert other.compute() == before
    assert first.compute() == whole.compute()  # intervals too, to the bit
    for name, drawn in whole.replicate_values().items():
        np.testing.assert_array_equal(first.replicate_values()[name], drawn)
    for name, curve in whole.curves().items():
        np.testing.assert_array_equal(first.curves()[name].y, curve.y)


def test_an_empty_one_changes_nothing(images):
    whole, empty = keyed(images, range(8)), keyed(images, [])
    before = whole.compute()
    whole.merge(empty)
    assert whole.compute() == before
    empty.merge(whole)
    assert empty.compute() == before


def test_refuses_to_merge_what_does_not_belong_together(images):
    with pytest.raises(ValueError, match=r"fpr_limit=0.3 and fpr_limit=0.2 cannot be merged"):
        keyed(images, [0]).merge(keyed(images, [1], fpr_limit=0.2))
    with pytest.raises(ValueError, match="mode='binned' and mode='exact' cannot be merged"):
        keyed(images, [0]).merge(keyed(images, [1], mode="exact"))
    unnamed = [AnomalyMetrics(replicates=40), AnomalyMetrics(replicates=40)]
    for metrics in unnamed:
        metrics.update([0.1, 0.2], [0, 1])
    with pytest.raises(ValueError, match="pass keys= to update"):
        unnamed[0].merge(unnamed[1])


# What has no answer says why


def test_nothing_seen():
    result = AnomalyMetrics().compute()
    assert result.values == {}
    assert set(result.undefined) == set(METRIC_NAMES)
    assert result.undefined["image_auroc"] == "there are no images"
    assert result.undefined["aupro"] == "no image has both a score map and a mask"
    assert (result.normal, result.anomalous) == (0, 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("score_map", "mask", "ranking", "region"),
    [
        ([[1, 2]], [[0, 0]], "one class only: all pixels are normal", "no region"),
        ([[1, 2]], [[1, 1]], "one class only: all pixels are anomalous", "no normal pixel"),
        ([[0.25, 0.25]], [[0, 1]], r"same score \(0.25\)", r"same score \(0.25\)"),
        ([[0.0, -0.0]], [[0, 1]], "same score", "same score"),
    ],
)
def test_pixel_metrics_without_an_answer(mode, score_map, mask, ranking, region):
    metrics = AnomalyMetrics(mode)
    metrics.update([0.1, 0.2], [0, 1], [np.array(score_map), None], [np.array(mask), None])
    result = metrics.compute()
    assert set(result.values) == {"image_auroc", "image_ap", "image_f1_max"}
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1_max"):
        pytest.raises(KeyError, result.__getitem__, name).match(ranking)
    pytest.raises(KeyError, result.__getitem__, "aupro").match(region)


@pytest.mark.parametrize(
    ("scores", "labels", "reason"),
    [
        ([0.1, 0.2], [0, 0], "one class only: all images are normal"),
        ([0.1, 0.2], [1, 1], "one class only: all images are anomalous"),
        ([0.2, 0.2], [0, 1], "all images have the same score"),
    ],
)
def test_image_metrics_without_an_answer(scores, labels, reason):
    metrics = AnomalyMetrics()
    metrics.update(scores, labels, np.array([[[1, 2]], [[3, 4]]]), np.array([[[0, 0]], [[0, 1]]]))
    result = metrics.compute()
    assert set(result.values) == {"pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"}
    assert all(reason in result.undefined[f"image_{name}"] for name in ("auroc", "ap", "f1_max"))


# What is refused


def picture(value=0.5, size=(2, 3)):
    return np.full(size, value)


BAD_UPDATES = {
    "score NaN": (([np.nan], [0]), "scores should be finite"),
    "score infinite": (([np.inf], [0]), "scores should be finite"),
    "lengths": (([0.1, 0.2], [0]), "one length"),
    "label 2": (([0.1], [2]), "labels should hold only 0 and 1"),
    "map NaN": (([0.1], [0], [picture(np.nan)], [picture(0)]), r"score_maps\[0\] should be finite"),
    "map infinite": (([0.1], [0], [picture(-np.inf)], None), r"score_maps\[0\] should be finite"),
    "map and mask sizes": (
        ([0.1], [0], [picture()], [picture(0, (3, 2))]),
        r"masks\[0\] is \(3, 2\) but score_maps\[0\] is \(2, 3\)",
    ),
    "too few maps": (
        ([0.1, 0.2], [0, 1], [picture()], None),
        r"score_maps should hold one .* \(2\)",
    ),
    "too many masks": (
        ([0.1], [0], [picture()], [picture(0)] * 2),
        r"masks should hold one entry per image \(1\), got 2",
    ),
    "mask of 255": (([0.1], [1], [picture()], [picture(255)]), "only 0 and 1, got values from 255"),
    "soft mask": (
        ([0.1], [1], [picture()], [picture(0.5)]),
        r"masks\[0\] should hold only 0 and 1",
    ),
    "masks alone": (([0.1], [1], None, [picture(1)]), "masks came without score_maps"),
    "mask alone": (([0.1], [1], [None], [picture(1)]), r"masks\[0\] came without score_maps\[0\]"),
    "channel axis": (
        ([0.1], [1], np.zeros((1, 1, 2, 3)), None),
        r"score_maps should be \(B, H, W\).*\(1, 1, 2, 3\)",
    ),
    "flat map": (([0.1], [1], [np.zeros(6)], None), r"score_maps\[0\] should be \(H, W\)"),
    "empty map": (([0.1], [1], [np.zeros((0, 3))], None), "not empty"),
    "second of two": (
        ([0.1, 0.2], [0, 1], [picture(), picture(np.nan)], [picture(0)] * 2),
        r"score_maps\[1\]",
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BAD_UPDATES)
def test_refused_updates_leave_no_trace(images, mode, name):
    arguments, message = BAD_UPDATES[name]
    metrics = fed(images, mode=mode)
    before = metrics.compute()
    with pytest.raises(ValueError, match=message):
        metrics.update(*arguments)
    assert metrics.compute() == before


def test_refuses_what_is_no_number():
    with pytest.raises(TypeError, match="scores should hold real numbers"):
        AnomalyMetrics().update(["high"], [1])
    with pytest.raises(TypeError, match=r"score_maps\[0\] should hold real numbers"):
        AnomalyMetrics().update([0.1], [1], [picture() * 1j])
    with pytest.raises(TypeError, match=r"masks\[0\] should hold real numbers"):
        AnomalyMetrics().update([0.1], [1], [picture()], [picture().astype(str)])


def test_beyond_float32_needs_the_exact_mode():
    huge = np.array([[1e39, 1.0]])
    with pytest.raises(ValueError, match='beyond float32; rescale it, or use mode="exact"'):
        AnomalyMetrics("binned").update([0.1], [1], [huge], [huge > 2])
    exact = AnomalyMetrics("exact")
    exact.update([0.1], [1], [huge], [huge > 2])
    assert exact.compute()["pixel_auroc"] == 1.0


@pytest.mark.parametrize("mode", ["Binned", "fast", "", None])
def test_refuses_an_unknown_mode(mode):
    with pytest.raises(ValueError, match='"binned" or "exact"'):
        AnomalyMetrics(mode)


@pytest.mark.parametrize("fpr_limit", [0, -0.3, 1.5, np.nan, np.inf])
def test_refuses_a_limit_out_of_range(fpr_limit):
    with pytest.raises(ValueError, match="fpr_limit should be above 0 and at most 1"):
        AnomalyMetrics(fpr_limit=fpr_limit)


# The record


def test_result_reads_like_a_mapping():
    result = MetricResult({"image_auroc": 0.75}, {"aupro": "no region"}, normal=3, anomalous=2)
    assert dict(result) == {"image_auroc": 0.75, "normal": 3, "anomalous": 2}
    assert list(result) == ["image_auroc", "normal", "anomalous"] == list(result.keys())
    assert ("normal", 3) in result.items()
    assert len(result) == 3
    assert "image_auroc" in result and "aupro" not in result
    assert result.get("aupro") is None
    assert result.get("aupro", 0.5) == 0.5
    assert result.to_dict() == {**dict(result), "undefined": {"aupro": "no region"}}
    with pytest.raises(KeyError, match="aupro is undefined: no region"):
        result["aupro"]
    with pytest.raises(KeyError, match="nonsense"):
        result["nonsense"]
    with pytest.raises(AttributeError):
        result.normal = 4
    with pytest.raises(ValueError, match="cannot have a value and be undefined"):
        MetricResult({"aupro": 0.5}, {"aupro": "no region"}, normal=1, anomalous=1)


@pytest.mark.parametrize("mode", MODES)
def test_travels_between_processes(images, mode):
    metrics = fed(images, mode=mode)
    there_and_back = pickle.loads(pickle.dumps(metrics))
    assert there_and_back.compute() == metrics.compute()
    assert pickle.loads(pickle.dumps(metrics.compute())) == metrics.compute()
