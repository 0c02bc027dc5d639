"""The pictures of an explanation, all of one size: overlays, and the patches numbered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from faprompt.explanation.picture_explanation import Explanation, Patch
from faprompt.imaging import overlay
from faprompt.records import Region

SIDE = 336  # pixels of the longer side
_LEAST_NUMBERED = 10  # pixels of a patch that has room for its number
_HALO = 2  # pixels of black around a number


@dataclass(frozen=True, slots=True, eq=False)
class Panels:
    """(h, w, 3) uint8 each. `stages` and `patches` are empty or None without a prior."""

    picture: np.ndarray
    fused: np.ndarray
    stages: dict[str, np.ndarray]
    prompts: tuple[np.ndarray, ...]
    patches: np.ndarray | None


def draw_panels(explanation: Explanation, image: np.ndarray, *, side: int = SIDE) -> Panels:
    """Every map over the picture, on the fixed colour scale of all overlays.

    Args:
        image: (H, W, 3) uint8, the picture explained.
        side: of the longer side of each panel, in pixels; small pictures are enlarged.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))

    def over(grid: np.ndarray) -> np.ndarray:
        return overlay(small, explanation.render(grid, small.shape[:2]))

    fused_map = explanation.render(explanation.fused, small.shape[:2])
    boxes = tuple(_scaled(region, scale) for region in explanation.result.regions)
    return Panels(
        picture=small,
        fused=overlay(small, fused_map, regions=boxes),
        stages={name: over(grid) for name, grid in explanation.stages.items()},
        prompts=tuple(over(prompt.grid) for prompt in explanation.prompts),
        patches=_numbered(small, explanation.patches, scale) if explanation.patches else None,
    )


def _scaled(region: Region, scale: float) -> Region:
    x0, y0, x1, y1 = (round(edge * scale) for edge in region.bbox)
    return Region((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)), region.area_px, 0.0, 0.0)


def _numbered(picture: np.ndarray, patches: tuple[Patch, ...], scale: float) -> np.ndarray:
    """The picture with a frame around each patch, and its rank where there is room."""
    boxes = [_scaled(Region(patch.box, 1, 0.0, 0.0), scale) for patch in patches]
    nothing = np.zeros(picture.shape[:2], np.float32)
    framed = Image.fromarray(overlay(picture, nothing, regions=boxes))
    draw = ImageDraw.Draw(framed)
    for patch, region in zip(patches, boxes, strict=True):
        x0, y0, x1, y1 = region.bbox
        side = min(x1 - x0, y1 - y0)
        if side < _LEAST_NUMBERED:
            continue
        draw.text(
            ((x0 + x1) / 2, (y0 + y1) / 2), str(patch.rank), "white", anchor="mm",
            font=ImageFont.load_default(min(18, 0.75 * side)), stroke_width=_HALO,
            stroke_fill="black",
        )  # fmt: skip
    return np.asarray(framed)
