"""`faprompt train`, then `evaluate` and `predict` with what it wrote, on a very small set."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from faprompt.calibration import Calibration, GoodScores
from faprompt.evaluation.saved_progress import PROGRESS_NAME, Progress
from faprompt.model_folder import read_config
from faprompt.models import build_detector, load_detector
from tests.helpers import folders

SMALL = [
    "--backbone", "test-tiny", "--device", "cpu", "--set", "image_size=56", "--set", "epochs=1",
    "--set", "cache=off", "--set", "batch_size=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("mug", "nut"):
        folders.mvtec_class(
            folder / name,
            normal={"good": ["8.png", "9.png", "10.png"]},
            defects={"chip": ["0.png", "1.png"], "dent": ["2.png"]},
        )
    return folder


@pytest.fixture
def model(faprompt, shelf, tmp_path):
    told = faprompt(
        "train", shelf, *SMALL, "--set", "prompts=2", "--out", tmp_path / "model",
        "--name", "mugs and nuts",
    )  # fmt: skip
    assert told.code == 0 and told.lines == [f"wrote {tmp_path / 'model'}"]
    assert "4 steps on 12 pictures" in told.err
    return tmp_path / "model"


def test_training_writes_a_model_that_can_be_measured_and_used(faprompt, shelf, model, tmp_path):
    config = read_config(model)
    assert (config["name"], config["method"]) == ("mugs and nuts", "faprompt")
    assert config["options"]["prompts"] == 2 and config["options"]["selection"] == "topk"
    training = config["training"]
    assert (training["pictures"], training["normal"], training["epochs"]) == (12, 6, 1)
    assert set(training["final_losses"]) >= {"local", "image_focal", "orthogonal", "prior"}
    assert (model / "loss.csv").is_file()

    told = faprompt(
        "evaluate", shelf, "--model", model, "--out", tmp_path / "figures", "--device", "cpu"
    )
    assert told.code == 0 and told.out == (tmp_path / "figures" / "metrics.md").read_text()
    metrics = json.loads((tmp_path / "figures" / "metrics.json").read_text())
    assert (metrics["model"], metrics["backbone"]) == ("mugs and nuts", "test-tiny")
    assert set(metrics["classes"]) == {"mug", "nut"} and metrics["undefined"] == {}
    with (tmp_path / "figures" / "scores.csv").open(newline="") as file:
        scores = {line["path"]: float(line["score"]) for line in csv.DictReader(file)}

    picture = shelf / "mug" / "test" / "chip" / "0.png"
    told = faprompt("predict", picture, "--model", model, "--out", tmp_path / "out", "--json",
                    "--device", "cpu")  # fmt: skip
    assert json.loads(told.out)["score"] == pytest.approx(scores[str(picture)], abs=1e-5)


@pytest.mark.parametrize("more", [[], ["--set", "batch_size=12"]])
def test_a_training_that_diverges_says_so_and_writes_nothing(faprompt, shelf, more, tmp_path):
    """In the second step; or after the only one, whose loss is still finite."""
    options = [*SMALL[: -2 if more else None], *more, "--set", "learning_rate=1e12"]
    told = faprompt("train", shelf, *options, "--out", tmp_path / "model")
    assert told.code == 1 and "is not finite: " in told.err
    assert "A lower learning_rate often helps" in told.err and "Traceback" not in told.err
    written = {path.name for path in (tmp_path / "model").iterdir()}
    assert not written & {"config.json", "model.safetensors", "checkpoint.safetensors"}
    told = faprompt("train", shelf, *options, "--out", tmp_path / "model", "--resume")
    assert told.code == 1 and "is not finite: " in told.err


def test_pictures_of_one_kind_are_said_on_the_terminal_and_in_the_model(faprompt, tmp_path):
    folders.mvtec_class(tmp_path / "set" / "mug", normal={"good": folders.names(3)}, defects={})
    told = faprompt("train", tmp_path / "set", *SMALL, "--out", tmp_path / "model")
    assert told.code == 0
    line = "All 3 pictures are normal: what an anomalous picture looks like cannot be learned"
    assert line in told.err
    assert line in read_config(tmp_path / "model")["training"]["warnings"]
    assert line in (tmp_path / "model" / "README.md").read_text()


def test_a_finished_training_is_the_same_again(faprompt, shelf, model, tmp_path):
    told = faprompt("train", shelf, *SMALL, "--set", "prompts=2", "--out", tmp_path / "again")
    assert told.code == 0
    first, second = (load_detector(tmp_path / name) for name in ("model", "again"))
    pairs = zip(first.method.parameters(), second.method.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert read_config(tmp_path / "again")["name"] == "again"


def test_a_resumed_training_is_the_uninterrupted_one(faprompt, shelf, model, tmp_path):
    longer = [part if part != "epochs=1" else "epochs=2" for part in SMALL]
    command = ["train", shelf, *longer, "--set", "prompts=2", "--out"]
    resumed = faprompt(*command, model, "--resume")
    assert resumed.code == 0 and "Resumed after step 4 of 8" in resumed.err
    assert faprompt(*command, tmp_path / "whole").code == 0
    first, second = (load_detector(folder) for folder in (model, tmp_path / "whole"))
    pairs = zip(first.method.parameters(), second.method.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_official_preset_and_another_method(faprompt, shelf, tmp_path):
    told = faprompt(
        "train", shelf, *SMALL, "--method", "anomalyclip", "--preset", "official",
        "--out", tmp_path / "model",
    )  # fmt: skip
    config = read_config(tmp_path / "model")
    assert told.code == 0 and config["method"] == "anomalyclip"
    assert config["training"]["preset"] == "official" and config["options"]["round_deep_to_half"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--method", "clip"], 2, "'clip' needs no training"),
        (["--method", "magic"], 2, "No method 'magic'"),
        (["--preset", "mine"], 2, "no preset 'mine'; known: paper, official"),
        (["--set", "epoch=3"], 2, "unknown option 'epoch'"),
        (["--set", "epochs=none"], 2, "epochs: "),
        (["--set", "learning_rate=-1"], 2, "learning_rate should be above 0"),
        (["--set", "image_size=42"], 2, "patches=10 feed the prior, but image_size=42"),
        (["--dataset", "mvtek"], 2, "There is no dataset 'mvtek'"),
    ],
)
def test_training_refusals(faprompt, shelf, tmp_path, arguments, code, told):
    own = {part.split("=")[0] for part in arguments if "=" in part}
    pairs = zip(SMALL[::2], SMALL[1::2], strict=True)  # an option may be given once only
    base = [part for pair in pairs if pair[1].split("=")[0] not in own for part in pair]
    outcome = faprompt("train", shelf, *base, *arguments, "--out", tmp_path / "model")
    assert outcome.code == code and told in outcome.err
    assert not (tmp_path / "model" / "model.safetensors").exists()


class TestEvaluate:
    CLIP = ["--method", "clip", "--backbone", "test-tiny", "--set", "image_size=56"]
    CLIP += ["--device", "cpu"]

    @pytest.fixture(autouse=True)
    def undrawn(self, monkeypatch):
        monkeypatch.setattr("faprompt.evaluation.metric_files._plot", lambda *_, **__: None)

    def test_json_goes_to_stdout(self, faprompt, shelf, tmp_path):
        told = faprompt("evaluate", shelf, *self.CLIP, "--out", tmp_path, "--json")
        assert told.code == 0
        assert json.loads(told.out) == json.loads((tmp_path / "metrics.json").read_text())
        assert json.loads(told.out)["method"] == "clip"

    def test_options_reach_the_workshop(self, faprompt, shelf, tmp_path):
        told = faprompt(
            "evaluate", shelf, *self.CLIP, "--out", tmp_path, "--json", "--by-defect",
            "--resolution", "picture", "--fpr-limit", "0.1", "--batch-size", "5",
            "--replicates", "40", "--gallery", "1", "--pro-200", "--mask-policy", "strict",
        )  # fmt: skip
        found = json.loads(told.out)
        assert set(found["classes"]) == {"mug/chip", "mug/dent", "nut/chip", "nut/dent"}
        assert found["settings"] == {
            "batch_size": 5, "resolution": "picture", "fpr_limit": 0.1,
            "mask_policy": "strict", "by_defect": True,
            "replicates": 40, "gallery": 1, "pro_200": True, "product": None,
        }  # fmt: skip
        assert "pro_200" in found["mean"] and found["resolution"] == "picture"
        with (tmp_path / "gallery" / "gallery.csv").open(newline="") as file:
            assert {line["rank"] for line in csv.DictReader(file)} == {"1"}

    def test_an_interrupted_run_goes_on(self, faprompt, shelf, tmp_path, monkeypatch):
        command = ["evaluate", shelf, *self.CLIP, "--replicates", "40", "--gallery", "0"]
        command += ["--batch-size", "3", "--json", "--out"]
        whole = json.loads(faprompt(*command, tmp_path / "whole").out)
        save = Progress.save_if_due

        def save_and_stop(self, images, groups):
            self._due = 0.0
            save(self, images, groups)
            if len(images) == 6:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Progress, "save_if_due", save_and_stop)
            assert faprompt(*command, tmp_path / "out").code != 0
        kept = (tmp_path / "out" / PROGRESS_NAME).read_bytes()
        told = faprompt(*command, tmp_path / "out")
        assert "going on after 6 of" in told.err and json.loads(told.out) == whole
        assert not (tmp_path / "out" / PROGRESS_NAME).exists()
        (tmp_path / "out" / PROGRESS_NAME).write_bytes(kept)
        told = faprompt(*command, tmp_path / "out", "--no-resume")
        assert "going on" not in told.err and json.loads(told.out) == whole

    def test_several_folders_have_a_folder_each(self, faprompt, shelf, tmp_path):
        both = [shelf / "mug", shelf / "nut"]
        told = faprompt("evaluate", *both, *self.CLIP, "--out", tmp_path / "out", "--json")
        assert told.code == 0 and len(json.loads(told.out)) == 2
        written = sorted(path.parent.name for path in (tmp_path / "out").glob("*/metrics.json"))
        assert [name.split("-")[0] for name in written] == ["1", "2"]

    def test_a_calibrated_model_has_rates_at_its_thresholds(self, faprompt, shelf, tmp_path):
        detector = build_detector("clip", "test-tiny", options={"image_size": 56}, device="cpu")
        detector = detector.with_setup(tiles=2)
        low, high = (GoodScores(np.full(19, score), np.ones(19)) for score in (0.0, 1.0))
        known = Calibration(
            products={"mug": low, "cup": high}, decided_by=detector.decided_by(), target_fpr=0.05
        )
        detector.with_setup(calibration=known).save_pretrained(tmp_path / "model")
        command = ["evaluate", shelf, "--model", tmp_path / "model", "--device", "cpu"]
        command += ["--replicates", "0", "--gallery", "0", "--out", tmp_path / "out"]
        told = faprompt(*command)
        assert told.code == 2 and "Class nut: " in told.err and "cup, mug" in told.err
        told = faprompt(*command, "--product", "cup", "--json")
        rates = json.loads(told.out)["verdicts"]["all"]
        assert (rates["normal"]["total"], rates["normal"]["ng"]["count"]) == (6, 0)
        told = faprompt(*command, "--class", "mug")
        assert told.code == 0 and "| mug | 3 | 100.0 [29.2, 100.0] |" in told.out
        assert "detected: NG" in (tmp_path / "out" / "metrics.md").read_text()
        told = faprompt(*command, "--tiles", "3")
        assert told.code != 0 and "tiles" in told.err

    def test_unreadable_pictures_are_exit_3(self, faprompt, tmp_path):
        folders.mvtec_class(
            tmp_path / "mug",
            normal={"good": ["8.png", "9.png"]},
            defects={"chip": ["0.png", "1.png"]},
        )
        broken = tmp_path / "mug" / "test" / "chip" / "1.png"
        broken.write_bytes(b"")
        told = faprompt("evaluate", tmp_path / "mug", *self.CLIP, "--out", tmp_path / "out")
        assert told.code == 3 and "1 pictures could not be read." in told.out
        metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert [entry["path"] for entry in metrics["unreadable"]] == [str(broken)]

    @pytest.mark.parametrize(
        ("arguments", "code", "told"),
        [
            (["--replicates", "7"], 2, "replicates should be 0 (no intervals) or at least 40"),
            (["--fpr-limit", "2"], 2, "fpr_limit should be above 0 and at most 1, got 2.0"),
            (["--dataset", "mvtek"], 2, "There is no dataset 'mvtek'"),
            (["--model", "x"], 2, "Got both --model and --method; give"),
        ],
    )
    def test_refusals(self, faprompt, shelf, tmp_path, arguments, code, told):
        outcome = faprompt("evaluate", shelf, *self.CLIP, *arguments, "--out", tmp_path / "out")
        assert outcome.code == code and told in outcome.err
        assert not (tmp_path / "out").exists()


def test_shards_of_an_evaluation_are_merged(faprompt, shelf, tmp_path):
    measure = ("evaluate", shelf, "--method", "clip", "--backbone", "test-tiny", "--device", "cpu",
               "--gallery", 0)  # fmt: skip
    whole = faprompt(*measure, "--out", tmp_path / "whole")
    for shard in ("1/2", "2/2"):
        told = faprompt(*measure, "--out", tmp_path / "parts", "--shard", shard)
        assert told.code == 0 and f"shard {shard}: 6 pictures in 1 chunks" in told.err
        if shard == "1/2":
            early = faprompt("merge", tmp_path / "parts")
            assert early.code == 1 and "2/2" in early.err
    merged = faprompt("merge", tmp_path / "parts")
    assert (merged.code, merged.out) == (0, whole.out)
    for name in ("metrics.json", "scores.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    refused = faprompt("merge", tmp_path / "parts", "--title", "Lot 7")
    assert refused.code == 2 and "--title" in refused.err
