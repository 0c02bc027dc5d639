"""The authors' checkpoints through the front door, down to their own numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from faprompt.errors import ConfigError, ModelError
from faprompt.model_folder import load_detector, read_config
from faprompt.model_import import import_reference, read_prompt_learner
from tests.golden import recipe
from tests.helpers import golden
from tests.test_model_folder import Planted

DEAD = {
    "compound_prompt_projections.0.weight": torch.zeros(896, 128),
    "compound_prompt_projections.0.bias": torch.zeros(896),
    "token_prefix_pos": torch.zeros(1, 1, 1, 128),
    "token_suffix_pos": torch.zeros(1, 1, 71, 128),
    "tokenized_prompts_pos": torch.zeros(1, 77, dtype=torch.int64),
}
FAPROMPT = {"image_size": "70"}
ANOMALYCLIP = {"image_size": "70", "map_layers": "6,12,18,24"}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The backbone as a plain state dict, and one checkpoint of each project."""
    folder = tmp_path_factory.mktemp("reference")
    torch.save(golden.clip_state(), folder / "clip.pt")
    for name, draw in (
        ("faprompt", recipe.faprompt_state),
        ("anomalyclip", recipe.anomalyclip_state),
    ):
        learner = golden.tensors(draw(golden.SEED, width=128)) | DEAD
        torch.save({"prompt_learner": learner}, folder / f"{name}.pth")
    return folder


def convert(files: Path, out: Path, *, method="faprompt", checkpoint=None, **options):
    return import_reference(
        checkpoint or files / f"{method}.pth",
        method=method,
        backbone=f"{files / 'clip.pt'}:quickgelu",
        out=out,
        options=options,
    )


def close(ours: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=0, atol=1e-4)


class TestNumbers:
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("faprompt_official", {}),
            ("faprompt_topk", {"selection": "topk"}),
            ("faprompt_topk_fp32", {"selection": "topk", "round_deep_to_half": "false"}),
        ],
    )
    def test_faprompt_gives_the_authors_scores_and_maps(self, files, tmp_path, name, options):
        left = convert(files, tmp_path / name, **FAPROMPT, **options)
        detector, file = load_detector(tmp_path / name), golden.load(name)
        with torch.no_grad():
            scores, maps = detector(golden.pixels())
        close(scores, file["eval/image_score"])
        close(maps, file["eval/anomaly_map_smoothed"])
        assert left == tuple(sorted(DEAD))
        assert detector.name == name and detector.method.config.sigma_px == 10
        assert read_config(tmp_path / name)["training"] == {"imported_from": "faprompt.pth"}

    def test_anomalyclip_gives_the_authors_scores_and_maps(self, files, tmp_path):
        convert(files, tmp_path / "model", method="anomalyclip", **ANOMALYCLIP)
        detector, file = load_detector(tmp_path / "model"), golden.load("anomalyclip")
        with torch.no_grad():
            scores, maps = detector(golden.pixels())
        close(scores, file["eval/image_score"])
        close(4 * maps, file["eval/anomaly_map_smoothed"])  # they sum the layers, we average


class TestRefusals:
    def test_a_checkpoint_that_holds_code_is_not_run(self, files, tmp_path):
        torch.save({"prompt_learner": Planted(tmp_path / "ran")}, tmp_path / "evil.pth")
        with pytest.raises(
            ModelError, match="evil.pth could not .* Nothing in it was run"
        ) as caught:
            convert(files, tmp_path / "out", checkpoint=tmp_path / "evil.pth")
        assert "weights_only" not in str(caught.value)  # torch advises to switch safety off
        assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()

    def test_the_other_projects_checkpoint(self, files, tmp_path):
        with pytest.raises(ModelError, match="lacks 'patch_meta_net.linear1.weight'"):
            convert(files, tmp_path / "out", checkpoint=files / "anomalyclip.pth")
        with pytest.raises(ModelError, match="ctx_neg"):
            convert(
                files, tmp_path / "out", method="anomalyclip", checkpoint=files / "faprompt.pth"
            )

    @pytest.mark.parametrize("method", ["faprompt", "anomalyclip"])
    def test_a_checkpoint_of_another_backbone(self, files, tmp_path, method):
        with pytest.raises(ModelError, match=r"another backbone: .*\(8, 4, 128\), test-tiny wants"):
            import_reference(
                files / f"{method}.pth", method=method, backbone="test-tiny", out=tmp_path / "out"
            )

    def test_options_that_contradict_the_shapes(self, files, tmp_path):
        with pytest.raises(ConfigError, match="says prompts=10, deep_length=4; leave these"):
            convert(files, tmp_path / "out", **FAPROMPT, prompts="5", deep_length="3")

    def test_options_that_agree_with_the_shapes(self, files, tmp_path):
        convert(files, tmp_path / "out", **FAPROMPT, prompts="10", patches=10)
        assert read_config(tmp_path / "out")["options"]["prompts"] == 10

    def test_unknown_and_unfit_options(self, files, tmp_path):
        with pytest.raises(ConfigError, match="unknown option 'size'"):
            convert(files, tmp_path / "out", size="70")
        with pytest.raises(ConfigError, match="prompts=10"):
            convert(files, tmp_path / "out", prompts="many")
        with pytest.raises(ConfigError, match="image_size=60 does not split"):
            convert(files, tmp_path / "out", image_size="60")

    def test_methods_without_reference_checkpoints(self, files, tmp_path):
        with pytest.raises(ConfigError, match="faprompt, anomalyclip can be read, not 'clip'"):
            convert(files, tmp_path / "out", method="clip")

    def test_nothing_is_written_where_anything_is_refused(self, files, tmp_path):
        with pytest.raises(ConfigError):
            convert(files, tmp_path / "out", prompts="5")
        assert not (tmp_path / "out").exists()


class TestReading:
    def test_missing_and_broken_files(self, tmp_path):
        with pytest.raises(ModelError, match="nowhere.pth does not exist"):
            read_prompt_learner(tmp_path / "nowhere.pth")
        (tmp_path / "text.pth").write_text("no checkpoint")
        with pytest.raises(ModelError, match="text.pth could not be read as plain tensors"):
            read_prompt_learner(tmp_path / "text.pth")

    @pytest.mark.parametrize("content", [{"state_dict": {}}, [1], {"prompt_learner": 3}])
    def test_files_without_a_prompt_learner(self, tmp_path, content):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ModelError, match='has no "prompt_learner"'):
            read_prompt_learner(tmp_path / "other.pth")
