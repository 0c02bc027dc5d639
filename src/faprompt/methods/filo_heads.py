"""What FiLo trains on image tokens besides linear layers.

Source: models/FiLo.py of CASIA-IVA-Lab/FiLo, through a written specification (section 7.3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNELS = ((1, 1), (3, 3), (5, 5), (7, 7), (1, 5), (5, 1))


class ManyShapes(nn.Module):
    """MMCI: the sum of six parallel convolutions, zeros around the grid."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(width, embed_dim, kernel, padding=(kernel[0] // 2, kernel[1] // 2))
            for kernel in KERNELS
        )

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, width) -> (B, N, D)."""
        planes = tokens.mT.unflatten(-1, grid)
        return torch.stack([branch(planes) for branch in self.branches]).sum(dim=0).flatten(2).mT


class Adapter(nn.Module):
    """x + silu(W_b relu(W_a x)), half as wide inside, without biases."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, dim // 2, bias=False)
        self.up = nn.Linear(dim // 2, dim, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return features + F.silu(self.up(self.down(features).relu()))
