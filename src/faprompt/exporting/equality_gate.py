"""Compare an exported detector with the original on pictures: scores, maps, verdicts, regions.

Both sides read, resize and score the same pictures through their public `stream`, in batches of
1 and 4. A few pictures are scored with a mask as well, and the tokens that references are made of
are compared, so that everything an exported folder can do is measured.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.calibration import ONE_PRODUCT
from faprompt.imaging.image_reading import read_image
from faprompt.imaging.picture_sources import ImageSource
from faprompt.picture_detector import PictureDetector
from faprompt.records import Region
from faprompt.results import AnomalyResult
from faprompt.work import ProgressCallback, no_progress

BATCHES = (1, 4)
_MASKED_PICTURES = 4
_TIE = 1e-6  # a score this close to a threshold has no certain verdict
_SHIFT_PX = 2  # by which a box may differ: pixels at the threshold fall on either side


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Largest differences between an exported detector and the original."""

    pictures: int
    batches: tuple[int, ...] = BATCHES
    score: float = 0.0  # largest absolute difference of two scores, 0..1
    map: float = 0.0  # of two values of a map, 0..1
    tokens: float = 0.0  # of two patch tokens, half their cosine distance, 0..1
    verdicts: int = 0  # pictures with another verdict
    regions: int = 0  # pictures with other regions
    tolerance: float = 0.0  # of score, map and tokens
    machine: str = ""  # processor on which it was measured
    worst: str = ""  # the picture that differs most

    @property
    def largest(self) -> float:
        """Return the largest of the three differences that have a tolerance."""
        return max(self.score, self.map, self.tokens)

    @property
    def within(self) -> bool:
        """Whether no difference is above the tolerance; one that is no number is above it."""
        return all(value <= self.tolerance for value in (self.score, self.map, self.tokens))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; picture names stay out."""
        values = asdict(self)
        del values["worst"]
        return values | {"batches": list(self.batches)}


@dataclass(slots=True)
class _Tally:
    score: float = 0.0
    map: float = 0.0
    worst: str = ""
    verdicts: set[int] = field(default_factory=set)
    regions: set[int] = field(default_factory=set)

    def add(self, number: int, name: str, one: AnomalyResult, other: AnomalyResult) -> None:
        score = abs(one.score - other.score)
        values = float(np.abs(one.score_map - other.score_map).max())
        if not max(score, values) <= max(self.score, self.map):
            self.worst = name
        self.score, self.map = max(self.score, score), max(self.map, values)
        limits = (one.threshold, one.review_threshold)
        if any(limit is not None and abs(one.score - limit) <= _TIE for limit in limits):
            return
        if one.verdict != other.verdict:
            self.verdicts.add(number)
        if not same_regions(one.regions, other.regions):
            self.regions.add(number)


def measure_difference(
    original: PictureDetector,
    exported: PictureDetector,
    pictures: Sequence[ImageSource],
    *,
    tolerance: float,
    progress: ProgressCallback = no_progress,
) -> Difference:
    """Score pictures on both sides and return the largest differences.

    Args:
        original, exported: detectors with the same setup.
        pictures: paths, or arrays (H, W, 3) uint8.
        tolerance: stored with the result.
        progress: called as progress("compare", pictures done, pictures in all).

    Raises:
        ImageReadError: a picture cannot be read.
        ConfigError: the detectors are calibrated by product, and a path names none.
    """
    tally, total = _Tally(), len(BATCHES) * len(pictures)
    options = _stream_options(original, pictures)
    for round_number, batch in enumerate(BATCHES):
        pairs = zip(
            original.stream(pictures, batch_size=batch, **options),
            exported.stream(pictures, batch_size=batch, **options),
            strict=True,
        )
        for number, (one, other) in enumerate(pairs):
            tally.add(number, _name(pictures, number), one, other)
            progress("compare", round_number * len(pictures) + number + 1, total)
    tokens = 0.0
    if not original.geometry.stacks_squares:
        arrays = [read_image(source).array for source in pictures[:_MASKED_PICTURES]]
        _compare_masked(original, exported, arrays, tally, options)
        tokens = max((token_difference(original, exported, each) for each in arrays[:2]), default=0)
    return Difference(
        pictures=len(pictures), score=tally.score, map=tally.map, tokens=tokens,
        verdicts=len(tally.verdicts), regions=len(tally.regions), tolerance=tolerance,
        machine=processor_name(), worst=tally.worst,
    )  # fmt: skip


def _stream_options(detector: PictureDetector, pictures: Sequence[ImageSource]) -> dict[str, Any]:
    """Return the product of pictures without a path, and a threshold where the model has none."""
    options: dict[str, Any] = {}
    calibration = detector.setup.calibration
    if calibration is not None:
        products = [name for name in calibration.products if name != ONE_PRODUCT]
        if products and not isinstance(pictures[0], str | Path):
            options["product"] = products[0]
    elif detector.threshold is None:  # so that there are regions to compare
        options["threshold"] = detector.predict(pictures[0], threshold=0.5).score
    return options


def _name(pictures: Sequence[ImageSource], number: int) -> str:
    source = pictures[number]
    return str(source) if isinstance(source, str | Path) else f"drawn picture {number + 1}"


def _compare_masked(
    original: PictureDetector,
    exported: PictureDetector,
    arrays: Sequence[np.ndarray],
    tally: _Tally,
    options: dict[str, Any],
) -> None:
    """Compare pictures with a mask on a corner beside pictures without one."""
    masks = [_corner_mask(each) if at % 2 == 0 else None for at, each in enumerate(arrays)]
    settings = dict(options)
    if "product" in settings:
        settings["products"] = [settings.pop("product")] * len(arrays)
    elif original.setup.calibration is not None:
        settings["products"] = [next(iter(original.setup.calibration.products))] * len(arrays)
    both = (
        detector.predict_batch(arrays, masks=masks, **settings) for detector in (original, exported)
    )
    for number, (one, other) in enumerate(zip(*both, strict=True)):
        tally.add(-1 - number, f"picture {number + 1} with a mask on a corner", one, other)


def _corner_mask(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.bool_)
    mask[: max(1, height // 3), : max(1, width // 2)] = True
    return mask


def token_difference(
    original: PictureDetector, exported: PictureDetector, image: np.ndarray
) -> float:
    """Return the largest half cosine distance, 0..1, of two patch tokens of one picture."""
    largest = 0.0
    for one, other in zip(
        original.reference_tokens(image), exported.reference_tokens(image), strict=True
    ):
        for layer in one:
            lengths = np.linalg.norm(one[layer], axis=-1) * np.linalg.norm(other[layer], axis=-1)
            cosines = (one[layer] * other[layer]).sum(axis=-1) / np.maximum(lengths, 1e-12)
            kept = lengths > 0  # tokens of nothing have no direction
            largest = max(largest, float(((1 - cosines[kept]) / 2).max(initial=0.0)))
    return largest


def same_regions(one: Sequence[Region], other: Sequence[Region]) -> bool:
    """Return whether two pictures have the same boxes, up to 2 pixels, in any order."""
    boxes = [np.array(sorted(each.bbox for each in side)) for side in (one, other)]
    if boxes[0].shape != boxes[1].shape:
        return False
    return not boxes[0].size or int(np.abs(boxes[0] - boxes[1]).max()) <= _SHIFT_PX


def processor_name() -> str:
    """Return the name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
