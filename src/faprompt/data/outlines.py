"""Outlines and run lengths of a mask: read COCO's compressed form, draw them as pixels.

The format is that of the COCO API (Lin et al., ECCV 2014, `pycocotools`); the code is ours. An
outline between pixel centres gives the same pixels as theirs, which rounds coordinates to a fifth
of a pixel first. Every mask is (height, width) bool; True is anomalous.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from faprompt.records import DrawnMask

_LARGEST_COORDINATE = 1e7  # pixels; no picture is that wide


def draw_mask(drawn: DrawnMask) -> np.ndarray:
    """Draw the union of all outlines and runs of a mask.

    Raises:
        ValueError: a shape cannot be drawn; see `outline_corners` and `check_runs`.
    """
    truth = np.zeros(drawn.image_size, dtype=bool)
    for points in drawn.polygons:
        truth |= fill_polygon(points, drawn.image_size)
    for runs in drawn.runs:
        truth |= fill_runs(runs, drawn.image_size)
    return truth


def fill_polygon(points: Sequence[float], image_size: tuple[int, int]) -> np.ndarray:
    """Mark the pixels whose centre lies within a closed outline, by the even-odd rule.

    `points` are x0, y0, x1, y1, ... in pixels; the centre of pixel (0, 0) is at 0.5. Parts
    outside the picture are cut off.

    Example:
        >>> fill_polygon([1, 0, 3, 0, 3, 2, 1, 2], (3, 4)).astype(int)
        array([[0, 1, 1, 0],
               [0, 1, 1, 0],
               [0, 0, 0, 0]])
    """
    corners = outline_corners(points)
    height, width = image_size
    # each edge flips all pixels to its right; those flipped an odd number of times are inside
    flips = np.zeros((height, width + 1), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        top, bottom = np.clip(np.ceil(np.sort([y0, y1]) - 0.5), 0, height).astype(int)
        rows = np.arange(top, bottom)
        crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)
        flips[rows, columns] ^= True
    return np.logical_xor.accumulate(flips, axis=1)[:, :width]


def outline_corners(points: Sequence[float]) -> np.ndarray:
    """Return the corners of an outline: (N, 2) float64, x and y.

    Raises:
        ValueError: fewer than three corners, an x without a y, or a coordinate that is not finite
            or too large for any picture.
    """
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 1 or len(values) % 2 or len(values) < 6:
        raise ValueError(
            f"an outline needs x and y of three corners or more, got {len(values)} numbers"
        )
    if not (np.abs(values) < _LARGEST_COORDINATE).all():
        raise ValueError(
            f"an outline holds values that are not finite, or beyond {_LARGEST_COORDINATE:g} pixels"
        )
    return values.reshape(-1, 2)


def fill_runs(runs: Sequence[int], image_size: tuple[int, int]) -> np.ndarray:
    """Mark pixels by run lengths down the columns, alternately outside and inside (COCO's RLE).

    Example:
        >>> fill_runs([1, 2, 3], (2, 3)).astype(int)
        array([[0, 1, 0],
               [1, 0, 0]])
    """
    check_runs(runs, image_size)
    height, width = image_size
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T


def check_runs(runs: Sequence[int], image_size: tuple[int, int]) -> None:
    """Refuse run lengths that do not fit a picture of (height, width).

    Raises:
        ValueError: a length is negative, or the sum is not height times width.
    """
    if any(run < 0 for run in runs):
        raise ValueError(f"run lengths should not be negative, got {min(runs)}")
    height, width = image_size
    if sum(runs) != height * width:
        raise ValueError(
            f"run lengths add up to {sum(runs)} pixels, and {height}x{width} has {height * width}"
        )


def decode_runs(text: str) -> tuple[int, ...]:
    """Decode COCO's compressed RLE into run lengths.

    Each number is cut into groups of five bits, the lowest first. A sixth bit says that more
    groups follow, and 48 is added to give a printable letter. The top bit of the last group is
    the sign. From the fourth number on, the text holds the difference to the number two before.

    Raises:
        ValueError: a letter is none of these, or the text ends within a number.

    Example:
        >>> decode_runs("123"), decode_runs("PP1")
        ((1, 2, 3), (1024,))
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        group = ord(letter) - 48
        if not 0 <= group < 64:
            raise ValueError(f"{letter!r} is no letter of a compressed run length")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the compressed run lengths end within a number")
    return tuple(runs)
