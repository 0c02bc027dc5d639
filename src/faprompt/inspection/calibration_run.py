"""Calibrate a detector on good pictures and write a model folder. Ours."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from faprompt.calibration import (
    ONE_PRODUCT,
    REVIEW_FPR,
    TARGET_FPR,
    Calibration,
    Limits,
    check_rate,
    false_alarm_bound,
    ranks_above,
)
from faprompt.config import Count, Natural, Range, check_fields
from faprompt.detector_setup import setup_changes
from faprompt.errors import ConfigError, ImageReadError
from faprompt.files import natural_key
from faprompt.imaging.reading_options import ReadingOptions
from faprompt.imaging.tiles import TileSetting, check_tiles
from faprompt.inspection.good_pictures import (
    UnusedPictures,
    good_scores,
    picture_parts,
    read_good,
    reference_tokens,
    score_good,
)
from faprompt.picture_detector import PictureDetector
from faprompt.references import REFERENCE_WEIGHT, ReferenceBank, References, farthest_first
from faprompt.work import ProgressCallback, lock_folder, no_progress

_log = logging.getLogger("faprompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions(ReadingOptions):
    """Hold the options of `calibrate`.

    Args:
        target_fpr: share of good parts that may be NG, between 0 and 1; 0.01 needs 99 parts.
        review_fpr: share of good parts that may be NG or REVIEW, between 0 and 1; None takes
            0.05, or `target_fpr` if that is higher.
        references: number of good pictures of each product that are kept as memory; 0 for none.
        reference_weight: weight of the distance to the references in score and map, above 0 and
            at most 1.
        tiles: how pictures are cut: "off", "auto", or the number of tiles along the longer side.
        mask: a mask file for all pictures, or a folder with one for each, under the picture's
            name; pixels brighter than black are left out.
        group: regular expression that finds the part in a picture's absolute path, with "/"
            between folders; "" if each picture is a part.
        by_folder: each subfolder is a product with thresholds of its own.
        batch_size: pictures scored together.
        bit_depth, window, max_pixels: see `ReadingOptions`.

    Raises:
        ConfigError: a rate outside 0..1, a review rate below the target rate, or other `tiles`.
        ValueError: another option is out of range.
    """

    target_fpr: float = TARGET_FPR
    review_fpr: float | None = None
    references: Natural = 0
    reference_weight: Annotated[float, Range(above=0, high=1)] = REFERENCE_WEIGHT
    tiles: TileSetting = "off"
    mask: str | os.PathLike[str] | None = None
    group: str = ""
    by_folder: bool = False
    batch_size: Count = 8

    def __post_init__(self) -> None:
        check_fields(self)
        ReadingOptions.__post_init__(self)
        check_tiles(self.tiles)
        target, review = self.rates
        check_rate("target_fpr", target)
        check_rate("review_fpr", review)
        if review < target:
            raise ConfigError(f"review_fpr={review} should be at least target_fpr={target}.")

    @property
    def rates(self) -> tuple[float, float]:
        """The target rate and the review rate."""
        review = max(REVIEW_FPR, self.target_fpr) if self.review_fpr is None else self.review_fpr
        return self.target_fpr, review


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductReport:
    """Hold what a calibration found for one product.

    Attributes:
        pictures: number of good pictures that calibrate.
        parts: number of independent parts among them; the n of the thresholds.
        limits: the thresholds, 0 to 1.
        bound: 95 % upper bound of the share of good parts that are NG, 0 to 1.
        review_bound: the same for NG and REVIEW together.
        references: paths of the pictures kept as memory.
        suspects: those of them that look defective beside the others.
    """

    pictures: int
    parts: int
    limits: Limits
    bound: float
    review_bound: float
    references: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """Hold the result of `calibrate`.

    Attributes:
        folder: the model folder that was written.
        detector: the calibrated detector.
        products: thresholds and counts by product; the key is "" without products.
        unreadable: path of each picture that could not be used -> reason.
        copies: paths left out because another picture has the same content.
    """

    folder: Path
    detector: PictureDetector
    products: Mapping[str, ProductReport] = field(hash=False)
    unreadable: Mapping[str, str] = field(hash=False)
    copies: tuple[str, ...]

    @property
    def calibration(self) -> Calibration:
        """Return the good scores and the rates."""
        return require_calibrated(self.detector)


def calibrate(
    detector: PictureDetector,
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: CalibrateOptions | None = None,
    *,
    progress: ProgressCallback = no_progress,
    lock: bool = True,
) -> CalibrationReport:
    """Find thresholds from good pictures alone and write a calibrated model folder.

    With references, K pictures of each product become a memory: those that differ most among a
    few drawn at random (`candidate_count`). None of these calibrates, nor any other picture of
    their parts. Copies of a picture count once. A file that cannot be read, or whose mask does
    not fit, is reported.

    Args:
        detector: any detector; an earlier calibration and references of it are replaced.
        paths: good pictures only (see `expand_inputs`).
        out: model folder to write.
        options: see `CalibrateOptions`.
        progress: called with ("choose references" or "calibrate", done, total).
        lock: hold the folder against other runs; False where the caller holds it already.

    Returns:
        The calibrated detector and the thresholds; `detector.setup.calibration` has the scores.

    Raises:
        ConfigError: too few pictures or parts for a rate, with the numbers; a picture that
            belongs to no product or part; references of a method without patch tokens.
        ImageReadError: the mask cannot be read.
        FolderInUseError: another run is writing into `out`.
    """
    asked, folder = options or CalibrateOptions(), Path(out)
    named = list(dict.fromkeys(os.fspath(path) for path in paths))
    base = prepare(detector, asked)
    products = product_folders(named) if asked.by_folder else {ONE_PRODUCT: named}
    for product, files in products.items():
        _check_count(product, _most_left(files, asked), len(files), asked)
    with lock_folder(folder) if lock else nullcontext():
        aside: dict[str, dict[str, str]] = {product: {} for product in products}
        if asked.references:
            base, aside = _with_references(base, products, asked, progress)
        calibration, unused = _calibration(base, products, aside, asked, progress)
        calibrated = base.with_setup(calibration=calibration)
        calibrated.save_pretrained(folder)
    return CalibrationReport(
        folder=folder,
        detector=calibrated,
        products=describe_products(calibration, calibrated.setup.references),
        unreadable=unused.unreadable,
        copies=tuple(unused.copies),
    )


def prepare(detector: PictureDetector, options: CalibrateOptions) -> PictureDetector:
    """Return the detector with tiles, mask, bit depth and window of the options, not calibrated.

    Raises:
        ConfigError: the mask leaves out every pixel.
        ImageReadError: the mask cannot be read.
    """
    plain: dict[str, Any] = dict.fromkeys(("calibration", "references", "mask", "mask_folder"))
    plain |= {"tiles": options.tiles, "bit_depth": options.bit_depth, "window": options.window}
    return detector.with_setup(**plain | setup_changes(None, options.mask))


def product_folders(paths: Sequence[str]) -> dict[str, list[str]]:
    """Return the pictures of each product: the first folder below the one they have in common.

    Pictures that all lie in one folder are of one product, with the name of that folder.

    Raises:
        ConfigError: a picture lies beside the folders of products, or there is no picture.

    Example:
        >>> product_folders(["good/cap/1.png", "good/nut/a/2.png", "good/nut/3.png"])
        {'cap': ['good/cap/1.png'], 'nut': ['good/nut/a/2.png', 'good/nut/3.png']}
    """
    if not paths:
        raise ConfigError("There is no picture to calibrate with; name good pictures.")
    folders = [Path(os.path.abspath(path)).parent for path in paths]
    common = Path(os.path.commonpath(folders))
    if set(folders) == {common}:
        return {common.name: list(paths)}
    found: dict[str, list[str]] = {}
    for path, folder in zip(paths, folders, strict=True):
        if folder == common:
            raise ConfigError(
                f"{path} lies beside the folders of products in {common}; with --by-folder every "
                "picture lies in the folder of its product."
            )
        found.setdefault(folder.relative_to(common).parts[0], []).append(path)
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def _check_count(
    product: str,
    parts: int,
    pictures: int,
    options: CalibrateOptions,
    unused: UnusedPictures | None = None,
) -> None:
    """Refuse fewer parts than the rates need; the error says why they are so few."""
    try:
        for rate in options.rates:
            ranks_above(max(0, parts), rate)
    except ConfigError as error:
        reasons = [str(error)]
        if options.group:
            reasons.append(f"The {pictures} pictures count once for each part they show.")
        if options.references:
            reasons.append(f"{options.references} pictures are set aside as references.")
        if unused and unused.copies:
            reasons.append(f"{len(unused.copies)} pictures are copies of others.")
        if unused and unused.unreadable:
            first = next(iter(unused.unreadable.values()))
            reasons.append(f"{len(unused.unreadable)} pictures cannot be used: {first}")
        raise ConfigError(
            f"{f'Product {product}: ' if product else ''}{' '.join(reasons)}"
        ) from None


def counter(progress: ProgressCallback, stage: str, total: int) -> Callable[[], None]:
    """Return a function that reports one more step of a stage."""
    numbers = count(1)
    return lambda: progress(stage, next(numbers), total)


def candidate_count(pictures: int, options: CalibrateOptions) -> int:
    """Return among how many pictures, drawn at random, the references are chosen.

    They are all set aside. Pictures chosen among all by what they look like would leave others
    behind that are more alike than new pictures are: thresholds would be too low (measured, see
    docs/calibration.md). So there are at most 4 candidates for each reference, as many as the
    rates can spare: thresholds keep their rank from above.

    Example:
        >>> options = CalibrateOptions(references=4)
        >>> [candidate_count(n, options) for n in (103, 104, 150)]
        [4, 5, 11]
    """
    left = pictures - options.references
    if options.group or left < 1:  # how many parts are left is not known here
        return min(pictures, options.references)
    spare = [left + 1 - math.ceil(ranks_above(left, rate) / rate - 1e-9) for rate in options.rates]
    return options.references + min(3 * options.references, *spare)


def _most_left(paths: Sequence[str], options: CalibrateOptions) -> int:
    """Return how many parts can calibrate at most, beside the parts of the references."""
    frames = Counter(picture_parts(paths, options.group))
    return len(frames) - -(-options.references // max(frames.values(), default=1))


def _with_references(
    detector: PictureDetector,
    products: Mapping[str, Sequence[str]],
    options: CalibrateOptions,
    progress: ProgressCallback,
) -> tuple[PictureDetector, dict[str, dict[str, str]]]:
    """Return the detector with references of each product, and what does not calibrate then.

    The latter is product -> SHA-256 of each picture that is set aside -> its path.
    """
    step = counter(progress, "choose references", sum(map(len, products.values())))
    banks, aside = {}, {}
    for product, paths in products.items():
        read = _readable(detector, product, paths, options, step)
        if len(read) < options.references:
            raise ConfigError(
                f"references={options.references} needs as many readable good pictures that "
                f"differ, got {len(read)}{f' of product {product}' if product else ''}."
            )
        different = list(read.values())
        _check_count(product, _most_left(different, options), len(different), options)
        drawn = sorted(read)[: candidate_count(len(read), options)]  # digests are as good as random
        parts = dict(zip(read, picture_parts(different, options.group), strict=True))
        drawn_parts = {parts[digest] for digest in drawn}
        aside[product] = {d: path for d, path in read.items() if parts[d] in drawn_parts}
        chosen = _most_different(detector, product, [read[d] for d in drawn], options)
        banks[product] = ReferenceBank.of(reference_tokens(detector, chosen, options, product))
    return detector.with_setup(references=References(banks, options.reference_weight)), aside


def _readable(
    detector: PictureDetector,
    product: str,
    paths: Sequence[str],
    options: CalibrateOptions,
    step: Callable[[], None],
) -> dict[str, str]:
    """Return SHA-256 -> path of the pictures that can be read, each content once."""
    read: dict[str, str] = {}
    for path, good in read_good(detector, paths, options, product):
        step()
        if isinstance(good, ImageReadError):
            continue  # reported when the others are scored
        with good.picture.files:
            if not read:  # refuses a method without patch tokens early
                detector.reference_tokens(good.picture.windows, good.picture.mask)
        read.setdefault(good.digest, path)
    return read


def _most_different(
    detector: PictureDetector, product: str, paths: Sequence[str], options: CalibrateOptions
) -> list[str]:
    """Return as many of these pictures as there are references, those that differ most."""
    features = []
    for _, good in read_good(detector, paths, options, product):
        if isinstance(good, ImageReadError):
            raise good
        with good.picture.files:
            features.append(detector.image_feature(good.picture.windows, good.picture.mask))
    return [paths[row] for row in farthest_first(np.stack(features), options.references)]


def _calibration(
    detector: PictureDetector,
    products: Mapping[str, Sequence[str]],
    aside: Mapping[str, Mapping[str, str]],
    options: CalibrateOptions,
    progress: ProgressCallback,
) -> tuple[Calibration, UnusedPictures]:
    """Score the pictures that are not set aside, and return what they calibrate."""
    rest = {}
    for product, paths in products.items():
        gone = {*aside[product].values()}
        rest[product] = [path for path in paths if path not in gone]
    step = counter(progress, "calibrate", sum(map(len, rest.values())))
    unused, good, pictures = UnusedPictures(), {}, {}
    for product, paths in rest.items():
        own = UnusedPictures()
        scored = list(
            score_good(
                detector,
                paths,
                options,
                product,
                batch_size=options.batch_size,
                skip=aside[product],
                unused=own,
                step=step,
            )  # fmt: skip
        )
        parts = {*picture_parts([picture.path for picture in scored], options.group)}
        _check_count(product, len(parts), len(scored), options, own)
        good[product] = good_scores(scored, options.group)
        pictures[product] = {os.path.abspath(each.path): each.digest for each in scored}
        unused.unreadable.update(own.unreadable)
        unused.copies.extend(own.copies)
    if unused.copies:
        _log.warning("%d pictures are copies of others and count once", len(unused.copies))
    target, review = options.rates
    return Calibration(
        products=good,
        decided_by=detector.decided_by(),
        target_fpr=target,
        review_fpr=review,
        pictures=pictures,
        group=options.group,
    ), unused


def require_calibrated(detector: PictureDetector) -> Calibration:
    """Return a detector's calibration; ConfigError if it has none."""
    if detector.setup.calibration is None:
        raise ConfigError(f"{detector.name} is not calibrated; run `faprompt calibrate` first.")
    return detector.setup.calibration


def describe_products(
    calibration: Calibration, references: References | None
) -> dict[str, ProductReport]:
    """Return what is known of each product of a calibration."""
    found = {}
    for product, good in calibration.products.items():
        bank = references.bank(product) if references is not None else None
        found[product] = ProductReport(
            pictures=len(calibration.pictures.get(product, {})) or len(good),
            parts=len(good),
            limits=calibration.limits(product),
            bound=false_alarm_bound(len(good), calibration.target_fpr),
            review_bound=false_alarm_bound(len(good), calibration.review_fpr),
            references=bank.names if bank else (),
            suspects=bank.suspects() if bank else (),
        )
    return found
