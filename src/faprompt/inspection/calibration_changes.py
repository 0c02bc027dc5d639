"""Change a calibrated model folder: other rates, today's false alarms, and back again. Ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from faprompt.detector_setup import EARLIER, SETUP_FILES, setup_changes, write_setup
from faprompt.errors import ConfigError, ImageReadError, ModelError
from faprompt.files import file_digest, replace_file, temporary_name, write_atomically
from faprompt.inspection.calibration_run import (
    CalibrateOptions,
    ProductReport,
    counter,
    describe_products,
    require_calibrated,
)
from faprompt.inspection.good_pictures import (
    ScoredPicture,
    UnusedPictures,
    good_scores,
    picture_parts,
    reference_digests,
    reference_tokens,
    score_good,
)
from faprompt.picture_detector import PictureDetector
from faprompt.references import References
from faprompt.work import ProgressCallback, no_progress

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
        return asdict(self)


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
    detector: PictureDetector,
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
        paths: the false alarms, all of one product; copies of a picture count once.
        options: `mask` (the folder of masks, if the calibration had one), `batch_size`,
            `bit_depth`, `window` and `max_pixels` count; the calibration fixes the others.
        product: of the pictures; default: from their folders.
        progress: called with ("calibrate", done, total).

    Raises:
        ConfigError: no such product, or several; a picture that calibrates or is a reference
            already, or that shows a part of which another picture does.
        ImageReadError: a false alarm, or a good picture of the calibration, cannot be read or
            has changed since.
        ModelError: the folder is not calibrated, or in another way than the detector; another
            mask than the calibrated one.
    """
    calibration = require_calibration(folder)
    own = detector.setup.calibration
    if own is None or own.fingerprint != calibration.fingerprint:
        raise ModelError(f"{detector.name} is not the calibrated model of {folder}; load it first.")
    masks = setup_changes(None, options.mask)
    detector = detector.with_setup(calibration=calibration, **masks)  # rates may have changed
    owner = _owner(calibration, paths, product)
    alarms = _score_all(detector, paths, options, owner)
    references = detector.setup.references
    _refuse_known(alarms, calibration, references, owner)
    if references is None:
        changed = _with_more_scores(detector, alarms, owner)
    else:
        changed = _with_more_references(detector, alarms, options, owner, progress)
    added = [alarm.path for alarm in alarms]
    now = _score_all(changed, added, options, owner)
    _keep(folder)
    write_setup(changed.setup, folder)
    return FalseAlarmReport(
        added=tuple(added),
        as_references=references is not None,
        verdicts={
            alarm.path: (alarm.verdict or "", after.verdict or "")
            for alarm, after in zip(alarms, now, strict=True)
        },
        before=describe_products(calibration, references),
        after=describe_products(require_calibrated(changed), changed.setup.references),
    )


def undo_false_alarms(folder: Path) -> Calibration:
    """Restore the files of a model folder as they were before the last `add_false_alarms`.

    Raises:
        ModelError: there is no earlier state.
    """
    kept = _kept_states(folder)
    if not kept:
        raise ModelError(f"{folder} has no earlier calibration to go back to.")
    (folder / CALIBRATION).unlink(missing_ok=True)  # never beside files of another calibration
    for name in sorted(SETUP_FILES, key=CALIBRATION.__eq__):  # it comes last
        if (kept[-1] / name).is_file():
            write_atomically(folder / name, (kept[-1] / name).read_bytes())
        else:
            (folder / name).unlink(missing_ok=True)
    done = temporary_name(kept[-1])
    replace_file(kept[-1], done)  # at once, so that a state is never half there
    shutil.rmtree(done)
    if len(kept) == 1:
        shutil.rmtree(folder / EARLIER)
    return require_calibration(folder)


def _kept_states(folder: Path) -> list[Path]:
    """Return the folders of earlier states, the oldest first."""
    found = [path for path in (folder / EARLIER).glob("*") if path.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name))


def _keep(folder: Path) -> None:
    """Copy the files of the present calibration into the next numbered folder."""
    kept = _kept_states(folder)
    place = folder / EARLIER / str(int(kept[-1].name) + 1 if kept else 1)
    copy = temporary_name(place)
    copy.mkdir(parents=True, exist_ok=True)
    for name in SETUP_FILES:
        if (folder / name).is_file():
            shutil.copy2(folder / name, copy / name)
    replace_file(copy, place)


def _owner(calibration: Calibration, paths: Sequence[str], product: str | None) -> str:
    """Return the product of the false alarms; ConfigError for none, several or an unknown one."""
    if not paths:
        raise ConfigError("There is no picture to add; name the false alarms.")
    if product is not None:
        return calibration.check_product(product)
    found = {calibration.check_product(calibration.product_of(path)) for path in paths}
    if len(found) > 1:
        raise ConfigError(
            f"The false alarms are of several products ({', '.join(sorted(found))}); add those of "
            "one product at a time."
        )
    return found.pop()


def _score_all(
    detector: PictureDetector,
    paths: Sequence[str],
    options: CalibrateOptions,
    product: str,
    step: Callable[[], None] = lambda: None,
) -> list[ScoredPicture]:
    """Score pictures, copies once; ImageReadError if one cannot be read."""
    unused = UnusedPictures()
    scored = list(
        score_good(
            detector,
            paths,
            options,
            product,
            batch_size=options.batch_size,
            unused=unused,
            step=step,
        )
    )
    if unused.unreadable:
        raise ImageReadError(next(iter(unused.unreadable.values())))
    return scored


def _refuse_known(
    alarms: Sequence[ScoredPicture],
    calibration: Calibration,
    references: References | None,
    product: str,
) -> None:
    """Refuse pictures, and parts, that the calibration or the references have already."""
    calibrating = {d for pictures in calibration.pictures.values() for d in pictures.values()}
    own = [*calibration.pictures.get(product, {})]
    if references is not None:
        own += references.bank(product).names
    parts = {*picture_parts(own, calibration.group)}
    names = [alarm.path for alarm in alarms]
    known = reference_digests(references, product)
    for what, found in (
        ("calibrate already", [a.path for a in alarms if a.digest in calibrating]),
        ("are references already", [a.path for a in alarms if a.digest in known]),
        (
            "show parts that are in the calibration already",
            [
                path
                for path, part in zip(names, picture_parts(names, calibration.group), strict=True)
                if part in parts
            ],
        ),
    ):
        if found:
            raise ConfigError(
                f"{len(found)} of the false alarms {what} ({', '.join(found[:_SHOWN])}). "
                "References never calibrate, and no picture or part counts twice; leave them out."
            )


def _with_more_references(
    detector: PictureDetector,
    alarms: Sequence[ScoredPicture],
    options: CalibrateOptions,
    product: str,
    progress: ProgressCallback,
) -> PictureDetector:
    calibration, references = require_calibrated(detector), detector.setup.references
    assert references is not None
    pictures = calibration.pictures.get(product, {})
    _check_unchanged(pictures)
    bare = detector.with_setup(calibration=None, references=None)
    more = reference_tokens(bare, [alarm.path for alarm in alarms], options, product)
    banks = {**references.banks, product: references.bank(product).extended(more)}
    changed = bare.with_setup(references=replace(references, banks=banks))
    step = counter(progress, "calibrate", len(pictures))
    scored = _score_all(changed, [*pictures], options, product, step)
    good = good_scores(scored, calibration.group)
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
    detector: PictureDetector, alarms: Sequence[ScoredPicture], product: str
) -> PictureDetector:
    calibration = require_calibrated(detector)
    old, more = calibration.products[product], good_scores(alarms, calibration.group)
    good = GoodScores(
        np.concatenate([old.scores, more.scores]), np.concatenate([old.map_maxima, more.map_maxima])
    )
    added = {os.path.abspath(alarm.path): alarm.digest for alarm in alarms}
    pictures = {**calibration.pictures.get(product, {}), **added}
    return detector.with_setup(
        calibration=replace(
            calibration,
            products={**calibration.products, product: good},
            pictures={**calibration.pictures, product: pictures},
        )
    )
