"""How far the score maps of the abnormality prompts lie apart, as numbers and as a t-SNE.

Fig. 1 of the paper's appendix shows the maps of each prompt, of normal and anomalous pictures,
as points in the plane, and reads from it that FAPrompt's ten prompts spread while those of
AnomalyCLIP Ensemble* cluster. The plane of a t-SNE has no scale: neither how far apart two
groups of points lie in it nor how large they are can be read, and each plane is one model's
own. So everything told here in numbers is measured on the maps themselves, see `measures`.

Source: FAPrompt (ICCV 2025), appendix C.3. The paper gives no settings of its t-SNE;
scikit-learn's are used, with a seed, and a lower perplexity where there are few maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from faprompt.data import Dataset
from faprompt.data.picture_files import relative_name
from faprompt.detector import Detector
from faprompt.errors import ConfigError, ImageReadError
from faprompt.evaluation.reading import read_sample
from faprompt.metrics.bootstrap import (
    check_replicates,
    image_ids,
    percentile_intervals,
    poisson_weights,
)
from faprompt.records import Sample
from faprompt.reproduce.spread_measures import MEASURES, RANGES, Measure, measure

PER_LABEL = 50  # normal, and anomalous pictures
FEWEST_POINTS = 4  # that a t-SNE can be made of
_PERPLEXITY = 30.0  # scikit-learn's default: about how many neighbours a map is held near to


@dataclass(frozen=True, slots=True, eq=False)
class PromptMaps:
    """The maps of every prompt on some pictures."""

    maps: np.ndarray  # (P, K, N) float32 in 0..1: pictures, prompts, patches row-major
    labels: np.ndarray  # (P,) int64, 1 anomalous
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class SpreadRow:
    """One number of one model, or the mean over the models of one method.

    low and high bound a 95 % interval: over pictures (bootstrap) for a model, over models
    (Student's t) for a mean; None where there are too few.
    """

    method: str
    model: str  # "" for a mean over models
    pictures: str  # all, normal, anomalous
    count: int  # of pictures, or of models for a mean over them
    prompts: int
    measure: Measure
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class MapPoint:
    """One map in the plane of its model's t-SNE."""

    method: str
    model: str
    path: str  # below the dataset's folder
    label: int
    prompt: int  # from 1
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class PromptSpread:
    """What `prompt_spread` found."""

    dataset: str
    rows: tuple[SpreadRow, ...]
    points: tuple[MapPoint, ...]


def prompt_spread(
    detectors: Iterable[tuple[str, Detector]],
    dataset: Dataset,
    *,
    per_label: int = PER_LABEL,
    replicates: int = 1000,
    seed: int = 0,
) -> PromptSpread:
    """Measure and embed the prompts' maps of each model on the same pictures.

    Args:
        detectors: a model's name and the model, taken one at a time, so a generator need
            hold but one. Those of one method (several seeds) also get a mean over models;
            one prompt alone gets points and no numbers.
        dataset: pictures are drawn from it, at most `per_label` of each kind.
        replicates: of the bootstrap over pictures; 0 for no intervals.
        seed: of the draw, the bootstrap and the t-SNE.

    Raises:
        ConfigError: a method without abnormality prompts, or too few maps for a t-SNE.
        ImageReadError: a picture cannot be read.
        ValueError: no detectors, or an option is out of range.
    """
    check_replicates(replicates)
    samples = draw_samples(dataset.samples, per_label=per_label, seed=seed)
    rows: list[SpreadRow] = []
    points: list[MapPoint] = []
    for model, detector in detectors:
        found = gather_prompt_maps(detector, samples)
        names = detector.method.name, model
        points += embed_model(found, *names, root=dataset.root, seed=seed)
        rows += measure_model(found, *names, root=dataset.root, replicates=replicates, seed=seed)
    if not points:
        raise ValueError("at least one detector is wanted, got none.")
    return PromptSpread(dataset.name, (*rows, *over_models(rows)), tuple(points))


def draw_samples(samples: Sequence[Sample], *, per_label: int, seed: int) -> list[Sample]:
    """At most `per_label` normal and as many anomalous samples, drawn; in their own order."""
    draw, chosen = np.random.default_rng(seed), []
    for places in _places_by_label(samples, per_label):
        chosen += draw.permutation(places)[:per_label].tolist()
    return [samples[place] for place in sorted(chosen)]


def spaced_samples(samples: Sequence[Sample], *, per_label: int) -> list[Sample]:
    """As `draw_samples`, at even steps through each kind: classes and defects get their share."""
    chosen: list[int] = []
    for places in _places_by_label(samples, per_label):
        count = min(per_label, len(places))
        chosen += [places[(2 * step + 1) * len(places) // (2 * count)] for step in range(count)]
    return [samples[place] for place in sorted(chosen)]


def gather_prompt_maps(detector: Detector, samples: Sequence[Sample]) -> PromptMaps:
    """Each prompt's map of each picture, by the pass that scores it.

    Raises:
        ConfigError: the method has no abnormality prompts to tell apart.
        ImageReadError: a picture cannot be read.
    """
    maps = []
    for sample in samples:
        read = read_sample(replace(sample, has_pixel_label=False), policy="any-channel")
        if read.image is None:
            raise ImageReadError(read.error)
        parts = detector.explain(read.image, class_name=sample.class_name)[2]
        if parts.prompt_maps is None:
            raise ConfigError(
                f"{detector.name}: {detector.method.name} has no abnormality prompts to tell "
                "apart; faprompt, anomalyclip and anomalyclip-ensemble have."
            )
        maps.append(parts.prompt_maps[0].flatten(1).float().cpu().numpy())
    labels = np.array([sample.label for sample in samples], np.int64)
    return PromptMaps(np.array(maps), labels, tuple(sample.image_path for sample in samples))


def embed(maps: np.ndarray, *, seed: int) -> np.ndarray:
    """A t-SNE of all maps: (P, K, N) -> (P * K, 2), picture by picture.

    The perplexity is 30, or a third of the other maps where that is less.

    Raises:
        ConfigError: fewer than four maps.
    """
    flat = maps.reshape(-1, maps.shape[-1])
    if len(flat) < FEWEST_POINTS:
        raise ConfigError(
            f"A t-SNE wants at least {FEWEST_POINTS} maps, got {len(flat)}; give more pictures."
        )
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(flat) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)


def over_models(rows: Sequence[SpreadRow]) -> list[SpreadRow]:
    """The mean of each number over the models of each method that has several."""
    groups: dict[tuple[str, str, Measure], list[SpreadRow]] = {}
    for row in rows:
        groups.setdefault((row.method, row.pictures, row.measure), []).append(row)
    return [_mean_row(group) for group in groups.values() if len(group) > 1]


def _places_by_label(samples: Sequence[Sample], per_label: int) -> list[list[int]]:
    if per_label < 1:
        raise ValueError(f"per_label should be at least 1, got {per_label}.")
    labels = [sample.label for sample in samples]
    return [[place for place, each in enumerate(labels) if each == label] for label in (0, 1)]


def embed_model(
    found: PromptMaps, method: str, model: str, *, root: Path, seed: int
) -> list[MapPoint]:
    """A point per map, see `embed`; paths are told below `root`."""
    places = embed(found.maps, seed=seed)
    return [
        MapPoint(method, model, relative_name(path, root), label, prompt, float(x), float(y))
        for (path, label, prompt), (x, y) in zip(_told(found), places, strict=True)
    ]


def measure_model(
    found: PromptMaps, method: str, model: str, *, root: Path, replicates: int, seed: int
) -> Iterator[SpreadRow]:
    """Each measure on all, normal and anomalous pictures; of one prompt there is none.

    `root` is the dataset's folder: where it lies does not move the bootstrap.
    """
    prompts = found.maps.shape[1]
    if prompts < 2:
        return
    kinds = {"all": found.labels >= 0, "normal": found.labels == 0, "anomalous": found.labels == 1}
    keys = np.array([relative_name(path, root) for path in found.paths])
    for kind, chosen in kinds.items():
        count = int(chosen.sum())
        if count == 0 or (kind != "all" and count == len(chosen)):
            continue
        weights = poisson_weights(image_ids(keys[chosen], seed=seed), range(replicates))
        drawn = measure(found.maps[chosen], np.column_stack([np.ones(count), weights]))
        intervals = percentile_intervals(
            {name: values[1:] for name, values in drawn.items()},
            {name: float(values[0]) for name, values in drawn.items()},
        )
        for name in MEASURES:
            low, high = intervals.get(name, (None, None))
            value = float(drawn[name][0])
            if not np.isnan(value):
                yield SpreadRow(method, model, kind, count, prompts, name, value, low, high)


def _told(found: PromptMaps) -> Iterator[tuple[Path, int, int]]:
    """Path, label and prompt of each map, picture by picture."""
    for path, label in zip(found.paths, found.labels.tolist(), strict=True):
        for prompt in range(found.maps.shape[1]):
            yield path, label, prompt + 1


def _mean_row(group: Sequence[SpreadRow]) -> SpreadRow:
    from scipy.stats import t

    values = np.array([row.value for row in group])
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean, (least, most) = float(values.mean()), RANGES[group[0].measure]
    low, high = max(least, mean - float(half)), min(most, mean + float(half))
    return replace(group[0], model="", count=len(group), value=mean, low=low, high=high)
