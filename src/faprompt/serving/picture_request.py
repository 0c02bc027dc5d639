"""One picture that a client asks about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MapKind = Literal["none", "png", "npy"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureRequest:
    """A picture and what its answer should hold."""

    content: bytes  # of a picture file
    name: str = ""  # label of the picture in the answer; never opened
    product: str | None = None  # whose thresholds count
    map: MapKind = "none"  # 16-bit grey PNG, or float32 NumPy file
    overlay: bool = False  # JPEG as `predict` writes it
    view: bool = False  # pictures for the inspection page and the report
