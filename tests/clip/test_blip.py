"""BLIP beside transformers' own forward passes, and what its folders should hold."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")

from faprompt.clip import known_backbones  # noqa: E402
from faprompt.clip.known_backbones import BLIP_BASE, list_backbones  # noqa: E402
from faprompt.clip.text import DeepPrompts, Injection  # noqa: E402
from faprompt.clip.transformers_folders import (  # noqa: E402
    BlipTextTower,
    BlipVisionTower,
    BlipVisual,
    transformers_module,  # noqa: E402
)
from faprompt.clip.vision import ImageOptions  # noqa: E402
from faprompt.clip.weights import load_backbone, save_backbone  # noqa: E402
from faprompt.errors import ModelError  # noqa: E402
from faprompt.methods.registry import fit_to_backbone  # noqa: E402
from faprompt.prompts.prompt_parts import start_vector, word_vectors  # noqa: E402
from tests.helpers import blip_files, small  # noqa: E402
from tests.helpers.compare import close  # noqa: E402

SENTENCES = ["a photo of the damaged object.", "object", "an anomalous object."]


@pytest.fixture(scope="module")
def rival():
    return blip_files.draw()


@pytest.fixture(scope="module")
def backbone():
    return blip_files.backbone()


@pytest.fixture(scope="module")
def words(backbone):
    """The tokenizer transformers would use."""
    bert = transformers_module("a test").BertTokenizer
    return bert.from_pretrained(backbone.name, local_files_only=True)


@pytest.fixture(scope="module")
def batch(words):
    return words(SENTENCES, padding=True, return_tensors="pt")


class TestImage:
    def test_tokens_are_transformers_own(self, backbone, rival):
        pixels = small.pixels()
        features = backbone.encode_image(pixels, ImageOptions(value_path=False))
        wanted = rival.vision_proj(rival.vision_model(pixels).last_hidden_state)
        assert wanted.std() > 0.3
        close(features.class_token, wanted[:, 0])
        close(features.patch_tokens[7], wanted[:, 1:])
        assert features.grid == (4, 4) and features.class_token.shape == (3, 32)

    def test_the_blocks_tokens_are_transformers_own(self, backbone, rival):
        pixels = small.pixels(2)
        states = rival.vision_model(pixels, output_hidden_states=True).hidden_states
        raw = backbone.encode_image(
            pixels, ImageOptions(layers=(2, 5), value_path=False, raw_tokens=True)
        ).patch_tokens
        close(raw[2], states[2][:, 1:])
        close(raw[5], states[5][:, 1:])

    def test_another_size_takes_blips_position_table(self, backbone, rival):
        pixels = small.pixels(2, 84, 70)
        theirs = rival.vision_model(pixels, interpolate_pos_encoding=True).last_hidden_state
        for asked in ("bilinear", "bicubic"):  # whatever a method prefers
            ours = backbone.encode_image(
                pixels, ImageOptions(value_path=False, position_filter=asked)
            )
            close(ours.patch_tokens[7], rival.vision_proj(theirs)[:, 1:])

    def test_the_class_token_always_passes_the_final_norm(self, backbone):
        pixels = small.pixels(2)
        tokens = [
            backbone.encode_image(pixels, ImageOptions(class_ln_post=said)).class_token
            for said in (False, True)
        ]
        assert torch.equal(*tokens)

    def test_no_value_blocks_are_the_plain_path(self, backbone):
        pixels = small.pixels(2)
        plain = backbone.encode_image(pixels, ImageOptions(value_path=False))
        none = backbone.encode_image(pixels, ImageOptions(value_blocks=0))
        value = backbone.encode_image(pixels)
        assert torch.equal(none.patch_tokens[7], plain.patch_tokens[7])
        close(value.class_token, plain.class_token)
        assert (value.patch_tokens[7] - plain.patch_tokens[7]).abs().max() > 0.1

    def test_the_value_path_begins_at_block_six(self, backbone, rival):
        """Written out: p = o_5, then p += W_o softmax(v v' / sqrt d) v of blocks 6 and 7."""
        pixels = small.pixels(2)
        assert backbone.spec.vision.value_path_start == 5
        states = rival.vision_model(pixels, output_hidden_states=True).hidden_states
        stream = states[5].clone()
        for number in (5, 6):
            layer = rival.vision_model.encoder.layers[number]
            packed = layer.self_attn.qkv(layer.layer_norm1(states[number]))
            value = packed[..., 256:].unflatten(-1, (2, 64)).transpose(1, 2)
            seen = (value @ value.mT / math.sqrt(64)).softmax(dim=-1) @ value
            stream += layer.self_attn.projection(seen.transpose(1, 2).flatten(2))
        wanted = rival.vision_proj(rival.vision_model.post_layernorm(stream))[:, 1:]
        close(backbone.encode_image(pixels).patch_tokens[7], wanted)


class TestText:
    def test_sentences_of_different_lengths_are_transformers_own(self, backbone, rival, batch):
        hidden = rival.text_encoder(**batch).last_hidden_state
        wanted = rival.text_proj(hidden[:, 0])
        assert wanted.std() > 0.3 and (wanted[0] - wanted[1]).abs().max() > 0.1
        close(backbone.encode_texts(SENTENCES), wanted)

    def test_padding_does_not_change_a_feature(self, backbone):
        together = backbone.encode_texts(SENTENCES)
        for sentence, feature in zip(SENTENCES, together, strict=True):
            close(backbone.encode_texts([sentence])[0], feature)

    def test_what_stands_behind_the_end_is_not_read(self, backbone):
        text = backbone.text
        vectors, end = word_vectors(text, backbone.tokenizer, SENTENCES)
        start = text.encode_prefix(start_vector(text, backbone.tokenizer))
        wanted = text.encode(start, vectors, end)
        behind = torch.arange(vectors.shape[1]) > end[:, None]
        assert behind.any() and (vectors[~behind] != 0).any()
        close(text.encode(start, vectors + 9 * behind[..., None], end), wanted)
        close(wanted, backbone.encode_texts(SENTENCES))

    def test_both_towers_give_the_contrastive_cosine(self, backbone, rival, batch):
        pixels = small.pixels()
        image = F.normalize(
            backbone.encode_image(pixels, ImageOptions(value_path=False)).class_token, dim=-1
        )
        text = F.normalize(backbone.encode_texts(SENTENCES), dim=-1)
        theirs = rival(pixel_values=pixels, use_itm_head=False, **batch).itm_score
        assert theirs.std() > 0.01
        close(image @ text.T, theirs)
        assert backbone.logit_scale.exp().item() == pytest.approx(1 / 0.07)

    @pytest.mark.parametrize("length", [2, 5])
    def test_deep_prompts_are_written_behind_the_first_token(self, backbone, rival, length):
        """Against transformers' encoder with hooks, the deep prompts longer than the prefix too."""
        text, noise = backbone.text, torch.Generator().manual_seed(0)
        deep = torch.randn(2, length, 64, generator=noise)
        words, _ = word_vectors(text, backbone.tokenizer, ["damaged object."])
        context = torch.cat(
            [start_vector(text, backbone.tokenizer), torch.randn(3, 64, generator=noise)]
        )
        given = DeepPrompts(deep)
        ours = text.encode(text.encode_prefix(context, given), words, words.shape[1] - 1, given)

        def write_before(matrix):
            def hook(layer, inputs):
                return (torch.cat([inputs[0][:, :1], matrix[None], inputs[0][:, 1 + length :]], 1),)

            return hook

        layers = rival.text_encoder.encoder.layer
        hooks = [
            layers[number + 1].register_forward_pre_hook(write_before(matrix))
            for number, matrix in enumerate(deep)
        ]
        whole = torch.cat([context[None], words], dim=1)
        theirs = rival.text_encoder(inputs_embeds=whole.clone()).last_hidden_state
        plain = text.encode(text.encode_prefix(context), words, words.shape[1] - 1)
        for hook in hooks:
            hook.remove()
        close(ours, rival.text_proj(theirs[:, 0]))
        assert (ours - plain).abs().max() > 0.1

    def test_each_prompts_own_vectors_go_where_they_should(self, backbone):
        text = backbone.text
        words, end = word_vectors(text, backbone.tokenizer, SENTENCES)
        own = torch.randn(3, 2, 64, generator=torch.Generator().manual_seed(1))
        start = text.encode_prefix(start_vector(text, backbone.tokenizer))
        together = text.encode(start, words, end, Injection(own, 2))
        for row in range(3):
            alone = DeepPrompts(own[row : row + 1])  # before layer 2
            close(together[row], text.encode(start, words[row : row + 1], end[row], alone)[0])

    def test_gradients_reach_the_vectors_and_not_the_tower(self, backbone):
        text = backbone.text
        own = torch.zeros(4, 64, requires_grad=True)
        words, end = word_vectors(text, backbone.tokenizer, ["object."])
        text.encode(text.encode_prefix(own), words, end).sum().backward()
        assert own.grad.abs().min() > 0
        assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())

    def test_a_prompt_beyond_the_context_is_refused(self, backbone):
        text = backbone.text
        with pytest.raises(ValueError, match="36 tokens does not fit into 35"):
            text.encode_prefix(torch.zeros(36, 64))
        with pytest.raises(ValueError, match="37 tokens does not fit into 35"):
            text.encode(text.encode_prefix(torch.zeros(35, 64)), torch.zeros(1, 2, 64), 1)


class TestWords:
    def test_ids_are_transformers_own(self, backbone, batch):
        assert torch.equal(backbone.tokenizer(SENTENCES), batch["input_ids"])
        assert backbone.tokenizer.ids("An OBJECT") == backbone.tokenizer.ids("an object")
        assert (backbone.tokenizer.start, backbone.tokenizer.end) == (2, 3)
        assert backbone.tokenizer.words() == list(blip_files.WORDS)

    def test_a_word_without_a_token_is_refused_by_name(self, backbone):
        assert backbone.tokenizer.knows("xyz") and not backbone.tokenizer.knows("an 9-object")
        with pytest.raises(ValueError, match="no token for '9-object' .in 'an 9-object'.; reword"):
            backbone.tokenizer(["an 9-object"])

    def test_a_long_text_is_refused(self, backbone):
        with pytest.raises(ValueError, match="A text of 42 tokens exceeds 35"):
            backbone.tokenizer(["the " * 40])


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path, rival):
        return blip_files.write(tmp_path / "blip", rival)

    def test_the_spec_and_what_comes_beside_it(self, backbone):
        spec = backbone.spec
        assert (spec.embed_dim, spec.vision.width, spec.text.width) == (32, 128, 64)
        assert (spec.mean, spec.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
        assert spec.vision.value_blocks == 2 and spec.text.context_length == 35
        assert backbone.device == torch.device("cpu")

    def test_the_weights_file_is_as_good_as_the_folder(self, backbone, folder):
        loaded = load_backbone(folder / "model.safetensors")
        assert loaded.name == str(folder / "model.safetensors")
        assert loaded.state_fingerprint() == backbone.state_fingerprint()

    def test_the_fingerprint_tells_weights_apart(self, backbone, folder, rival):
        state = rival.state_dict()
        state["text_proj.bias"] = state["text_proj.bias"] + 1
        model = blip_files.draw()
        model.load_state_dict(state)
        other = load_backbone(blip_files.write(folder, model))
        assert other.state_fingerprint() != backbone.state_fingerprint()

    def test_a_learned_temperature_is_kept(self, folder):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        save_file({**state, "temp": torch.tensor(0.05)}, folder / "model.safetensors")
        assert load_backbone(folder).logit_scale.exp().item() == pytest.approx(20)

    def test_half_precision_stays_near(self, backbone, folder):
        half = load_backbone(folder, precision="bf16")
        assert half.vision.visual.transformer.resblocks[0].mlp.c_fc.weight.dtype == torch.bfloat16
        assert half.state_fingerprint() == backbone.state_fingerprint()
        pixels = small.pixels(2)
        exact, near = (b.encode_image(pixels).patch_tokens[7] for b in (backbone, half))
        assert 0 < (near - exact).abs().max() < 0.2

    def test_the_real_ones_default_size_is_512(self):
        fitted = fit_to_backbone("faprompt", SimpleNamespace(spec=BLIP_BASE), {})
        assert fitted["image_size"] == 512
        assert fitted["sigma_px"] == pytest.approx(10 * 512 / 518)

    @pytest.mark.parametrize(
        "installed, told", [(None, "none"), (SimpleNamespace(__version__="4.57.1"), "4.57.1")]
    )
    def test_missing_transformers_is_told_with_the_remedy(
        self, folder, monkeypatch, installed, told
    ):
        monkeypatch.setitem(sys.modules, "transformers", installed)
        wanted = rf"is a BLIP, .*here: {told}. Use pip install 'faprompt\[baselines\]'"
        with pytest.raises(ModelError, match=wanted):
            load_backbone(folder)
        with pytest.raises(ModelError, match=f"BLIP-ViT-B-16 {wanted}"):
            load_backbone("BLIP-ViT-B-16")

    @pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
    def test_an_incomplete_folder_is_refused(self, folder, file):
        (folder / file).unlink()
        (folder / "vocab.txt").unlink()
        with pytest.raises(ModelError, match=r"not whole.*model.safetensors.*vocab.txt"):
            load_backbone(folder)

    @pytest.mark.parametrize(
        ("tower", "option", "value", "told"),
        [
            ("text", "num_attention_heads", 2, "2 heads .* width of 64.*num_attention_heads = 1"),
            ("vision", "hidden_act", "quick_gelu", "hidden_act is 'quick_gelu', BLIP's is 'gelu'"),
        ],
    )
    def test_other_heads_and_activations_are_refused(self, folder, tower, option, value, told):
        with pytest.raises(ModelError, match="exact GELU; drop ':quickgelu'"):
            load_backbone(f"{folder}:quickgelu")
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config[f"{tower}_config"][option] = value
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        with pytest.raises(ModelError, match=told):
            load_backbone(folder)

    def test_more_words_than_rows_are_refused(self, folder):
        lines = [*blip_files.WORDS, "one", "two", "three"]
        (folder / "vocab.txt").write_text("\n".join(lines), "utf-8")
        (folder / "tokenizer.json").unlink()
        with pytest.raises(ModelError, match=r"80 tokens, its table 79"):
            load_backbone(folder)

    def test_a_blip_without_the_projections_is_refused(self, folder):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        kept = {k: v for k, v in state.items() if not k.startswith("text_proj")}
        save_file({**kept, "text_decoder.x": torch.zeros(1)}, folder / "model.safetensors")
        with pytest.raises(ModelError, match="missing: text.text_projection.*unknown: text_dec"):
            load_backbone(folder)

    def test_it_is_not_written_in_our_own_form(self, backbone, tmp_path):
        with pytest.raises(ValueError, match="is a BLIP; copy its transformers folder"):
            save_backbone(backbone, tmp_path)


class TestName:
    @pytest.fixture
    def hub(self, tmp_path, monkeypatch, rival):
        """A hub that holds one folder, and records what it was asked for."""
        asked = []
        folder = blip_files.write(tmp_path / "snapshot", rival)

        def snapshot_download(repository, **options):
            asked.append((repository, options["allow_patterns"]))
            return str(folder)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        monkeypatch.setattr(known_backbones, "_reach_hub", lambda: None)
        monkeypatch.setattr(known_backbones, "_find_in_hub_cache", lambda record: None)
        return folder, asked

    @pytest.mark.parametrize("name", ["BLIP-ViT-B-16", "Salesforce/blip-itm-base-coco"])
    def test_it_is_loaded_and_fetched_from_the_hub(self, hub, name, backbone):
        loaded = load_backbone(name)
        assert loaded.name == name
        assert loaded.state_fingerprint() == backbone.state_fingerprint()
        ((repository, patterns),) = hub[1]
        assert repository == "Salesforce/blip-itm-base-coco"
        assert not any("bin" in pattern for pattern in patterns)  # nothing that is a pickle
        fetched = known_backbones.fetch_backbone(name)
        assert fetched.path == hub[0] / "model.safetensors" and len(fetched.sha256) == 64

    def test_what_the_cache_holds_needs_no_network(self, hub, monkeypatch):
        cached = hub[0] / "model.safetensors"
        monkeypatch.setattr(known_backbones, "_find_in_hub_cache", lambda record: cached)
        assert known_backbones.named_weights("BLIP-ViT-B-16") == cached and not hub[1]
        for words in ("vocab.txt", "tokenizer.json"):
            (hub[0] / words).unlink()
        assert known_backbones.named_weights("BLIP-ViT-B-16") == cached and len(hub[1]) == 1

    def test_without_safetensors_or_network_it_says_what_to_do(self, hub):
        (hub[0] / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="BLIP-ViT-B-16 are not on this machine.*models fetch"):
            known_backbones.fetch_backbone("BLIP-ViT-B-16")

    def test_the_list_has_it_with_its_true_size(self):
        (row,) = [row for row in list_backbones() if row["kind"] == "transformers"]
        assert row == {
            "name": "BLIP-ViT-B-16", "kind": "transformers", "tags": [], "embed_dim": 256,
            "image_size": 384, "patch_size": 16, "parameters": 195_375_872,
        }  # fmt: skip
        spec, transformers = BLIP_BASE, transformers_module("a test")
        config = transformers.BlipTextConfig(num_attention_heads=12, is_decoder=False)
        assert spec.text.vocab_size == config.vocab_size
        with torch.device("meta"):
            bert = transformers.BlipTextModel(config, add_pooling_layer=False)
            vision = BlipVisionTower(BlipVisual(spec.vision, 256, 1e-6), spec.vision)
            text = BlipTextTower(bert, spec.text, 256)
        counted = sum(p.numel() for tower in (vision, text) for p in tower.parameters())
        assert row["parameters"] == counted
