"""The yardstick computes the same thing: naive and ours agree, at inference and in training."""

import pytest
import torch

from benchmarks import naive
from faprompt.methods.faprompt import PRESETS
from faprompt.scoring import render_map
from tests.training import toys


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 40, 32, generator=torch.Generator().manual_seed(1))


def ours(method, pixels):
    with torch.no_grad():
        output = method(toys.backbone().encode_image(pixels), toys.backbone().text)
    size = (pixels.shape[-2], pixels.shape[-1])
    sigma = method.config.sigma_px
    return output.score, render_map(output.patch_map, model_size=size, sigma_px=sigma)


def spread(method):
    """Prompts far from their tiny start, so that every part of the text side matters."""
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.mul_(20 if parameter.std() < 0.03 else 1)
    return method


@pytest.mark.parametrize("options", [{}, PRESETS["official"], {"sigma_px": 0.0}])
def test_naive_scores_and_maps_equal_ours(options, pixels):
    method = spread(toys.faprompt(**options))
    score, score_map = naive.naive_score(toys.backbone(), method, pixels)
    wanted_score, wanted_map = ours(method, pixels)
    assert score.shape == (3,) and score_map.shape == (3, 40, 32)
    torch.testing.assert_close(score, wanted_score, atol=1e-4, rtol=0)
    torch.testing.assert_close(score_map, wanted_map, atol=1e-4, rtol=0)
    assert wanted_map.std() > 1e-3 and score.std() > 1e-4  # the comparison is about something


def test_naive_training_equals_ours(pixels):
    label = torch.tensor([0, 1, 0])
    mask = torch.zeros(3, 40, 32)
    mask[1, 5:20, 5:20] = 1
    naive_method, our_method = spread(toys.faprompt()), spread(toys.faprompt())
    optimizers = [torch.optim.Adam(m.parameters(), lr=1e-3) for m in (naive_method, our_method)]
    clip = toys.backbone()
    for _ in range(2):
        terms = naive.naive_step(clip, naive_method, optimizers[0], pixels, label, mask)
        output = our_method(clip.encode_image(pixels), clip.text)
        wanted = our_method.loss(output, label, mask)
        optimizers[1].zero_grad()
        sum(wanted.values()).backward()
        optimizers[1].step()
        for name, value in wanted.items():
            assert terms[name] == pytest.approx(float(value.detach()), rel=1e-4)
    toys.assert_moved_alike(naive_method, our_method, spread(toys.faprompt()))


def test_naive_wants_float32(pixels):
    half = toys.draw_backbone().set_precision("bf16")
    with pytest.raises(ValueError, match="this backbone holds bf16"):
        naive.naive_score(half, toys.faprompt(), pixels)
