"""WinCLIP's numbers, preset `code`, beside those of anomalib 2.7.0."""

import pytest

from tests.helpers.golden_drawn import beyond, load
from tests.helpers.golden_winclip import winclip


@pytest.fixture(scope="module")
def rows():
    return list(winclip())


def test_no_number_is_left_out(rows):
    assert sorted(row.stage for row in rows) == sorted(load("winclip_anomalib"))


@pytest.mark.parametrize("start", ["image", "windows", "metal_nut/", "object/"])
def test_stages_equal_anomalib(rows, start):
    chosen = [row for row in rows if row.stage.startswith(start)]
    assert chosen and not beyond(chosen)


@pytest.mark.parametrize(
    ("options", "noticed"),
    [
        ({"reference_ln_post": False}, "object/reference_map"),
        ({"average": "norm-mean-norm"}, "metal_nut/patch_map"),
        ({"temperature": 0.071}, "object/image_score"),
        ({"prompt_set": "paper"}, "metal_nut/text"),
        ({"windows": (2, 3, 4)}, "object/patch_map"),
    ],
)
def test_a_planted_mistake_is_noticed(options, noticed):
    assert noticed in beyond(winclip(**options))
