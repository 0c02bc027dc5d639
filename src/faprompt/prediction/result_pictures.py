"""Write the pictures beside `results.jsonl`: maps, overlays and thumbnails."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from faprompt.files import unique_stem
from faprompt.imaging import (
    encode_jpeg,
    encode_map_png,
    overlay,
    overlay_layer,
    region_level,
    shrink,
    thumbnail,
)
from faprompt.imaging.overlay import MAP_ALPHA, MOST_BOXES
from faprompt.imaging.picture_windows import PictureWindows
from faprompt.prediction.result_rows import ResultRow
from faprompt.records import Region, Verdict
from faprompt.results import AnomalyResult
from faprompt.storage import OutputFolder

OVERLAY_MAX_SIDE = 4096
THUMBNAIL_MAX_SIDE = 256
LARGE_MAX_SIDE = 800
LAYER_MAX_SIDE = {"outlines": 576, "colours": 144}  # outlines need sharp edges, a map has none
_ARTIFACT = re.compile(r"-[0-9a-f]{16}(-overlay|-large)?\.(jpg|png|npy)$")


def artifact_folders(out_dir: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the folders of maps, overlays and thumbnails."""
    return tuple(Path(out_dir) / name for name in ("maps", "overlays", "thumbs"))


def is_artifact_name(name: str) -> bool:
    """Return whether a file name in one of those folders is one that a run gives.

    Example:
        >>> is_artifact_name("part-0123456789abcdef.jpg"), is_artifact_name("part.jpg")
        (True, False)
    """
    return _ARTIFACT.search(name) is not None


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Pictures that a run writes, named by `unique_stem` of the input."""

    folder: OutputFolder
    maps: Literal["npy", "png"] | None = None
    overlays: bool = True
    thumbnails: bool = True
    prefix: str = ""  # of every name, such as "shards/00001-of-00040/"
    absolute: bool = True  # names stand for the absolute path; False: the path as it is written

    def stem(self, path: str) -> str:
        """Return the name, without ending, of the files of a picture."""
        return unique_stem(path, absolute=self.absolute)

    def map_name(self, path: str) -> str | None:
        """Return the path of the map, relative to the folder; None when it is not written."""
        return f"{self.prefix}maps/{self.stem(path)}.{self.maps}" if self.maps else None

    def overlay_name(self, path: str) -> str | None:
        """Return the path of the overlay; None when it is not written."""
        return f"{self.prefix}overlays/{self.stem(path)}.jpg" if self.overlays else None

    def thumbnail_names(self, path: str) -> tuple[str, str, str]:
        """Return the paths of three pictures for the report: small, its overlay, and large.

        The overlay is a transparent layer for either size. It is written where there is
        something to show, the large picture where it is larger and the verdict is not OK.
        """
        stem = f"{self.prefix}thumbs/{self.stem(path)}"
        return f"{stem}.jpg", f"{stem}-overlay.png", f"{stem}-large.jpg"

    def complete(self, row: ResultRow) -> bool:
        """Return whether everything that this run writes for a picture exists."""
        if row.status != "ok":
            return False
        names = [self.map_name(row.path), self.overlay_name(row.path)]
        if names != [row.map if self.maps else None, row.overlay if self.overlays else None]:
            return False
        if self.thumbnails:
            small, layer, large = self.thumbnail_names(row.path)
            names.append(small)
            names += [layer] * wants_overlay(row)
            names += [large] * _wants_large(row.verdict, (row.height or 0, row.width or 0))
        return all(self.folder.exists(name) for name in names if name)

    def write(self, path: str, windows: PictureWindows, result: AnomalyResult) -> tuple[str, ...]:
        """Write the files of one picture, each atomically.

        Args:
            path: of the picture, as the user named it.
            windows: the picture.
            result: with a score map of the picture's size.

        Returns:
            Notes for the user.
        """
        if not (self.maps or self.overlays or self.thumbnails):
            return ()
        if map_name := self.map_name(path):
            self._write_map(map_name, result.score_map)
        drawn = draw_pictures(
            windows, result, with_overlay=self.overlays, with_thumbnails=self.thumbnails
        )
        names = (self.overlay_name(path), *self.thumbnail_names(path))
        contents = (drawn.overlay, drawn.small, drawn.layer, drawn.large)
        for name, content in zip(names, contents, strict=True):
            if name and content is not None:
                self.folder.write(name, content)
        return drawn.notes

    def _write_map(self, name: str, score_map: np.ndarray) -> None:
        if self.maps == "png":
            self.folder.write(name, encode_map_png(score_map))
            return
        with self.folder.new_file(name) as stream:  # not by way of bytes: a map may be large
            np.save(stream, score_map.astype(np.float32, copy=False), allow_pickle=False)


@dataclass(frozen=True, slots=True)
class DrawnPictures:
    """Encoded pictures of a result; None is one that was not asked for, or shows nothing."""

    overlay: bytes | None = None  # JPEG, the picture with its regions or its map
    small: bytes | None = None  # JPEG, thumbnail for the report
    layer: bytes | None = None  # PNG, transparent; lies over either size
    large: bytes | None = None  # JPEG, where the verdict is not OK
    notes: tuple[str, ...] = ()  # for the user


def draw_pictures(
    windows: PictureWindows, result: AnomalyResult, *, with_overlay: bool, with_thumbnails: bool
) -> DrawnPictures:
    """Draw the overlay and the report's pictures of one result.

    Args:
        windows: the picture.
        result: with a score map of the picture's size.
        with_overlay: draw the overlay, at most `OVERLAY_MAX_SIDE` px a side.
        with_thumbnails: draw the pictures of the report.
    """
    if not (with_overlay or with_thumbnails):
        return DrawnPictures()
    regions = result.regions[:MOST_BOXES]
    image = windows.thumbnail(OVERLAY_MAX_SIDE)
    view = shrink(image, result.score_map, regions, max_side=OVERLAY_MAX_SIDE)
    area = sum(region.area_px for region in result.regions)
    level = region_level(view[1], area * view[1].size / result.score_map.size)
    drawn = DrawnPictures()
    if with_overlay:
        marked = view[0]
        if wants_overlay(result):
            marked = overlay(view[0], view[1], alpha=MAP_ALPHA, regions=view[2], level=level)
        notes = _scale_notes(result.image_size, marked)
        drawn = replace(drawn, overlay=encode_jpeg(marked), notes=notes)
    return _with_thumbnails(drawn, result, level, *view) if with_thumbnails else drawn


def _with_thumbnails(
    drawn: DrawnPictures,
    result: AnomalyResult,
    level: float | None,
    image: np.ndarray,
    score_map: np.ndarray,
    regions: tuple[Region, ...],
) -> DrawnPictures:
    layer = large = None
    if wants_overlay(result):
        side = LAYER_MAX_SIDE["colours" if level is None else "outlines"]
        _, score_map, regions = shrink(image, score_map, regions, max_side=side)
        layer = overlay_layer(score_map, alpha=MAP_ALPHA, regions=regions, level=level)
    image = thumbnail(image, max_side=LARGE_MAX_SIDE)
    if _wants_large(result.verdict, result.image_size):
        large = encode_jpeg(image, quality=80)
    small = encode_jpeg(thumbnail(image, max_side=THUMBNAIL_MAX_SIDE), quality=70)
    return replace(drawn, small=small, layer=layer, large=large)


def wants_overlay(result: AnomalyResult | ResultRow) -> bool:
    """Return whether a picture is marked: outlines of its regions, else the colours of its map.

    A picture that is OK and has no region stays as it is.
    """
    return bool(result.regions) or result.verdict != "OK"


def _wants_large(verdict: Verdict | None, image_size: tuple[int, int]) -> bool:
    """Return whether a picture is worth showing larger than its thumbnail."""
    return verdict != "OK" and max(image_size) > 1.25 * THUMBNAIL_MAX_SIDE


def _scale_notes(image_size: tuple[int, int], marked: np.ndarray) -> tuple[str, ...]:
    if marked.shape[:2] == image_size:
        return ()
    height, width = marked.shape[:2]
    return (f"overlay scaled down to {width}x{height}",)
