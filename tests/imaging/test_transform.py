"""The model's view of a picture, compared with torchvision's steps written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from faprompt.errors import ConfigError
from faprompt.imaging.map_rendering import resize_map
from faprompt.imaging.transform import Transform, shorter_edge_size
from faprompt.records import CLIP_MEAN, CLIP_STD
from tests.imaging.files import colours


@pytest.mark.parametrize("shape", [(37, 61), (90, 20), (1, 1), (24, 24), (300, 200)])
@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
def test_equals_resize_to_tensor_normalize(shape, name):
    image = colours(*shape)
    pixels = torch.from_numpy(Transform((20, 28), interpolation=name).to_pixels(image))
    picture = Image.fromarray(image).resize((28, 20), getattr(Image.Resampling, name.upper()))
    scaled = np.asarray(picture).astype(np.float32) / np.float32(255)
    expected = (scaled - np.float32(CLIP_MEAN)) / np.float32(CLIP_STD)
    assert pixels.dtype == torch.float32 and pixels.is_contiguous()
    np.testing.assert_array_equal(pixels.numpy(), expected.transpose(2, 0, 1))


def test_clip_constants():
    assert CLIP_MEAN == (0.48145466, 0.4578275, 0.40821073)
    assert CLIP_STD == (0.26862954, 0.26130258, 0.27577711)


def test_resizing_antialiases():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = torch.from_numpy(Transform((8, 8), mean=(0, 0, 0), std=(1, 1, 1)).to_pixels(stripes))
    assert (pixels - 0.5).abs().max() < 0.05


def squashed(image: np.ndarray, size: tuple[int, int], *, first: str) -> np.ndarray:
    """A picture brought to (height, width) by Pillow, one axis at a time, rounded in between."""
    height, width = size
    half = (image.shape[1], height) if first == "height" else (width, image.shape[0])
    cubic = Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize(half, cubic).resize((width, height), cubic))


def grey_levels(pixels: torch.Tensor) -> np.ndarray:
    return (255 * pixels).round().permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "side", "first"),
    [
        ((300, 40), 56, "height"),
        ((1500, 37), 56, "height"),
        ((5000, 3), 56, "height"),
        ((530, 400), 518, "height"),
        ((1000, 500), 518, "height"),
        ((300, 40), 518, "width"),  # no side shrinks
        ((40, 300), 56, "width"),
        ((3, 5000), 56, "width"),
        ((500, 1000), 518, "width"),
        ((600, 600), 518, "width"),
    ],
)
def test_tall_pictures_shrink_in_height_first(shape, side, first):
    """Pillow 13 begins with the axis that leaves less to do, Pillow 12 always with the width."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    plain = Transform((side, side), mean=(0, 0, 0), std=(1, 1, 1))
    found = grey_levels(torch.from_numpy(plain.to_pixels(image)))
    other = {"height": "width", "width": "height"}[first]
    np.testing.assert_array_equal(found, squashed(image, (side, side), first=first))
    assert (found != squashed(image, (side, side), first=other)).any()


@pytest.mark.parametrize(
    ("shape", "red"),
    [
        ((60, 3), [[100, 122, 121, 96], [129, 111, 107, 119],
                   [126, 110, 110, 126], [124, 134, 152, 167]]),
        ((400, 2), [[121, 121, 119, 119], [117, 123, 136, 142],
                    [119, 119, 120, 120], [118, 120, 124, 126]]),
        ((3, 60), [[127, 143, 98, 116], [139, 134, 111, 108],
                   [134, 139, 133, 125], [116, 153, 150, 156]]),
        ((2, 400), [[117, 119, 119, 120], [118, 122, 122, 120],
                    [121, 130, 126, 121], [122, 133, 129, 121]]),
    ],
)  # fmt: skip
def test_the_pixels_of_very_tall_and_very_wide_pictures(shape, red):
    """As Pillow 13.0 gives them, in whole numbers on every processor."""
    row, column, channel = np.indices((*shape, 3))
    image = (37 * row**2 + 101 * column**2 + 13 * row * column + 59 * channel) % 256
    plain = Transform((4, 4), mean=(0, 0, 0), std=(1, 1, 1))
    found = grey_levels(torch.from_numpy(plain.to_pixels(image.astype(np.uint8))))
    assert found[..., 0].tolist() == red


def test_dict_and_back():
    transform = Transform((518, 224), mean=(0.1, 0.2, 0.3), std=(1, 2, 3), interpolation="bilinear")
    values = transform.to_dict()
    assert values["image_size"] == [518, 224]
    assert Transform.from_dict(values) == transform
    assert hash(Transform.from_dict(values)) == hash(transform)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": [8, 8], "crop": 4}, "crop"),
        ({}, "image_size"),
        ({"image_size": [8]}, "two whole numbers"),
        ({"image_size": [8, 0]}, "two whole numbers"),
        ({"image_size": [8, 8], "mean": [0.1, 0.2]}, "three values"),
        ({"image_size": [8, 8], "std": [1.0, 0.0, 1.0]}, "std should be above 0"),
        ({"image_size": [8, 8], "interpolation": "nearest"}, "nearest"),
    ],
)
def test_values_that_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Transform.from_dict(values)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((3, 8, 8), np.uint8)]
)
def test_arrays_that_are_refused(image):
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        Transform((4, 4)).to_pixels(image)


def bilinear_by_hand(score_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear with pixel centres kept in place, one axis after the other."""

    def along(values: np.ndarray, count: int) -> np.ndarray:
        n = len(values)
        position = np.clip((np.arange(count) + 0.5) * n / count - 0.5, 0, n - 1)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, n - 1)
        share = (position - low)[:, None]
        return values[low] * (1 - share) + values[high] * share

    return along(along(score_map.astype(np.float64), size[0]).T, size[1]).T


@pytest.mark.parametrize("size", [(30, 50), (7, 9), (3, 4), (1, 1), (7, 40), (20, 1)])
def test_resize_map_equals_bilinear_by_hand(size):
    score_map = np.random.default_rng(1).random((7, 9), dtype=np.float32)
    resized = resize_map(score_map, size)
    assert resized.dtype == np.float32 and resized.shape == size
    np.testing.assert_allclose(resized, bilinear_by_hand(score_map, size), atol=1e-6)


def test_resize_map_stays_in_range_and_gives_a_new_array():
    corners = np.random.default_rng(2).integers(0, 2, (13, 11)).astype(np.float32)
    resized = resize_map(corners, (501, 333))
    assert resized.min() >= 0 and resized.max() <= 1
    same = resize_map(corners, corners.shape)
    np.testing.assert_array_equal(same, corners)
    assert not np.shares_memory(same, corners)


def test_rounding_never_leaves_the_range():
    over = []
    for side in range(1, 40):  # plain interpolation of ones gives 1.0000001 for some of these
        resized = resize_map(np.ones((side, side), np.float32), (2 * side + 50, 57))
        over.append(float(resized.max()))
    assert max(over) == 1.0


def test_resize_map_wants_two_axes():
    with pytest.raises(ValueError, match=r"\(height, width\)"):
        resize_map(np.zeros((1, 4, 4), np.float32), (8, 8))


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((1070, 1404), (56, 73)), ((96, 128), (56, 74)), ((128, 96), (74, 56)), ((7, 7), (56, 56)),
        ((10, 159), (56, 890)),
    ],
)  # fmt: skip
def test_the_longer_edge_is_rounded_down(size, wanted):
    """As in torchvision's `Resize`: 56 * 1404 / 1070 is 73.48, and 56 * 128 / 96 is 74.67."""
    assert shorter_edge_size(size, 56) == wanted


def test_a_very_long_picture_does_not_fill_the_memory():
    assert shorter_edge_size((2, 20_000), 240) == (240, 16 * 240)
