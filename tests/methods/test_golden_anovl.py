"""AnoVL's numbers beside those of hq-deng/AnoVL: its script for MVTec AD and that for VisA."""

import pytest

from faprompt.methods import anovl
from tests.helpers.golden_anovl import (
    anovl_adapted,
    anovl_mvtec,
    anovl_plain,
    anovl_towers,
    anovl_visa,
)
from tests.helpers.golden_drawn import beyond, load


@pytest.fixture(scope="module")
def rows():
    return list(anovl_mvtec())


@pytest.fixture(scope="module")
def visa_rows():
    return list(anovl_visa())


def test_no_number_is_left_out(rows, visa_rows):
    assert sorted(row.stage for row in rows) == sorted(load("anovl"))
    assert sorted(row.stage for row in visa_rows) == sorted(load("anovl_visa"))


@pytest.mark.parametrize(
    "start", ["preprocess/", "plain/", "adapted/", "linear/", "resized/", "deep/"]
)
def test_stages_equal_the_authors(rows, start):
    chosen = [row for row in rows if row.stage.startswith(start)]
    assert chosen and not beyond(chosen)


@pytest.mark.parametrize("start", ["visa/", "visa_adapted/"])
def test_two_squares_equal_the_authors_script_for_visa(visa_rows, start):
    chosen = [row for row in visa_rows if row.stage.startswith(start)]
    assert chosen and not beyond(chosen)


@pytest.mark.parametrize(
    ("compare", "options", "noticed"),
    [
        (anovl_plain, {"average": "norm-mean-norm"}, "plain/anomaly_map"),
        (anovl_plain, {"temperature": 0.99}, "plain/image_score"),
        (anovl_plain, {"value_blocks": 11}, "plain/patch_tokens"),
        (anovl_towers, {"position_filter": "bilinear"}, "resized/patch_tokens_of_image_0"),
        (anovl_towers, {"position_filter": "plain-bicubic"}, "resized/view_scores"),
    ],
)
def test_a_planted_mistake_is_noticed(compare, options, noticed):
    assert noticed in beyond(compare(**options))


@pytest.mark.parametrize("options", [{"carry_moments": False}, {"learning_rate": 1.1e-3}])
@pytest.mark.parametrize(("start", "adapter"), [("adapted", "prompts"), ("linear", "linear")])
def test_a_mistake_in_the_adapter_is_noticed(start, adapter, options):
    found = beyond(anovl_adapted(start, adapter=adapter, **options))
    assert {f"{start}/anomaly_map", f"{start}/after/weight_of_image_1"} <= found


def test_moments_that_both_macaronis_share_are_noticed(monkeypatch):
    adapt = anovl.AnoVL.adapt

    def by_word(self, tokens, text, class_name, layout, *, moments_of):
        return adapt(self, tokens, text, class_name, layout, moments_of=class_name)

    monkeypatch.setattr(anovl.AnoVL, "adapt", by_word)
    assert beyond(anovl_visa()) == {"visa_adapted/anomaly_map"}


def test_a_loss_of_single_patches_is_noticed(monkeypatch):
    """The script for VisA takes it over the pixels of both squares together."""
    plain = anovl.AnoVL._logits

    def of_patches(self, tokens, pair, layout):
        return plain(self, tokens, pair, anovl.PatchLayout(layout.grid, layout.patch_size))

    monkeypatch.setattr(anovl.AnoVL, "_logits", of_patches)
    assert "visa_adapted/loss" in beyond(anovl_visa())
