"""The files of an explanation: sheet, page, JSON."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from faprompt.explanation import Vocabulary, explain_files, explain_picture
from faprompt.explanation.explanation_drawing import SIDE, draw_page, draw_panels, draw_sheet
from tests.helpers import small
from tests.prediction.test_report import Page


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(small.backbone())


def drawn(vocabulary, name="faprompt", *, image=None, threshold=None, **options):
    image = small.picture() if image is None else image
    detector = small.detector(name, **options)
    found = explain_picture(detector, image, vocabulary=vocabulary, threshold=threshold)
    return found, draw_panels(found, image)


@pytest.mark.parametrize(("size", "panel"), [((60, 80), (252, 336)), ((900, 300), (336, 112))])
def test_panels_are_of_one_size_and_as_many_as_there_are_maps(vocabulary, size, panel):
    _, panels = drawn(vocabulary, prompts=3, image=small.picture(*size))
    everything = [panels.picture, panels.fused, panels.patches, *panels.prompts]
    everything += list(panels.stages.values())
    assert len(everything) == 3 + 3 + 2 and max(panel) == SIDE
    assert {p.shape for p in everything} == {(*panel, 3)}
    assert {p.dtype for p in everything} == {np.dtype(np.uint8)}


def test_frames_mark_the_patches_used_for_the_prior(vocabulary):
    found, panels = drawn(vocabulary, prompts=2, patches=1)
    changed = (panels.patches != panels.picture).any(axis=-1)
    rows, columns = np.nonzero(changed)
    scale = SIDE / 80
    x0, y0, x1, y1 = (edge * scale for edge in found.patches[0].box)
    assert changed.any() and columns.min() >= x0 - 4 and columns.max() <= x1 + 4
    assert rows.min() >= y0 - 4 and rows.max() <= y1 + 4


def test_the_page_holds_every_part_and_asks_for_nothing(vocabulary):
    found, panels = drawn(vocabulary, prompts=3, threshold=0.2)
    text = draw_page(found, panels, name='a "<b>" & $c.png')
    page = Page(text)
    pictures = page.all("img")
    assert len(pictures) == 5 + 3
    assert all(img["src"].startswith("data:image/jpeg;base64,/9j/") for img in pictures)
    assert len({img["src"] for img in pictures}) == 8
    assert "://" not in text and not page.all("script") and not page.all("link")
    assert 'a "<b>" & $c.png' in page.text and "$" not in text.replace("$c.png", "")
    for term in found.terms:
        assert term.name in page.text and f"{term.value:.4f}" in page.text
    assert found.joined().replace(" x ", " × ") in page.text
    assert vocabulary.caution() in page.text and "NG at 0.2" in page.text
    for prompt in found.prompts:
        assert f"Prompt {prompt.number}" in page.text
        assert prompt.words[0][0].word in page.text
        assert prompt.shifted_words[1][2].word in page.text


def test_a_page_without_prompts_shows_no_empty_parts(vocabulary):
    found, panels = drawn(vocabulary, "clip")
    page = Page(draw_page(found, panels, name="p.png"))
    assert len(page.all("img")) == 2 and "Abnormality prompts" not in page.text
    assert "not added" in page.text and "Verdict" not in page.text


@pytest.mark.parametrize(("name", "options"), [("faprompt", {"prompts": 7}), ("filo", {})])
def test_the_sheet_is_a_picture_with_a_row_for_every_five_prompts(vocabulary, name, options):
    found, panels = drawn(vocabulary, name, **options)
    sheet = Image.open(io.BytesIO(draw_sheet(found, panels, name="odd $x_1$ name.png")))
    one_row = 300 * 0.75
    assert sheet.width > 5 * 300
    assert sheet.height > (1 + (len(found.prompts) + 4) // 5) * one_row
    assert sheet.height < (3.5 + 1.5 * ((len(found.prompts) + 4) // 5)) * one_row
    assert np.asarray(sheet.convert("L")).std() > 10


@pytest.mark.filterwarnings("error")
def test_control_characters_of_a_name_are_escaped_on_the_sheet(vocabulary):
    found, panels = drawn(vocabulary, "clip")
    sheet = draw_sheet(found, panels, name="a\nb\t\x1b[2J\x7f\u202e\udcff.png")
    assert sheet.startswith(b"\x89PNG")


def test_files_in_order_and_an_unreadable_one_is_told(vocabulary, tmp_path):
    first = small.picture_file(tmp_path / "in" / "a.png", seed=1)
    second = small.picture_file(tmp_path / "in" / "b.png", seed=2)
    broken = tmp_path / "in" / "broken.png"
    broken.write_bytes(b"no picture")
    detector = small.detector("clip")
    rows = list(explain_files(detector, [first, broken, second], out_dir=tmp_path / "out"))
    assert [row.path for row in rows] == [str(first), str(broken), str(second)]
    assert rows[1].explanation is None and "broken.png" in rows[1].error
    for row, path in ((rows[0], first), (rows[2], second)):
        told = json.loads(row.data.read_text())
        assert told["path"] == str(path) and told["score"] == detector.predict(path).score
        assert row.page.read_text("utf-8").startswith("<!doctype html>")
        assert row.sheet.read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "out").iterdir())) == 6
    again = list(explain_files(detector, [first], out_dir=tmp_path / "out"))
    assert again[0].page == rows[0].page and len(list((tmp_path / "out").iterdir())) == 6
