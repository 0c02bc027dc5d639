"""The result of a detector on one image."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from faprompt.imaging.image_reading import MAX_PIXELS, read_image
from faprompt.imaging.overlay import MAP_ALPHA, MOST_BOXES, overlay, region_level
from faprompt.imaging.picture_sources import ImageSource
from faprompt.imaging.reading_options import Window
from faprompt.records import Region, Verdict


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AnomalyResult:
    """Hold what a detector says about one picture; higher values are always more anomalous.

    Two results are equal if all their values are, the map included. A result can be a key of a
    dictionary, and copies of it find the same entry.

    Attributes:
        score: of the whole picture, 0 to 1; comparable within one model only.
        score_map: (height, width) float32, 0 to 1, in pixels of the original picture.
        image_size: (height, width) of the original picture, in pixels.
        model: name of the model.
        verdict: "OK", "REVIEW" or "NG"; None while no threshold is known.
        threshold: limit of NG, 0 to 1. Scores above it are NG; so is a score equal to it, unless
            it comes from a calibration.
        review_threshold: limit of REVIEW, 0 to 1; None without a calibration.
        map_threshold: limit of a region's pixels in `score_map`, 0 to 1, as for `threshold`.
        p_value: share of good pictures that are at least this anomalous, above 0 and at most 1;
            None without a calibration.
        product: whose thresholds were used, if they differ by product.
        regions: connected areas of the map above `map_threshold`, the highest peak first.
        prompt_scores: one score per abnormality prompt, 0 to 1; None unless asked for.
        notes: what the reader did to the picture, one sentence each.

    Raises:
        ValueError: the map is not (height, width), or differs from `image_size`.
    """

    score: float
    score_map: np.ndarray
    image_size: tuple[int, int]
    model: str
    verdict: Verdict | None = None
    threshold: float | None = None
    review_threshold: float | None = None
    map_threshold: float | None = None
    p_value: float | None = None
    product: str | None = None
    regions: tuple[Region, ...] = ()
    prompt_scores: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.score_map.ndim != 2:
            raise ValueError(f"score_map should be (height, width), got {self.score_map.shape}.")
        if self.score_map.shape != tuple(self.image_size):
            raise ValueError(
                f"score_map should have the size of the image, {tuple(self.image_size)}, "
                f"got {self.score_map.shape}."
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AnomalyResult):
            return NotImplemented
        plain = [f.name for f in fields(self) if f.name != "score_map"]
        return all(getattr(self, name) == getattr(other, name) for name in plain) and (
            np.array_equal(self.score_map, other.score_map)
        )

    def __hash__(self) -> int:
        return hash((self.score, self.score_map.shape, self.model, self.verdict))  # cheap

    def __repr__(self) -> str:
        height, width = self.image_size
        facts = [f"score={self.score:.4g}", self.verdict, self.product]
        facts += [None if self.p_value is None else f"p={self.p_value:.3g}"]
        facts += [f"{width}x{height} px", f"{len(self.regions)} regions", f"model={self.model!r}"]
        return f"<AnomalyResult {', '.join(fact for fact in facts if fact)}>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, in the order of `results.jsonl`; the map is left out.

        `width` and `height` are in pixels. Beside the fields of `results.jsonl` there are
        `map_threshold` and `prompt_scores`.
        """
        height, width = self.image_size
        return {
            "score": self.score,
            "p_value": self.p_value,
            "verdict": self.verdict,
            "threshold": self.threshold,
            "review_threshold": self.review_threshold,
            "map_threshold": self.map_threshold,
            "product": self.product,
            "width": width,
            "height": height,
            "regions": [asdict(region) | {"bbox": list(region.bbox)} for region in self.regions],
            "prompt_scores": None if self.prompt_scores is None else list(self.prompt_scores),
            "notes": list(self.notes),
            "model": self.model,
        }

    def overlay(
        self, image: ImageSource, *, bit_depth: int | None = None, window: Window | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> np.ndarray:  # fmt: skip
        """Return the picture with what was found on it, as the report of `predict` shows it.

        Regions have an outline and a faint tint. Without regions, the map lies over the picture
        in colours on their fixed scale, unless the verdict is OK: then the picture stays as it
        is. The picture itself is not changed.

        Args:
            image: the picture that was scored, as `Detector.predict` takes it.
            bit_depth, window, max_pixels: as they were given to `predict`.

        Returns:
            (height, width, 3) uint8 RGB, in pixels of the picture.

        Raises:
            ImageReadError: the picture cannot be read.
            ValueError: it has another size than the map, or an option is out of range.
        """
        read = read_image(image, bit_depth=bit_depth, window=window, max_pixels=max_pixels)
        picture = read.array
        level = region_level(self.score_map, sum(region.area_px for region in self.regions))
        marked = overlay(
            picture, self.score_map, alpha=MAP_ALPHA, regions=self.regions[:MOST_BOXES],
            level=level,
        )  # fmt: skip
        return picture.copy() if self.verdict == "OK" and not self.regions else marked
