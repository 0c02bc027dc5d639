"""One comparison of our numbers with the numbers of public code."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """The distance of one stored array from ours, and the largest distance allowed."""

    stage: str
    distance: float
    limit: float
