"""Notes on many pictures become one line for each kind."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from faprompt.prediction.note_tally import NoteTally


def lines(*notes_of_each: tuple[str, ...], paths=()) -> tuple[str, ...]:
    tally = NoteTally()
    names = [*map(str, paths), *(f"{n}.jpg" for n in range(len(notes_of_each) - len(paths)))]
    for path, notes in zip(names, notes_of_each, strict=True):
        tally.add(path, notes)
    return tally.lines()


def test_equal_notes_are_counted():
    assert lines(("EXIF ignored",), (), ("EXIF ignored", "frame 0 of 2")) == (
        "2 pictures: EXIF ignored",
        "1 picture: frame 0 of 2",
    )
    assert lines((), ()) == () == lines()


def test_numbers_that_differ_are_one_kind_and_the_largest_are_shown():
    assert lines(("frame 0 of 9",), ("frame 0 of 12",), ("frame 0 of 3",)) == (
        "3 pictures: frame 0 of 12",
    )
    assert lines(("uses 1,200 of 9.5",), ("uses 900 of 10",)) == ("2 pictures: uses 1,200 of 10",)


HINT = "16-bit data uses {} of 16 bits: pass bit_depth={}"


def test_the_suggested_depth_holds_for_every_picture_that_has_the_note():
    told = lines(*((HINT.format(bits, bits),) for bits in (10, 12, 8, 12)))
    assert told == ("4 pictures: 16-bit data uses 12 of 16 bits: pass bit_depth=12",)


@pytest.mark.parametrize(("deep", "warned"), [(True, True), (False, False)])
def test_a_suggestion_that_fails_on_another_picture_says_so(deep, warned, tmp_path):
    """`bit_depth=12` would turn a picture of all 16 bits into an error; 8-bit ones do not mind."""
    pixels = np.full((4, 4), 65535 if deep else 255, np.uint16 if deep else np.uint8)
    Image.fromarray(pixels).save(tmp_path / "other.png")
    (line,) = lines((), (HINT.format(12, 12),), paths=[tmp_path / "other.png"])
    assert ("other pictures of this run may use more bits" in line) == warned
    missing = lines((), (HINT.format(12, 12),), paths=[tmp_path / "gone.png"])
    assert missing == ("1 picture: 16-bit data uses 12 of 16 bits: pass bit_depth=12",)
