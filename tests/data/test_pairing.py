"""Masks by exact stem: every rule of the order, every clash."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faprompt.data.picture_files import mask_owner_stem, pair_masks

ROOT = Path("set")


def pair(images, masks):
    return pair_masks(
        [ROOT / "images" / name for name in images], [ROOT / "masks" / name for name in masks],
        root=ROOT,
    )  # fmt: skip


@pytest.mark.parametrize(
    "mask",
    ["a.png", "a_mask.png", "a_label.bmp", "a_Segmentation.PNG", "a_segmentation.tif", "a.JPG",
     "a_mask1.jpeg", "a_mask7.tiff"],
)  # fmt: skip
def test_each_form_of_name(mask):
    found = pair(["a.jpg", "b.jpg"], [mask])
    assert found.masks == {ROOT / "images/a.jpg": (ROOT / "masks" / mask,)}
    assert found.unmasked == (ROOT / "images/b.jpg",)
    assert found.unclaimed == found.clashes == ()


@pytest.mark.parametrize(
    "mask", ["aa.png", "A.png", "a_.png", "a_Mask.png", "a_mask_1.png", "xa.png", "a_mask1x.png"]
)
def test_anything_else_is_not_its_mask(mask):
    found = pair(["a.png"], [mask])
    assert found.masks == {} and found.clashes == ()
    assert found.unclaimed == (ROOT / "masks" / mask,)


def test_numbered_masks_are_united_in_order():
    found = pair(["a.png"], ["a_mask10.png", "a_mask2.png", "a_mask1.png"])
    (masks,) = found.masks.values()
    assert [mask.name for mask in masks] == ["a_mask1.png", "a_mask2.png", "a_mask10.png"]


@pytest.mark.parametrize(
    "masks",
    [
        ["a.png", "a.bmp"],
        ["a.png", "a_mask.png"],
        ["a_mask.png", "a_mask1.png"],
        ["a_mask1.png", "a_mask1.bmp"],
        ["a_Segmentation.png", "a_segmentation.png"],
    ],
)
def test_several_candidates_clash(masks):
    found = pair(["a.jpg"], masks)
    assert found.masks == {} and found.unmasked == () and found.unclaimed == ()
    (clash,) = found.clashes
    assert clash.startswith("images/a.jpg has several masks: ")
    assert all(f"masks/{name}" in clash for name in masks)


def test_one_mask_for_two_pictures_clashes():
    found = pair(["a.jpg", "a.png", "b.png"], ["a.png", "b.png"])
    assert list(found.masks) == [ROOT / "images/b.png"]
    assert found.clashes == ("masks/a.png could be the mask of images/a.jpg, images/a.png",)
    assert found.unmasked == found.unclaimed == ()


def test_a_webp_is_no_mask_but_is_not_forgotten():
    found = pair(["a.png"], ["a.webp"])
    assert found.unmasked == (ROOT / "images/a.png",)
    assert found.unclaimed == (ROOT / "masks/a.webp",)


def test_accents_match_however_they_are_coded():
    composed, parts = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    found = pair([f"{composed}.png"], [f"{parts}_mask.png"])
    assert len(found.masks) == 1 and found.unclaimed == ()


@settings(deadline=None)
@given(st.sets(st.integers(0, 300), max_size=30), st.sets(st.integers(0, 300), max_size=30))
def test_pairs_are_the_common_stems(images, masks):
    """Against plain set arithmetic, with both lists shuffled."""
    shuffle = random.Random(len(images))
    names = [f"{n}.jpg" for n in shuffle.sample(sorted(images), len(images))]
    found = pair(names, [f"{n}_mask.png" for n in shuffle.sample(sorted(masks), len(masks))])
    assert {int(image.stem) for image in found.masks} == images & masks
    assert {int(image.stem) for image in found.unmasked} == images - masks
    assert {int(mask.stem.removesuffix("_mask")) for mask in found.unclaimed} == masks - images
    assert all(masks[0].stem == f"{image.stem}_mask" for image, masks in found.masks.items())


def test_owner_of_a_mask_name():
    assert mask_owner_stem("a_mask12") == "a"
    assert mask_owner_stem("a_label") == "a"
    assert mask_owner_stem("a_Segmentation") == "a"
    assert mask_owner_stem("a_mask_mask") == "a_mask"
    assert mask_owner_stem("mask") is None
