"""How often a calibrated detector is right: false-alarm and detection rates. Ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faprompt.calibration import Calibration, parts_of
from faprompt.detector_setup import DetectorSetup
from faprompt.errors import ConfigError
from faprompt.evaluation.sample_scoring import product_of
from faprompt.evaluation.saved_progress import ImageScore
from faprompt.metrics.share_interval import Proportion


@dataclass(frozen=True, slots=True)
class LabelRates:
    """Verdicts on the pictures of one label; both shares are None where there is none."""

    total: int
    ng: Proportion | None = None
    ng_or_review: Proportion | None = None

    @classmethod
    def of(cls, verdicts: Sequence[str]) -> LabelRates:
        """Count verdicts."""
        if not verdicts:
            return cls(0)
        ng, both = ([v in asked for v in verdicts] for asked in (("NG",), ("NG", "REVIEW")))
        return cls(len(verdicts), Proportion.of(ng), Proportion.of(both))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; shares of no picture are absent."""
        shares = {"ng": self.ng, "ng_or_review": self.ng_or_review}
        known = {
            name: {"count": one.count, "share": one.share, "interval": [one.low, one.high]}
            for name, one in shares.items()
            if one is not None
        }
        return {"total": self.total, **known}


@dataclass(frozen=True, slots=True)
class GroupRates:
    """Rates of one class: false alarms of its normal pictures, detection of anomalous ones."""

    normal: LabelRates
    anomalous: LabelRates

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"normal": self.normal.to_dict(), "anomalous": self.anomalous.to_dict()}


@dataclass(frozen=True, slots=True)
class VerdictRates:
    """Rates of every class, and of all pictures together, at the calibrated thresholds."""

    target_fpr: float  # stated rate of NG among good parts
    review_fpr: float  # stated rate of NG and REVIEW together
    counted: str  # "pictures", or "parts" if the calibration counts the pictures of a part once
    classes: Mapping[str, GroupRates]  # by metric group
    all: GroupRates
    own_pictures: int = 0  # normal pictures that the calibration or the references were made of

    def to_dict(self) -> dict[str, Any]:
        """Return the content of "verdicts" in `metrics.json`."""
        return {
            "target_fpr": self.target_fpr,
            "review_fpr": self.review_fpr,
            "counted": self.counted,
            "classes": {name: rates.to_dict() for name, rates in self.classes.items()},
            "all": self.all.to_dict(),
            "own_pictures": self.own_pictures,
        }


@dataclass(slots=True)
class _Unit:
    """A picture, or a part with the highest score of its pictures."""

    label: int
    product: str | None
    score: float
    groups: dict[str, None] = field(default_factory=dict)


def verdict_rates(
    setup: DetectorSetup,
    images: Sequence[ImageScore],
    product: str | None = None,
    *,
    references: Container[str] = (),
) -> VerdictRates | None:
    """Return the rates at the thresholds of a setup's calibration; None if it has none.

    Where the calibration counts parts (`group`), the normal pictures of a part count once, with
    their highest score, and so do its anomalous ones. If the expression finds no part in these
    paths, pictures are counted. `references` are absolute paths, see `reference_paths`.
    """
    calibration = setup.calibration
    if calibration is None:
        return None
    scored = [image for image in images if image.score is not None]
    parts = _parts(calibration, scored)
    units: dict[tuple[int, str | None, str], _Unit] = {}
    for number, image in enumerate(scored):
        owner = product_of(setup, image.sample, product)
        key = image.sample.label, owner, parts[number] if parts else str(number)
        unit = units.setdefault(key, _Unit(image.sample.label, owner, float("-inf")))
        unit.score = max(unit.score, float(image.score or 0.0))
        unit.groups |= dict.fromkeys(image.groups)
    verdicts = [
        (unit, calibration.limits(unit.product).verdict(unit.score)) for unit in units.values()
    ]
    names = dict.fromkeys(name for image in scored for name in image.groups)
    return VerdictRates(
        target_fpr=calibration.target_fpr,
        review_fpr=calibration.review_fpr,
        counted="parts" if parts else "pictures",
        classes={name: _rates((u, v) for u, v in verdicts if name in u.groups) for name in names},
        all=_rates(verdicts),
        own_pictures=sum(map(_is_own(calibration, references), scored)),
    )


def _parts(calibration: Calibration, images: Sequence[ImageScore]) -> list[str]:
    """Return the part of each picture; [] where pictures are counted."""
    try:
        paths = [image.sample.image_path for image in images]
        return parts_of(paths, calibration.group) if calibration.group else []
    except ConfigError:
        return []


def _rates(verdicts: Iterable[tuple[_Unit, str]]) -> GroupRates:
    by_label: tuple[list[str], list[str]] = ([], [])
    for unit, verdict in verdicts:
        by_label[unit.label].append(verdict)
    return GroupRates(*map(LabelRates.of, by_label))


def reference_paths(setup: DetectorSetup) -> frozenset[str]:
    """Return the absolute paths of the pictures that are a setup's references."""
    banks = setup.references.banks.values() if setup.references else ()
    return frozenset(name for bank in banks for name in bank.names)


def _is_own(calibration: Calibration, references: Container[str]) -> Callable[[ImageScore], bool]:
    """Return whether a normal picture calibrated the detector, or is one of its references."""
    digests = {digest for each in calibration.pictures.values() for digest in each.values()} - {""}

    def is_own(image: ImageScore) -> bool:
        path = os.path.abspath(image.sample.image_path)
        return not image.sample.label and (image.digests[0] in digests or path in references)

    return is_own


def own_picture_remarks(rates: VerdictRates | None) -> tuple[str, ...]:
    """Return the warning that good pictures of the calibration were measured, if some were."""
    if rates is None or not rates.own_pictures:
        return ()
    return (
        f"{rates.own_pictures} of the normal pictures calibrated the model or are its references: "
        "false-alarm rates and AUROC look better than they are. Measure on other pictures",
    )


def verdict_lines(rates: VerdictRates) -> list[str]:
    """Return the rates as lines of a Markdown table, after a line in words."""
    stated = f"{100 * rates.target_fpr:g} % NG, {100 * rates.review_fpr:g} % NG or REVIEW"
    lines = [
        f"Verdicts at the calibrated thresholds, percent of {rates.counted}. Stated false-alarm "
        f"rates: {stated}, on average over calibrations. In brackets: exact 95 % intervals.",
        "",
        "| class | normal | false alarms: NG | NG or REVIEW | anomalous | detected: NG "
        "| NG or REVIEW |",
        "|---|" + "---:|" * 6,
    ]
    rows = dict(rates.classes)
    if len(rows) > 1:
        rows["**all**"] = rates.all
    for name, row in rows.items():
        cells = [cell for label in (row.normal, row.anomalous) for cell in _label_cells(label)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _label_cells(rates: LabelRates) -> list[str]:
    cells = [str(rates.total)]
    for share in (rates.ng, rates.ng_or_review):
        if share is None:
            cells.append("-")
            continue
        low, high = share.low, share.high
        cells.append(f"{100 * share.share:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    return cells
