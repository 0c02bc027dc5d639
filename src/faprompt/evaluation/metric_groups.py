"""Keep running metrics for each group of pictures; a group is closed after its last picture.

Only open groups hold counts, at most about 90 MB each. Datasets list one class after another,
so one group is open at a time.
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
    """Metrics of one group whose pictures are all counted."""

    result: MetricResult
    curves: Mapping[str, Curve]
    replicates: Mapping[str, np.ndarray]  # metric name -> (replicates,), see `metrics`


class Groups:
    """Metric groups of a run; `names` holds, for each picture, the groups it counts in."""

    def __init__(self, names: Sequence[tuple[str, ...]], config: EvaluationConfig) -> None:
        self._names = names
        self._config = config
        self._left = Counter(name for row in names for name in row)  # pictures not passed
        self._order = tuple(self._left)
        self._open: dict[str, AnomalyMetrics] = {}
        self._closed: dict[str, ClosedGroup] = {}

    def names(self, number: int) -> tuple[str, ...]:
        """Return the groups of one picture."""
        return self._names[number]

    def update(
        self, number: int, label: int, score: float,
        score_map: np.ndarray | None, mask: np.ndarray | None, *, key: str,
    ) -> None:  # fmt: skip
        """Count one picture in all its groups."""
        for name in self._names[number]:
            if name not in self._open:
                self._open[name] = self._config.build_metrics()
            self._open[name].update([score], [label], [score_map], [mask], keys=[key])

    def passed(self, number: int) -> None:
        """Close the groups whose last picture this is; call it once for each picture."""
        for name in self._names[number]:
            self._left[name] -= 1
            if not self._left[name]:
                metrics = self._open.pop(name, None) or self._config.build_metrics()
                self._closed[name] = ClosedGroup(
                    metrics.compute(), metrics.curves(), metrics.replicate_values()
                )

    def closed(self) -> dict[str, ClosedGroup]:
        """Return all groups in the order of their first picture, once every picture passed."""
        return {name: self._closed[name] for name in self._order}

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the state as arrays and as plain values for JSON; `restore` takes both."""
        arrays: dict[str, np.ndarray] = {}
        for index, metrics in enumerate(self._open.values()):
            arrays |= {f"open/{index}/{k}": v for k, v in metrics.state().items()}
        for index, group in enumerate(self._closed.values()):
            for name, curve in group.curves.items():
                points = np.stack([curve.x, curve.y, curve.thresholds])
                arrays[f"closed/{index}/curve/{name}"] = points
            for name, drawn in group.replicates.items():
                arrays[f"closed/{index}/drawn/{name}"] = drawn
        results = [asdict(group.result) for group in self._closed.values()]
        return arrays, {"open": list(self._open), "closed": list(self._closed), "results": results}

    def restore(
        self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any], done: int
    ) -> None:
        """Restore the state after the first `done` pictures."""
        self._left -= Counter(name for row in self._names[:done] for name in row)
        for index, name in enumerate(values["open"]):
            self._open[name] = AnomalyMetrics.from_state(_under(arrays, f"open/{index}/"))
        closed = zip(values["closed"], values["results"], strict=True)
        for index, (name, result) in enumerate(closed):
            intervals = {key: tuple(pair) for key, pair in result.pop("intervals").items()}
            curves = _under(arrays, f"closed/{index}/curve/")
            self._closed[name] = ClosedGroup(
                MetricResult(**result, intervals=intervals),
                {key: Curve(*curve) for key, curve in curves.items()},
                _under(arrays, f"closed/{index}/drawn/"),
            )


def group_names(dataset: Dataset, config: EvaluationConfig) -> list[tuple[str, ...]]:
    """Return the metric groups of each sample, in order."""
    if not config.by_defect:
        return [(sample.class_name,) for sample in dataset.samples]
    groups: dict[int, tuple[str, ...]] = {id(sample): () for sample in dataset.samples}
    for name, samples in by_defect_type(dataset).items():
        for sample in samples:
            groups[id(sample)] += (name,)
    return [groups[id(sample)] for sample in dataset.samples]


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
