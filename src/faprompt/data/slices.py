"""Pictures cut into slices: each slice is a sample, nothing is written to disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from faprompt.data.masks import read_mask
from faprompt.records import Sample

Slice = tuple[int, int, int, int]  # x0, y0, x1, y1 in image pixels, ends exclusive


def cut_bands(image_size: tuple[int, int], count: int) -> list[Slice]:
    """Horizontal bands of equal height; the last one takes the rows that are left over.

    Raises:
        ValueError: there are fewer rows than bands wanted.

    Example:
        >>> cut_bands((11, 4), 3)
        [(0, 0, 4, 3), (0, 3, 4, 6), (0, 6, 4, 11)]
    """
    height, width = image_size
    rows = height // count
    if rows == 0:
        raise ValueError(f"{height} rows cannot be cut into {count} bands.")
    ends = [*(rows * band for band in range(1, count)), height]
    return [(0, top, width, end) for top, end in zip([0, *ends[:-1]], ends, strict=True)]


def cut_columns(image_size: tuple[int, int], step: int) -> list[Slice]:
    """Columns of `step` pixels from the left; the last one may be narrower.

    Example:
        >>> cut_columns((4, 10), 4)
        [(0, 0, 4, 4), (4, 0, 8, 4), (8, 0, 10, 4)]
    """
    height, width = image_size
    return [(left, 0, min(left + step, width), height) for left in range(0, width, step)]


def label_slices(
    whole: Sample, slices: Iterable[Slice], *, image_size: tuple[int, int]
) -> list[Sample]:
    """One sample per slice: anomalous where any of its mask pixels is above 0, else normal.

    Args:
        whole: an anomalous sample without a region; its masks decide.
        slices: within the picture.
        image_size: (height, width) of the whole picture.

    Raises:
        DatasetError: a mask cannot be read, or its size is not the picture's.
    """
    truth = read_mask(whole, image_size=image_size)
    samples = []
    for x0, y0, x1, y1 in slices:
        marked = bool(truth[y0:y1, x0:x1].any())
        part = replace(whole, region=(x0, y0, x1, y1))
        samples.append(
            part if marked else replace(part, label=0, defect_type="good", mask_paths=())
        )
    return samples
