"""Comparing what two roads compute: rounding grows with the values that are added up."""

import numpy as np
import torch


def close(actual, wanted, tolerance: float = 1e-5) -> None:
    """Two arrays or tensors, equal within `tolerance` of the largest value wanted."""
    actual, wanted = (torch.as_tensor(each).detach().double().numpy() for each in (actual, wanted))
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def cosine_distances(tokens: torch.Tensor) -> np.ndarray:
    """1 - cosine of all pairs of (B, N, D) tokens, (B, N, N), in double precision."""
    values = tokens.double().numpy()
    units = values / np.linalg.norm(values, axis=-1, keepdims=True)
    return 1 - units @ units.transpose(0, 2, 1)
