"""Contact sheets: text that fits, outlines on their defect, and what stands where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faprompt.errors import MissingExtraError
from faprompt.evaluation import contact_sheet
from faprompt.evaluation.contact_sheet import (
    GAP,
    LINE,
    MARGIN,
    SIDE,
    Entry,
    Panel,
    draw_sheet,
    fit_panel,
    outlined,
    picture_panels,
    shrink_mask,
    wrapped,
)
from faprompt.imaging import overlay

COLUMNS = ("picture", "map", "ground truth")


def width_of(text, *, size=18, bold=False):
    return contact_sheet._text_width(text, size, bold)


@pytest.mark.filterwarnings("ignore:Glyph")
@given(text=st.text(max_size=80), width=st.integers(40, 300), bold=st.booleans())
@settings(max_examples=60, deadline=None)
def test_wrapped_text_fits_and_loses_nothing(text, width, bold):
    lines = wrapped(text, width, size=18, bold=bold)
    for line in lines:
        assert width_of(line, bold=bold) <= width or len(line) == 1
    assert "".join("".join(lines).split()) == "".join(
        text.encode(errors="replace").decode().split()
    )


def test_words_stay_whole_where_they_fit():
    assert wrapped("one two", 1000, size=18) == ["one two"]
    assert wrapped("one two", width_of("one t"), size=18) == ["one", "two"]
    assert wrapped("", 50, size=18) == [""]


@pytest.mark.parametrize("size", [(900, 700), (SIDE, 130), (60, 64), (31, 500)])
def test_picture_map_and_mask_stay_aligned(size):
    """A drawn defect: after fitting, its outline lies around the bright pixels, map and all."""
    height, width = size
    image, score_map = np.zeros((*size, 3), np.uint8), np.zeros(size, np.float32)
    place = (slice(height // 3, height * 2 // 3), slice(width // 4, width // 2))
    image[place], score_map[place] = 200, 1.0
    panel, small_map, mask = fit_panel(image, score_map, score_map > 0)
    assert panel.shape[:2] == small_map.shape == mask.shape and max(mask.shape) <= SIDE
    bright, hot = panel[..., 0] > 100, small_map > 0.5
    for found in (bright, hot):
        assert mask[found].all(), "the mask covers what is drawn"
        assert np.count_nonzero(mask & ~found) <= mask.sum() * 0.2 + 2 * sum(mask.shape)
    ring = (outlined(panel, mask) == 255).all(-1)
    assert ring.any() and not (ring & mask).any()
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    found_rows, found_columns = np.flatnonzero(ring.any(1)), np.flatnonzero(ring.any(0))
    for inner, outer in ((rows, found_rows), (columns, found_columns)):
        assert inner[0] - 3 <= outer[0] < inner[0] and inner[-1] < outer[-1] <= inner[-1] + 3


def test_no_defect_no_mask():
    image, score_map = np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.float32)
    assert fit_panel(image, score_map, np.zeros((8, 9), bool))[2] is None
    assert fit_panel(image, score_map, None)[2] is None
    panel = np.full((8, 9, 3), 7, np.uint8)
    copy = outlined(panel, None)
    assert np.array_equal(copy, panel) and copy is not panel


def test_a_single_pixel_is_never_lost():
    mask = np.zeros((1000, 777), bool)
    mask[613, 500] = True
    small = shrink_mask(mask, (100, 78))
    (place,) = np.argwhere(small)
    assert tuple(place) == (61, 50)


def images(image, score_map, mask):
    return [panel.image for panel in picture_panels(image, score_map, mask)]


class TestPanels:
    def test_the_outline_lies_just_outside_the_mask(self):
        image = np.full((SIDE, 150, 3), 90, np.uint8)
        mask = np.zeros((SIDE, 150), bool)
        mask[40:60, 70:95] = True
        picture, marked, truth = images(image, np.zeros((SIDE, 150)), mask)
        assert np.array_equal(picture, image) and np.array_equal(marked, image)
        white, black = (truth == 255).all(-1), (truth == 0).all(-1)
        for ring, margin in ((white, 1), (black, 2)):
            ys, xs = np.nonzero(ring)
            box = (ys.min(), ys.max(), xs.min(), xs.max())
            assert box == (40 - margin, 59 + margin, 70 - margin, 94 + margin)
        assert (truth[mask] == 90).all() and (truth[50, 69] == 255).all()
        assert ((truth == 90).all(-1) | white | black).all()

    @pytest.mark.parametrize("size", [(700, 420), (60, 64), (30, 500)])
    def test_all_three_have_one_size_and_line_up(self, size):
        height, width = size
        image, score_map = np.zeros((*size, 3), np.uint8), np.zeros(size, np.float32)
        mask = np.zeros(size, bool)
        spot = (slice(height // 2, height * 3 // 4), slice(width // 4, width // 2))
        image[spot], score_map[spot], mask[spot] = 200, 1.0, True
        panels = images(image, score_map, mask)
        (shape,) = {panel.shape for panel in panels}
        assert SIDE / 2 < max(shape[:2]) <= SIDE
        assert shape[0] / shape[1] == pytest.approx(height / width, rel=0.05)
        inside = panels[0][..., 0] > 150
        hot = (panels[1].astype(int) - panels[0]).any(-1)
        ring = (panels[2] == 255).all(-1)
        for found in (hot, ring):
            ys, xs = np.nonzero(found)
            wanted_y, wanted_x = np.nonzero(inside)
            assert ys.mean() == pytest.approx(wanted_y.mean(), abs=1.5)
            assert xs.mean() == pytest.approx(wanted_x.mean(), abs=1.5)

    def test_the_smallest_defect_stays_to_be_seen(self):
        mask = np.zeros((3000, 2000), bool)
        mask[1500, 1000] = True
        image = np.full((3000, 2000, 3), 90, np.uint8)
        truth = images(image, np.zeros(mask.shape, np.float32), mask)[2]
        assert (truth == 255).all(-1).sum() == 8

    def test_the_map_has_the_overlays_own_colours(self):
        image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        score_map = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
        panels = images(image, score_map, None)
        assert np.array_equal(panels[1], overlay(image, score_map))
        assert np.array_equal(panels[2], image)


def entry(height=SIDE, name="mug/dent/0.png", level=60, *more):
    panel = np.full((height, SIDE, 3), level, np.uint8)
    return Entry((Panel(panel),) * 3, (f"1  {name}", "score 0.5", *more))


def pairs(title, about, entries):
    return draw_sheet(title, about, COLUMNS, entries, beside=2)


class TestEntries:
    def test_every_panel_is_there_whole(self):
        entries = [entry(), entry(100), entry(80)]
        sheet = pairs("Title", "about", entries)
        exact = (sheet == 60).all(-1)
        assert exact.sum() >= sum(3 * SIDE * len(e.panels[0].image) for e in entries)
        assert len(np.flatnonzero(exact.sum(0) > 50)) == 6 * SIDE
        edge = np.concatenate([sheet[-8:].reshape(-1, 3), sheet[:, -8:].reshape(-1, 3)])
        assert (edge == 255).all()  # nothing is cut at the border

    def test_long_texts_are_broken_and_stay_within_the_sheet(self):
        short = pairs("T", "a", [entry()])
        for long in (
            pairs("T", "a", [entry(SIDE, "folder/" * 60)]), pairs("T", "word " * 60, [entry()]),
            pairs("T", "a", [entry(SIDE, "n", 60, "word " * 60)]), pairs("T " * 60, "a", [entry()]),
        ):  # fmt: skip
            assert long.shape[0] > short.shape[0] and long.shape[1] == short.shape[1]
            assert (long[:, -20:] == 255).all()

    def test_a_long_title_keeps_clear_of_the_scale(self):
        short, long = (pairs(title, "a", [entry()]) for title in ("T", "T " * 60))
        assert np.array_equal(long[:40, -220:], short[:40, -220:])

    def test_a_further_line_leaves_all_above_it_alone(self):
        plain, more = entry(), entry(SIDE, "mug/dent/0.png", 60, "likely cause: tiny")
        short, long = (pairs("T", "a", [one]) for one in (plain, more))
        assert long.shape[0] == short.shape[0] + LINE
        end = short.shape[0] - MARGIN
        assert np.array_equal(long[:end], short[:end])
        assert (long[end : end + LINE] < 200).any(), "and it is written there"

    def test_an_unreadable_picture_keeps_its_place(self):
        lost = Entry((Panel(words="cannot be read"),), ("2  lost \udcff.png", "score 0.5"))
        assert pairs("T", "a", [lost]).shape[1] == pairs("T", "a", [entry()]).shape[1]

    def test_a_caption_of_a_panel_stands_below_it_and_the_entrys_before_it(self):
        panel = np.full((90, SIDE, 3), 60, np.uint8)
        scored = Entry((Panel(panel), Panel(panel, caption=("0.5", "overlap"))), ("n " * 200,))
        sheet = draw_sheet("T", "a", ("picture", "map"), [scored])
        bottom = np.flatnonzero((sheet == 60).all(-1).sum(1) > SIDE).max() + 5
        second = sheet[bottom:, MARGIN + SIDE + GAP :]
        assert (second < 200).any() and (second[2 * LINE + 8 :] == 255).all()
        assert (sheet[bottom:, MARGIN + SIDE : MARGIN + SIDE + GAP] == 255).all()

    @pytest.mark.filterwarnings("error")
    def test_letters_without_a_glyph_and_formulas_are_plain_text(self):
        odd, dollar = (pairs("T", "a", [entry(SIDE, name)]) for name in ("\u4e00.png", "$x_$.png"))
        assert odd.shape == dollar.shape

    def test_without_matplotlib_the_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'faprompt\[figures\]'"):
            pairs("T", "a", [entry()])
