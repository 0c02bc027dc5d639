"""The binned road against the exact one, on ordinary and on nasty scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faprompt.metrics.labelled_pixels import ExactPixels, LabelledPixels
from faprompt.metrics.ranking import auroc_of, average_precision_of, f1_max_of
from faprompt.metrics.region_overlap import aupro_of
from faprompt.metrics.score_histogram import BinnedPixels, ScoreHistogram, ordered_keys
from tests.helpers.score_maps import NASTY, nasty_maps

SIZE = (48, 56)

# Each crowd needs all 65,536 bins of its cell, and 1 << 18 bins give that to three cells only.
CROWDED_IN_MANY_CELLS = ("crowded about 20 places", "late change of range")


def measure(tally):
    return np.array(
        [
            auroc_of(tally),
            average_precision_of(tally),
            f1_max_of(tally),
            aupro_of(tally, fpr_limit=0.3),
            aupro_of(tally, fpr_limit=0.02),
        ]
    )


def labelled(score_maps, masks):
    return [LabelledPixels.of(*pair) for pair in zip(score_maps, masks, strict=True)]


def feed(store, images, portion=1):
    for start in range(0, len(images), portion):
        store.add(images[start : start + portion])
    return store


@pytest.mark.parametrize("separation", [0.5, 4.0])
@pytest.mark.parametrize("name", NASTY)
def test_within_1e_4_of_exact(name, separation):
    images = labelled(*nasty_maps(name, count=40, size=SIZE, separation=separation))
    exact = feed(ExactPixels(), images).tally()
    # Straight into the bins, image by image, and where it can be with far fewer bins.
    capacity = 1 << 21 if name in CROWDED_IN_MANY_CELLS else 1 << 18
    binned = feed(ScoreHistogram(capacity=capacity), images).tally()
    np.testing.assert_allclose(measure(binned), measure(exact), rtol=0, atol=1e-4)
    assert binned.regions == exact.regions
    assert binned.normal.sum() == exact.normal.sum()
    assert binned.anomalous.sum() == exact.anomalous.sum()
    assert binned.overlap.sum() == pytest.approx(exact.regions)


@pytest.mark.parametrize("name", ["256 levels", "crowded about a half", "late change of range"])
def test_no_error_where_bins_suffice(name):
    images = labelled(*nasty_maps(name, count=10, size=SIZE, separation=2.0))
    exact, binned = feed(ExactPixels(), images), feed(ScoreHistogram(), images)
    np.testing.assert_allclose(measure(binned.tally()), measure(exact.tally()), rtol=0, atol=1e-9)


def test_order_hardly_counts():
    images = labelled(*nasty_maps("late change of range", count=40, size=SIZE, separation=2.0))
    forth, back = feed(ScoreHistogram(), images), feed(ScoreHistogram(), images[::-1])
    np.testing.assert_allclose(measure(forth.tally()), measure(back.tally()), rtol=0, atol=1e-4)


def test_never_more_bins_than_allowed():
    images = labelled(*nasty_maps("heavy tails", count=20, size=SIZE, separation=2.0))
    histogram = ScoreHistogram(capacity=1 << 17)
    for image in images:
        histogram.add([image])
        assert len(histogram.tally().thresholds) <= 1 << 17
        assert len(histogram._total) <= 1 << 17


def test_thresholds_select_what_they_count():
    images = labelled(*nasty_maps("plain", count=3, size=SIZE, separation=2.0))
    tally = feed(ScoreHistogram(capacity=1 << 17), images, portion=3).tally()
    scores = np.concatenate([image.scores for image in images])
    counted = np.cumsum(tally.normal + tally.anomalous)
    for row in range(0, len(counted), 997):
        assert (scores >= tally.thresholds[row]).sum() == counted[row]
    assert (np.diff(tally.thresholds.astype(np.float64)) < 0).all()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2))
@settings(deadline=None)
def test_keys_rise_as_scores_do(values):
    scores = np.array(values, dtype=np.float32) + np.float32(0)
    keys = ordered_keys(scores)
    np.testing.assert_array_equal(np.argsort(scores, stable=True), np.argsort(keys, stable=True))
    np.testing.assert_array_equal(ordered_keys(keys).view(np.float32), scores)
    assert len(np.unique(keys)) == len(np.unique(scores))


def test_every_extreme_of_float32_is_counted():
    edge = np.finfo(np.float32)
    values = [edge.min, -1, -edge.smallest_subnormal, 0.0, edge.smallest_subnormal, 1, edge.max]
    scores = np.array([values], dtype=np.float32)
    histogram = feed(ScoreHistogram(), labelled([scores], [scores > 0.5]))
    np.testing.assert_array_equal(histogram.tally().thresholds, scores[0, ::-1])


@pytest.mark.parametrize("keep", [0, 15_000, 10**9])
def test_small_sets_stay_exact_and_large_ones_move_on(keep):
    images = labelled(*nasty_maps("heavy tails", count=12, size=SIZE, separation=2.0))
    exact, store = feed(ExactPixels(), images), feed(BinnedPixels(keep=keep), images)
    tolerance = 1e-4 if keep < 12 * 48 * 56 else 0
    np.testing.assert_allclose(
        measure(store.tally()), measure(exact.tally()), rtol=0, atol=tolerance
    )


def merged(stores):
    first, *others = stores
    for other in others:
        first.merge(other)
    return first


@pytest.mark.parametrize("portion", [3, 13])
@pytest.mark.parametrize("separation", [0.5, 4.0])
@pytest.mark.parametrize("name", NASTY)
def test_merged_chunks_are_within_1e_4_of_exact(name, separation, portion):
    """Each chunk has chosen its own bins; the sum has no more bins than one histogram."""
    images = labelled(*nasty_maps(name, count=40, size=SIZE, separation=separation))
    exact = feed(ExactPixels(), images).tally()
    capacity = 1 << 21 if name in CROWDED_IN_MANY_CELLS else 1 << 18
    chunks = (images[at : at + portion] for at in range(0, len(images), portion))
    total = merged(feed(ScoreHistogram(capacity=capacity), chunk) for chunk in chunks)
    binned = total.tally()
    np.testing.assert_allclose(measure(binned), measure(exact), rtol=0, atol=1e-4)
    assert len(total._total) <= capacity
    assert binned.regions == exact.regions
    assert binned.normal.sum() == exact.normal.sum()
    assert binned.anomalous.sum() == exact.anomalous.sum()
    assert binned.overlap.sum() == pytest.approx(exact.regions)


@pytest.mark.parametrize("keep", [0, 6_000, 15_000, 10**9])
@pytest.mark.parametrize("sizes", [(5, 5, 2), (2, 9, 1), (9, 1, 2), (1, 1, 10)])
def test_small_and_large_chunks_are_merged(keep, sizes):
    images = labelled(*nasty_maps("heavy tails", count=12, size=SIZE, separation=2.0))
    exact, ends = feed(ExactPixels(), images), np.cumsum(sizes)
    chunks = [images[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    stores = [feed(BinnedPixels(keep=keep), chunk) for chunk in chunks]
    before = [store.state() for store in stores[1:]]
    tally = merged(stores).tally()
    tolerance = 1e-4 if keep < 12 * 48 * 56 else 1e-12
    np.testing.assert_allclose(measure(tally), measure(exact.tally()), rtol=0, atol=tolerance)
    for store, state in zip(stores[1:], before, strict=True):  # those that were added stay
        for key, array in store.state().items():
            np.testing.assert_array_equal(array, state[key])


def test_saved_chunks_are_merged_to_the_same_bits():
    images = labelled(*nasty_maps("each image elsewhere", count=12, size=SIZE, separation=2.0))
    parts = (images[:2], images[2:7], images[7:8], images[8:])
    kept, loaded = (
        merged(load(feed(BinnedPixels(keep=6_000), part)) for part in parts)
        for load in (lambda store: store, lambda store: BinnedPixels.from_state(store.state()))
    )
    wanted = kept.state()
    assert loaded.state().keys() == wanted.keys()
    for key, array in loaded.state().items():
        np.testing.assert_array_equal(array, wanted[key])


def test_refuses_to_merge_other_sizes():
    with pytest.raises(ValueError, match="of 2097152 and 131072 bins cannot be merged"):
        ScoreHistogram().merge(ScoreHistogram(capacity=1 << 17))
    with pytest.raises(ValueError, match="that keep 1048576 and 9 pixels cannot be merged"):
        BinnedPixels().merge(BinnedPixels(keep=9))


def test_refuses_too_few_bins():
    with pytest.raises(ValueError, match="at least 131072 bins, got 1000"):
        ScoreHistogram(capacity=1000)
