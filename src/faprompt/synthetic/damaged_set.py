"""Write good pictures and copies with drawn defects as a labelled set with masks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.errors import ConfigError, DatasetError, ImageReadError
from faprompt.files import csv_table, csv_text
from faprompt.imaging import ReadImage, read_image
from faprompt.imaging.reading_options import MAX_PIXELS, ReadingOptions, Window
from faprompt.synthetic.damaged_pictures import ONTO_KINDS, check_design, draw_defect, own_seed
from faprompt.synthetic.drawn_set import claim_folder, slug, write_file, write_png
from faprompt.work import ProgressCallback, logger, no_progress

DEFAULT_SIZES_PX = (4.0, 8.0, 16.0, 32.0, 64.0)
DEFAULT_STRENGTHS = (0.25, 0.5, 1.0)
_HEADER = ("file", "source", "kind", "size_px", "strength")


@dataclass(frozen=True, slots=True)
class DamagedSet:
    """What was written."""

    folder: Path
    n_good: int
    n_drawn: int
    n_unreadable: int  # pictures that were skipped, each with a warning
    notes: tuple[str, ...]  # what the reader did to pictures, each note once


def write_damaged_set(
    folder: str | Path,
    pictures: Sequence[Path],
    *,
    count: int,
    seed: int,
    kinds: Sequence[str] = ONTO_KINDS,
    sizes_px: Sequence[float] = DEFAULT_SIZES_PX,
    strengths: Sequence[float] = DEFAULT_STRENGTHS,
    bit_depth: int | None = None,
    window: Window | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: ProgressCallback = no_progress,
) -> DamagedSet:
    """Draw defects onto pictures and write them with masks in the layout of MVTec AD.

    Every picture is written once as it is, as PNG, below `test/good`. The defects go through
    all kinds, sizes and strengths in a random order, spread evenly over the pictures. Sizes that
    do not fit a picture are replaced by the largest one that does. `drawn.csv`, written last of
    all, has one row for each file: file, source, kind, size_px, strength.

    Args:
        folder: created if it does not exist; it must be empty.
        pictures: files of good pictures. One that cannot be read is skipped with a warning.
        count: number of pictures with a defect; one less for each defect that could not be
            drawn on its picture (a warning says so).
        seed: the same seed and files give the same set.
        kinds, sizes_px, strengths: see `draw_defect`.
        bit_depth, window, max_pixels: see `read_image`.
        progress: called with "copy" or "draw", pictures done and in all, after each picture.

    Raises:
        DatasetError: the folder is not empty or is a file, or no picture could be read.
        ImageReadError: a picture that could be read once cannot be read again.
        ConfigError: a kind, a size or a strength is out of range.
        ValueError, TypeError: `count` is below 1, or as `read_image`.
    """
    check_design(kinds, sizes_px, strengths)
    if count < 1:
        raise ValueError(f"count should be at least 1, got {count}.")
    options = ReadingOptions(bit_depth=bit_depth, window=window, max_pixels=max_pixels)
    root = Path(folder)
    claim_folder(root)
    cells = list(product(kinds, sizes_px, strengths))
    random.Random(f"faprompt-onto-{seed}").shuffle(cells)
    names: Counter[str] = Counter()
    rows: list[tuple[Any, ...]] = []
    notes: dict[str, None] = {}
    readable: list[Path] = []
    for place, path in enumerate(pictures):
        try:
            read = _read(path, options)
        except ImageReadError as error:
            logger.warning("%s", error)
        else:
            readable.append(path)
            notes.update(dict.fromkeys(read.notes))
            file = _write(root, "good", names, read.array)
            rows.append((file, csv_text(str(path)), "good", None, None))
        progress("copy", place + 1, len(pictures))
    if not readable:
        raise DatasetError(
            f"None of {len(pictures)} pictures could be read; name other good pictures."
        )
    done = 0
    for place, path in enumerate(readable[:count]):
        image = _read(path, options).array
        for number in range(place, count, len(readable)):
            kind, size_px, strength = cells[number % len(cells)]
            size_px = min(size_px, _largest_fitting(sizes_px, image))
            own = own_seed(seed, number)
            try:
                drawn = draw_defect(image, kind, size_px=size_px, strength=strength, seed=own)
            except ConfigError as error:
                logger.warning("%s: %s", path, error)
            else:
                file = _write(root, kind, names, drawn.image, drawn.mask)
                rows.append((file, csv_text(str(path)), kind, f"{size_px:g}", f"{strength:g}"))
            done += 1
            progress("draw", done, count)
    write_file(root / "drawn.csv", csv_table([_HEADER, *rows]).encode())
    n_good = len(readable)
    return DamagedSet(root, n_good, len(rows) - n_good, len(pictures) - n_good, tuple(notes))


def _read(path: Path, options: ReadingOptions) -> ReadImage:
    """Read a picture; what is no file is refused, since a pipe would block."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ImageReadError(f"{path}: this is a pipe, a socket or a device, not a file.")
    return read_image(path, **options.arguments())


def _largest_fitting(sizes_px: Sequence[float], image: np.ndarray) -> float:
    """Return the largest size that fits a picture, or the smallest of all where none does."""
    side = min(image.shape[:2])
    return max((size for size in sizes_px if size <= side), default=min(sizes_px))


def _write(
    root: Path, kind: str, names: Counter[str], image: np.ndarray, mask: np.ndarray | None = None
) -> str:
    """Write a picture and its mask under the next number of the kind; return the picture's name."""
    name = f"{names[kind]:04d}"
    names[kind] += 1
    if mask is not None:
        write_png(
            root / "ground_truth" / slug(kind) / f"{name}_mask.png", mask.astype(np.uint8) * 255
        )
    file = f"test/{slug(kind)}/{name}.png"
    write_png(root / file, image)
    return file
