"""`faprompt models` and `doctor`."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from faprompt.errors import ModelError
from faprompt.model_folder import read_config
from faprompt.models import load_detector
from tests.golden import recipe
from tests.helpers import golden, small


@pytest.fixture
def checkpoint(tmp_path):
    learner = golden.tensors(recipe.faprompt_state(1, width=64, prompts=3, depth=2, patches=4))
    learner["token_prefix_pos"] = torch.zeros(1, 1, 1, 64)
    torch.save({"prompt_learner": learner}, tmp_path / "epoch_7.pth")
    return tmp_path / "epoch_7.pth"


def test_the_list_has_methods_backbones_and_models(faprompt):
    told = faprompt("models", "list", "--json")
    found = json.loads(told.out)
    assert told.code == 0 and list(found) == ["methods", "backbones", "models"]
    methods = {row["name"]: row for row in found["methods"]}
    assert methods["faprompt"]["parameters"] == 4_100_064
    assert methods["faprompt"]["reported_parameters"] == 9_612_256
    assert methods["anomalyclip"]["presets"] == ["paper", "official", "common"]
    assert methods["clip"] == {
        "name": "clip", "kind": "training-free", "presets": ["paper", "common"],
        "backbones": dict.fromkeys(["paper", "common"], "ViT-L-14-336"), "parameters": 0,
        "reported_parameters": 0,
    }  # fmt: skip
    assert methods["winclip"]["backbones"] == {
        "paper": "ViT-B-16-plus-240:laion400m_e31", "common": "ViT-L-14-336",
        "code": "ViT-B-16-plus-240:laion400m_e31",
    }  # fmt: skip
    assert methods["rd4ad"]["backbones"] == {"paper": "wide_resnet50_2"}
    assert "ViT-L-14-336" in {row["name"] for row in found["backbones"]}


def test_the_list_for_people(faprompt):
    told = faprompt("models", "list")
    assert told.code == 0
    headings = [line for line in told.lines if not line.startswith(" ")]
    assert headings == ["methods", "backbones", "models"]
    assert any(line.split()[0] == "faprompt" for line in told.lines)
    (patchcore,) = (line for line in told.lines if line.split()[0] == "patchcore")
    assert "backbones wide_resnet50_2 (paper, code); ViT-L-14-336 (common)," in patchcore


class TestConvert:
    def test_a_checkpoint_becomes_a_folder(self, faprompt, checkpoint, tmp_path):
        out = tmp_path / "model"
        told = faprompt(
            "models", "convert", checkpoint, "--method", "faprompt", "--backbone", "test-tiny",
            "--out", out, "--selection", "topk", "--rank-by", "similarity",
            "--set", "image_size=56",
        )  # fmt: skip
        assert told.code == 0
        assert told.lines == [
            f"wrote {out}; 1 tensors were dropped, because no forward pass reads them"
        ]
        options = read_config(out)["options"]
        assert (options["selection"], options["rank_by"]) == ("topk", "similarity")
        assert (options["prompts"], options["patches"], options["image_size"]) == (3, 4, 56)
        assert options["focal_as_logit"] and options["round_deep_to_half"]  # the code's preset
        assert load_detector(out).predict(small.picture()).score > 0

    def test_without_words_it_selects_as_the_released_code(self, faprompt, checkpoint, tmp_path):
        told = faprompt(
            "models", "convert", checkpoint, "--method", "faprompt", "--backbone", "test-tiny",
            "--out", tmp_path / "model",
        )  # fmt: skip
        options = read_config(tmp_path / "model")["options"]
        assert told.code == 0
        assert (options["selection"], options["rank_by"]) == ("first", "probability")

    @pytest.mark.parametrize(
        ("arguments", "code", "told"),
        [
            (["--method", "anomalyclip"], 1, "ctx_neg"),
            (["--method", "faprompt", "--set", "prompts=5"], 2, "says prompts=3"),
            (["--method", "faprompt", "--backbone", "nowhere.pt"], 1, "No backbone"),
            (["--method", "april-gan"], 1, 'no "trainable_linearlayer"'),
        ],
    )
    def test_refusals(self, faprompt, checkpoint, tmp_path, arguments, code, told):
        command = ["models", "convert", checkpoint, "--backbone", "test-tiny"]
        outcome = faprompt(*command, *arguments, "--out", tmp_path / "model")
        assert outcome.code == code and told in outcome.err
        assert not (tmp_path / "model").exists()


def test_info_tells_what_a_model_is(faprompt, tmp_path):
    small.detector(prompts=2).save_pretrained(tmp_path / "model")
    text = faprompt("models", "info", tmp_path / "model")
    assert text.code == 0 and "# small-faprompt" in text.out and "Not recorded." in text.out
    told = faprompt("models", "info", tmp_path / "model", "--json")
    assert json.loads(told.out) == read_config(tmp_path / "model")
    missing = faprompt("models", "info", tmp_path / "nowhere")
    assert missing.code == 1 and "No model" in missing.err


def test_fetch_prints_the_file_and_its_hash(faprompt, monkeypatch):
    monkeypatch.setattr(
        "faprompt.clip.known_backbones.fetch_backbone",
        lambda name: SimpleNamespace(path=f"cache/{name}.pt", sha256="ab" * 32),
    )
    told = faprompt("models", "fetch", "ViT-B-32")
    assert told.code == 0 and told.lines == ["cache/ViT-B-32.pt", f"sha256 {'ab' * 32}"]


class TestDoctor:
    def test_it_tells_versions_devices_speed_and_extras(self, faprompt, monkeypatch):
        monkeypatch.setattr("faprompt.models.load_detector", lambda name: small.detector())
        found = json.loads(faprompt("doctor", "--json").out)
        assert list(found) == ["versions", "device", "speed", "extras"]
        assert found["versions"]["torch"] and found["versions"]["faprompt"]
        assert found["speed"]["small, one 518x518"].endswith(" ms")
        assert set(found["extras"]) >= {"parquet", "tensorboard"}

    def test_it_compares_precisions_on_pictures(self, faprompt, monkeypatch, tmp_path):
        monkeypatch.setattr("faprompt.models.load_detector", lambda name: small.detector())
        Image.new("RGB", (64, 64), "grey").save(tmp_path / "a.png")
        found = json.loads(faprompt("doctor", tmp_path, "--json").out)["precision"]
        assert list(found) == ["fp32", "bf16", "int8"]
        assert "scores change by up to" in found["int8"]
        told = faprompt("doctor", "--model", "tiny")
        assert told.code == 2 and "give PICTURES as well" in told.err

    def test_it_survives_what_is_missing(self, faprompt, monkeypatch):
        def load(name):
            raise ModelError("the bundled model is not here")

        monkeypatch.setattr("faprompt.models.load_detector", load)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        told = faprompt("doctor")
        assert told.code == 0
        assert "not measured: the bundled model is not here" in told.out
        assert "missing; pip install 'faprompt[parquet]' for predict --table parquet" in told.out
