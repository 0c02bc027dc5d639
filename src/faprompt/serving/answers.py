"""The answer on one picture: its row, as `predict` writes it, and pictures on request."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from faprompt.imaging import encode_jpeg, encode_map_png, overlay_layer, shrink, thumbnail
from faprompt.imaging.picture_windows import PictureWindows
from faprompt.prediction.picture_scoring import is_finite, result_row
from faprompt.prediction.result_pictures import LARGE_MAX_SIDE, DrawnPictures, draw_pictures
from faprompt.prediction.result_rows import ResultRow
from faprompt.results import AnomalyResult
from faprompt.serving.picture_request import MapKind, PictureRequest

_HEAT_MAX_SIDE = 200  # a map has no sharp edges
_HEAT_ALPHA = 0.6  # opacity of a score of 1


@dataclass(frozen=True, slots=True)
class PictureAnswer:
    """A row, and pictures by their field of the answer."""

    row: ResultRow
    pictures: dict[str, bytes] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of the row, then pictures as base64."""
        encoded = {name: base64.b64encode(data).decode() for name, data in self.pictures.items()}
        return self.row.to_dict() | encoded

    def to_json(self) -> bytes:
        """Return `to_dict` as one line, written as a line of `results.jsonl` is."""
        if not self.pictures:
            return self.row.to_line()
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def answer_of(
    request: PictureRequest, windows: PictureWindows, result: AnomalyResult, latency_ms: float
) -> PictureAnswer:
    """Return the answer on a scored picture."""
    model = result.model
    if not is_finite(result):
        reason = f"{request.name or 'the picture'}: the score or the map is not finite."
        return PictureAnswer(ResultRow(request.name, model, status="error", error=reason))
    drawn = draw_pictures(
        windows, result, with_overlay=request.overlay, with_thumbnails=request.view
    )
    row = result_row(
        request.name, model, result, notes=windows.notes + drawn.notes, latency_ms=latency_ms
    )
    pictures = {"overlay_base64": drawn.overlay, "map_base64": _map(result, request.map)}
    if request.view:
        pictures |= _view(windows, result, drawn)
    return PictureAnswer(row, {name: data for name, data in pictures.items() if data is not None})


def _map(result: AnomalyResult, kind: MapKind) -> bytes | None:
    if kind == "none":
        return None
    if kind == "png":
        return encode_map_png(result.score_map)
    buffer = io.BytesIO()
    np.save(buffer, result.score_map.astype(np.float32, copy=False), allow_pickle=False)
    return buffer.getvalue()


def _view(
    windows: PictureWindows, result: AnomalyResult, drawn: DrawnPictures
) -> dict[str, bytes | None]:
    """Return the pictures of the page: those of the report, a large one always, and the map."""
    large = drawn.large
    image = windows.thumbnail(LARGE_MAX_SIDE)
    if large is None:
        large = encode_jpeg(thumbnail(image, max_side=LARGE_MAX_SIDE), quality=80)
    _, heat, _ = shrink(image, result.score_map, (), max_side=_HEAT_MAX_SIDE)
    return {
        "small_base64": drawn.small,
        "layer_base64": drawn.layer,
        "large_base64": large,
        "heat_base64": overlay_layer(heat, alpha=_HEAT_ALPHA),
    }
