"""Rehearse a calibrated detector: count which drawn defects it finds on good pictures.

Defects are drawn onto good pictures that did not calibrate, and the pictures are scored at the
calibrated thresholds. Every kind, size and strength is drawn onto the same pictures with the same
seeds, so that they can be compared with one another and with the undrawn pictures. Ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from itertools import product as all_of
from typing import Any, Protocol

import numpy as np

from faprompt.calibration import Calibration
from faprompt.config import Count, check_fields
from faprompt.detector_setup import DetectorSetup
from faprompt.errors import ConfigError
from faprompt.metrics.share_interval import Proportion
from faprompt.results import AnomalyResult
from faprompt.synthetic import ONTO_KINDS, DrawnDefect, draw_defects
from faprompt.synthetic.damaged_pictures import LEAST_DEFECT_PX, check_design, own_seed
from faprompt.work import ProgressCallback, no_progress, read_ahead

WARNING = (
    "Drawn defects are not real ones. The numbers compare kinds and sizes on your pictures; they "
    "do not promise that real defects of that size are found."
)
FAINT_NOTE = (
    "Below strength 0.5 a defect on a rough surface is often invisible to people too: a low number "
    "says little there."
)
HALF, NEARLY_ALL = 0.5, 0.9  # shares whose sizes are reported
FAINT = 0.5  # strengths below it get the note above
_SIZES = 5  # chosen by the size of the pictures
_MOST_SHARE = 1 / 3  # largest of them, of the shorter side
_GIVE_UP = 3  # failures of a kind and size after which it is not tried on further pictures


class Judge(Protocol):
    """A calibrated detector."""

    @property
    def setup(self) -> DetectorSetup:
        """Settings, among them the calibration."""

    def predict_batch(
        self,
        images: Sequence[np.ndarray],
        *,
        masks: Sequence[np.ndarray | None] | None = None,
        products: Sequence[str | None] | None = None,
    ) -> list[AnomalyResult]:
        """Score decoded pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalOptions:
    """Options of `rehearse`.

    Raises:
        ConfigError: a kind, size or strength that cannot be drawn (see `draw_defect`).
        ValueError: a value that is given twice, or a count below 1.
    """

    kinds: tuple[str, ...] = ONTO_KINDS
    sizes_px: tuple[float, ...] = ()  # longest extents in pixels of the pictures; (): `fit_sizes`
    strengths: tuple[float, ...] = (0.5, 1.0)  # shares of the full contrast of a kind
    per_cell: Count = 20  # draws of each kind, size and strength, one on each picture in turn
    seed: int = 111  # the same seed and pictures give the same draws
    batch_size: Count = 8  # pictures scored together

    def __post_init__(self) -> None:
        lists = {"kinds": self.kinds, "sizes_px": self.sizes_px, "strengths": self.strengths}
        twice = [name for name, values in lists.items() if len(set(values)) < len(values)]
        check_fields(self, [f"{name} names a value twice" for name in twice])
        check_design(self.kinds, self.sizes_px or (LEAST_DEFECT_PX,), self.strengths)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the detector said about several pictures."""

    ng: Proportion
    ng_or_review: Proportion
    marked: Proportion  # a region touches the drawn defect; on undrawn pictures: is anywhere


@dataclass(frozen=True, slots=True)
class RehearsalCell:
    """Draws of one kind, size and strength."""

    kind: str
    size_px: float  # longest extent in pixels of the picture
    strength: float
    outcome: Outcome | None  # None if none could be drawn
    not_drawable: str = ""  # why some or all could not be drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Which drawn defects a calibrated detector finds on good pictures of one product."""

    product: str
    target_fpr: float
    review_fpr: float
    per_cell: int
    undrawn: Outcome  # the same pictures without a defect: its false alarms
    cells: tuple[RehearsalCell, ...]  # by kind, size and strength
    warning: str = WARNING

    @property
    def pictures(self) -> int:
        """Return the number of good pictures that were drawn on."""
        return self.undrawn.ng.total

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kinds in the order of the options."""
        return tuple(dict.fromkeys(cell.kind for cell in self.cells))

    @property
    def sizes_px(self) -> tuple[float, ...]:
        """Return the sizes in rising order."""
        return tuple(sorted({cell.size_px for cell in self.cells}))

    @property
    def strengths(self) -> tuple[float, ...]:
        """Return the strengths in falling order."""
        return tuple(sorted({cell.strength for cell in self.cells}, reverse=True))

    def outcome(self, kind: str, size_px: float, strength: float) -> Outcome | None:
        """Return the outcome of a cell; None if nothing was drawn. KeyError: no such cell."""
        found = {(cell.kind, cell.size_px, cell.strength): cell.outcome for cell in self.cells}
        return found[kind, size_px, strength]

    def found_sizes(
        self, kind: str, strength: float, share: float = HALF, *, with_review: bool = False
    ) -> tuple[float, ...]:
        """Return the sizes of which at least this share is NG (or REVIEW), in rising order.

        Larger is not always easier: a detector may take a large even defect for a surface.
        """
        found = []
        for size_px in self.sizes_px:
            one = self.outcome(kind, size_px, strength)
            if one and (one.ng_or_review if with_review else one.ng).share >= share:
                found.append(size_px)
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def rehearse(
    detector: Judge,
    images: Sequence[np.ndarray],
    options: RehearsalOptions | None = None,
    *,
    masks: Sequence[np.ndarray | None] = (),
    product: str | None = None,
    progress: ProgressCallback = no_progress,
) -> Rehearsal:
    """Draw defects onto good pictures and count how many a calibrated detector finds.

    Args:
        detector: calibrated.
        images: (H, W, 3) uint8 RGB good pictures that did not calibrate; the first `per_cell` of
            them are used. A sequence that reads files when it is indexed works too: each is read
            twice, and one at a time is in memory.
        options: see `RehearsalOptions`.
        masks: () or one item for each picture, (H, W) bool or None; True pixels are left out and
            nothing is drawn there. Default: the detector's own mask.
        product: whose thresholds count, for a detector calibrated by product.
        progress: called with ("rehearse", pictures scored, pictures in all).

    Returns:
        The shares that are NG, that are NG or REVIEW, and in which a region touches the drawn
        defect, for each kind, size and strength. What cannot be drawn is reported in its cell.

    Raises:
        ConfigError: the detector is not calibrated, there is no such product, or no picture.
    """
    asked = options or RehearsalOptions()
    calibration = _calibration_of(detector)
    calibration.check_product(product)
    if not len(images):
        raise ConfigError("There is no picture to draw on; name good pictures.")
    count = min(len(images), asked.per_cell)
    own = detector.setup.mask
    barred = [masks[n] if masks else own for n in range(count)]

    def judge(drawn: Sequence[np.ndarray], number: int) -> list[AnomalyResult]:
        same = [barred[number]] * len(drawn)
        return detector.predict_batch(drawn, masks=same, products=[product] * len(drawn))

    undrawn, sides = [], []
    for number in range(count):
        image = images[number]
        (result,) = judge([image], number)
        undrawn.append(_marks(result, None))
        sides.append(min(image.shape[:2]))
    sizes = asked.sizes_px or fit_sizes(float(np.median(sides)))
    found: dict[tuple[str, float, float], list[tuple[bool, bool, bool]]] = {
        cell: [] for cell in all_of(asked.kinds, sizes, asked.strengths)
    }
    refused: dict[tuple[str, float], list[str]] = {}
    total, done = len(found) * asked.per_cell, 0
    for number in range(count):
        draws = _draws(images[number], barred[number], range(number, asked.per_cell, count),
                       sizes, asked, refused)  # fmt: skip
        while batch := list(islice(draws, asked.batch_size)):
            for draw, result in zip(batch, judge([d.image for d in batch], number), strict=True):
                found[draw.kind, draw.size_px, draw.strength].append(_marks(result, draw.mask))
            done += len(batch)
            progress("rehearse", done, total)
    progress("rehearse", total, total)  # what cannot be drawn is done too
    return Rehearsal(
        product=product or "",
        target_fpr=calibration.target_fpr,
        review_fpr=calibration.review_fpr,
        per_cell=asked.per_cell,
        undrawn=_outcome(undrawn),
        cells=tuple(
            RehearsalCell(*cell, _outcome(marks) if marks else None, *refused.get(cell[:2], [])[:1])
            for cell, marks in found.items()
        ),
    )


def fit_sizes(side_px: float) -> tuple[float, ...]:
    """Return sizes for pictures with this shorter side: powers of two up to a third of it.

    They are five, or fewer where the pictures are small: none is below 4 px.

    Example:
        >>> fit_sizes(300), fit_sizes(60)
        ((4.0, 8.0, 16.0, 32.0, 64.0), (4.0, 8.0, 16.0))
    """
    most = max(int(np.log2(max(side_px * _MOST_SHARE, 4))), 2)
    return tuple(2.0**power for power in range(max(most - _SIZES + 1, 2), most + 1))


def _draws(
    image: np.ndarray,
    barred: np.ndarray | None,
    repeats: Sequence[int],
    sizes: Sequence[float],
    options: RehearsalOptions,
    refused: dict[tuple[str, float], list[str]],
) -> Iterator[DrawnDefect]:
    """Yield all draws onto one picture, drawn ahead by a thread.

    `refused` holds the reasons why a kind and size could not be drawn. After three of them on
    earlier pictures it is not tried again.
    """
    height, width = image.shape[:2]
    hopeless = {cell for cell, reasons in refused.items() if len(reasons) >= _GIVE_UP}

    def draw(cell: tuple[str, float, int]) -> list[DrawnDefect] | str:
        kind, size_px, repeat = cell
        if size_px > min(height, width):
            return f"{size_px:g} px do not fit a picture of {width} x {height} pixels."
        try:
            return [
                drawn
                for _, drawn in draw_defects(
                    [image], [kind], [size_px], options.strengths, per_cell=1,
                    seed=own_seed(options.seed, repeat), keep_out=[barred],
                )
            ]  # fmt: skip
        except ConfigError as error:
            return str(error)

    cells = [cell for cell in all_of(options.kinds, sizes, repeats) if cell[:2] not in hopeless]
    for (kind, size_px, _), drawn in zip(cells, read_ahead(draw, cells, workers=1), strict=True):
        if isinstance(drawn, str):
            refused.setdefault((kind, size_px), []).append(drawn)
        else:
            yield from drawn


def _marks(result: AnomalyResult, mask: np.ndarray | None) -> tuple[bool, bool, bool]:
    """Return whether a picture is NG, is NG or REVIEW, and has a region (that touches a mask)."""
    assert result.map_threshold is not None
    above = result.score_map > result.map_threshold
    marked = bool((above if mask is None else above & mask).any())
    return result.verdict == "NG", result.verdict in ("NG", "REVIEW"), marked


def _outcome(marks: Sequence[tuple[bool, bool, bool]]) -> Outcome:
    return Outcome(*(Proportion.of(column) for column in zip(*marks, strict=True)))


def _calibration_of(detector: Judge) -> Calibration:
    if detector.setup.calibration is None:
        raise ConfigError("The detector is not calibrated; run `faprompt calibrate` first.")
    return detector.setup.calibration
