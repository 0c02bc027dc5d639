"""The normal samples in the paper's test split of SDD, AITEX, ELPV and LAG: a quarter, drawn once.

These four have no official test split. The research group's converters (InCTRL, AHL, earlier
DRA) split the normal samples with scikit-learn's `train_test_split(test_size=0.25,
random_state=42)` and keep every anomalous sample. The quarter depends on the order of the
samples. For ELPV this is the order of its CSV, so our samples are theirs. For SDD, AITEX and LAG
it was an unsorted directory listing, so only the number of our samples is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faprompt.data.dataset import Notes
from faprompt.errors import ConfigError
from faprompt.records import Sample

SUBSETS = ("paper", "all")
_SEED = 42


def paper_normals(count: int) -> list[int]:
    """Return the indices of the normal samples that the paper's test split keeps.

    Args:
        count: number of normal samples, in the order the split is drawn from.

    Returns:
        ceil(count / 4) indices from 0, ascending.

    Raises:
        ValueError: `count` is below 0.

    Source:
        scikit-learn's `train_test_split(range(count), test_size=0.25, random_state=42)`: the
        first ceil(count / 4) entries of one permutation by NumPy's legacy generator.

    Example:
        >>> paper_normals(8), len(paper_normals(1143))
        ([1, 5], 286)
    """
    if count < 0:
        raise ValueError(f"count should be 0 or more, got {count}.")
    drawn = np.random.RandomState(_SEED).permutation(count)[: -(-count // 4)]
    return sorted(drawn.tolist())


def take_subset(samples: Sequence[Sample], subset: str, notes: Notes) -> list[Sample]:
    """Return all anomalous samples and the normal ones of the subset, in the given order.

    Args:
        samples: all samples, in the order the quarter is drawn from.
        subset: "paper" keeps `paper_normals`, "all" keeps every sample.
        notes: gets a warning with the number of normal samples that were kept.

    Raises:
        ConfigError: `subset` has another value.
    """
    if subset not in SUBSETS:
        raise ConfigError(f"subset should be 'paper' or 'all', got {subset!r}.")
    normal = [sample for sample in samples if sample.label == 0]
    if subset == "all" or not normal:
        return list(samples)
    kept = {id(normal[index]) for index in paper_normals(len(normal))}
    notes.warnings.append(
        f"{len(kept)} of {len(normal)} normal samples are kept, as in the paper; "
        "subset 'all' keeps every one"
    )
    return [sample for sample in samples if sample.label or id(sample) in kept]
