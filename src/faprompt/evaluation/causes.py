"""Find a likely cause, by rule, of a picture that a detector judged wrong.

FAPrompt's appendix (C.6, Fig. 16) describes its failures in words: instrument artefacts, and
defects that are too small, too subtle or overshadowed by other suspicious areas. The measures
and limits for these words are ours. A rule that holds makes a cause likely and proves nothing;
"unexplained" says that no rule holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

from faprompt.evaluation.contact_sheet import shrink_mask
from faprompt.imaging import shrink

CauseName = Literal["tiny", "subtle", "artefact", "overshadowed", "unexplained"]
CAUSES: tuple[CauseName, ...] = get_args(CauseName)  # the first that holds is the cause

PATCH = 1 / 37  # of the shorter side: the paper's backbone sees 37 x 37 patches of a picture
TINY = 0.002  # of the picture's area, less than three of those patches
SUBTLE = 0.5  # standard deviations of the surroundings: Cohen's "medium" difference
HALF = 0.5  # of the way from a map's median to its peak; a part below it is hardly seen
TOP = 0.9  # of that way: where the response begins; maps are too smooth to begin lower
DARK, BRIGHT = 10, 245  # grey values of 0..255 at the ends of what a camera can tell apart
EXTREME = 0.25  # share of dark or bright pixels: in an artefact more, in the whole picture less

_SIDE = 518  # px; larger pictures are measured at the size that the paper's model sees
_GAP = 2  # px around an area that belong to neither it nor its surroundings
_RING = 0.05  # of the shorter side: width of the surroundings
_LEAST = 8  # fewest px of surroundings


@dataclass(frozen=True, slots=True)
class LikelyCause:
    """The cause of a mistake by rule, and what was measured."""

    cause: CauseName
    why: str  # the measure that decided, in words
    also: tuple[CauseName, ...]  # later rules that hold as well
    numbers: Mapping[str, float]  # see `likely_cause`; what cannot be measured is absent


def likely_cause(
    image: np.ndarray,
    score_map: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    label: int,
    score: float,
    threshold: float | None = None,
) -> LikelyCause:
    """Return the first of these rules that holds for a picture judged wrong.

    | cause | holds when |
    |---|---|
    | tiny | the largest part of the defect has less than `TINY` of the picture's area |
    | subtle | the defect's contrast is below `SUBTLE`, see `contrast` |
    | artefact | the peak is off the defect, and the response comes within a `PATCH` of the \
border, or at least `EXTREME` of it is nearly black or white in a picture that mostly is not |
    | overshadowed | the peak is off the defect, or on one of its parts while another part \
does not even reach `HALF` |

    Only artefact can hold on a normal picture. "Off the defect" means farther from the mask than
    a `PATCH`. The response is the connected area that holds the map's peak and is at least `TOP`
    as high, counted from the map's median.

    Args:
        image: (H, W, 3) uint8.
        score_map: (H, W) float.
        mask: (H, W) bool, or None where nobody drew one; then no rule about a defect holds.
        label: 0 normal, 1 anomalous.
        score: of the picture.
        threshold: of its verdict, if any.

    Returns:
        The cause. Its `numbers` are margin (score less threshold); of the defect, defect_share
        (largest part, of the picture's area), defect_contrast, parts, reached (its highest
        response; 1 is the peak) and weakest_part (the lowest of its parts' peaks); of the
        response, response_share (of the picture's area), border_distance (in shorter sides),
        extreme_share, and extreme_everywhere (of the whole picture).

    Raises:
        ValueError: shapes differ, or the label is neither 0 nor 1.
    """
    _check(image, score_map, mask, label)
    truth = mask if label and mask is not None and mask.any() else None
    numbers = {} if threshold is None else {"margin": float(score - threshold)}
    if truth is not None:
        parts, count = _parts(truth)
        largest = np.bincount(parts[truth]).max()
        numbers |= {"defect_share": float(largest / truth.size), "parts": float(count)}
    small, small_map, _ = shrink(image, score_map, (), max_side=_SIDE)
    if truth is not None:
        numbers |= _defect_numbers(small, small_map, shrink_mask(truth, small_map.shape))
    numbers |= _response_numbers(small, small_map)
    if label and truth is None:
        return LikelyCause("unexplained", "no mask shows where the defect is", (), numbers)
    holding = _holding_rules(numbers)
    cause, why = next(iter(holding.items()), ("unexplained", "no rule holds"))
    return LikelyCause(cause, why, tuple(holding)[1:], numbers)


def contrast(image: np.ndarray, area: np.ndarray) -> float | None:
    """Return how far an area stands out from the ring around it, in the ring's deviations.

    The larger of two differences counts: of the mean colour (root mean square over the
    channels), and of the mean strength of edges. Deviations below one grey value count as one.

    Args:
        image: (H, W, 3) uint8.
        area: (H, W) bool.

    Returns:
        0 or more; None where hardly any ring is left.

    Example:
        >>> image = np.full((40, 40, 3), 100, np.uint8)
        >>> area = np.zeros((40, 40), bool)
        >>> area[15:25, 15:25] = True
        >>> contrast(image, area)
        0.0
        >>> image[area] = 107
        >>> contrast(image, area)
        7.0
    """
    if not area.any():
        return None
    reach = _GAP + max(4, round(_RING * min(area.shape)))
    sides = ndimage.find_objects(area.astype(np.int8))[0]
    window = tuple(slice(max(0, s.start - reach - 1), s.stop + reach + 1) for s in sides)
    inside = area[window]
    distance = ndimage.distance_transform_edt(~inside)
    ring = (distance > _GAP) & (distance <= reach)
    if ring.sum() < _LEAST:
        return None
    colours = image[window].astype(np.float64)
    edges = ndimage.gaussian_gradient_magnitude(colours.mean(-1), 1.0)
    levels = [_difference(colours[..., channel], inside, ring) for channel in range(3)]
    return float(max(np.sqrt(np.mean(np.square(levels))), _difference(edges, inside, ring)))


def count_parts(mask: np.ndarray, *, least_share: float = 0.0) -> int:
    """Count the connected areas of a mask, corners touching, of at least this share of it."""
    parts, count = _parts(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    return int(np.count_nonzero(sizes >= least_share * mask.size))


def _holding_rules(n: Mapping[str, float]) -> dict[CauseName, str]:
    """Return every rule that holds, in order, with the measure that decided."""
    rules: dict[CauseName, str] = {}
    if n.get("defect_share", 1) < TINY:
        rules["tiny"] = f"{100 * n['defect_share']:.2f} % of the picture"
    if n.get("defect_contrast", SUBTLE) < SUBTLE:
        rules["subtle"] = f"contrast {n['defect_contrast']:.2f}"
    if n.get("reached", 0) < 1 and n.get("border_distance", 1) < PATCH:
        rules["artefact"] = "response at the border"
    elif n.get("reached", 0) < 1 and n.get("extreme_share", 0) >= EXTREME > n["extreme_everywhere"]:
        rules["artefact"] = "response on a very bright or dark spot"
    if n.get("reached", 1) < 1:
        rules["overshadowed"] = f"reaches {_percent(n['reached'])} of the peak elsewhere"
    elif n.get("parts", 1) > 1 and n.get("weakest_part", 1) < HALF:
        weakest = _percent(n["weakest_part"])
        rules["overshadowed"] = f"weakest of {n['parts']:.0f} parts reaches {weakest} of the peak"
    return rules


def _percent(share: float) -> str:
    return f"{100 * max(0.0, share):.0f} %"


def _defect_numbers(
    image: np.ndarray, score_map: np.ndarray, truth: np.ndarray
) -> dict[str, float]:
    stands_out = contrast(image, truth)
    numbers = {} if stands_out is None else {"defect_contrast": stands_out}
    base, peak = float(np.median(score_map)), float(score_map.max())
    if peak > base:
        parts, count = _parts(truth)
        highest = ndimage.maximum(score_map, parts, range(1, count + 1))
        near = ndimage.distance_transform_edt(~truth) <= PATCH * min(truth.shape)
        numbers["reached"] = (float(score_map[near].max()) - base) / (peak - base)
        numbers["weakest_part"] = (float(np.min(highest)) - base) / (peak - base)
    return numbers


def _response_numbers(image: np.ndarray, score_map: np.ndarray) -> dict[str, float]:
    """Measure the area of the map's peak; a flat map has none."""
    base, peak = float(np.median(score_map)), float(score_map.max())
    if not peak > base:
        return {}
    y, x = np.unravel_index(np.argmax(score_map), score_map.shape)
    areas, _ = _parts(score_map >= base + TOP * (peak - base))
    response = areas == areas[y, x]
    rows, columns = ndimage.find_objects(response.astype(np.int8))[0]
    height, width = response.shape
    border = min(rows.start, columns.start, height - rows.stop, width - columns.stop)
    grey = image.mean(-1)
    extreme = (grey <= DARK) | (grey >= BRIGHT)
    return {
        "response_share": float(response.mean()),
        "border_distance": float(border / min(height, width)),
        "extreme_share": float(extreme[response].mean()),
        "extreme_everywhere": float(extreme.mean()),
    }


def _parts(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Return connected areas, corners touching, as (H, W) int from 1 on, and their count."""
    return ndimage.label(mask, np.ones((3, 3), int))


def _difference(values: np.ndarray, inside: np.ndarray, ring: np.ndarray) -> float:
    spread = max(1.0, float(values[ring].std()))
    return abs(float(values[inside].mean() - values[ring].mean())) / spread


def _check(image: np.ndarray, score_map: np.ndarray, mask: np.ndarray | None, label: int) -> None:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image should be (height, width, 3), got {image.shape}.")
    for name, array in (("score_map", score_map), ("mask", mask)):
        if array is not None and array.shape != image.shape[:2]:
            raise ValueError(f"{name} {array.shape} does not fit the image {image.shape[:2]}.")
    if label not in (0, 1):
        raise ValueError(f"label should be 0 (normal) or 1 (anomalous), got {label!r}.")
