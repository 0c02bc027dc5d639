"""The multiplication floor: what this machine multiplies at best, and what a picture needs.

A rate is the best one over square matrices of several sizes, by the library kernels that the
model uses. It is measured between the model's runs, so that both meet the same load.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from faprompt.clip.spec import BackboneSpec

SIDES = (1024, 2048)
_UNITS = ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")  # flags of /proc/cpuinfo


def multiply_rates(clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Precision -> operations a second (a multiplication and an addition are two)."""
    return {
        name: max(_rate(make(side), side, clock) for side in SIDES) for name, make in _KINDS.items()
    }


def image_operations(spec: BackboneSpec, patches: int) -> int:
    """Operations of the matrix products of one picture through both paths of the image tower.

    The last block computes its class token only, apart from keys, values and the V-V path.
    """
    width, depth, tokens = spec.vision.width, spec.vision.layers, patches + 1
    matrix, attention = 2 * tokens * width**2, 4 * tokens**2 * width
    mlp = 2 * spec.vision.mlp_ratio * matrix
    plain = (depth - 1) * (4 * matrix + mlp + attention) + 2 * matrix
    value_path = (depth - spec.vision.value_path_start) * (matrix + attention)
    return int(plain + value_path)


def matrix_units() -> str:
    """The processor's units for matrices, by the system's names; they decide which is fastest."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.exists() else []
    return " ".join(unit for unit in _UNITS if unit in flags)


def _rate(multiply: Callable[[], object], side: int, clock: Callable[[], float]) -> float:
    multiply()
    times = []
    for _ in range(5):
        started = clock()
        multiply()
        times.append(clock() - started)
    return 2 * side**3 / min(times)


def _floating(dtype: torch.dtype) -> Callable[[int], Callable[[], object]]:
    def make(side: int) -> Callable[[], object]:
        left, right = (torch.ones(side, side, dtype=dtype) for _ in range(2))
        return lambda: left @ right

    return make


def _int8(side: int) -> Callable[[], object]:
    left, right = (torch.ones(side, side, dtype=torch.int8) for _ in range(2))
    packed = torch.ops.onednn.qlinear_prepack(right, None)
    scales, zeros = torch.ones(side), torch.zeros(side, dtype=torch.int64)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        left, scales[0], zeros[0], packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [],
        "",
    )  # fmt: skip


_KINDS: dict[str, Callable[[int], Callable[[], object]]] = {
    "fp32": _floating(torch.float32),
    "bf16": _floating(torch.bfloat16),
    "int8": _int8,
}
