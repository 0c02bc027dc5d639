"""APRIL-GAN: the suite, its linear layers, its map and its loss against the formulas."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from faprompt.clip.backbone import build_backbone
from faprompt.clip.vision import ImageOptions
from faprompt.config import to_mapping
from faprompt.errors import ConfigError
from faprompt.methods.april_gan import AprilGAN
from faprompt.methods.registry import build_method, preset_config
from faprompt.prompts import templates
from tests.helpers import large, small
from tests.methods.suite import LearnedSuite


class AprilGANSuite(LearnedSuite):
    name = "april-gan"
    parameters = (3_148_800, 3_148_800)
    official = False
    pixel_map = True


class TestSuite(AprilGANSuite):
    pass


class TestSuiteOfTheLastLayer(AprilGANSuite):
    options = {"map_layers": (2,), "temperature": 0.07, "average": "mean-norm"}


def see(method, count=3):
    with torch.no_grad():
        return method.encode_image(small.backbone(), small.pixels(count))


def run(method, features):
    return method(features, small.backbone().text)


def test_the_codes_constants_and_the_common_preset():
    paper = {
        "image_size": 518, "sigma_px": 0.0,
        "picture_handling": "upright", "class_word": "object", "use_class_names": True,
        "raw_class_names": True, "average": "norm-mean-norm", "temperature": 0.01, "map_layers": (),
        "position_filter": "bicubic",
    }  # fmt: skip
    assert to_mapping(preset_config("april-gan", "paper")) == paper
    common = to_mapping(preset_config("april-gan", "common"))
    assert common == {**paper, "position_filter": "bilinear", "raw_class_names": False}
    assert AprilGAN.backbones["paper"].endswith(":gelu")


def test_the_layers_of_the_paper():
    assert large.method("april-gan").image_options.layers == (6, 12, 18, 24)


def test_a_backbone_of_another_depth_has_the_same_shares():
    spec = small.backbone().spec
    for depth, wanted in ((12, (3, 6, 9, 12)), (4, (1, 2, 3, 4)), (2, (1, 2)), (6, (2, 3, 5, 6))):
        deep = replace(spec, vision=replace(spec.vision, layers=depth))
        assert deep.vision.quarter_layers == wanted
    built = small.method("april-gan")
    assert built.image_options.layers == (1, 2)
    assert sum(p.numel() for p in built.parameters()) == 2 * (64 + 1) * 64


def test_map_and_score_are_the_formulas():
    """Softmax over two upsampled channels, written out; the score is CLIP's own."""
    method = small.method("april-gan")
    features = see(method)
    with torch.no_grad():
        out = run(method, features)
        pair = method.text_pair
        maps = []
        for layer, linear in zip((1, 2), method.linears, strict=True):
            tokens = features.patch_tokens[layer] @ linear.weight.T + linear.bias
            logits = 100 * F.normalize(tokens, dim=-1) @ pair.T  # (B, N, 2)
            planes = logits.permute(0, 2, 1).reshape(3, 2, 4, 4)
            planes = F.interpolate(planes, size=56, mode="bilinear", align_corners=True)
            maps.append(planes.softmax(dim=1)[:, 1])
        image = 100 * F.normalize(features.class_token, dim=-1) @ pair.T
    torch.testing.assert_close(out.layer_maps, torch.stack(maps), rtol=0, atol=1e-4)
    torch.testing.assert_close(out.patch_map, sum(maps) / 2, rtol=0, atol=1e-4)
    torch.testing.assert_close(out.score, image.softmax(dim=-1)[:, 1], rtol=0, atol=1e-5)


def test_it_reads_raw_tokens_and_clips_class_token():
    method = small.method("april-gan")
    features = see(method)
    plain = small.backbone().encode_image(
        small.pixels(),
        ImageOptions(layers=(1, 2), value_path=False, class_ln_post=True, raw_tokens=True),
    )
    assert torch.equal(features.class_token, plain.class_token)
    for layer in (1, 2):
        assert torch.equal(features.patch_tokens[layer], plain.patch_tokens[layer])


def test_the_pair_is_the_ensemble_of_245_and_175_sentences():
    pair = small.method("april-gan", class_word="cable").text_pair
    for row, states in zip(pair, templates.APRIL_STATES, strict=True):
        texts = [t.format(s.format("cable")) for t in templates.APRIL_TEMPLATES for s in states]
        mean = F.normalize(small.backbone().encode_texts(texts), dim=-1).mean(dim=0)
        torch.testing.assert_close(row, mean / mean.norm())


def test_the_loss_is_focal_plus_dice_written_out():
    method = small.method("april-gan", temperature=0.5)
    out = run(method, see(method))
    mask = torch.zeros(3, 56, 56)
    mask[1:, 5:20, 10:40] = 1
    wanted = 0.0
    for a in out.layer_maps:
        target = torch.stack([1 - mask, mask], dim=1).clamp(1e-5, 1 - 1e-5)
        q = (target * torch.stack([1 - a, a], dim=1)).sum(dim=1) + 1e-5
        wanted = wanted + (-((1 - q) ** 2) * q.log()).mean()
        for one, truth in zip(a, mask, strict=True):
            overlap = (2 * (one * truth).sum() + 1) / (one.sum() + truth.sum() + 1)
            wanted = wanted + (1 - overlap) / 3
    terms = method.loss(out, torch.tensor([0, 1, 1]), mask)
    assert set(terms) == {"local"}
    torch.testing.assert_close(terms["local"], wanted)


def test_the_gelu_is_the_backbones_choice():
    spec = small.backbone().spec
    state = {
        key.removeprefix("vision.").removeprefix("text."): tensor
        for key, tensor in small.backbone().state_dict().items()
    }
    state["logit_scale"] = small.backbone().logit_scale
    exact = build_backbone(replace(spec, quick_gelu=False), state, name="exact")
    ours, theirs = (
        build_method("april-gan", b, {"image_size": 56}) for b in (small.backbone(), exact)
    )
    assert (ours.text_pair - theirs.text_pair).abs().max() > 1e-4
    tokens = [m.encode_image(b, small.pixels()).patch_tokens[2]
              for m, b in ((ours, small.backbone()), (theirs, exact))]  # fmt: skip
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3


@pytest.mark.parametrize("layers", ["0", "3"])
def test_layers_the_tower_does_not_have_are_refused(layers):
    with pytest.raises(ConfigError, match=r"april-gan on test-tiny: map_layers .* 1\.\.2"):
        build_method("april-gan", small.backbone(), {"map_layers": layers})


def test_a_mask_of_another_size_is_refused():
    method = small.method("april-gan")
    with pytest.raises(ValueError, match="map and mask should both be"):
        method.loss(run(method, see(method)), torch.zeros(3), torch.zeros(3, 28, 28))
