"""APRIL-GAN's numbers beside those of ByChelsea/VAND-APRIL-GAN."""

import pytest

from tests.helpers.golden_april_gan import april_gan
from tests.helpers.golden_drawn import beyond, load


@pytest.fixture(scope="module")
def rows():
    return list(april_gan())


def test_no_number_is_left_out(rows):
    assert sorted(row.stage for row in rows) == sorted(load("april_gan"))


@pytest.mark.parametrize(
    "start",
    ["preprocess/", "text/", "sentences/", "eval/", "train/", "grad/", "grad_norm/", "after/"],
)
def test_stages_equal_the_authors(rows, start):
    chosen = [row for row in rows if row.stage.startswith(start)]
    assert chosen and not beyond(chosen)


@pytest.mark.parametrize(
    ("options", "noticed"),
    [
        ({"position_filter": "bilinear"}, "eval/raw_tokens_of_image_1"),
        ({"position_filter": "plain-bicubic"}, "eval/grid_logits"),
        ({"average": "mean-norm"}, "text/metal_nut"),
        ({"temperature": 0.0101}, "grad/fc.0.weight"),
    ],
)
def test_a_planted_mistake_is_noticed(options, noticed):
    assert noticed in beyond(april_gan(**options))
