"""Slices of pictures: where they are cut, and which of them are anomalous."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from faprompt.data.sliced_pictures import cut_bands, cut_columns, label_slices
from faprompt.errors import DatasetError
from faprompt.records import Sample

sides = st.integers(1, 60)


def covers_once(slices, size):
    seen = np.zeros(size, dtype=int)
    for x0, y0, x1, y1 in slices:
        assert x0 < x1 and y0 < y1
        seen[y0:y1, x0:x1] += 1
    return bool((seen == 1).all())


@given(st.integers(3, 60), sides)
def test_bands_cover_every_pixel_once(height, width):
    bands = cut_bands((height, width), 3)
    assert covers_once(bands, (height, width))
    third = height // 3
    assert [(top, end) for _, top, _, end in bands] == [
        (0, third), (third, 2 * third), (2 * third, height),
    ]  # fmt: skip


@given(sides, sides, st.integers(1, 20))
def test_columns_cover_every_pixel_once(height, width, step):
    columns = cut_columns((height, width), step)
    assert covers_once(columns, (height, width))
    assert len(columns) == -(-width // step)
    assert all(x1 - x0 == step for x0, _, x1, _ in columns[:-1])


def test_the_strips_of_aitex():
    assert len(cut_columns((256, 4096), 256)) == 16
    short = cut_columns((256, 3796), 256)
    assert len(short) == 15 and short[-1] == (3584, 0, 3796, 256)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="2 rows cannot be cut into 3 bands"):
        cut_bands((2, 5), 3)


def labels(tmp_path, rows, *, value=255):
    truth = np.zeros((9, 4), dtype=np.uint8)
    truth[rows] = value
    Image.fromarray(truth).save(tmp_path / "m.png")
    whole = Sample(tmp_path / "i.png", 1, "a", "dent", (tmp_path / "m.png",), has_pixel_label=True)
    return label_slices(whole, cut_bands((9, 4), 3), image_size=(9, 4))


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        (slice(2, 3), [1, 0, 0]),  # the last row of the first band
        (slice(3, 4), [0, 1, 0]),  # the first row of the second
        (slice(2, 4), [1, 1, 0]),
        (slice(0, 9), [1, 1, 1]),
        (slice(0, 0), [0, 0, 0]),
    ],
)
def test_labels_at_the_boundaries(tmp_path, rows, wanted):
    parts = labels(tmp_path, rows)
    assert [part.label for part in parts] == wanted
    for part in parts:
        assert part.region is not None and part.has_pixel_label
        assert part.defect_type == ("dent" if part.label else "good")
        assert bool(part.mask_paths) == bool(part.label)


def test_any_value_above_0_marks(tmp_path):
    assert [part.label for part in labels(tmp_path, slice(6, 7), value=1)] == [0, 0, 1]


def test_a_mask_of_another_size_is_refused(tmp_path):
    Image.new("L", (4, 8)).save(tmp_path / "m.png")
    whole = Sample(tmp_path / "i.png", 1, "a", "", (tmp_path / "m.png",), has_pixel_label=True)
    with pytest.raises(DatasetError, match="is 8x4 .*is 9x4"):
        label_slices(whole, cut_bands((9, 4), 3), image_size=(9, 4))
