"""The pictures of docs/methods.md are there, and say what the code does."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faprompt.clip.weights import load_backbone
from faprompt.methods.registry import list_methods
from scripts import make_blip_picture, make_rd4ad_picture
from tests.helpers import small

PAGE = Path(make_blip_picture.__file__).parents[1] / "docs" / "methods.md"
LIMIT_BYTES = 60_000


def sections():
    """Heading -> text, of the sections of a method or a backbone."""
    parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = dict(part.split("\n", 1) for part in parts)
    del found["Recipes"], found["Distances to public code"]
    return found


def pictures(text):
    return re.findall(r"^!\[[^]]+\]\((.+)\)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("heading", sections())
def test_every_section_has_a_picture(heading):
    assert pictures(sections()[heading])


def test_every_method_has_a_section():
    headings = " ".join(sections())
    assert [name for name in list_methods() if f"`{name}`" not in headings] == []


def test_the_pictures_are_those_of_the_folder_and_small():
    named = {PAGE.parent / path for path in pictures(PAGE.read_text(encoding="utf-8"))}
    assert named == set((PAGE.parent / "methods").iterdir())
    for path in named:
        assert path.stat().st_size <= LIMIT_BYTES, path
        with Image.open(path) as picture:
            assert picture.width <= 900, path
            picture.load()


class TestBlip:
    def test_the_columns_say_what_the_towers_do(self):
        told = [
            (
                one.image_size, one.image_size // one.spec.vision.patch_size,
                one.spec.vision.value_path_start + 1, one.spec.vision.quarter_layers, one.learned,
            )
            for one in make_blip_picture.columns()
        ]  # fmt: skip
        assert told == [
            (518, 37, 6, (6, 12, 18, 24), 4_100_064), (512, 32, 6, (3, 6, 9, 12), 577_184),
        ]  # fmt: skip

    def test_no_words_lie_on_others_or_beyond_the_sheet(self, monkeypatch, tmp_path):
        places = []

        def words(self, x, y, text, *, size=12, bold=False):
            face = make_blip_picture.font(size, bold=bold)
            places.append(self.draw.textbbox((x, y), text, font=face, anchor="lm"))

        monkeypatch.setattr(make_blip_picture.Sheet, "words", words)
        monkeypatch.setattr(make_blip_picture, "OUT", tmp_path / "blip.png")
        monkeypatch.setattr(make_blip_picture, "ROOT", tmp_path)
        make_blip_picture.main()
        width, height = make_blip_picture.SIZE
        assert len(places) > 30
        for place, (left, top, right, bottom) in enumerate(places):
            assert min(left, top) >= 0 and right <= width and bottom <= height
            assert not left < width / 2 < right or top > 664, "over the line in the middle"
            for x0, y0, x1, y1 in places[:place]:
                assert x1 <= left or right <= x0 or y1 <= top or bottom <= y0
        with Image.open(tmp_path / "blip.png") as drawn:
            assert drawn.size == (width, height)


class TestRD4AD:
    def test_one_thing_is_drawn_again_and_again_with_the_defects_last(self, monkeypatch):
        monkeypatch.setattr(make_rd4ad_picture, "NORMAL", 2)
        monkeypatch.setattr(make_rd4ad_picture, "SIZE", 48)
        images, again = make_rd4ad_picture.draw(), make_rd4ad_picture.draw()
        assert len(images) == 2 + len(make_rd4ad_picture.SHOWN)
        assert {(image.shape, image.dtype.name) for image in images} == {((48, 48, 3), "uint8")}
        assert all(np.array_equal(a, b) for a, b in zip(images, again, strict=True))

    def test_settled_norms_have_the_statistics_of_the_pictures(self):
        teacher, pixels = load_backbone("test-wide-resnet"), small.pixels(3, 64, 64)
        make_rd4ad_picture.settle(teacher, pixels)
        first = teacher.vision.conv1(pixels)
        norm = teacher.vision.bn1
        torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3)))
        torch.testing.assert_close(norm.running_var, first.var((0, 2, 3)))
        assert not any(module.training for module in teacher.modules())
        torch.testing.assert_close(
            norm(first).mean((0, 2, 3)), torch.zeros(len(norm.running_mean)), atol=1e-4, rtol=0
        )
