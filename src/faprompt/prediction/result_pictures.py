"""Write the pictures beside `results.jsonl`: maps, overlays and thumbnails."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from faprompt.files import unique_stem, write_atomically
from faprompt.imaging import encode_jpeg, encode_map_png, overlay, shrink
from faprompt.prediction.result_rows import ResultRow
from faprompt.records import AnomalyResult, Region

OVERLAY_MAX_SIDE = 4096
THUMBNAIL_MAX_SIDE = 288
_ARTIFACT = re.compile(r"-[0-9a-f]{16}(-overlay)?\.(jpg|png|npy)$")
_MOST_BOXES = 50  # more boxes would hide the picture


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

    folder: Path
    maps: Literal["npy", "png"] | None = None
    overlays: bool = True
    thumbnails: bool = True

    def make_folders(self) -> None:
        """Create the sub-folders in use."""
        used = (self.maps, self.overlays, self.thumbnails)
        for folder, wanted in zip(artifact_folders(self.folder), used, strict=True):
            if wanted:
                folder.mkdir(parents=True, exist_ok=True)

    def map_name(self, path: str) -> str | None:
        """Return the path of the map, relative to the folder; None when it is not written."""
        return f"maps/{unique_stem(path)}.{self.maps}" if self.maps else None

    def overlay_name(self, path: str) -> str | None:
        """Return the path of the overlay; None when it is not written."""
        return f"overlays/{unique_stem(path)}.jpg" if self.overlays else None

    def thumbnail_names(self, path: str) -> tuple[str, str]:
        """Return the paths of the thumbnails of the picture and of its overlay."""
        return f"thumbs/{unique_stem(path)}.jpg", f"thumbs/{unique_stem(path)}-overlay.jpg"

    def complete(self, row: ResultRow) -> bool:
        """Return whether everything that this run writes for a picture exists."""
        if row.status != "ok":
            return False
        names = [self.map_name(row.path), self.overlay_name(row.path)]
        if names != [row.map if self.maps else None, row.overlay if self.overlays else None]:
            return False
        if self.thumbnails:
            names += self.thumbnail_names(row.path)
        return all((self.folder / name).is_file() for name in names if name)

    def write(self, path: str, image: np.ndarray, result: AnomalyResult) -> tuple[str, ...]:
        """Write the files of one picture, each atomically.

        Args:
            path: of the picture, as the user named it.
            image: (H, W, 3) uint8.
            result: with a score map of the same height and width.

        Returns:
            Notes for the user.
        """
        regions = result.regions[:_MOST_BOXES]
        view = shrink(image, result.score_map, regions, max_side=OVERLAY_MAX_SIDE)
        notes: tuple[str, ...] = ()
        if map_name := self.map_name(path):
            write_atomically(self.folder / map_name, self._encode_map(result.score_map))
        if overlay_name := self.overlay_name(path):
            marked = overlay(view[0], view[1], regions=view[2])
            write_atomically(self.folder / overlay_name, encode_jpeg(marked))
            notes = _scale_notes(image, marked)
        if self.thumbnails:
            self._write_thumbnails(path, *shrink(*view, max_side=THUMBNAIL_MAX_SIDE))
        return notes

    def _write_thumbnails(
        self, path: str, image: np.ndarray, score_map: np.ndarray, regions: tuple[Region, ...]
    ) -> None:
        names = self.thumbnail_names(path)
        pictures = (image, overlay(image, score_map, regions=regions))
        for name, picture in zip(names, pictures, strict=True):
            write_atomically(self.folder / name, encode_jpeg(picture, quality=75))

    def _encode_map(self, score_map: np.ndarray) -> bytes:
        if self.maps == "png":
            return encode_map_png(score_map)
        buffer = io.BytesIO()
        np.save(buffer, score_map.astype(np.float32, copy=False), allow_pickle=False)
        return buffer.getvalue()


def _scale_notes(image: np.ndarray, marked: np.ndarray) -> tuple[str, ...]:
    if image.shape == marked.shape:
        return ()
    height, width = marked.shape[:2]
    return (f"overlay scaled down to {width}x{height}",)
