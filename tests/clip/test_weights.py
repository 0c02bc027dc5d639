"""Backbones from names, files and folders, and back into folders."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from faprompt.clip import known_backbones
from faprompt.clip.backbone import build_backbone
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec
from faprompt.clip.weights import load_backbone, save_backbone
from faprompt.errors import ModelError
from tests.helpers.clip_files import write_open_clip_folder


def same(loaded, wanted):
    """Spec and every weight."""
    assert loaded.spec == wanted.spec
    assert loaded.state_fingerprint() == wanted.state_fingerprint()
    assert loaded.logit_scale == wanted.logit_scale


@pytest.fixture
def bare(tmp_path, file_state):
    """A state dict with nothing beside it."""
    path = tmp_path / "open_clip_model.safetensors"
    save_file(file_state, path)
    return path


@pytest.fixture(scope="module")
def stemmed():
    """Like `tiny`: a convolution stem and a cut vocabulary."""
    spec = BackboneSpec(
        embed_dim=16,
        quick_gelu=False,
        vision=VisionSpec(
            image_size=32, patch_size=8, width=32, layers=2, heads=1,
            stem_channels=(8, 16), stem_strides=(2, 2, 2),
        ),
        text=TextSpec(width=32, layers=1, heads=1, context_length=12, vocab_size=3),
        vocabulary=(14115, 49406, 49407),
    )  # fmt: skip
    return build_backbone(spec, name="stemmed")


class TestOpenAI:
    def test_archive_equals_the_state_it_was_made_of(self, archive, file_backbone):
        for source in (archive, str(archive)):
            loaded = load_backbone(source)
            same(loaded, file_backbone)
            assert loaded.name == str(archive)

    def test_runs_like_it_too(self, archive, file_backbone):
        pixels = torch.randn(1, 3, 28, 42, generator=torch.Generator().manual_seed(0))
        ours, wanted = (b.encode_image(pixels) for b in (load_backbone(archive), file_backbone))
        torch.testing.assert_close(ours.class_token, wanted.class_token)
        ids = torch.tensor([[5, 7, 299]])
        ours, wanted = (b.text.encode_tokens(ids) for b in (load_backbone(archive), file_backbone))
        torch.testing.assert_close(ours, wanted)

    def test_three_sizes_in_a_state_dict_mean_openai(self, tmp_path, file_state, file_backbone):
        path = tmp_path / "clip.pt"
        sizes = {"input_resolution": 28, "context_length": 77, "vocab_size": 300}
        torch.save({**file_state, **{k: torch.tensor(v) for k, v in sizes.items()}}, path)
        same(load_backbone(path), file_backbone)

    def test_exact_gelu_can_be_chosen(self, archive):
        """FiLo runs OpenAI's weights so."""
        loaded = load_backbone(f"{archive}:gelu")
        assert not loaded.spec.quick_gelu
        assert not load_backbone(loaded.name).spec.quick_gelu


class TestBareFiles:
    @pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w.pt", "w.pth"])
    def test_equal_their_state(self, tmp_path, file_state, file_backbone, name):
        path = tmp_path / name
        if name.endswith("safetensors"):
            save_file(file_state, path)
        else:
            torch.save({"state_dict": {f"module.{k}": v for k, v in file_state.items()}}, path)
        same(load_backbone(f"{path}:quickgelu"), file_backbone)
        exact = load_backbone(f"{path}:gelu")
        assert exact.spec == replace(file_backbone.spec, quick_gelu=False)
        assert exact.name == f"{path}:gelu"

    def test_without_a_word_on_the_activation_they_are_refused(self, bare):
        with pytest.raises(ModelError, match="wants? QuickGELU.*safetensors:quickgelu or .*:gelu"):
            load_backbone(bare)

    def test_masks_and_a_scale_in_a_row_are_taken_as_open_clip_takes_them(
        self, tmp_path, file_state, file_backbone
    ):
        odd = {**file_state, "attn_mask": torch.zeros(77, 77)}
        odd["logit_scale"] = odd["logit_scale"].reshape(1)
        save_file(odd, tmp_path / "w.safetensors")
        same(load_backbone(f"{tmp_path}/w.safetensors:quickgelu"), file_backbone)

    def test_missing_unknown_and_misshapen_tensors_are_all_named(self, bare, file_state):
        odd = {**file_state, "visual.extra": torch.ones(1), "logit_bias": torch.ones(())}
        del odd["visual.ln_pre.bias"]
        odd["ln_final.bias"] = torch.ones(65)
        save_file(odd, bare)
        with pytest.raises(ModelError) as caught:
            load_backbone(f"{bare}:quickgelu")
        message = str(caught.value)
        assert "missing: visual.ln_pre.bias" in message
        assert "unknown: logit_bias, visual.extra" in message
        assert "ln_final.bias is (65,), wanted (64,)" in message
        assert str(bare) in message

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ModelError, match="No backbone '.*nowhere.pt': it is neither bundled"):
            load_backbone(tmp_path / "nowhere.pt")
        with pytest.raises(ModelError, match="No backbone 'ViT-Z'.*open_clip name such as ViT-B"):
            load_backbone("ViT-Z")


class TestOpenClipFolders:
    @pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
    @pytest.mark.parametrize("flag", [True, False, None])
    def test_the_config_decides(self, tmp_path, file_state, file_backbone, name, flag):
        """No flag means GELU there."""
        config = {} if flag is None else {"quick_gelu": flag}
        folder = write_open_clip_folder(tmp_path / "oc", file_state, name=name, **config)
        for source in (folder, folder / name):
            loaded = load_backbone(source)
            assert loaded.spec == replace(
                file_backbone.spec, quick_gelu=bool(flag),
                mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3),
            )  # fmt: skip
            same = loaded.state_fingerprint() == file_backbone.state_fingerprint()
            assert same == bool(flag)  # another activation makes another backbone
        assert load_backbone(f"{folder}:quickgelu").spec.quick_gelu

    def test_another_file_in_the_folder_is_not_described_by_it(self, tmp_path, file_state):
        folder = write_open_clip_folder(tmp_path, file_state, quick_gelu=True)
        save_file(file_state, folder / "mine.safetensors")
        with pytest.raises(ModelError, match="mine.safetensors does not tell"):
            load_backbone(folder / "mine.safetensors")

    def test_a_config_of_other_sizes_is_refused(self, tmp_path, file_state):
        folder = write_open_clip_folder(tmp_path, file_state, embed_dim=48)
        with pytest.raises(ModelError, match=r"text_projection is \(64, 32\), wanted \(64, 48\)"):
            load_backbone(folder)

    def test_another_architecture_is_refused(self, tmp_path, file_state):
        folder = write_open_clip_folder(tmp_path, file_state, vision_cfg={"layers": [3, 4, 6, 3]})
        with pytest.raises(ModelError, match="not a plain CLIP of two transformers"):
            load_backbone(folder)

    def test_a_config_without_towers_is_refused(self, tmp_path, file_state):
        folder = write_open_clip_folder(tmp_path, file_state)
        (folder / "open_clip_config.json").write_text("{}")
        with pytest.raises(ModelError, match="open_clip_config.json lacks 'model_cfg'"):
            load_backbone(folder)

    def test_a_folder_of_nothing_known_is_refused(self, tmp_path):
        with pytest.raises(ModelError, match="not a backbone folder. Wanted one of: backbone.json"):
            load_backbone(tmp_path)


class TestOwnFolders:
    def test_saved_equals_loaded(self, tmp_path, file_backbone):
        save_backbone(file_backbone, tmp_path / "own")
        assert sorted(p.name for p in (tmp_path / "own").iterdir()) == [
            "backbone.json", "model.safetensors",
        ]  # fmt: skip
        for source in (tmp_path / "own", tmp_path / "own" / "model.safetensors"):
            same(load_backbone(source), file_backbone)
        assert not load_backbone(f"{tmp_path}/own:gelu").spec.quick_gelu

    def test_stem_and_vocabulary_come_back(self, tmp_path, stemmed):
        save_backbone(stemmed, tmp_path)
        loaded = load_backbone(tmp_path)
        same(loaded, stemmed)
        assert loaded.spec.vocabulary == (14115, 49406, 49407)
        pixels = torch.randn(1, 3, 40, 32)
        ours, wanted = (b.encode_image(pixels) for b in (loaded, stemmed))
        torch.testing.assert_close(ours.class_token, wanted.class_token)
        ours, wanted = (b.encode_texts(["object"]) for b in (loaded, stemmed))
        torch.testing.assert_close(ours, wanted)

    def test_half_precision_is_half_the_size(self, tmp_path, stemmed):
        for name, dtype in (("full", torch.float32), ("half", torch.float16)):
            save_backbone(stemmed, tmp_path / name, dtype=dtype)
        full, half = (load_file(tmp_path / n / "model.safetensors") for n in ("full", "half"))
        assert all(torch.equal(half[key], full[key].half()) for key in full)
        loaded = load_backbone(tmp_path / "half")
        for key, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, stemmed.state_dict()[key].half().float()), key
        save_backbone(loaded, tmp_path / "again", dtype=torch.float16)
        same(load_backbone(tmp_path / "again"), loaded)

    def test_a_failed_write_leaves_the_old_files(self, tmp_path, stemmed, monkeypatch):
        save_backbone(stemmed, tmp_path)
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            save_backbone(stemmed, tmp_path, dtype=torch.float16)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before

    def test_rounded_weights_and_other_dtypes_are_not_saved(self, tmp_path, bare, stemmed):
        low = load_backbone(f"{bare}:gelu", precision="bf16")
        with pytest.raises(ValueError, match="was rounded to bf16; load it as fp32"):
            save_backbone(low, tmp_path / "own")
        with pytest.raises(ValueError, match="torch.float32 or torch.float16, got torch.bfloat16"):
            save_backbone(stemmed, tmp_path / "own", dtype=torch.bfloat16)
        assert not (tmp_path / "own").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"colour": 1}, "backbone spec: unknown colour"),
            ({"vocabulary": [49406, 49407]}, "2 tokens are kept, but vocab_size is 3"),
            ({"vocabulary": [49407, 49406, 5]}, "vocabulary should rise"),
            ({"embed_dim": 17}, r"wanted \(32, 17\)"),
        ],
    )
    def test_a_crooked_description_is_refused(self, tmp_path, stemmed, change, message):
        save_backbone(stemmed, tmp_path)
        path = tmp_path / "backbone.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(ModelError, match=message):
            load_backbone(tmp_path)


class TestBundled:
    def test_tiny_is_found_in_the_package(self, tmp_path, stemmed, monkeypatch):
        monkeypatch.setattr(known_backbones.resources, "files", lambda package: tmp_path / package)
        save_backbone(stemmed, tmp_path / "faprompt" / "bundled" / "backbone-tiny")
        loaded = load_backbone("tiny")
        same(loaded, stemmed)
        assert loaded.name == "tiny"

    @pytest.mark.parametrize("left", [[], ["backbone.json"], ["model.safetensors"]])
    def test_its_absence_is_told(self, tmp_path, monkeypatch, left):
        monkeypatch.setattr(known_backbones.resources, "files", lambda package: tmp_path / package)
        folder = tmp_path / "faprompt" / "bundled" / "backbone-tiny"
        folder.mkdir(parents=True)
        for name in left:
            (folder / name).touch()
        with pytest.raises(
            ModelError, match="'tiny' is not in this installation.*another backbone"
        ):
            load_backbone("tiny")


class TestTestTiny:
    def test_is_a_small_clip_with_the_whole_vocabulary(self):
        backbone = load_backbone("test-tiny")
        spec = backbone.spec
        assert (spec.vision.width, spec.vision.layers, spec.vision.patch_size) == (64, 2, 14)
        assert (spec.text.width, spec.text.layers, spec.text.vocab_size) == (64, 2, 49408)
        assert backbone.name == "test-tiny" and spec.quick_gelu
        assert not load_backbone("test-tiny:gelu").spec.quick_gelu
        features = backbone.encode_image(torch.randn(2, 3, 70, 56))
        assert features.patch_tokens[2].shape == (2, 20, 64)
        assert 0.1 < features.patch_tokens[2].std() < 10
        assert backbone.encode_texts(["anything at all", "object"]).std(dim=0).mean() > 0.05

    def test_is_the_same_every_time_and_draws_on_no_global_generator(self):
        fingerprints = set()
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)
            before = torch.get_rng_state(), np.random.get_state()[1].copy()
            fingerprints.add(load_backbone("test-tiny").state_fingerprint())
            assert torch.equal(torch.get_rng_state(), before[0])
            assert np.array_equal(np.random.get_state()[1], before[1])
        assert len(fingerprints) == 1


class TestLoaded:
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_precision_is_set_and_the_fingerprint_knows_nothing_of_it(
        self, archive, file_backbone, precision
    ):
        loaded = load_backbone(archive, precision=precision)
        assert loaded.precision == precision
        assert (
            loaded.vision.compute_dtype
            == loaded.vision.visual.transformer.resblocks[0].attn.in_proj_weight.dtype
        )
        assert loaded.state_fingerprint() == file_backbone.state_fingerprint()

    def test_an_unknown_precision_is_refused_before_anything_is_read(self):
        with pytest.raises(ValueError, match="one of fp32, bf16, fp16, int8, got 'int4'"):
            load_backbone("nowhere", precision="int4")

    def test_frozen_and_on_its_device(self, archive):
        loaded = load_backbone(archive, device="cpu")
        assert not any(p.requires_grad for p in loaded.parameters())
        assert not loaded.training
        assert loaded.device == torch.device("cpu")
        assert not any(t.is_meta for t in (*loaded.parameters(), *loaded.buffers()))

    def test_a_file_may_go_after_loading(self, tmp_path, file_state, file_backbone):
        path = tmp_path / "w.safetensors"
        save_file(file_state, path)
        loaded = load_backbone(f"{path}:quickgelu")
        os.truncate(path, 0)
        same(loaded, file_backbone)

    def test_the_callers_tensors_are_not_shared(self, file_state, file_backbone):
        state = {key: tensor.clone() for key, tensor in file_state.items()}
        built = build_backbone(file_backbone.spec, state, name="x")
        for tensor in state.values():
            tensor.zero_()
        same(built, file_backbone)


class TestFingerprint:
    def test_any_weight_changes_it(self, file_backbone, file_state):
        seen = {file_backbone.state_fingerprint()}
        for key in ("visual.conv1.weight", "text_projection", "token_embedding.weight"):
            state = {**file_state, key: file_state[key].clone()}
            state[key].view(-1)[0] += 1e-3
            built = build_backbone(file_backbone.spec, state, name="x")
            seen.add(built.state_fingerprint())
        assert len(seen) == 4
        assert all(len(fingerprint) == 64 for fingerprint in seen)

    def test_a_change_in_place_is_noticed(self, file_backbone, file_state):
        built = build_backbone(file_backbone.spec, file_state, name="x")
        assert built.state_fingerprint() == file_backbone.state_fingerprint()
        with torch.no_grad():
            built.text.ln_final.bias[0] += 1
        assert built.state_fingerprint() != file_backbone.state_fingerprint()

    def test_built_in_inference_mode(self, file_backbone, file_state):
        with torch.inference_mode():
            built = build_backbone(file_backbone.spec, file_state, name="x")
            assert built.state_fingerprint() == file_backbone.state_fingerprint()
