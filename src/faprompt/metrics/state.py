"""What was counted, as one flat dict of arrays that any file format can hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def named(prefix: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays, their names behind a prefix."""
    return {prefix + name: array for name, array in state.items()}


def under(prefix: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays whose names have a prefix, without it.

    Example:
        >>> under("a/", named("a/", {"b": np.zeros(1)}))
        {'b': array([0.])}
    """
    return {
        name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)
    }
