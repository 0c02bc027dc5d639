"""What stands where on a sheet, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faprompt.evaluation.contact_sheet import GAP, LINE, MARGIN, SIDE, outlined
from faprompt.imaging import overlay
from faprompt.records import Sample
from faprompt.reproduce.gallery_choice import Chosen
from faprompt.reproduce.gallery_files import Shown, View, draw_gallery

GREY = 90
HEIGHT = 150
SPOT = (slice(40, 60), slice(70, 95))


def spot():
    mask = np.zeros((HEIGHT, SIDE), bool)
    mask[SPOT] = True
    return mask


PANEL = np.full((HEIGHT, SIDE, 3), GREY, np.uint8)


def view(level=1.0, score=0.5, overlap=0.25, mask=None):
    score_map = np.zeros((HEIGHT, SIDE), np.float32)
    score_map[SPOT] = level
    return View(score, overlap, outlined(overlay(PANEL, score_map), mask))


def row(mask=None, label=1, error="", **views):
    chosen = Chosen(Sample(Path("dent/0.png"), label, "mug"), "pictures", "dent, drawn from 3")
    return Shown(chosen, "dent/0.png", None if error else PANEL, mask, views, error)


def cell(sheet, column, top):
    left = MARGIN + column * (SIDE + GAP)
    return sheet[top : top + HEIGHT, left : left + SIDE]


def first_row(sheet):
    """Where the panels begin: the first line of many grey pixels."""
    return int(np.flatnonzero((sheet == GREY).all(-1).sum(1) > SIDE // 2)[0])


def test_picture_truth_and_maps_each_in_their_column():
    sheet = draw_gallery(
        "T", ["A", "B"], [row(spot(), A=view(mask=spot()), B=view(0, mask=spot()))]
    )
    top = first_row(sheet)
    assert (cell(sheet, 0, top) == GREY).all(), "the picture itself has no line"
    truth, first, second = (cell(sheet, column, top) for column in (1, 2, 3))
    white, black = (truth == 255).all(-1), (truth == 0).all(-1)
    for ring, margin in ((white, 1), (black, 2)):
        ys, xs = np.nonzero(ring)
        box = (ys.min(), ys.max(), xs.min(), xs.max())
        assert box == (40 - margin, 59 + margin, 70 - margin, 94 + margin)
    assert (truth[spot()] == GREY).all() and (truth[~white & ~black] == GREY).all()
    assert np.array_equal(second, truth), "a map of zeros leaves the picture as it is"
    wanted = overlay(PANEL, spot().astype(np.float32))
    assert np.array_equal(first[spot()], wanted[spot()])
    assert np.array_equal((first == 255).all(-1), white), "the same line on every map"


def test_colours_never_depend_on_other_pictures():
    weak, strong = (
        draw_gallery("T", ["A"], [row(A=view(0.25)), row(A=view(level))]) for level in (0, 1)
    )
    top = first_row(weak)
    assert np.array_equal(cell(weak, 2, top), cell(strong, 2, top))
    assert not np.array_equal(weak, strong)


def test_where_nothing_is_marked_there_is_no_truth_to_see():
    for label in (0, 1):
        sheet = draw_gallery("T", ["A"], [row(label=label, A=view(0, overlap=None))])
        place = cell(sheet, 1, first_row(sheet))
        assert not (place == GREY).all(-1).any() and (place < 200).any(), "words instead"
    normal, nobody = (draw_gallery("T", [], [row(label=label)]) for label in (0, 1))
    assert not np.array_equal(normal, nobody)


def test_long_labels_are_broken_and_nothing_is_cut():
    label = "CAP without its orthogonality loss, " * 3 + "x" * 60
    short = draw_gallery("T", ["A"], [row(A=view())])
    long = draw_gallery("T", [label], [row(**{label: view()})])
    assert long.shape[1] == short.shape[1] and long.shape[0] > short.shape[0] + 4 * LINE
    for sheet in (short, long):
        edge = np.concatenate([sheet[-8:].reshape(-1, 3), sheet[:, -8:].reshape(-1, 3)])
        assert (edge == 255).all()
    gap = long[:, MARGIN + 2 * (SIDE + GAP) - GAP : MARGIN + 2 * (SIDE + GAP)]
    names = first_row(short) - LINE - 6  # a line of labels, and 6 pixels
    assert (gap[names:] == 255).all(), "labels stay in their column"
    assert (long[names : names + LINE] < 200).any()


def test_size_grows_with_rows_and_methods():
    one = draw_gallery("T", ["A"], [row(A=view())])
    two = draw_gallery("T", ["A"], [row(A=view())] * 2)
    wide = draw_gallery("T", ["A", "B"], [row(A=view(), B=view())])
    assert two.shape[0] - one.shape[0] == HEIGHT + 4 + 2 * LINE + 18
    assert wide.shape[1] - one.shape[1] == SIDE + GAP


def test_low_panels_leave_room_for_words():
    """A picture of 4096 x 256 is a strip; words in the place of a panel stay above the caption."""
    low = row()
    low.image = low.image[:14]
    sheet, tall = (draw_gallery("T", ["A"], [shown]) for shown in (low, row(A=view())))
    assert tall.shape[0] - sheet.shape[0] == HEIGHT - LINE


@pytest.mark.parametrize("error", ["empty", "a very long reason " * 9])
def test_a_picture_that_cannot_be_read_keeps_its_place(error):
    lost = row(error=error)
    lost.name = "dent/\udcff.png"
    sheet = draw_gallery("T", ["A"], [lost, row(A=view())])
    alone = draw_gallery("T", ["A"], [row(A=view())])
    assert sheet.shape[0] > alone.shape[0] and sheet.shape[1] == alone.shape[1]
    assert np.array_equal(sheet[-HEIGHT - 60 :], alone[-HEIGHT - 60 :])


def test_a_method_that_is_not_there_says_so():
    sheet = draw_gallery("T", ["A", "B"], [row(A=view())])
    place = cell(sheet, 3, first_row(sheet))
    assert (place < 200).any() and not (place == GREY).all(-1).any()
