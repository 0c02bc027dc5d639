"""The drawn surface with a 6 px spot, and that tiles find it."""

from __future__ import annotations

import numpy as np
import pytest

from faprompt.models import load_detector
from scripts.measure_tiles import DARKER, PAGE, SPOT_PX, add_spot, draw_surface, page_text


def test_the_spot_has_its_size_and_nothing_else_changes():
    surface = draw_surface((600, 800), 3)
    spotted, (row, column) = add_spot(surface, 3)
    rows, columns = np.nonzero(spotted != surface)
    assert np.ptp(rows) == np.ptp(columns) == SPOT_PX - 1
    assert np.abs(rows - row + 0.5).max() < SPOT_PX / 2
    assert (surface.astype(int) - spotted)[rows, columns].tolist() == [DARKER] * len(rows)
    assert np.array_equal(surface, draw_surface((600, 800), 3))
    assert not np.array_equal(surface, draw_surface((600, 800), 4))


@pytest.mark.slow
def test_tiles_find_a_spot_that_is_lost_without_them():
    """4,000 x 3,000 px; pictures of 6,000 x 4,000 px are measured by the script."""
    surface = draw_surface((3000, 4000), 1)
    spotted, (row, column) = add_spot(surface, 1)
    gain = {}
    for tiles in ("off", "auto"):
        detector = load_detector("tiny", device="cpu").with_setup(tiles=tiles)
        clean, marked = (detector.predict(image) for image in (surface, spotted))
        gain[tiles] = marked.score - clean.score
    assert gain["auto"] > 0.3 and marked.score > 0.9
    assert abs(gain["off"]) < 0.05
    peak = np.unravel_index(marked.score_map.argmax(), marked.score_map.shape)
    assert np.hypot(peak[0] - row, peak[1] - column) < 16


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page_text()
