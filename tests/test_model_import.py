"""The authors' checkpoints through the front door, down to their own numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from faprompt.clip.vision import ImageOptions
from faprompt.errors import ConfigError, ModelError
from faprompt.model_folder import read_config
from faprompt.model_import import import_reference, read_checkpoint
from faprompt.models import load_detector
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
WIDTH, EMBED = golden.backbone().spec.vision.width, golden.backbone().spec.embed_dim


def april_layers(count: int = 4, *, width: int = WIDTH, seed: int = 7) -> dict[str, torch.Tensor]:
    """Linear layers as APRIL-GAN's train.py names them, drawn."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for number in range(count):
        state[f"fc.{number}.weight"] = torch.randn(EMBED, width, generator=generator) / 8
        state[f"fc.{number}.bias"] = torch.randn(EMBED, generator=generator) / 8
    return state


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
    torch.save({"trainable_linearlayer": april_layers()}, folder / "april-gan.pth")
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
        assert read_config(tmp_path / name)["training"] == {
            "imported_from": "faprompt.pth",
            "preset": "official",
        }

    def test_anomalyclip_gives_the_authors_scores_and_maps(self, files, tmp_path):
        convert(files, tmp_path / "model", method="anomalyclip", **ANOMALYCLIP)
        detector, file = load_detector(tmp_path / "model"), golden.load("anomalyclip")
        with torch.no_grad():
            scores, maps = detector(golden.pixels())
        close(scores, file["eval/image_score"])
        close(4 * maps, file["eval/anomaly_map_smoothed"])  # they sum the layers, we average


class TestAprilGAN:
    def test_maps_are_those_of_the_drawn_layers(self, files, tmp_path):
        """Slowly: each layer of the file on its quarter's tokens, a softmax of upsampled logits."""
        left = convert(files, tmp_path / "model", method="april-gan", image_size="70")
        detector, drawn = load_detector(tmp_path / "model"), april_layers()
        assert left == () and detector.method.image_options.layers == (6, 12, 18, 24)
        assert read_config(tmp_path / "model")["options"]["position_filter"] == "bicubic"
        with torch.no_grad():
            options = ImageOptions(
                layers=(6, 12, 18, 24), value_path=False, class_ln_post=True, raw_tokens=True,
                position_filter="bicubic",
            )  # fmt: skip
            tokens = golden.backbone().encode_image(golden.pixels(), options).patch_tokens
            found = detector.encode(golden.pixels())
        pair = detector.method.text_pair
        for number, layer in enumerate((6, 12, 18, 24)):
            weight, bias = drawn[f"fc.{number}.weight"], drawn[f"fc.{number}.bias"]
            words = torch.stack([weight @ t + bias for t in tokens[layer].reshape(-1, WIDTH)])
            cosines = torch.cosine_similarity(words[:, None], pair[None], dim=-1)
            planes = 100 * cosines.reshape(len(golden.pixels()), 5, 5, 2).permute(0, 3, 1, 2)
            up = torch.nn.functional.interpolate(
                planes, size=70, mode="bilinear", align_corners=True
            )
            close(found.layer_maps[number], up.softmax(dim=1)[:, 1].numpy())

    def test_its_backbone_is_known(self, files, tmp_path, monkeypatch):
        asked = []

        def load(name):
            asked.append(name)
            return golden.backbone()

        monkeypatch.setattr("faprompt.model_import.load_backbone", load)
        path, out = files / "april-gan.pth", tmp_path / "out"
        import_reference(path, method="april-gan", out=out, options={"image_size": 70})
        assert asked == ["ViT-L-14-336:gelu"]
        assert read_config(out)["backbone"]["source"] == "ViT-L-14-336:gelu"

    def test_the_others_want_theirs(self, files, tmp_path):
        with pytest.raises(ConfigError, match="Checkpoints of faprompt want --backbone"):
            import_reference(files / "faprompt.pth", method="faprompt", out=tmp_path / "out")

    def test_another_depth(self, files, tmp_path):
        torch.save({"trainable_linearlayer": april_layers(3)}, tmp_path / "three.pth")
        given = {"method": "april-gan", "checkpoint": tmp_path / "three.pth", "image_size": "70"}
        told = "has 3 linear layers, april-gan wants 4 here, of the blocks 6, 12, 18, 24; .*map_l"
        with pytest.raises(ModelError, match=told):
            convert(files, tmp_path / "out", **given)
        assert not (tmp_path / "out").exists()
        convert(files, tmp_path / "out", **given, map_layers="6,12,18")
        loaded = load_detector(tmp_path / "out").method
        assert torch.equal(loaded.linears[2].weight, april_layers(3)["fc.2.weight"])

    def test_another_width(self, files, tmp_path):
        torch.save({"trainable_linearlayer": april_layers(width=48)}, tmp_path / "narrow.pth")
        told = (
            rf"another backbone: linears.0.weight is \({EMBED}, 48\), .* wants \({EMBED}, {WIDTH}"
        )
        with pytest.raises(ModelError, match=told):
            convert(files, tmp_path / "out", method="april-gan", checkpoint=tmp_path / "narrow.pth")

    def test_nothing_in_the_file_is_run(self, files, tmp_path):
        torch.save({"trainable_linearlayer": Planted(tmp_path / "ran")}, tmp_path / "evil.pth")
        with pytest.raises(ModelError, match="Nothing in it was run"):
            convert(files, tmp_path / "out", method="april-gan", checkpoint=tmp_path / "evil.pth")
        assert not (tmp_path / "ran").exists()


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
        with pytest.raises(ConfigError, match="anomalyclip, april-gan can be read, not 'clip'"):
            convert(files, tmp_path / "out", method="clip")

    def test_nothing_is_written_where_anything_is_refused(self, files, tmp_path):
        with pytest.raises(ConfigError):
            convert(files, tmp_path / "out", prompts="5")
        assert not (tmp_path / "out").exists()


class TestReading:
    def test_missing_and_broken_files(self, tmp_path):
        with pytest.raises(ModelError, match="nowhere.pth does not exist"):
            read_checkpoint(tmp_path / "nowhere.pth", "prompt_learner")
        (tmp_path / "text.pth").write_text("no checkpoint")
        with pytest.raises(ModelError, match="text.pth could not be read as plain tensors"):
            read_checkpoint(tmp_path / "text.pth", "prompt_learner")

    @pytest.mark.parametrize("content", [{"state_dict": {}}, [1], {"prompt_learner": 3}])
    def test_files_without_a_prompt_learner(self, tmp_path, content):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ModelError, match='has no "prompt_learner"'):
            read_checkpoint(tmp_path / "other.pth", "prompt_learner")

    def test_another_projects_file_is_named(self, files, tmp_path):
        with pytest.raises(ModelError, match='no "prompt_l.*It has "trainable_l.*as april-gan: ch'):
            convert(files, tmp_path / "out", checkpoint=files / "april-gan.pth")
        told = 'no "trainable_l.*It has "prompt_learner", as faprompt and anomalyclip'
        with pytest.raises(ModelError, match=told):
            convert(files, tmp_path / "out", method="april-gan", checkpoint=files / "faprompt.pth")
