"""Attention written out for 16-bit CPUs, held against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from faprompt.clip.vision import HEADS_AT_ONCE, attend


def draw(batch, heads, length, *, shift=0.0):
    generator = torch.Generator().manual_seed(batch * 100 + heads)
    return torch.randn(batch, heads, length, 16, generator=generator) + shift


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [1, HEADS_AT_ONCE, HEADS_AT_ONCE + 1])
@pytest.mark.parametrize("batch", [1, 3])
def test_sixteen_bits_stay_near_float32(batch, heads, dtype):
    q, k, v = draw(batch, heads, 33), draw(batch, heads + 7, 33)[:, :heads], draw(batch, heads, 33)
    wanted = F.scaled_dot_product_attention(q, k, v)
    with torch.inference_mode():
        actual = attend(*(t.to(dtype) for t in (q, k, v)))
    assert actual.dtype == dtype and actual.shape == wanted.shape
    assert (actual.float() - wanted).abs().max() < 0.03


def test_keys_far_from_zero_cost_no_precision():
    q, k, v = draw(1, 2, 40), draw(2, 2, 40)[:1], draw(1, 2, 40)
    with torch.inference_mode():
        near = attend(*(t.bfloat16() for t in (q, k, v)))
        far = attend(q.bfloat16(), (k.bfloat16() + 8).bfloat16(), v.bfloat16())
    exact = F.scaled_dot_product_attention(q, k, v)
    assert (near.float() - exact).abs().max() < 0.03
    assert (far.float() - exact).abs().max() < 0.3  # the keys themselves were rounded at 8


def test_float32_takes_torchs_kernel():
    q = draw(1, 2, 9).requires_grad_(True)
    out = attend(q, q, q)
    assert torch.equal(out, F.scaled_dot_product_attention(q, q, q))
    out.sum().backward()
    assert q.grad is not None


@pytest.mark.parametrize("widened", [False, True])
def test_sixteen_bit_gradients_stay_near_float32(widened):
    exact = [draw(2, heads, 33)[:, :2].clone().requires_grad_(True) for heads in (2, 3, 4)]
    toward = draw(2, 5, 33)[:, :2]
    F.scaled_dot_product_attention(*exact).backward(toward)
    half = [t.detach().bfloat16().requires_grad_(True) for t in exact]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=widened):
        out = attend(*half)
    assert out.dtype == torch.bfloat16
    out.backward(toward.bfloat16())
    for near, wanted in zip(half, exact, strict=True):
        assert (near.grad.float() - wanted.grad).abs().max() < 0.05 * wanted.grad.abs().max()
