"""Keep running metrics for each group of pictures; a group is closed after its last picture.

Pictures are counted in *chunks*: at most 256 pictures of one class, in order. The counts of a
chunk are added to those of its groups when the chunk ends. So chunks may be counted by several
processes (`evaluation_shards.py`), and the sum is the same to the bit.

Only open groups hold counts, at most about 90 MB each, and as much for the chunk. Chunks of one
class follow each other in most datasets, so one class is open at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from faprompt.data.dataset import Dataset, by_defect_type
from faprompt.evaluation.evaluation_config import EvaluationConfig
from faprompt.metrics import AnomalyMetrics, Curve, MetricResult
from faprompt.metrics.labelled_pixels import with_prefix, without_prefix
from faprompt.records import Sample

CHUNK_PICTURES = 256  # results of larger classes depend on it within 1e-4; see `Progress`


@dataclass(frozen=True, slots=True)
class ClosedGroup:
    """Metrics of one group whose pictures are all counted."""

    result: MetricResult
    curves: Mapping[str, Curve]
    replicates: Mapping[str, np.ndarray]  # metric name -> (replicates,), see `metrics`


class Groups:
    """Metric groups of a run.

    Args:
        names: for each picture the groups that it counts in; pictures of a chunk are together.
        config: options of the metrics.
        ends: number of pictures passed when each chunk ends.
    """

    def __init__(
        self, names: Sequence[tuple[str, ...]], config: EvaluationConfig, ends: Iterable[int] = ()
    ) -> None:
        self._names = names
        self._config = config
        self._ends = frozenset(ends)
        self._left = Counter(name for row in names for name in row)  # pictures not passed
        self._chunk: dict[str, AnomalyMetrics] = {}  # counts of the chunk that has begun
        self._open: dict[str, AnomalyMetrics] = {}  # counts of the chunks before
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
            if name not in self._chunk:
                self._chunk[name] = self._config.build_metrics()
            self._chunk[name].update([score], [label], [score_map], [mask], keys=[key])

    def passed(self, number: int) -> None:
        """Pass a picture, and end its chunk if it is the last one; call it once for each."""
        self._left.subtract(self._names[number])
        if number + 1 in self._ends:
            self._add(self._chunk)
            self._chunk = {}

    def add_chunk(self, numbers: range, counts: Mapping[str, AnomalyMetrics]) -> None:
        """Pass the pictures of a chunk that was counted elsewhere; `counts` are not used again."""
        self._left.subtract(name for number in numbers for name in self._names[number])
        self._add(counts)

    def _add(self, counts: Mapping[str, AnomalyMetrics]) -> None:
        """Add the counts of a chunk, and close the groups that are complete."""
        for name, metrics in counts.items():
            if name in self._open:
                self._open[name].merge(metrics)
            else:
                self._open[name] = metrics
        for name, left in self._left.items():
            if not left and name not in self._closed:
                metrics = (
                    self._open.pop(name) if name in self._open else self._config.build_metrics()
                )
                self._closed[name] = ClosedGroup(
                    metrics.compute(), metrics.curves(), metrics.replicate_values()
                )

    def closed(self) -> dict[str, ClosedGroup]:
        """Return all groups in the order of their first picture, once every picture passed."""
        return {name: self._closed[name] for name in self._left}

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the state as arrays and as plain values for JSON; `restore` takes both."""
        arrays: dict[str, np.ndarray] = {}
        for kind, counts in (("chunk", self._chunk), ("open", self._open)):
            for index, metrics in enumerate(counts.values()):
                arrays |= with_prefix(f"{kind}/{index}/", metrics.state())
        for index, group in enumerate(self._closed.values()):
            for name, curve in group.curves.items():
                points = np.stack([curve.x, curve.y, curve.thresholds])
                arrays[f"closed/{index}/curve/{name}"] = points
            for name, drawn in group.replicates.items():
                arrays[f"closed/{index}/drawn/{name}"] = drawn
        results = [asdict(group.result) for group in self._closed.values()]
        names = {"chunk": list(self._chunk), "open": list(self._open), "closed": list(self._closed)}
        return arrays, {**names, "results": results}

    def restore(
        self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any], done: int
    ) -> None:
        """Restore the state after the first `done` pictures."""
        self._left.subtract(name for row in self._names[:done] for name in row)
        self._chunk = read_counts("chunk", arrays, values)
        self._open = read_counts("open", arrays, values)
        closed = zip(values["closed"], values["results"], strict=True)
        for index, (name, result) in enumerate(closed):
            intervals = {key: tuple(pair) for key, pair in result.pop("intervals").items()}
            curves = without_prefix(f"closed/{index}/curve/", arrays)
            self._closed[name] = ClosedGroup(
                MetricResult(**result, intervals=intervals),
                {key: Curve(*curve) for key, curve in curves.items()},
                without_prefix(f"closed/{index}/drawn/", arrays),
            )


def read_counts(
    kind: str, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]
) -> dict[str, AnomalyMetrics]:
    """Return the counts of a saved state by group; `kind` is "chunk" or "open"."""
    return {
        name: AnomalyMetrics.from_state(without_prefix(f"{kind}/{index}/", arrays))
        for index, name in enumerate(values[kind])
    }


def plan_chunks(samples: Sequence[Sample]) -> list[list[int]]:
    """Return the numbers of the samples of each chunk, chunks by their first picture.

    Example:
        >>> from pathlib import Path
        >>> cups, nuts = (Sample(Path("a.png"), 0, name) for name in ("cup", "nut"))
        >>> plan_chunks([cups, nuts, cups])
        [[0, 2], [1]]
    """
    chunks: dict[tuple[str, int], list[int]] = {}
    seen: Counter[str] = Counter()
    for number, sample in enumerate(samples):
        name = sample.class_name
        chunks.setdefault((name, seen[name] // CHUNK_PICTURES), []).append(number)
        seen[name] += 1
    return list(chunks.values())


def group_names(dataset: Dataset, config: EvaluationConfig) -> list[tuple[str, ...]]:
    """Return the metric groups of each sample, in order."""
    if not config.by_defect:
        return [(sample.class_name,) for sample in dataset.samples]
    groups: dict[int, tuple[str, ...]] = {id(sample): () for sample in dataset.samples}
    for name, samples in by_defect_type(dataset).items():
        for sample in samples:
            groups[id(sample)] += (name,)
    return [groups[id(sample)] for sample in dataset.samples]
