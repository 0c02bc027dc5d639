"""Measure on pictures what each precision of the image tower saves, and what it changes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faprompt.clip.weights import load_backbone
from faprompt.detector import Detector
from faprompt.errors import ConfigError, ModelError
from faprompt.imaging.picture_sources import ImageSource

COMPARED: tuple[Any, ...] = ("fp32", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class PrecisionChange:
    """Time of one precision, and how far its results lie from those of fp32."""

    precision: str
    latency_ms: float = 0.0  # median over the pictures
    ratio: float = 0.0  # time at fp32 over time at this precision
    score_change: float = 0.0  # largest difference of a score
    map_change: float = 0.0  # largest difference of a pixel
    refused: str = ""  # why it cannot be used here

    def __str__(self) -> str:
        if self.refused:
            return self.refused
        told = f"{self.latency_ms:.0f} ms a picture"
        if self.precision == COMPARED[0]:
            return told
        return (
            f"{told}, {self.ratio:.2f} times as fast; scores change by up to "
            f"{self.score_change:.1g}, maps by {self.map_change:.1g}"
        )


def compare_precisions(detector: Detector, images: Iterable[ImageSource]) -> list[PrecisionChange]:
    """Score pictures at fp32, bf16 and int8 in turn, and compare with fp32.

    The backbone is loaded again for each of them; a calibration is left out, because it holds at
    its own precision only. Timed without the first picture, which warms up.

    Raises:
        ImageReadError: a picture cannot be read.
        ModelError: the backbone is not where it was, or there is no picture.
    """
    changes: dict[str, PrecisionChange] = {}
    usable: dict[str, Detector] = {}
    for precision in COMPARED:
        try:
            usable[precision] = _at(detector, precision)
        except ConfigError as error:
            changes[precision] = PrecisionChange(precision, refused=str(error))
    seconds: dict[str, list[float]] = {name: [] for name in usable}
    apart: dict[str, list[tuple[float, float]]] = {name: [(0.0, 0.0)] for name in usable}
    for image in images:
        exact = usable[COMPARED[0]].predict(image)  # also reads the file into the system's cache
        for name, each in usable.items():
            started = time.perf_counter()
            found = each.predict(image)
            seconds[name].append(time.perf_counter() - started)
            difference = np.abs(found.score_map - exact.score_map).max()
            apart[name].append((abs(found.score - exact.score), float(difference)))
    if not seconds[COMPARED[0]]:
        raise ModelError("No picture to compare precisions on; give some.")
    medians = {name: statistics.median(taken[1:] or taken) for name, taken in seconds.items()}
    for name, median in medians.items():
        scores, maps = zip(*apart[name], strict=True)
        ratio = medians[COMPARED[0]] / median
        changes[name] = PrecisionChange(name, 1000 * median, ratio, max(scores), max(maps))
    return [changes[name] for name in COMPARED]


def _at(detector: Detector, precision: Any) -> Detector:
    """Return the detector at another precision, without its calibration."""
    old = detector.backbone
    backbone = load_backbone(old.name, precision=precision, device=old.device)
    if backbone.state_fingerprint() != old.state_fingerprint():
        raise ModelError(f"The backbone {old.name!r} has changed since the model was loaded.")
    return Detector(
        backbone,
        detector.method,
        name=detector.name,
        class_name=detector.class_name,
        setup=replace(detector.setup, calibration=None),
    )
