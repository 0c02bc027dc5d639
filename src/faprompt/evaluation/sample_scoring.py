"""Score labelled pictures: at the model's size, or as `predict` where a setup asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from faprompt.detector_setup import DetectorSetup
from faprompt.errors import ConfigError
from faprompt.evaluation.evaluation_config import EvaluationConfig
from faprompt.evaluation.sample_batches import ReadSample
from faprompt.imaging.map_rendering import resize_map
from faprompt.imaging.transform import Transform
from faprompt.picture_detector import PictureDetector
from faprompt.records import Sample
from faprompt.results import AnomalyResult


def released_reading(detector: PictureDetector) -> Transform | None:
    """Return the transform with which labelled sets are read as public code does, or None.

    A detector that is calibrated, or has tiles, a mask or references, reads as `predict` does.
    """
    plain = detector.setup.calibration is None and not _changes_scores(detector.setup)
    return detector.released_reading if plain else None


def _changes_scores(setup: DetectorSetup) -> bool:
    """Whether scores differ from those of the tensor interface."""
    others = (setup.references, setup.mask, setup.mask_folder)
    return setup.tiles != "off" or any(other is not None for other in others)


def product_of(setup: DetectorSetup, sample: Sample, product: str | None = None) -> str | None:
    """Return whose thresholds and references count for a sample, None where they do not differ.

    It is the product given, else the sample's class if that is a product, else the nearest
    folder of its path that is one.
    """
    calibration = setup.calibration
    if product is not None or calibration is None or not calibration.has_products:
        return product
    if sample.class_name in calibration.products:
        return sample.class_name
    return calibration.product_of(sample.image_path)


def check_products(setup: DetectorSetup, samples: Iterable[Sample], product: str | None) -> None:
    """Refuse samples of no known product; ConfigError names the first class of them."""
    for sample in samples:
        try:
            setup.check_product(product_of(setup, sample, product))
        except ConfigError as error:
            raise ConfigError(
                f"Class {sample.class_name}: {error} --class leaves other classes out."
            ) from None


def predict_samples(
    detector: PictureDetector, batch: Sequence[ReadSample], product: str | None = None
) -> list[AnomalyResult]:
    """Score the readable samples of a batch as `predict` scores their pictures.

    An uncalibrated detector gets the class of each sample, for methods with class names; a
    calibrated one keeps the class name that it was calibrated with.
    """
    read = [(item, item.image) for item in batch if item.image is not None]
    if not read:
        return []
    calibrated = detector.setup.calibration is not None
    return detector.predict_batch(
        [image for _, image in read],
        class_names=None if calibrated else [item.sample.class_name for item, _ in read],
        masks=[item.left_out for item, _ in read],
        products=[product_of(detector.setup, item.sample, product) for item, _ in read],
    )


def score_samples(
    detector: PictureDetector, batch: Sequence[ReadSample], config: EvaluationConfig
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the score and the map of each readable sample, the map at `config.resolution`.

    The scores are those of `predict_samples`. Maps at the model's size come straight from the
    model where it gives the same scores.
    """
    picture = config.resolution == "picture"
    if picture or detector.geometry.tiled or _changes_scores(detector.setup):
        for result in predict_samples(detector, batch, config.product):
            size = detector.model_size(result.image_size)
            yield result.score, result.score_map if picture else resize_map(result.score_map, size)
        return
    images = [item.image for item in batch if item.image is not None]
    names = [item.sample.class_name for item in batch if item.image is not None]
    calibrated = detector.setup.calibration is not None
    yield from detector.model_maps(images, class_names=None if calibrated else names)
