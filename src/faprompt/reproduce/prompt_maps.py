"""Measure how far the score maps of the abnormality prompts lie apart, and embed them.

Fig. 1 of the paper's appendix shows the maps of each prompt, of normal and anomalous pictures,
as points of a t-SNE. It concludes that FAPrompt's ten prompts spread while those of AnomalyCLIP
Ensemble* cluster. Distances and sizes in a t-SNE mean little, and each model has an embedding of
its own. The distance is therefore measured on the maps themselves.

Source: FAPrompt (ICCV 2025), appendix C.3. The paper gives no settings of its t-SNE; scikit-learn's
defaults are used, with a seed, and with a lower perplexity where there are few maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from faprompt.data import Dataset
from faprompt.data.picture_files import relative_name
from faprompt.detector import Detector
from faprompt.errors import ConfigError, ImageReadError
from faprompt.evaluation.sample_batches import read_sample
from faprompt.records import Sample
from faprompt.work import load_extra

SEED = 0  # of the t-SNE
_FEWEST_POINTS = 4  # of a t-SNE
_PERPLEXITY = 30.0  # scikit-learn's default: about how many neighbours count for each map


@dataclass(frozen=True, slots=True)
class MapPoint:
    """One map in the plane of its model's t-SNE."""

    method: str
    model: str
    path: str  # relative to the dataset's folder
    label: int  # 1 anomalous
    prompt: int  # from 1
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class ModelMaps:
    """The distances of one model on one dataset and, where they are to be drawn, its points."""

    method: str
    model: str
    labels: tuple[int, ...]  # of the pictures, 1 anomalous
    distances: tuple[float, ...]  # of the same pictures; empty for a model with one prompt
    points: tuple[MapPoint, ...]


def spaced_samples(samples: Sequence[Sample], *, per_label: int) -> list[Sample]:
    """Return at most `per_label` normal and as many anomalous samples, at even steps, in order."""
    if per_label < 1:
        raise ValueError(f"per_label should be at least 1, got {per_label}.")
    chosen: list[int] = []
    for label in (0, 1):
        places = [place for place, sample in enumerate(samples) if sample.label == label]
        count = min(per_label, len(places))
        chosen += [places[(2 * step + 1) * len(places) // (2 * count)] for step in range(count)]
    return [samples[place] for place in sorted(chosen)]


def map_prompts(
    detector: Detector, dataset: Dataset, *, per_label: int, method: str, model: str, embedded: bool
) -> ModelMaps:
    """Score pictures of a dataset prompt by prompt; measure the maps and embed them if asked.

    At most `per_label` normal and as many anomalous pictures are scored. `method` and `model` are
    titles. Errors are those of `gather_prompt_maps` and `embed`.
    """
    samples = spaced_samples(dataset.samples, per_label=per_label)
    maps = gather_prompt_maps(detector, samples)
    distances = pair_distance(maps).tolist() if maps.shape[1] > 1 else ()
    points = []
    if embedded:
        names = [relative_name(sample.image_path, dataset.root) for sample in samples]
        places = embed(maps).reshape(*maps.shape[:2], 2)
        for sample, name, picture in zip(samples, names, places.tolist(), strict=True):
            for prompt, (x, y) in enumerate(picture, start=1):
                points.append(MapPoint(method, model, name, sample.label, prompt, x, y))
    labels = tuple(sample.label for sample in samples)
    return ModelMaps(method, model, labels, tuple(distances), tuple(points))


def gather_prompt_maps(detector: Detector, samples: Sequence[Sample]) -> np.ndarray:
    """Return the maps of each prompt from the pass that scores a picture.

    Their shape is (P, K, N), float32 in 0..1: pictures, prompts, patches row by row.

    Raises:
        ConfigError: the method has no abnormality prompts.
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
                f"{detector.name}: {detector.method.name} has no abnormality prompts to compare; "
                "faprompt, anomalyclip and anomalyclip-ensemble have."
            )
        maps.append(parts.prompt_maps[0].flatten(1).float().cpu().numpy())
    return np.array(maps)


def pair_distance(maps: np.ndarray) -> np.ndarray:
    """Return the mean distance of two prompts' maps, picture by picture: (P, K, N) -> (P,).

    The distance is the root mean square difference over the patches, in 0..1 as scores are; the
    mean is over all pairs of prompts. K is at least 2.

    Example:
        >>> pair_distance(np.array([[[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]])).round(3)
        array([0.667])
    """
    pairs = combinations(range(maps.shape[1]), 2)
    distances = [np.sqrt(((maps[:, i] - maps[:, j]) ** 2).mean(axis=-1)) for i, j in pairs]
    return np.mean(distances, axis=0)


def embed(maps: np.ndarray) -> np.ndarray:
    """Embed all maps in one plane by a t-SNE: (P, K, N) -> (P * K, 2), picture by picture.

    The perplexity is 30, or a third of the number of other maps where that is less.

    Raises:
        ConfigError: fewer than four maps.
        MissingExtraError: scikit-learn is not installed.
    """
    flat = maps.reshape(-1, maps.shape[-1])
    if len(flat) < _FEWEST_POINTS:
        raise ConfigError(
            f"A t-SNE needs at least {_FEWEST_POINTS} maps, got {len(flat)}; use more pictures."
        )
    perplexity = min(_PERPLEXITY, (len(flat) - 1) / 3)
    manifold = load_extra("figures", "sklearn.manifold")
    embedding = manifold.TSNE(perplexity=perplexity, init="pca", random_state=SEED)
    plane: np.ndarray = embedding.fit_transform(flat)
    return plane
