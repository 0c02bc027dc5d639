"""How far maps lie apart: against scikit-learn, plain loops, and cases known by reason."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from faprompt.reproduce.spread_measures import (
    MEASURES,
    contrast,
    effective_prompts,
    measure,
    pair_dissimilarity,
    pair_distance,
    silhouettes,
)
from sklearn.metrics import silhouette_samples


@pytest.fixture
def maps():
    draw = np.random.default_rng(4)
    prompts = draw.random((1, 3, 20))
    return (0.5 * prompts + 0.5 * draw.random((6, 3, 20))).astype(np.float32)


def test_distance_and_dissimilarity_are_means_over_pairs(maps):
    for number, picture in enumerate(maps):
        pairs = list(combinations(picture.astype(float), 2))
        distance = np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in pairs])
        unlike = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in pairs])
        assert pair_distance(maps)[number] == pytest.approx(distance, rel=1e-5)
        assert pair_dissimilarity(maps)[number] == pytest.approx(unlike, abs=1e-5)


def test_a_prompt_that_scores_all_higher_has_a_distance_and_no_dissimilarity(maps):
    alike = np.stack([maps[:, 0] * 0.5, maps[:, 0] * 0.5 + 0.25], axis=1)
    np.testing.assert_allclose(pair_distance(alike), 0.25, atol=1e-6)
    np.testing.assert_allclose(pair_dissimilarity(alike), 0, atol=1e-5)
    opposite = np.stack([maps[:, 0], 1 - maps[:, 0]], axis=1)
    np.testing.assert_allclose(pair_dissimilarity(opposite), 2, atol=1e-5)


def test_a_constant_map_is_like_no_other():
    flat = np.array([[[0.5, 0.5, 0.5], [0.1, 0.2, 0.9]]])
    assert pair_dissimilarity(flat).tolist() == [1.0]


def test_the_effective_number_known_by_reason(maps):
    same = np.stack([maps[:, 0]] * 5, axis=1)
    np.testing.assert_allclose(effective_prompts(same), 1, atol=1e-5)
    groups = np.stack([maps[:, 0]] * 3 + [1 - maps[:, 0]] * 3, axis=1)
    np.testing.assert_allclose(effective_prompts(groups), 2, atol=1e-5)
    waves = np.cos(np.outer(np.arange(1, 5), np.linspace(0, 2 * np.pi, 40, endpoint=False)))
    np.testing.assert_allclose(effective_prompts(waves[None]), 4, atol=1e-9)


def test_the_effective_number_is_one_over_the_mean_correlation(maps):
    for number, picture in enumerate(maps):
        wanted = 1 / np.clip(np.corrcoef(picture), 0, 1).mean()
        assert effective_prompts(maps)[number] == pytest.approx(wanted, rel=1e-5)


def test_contrast_scales_with_the_maps_as_distances_do_and_correlations_do_not(maps):
    wanted = [np.mean([np.std(each.astype(float)) for each in picture]) for picture in maps]
    np.testing.assert_allclose(contrast(maps), wanted, rtol=1e-5)
    pale = 0.25 * maps + 0.5
    for scaled, plain in ((contrast, 0.25), (pair_distance, 0.25), (pair_dissimilarity, 1)):
        np.testing.assert_allclose(scaled(pale), plain * scaled(maps), rtol=1e-3)
    np.testing.assert_allclose(effective_prompts(pale), effective_prompts(maps), rtol=1e-4)


def rival(maps, weights):
    """scikit-learn's silhouette of each map among all copies of the other pictures."""
    pictures, prompts, _ = maps.shape
    values = []
    for picture in range(pictures):
        others = [p for p in range(pictures) for _ in range(weights[p]) if p != picture]
        for prompt in range(prompts):
            points = np.concatenate([maps[picture, prompt][None], *(maps[p] for p in others)])
            labels = [prompt, *(list(range(prompts)) * len(others))]
            each = silhouette_samples(points.astype(np.float64), labels)[0]
            values += [each] * weights[picture]
    return np.mean(values)


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1, 1], [2, 0, 1, 3, 0, 1]])
def test_the_silhouette_is_scikit_learns_without_the_picture_itself(maps, weights):
    ours = silhouettes(maps, np.array(weights, float)[:, None])
    assert ours == pytest.approx([rival(maps, weights)], abs=1e-9)


def test_silhouettes_known_by_reason(maps):
    once = np.ones((6, 1))
    apart = np.zeros((6, 2, 4)) + np.array([[0.0] * 4, [1.0] * 4])
    assert silhouettes(apart, once) == pytest.approx([1.0])
    same = np.stack([maps[:, 0]] * 3, axis=1)
    assert silhouettes(same, once) == pytest.approx([0.0], abs=1e-9)


def test_replicates_are_independent_and_too_few_pictures_give_nothing(maps):
    weights = np.random.default_rng(0).integers(0, 3, (6, 120)).astype(float)
    weights[:, 7] = [3, 0, 0, 0, 0, 0]
    weights[:, 8] = 0
    together = silhouettes(maps, weights)
    alone = [silhouettes(maps, weights[:, i : i + 1])[0] for i in range(120)]
    np.testing.assert_allclose(together, alone, atol=1e-12)
    assert np.isnan(together[7]) and np.isnan(together[8]) and np.isfinite(together[:7]).all()


def test_measures_weigh_the_pictures(maps):
    weights = np.array([[1, 1], [1, 2], [1, 0], [1, 0], [1, 0], [1, 0]], float)
    found = measure(maps, weights)
    assert tuple(found) == MEASURES
    assert found["distance"][0] == pytest.approx(pair_distance(maps).mean())
    roads = (pair_distance, pair_dissimilarity, effective_prompts)
    for name, road in zip(MEASURES, roads, strict=False):
        first, second = road(maps)[:2]
        assert found[name][1] == pytest.approx((first + 2 * second) / 3)


def test_one_prompt_has_no_pairs(maps):
    assert np.isnan(pair_distance(maps[:, :1])).all()
