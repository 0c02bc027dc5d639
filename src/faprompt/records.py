"""Define the frozen records that packages exchange; each checks its values when created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Verdict = Literal["OK", "REVIEW", "NG"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # red, green, blue in 0..1 (Radford et al., 2021)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class DrawnMask:
    """Ground truth as outlines and run lengths instead of a picture; their union is anomalous.

    Coordinates are pixels of the picture as shown; (0, 0) is the corner of the first pixel, so
    the outline (0, 0), (4, 0), (4, 3), (0, 3) holds exactly 4 x 3 pixels.
    """

    image_size: tuple[int, int]  # (height, width) of the picture it was drawn for
    polygons: tuple[tuple[float, ...], ...] = ()  # x0, y0, x1, y1, ... of each outline
    runs: tuple[tuple[int, ...], ...] = ()  # column by column, the first run is normal pixels


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture of a dataset, or one region of a picture.

    `mask_paths` holds the files whose union is the ground truth; it is empty for normal
    pictures and where no mask exists. Where that file is a list of outlines (COCO),
    `drawn_mask` holds this picture's share of it. `has_pixel_label` says whether the empty
    mask of a normal picture means "no defect anywhere" (True) or "nobody drew masks" (False).
    """

    image_path: Path
    label: int  # 0 normal, 1 anomalous
    class_name: str  # metric group ("cls_name" in AnomalyCLIP's meta.json)
    defect_type: str = ""  # "specie_name" in meta.json; "" or "good" when normal
    mask_paths: tuple[Path, ...] = ()
    has_pixel_label: bool = False
    region: tuple[int, int, int, int] | None = None  # x0, y0, x1, y1 in image pixels
    split: str = "test"
    dataset: str = ""
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    drawn_mask: DrawnMask | None = None  # overrides the pixels of `mask_paths`

    def __post_init__(self) -> None:
        if self.label not in (0, 1):
            raise ValueError(f"label should be 0 (normal) or 1 (anomalous), got {self.label!r}.")


@dataclass(frozen=True, slots=True)
class Region:
    """Describe one connected area of a score map above the threshold of its pixels.

    Attributes:
        bbox: (x0, y0, x1, y1) in pixels of the original picture; x1 and y1 are exclusive.
        area_px: number of its pixels.
        peak: its highest map value, 0 to 1.
        mean: the mean of its map values, 0 to 1.
    """

    bbox: tuple[int, int, int, int]
    area_px: int
    peak: float
    mean: float
