"""Loss terms against slow rivals, at their landmarks, and at the edges of their range."""

import math

import numpy as np
import pytest
import torch

from faprompt import losses

draw = np.random.default_rng(0)
PROBABILITY = draw.random((3, 6, 5))
MASK = (draw.random((3, 6, 5)) > 0.6).astype(float)
MASK[1] = 0  # a normal image


def tensor(array, *, grad=False):
    return torch.tensor(np.asarray(array, dtype=np.float32), requires_grad=grad)


def slow_focal(true_class):
    total = 0.0
    for s in true_class.ravel():
        q = (1 - 1e-5) * s + 1e-5 * (1 - s) + 1e-5
        total += -((1 - q) ** 2) * math.log(q)
    return total / true_class.size


def slow_dice(probability, mask):
    values = []
    for m, g in zip(probability, mask, strict=True):
        overlap = sum(a * b for a, b in zip(m.ravel(), g.ravel(), strict=True))
        values.append(1 - (2 * overlap + 1) / (m.sum() + g.sum() + 1))
    return sum(values) / len(values)


def slow_local(abnormal, mask):
    true_class = np.where(mask == 1, abnormal, 1 - abnormal)
    return slow_focal(true_class) + slow_dice(abnormal, mask) + slow_dice(1 - abnormal, 1 - mask)


def slow_score_focal(scores, labels, *, as_logit):
    values = []
    for s, y in zip(scores, labels, strict=True):
        p = 1 / (1 + math.exp(-s)) if as_logit else s
        true_class = p if y else 1 - p
        values.append((1 - true_class) ** 2 * -math.log(true_class))
    return sum(values) / len(values)


def test_focal_equals_the_formula():
    assert float(losses.focal(tensor(PROBABILITY))) == pytest.approx(slow_focal(PROBABILITY))


def test_dice_equals_the_formula_per_image():
    ours = losses.dice(tensor(PROBABILITY), tensor(MASK))
    assert float(ours) == pytest.approx(slow_dice(PROBABILITY, MASK))
    pooled = slow_dice(PROBABILITY.reshape(1, -1), MASK.reshape(1, -1))
    assert abs(float(ours) - pooled) > 1e-3  # the mean over images is another number


def test_local_loss_adds_focal_and_both_dice_terms():
    ours = losses.local_loss(tensor(PROBABILITY), tensor(MASK))
    assert float(ours) == pytest.approx(slow_local(PROBABILITY, MASK), rel=1e-5)
    assert float(losses.local_loss(tensor(PROBABILITY), tensor(MASK).bool())) == float(ours)


def test_a_batch_of_one_is_a_batch():
    """The authors' squeeze makes rows of one mask into images; ours must not."""
    alone = [
        float(losses.local_loss(tensor(p[None]), tensor(m[None])))
        for p, m in zip(PROBABILITY, MASK, strict=True)
    ]
    together = float(losses.local_loss(tensor(PROBABILITY), tensor(MASK)))
    assert together == pytest.approx(sum(alone) / 3, rel=1e-5)
    assert alone[0] == pytest.approx(slow_local(PROBABILITY[:1], MASK[:1]), rel=1e-5)


def upsampled(grid, size):
    return torch.nn.functional.interpolate(grid[:, None], size=size, mode="bilinear")[:, 0]


@pytest.mark.parametrize("size", [(21, 33), (7, 5), (28, 42), (4, 60)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_loss_of_a_grid_is_the_loss_of_its_map(size, dtype):
    """Value and gradient, whether the mask is finer than the grid or not."""
    tight = 1e-8 if dtype == torch.float64 else 2e-5
    stream = torch.Generator().manual_seed(0)
    mask = torch.rand(3, *size, generator=stream) > 0.7
    mask[1] = False
    found = torch.rand(3, 7, 6, generator=stream, dtype=dtype, requires_grad=True)
    wanted = found.detach().clone().requires_grad_()
    ours = losses.upsampled_local_loss(found, mask)
    theirs = losses.local_loss(upsampled(wanted, size), mask)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(ours, theirs, rtol=min(tight, 1e-6), atol=0)
    scale = float(wanted.grad.abs().max())
    torch.testing.assert_close(found.grad, wanted.grad, rtol=0, atol=tight * scale)


@pytest.mark.parametrize(
    ("grid", "mask"), [((2, 4, 4), (3, 8, 8)), ((4, 4), (4, 8, 8)), ((1, 2, 2), (2, 2))]
)
def test_grids_and_masks_of_other_axes_are_refused(grid, mask):
    with pytest.raises(ValueError, match=r"grid and mask should be \(B, rows, columns\) and"):
        losses.upsampled_local_loss(torch.rand(grid), torch.zeros(mask))


def test_a_perfect_map_costs_nothing():
    mask = tensor(MASK)
    assert float(losses.focal(torch.ones(3, 6, 5))) < 1e-9
    assert float(losses.dice(mask, mask)) < 1e-5
    assert abs(float(losses.local_loss(mask, mask))) < 1e-5


def test_the_opposite_map_costs_most():
    mask = tensor(MASK[:1])
    worst = float(losses.local_loss(1 - mask, mask))
    assert worst > float(losses.local_loss(torch.full_like(mask, 0.5), mask)) > 1e-3
    assert worst == pytest.approx(slow_local(1 - MASK[:1], MASK[:1]), rel=1e-4)


@pytest.mark.parametrize("as_logit", [True, False])
def test_score_focal_equals_the_formula(as_logit):
    scores, labels = [0.05, 0.3, 0.6, 0.95], [0, 1, 0, 1]
    ours = losses.score_focal(tensor(scores), torch.tensor(labels), as_logit=as_logit)
    wanted = slow_score_focal(scores, labels, as_logit=as_logit)
    assert float(ours) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("score", "label", "wanted"),
    [(0.0, 1, 0.25 * math.log(2)), (1.0, 1, 0.0227), (0.0, 0, 0.1733), (1.0, 0, 0.702)],
)
def test_score_focal_of_the_released_code_never_falls_to_zero(score, label, wanted):
    ours = losses.score_focal(tensor([score]), torch.tensor([label]), as_logit=True)
    assert float(ours) == pytest.approx(wanted, abs=5e-4)


def test_score_focal_of_the_paper_falls_to_zero():
    right = losses.score_focal(tensor([1.0, 0.0]), torch.tensor([1, 0]), as_logit=False)
    assert 0 <= float(right) < 1e-9


def test_orthogonality_of_equal_and_of_orthogonal_prompts():
    equal = tensor(draw.standard_normal(16)).expand(10, -1)
    assert float(losses.orthogonality(equal)) == pytest.approx(45, abs=1e-4)
    assert float(losses.orthogonality(-equal)) == pytest.approx(45, abs=1e-4)
    assert float(losses.orthogonality(3 * torch.eye(10))) == 0
    assert float(losses.orthogonality(torch.ones(1, 4))) == 0  # no pair


def test_orthogonality_sums_absolute_cosines_over_pairs():
    text = draw.standard_normal((4, 6))
    wanted = sum(
        abs(text[k] @ text[m]) / np.linalg.norm(text[k]) / np.linalg.norm(text[m])
        for k in range(4)
        for m in range(k + 1, 4)
    )
    assert float(losses.orthogonality(tensor(text))) == pytest.approx(wanted, rel=1e-5)
    assert float(losses.orthogonality(100 * tensor(text))) == pytest.approx(wanted, rel=1e-5)


def test_prior_penalty_sums_mean_squares_of_normal_images():
    prior = draw.standard_normal((4, 7))
    wanted = (prior[0] ** 2).mean() + (prior[2] ** 2).mean()
    ours = losses.prior_penalty(tensor(prior), torch.tensor([0, 1, 0, 1]))
    assert float(ours) == pytest.approx(wanted, rel=1e-5)


def test_prior_penalty_without_a_normal_image_moves_nothing():
    prior = tensor(draw.standard_normal((2, 7)), grad=True)
    penalty = losses.prior_penalty(prior, torch.tensor([1, 1]))
    penalty.backward()
    assert penalty.item() == 0 and not prior.grad.any()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("truth", [0, 1])
def test_gradients_are_finite_at_the_ends_of_the_range(value, truth):
    maps = torch.full((2, 3, 3), value, requires_grad=True)
    losses.local_loss(maps, torch.full((2, 3, 3), float(truth))).backward()
    assert maps.grad.isfinite().all() and maps.grad.any()
    for as_logit in (True, False):
        score = torch.full((2,), value, requires_grad=True)
        losses.score_focal(score, torch.full((2,), truth), as_logit=as_logit).backward()
        assert score.grad.isfinite().all()


def test_gradients_are_finite_for_prompts_of_no_length_and_for_equal_ones():
    for text in (torch.zeros(3, 4), torch.ones(3, 4)):
        text.requires_grad_()
        losses.orthogonality(text).backward()
        assert text.grad.isfinite().all()


@pytest.mark.parametrize(
    ("maps", "masks"), [((2, 4, 4), (2, 4, 5)), ((4, 4), (4, 4)), ((1, 4, 4), (4, 4))]
)
def test_shapes_that_differ_are_refused(maps, masks):
    with pytest.raises(ValueError, match=r"map and mask should both be \(B, H, W\), got"):
        losses.local_loss(torch.rand(maps), torch.zeros(masks))


def test_scores_and_labels_of_other_lengths_are_refused():
    for as_logit in (True, False):
        with pytest.raises(ValueError, match="size"):
            losses.score_focal(torch.rand(3), torch.tensor([0, 1]), as_logit=as_logit)


def test_a_term_over_layers_is_its_sum():
    maps = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    for term in (losses.focal_dice, losses.local_loss):
        wanted = term(maps[0], mask) + term(maps[1], mask) + term(maps[2], mask)
        torch.testing.assert_close(losses.over_layers(term, maps, mask), wanted)
