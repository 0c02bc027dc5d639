"""transformers' CLIP folders, written by a conversion of the test's own."""

import pytest
import torch

from faprompt.clip.transformers_folders import openai_names
from faprompt.clip.weights import load_backbone
from faprompt.errors import ModelError
from tests.helpers import naive
from tests.helpers.clip_files import (
    to_transformers,
    transformers_config,
    write_json,
    write_transformers_folder,
)


def with_towers(**changes):
    """A config with the same change in both towers."""
    config = transformers_config()
    for tower in ("text_config", "vision_config"):
        config[tower] = {**config[tower], **changes}
    return config


class TestNames:
    def test_give_back_openais_state(self, file_state):
        converted = openai_names(to_transformers(file_state))
        assert sorted(converted) == sorted(file_state)
        for key, tensor in file_state.items():
            assert torch.equal(converted[key], tensor), key

    def test_strange_names_pass_through_for_the_loader_to_refuse(self):
        assert list(openai_names({"vision_model.head.weight": torch.ones(1)})) == [
            "vision_model.head.weight"
        ]

    def test_an_incomplete_block_is_refused(self, file_state):
        state = to_transformers(file_state)
        del state["text_model.encoder.layers.1.self_attn.k_proj.bias"]
        with pytest.raises(
            ModelError, match=r"resblocks\.1\.attn\.in_proj_bias .* self_attn\.k_proj is missing"
        ):
            openai_names(state)


class TestFolder:
    @pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
    def test_equals_the_original(self, tmp_path, file_state, file_backbone, weights):
        folder = write_transformers_folder(tmp_path / "hf", file_state, weights=weights)
        for source in (folder, str(folder), folder / weights):
            loaded = load_backbone(source)
            assert loaded.spec == file_backbone.spec
            assert loaded.state_fingerprint() == file_backbone.state_fingerprint()
            assert loaded.logit_scale == file_backbone.logit_scale

    @pytest.mark.parametrize(
        ("config", "quick_gelu"),
        [
            (with_towers(hidden_act="gelu"), False),
            (with_towers(hidden_act="quick_gelu"), True),
            (with_towers(hidden_act="gelu") | {"text_config_dict": None}, False),
            (
                with_towers(hidden_act="quick_gelu")
                | {"text_config_dict": {"hidden_act": "gelu"}}
                | {"vision_config_dict": {"hidden_act": "gelu"}},
                False,
            ),
        ],
    )
    def test_hidden_act_decides(self, tmp_path, file_state, config, quick_gelu):
        folder = write_transformers_folder(tmp_path, file_state, config)
        assert load_backbone(folder).spec.quick_gelu is quick_gelu
        assert load_backbone(f"{folder}:quickgelu").spec.quick_gelu
        assert not load_backbone(f"{folder}:gelu").spec.quick_gelu

    def test_a_silent_config_means_the_librarys_defaults(self, tmp_path, file_state):
        """Configs are saved without what equals the default: 8 and 12 heads, quick_gelu."""
        config = {"model_type": "clip", "text_config": {}, "vision_config": {}}
        folder = write_transformers_folder(tmp_path, file_state, config)
        with pytest.raises(ModelError, match="width 64 does not split into 12 heads"):
            load_backbone(folder)
        config["vision_config"] = {"num_attention_heads": 2}
        write_json(folder / "config.json", config)
        spec = load_backbone(folder).spec
        assert (spec.vision.heads, spec.text.heads, spec.quick_gelu) == (2, 8, True)

    def test_the_file_that_was_named_is_the_one_read(self, tmp_path, file_state):
        folder = write_transformers_folder(tmp_path, file_state)
        other = {**file_state, "ln_final.bias": file_state["ln_final.bias"] + 1}
        write_transformers_folder(tmp_path, other, weights="pytorch_model.bin")
        for source, state in (
            (folder, file_state),
            (folder / "model.safetensors", file_state),
            (folder / "pytorch_model.bin", other),
        ):
            assert torch.equal(load_backbone(source).text.ln_final.bias, state["ln_final.bias"])

    def test_heads_of_the_config_are_used(self, tmp_path, file_state):
        """Not the one head that a width of 64 would suggest."""
        folder = write_transformers_folder(tmp_path, file_state, with_towers(num_attention_heads=4))
        pixels = torch.randn(1, 3, 42, 28, generator=torch.Generator().manual_seed(0))
        ours = load_backbone(folder).encode_image(pixels)
        class_token, patch_tokens = naive.encode_image(
            naive.as_numpy(file_state), pixels[0].double().numpy(), heads=4, start=0, layers=[2]
        )
        wanted = torch.from_numpy(class_token).float()
        torch.testing.assert_close(ours.class_token[0], wanted, rtol=0, atol=1e-4)
        wanted = torch.from_numpy(patch_tokens[2]).float()
        torch.testing.assert_close(ours.patch_tokens[2][0], wanted, rtol=0, atol=1e-4)

    def test_pixel_statistics_come_from_the_preprocessor(self, tmp_path, file_state):
        folder = write_transformers_folder(tmp_path, file_state)
        assert load_backbone(folder).spec.mean == (0.48145466, 0.4578275, 0.40821073)
        write_json(
            folder / "preprocessor_config.json",
            {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]},
        )
        spec = load_backbone(folder).spec
        assert (spec.mean, spec.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))


class TestRefusals:
    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (transformers_config(model_type="siglip"), "model_type 'siglip', wanted 'clip'"),
            ({"architecture": "vit"}, "model_type None, wanted 'clip'"),
            (with_towers(hidden_act="relu"), "hidden_act is relu; wanted 'gelu' or"),
            (
                transformers_config(text_config={"hidden_act": "gelu"}),
                "hidden_act is gelu and quick_gelu; wanted .* the same in both towers",
            ),
            (with_towers(layer_norm_eps=1e-6), "layer_norm_eps is 1e-06, CLIP's is 1e-5"),
            (with_towers(num_attention_heads=7), "does not split into 7 heads"),
        ],
    )
    def test_of_the_config(self, tmp_path, file_state, config, message):
        folder = write_transformers_folder(tmp_path, file_state, config)
        with pytest.raises(ModelError, match=f"config.json with model.safetensors: .*{message}"):
            load_backbone(folder)

    def test_without_a_readable_config(self, tmp_path, file_state):
        """The config tells heads and activation; without it, this is a bare file of odd names."""
        folder = write_transformers_folder(tmp_path, file_state)
        (folder / "config.json").write_text("{", encoding="utf-8")
        with pytest.raises(ModelError, match="config.json with model.safetensors"):
            load_backbone(folder)
        (folder / "config.json").unlink()
        with pytest.raises(ModelError, match="or a transformers CLIP folder"):
            load_backbone(f"{folder}/model.safetensors:quickgelu")
