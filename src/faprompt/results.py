"""The result of a detector on one image."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from faprompt.imaging.image_reading import ImageSource, read_image
from faprompt.imaging.overlay import overlay, region_level
from faprompt.records import Region, Verdict


@dataclass(frozen=True, slots=True)
class AnomalyResult:
    """Result of a detector on one image; higher values are always more anomalous."""

    score: float  # the whole image, 0..1; comparable within one model only
    score_map: np.ndarray  # (height, width) float32 in 0..1, pixels of the original picture
    image_size: tuple[int, int]  # (height, width) of the original picture
    model: str
    verdict: Verdict | None = None  # None while no threshold is known
    threshold: float | None = None
    review_threshold: float | None = None  # of a calibrated model
    map_threshold: float | None = None  # of the regions' pixels
    p_value: float | None = None  # share of good pictures at least this anomalous; calibrated
    product: str | None = None  # whose thresholds were used, where they differ by product
    regions: tuple[Region, ...] = ()
    prompt_scores: tuple[float, ...] | None = None  # one per abnormality prompt, on request
    notes: tuple[str, ...] = ()  # what the reader did to the picture, one sentence each

    def __post_init__(self) -> None:
        if self.score_map.ndim != 2:
            raise ValueError(f"score_map should be (height, width), got {self.score_map.shape}.")
        if self.score_map.shape != tuple(self.image_size):
            raise ValueError(
                f"score_map should have the size of the image, {tuple(self.image_size)}, "
                f"got {self.score_map.shape}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; the map is left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        del values["score_map"], values["image_size"]
        height, width = self.image_size
        return values | {
            "width": width,
            "height": height,
            "regions": [asdict(region) | {"bbox": list(region.bbox)} for region in self.regions],
            "prompt_scores": None if self.prompt_scores is None else list(self.prompt_scores),
            "notes": list(self.notes),
        }

    def overlay(self, image: ImageSource) -> np.ndarray:
        """Return the picture with the outlines of its regions, or with the map's colours.

        Args:
            image: the picture that was scored, as `Detector.predict` takes it.

        Returns:
            (height, width, 3) uint8 RGB. Outlines and a faint tint where there are regions; the
            colours of the map on their fixed scale where there is no threshold; else the picture.

        Raises:
            ImageReadError: the picture cannot be read.
            ValueError: it has another size than the map.
        """
        picture = read_image(image).array
        level = region_level(self.score_map, sum(region.area_px for region in self.regions))
        if level is None and self.threshold is not None:
            return picture
        return overlay(picture, self.score_map, regions=self.regions, level=level)
