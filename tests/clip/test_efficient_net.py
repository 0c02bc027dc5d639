"""EfficientNet-Lite0: its maps against timm's, its files, its tokens and its refusals."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from faprompt.clip.efficient_net import (
    EFFICIENT_NET_PARAMETERS,
    EFFICIENT_NET_SPEC,
    TOKEN_WIDTH,
    build_efficient_net,
    cell_step,
    draw_network,
)
from faprompt.clip.known_backbones import fetch_backbone, list_backbones, named_weights
from faprompt.clip.vision import ImageOptions
from faprompt.clip.weights import backbone_files, load_backbone, may_be, save_backbone
from faprompt.errors import ConfigError, ModelError
from faprompt.methods.registry import build_method
from tests.helpers import golden_efficient_net as golden
from tests.helpers import small

LAYERS = ImageOptions(layers=(5, 8, 11, 15))


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("test-efficientnet")


@pytest.fixture(scope="module")
def package():
    """Weights as the package has them, with the parts that are not used."""
    unused = {"_fc.weight": torch.ones(2), "_blocks.15._bn0.bias": torch.ones(2)}
    return golden.draw_package_weights() | unused


@pytest.mark.parametrize("size", golden.SIZES)
def test_the_maps_are_timms(package, size):
    """Golden numbers of timm's network; the recipe is tests/helpers/golden_efficient_net.py."""
    built = build_efficient_net(package, name="package")
    wanted = np.load(golden.GOLDEN)
    with torch.no_grad():
        maps = built.vision(golden.draw_pixels(*size), 15)
    for layer in golden.LAYERS:
        found = maps[layer][:, : golden.CHANNELS, ::2, ::2].numpy()
        given = wanted[f"{size[0]}x{size[1]}_{layer}"]
        np.testing.assert_allclose(found, given, rtol=0, atol=1e-4 * given.std())
    assert built.name == "efficientnet-lite0" and not built.has_text


def test_it_is_frozen_and_has_as_many_parameters_as_stated(backbone):
    assert sum(p.numel() for p in backbone.parameters()) == EFFICIENT_NET_PARAMETERS
    assert not any(p.requires_grad for p in backbone.parameters())


def test_tokens_of_all_strides_lie_on_one_grid(backbone):
    pixels = small.pixels(2, 64, 96)
    with torch.no_grad():
        maps = backbone.vision(pixels, 15)
        features = backbone.encode_image(pixels, LAYERS)
    assert features.grid == (4, 6) and list(features.patch_tokens) == [5, 8, 11, 15]
    assert all(each.shape == (2, 24, TOKEN_WIDTH) for each in features.patch_tokens.values())
    row, column = 2, 3
    fine, middle, _, coarse = (each[1, 6 * row + column] for each in features.patch_tokens.values())
    cell = maps[5][1, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
    assert torch.equal(fine[:160].sort().values, cell.flatten().sort().values)
    assert torch.equal(middle[:80], maps[8][1, :, row, column])
    assert not fine[160:].any() and not middle[80:].any()
    assert torch.equal(coarse, maps[15][1, :, row // 2, column // 2])
    assert [cell_step(layer) for layer in (5, 11, 12, 15)] == [1, 1, 2, 2]
    torch.testing.assert_close(features.class_token, features.patch_tokens[15].mean(dim=1))


def test_only_the_blocks_that_are_needed_run(backbone):
    pixels = small.pixels(1, 32, 32)
    with torch.no_grad():
        assert list(backbone.vision(pixels, 11)) == list(range(1, 12))
        few = backbone.encode_image(pixels, ImageOptions(layers=(11,)))
        default = backbone.encode_image(pixels)
    assert list(few.patch_tokens) == [11] and list(default.patch_tokens) == [15]


def test_saved_in_half_precision_it_loads_again(package, tmp_path):
    built = build_efficient_net(package, name="package")
    save_backbone(built, tmp_path / "trunk", dtype=torch.float16)
    files = {file.name for file in backbone_files(tmp_path / "trunk")}
    assert files == {"backbone.json", "model.safetensors"}
    assert (tmp_path / "trunk" / "model.safetensors").stat().st_size < 4.8e6
    loaded = load_backbone(tmp_path / "trunk")
    assert loaded.name == "efficientnet-lite0" and loaded.spec == EFFICIENT_NET_SPEC
    stored = load_file(tmp_path / "trunk" / "model.safetensors")
    rounded = build_efficient_net(stored, name="stored")
    assert loaded.state_fingerprint() == rounded.state_fingerprint()
    pixels = small.pixels(1, 64, 64)
    ours, theirs = (b.encode_image(pixels, LAYERS).patch_tokens for b in (built, loaded))
    for layer, tokens in ours.items():
        cosine = torch.nn.functional.cosine_similarity(tokens, theirs[layer], dim=-1)
        assert cosine.min() > 0.999


def test_the_file_of_the_package_loads_without_a_description(package, tmp_path):
    path = tmp_path / "efficientnet-lite0-57934424.pth"
    torch.save(package, path)
    loaded = load_backbone(path)
    again = build_efficient_net(package, name="package")
    assert loaded.state_fingerprint() == again.state_fingerprint()
    assert may_be(loaded, "efficientnet-lite0")
    assert not may_be(loaded, "wide_resnet50_2") and not may_be(loaded, "ViT-L-14-336")
    assert not may_be(small.backbone(), "efficientnet-lite0")


def test_other_networks_and_incomplete_files_are_refused(package):
    with pytest.raises(ModelError, match=r"not of EfficientNet-Lite0: '_blocks.14._bn2.running_v"):
        short = {k: v for k, v in package.items() if k != "_blocks.14._bn2.running_var"}
        build_efficient_net(short, name="short")
    with pytest.raises(ModelError, match="do not fit.*unknown: _blocks.3._se_reduce.weight"):
        build_efficient_net({**package, "_blocks.3._se_reduce.weight": torch.ones(1)}, name="se")
    drawn = draw_network()
    with pytest.raises(ModelError, match="missing: blocks.7.project.bias"):
        build_efficient_net({k: v for k, v in drawn.items() if "7.proj" not in k}, name="short")


def test_by_name_it_is_bundled_or_says_what_is_missing(monkeypatch, tmp_path):
    from faprompt.clip import known_backbones

    monkeypatch.setattr(known_backbones.resources, "files", lambda _: tmp_path)
    with pytest.raises(ModelError, match="'efficientnet-lite0' is not in this installation"):
        load_backbone("efficientnet-lite0")
    assert not [row for row in list_backbones() if row["name"] == "efficientnet-lite0"]
    folder = tmp_path / "bundled" / "backbone-efficientnet-lite0"
    save_backbone(load_backbone("test-efficientnet"), folder)
    assert named_weights("efficientnet-lite0") == folder / "model.safetensors"
    assert fetch_backbone("efficientnet-lite0").path.parent == folder
    (row,) = [row for row in list_backbones() if row["name"] == "efficientnet-lite0"]
    assert (row["kind"], row["parameters"]) == ("bundled", EFFICIENT_NET_PARAMETERS)


def test_what_does_not_fit_is_refused(backbone):
    with pytest.raises(ValueError, match="40x64 pixels do not split into 16-pixel cells"):
        backbone.encode_image(torch.zeros(1, 3, 40, 64))
    for layers in ((3, 8), (8, 16)):
        with pytest.raises(ValueError, match=r"layers should lie in 4\.\.15, got"):
            backbone.encode_image(torch.zeros(1, 3, 32, 32), ImageOptions(layers=layers))
    with pytest.raises(ModelError, match="has no GELU to choose"):
        load_backbone("test-efficientnet:gelu")


@pytest.mark.parametrize("name", ["clip", "faprompt", "rd4ad"])
def test_methods_of_other_backbones_are_refused(backbone, name):
    with pytest.raises(ConfigError, match="no text tower|feature maps of wide_resnet50_2"):
        build_method(name, backbone)


def test_lower_precision_keeps_the_fingerprint(backbone):
    loaded = load_backbone("test-efficientnet", precision="bf16")
    pixels = small.pixels(1, 32, 32)
    exact, rounded = (b.encode_image(pixels).patch_tokens[15] for b in (backbone, loaded))
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    assert loaded.state_fingerprint() == backbone.state_fingerprint()
