"""WideResNet-50-2: its maps against torchvision's own network, its files, and its refusals."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from faprompt.clip import wide_resnet
from faprompt.clip.known_backbones import fetch_backbone, list_backbones, wide_resnet_file
from faprompt.clip.weights import load_backbone, save_backbone
from faprompt.errors import ConfigError, ModelError
from faprompt.methods.registry import build_method
from tests.helpers import small


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("test-wide-resnet")


@pytest.fixture(scope="module")
def weights():
    return wide_resnet.draw_test_weights()


@pytest.fixture
def narrow(monkeypatch):
    """The real name means the drawn, narrow network here: the real one has 100 MB."""
    monkeypatch.setattr(wide_resnet, "_SHAPE", wide_resnet._TEST_SHAPE)


def test_the_maps_are_torchvisions(backbone, weights):
    from torchvision.models.resnet import Bottleneck, ResNet

    network = ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=8).eval()
    network.load_state_dict(weights, strict=False)
    pixels = small.pixels(2, 64, 96)
    with torch.no_grad():
        planes = network.maxpool(network.relu(network.bn1(network.conv1(pixels))))
        features = backbone.encode_image(pixels)
        ours = wide_resnet.unpack_stages(features)
        for stage in (1, 2, 3):
            planes = getattr(network, f"layer{stage}")(planes)
            torch.testing.assert_close(ours[stage], planes)
    sizes = {stage: tuple(planes.shape[1:]) for stage, planes in ours.items()}
    assert sizes == {1: (256, 16, 24), 2: (512, 8, 12), 3: (1024, 4, 6)}
    assert features.patch_tokens[1].shape == (2, 6, 28672) and features.grid == (2, 3)


def test_weights_may_be_drawn():
    before = torch.get_rng_state()
    drawn = wide_resnet.draw_wide_resnet()
    assert torch.equal(torch.get_rng_state(), before)
    assert drawn.name == "wide_resnet50_2" and not drawn.training
    assert sum(p.numel() for p in drawn.parameters()) == wide_resnet.WIDE_RESNET_PARAMETERS
    assert not any(p.requires_grad for p in drawn.parameters())
    with torch.no_grad():
        tokens = drawn.encode_image(small.pixels(1, 32, 32)).patch_tokens[1]
    assert tokens.isfinite().all() and tokens.std() > 0


def test_packing_and_unpacking_change_nothing(backbone):
    with torch.no_grad():
        maps = backbone.vision(small.pixels(2, 64, 96))
        features = backbone.encode_image(small.pixels(2, 64, 96))
    for before, after in zip(maps, wide_resnet.unpack_stages(features).values(), strict=True):
        assert torch.equal(before, after)
    cell = features.patch_tokens[1][1, 4]  # second row, second column of 2 x 3
    inside = [maps[0][1, :, 8:16, 8:16], maps[1][1, :, 4:8, 4:8], maps[2][1, :, 2:4, 2:4]]
    wanted = torch.cat([part.flatten() for part in inside])
    assert torch.equal(cell.sort().values, wanted.sort().values)


def test_it_is_frozen_and_stays_in_eval_mode(backbone):
    assert not any(p.requires_grad for p in backbone.parameters())
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.train()
    backbone.encode_image(small.pixels(2, 64, 64))
    assert not any(module.training for module in backbone.modules())
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_of_torchvision_and_timm(suffix, weights, backbone, narrow, tmp_path):
    """With the classifier's layers; timm's without counters."""
    path = tmp_path / f"wide_resnet50_2-95faca4d{suffix}"
    state = {**weights, "fc.weight": torch.zeros(3, 5), "layer4.0.conv1.weight": torch.ones(2)}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file({k: v for k, v in state.items() if "num_batches" not in k}, path)
    loaded = load_backbone(path)
    assert loaded.name == "wide_resnet50_2" and not loaded.has_text
    assert loaded.state_fingerprint() == backbone.state_fingerprint()
    pixels = small.pixels(1, 64, 64)
    ours, theirs = (b.encode_image(pixels).patch_tokens[1] for b in (loaded, backbone))
    assert torch.equal(ours, theirs)


def test_other_networks_and_incomplete_files_are_refused(weights, narrow, tmp_path):
    torch.save(weights, tmp_path / "narrow.pth")
    (tmp_path / "short.pth").unlink(missing_ok=True)
    short = {k: v for k, v in weights.items() if k != "layer2.0.bn2.bias"}
    torch.save(short, tmp_path / "short.pth")
    with pytest.raises(ModelError, match=r"do not fit.*missing: layer2\.0\.bn2\.bias"):
        load_backbone(tmp_path / "short.pth")
    wide_resnet._SHAPE = ((3, 4, 6), 128)
    with pytest.raises(ModelError, match=r"\(1, 1, 1\) blocks .* width of 8; wide_resnet50_2 has"):
        load_backbone(tmp_path / "narrow.pth")


def test_by_name_it_comes_from_torchs_cache_or_says_what_to_fetch(
    weights, narrow, monkeypatch, tmp_path
):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refuse(url, *_, **__):
        raise OSError(f"no address for {url}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ModelError, match=r"could not be downloaded.*Wanted: https.* as .*95faca4d"):
        load_backbone("wide_resnet50_2")
    path = tmp_path / "checkpoints" / "wide_resnet50_2-95faca4d.pth"
    path.parent.mkdir()
    torch.save(weights, path)
    assert load_backbone("wide_resnet50_2").name == "wide_resnet50_2"
    assert fetch_backbone("wide_resnet50_2").path == path


def test_what_belongs_to_a_clip_is_refused(backbone, tmp_path):
    with pytest.raises(ModelError, match="has no GELU to choose; leave the :gelu"):
        load_backbone("test-wide-resnet:gelu")
    with pytest.raises(ValueError, match="test-wide-resnet is not a CLIP; copy its file"):
        save_backbone(backbone, tmp_path)


def test_pixels_that_do_not_fit_are_refused(backbone):
    with pytest.raises(ValueError, match="64x80 pixels do not split into 32-pixel cells"):
        backbone.encode_image(torch.zeros(1, 3, 64, 80))
    with pytest.raises(ValueError, match=r"pixels should be \(B, 3, H, W\), got \(3, 64, 64\)"):
        backbone.encode_image(torch.zeros(3, 64, 64))


def test_methods_that_need_words_are_refused(backbone):
    for name in ("clip", "faprompt", "winclip"):
        with pytest.raises(ConfigError, match=f"{name} compares pictures with words"):
            build_method(name, backbone)
    with pytest.raises(TypeError, match="has no text tower"):
        backbone.encode_texts(["a photo"])


def test_lower_precision_keeps_the_fingerprint(backbone):
    loaded = load_backbone("test-wide-resnet", precision="bf16")
    exact, rounded = (
        b.encode_image(small.pixels(1, 64, 64)).patch_tokens[1] for b in (backbone, loaded)
    )
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.99
    assert loaded.state_fingerprint() == backbone.state_fingerprint()


def test_the_list_has_it_with_its_size():
    (row,) = [row for row in list_backbones() if row["name"] == "wide_resnet50_2"]
    with torch.device("meta"):
        network = wide_resnet._build_network(wide_resnet._SHAPE)
    assert row["parameters"] == sum(p.numel() for p in network.parameters())
    assert (row["kind"], row["patch_size"]) == ("torchvision", 32)
    assert wide_resnet_file() == Path(torch.hub.get_dir(), "checkpoints").joinpath(
        "wide_resnet50_2-95faca4d.pth"
    )
