"""Which normal samples stay in the test split of SDD, AITEX, ELPV and LAG: a quarter, by one draw.

These four have no official test split. The research group's converters (InCTRL, AHL, earlier
DRA) split the normal samples with scikit-learn's `train_test_split(test_size=0.25,
random_state=42)` and keep every anomalous sample. The quarter depends on the order of the
samples: ELPV's is its CSV's, so our members are theirs; SDD's, AITEX's and LAG's was a raw
directory listing, so our counts are theirs and our members are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np

from faprompt.data.dataset import Dataset, Notes
from faprompt.data.layout_reader import Reader
from faprompt.errors import ConfigError
from faprompt.records import Sample

Subset = Literal["paper", "all"]

_SEED = 42


@runtime_checkable
class SubsetReader(Reader, Protocol):
    """A reader of a dataset whose test split is drawn from all its normal samples."""

    @property
    def subsets(self) -> tuple[str, ...]:
        """What `subset` may be: `SUBSETS`."""
        ...

    def read(self, root: Path, *, split: str = "test", subset: str = "paper") -> Dataset:
        """As `Reader.read`; `subset` "all" keeps every normal sample, "paper" a quarter."""
        ...


SUBSETS: tuple[str, ...] = get_args(Subset)


def paper_normals(count: int) -> list[int]:
    """Places of the normal samples that stay in the test split, by the published converters.

    Args:
        count: number of normal samples, in the order the split is drawn from.

    Returns:
        ceil(count / 4) places from 0, ascending.

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
    """All anomalous samples with the normal ones that the subset keeps, in the order given.

    Args:
        samples: all of them, in the order the quarter is drawn from.
        subset: "paper" keeps `paper_normals`, "all" keeps everything.
        notes: told how many normal samples were left out.

    Raises:
        ConfigError: `subset` is neither.
    """
    if subset not in SUBSETS:
        raise ConfigError(f"subset should be 'paper' or 'all', got {subset!r}.")
    normal = [sample for sample in samples if sample.label == 0]
    if subset == "all" or not normal:
        return list(samples)
    kept = {id(normal[place]) for place in paper_normals(len(normal))}
    notes.warnings.append(
        f"{len(kept)} of {len(normal)} normal samples are kept, as in the paper; "
        "subset 'all' keeps every one"
    )
    return [sample for sample in samples if sample.label or id(sample) in kept]
