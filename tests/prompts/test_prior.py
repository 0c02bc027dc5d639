"""DAP: which patches are chosen, in which order, and what psi makes of them."""

import numpy as np
import pytest
import torch

from faprompt.prompts.prior import AbnormalityPrior, gather_patches, select_patches
from faprompt.scoring import pair_logits


def draw(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))


def select(similarity, probability=None, **options):
    options = {"count": 3, "selection": "topk", "rank_by": "similarity", **options}
    probability = similarity if probability is None else probability
    return select_patches(similarity, probability, **options)


def test_topk_finds_planted_patches_best_first():
    similarity = torch.zeros(2, 20)
    for image, places in enumerate(([17, 2, 9], [0, 19, 5])):
        for rank, place in enumerate(places):
            similarity[image, place] = 0.9 - 0.1 * rank
    assert select(similarity).tolist() == [[17, 2, 9], [0, 19, 5]]
    other = select(torch.zeros(2, 20), similarity, rank_by="probability")
    assert other.tolist() == [[17, 2, 9], [0, 19, 5]]


def test_first_takes_the_beginning_of_the_top_row_whatever_the_scores():
    chosen = select(draw(2, 1369), count=10, selection="first")
    assert chosen.tolist() == [list(range(10))] * 2
    assert chosen.dtype == torch.int64


def test_similarity_and_probability_rank_differently():
    """One patch is close to both directions, another far from "normal": who comes first?"""
    pair = torch.eye(3)[:2]  # normal, abnormal
    patches = torch.tensor([[[0.7, 0.7, 0.1], [-0.6, 0.6, 0.5], [0.9, 0.1, 0.3]]])
    logits = pair_logits(patches, pair)
    similarity, probability = logits[..., 1], logits.softmax(-1)[..., 1]
    assert select(similarity, probability, count=2).tolist() == [[0, 1]]
    ranked = select(similarity, probability, count=2, rank_by="probability")
    assert ranked.tolist() == [[1, 0]]


def test_as_many_patches_as_there_are_may_be_asked_for():
    assert sorted(select(draw(1, 4), count=4)[0].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("selection", ["topk", "first"])
def test_too_few_patches_are_refused(selection):
    with pytest.raises(ValueError, match="wants 10 patches but the image has only 9"):
        select(draw(1, 9), count=10, selection=selection)


@pytest.mark.parametrize("options", [{"selection": "best"}, {"rank_by": "sim"}])
def test_unknown_choices_are_refused(options):
    with pytest.raises(ValueError, match="topk, first and rank_by one of similarity, probability"):
        select(draw(1, 9), **options)


def test_no_gradient_flows_through_the_choice():
    similarity = draw(2, 9).requires_grad_()
    chosen = select(similarity)
    assert not chosen.requires_grad and chosen.dtype == torch.int64


def test_patches_are_gathered_per_image_in_order():
    patches = draw(2, 6, 4)
    index = torch.tensor([[5, 0, 2], [1, 1, 3]])
    wanted = [[patches[b, n].tolist() for n in row] for b, row in enumerate(index)]
    assert gather_patches(patches, index).tolist() == wanted


def test_psi_equals_two_layers_written_out():
    psi, selected = AbnormalityPrior(8, 6, 5), draw(2, 6, 8) - 0.5
    assert psi.linear1.out_features == 8 * 6 // 16
    weights = {name: p.detach().double().numpy() for name, p in psi.named_parameters()}
    for image, vector in zip(selected, psi(selected), strict=True):
        flat = image.reshape(-1).double().numpy()
        hidden = np.maximum(weights["linear1.weight"] @ flat + weights["linear1.bias"], 0)
        wanted = weights["linear2.weight"] @ hidden + weights["linear2.bias"]
        np.testing.assert_allclose(vector.detach().numpy(), wanted, atol=1e-6)


def test_the_order_of_the_patches_matters_to_psi():
    torch.manual_seed(0)
    psi, selected = AbnormalityPrior(64, 10, 64), draw(1, 10, 64)
    assert (psi(selected) - psi(selected.flip(1))).abs().max() > 1e-3
