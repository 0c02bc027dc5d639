"""A BLIP folder as the backbone of `predict` and `train`."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from faprompt.model_folder import read_config  # noqa: E402
from tests.helpers import blip_files, folders, small  # noqa: E402


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return blip_files.write(tmp_path_factory.mktemp("blip"))


def scores(told):
    assert told.code == 0
    return [float(line.split("\t")[1]) for line in told.lines]


def test_clip_scores_a_picture(faprompt, blip, tmp_path):
    small.picture_file(tmp_path / "one.png")
    told = faprompt(
        "predict", tmp_path / "one.png", "--method", "clip", "--backbone", blip, "--device", "cpu",
        "--set", "image_size=56", "--out", tmp_path / "out",
    )  # fmt: skip
    assert len(scores(told)) == 1


def test_faprompt_is_trained_saved_and_used(faprompt, blip, tmp_path):
    folders.mvtec_class(
        tmp_path / "shelf" / "mug", normal={"good": ["8.png"]}, defects={"chip": ["0.png"]}
    )
    told = faprompt(
        "train", tmp_path / "shelf", "--backbone", blip, "--device", "cpu", "--set", "prompts=2",
        "--set", "image_size=56", "--set", "epochs=1", "--set", "cache=off",
        "--out", tmp_path / "model",
    )  # fmt: skip
    assert told.code == 0
    assert read_config(tmp_path / "model")["backbone"]["name"] == str(blip)
    pictures = [small.picture_file(tmp_path / f"{seed}.png", seed=seed) for seed in (1, 2)]
    told = faprompt(
        "predict", *pictures, "--model", tmp_path / "model", "--out", tmp_path / "out",
        "--device", "cpu",
    )  # fmt: skip
    found = scores(told)
    assert len(found) == 2 and found[0] != found[1]
