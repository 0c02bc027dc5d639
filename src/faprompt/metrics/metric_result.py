"""The record of all metrics on one group of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

METRIC_NAMES = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1_max",
    "aupro",
)
ON_REQUEST = ("pro_200",)  # see `official_pro`


@dataclass(frozen=True, slots=True)
class MetricResult:
    """Every metric is either in `values` or, with its reason, in `undefined`.

    An interval of `intervals` contains its value, see `bootstrap`. Values without one (no
    replicates, too few images) are absent there.

    Works like a mapping of the values and the two counts: `result["aupro"]`,
    `"aupro" in result`, `result.get("aupro")`, `dict(result)`.
    """

    values: Mapping[str, float]  # metric name -> 0..1; never NaN
    undefined: Mapping[str, str]  # metric name -> why it has no value
    normal: int  # images with label 0
    anomalous: int  # images with label 1
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # low, high; 95 %

    def __post_init__(self) -> None:
        both = self.values.keys() & self.undefined.keys()
        if both:
            raise ValueError(f"{', '.join(sorted(both))} cannot have a value and be undefined.")

    def __getitem__(self, name: str) -> float:
        if name in self.undefined:
            raise KeyError(f"{name} is undefined: {self.undefined[name]}")
        return self._flat()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._flat()

    def __iter__(self) -> Iterator[str]:
        return iter(self._flat())

    def __len__(self) -> int:
        return len(self._flat())

    def keys(self) -> tuple[str, ...]:
        """Return the names that have a value, then "normal" and "anomalous"."""
        return tuple(self._flat())

    def items(self) -> tuple[tuple[str, float], ...]:
        """Return (name, value) for each of `keys()`."""
        return tuple(self._flat().items())

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value, or `default` when there is none."""
        return self._flat().get(name, default)

    def to_dict(self) -> dict[str, Any]:
        """Return the form of `metrics.json`: values, counts, "undefined", "intervals" if any."""
        values = {**self._flat(), "undefined": dict(self.undefined)}
        ends = {name: list(pair) for name, pair in self.intervals.items()}
        return {**values, "intervals": ends} if ends else values

    def _flat(self) -> dict[str, float]:
        return {**self.values, "normal": self.normal, "anomalous": self.anomalous}
