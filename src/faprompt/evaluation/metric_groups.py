"""Running metrics per group of pictures. A group is closed after its last picture.

Only open groups hold counts, some 90 MB each at most; with classes one after another, as
datasets list them, that is one at a time however many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from faprompt.data.dataset import Dataset, by_defect_type
from faprompt.evaluation.evaluation_config import EvaluationConfig
from faprompt.metrics import AnomalyMetrics, Curve, MetricResult


@dataclass(frozen=True, slots=True)
class ClosedGroup:
    """All that is told of one group."""

    result: MetricResult
    curves: Mapping[str, Curve]
    replicates: Mapping[str, np.ndarray]  # metric name -> (replicates,), see `metrics`

    @classmethod
    def of(cls, metrics: AnomalyMetrics) -> ClosedGroup:
        """The figures of running metrics."""
        return cls(metrics.compute(), metrics.curves(), metrics.replicate_values())


class Groups:
    """The groups of a run.

    Args:
        names: of each picture, in order, the groups it counts in.
        config: of the evaluation.
    """

    def __init__(self, names: Sequence[tuple[str, ...]], config: EvaluationConfig) -> None:
        self._names = names
        self._config = config
        self._order = tuple(dict.fromkeys(name for row in names for name in row))
        self._left = Counter(name for row in names for name in row)
        self._open: dict[str, AnomalyMetrics] = {}
        self._closed: dict[str, ClosedGroup] = {}

    def names(self, number: int) -> tuple[str, ...]:
        """The groups of one picture, by its number."""
        return self._names[number]

    def update(
        self, number: int, label: int, score: float,
        score_map: np.ndarray | None, mask: np.ndarray | None, *, key: str,
    ) -> None:  # fmt: skip
        """Count one picture, by its number, in all its groups."""
        for name in self._names[number]:
            if name not in self._open:
                self._open[name] = self._config.build_metrics()
            self._open[name].update([score], [label], [score_map], [mask], keys=[key])

    def passed(self, number: int) -> None:
        """One picture, counted or not, will not come again."""
        for name in self._names[number]:
            self._left[name] -= 1
            if not self._left[name]:
                metrics = self._open.pop(name, None) or self._config.build_metrics()
                self._closed[name] = ClosedGroup.of(metrics)

    def closed(self) -> dict[str, ClosedGroup]:
        """The figures, once every picture has passed, in order of the groups' first one."""
        return {name: self._closed[name] for name in self._order}

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and what goes as JSON beside them, to go on from."""
        arrays: dict[str, np.ndarray] = {}
        for index, metrics in enumerate(self._open.values()):
            arrays |= {f"open/{index}/{k}": v for k, v in metrics.state().items()}
        told = []
        for index, group in enumerate(self._closed.values()):
            for name, curve in group.curves.items():
                arrays[f"closed/{index}/curve/{name}"] = np.stack(
                    [curve.x, curve.y, curve.thresholds]
                )
            for name, drawn in group.replicates.items():
                arrays[f"closed/{index}/drawn/{name}"] = drawn
            told.append(asdict(group.result))
        return arrays, {"open": list(self._open), "closed": list(self._closed), "results": told}

    def restore(self, arrays: Mapping[str, np.ndarray], told: Mapping[str, Any], done: int) -> None:
        """Put back the state after the first `done` pictures."""
        self._left -= Counter(name for row in self._names[:done] for name in row)
        for index, name in enumerate(told["open"]):
            self._open[name] = AnomalyMetrics.from_state(_under(arrays, f"open/{index}/"))
        for index, (name, result) in enumerate(zip(told["closed"], told["results"], strict=True)):
            intervals = {key: tuple(pair) for key, pair in result.pop("intervals").items()}
            curves = _under(arrays, f"closed/{index}/curve/")
            self._closed[name] = ClosedGroup(
                MetricResult(**result, intervals=intervals),
                {key: Curve(*curve) for key, curve in curves.items()},
                _under(arrays, f"closed/{index}/drawn/"),
            )


def group_names(dataset: Dataset, config: EvaluationConfig) -> list[tuple[str, ...]]:
    """Of each sample, in order, the metric groups it counts in."""
    if not config.by_defect:
        return [(sample.class_name,) for sample in dataset.samples]
    found: dict[int, tuple[str, ...]] = {id(sample): () for sample in dataset.samples}
    for name, samples in by_defect_type(dataset).items():
        for sample in samples:
            found[id(sample)] += (name,)
    return [found[id(sample)] for sample in dataset.samples]


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
