"""Multiply with 8-bit weights and tokens on a CPU, by oneDNN's kernels.

    weight (out, in)    one scale per output; rounded once
    token  (..., in)    one scale per token, found as it comes, so that a picture's result does
                        not depend on the others in its batch

    y = scale_token * scale_out * (q_token . q_weight) + bias

torch.ao.quantization, which does this with one scale for the whole batch, is to be removed from
torch. The operators used here are those that torch's compiler calls for quantised models.

Source: LLM.int8() (Dettmers et al., NeurIPS 2022), vector-wise quantisation, without its outliers
in half precision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faprompt.errors import ConfigError

_STEPS = 127  # of a signed byte, on either side of zero


class Int8Linear(nn.Module):
    """Replace a linear layer by 8-bit arithmetic; no gradient passes through it."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        scale = _scales(weight.detach())
        rounded = (weight.detach() / scale).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, None)  # no tensor to be saved
        self._scale = scale[:, 0].contiguous()
        self._bias = bias.detach().clone()
        self._one, self._zeros = torch.ones(()), torch.zeros(len(bias), dtype=torch.int64)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., in) float32 to (..., out) float32."""
        rows = tokens.detach().flatten(0, -2)
        scale = _scales(rows)
        product = torch.ops.onednn.qlinear_pointwise(
            (rows / scale).round_().to(torch.int8), self._one, self._zeros[0],
            self._packed, self._scale, self._zeros, None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        result = torch.addcmul(self._bias, product, scale, out=product)
        return result.unflatten(0, tokens.shape[:-1])


def _scales(rows: Tensor) -> Tensor:
    """Return the scale (N, 1) that maps the largest value of each row to 127."""
    largest = torch.maximum(rows.amax(dim=-1, keepdim=True), -rows.amin(dim=-1, keepdim=True))
    return largest.clamp_min_(torch.finfo(torch.float32).tiny) / _STEPS


def check_int8(device: torch.device) -> None:
    """Refuse a device, a build of torch or a processor that does not multiply in 8 bits.

    Raises:
        ConfigError: says why, and what to use instead.
    """
    if device.type != "cpu":
        raise ConfigError(f"precision int8 is for CPUs; on {device.type} use bf16 or fp16.")
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        raise ConfigError(
            "precision int8 needs oneDNN's kernels, which this build of torch lacks; use fp32."
        )
    if not is_exact():
        raise ConfigError(
            "precision int8 needs a processor with 8-bit multiplication units (VNNI or AMX); this "
            "one rounds their sums. Use fp32."
        )


def is_exact() -> bool:
    """Return whether sums of products of bytes are exact here.

    Without 8-bit units oneDNN adds pairs of products in 16 bits, which overflow.
    """
    values = torch.arange(1, _STEPS + 1, 2) / _STEPS
    wanted = (values * values).sum()
    try:
        found = Int8Linear(values[None], torch.zeros(1))(values[None])
    except RuntimeError:  # the kernels are there, and not for this processor
        return False
    return bool((found - wanted).abs() < 1e-5 * wanted)
