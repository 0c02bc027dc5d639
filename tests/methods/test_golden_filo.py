"""FiLo beside every number of its authors' own code."""

from dataclasses import replace

import pytest
import torch

from tests.helpers import golden_filo as filo


def far(rows):
    return {row.stage for row in rows if not row.distance <= row.limit}


def test_no_number_is_left_out():
    assert sorted(row.stage for row in filo.compare()) == sorted(filo.load())


def test_every_number_equals_the_authors():
    """1e-4, or 1e-5 of large values, for what is computed forward; 1e-3 of the length else."""
    assert not far(filo.compare())


def test_capitals_are_the_one_difference_of_the_boxes():
    """Their "Uneven coating" never matches, so they have no box; ours has its place."""
    case = filo.recipe_filo.DINO_CASES["capital"]
    ours = filo.ground("capital", case[1])
    assert (ours["position"], ours["inside_count"]) == (2, 104 * 104)
    assert filo.load()["big/capital/position"] == 4
    assert filo.load()["big/capital/inside_count"] == 0


@pytest.mark.parametrize(
    ("case", "wanted"),
    [("tie", {"position", "score", "map"}), ("outside", {"map", "inside_count", "inside_span"})],
)
def test_without_the_slips_of_the_boxes_the_numbers_differ(case, wanted):
    rows = filo.rows(filo.ground(case, filo.asked(case), box_slips=False), f"big/{case}/")
    assert far(rows) == {f"big/{case}/{key}" for key in wanted}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"taps": "clean"}, {"eval/map", "eval/layer_peak"}),
        ({"position_filter": "bicubic"}, {"eval/class_token"}),
        ({"temperature": 0.011}, {"eval/map", "eval/score"}),
    ],
)
def test_a_wrong_option_is_seen(options, wanted):
    built = filo.build(**options)
    pixels = filo.encode_images().pixels
    with torch.no_grad():
        features = replace(built.encode_image(filo.backbone(), pixels), pixels=None)
    assert wanted <= far(filo.rows(filo.forward_values(built, features, filo.SHOWN), "eval/"))


@pytest.mark.parametrize(
    ("options", "training", "wanted"),
    [
        ({"row_dice": False}, {}, {"stage1/step0/loss", "stage1/grad/decoder_linear.fc.0.bias"}),
        ({"adapter_temperature": 0.08}, {}, {"stage2/step0/logits"}),
        ({}, {"weight_decay": 0.0}, {"stage1/after/normal_prompt_learner.ctx"}),
        ({}, {"optimizer": "adam"}, {"stage1/after/normal_prompt_learner.ctx"}),
    ],
)
def test_a_wrong_training_is_seen(options, training, wanted):
    assert wanted <= far(filo.train(filo.build(**options), **training))
