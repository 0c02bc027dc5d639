"""Calibrate a detector on good pictures, change its rates, and teach it its false alarms. Ours."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from faprompt.calibration import (
    ONE_PRODUCT,
    REVIEW_FPR,
    TARGET_FPR,
    Calibration,
    GoodScores,
    Limits,
    false_alarm_bound,
    highest_by_part,
    parts_of,
    ranks_above,
)
from faprompt.config import Count, Natural, Range, check_fields
from faprompt.detector import Detector
from faprompt.detector_setup import check_mask, setup_changes
from faprompt.errors import ConfigError, ImageReadError
from faprompt.files import file_digest, natural_key
from faprompt.imaging import MAX_PIXELS, ReadImage, read_image
from faprompt.imaging.tiles import TileSetting
from faprompt.references import (
    REFERENCE_WEIGHT,
    ReferenceBank,
    References,
    farthest_first,
)
from faprompt.results import AnomalyResult
from faprompt.work import ProgressCallback, lock_folder, no_progress, read_ahead

_log = logging.getLogger("faprompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """Options of `calibrate`.

    Raises:
        ConfigError, ValueError: an option is out of range.
    """

    target_fpr: float = TARGET_FPR  # rate of NG among good pictures
    review_fpr: float = REVIEW_FPR  # rate of NG and REVIEW among good pictures
    references: Natural = 0  # good pictures kept as memory, of each product; 0 for none
    reference_weight: Annotated[float, Range(above=0, high=1)] = REFERENCE_WEIGHT
    tiles: TileSetting = "off"  # how pictures are cut, see `plan_tiles`
    mask: str | os.PathLike[str] | None = None  # a file for all pictures, or a folder by name
    group: str = ""  # regular expression that finds the part in a path; "" if a picture is a part
    by_folder: bool = False  # each subfolder is a product with thresholds of its own
    batch_size: Count = 8  # pictures scored together
    bit_depth: int | None = None  # bits that 16-bit files really use, see `read_image`
    max_pixels: Count = MAX_PIXELS  # larger pictures are refused

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductReport:
    """What a calibration found for one product."""

    pictures: int  # good pictures that calibrate
    parts: int  # independent parts among them; the number n of the thresholds
    limits: Limits
    bound: float  # 95 % upper bound of the rate of NG among good parts
    review_bound: float  # the same for NG and REVIEW together
    references: tuple[str, ...] = ()  # paths of the pictures kept as memory
    suspects: tuple[str, ...] = ()  # those of them that look defective beside the others

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """Result of `calibrate`."""

    folder: Path
    detector: Detector  # calibrated
    products: Mapping[str, ProductReport]
    unreadable: Mapping[str, str]  # path -> reason
    copies: int  # pictures left out because another one has the same content

    @property
    def calibration(self) -> Calibration:
        """Return the good scores and the rates."""
        return require_calibrated(self.detector)


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """A good picture after it was scored."""

    path: str
    digest: str  # SHA-256 of the file
    score: float
    map_maximum: float


@dataclass(frozen=True, slots=True, eq=False)
class _Good:
    """A good picture in memory."""

    path: str
    digest: str
    image: ReadImage
    mask: np.ndarray | None


def calibrate(
    detector: Detector,
    paths: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: CalibrateOptions | None = None,
    *,
    progress: ProgressCallback = no_progress,
    lock: bool = True,
) -> CalibrationReport:
    """Find thresholds from good pictures alone and write a calibrated model folder.

    With references, K pictures of each product become a memory: those that differ most among a
    few drawn at random (`candidate_count`), none of which calibrates. Copies of a picture count
    once. A file that cannot be read is reported.

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
        ConfigError: too few pictures for a rate, with the numbers; a picture that belongs to
            no product or part; references of a method without patch tokens.
        ImageReadError: the mask cannot be read.
        FolderInUseError: another run is writing into `out`.
    """
    asked, folder = options or CalibrateOptions(), Path(out)
    named = list(dict.fromkeys(os.fspath(path) for path in paths))
    base = prepare(detector, asked)
    products = product_folders(named) if asked.by_folder else {ONE_PRODUCT: named}
    for product, files in products.items():
        _check_count(product, len(files), asked)
    with lock_folder(folder) if lock else nullcontext():
        unreadable: dict[str, str] = {}
        aside: dict[str, str] = {}  # SHA-256 -> path of references and of other candidates
        if asked.references:
            base = _with_references(base, products, asked, aside, unreadable, progress)
        scored, copies = _score_products(base, products, asked, aside, unreadable, progress)
        calibrated = _calibrated(base, scored, asked)
        calibrated.save_pretrained(folder)
    return CalibrationReport(
        folder=folder,
        detector=calibrated,
        products=describe_products(require_calibrated(calibrated), calibrated.setup.references),
        unreadable=unreadable,
        copies=copies,
    )


def prepare(detector: Detector, options: CalibrateOptions) -> Detector:
    """Return the detector with the tiles, mask and bit depth of the options, not calibrated.

    Raises:
        ImageReadError: the mask cannot be read.
    """
    none = {"calibration": None, "references": None, "mask": None, "mask_folder": None}
    mask = setup_changes(None, options.mask)
    return detector.with_setup(
        **none | {"tiles": options.tiles, "bit_depth": options.bit_depth} | mask
    )


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
    folders = [Path(path).absolute().parent for path in paths]
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


def _check_count(product: str, count: int, options: CalibrateOptions) -> None:
    """Refuse too few pictures before they are scored."""
    left = count - options.references
    try:
        for rate in (options.target_fpr, options.review_fpr):
            ranks_above(max(0, left), rate)
    except ConfigError as error:
        aside = f" ({options.references} of {count} are set aside as references)"
        raise ConfigError(
            f"{f'Product {product}: ' if product else ''}{error}"
            f"{aside if options.references else ''}"
        ) from None


def read_good(
    detector: Detector, paths: Sequence[str], options: CalibrateOptions
) -> Iterator[tuple[str, _Good | ImageReadError]]:
    """Read pictures ahead, with their masks; one that cannot be read comes with its error."""

    def read(path: str) -> tuple[str, _Good | ImageReadError]:
        try:
            depth = detector.setup.check_bit_depth(options.bit_depth)
            image = read_image(path, bit_depth=depth, max_pixels=options.max_pixels)
            mask = detector.setup.mask_of(path)
            if mask is not None:
                check_mask(mask, image.image_size, path)
            return path, _Good(path, file_digest(path), image, mask)
        except ImageReadError as error:
            return path, error

    return read_ahead(read, paths, workers=2)


def score_good(
    detector: Detector,
    paths: Sequence[str],
    options: CalibrateOptions,
    product: str,
    *,
    skip: Mapping[str, str],
    unreadable: dict[str, str],
    step: Callable[[], None],
) -> Iterator[tuple[_Good, AnomalyResult]]:
    """Score pictures batch by batch; unreadable ones and those with a digest in `skip` are not.

    `unreadable` gets path -> reason. `step` is called once for each path.
    """
    batch: list[_Good] = []
    seen = dict(skip)

    def score() -> Iterator[tuple[_Good, AnomalyResult]]:
        if batch:
            results = detector.predict_batch(
                [good.image.array for good in batch],
                masks=[good.mask for good in batch],
                products=[product or None] * len(batch),
            )
            yield from zip(batch, results, strict=True)
        batch.clear()

    for path, good in read_good(detector, paths, options):
        step()
        if isinstance(good, ImageReadError):
            unreadable[path] = str(good)
            _log.warning("not used: %s", good)
        elif good.digest not in seen:
            seen[good.digest] = path
            batch.append(good)
        if len(batch) == options.batch_size:
            yield from score()
    yield from score()


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
    spare = [
        left + 1 - math.ceil(ranks_above(left, rate) / rate - 1e-9)
        for rate in (options.target_fpr, options.review_fpr)
    ]
    return options.references + min(3 * options.references, *spare)


def _with_references(
    detector: Detector,
    products: Mapping[str, Sequence[str]],
    options: CalibrateOptions,
    aside: dict[str, str],
    unreadable: dict[str, str],
    progress: ProgressCallback,
) -> Detector:
    """Choose references of each product; `aside` gets digest -> path of what does not calibrate."""
    total, done = sum(map(len, products.values())), 0
    banks = {}
    for product, paths in products.items():
        read: dict[str, str] = {}  # digest -> path
        for path, good in read_good(detector, paths, options):
            done += 1
            progress("choose references", done, total)
            if isinstance(good, ImageReadError):
                unreadable[path] = str(good)
            else:
                read.setdefault(good.digest, path)
        if len(read) < options.references:
            raise ConfigError(
                f"references={options.references} wants as many good pictures, got "
                f"{len(read)} that differ{f' of {product}' if product else ''}."
            )
        _check_count(product, len(read), options)
        drawn = sorted(read)[: candidate_count(len(read), options)]  # digests are as good as random
        chosen = _most_different(detector, [read[digest] for digest in drawn], options)
        aside.update(_with_their_parts(read, drawn, options.group))
        banks[product] = ReferenceBank.of(reference_tokens(detector, chosen, options))
    return detector.with_setup(references=References(banks, options.reference_weight))


def _most_different(
    detector: Detector, paths: Sequence[str], options: CalibrateOptions
) -> list[str]:
    """Return as many of these pictures as there are references, those that differ most."""
    features = []
    for _, good in read_good(detector, paths, options):
        if isinstance(good, ImageReadError):
            raise good
        features.append(detector.image_feature(good.image.array, good.mask))
    return [paths[row] for row in farthest_first(torch.stack(features), options.references)]


def _with_their_parts(read: Mapping[str, str], drawn: Sequence[str], group: str) -> dict[str, str]:
    """Return the drawn digests with their paths, and those of all pictures of the same parts."""
    if not group:
        return {digest: read[digest] for digest in drawn}
    parts = dict(zip(read, parts_of(read.values(), group), strict=True))
    aside = {parts[digest] for digest in drawn}
    return {digest: path for digest, path in read.items() if parts[digest] in aside}


def reference_tokens(
    detector: Detector, paths: Sequence[str], options: CalibrateOptions
) -> dict[str, list[dict[int, torch.Tensor]]]:
    """Return the tokens of references by absolute path; ImageReadError if one is unreadable."""
    found = {}
    for path, good in read_good(detector, paths, options):
        if isinstance(good, ImageReadError):
            raise good
        found[os.path.abspath(path)] = detector.reference_tokens(good.image.array, good.mask)
    return found


def _score_products(
    detector: Detector,
    products: Mapping[str, Sequence[str]],
    options: CalibrateOptions,
    aside: Mapping[str, str],
    unreadable: dict[str, str],
    progress: ProgressCallback,
) -> tuple[dict[str, list[_Scored]], int]:
    """Score the pictures of every product; return them and the number of copies left out."""
    skipped, total, done = set(aside.values()), sum(map(len, products.values())), 0
    total_left = total - len(skipped)

    def step() -> None:
        nonlocal done
        done += 1
        progress("calibrate", done, total_left)

    scored = {}
    for product, paths in products.items():
        rest = [path for path in paths if path not in skipped]
        scored[product] = [
            _Scored(good.path, good.digest, result.score, float(result.score_map.max()))
            for good, result in score_good(
                detector, rest, options, product, skip=aside, unreadable=unreadable, step=step
            )
        ]
    used = sum(map(len, scored.values())) + len(aside)
    copies = total - used - len(unreadable)
    if copies:
        _log.warning("%d pictures are copies of others and count once", copies)
    return scored, copies


def _calibrated(
    detector: Detector, scored: Mapping[str, Sequence[_Scored]], options: CalibrateOptions
) -> Detector:
    products = {}
    for product, pictures in scored.items():
        _check_count(product, len(pictures) + options.references, options)
        products[product] = good_scores(
            [picture.path for picture in pictures],
            [picture.score for picture in pictures],
            [picture.map_maximum for picture in pictures],
            options.group,
        )
    calibration = Calibration(
        products=products,
        decided_by=detector.decided_by(),
        target_fpr=options.target_fpr,
        review_fpr=options.review_fpr,
        pictures={
            product: {os.path.abspath(picture.path): picture.digest for picture in pictures}
            for product, pictures in scored.items()
        },
        group=options.group,
    )
    return detector.with_setup(calibration=calibration)


def good_scores(
    paths: Sequence[str], scores: Sequence[float], map_maxima: Sequence[float], group: str
) -> GoodScores:
    """Return the scores of good pictures; those of one part, by `group`, count once."""
    values, maxima = np.array(scores), np.array(map_maxima)
    if group:
        parts = parts_of(paths, group)
        values, maxima = highest_by_part(parts, values), highest_by_part(parts, maxima)
    return GoodScores(values, maxima)


def require_calibrated(detector: Detector) -> Calibration:
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
