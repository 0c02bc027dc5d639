"""Hold good pictures out of a calibration, and rehearse a calibrated detector on files. Ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from faprompt.calibration import pictures_needed
from faprompt.errors import ConfigError, ImageReadError
from faprompt.files import file_digest
from faprompt.imaging import read_image
from faprompt.inspection.calibration_run import (
    CalibrateOptions,
    product_folders,
    require_calibrated,
)
from faprompt.inspection.good_pictures import picture_parts, read_good, reference_digests
from faprompt.inspection.rehearsal import Rehearsal, RehearsalOptions, rehearse
from faprompt.inspection.rehearsal_figure import FIGURE, write_rehearsal_figure
from faprompt.inspection.rehearsal_report import write_rehearsal
from faprompt.picture_detector import PictureDetector
from faprompt.work import ProgressCallback, can_draw, logger, no_progress

LEAST_HELD, MOST_HELD = 4, 20  # good pictures of each product that are drawn on
_SHOWN = 5  # names in a message


def hold_out(paths: Sequence[str], options: CalibrateOptions) -> tuple[list[str], list[str]]:
    """Return the good pictures that calibrate, and those held out for a rehearsal.

    Of each product, up to 20 pictures are held out, evenly spread over the paths: as many as
    the rates leave, and at least 4. With a group, a part is held out whole and one of its
    pictures is drawn on. Copies of what is held out do not calibrate either.

    Raises:
        ConfigError: too few pictures for that and for the rates, with the numbers.
    """
    named = list(dict.fromkeys(paths))
    products = product_folders(named) if options.by_folder else {"": named}
    calibrating: list[str] = []
    held: list[str] = []
    for product, files in products.items():
        digests = {path: _digest(path) for path in files}
        part_of = dict(zip(files, picture_parts(files, options.group), strict=True))
        distinct: dict[str, str] = {}  # digest -> first path
        for path, digest in digests.items():
            distinct.setdefault(digest, path)
        first: dict[str, str] = {}  # part -> its first path
        for path in distinct.values():
            first.setdefault(part_of[path], path)
        chosen = _spread(list(first), _held_count(product, len(first), options))
        held += [first[part] for part in chosen]
        out = {digests[path] for path in files if part_of[path] in chosen}
        calibrating += [path for path in files if digests[path] not in out]
    return calibrating, held


def _held_count(product: str, count: int, options: CalibrateOptions) -> int:
    """Return how many of the pictures or parts of a product are held out."""
    needed = pictures_needed(options.target_fpr) + options.references
    if count >= needed + LEAST_HELD:
        return min(MOST_HELD, count - needed)
    what = "parts" if options.group else "pictures"
    rest = f" and {options.references} references" if options.references else ""
    raise ConfigError(
        f"{f'Product {product}: ' if product else ''}--rehearse holds out at least {LEAST_HELD} "
        f"good {what}, which do not calibrate. A false-alarm rate of "
        f"{100 * options.target_fpr:.6g} % needs {needed - options.references} others{rest}: "
        f"{needed + LEAST_HELD} in all, got {count} that differ. Add pictures, ask for a higher "
        "rate, or rehearse on other good pictures later: calibrate --model DIR --rehearse GOOD."
    )


def _spread(items: list[str], count: int) -> list[str]:
    """Return so many items, at even distances."""
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def _digest(path: str) -> str:
    """Return the digest of a file, or its path if it cannot be read."""
    try:
        return file_digest(path)
    except OSError:
        return path


def rehearse_files(
    detector: PictureDetector,
    paths: Sequence[str],
    folder: Path,
    options: CalibrateOptions,
    rehearsal: RehearsalOptions | None = None,
    *,
    product: str | None = None,
    progress: ProgressCallback = no_progress,
) -> list[Rehearsal]:
    """Rehearse a calibrated detector on good pictures, each product by its own.

    Writes `rehearsal.csv`, `rehearsal.json` and, where matplotlib is installed, `rehearsal.png`.
    Up to 20 pictures of each product are used, evenly spread. One that cannot be read is left
    out with a warning.

    Args:
        detector: calibrated.
        paths: good pictures that did not calibrate; nothing is done and written without any.
        folder: exists; the files are written here.
        options: `max_pixels` counts.
        rehearsal: what is drawn.
        product: of all pictures; default: from their folders.
        progress: called with ("rehearse" and the product, pictures scored, pictures in all).

    Raises:
        ConfigError: the detector is not calibrated, no such product, or pictures of the
            calibration or the references among them; or none can be read.
    """
    calibration = require_calibrated(detector)
    if not paths:
        return []
    _refuse_used(detector, paths)
    by_product: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        owner = calibration.check_product(product or calibration.product_of(path))
        by_product.setdefault(owner, []).append(path)
    done = []
    for owner, files in by_product.items():
        some = _readable(detector, _spread(files, min(len(files), MOST_HELD)), options, owner)

        def show(stage: str, scored: int, total: int, owner: str = owner) -> None:
            progress(f"{stage} {owner}".rstrip(), scored, total)

        done.append(
            rehearse(
                detector,
                _Images(detector, some, options),
                rehearsal,
                masks=[detector.setup.mask_of(path) for path in some],
                product=owner or None,
                progress=show,
            )
        )
    about = {"model": detector.name, "fingerprint": calibration.fingerprint}
    write_rehearsal(folder, done, about)
    if can_draw(FIGURE):
        write_rehearsal_figure(folder / FIGURE, done)
    return done


def _refuse_used(detector: PictureDetector, paths: Sequence[str]) -> None:
    """Refuse pictures that made the thresholds or the memory, by content."""
    calibration = require_calibrated(detector)
    used = {digest for each in calibration.pictures.values() for digest in each.values()}
    for product in calibration.products:
        used |= reference_digests(detector.setup.references, product)
    found = [path for path in paths if _digest(path) in used]
    if found:
        raise ConfigError(
            f"{', '.join(found[:_SHOWN])} ({len(found)} in all) are among the pictures of the "
            "calibration or its references. The model knows them, so a rehearsal on them would "
            "promise too much; name other good pictures."
        )


def _readable(
    detector: PictureDetector, paths: Sequence[str], options: CalibrateOptions, product: str
) -> list[str]:
    """Return the pictures that can be read; warn of the others."""
    found = []
    for path, good in read_good(detector, paths, options, product):
        if isinstance(good, ImageReadError):
            logger.warning("not used: %s", good)
        else:
            good.picture.close()
            found.append(path)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Images(Sequence[np.ndarray]):
    """Pictures of files, read when they are indexed."""

    detector: PictureDetector
    paths: Sequence[str]
    options: CalibrateOptions

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, place: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, place: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(place, slice):
            return _Images(self.detector, self.paths[place], self.options)
        how = self.detector.setup.reading(self.options).arguments()
        return read_image(self.paths[place], **how).array
