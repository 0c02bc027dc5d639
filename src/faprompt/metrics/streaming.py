"""Image and pixel metrics over a stream of images, and the record of their values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike

from faprompt.metrics.bootstrap import (
    Key,
    Metric,
    PixelReplicates,
    check_replicates,
    image_ids,
    image_tallies,
    percentile_intervals,
    replicate_values,
)
from faprompt.metrics.checked_inputs import (
    Maps,
    check_fpr_limit,
    check_keys,
    check_pairs,
    check_scores,
)
from faprompt.metrics.labelled_pixels import (
    ExactPixels,
    LabelledPixels,
    State,
    with_prefix,
    without_prefix,
)
from faprompt.metrics.ranking import auroc_of, average_precision_of, f1_max_of
from faprompt.metrics.region_overlap import aupro_of, pro_200_of
from faprompt.metrics.score_histogram import BinnedPixels
from faprompt.metrics.tally import (
    Curve,
    Tally,
    UndefinedMetricError,
    pr_curve_of,
    pro_curve_of,
    roc_curve_of,
    tally_scores,
)

Mode = Literal["binned", "exact"]
T = TypeVar("T")

METRIC_NAMES = (
    "image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro",
)  # fmt: skip
ON_REQUEST = ("pro_200",)  # see `region_overlap`
_AT_ONCE = 8  # images
_NO_ID = np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class MetricResult:
    """Hold the metrics of one group; each is in `values` or, with its reason, in `undefined`.

    An interval of `intervals` contains its value, see `bootstrap`. Values without one (no
    replicates, too few images) are absent there.

    Works like a mapping of the values and the two counts: `result["aupro"]`,
    `"aupro" in result`, `result.get("aupro")`, `dict(result)`.

    Attributes:
        values: metric name -> value, 0 to 1; never NaN.
        undefined: metric name -> why it has no value.
        normal, anomalous: number of images with label 0 and 1.
        intervals: metric name -> (low, high) of the 95 % interval.
    """

    values: Mapping[str, float] = field(hash=False)
    undefined: Mapping[str, str] = field(hash=False)
    normal: int
    anomalous: int
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)

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


class AnomalyMetrics:
    """All metrics of one group of images (a class, a dataset), added in any portions.

    Image metrics are exact in both modes, for there are few image scores. Pixel metrics
    use the images that have both a score map and a mask.

    Args:
        mode: "binned" keeps a histogram: bounded memory, scores read as float32, within
            1e-4 of exact. "exact" keeps every pixel.
        fpr_limit: the false-positive rate where AUPRO ends, in (0, 1].
        replicates: bootstrap replicates for the 95 % intervals over images; 0 for none.
            200 take up to 39 MB.
        seed: of the replicates.
        pro_200: also compute "pro_200", the authors' own PRO; it has no interval.

    Raises:
        ValueError: unknown mode, too few replicates, or a limit out of range.

    Example:
        >>> metrics = AnomalyMetrics()
        >>> metrics.update([0.2, 0.9], [0, 1])
        >>> metrics.update([0.4], [1], [np.array([[0.1, 0.7]])], [np.array([[0, 1]])])
        >>> result = metrics.compute()
        >>> result["image_auroc"], result["pixel_ap"], result.undefined
        (1.0, 1.0, {})
    """

    def __init__(
        self,
        mode: Mode = "binned",
        fpr_limit: float = 0.3,
        *,
        replicates: int = 0,
        seed: int = 0,
        pro_200: bool = False,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f'mode should be "binned" or "exact", got {mode!r}.')
        self._mode: Mode = mode
        self._fpr_limit = check_fpr_limit(fpr_limit)
        self._replicates = check_replicates(replicates)
        self._seed = seed
        self._pro_200 = pro_200
        self.reset()

    @property
    def mode(self) -> Mode:
        """ "binned" or "exact"."""
        return self._mode

    @property
    def fpr_limit(self) -> float:
        """The false-positive rate where AUPRO ends."""
        return self._fpr_limit

    def reset(self) -> None:
        """Remove all images."""
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._pixels: Any = BinnedPixels() if self._mode == "binned" else ExactPixels()
        self._ids: list[np.ndarray] = []
        self._drawn = PixelReplicates(self._replicates)
        self._unnamed = 0  # images that came without a key
        self._range: tuple[Any, Any] | None = None  # lowest and highest pixel, for pro_200
        self._values: dict[str, np.ndarray] | None = None  # of the replicates, once computed

    def update(
        self,
        scores: ArrayLike,
        labels: ArrayLike,
        score_maps: Maps = None,
        masks: Maps = None,
        *,
        keys: Sequence[Key] | None = None,
    ) -> None:
        """Add B images. None is added when any of them is refused.

        Args:
            scores: (B,) finite, any range; higher is more anomalous.
            labels: (B,) bool or 0/1; 1 is anomalous.
            score_maps: (B, H, W), or a list of B arrays (H, W) of any sizes; finite, any
                range. None, or None entries, for images without one.
            masks: likewise, bool or 0/1, each of its map's size. An all-zero mask says
                "no defect anywhere"; None says "nobody drew one".
            keys: a name or number of each image, such as its path. It decides in which
                replicates the image is drawn; images with one key are drawn together.
                None numbers the images in order.

        Raises:
            ValueError: anything that does not fit; the message names the image.
            TypeError: an array that holds no numbers.
        """
        values, truth = check_scores(scores, labels)
        dtype = np.float32 if self._mode == "binned" else None
        found = check_pairs(score_maps, masks, count=len(values), dtype=dtype)
        pairs = list(found.values())
        self._values = None
        ids = self._draw(check_keys(keys, len(values)), len(values))
        self._scores.append(values)
        self._labels.append(truth)
        self._ids.append(ids)
        ids = ids[list(found)] if self._replicates else ids
        for start in range(0, len(pairs), _AT_ONCE):  # a large update needs no large copies
            part = slice(start, start + _AT_ONCE)
            few = [LabelledPixels.of(*pair, dtype=dtype) for pair in pairs[part]]
            self._pixels.add(few)
            for image in few if self._pro_200 else ():
                self._span(image.scores.min(), image.scores.max())
            if self._replicates:
                self._drawn.add(few, ids[part])

    def merge(self, other: AnomalyMetrics) -> None:
        """Add the images of another `AnomalyMetrics` after those of this one; `other` stays.

        Image metrics, intervals and exact pixel metrics are those of one stream of all images,
        to the bit. Binned pixel metrics stay within 1e-4 of exact; they are those of one stream
        while the pixels are few, and else depend on which images were counted together.

        Raises:
            ValueError: other options; or both count images without keys for replicates, which
                would be drawn as if they were the same images.
        """
        mine, others = self._options(), other._options()
        if odd := [name for name in mine if mine[name] != others[name]]:
            both = (", ".join(f"{n}={options[n]!r}" for n in odd) for options in (mine, others))
            raise ValueError(
                f"{' and '.join(both)} cannot be merged; give both metrics the same options."
            )
        if self._unnamed and other._unnamed:
            raise ValueError(
                "both metrics number their images, so replicates would draw two images as one; "
                "pass keys= to update()."
            )
        self._values = None
        self._scores += other._scores
        self._labels += other._labels
        self._ids += other._ids
        self._unnamed += other._unnamed
        self._pixels.merge(other._pixels)
        if self._replicates:
            self._drawn.merge(other._drawn)
        if other._range is not None:
            self._span(*other._range)

    def compute(self) -> MetricResult:
        """Compute all seven metrics over the images so far; may be called repeatedly.

        Returns:
            Values for the metrics that exist, a reason for each that does not, and the
            numbers of normal and anomalous images.
        """
        images, pixels = self._image_tally(), self._pixels.tally()
        jobs = [(name, images, metric) for name, metric in _ranking_metrics("image").items()]
        jobs += [(name, pixels, metric) for name, metric in self._pixel_metrics().items()]
        if self._pro_200:
            low, high = self._range or (0.0, 0.0)
            official = partial(pro_200_of, low=low, high=high, fpr_limit=self._fpr_limit)
            jobs.append(("pro_200", pixels, official))
        values, undefined = _attempt(jobs)
        normal, anomalous = int(images.normal.sum()), int(images.anomalous.sum())
        intervals = percentile_intervals(self.replicate_values(), values)
        return MetricResult(values, undefined, normal, anomalous, intervals)

    def replicate_values(self) -> dict[str, np.ndarray]:
        """Compute each of the seven metrics once per replicate, for the intervals.

        Returns:
            Metric name -> (replicates,) float64, NaN where a replicate leaves the metric
            undefined. Empty without replicates. Replicate b of two groups of images is
            drawn with the same weights where they share keys, so means over groups can
            be taken replicate by replicate.
        """
        if not self._replicates:
            return {}
        if self._values is None:
            ids = np.concatenate([_NO_ID, *self._ids])
            images = image_tallies(*self._images(), ids, self._replicates)
            self._values = {
                **replicate_values(images, _ranking_metrics("image")),
                **replicate_values(self._drawn.tallies(), self._pixel_metrics()),
            }
        return dict(self._values)

    def state(self) -> dict[str, np.ndarray]:
        """Return all counts as plain arrays, to be written to a file; see `from_state`."""
        scores, labels = self._images()
        return {
            "options": np.frombuffer(json.dumps(self._options()).encode(), dtype=np.uint8),
            "scores": scores,
            "labels": labels,
            "ids": np.concatenate([_NO_ID, *self._ids]),
            "unnamed": np.array(self._unnamed),
            "range": np.zeros(0) if self._range is None else np.array(self._range),
            **with_prefix("pixels/", self._pixels.state()),
            **(with_prefix("drawn/", self._drawn.state()) if self._replicates else {}),
        }

    @classmethod
    def from_state(cls, state: State) -> AnomalyMetrics:
        """Rebuild the metrics from `state()`; they continue bit by bit."""
        metrics = cls(**json.loads(state["options"].tobytes()))
        metrics._scores, metrics._labels = [state["scores"]], [state["labels"]]
        metrics._ids, metrics._unnamed = [state["ids"]], int(state["unnamed"])
        store = ExactPixels if metrics.mode == "exact" else BinnedPixels
        metrics._pixels = store.from_state(without_prefix("pixels/", state))
        if metrics._replicates:
            metrics._drawn = PixelReplicates.from_state(without_prefix("drawn/", state))
        if len(state["range"]):
            metrics._range = (state["range"][0], state["range"][1])
        return metrics

    def curves(self, *, points: int = 1000) -> dict[str, Curve]:
        """Return curves for plotting, at most `points` points each; undefined ones are absent.

        Returns:
            "image_roc", "image_pr", "pixel_roc", "pixel_pr" and "pro".
        """
        images, pixels = self._image_tally(), self._pixels.tally()
        jobs: list[tuple[str, Tally, Callable[[Tally], Curve]]] = [
            ("image_roc", images, roc_curve_of),
            ("image_pr", images, pr_curve_of),
            ("pixel_roc", pixels, roc_curve_of),
            ("pixel_pr", pixels, pr_curve_of),
            ("pro", pixels, pro_curve_of),
        ]
        curves, _ = _attempt(jobs)
        return {name: curve.thinned(points) for name, curve in curves.items()}

    def _options(self) -> dict[str, Any]:
        names = ("mode", "fpr_limit", "replicates", "seed", "pro_200")
        return {name: getattr(self, f"_{name}") for name in names}

    def _draw(self, keys: list[Key] | None, count: int) -> np.ndarray:
        """(count,) uint64 ids of the images of one update; none without replicates."""
        if not self._replicates:
            return _NO_ID
        if keys is not None:
            return image_ids(keys, seed=self._seed)
        first, self._unnamed = self._unnamed, self._unnamed + count
        return image_ids(range(first, self._unnamed), seed=self._seed, kind="number")

    def _span(self, low: Any, high: Any) -> None:
        if self._range is not None:
            low, high = min(self._range[0], low), max(self._range[1], high)
        self._range = (low, high)

    def _pixel_metrics(self) -> dict[str, Metric]:
        own = partial(aupro_of, fpr_limit=self._fpr_limit)
        return {**_ranking_metrics("pixel"), "aupro": own}

    def _images(self) -> tuple[np.ndarray, np.ndarray]:
        scores = np.concatenate([np.zeros(0), *self._scores])
        return scores, np.concatenate([np.zeros(0, dtype=bool), *self._labels])

    def _image_tally(self) -> Tally:
        return tally_scores(*self._images(), unit="images")


def _ranking_metrics(level: str) -> dict[str, Metric]:
    return {
        f"{level}_auroc": auroc_of,
        f"{level}_ap": average_precision_of,
        f"{level}_f1_max": f1_max_of,
    }


def _attempt(
    jobs: Sequence[tuple[str, Tally, Callable[[Tally], T]]],
) -> tuple[dict[str, T], dict[str, str]]:
    """Run each job on its tally; return the values, and a reason for each without one."""
    values: dict[str, T] = {}
    undefined: dict[str, str] = {}
    for name, tally, job in jobs:
        try:
            values[name] = job(tally)
        except UndefinedMetricError as reason:
            undefined[name] = str(reason)
    return values, undefined
