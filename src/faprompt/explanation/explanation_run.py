"""Explain files: a sheet, a page and a JSON file for each picture."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faprompt.detector import Detector
from faprompt.detector_parts import open_picture
from faprompt.errors import ImageReadError
from faprompt.explanation.explanation_drawing import draw_page, draw_panels, draw_sheet
from faprompt.explanation.picture_explanation import Explanation, explain_picture
from faprompt.explanation.vocabulary import Vocabulary
from faprompt.files import unique_stem, write_atomically
from faprompt.imaging.reading_options import MAX_PIXELS, ReadingOptions, Window
from faprompt.work import can_draw


@dataclass(frozen=True, slots=True)
class Explained:
    """Result of one file; `error` is the reason where there is no explanation."""

    path: str  # as the user named it
    explanation: Explanation | None
    sheet: Path | None = None
    page: Path | None = None
    data: Path | None = None
    error: str = ""
    notes: tuple[str, ...] = ()  # what the reader did to the picture, one sentence each

    def to_dict(self) -> dict[str, Any]:
        """Return the content of NAME.json, or the reason why a file could not be read."""
        if self.explanation is None:
            return {"path": self.path, "error": self.error}
        values = self.explanation.to_dict()
        return {"path": self.path, **values, "notes": [*self.notes, *values["notes"]]}


def explain_files(
    detector: Detector,
    paths: Iterable[str | os.PathLike[str]],
    *,
    out_dir: str | os.PathLike[str],
    threshold: float | None = None,
    bit_depth: int | None = None,
    window: Window | None = None,
    max_pixels: int = MAX_PIXELS,
    product: str | None = None,
) -> Iterator[Explained]:
    """Explain files one by one and write NAME.png, NAME.html and NAME.json for each.

    NAME is `unique_stem` of the path, as for the overlays of `predict`. A file that cannot be
    read is reported, and the run continues.

    Args:
        detector: detector of any method.
        paths: files, in the order wanted.
        out_dir: folder for the files; created when missing.
        threshold: score from which a picture is NG; None uses the model's own, if any.
        bit_depth, window, max_pixels: see `read_image`.
        product: of all pictures; None: the nearest folder that is a product of the calibration.

    Raises:
        ConfigError: a picture is scored as several tiles.
    """
    options = ReadingOptions(bit_depth=bit_depth, window=window, max_pixels=max_pixels)
    folder = Path(out_dir)
    vocabulary, drawn = Vocabulary(detector.backbone), can_draw("Sheets (PNG)")
    for path in paths:
        name = os.fspath(path)
        try:
            picture = open_picture(detector.setup, name, options, product=product)
        except ImageReadError as error:
            yield Explained(name, None, error=str(error))
            continue
        with closing(picture):
            height, width = picture.windows.image_size
            image = picture.windows.read((0, 0, width, height))
        found = explain_picture(
            detector, image, vocabulary=vocabulary, threshold=threshold,
            mask=picture.mask, product=picture.product,
        )  # fmt: skip
        panels = draw_panels(found, image)
        folder.mkdir(parents=True, exist_ok=True)
        stem, title = unique_stem(name), Path(name).name
        page, data = (folder / f"{stem}.{kind}" for kind in ("html", "json"))
        sheet = folder / f"{stem}.png" if drawn else None
        one = Explained(name, found, sheet, page, data, notes=picture.windows.notes)
        write_atomically(data, json.dumps(one.to_dict(), allow_nan=False).encode() + b"\n")
        write_atomically(page, draw_page(found, panels, name=title).encode(errors="replace"))
        if sheet:  # last: `predict` recognises it by the other two
            write_atomically(sheet, draw_sheet(found, panels, name=title))
        yield one
