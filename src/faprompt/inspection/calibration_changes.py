"""Change a calibrated model folder: other rates, today's false alarms, and back again. Ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.calibration import (
    CALIBRATION,
    Calibration,
    GoodScores,
    read_calibration,
    save_calibration,
)
from faprompt.detector import Detector
from faprompt.detector_setup import MASK
from faprompt.errors import ConfigError, ImageReadError, ModelError
from faprompt.files import file_digest
from faprompt.inspection.calibration_run import (
    CalibrateOptions,
    ProductReport,
    describe_products,
    good_scores,
    reference_tokens,
    require_calibrated,
    score_good,
)
from faprompt.references import REFERENCES
from faprompt.results import AnomalyResult
from faprompt.work import ProgressCallback, no_progress

EARLIER = "earlier-calibrations"
_FILES = (CALIBRATION, REFERENCES, MASK)
_SHOWN = 5  # names in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarmReport:
    """What changed when false alarms were added."""

    added: tuple[str, ...]
    as_references: bool  # whether they became references; else their scores calibrate
    verdicts: Mapping[str, tuple[str, str]]  # path of an added picture -> verdict before, after
    before: Mapping[str, ProductReport]
    after: Mapping[str, ProductReport]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "added": list(self.added),
            "as_references": self.as_references,
            "verdicts": {path: list(pair) for path, pair in self.verdicts.items()},
            "before": {name: report.to_dict() for name, report in self.before.items()},
            "after": {name: report.to_dict() for name, report in self.after.items()},
        }


def change_rates(
    folder: Path, *, target_fpr: float | None = None, review_fpr: float | None = None
) -> Calibration:
    """Change the rates of a calibrated model folder, without any picture.

    Raises:
        ConfigError: a rate that its good pictures cannot state.
        ModelError: the folder is not calibrated.
    """
    changed = require_calibration(folder).with_rates(target_fpr=target_fpr, review_fpr=review_fpr)
    save_calibration(changed, folder)
    return changed


def require_calibration(folder: Path) -> Calibration:
    """Return a model folder's calibration; ModelError if it has none."""
    found = read_calibration(folder)
    if found is None:
        raise ModelError(
            f"{folder} is not calibrated; run `faprompt calibrate GOOD --out DIR` with good "
            "pictures first."
        )
    return found


def add_false_alarms(
    detector: Detector,
    folder: Path,
    paths: Sequence[str],
    options: CalibrateOptions,
    *,
    product: str | None = None,
    progress: ProgressCallback = no_progress,
) -> FalseAlarmReport:
    """Teach a calibrated model good pictures that it called NG or REVIEW.

    A model with references keeps them as further references, and all good pictures of the
    calibration are scored again, from where they were then. Any other model takes their scores
    into the calibration. They were chosen for their high scores, so the thresholds become
    cautious then: fewer good pictures are NG than stated. The state before is kept in
    `earlier-calibrations`; see `undo_false_alarms`.

    Args:
        detector: loaded from `folder`.
        folder: the calibrated model folder, changed in place.
        paths: the false alarms, all of one product.
        options: `batch_size`, `max_pixels` and `mask` (a folder of masks) count.
        product: of the pictures; default: from their folders.
        progress: called with ("calibrate", done, total).

    Raises:
        ConfigError: no such product, or a picture that calibrates already.
        ImageReadError: a false alarm, or a good picture of the calibration, cannot be read or
            has changed since.
        ModelError: the folder is not calibrated.
    """
    calibration = detector.setup.calibration
    if calibration is None:
        require_calibration(folder)
        raise ModelError(f"{detector.name} was not loaded from {folder}.")
    if product is None and paths:
        product = calibration.product_of(paths[0])
    owner = calibration.check_product(product)
    digests = _digests(paths, calibration)
    verdicts = [result.verdict or "" for result in _results(detector, paths, options, owner)]
    before = describe_products(calibration, detector.setup.references)
    if detector.setup.references is not None:
        changed = _with_more_references(detector, paths, options, owner, progress)
    else:
        changed = _with_more_scores(detector, paths, digests, options, owner)
    now = [result.verdict or "" for result in _results(changed, paths, options, owner)]
    _keep(folder)
    changed.save_pretrained(folder)
    return FalseAlarmReport(
        added=tuple(paths),
        as_references=detector.setup.references is not None,
        verdicts=dict(zip(paths, zip(verdicts, now, strict=True), strict=True)),
        before=before,
        after=describe_products(require_calibrated(changed), changed.setup.references),
    )


def undo_false_alarms(folder: Path) -> Calibration:
    """Restore the calibration before the last false alarms; ModelError if there is none."""
    kept = sorted((folder / EARLIER).glob("*"), key=lambda path: int(path.name))
    if not kept:
        raise ModelError(f"{folder} has no earlier calibration to go back to.")
    (folder / CALIBRATION).unlink(missing_ok=True)
    for name in reversed(_FILES):  # the calibration last: it never stands beside other files
        (folder / name).unlink(missing_ok=True)
        if (kept[-1] / name).is_file():
            os.replace(kept[-1] / name, folder / name)
    shutil.rmtree(kept[-1] if len(kept) > 1 else folder / EARLIER)
    return require_calibration(folder)


def _keep(folder: Path) -> None:
    """Copy the files of the present calibration into the next numbered folder."""
    numbers = [int(path.name) for path in (folder / EARLIER).glob("*")]
    place = folder / EARLIER / str(max(numbers, default=0) + 1)
    place.mkdir(parents=True)
    for name in _FILES:
        if (folder / name).is_file():
            shutil.copy2(folder / name, place / name)


def _digests(paths: Sequence[str], calibration: Calibration) -> dict[str, str]:
    """Return the digest of each false alarm; refuse pictures that calibrate, and none at all."""
    if not paths:
        raise ConfigError("There is no picture to add; name the false alarms.")
    used = {digest for each in calibration.pictures.values() for digest in each.values()}
    found = {path: file_digest(path) for path in paths}
    twice = [path for path, digest in found.items() if digest in used]
    if twice:
        raise ConfigError(
            f"{', '.join(twice[:_SHOWN])} ({len(twice)} in all) are among the pictures of the "
            "calibration. References never calibrate, and no picture counts twice; leave them out."
        )
    return found


def _results(
    detector: Detector, paths: Iterable[str], options: CalibrateOptions, product: str
) -> list[AnomalyResult]:
    return list(
        detector.stream(
            paths,
            batch_size=options.batch_size,
            max_pixels=options.max_pixels,
            product=product or None,
        )
    )


def _with_more_references(
    detector: Detector,
    paths: Sequence[str],
    options: CalibrateOptions,
    product: str,
    progress: ProgressCallback,
) -> Detector:
    calibration, references = detector.setup.calibration, detector.setup.references
    assert calibration is not None and references is not None
    more = reference_tokens(detector, paths, options)
    banks = {**references.banks, product: references.bank(product).extended(more)}
    changed = detector.with_setup(calibration=None, references=replace(references, banks=banks))
    pictures = calibration.pictures.get(product, {})
    _check_unchanged(pictures)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("calibrate", done, len(pictures))

    unreadable: dict[str, str] = {}
    scored = list(
        score_good(
            changed, list(pictures), options, product, skip={}, unreadable=unreadable, step=step
        )
    )
    if unreadable:
        raise ImageReadError(next(iter(unreadable.values())))
    good = good_scores(
        [path.path for path, _ in scored],
        [result.score for _, result in scored],
        [float(result.score_map.max()) for _, result in scored],
        calibration.group,
    )
    return changed.with_setup(
        calibration=replace(
            calibration,
            products={**calibration.products, product: good},
            decided_by=changed.decided_by(),
        )
    )


def _check_unchanged(pictures: Mapping[str, str]) -> None:
    """Refuse good pictures that are gone, or whose content changed."""
    absent = [path for path in pictures if not os.path.isfile(path)]
    there = [path for path in pictures if path not in absent]
    changed = [path for path in there if file_digest(path) != pictures[path]]
    for what, found in (("gone", absent), ("changed", changed)):
        if found:
            raise ImageReadError(
                f"{len(found)} good pictures of the calibration are {what} "
                f"({', '.join(found[:_SHOWN])}). With references all of them are scored again: "
                "put them back, or calibrate again."
            )


def _with_more_scores(
    detector: Detector,
    paths: Sequence[str],
    digests: Mapping[str, str],
    options: CalibrateOptions,
    product: str,
) -> Detector:
    calibration = detector.setup.calibration
    assert calibration is not None
    results = _results(detector, paths, options, product)
    good = good_scores(
        paths,
        [result.score for result in results],
        [float(result.score_map.max()) for result in results],
        calibration.group,
    )
    old = calibration.products[product]
    joined = GoodScores(
        np.concatenate([old.scores, good.scores]), np.concatenate([old.map_maxima, good.map_maxima])
    )
    added = {os.path.abspath(path): digest for path, digest in digests.items()}
    pictures = {**calibration.pictures.get(product, {}), **added}
    return detector.with_setup(
        calibration=replace(
            calibration,
            products={**calibration.products, product: joined},
            pictures={**calibration.pictures, product: pictures},
        )
    )
