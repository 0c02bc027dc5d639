"""Specs from names, dicts and shapes."""

import json
from dataclasses import replace

import pytest
import torch

from faprompt.clip.backbone import build_clip
from faprompt.clip.spec import (
    BackboneSpec,
    TextSpec,
    VisionSpec,
    infer_spec,
    open_clip_module,
    spec_from_open_clip,
    spec_from_open_clip_config,
)
from faprompt.errors import ConfigError, ModelError
from tests.helpers import golden
from tests.helpers.clip_files import open_clip_config


def shapes_of(spec):
    """The state dict of a spec, without its values."""
    with torch.device("meta"):
        return build_clip(spec).state_dict()


class TestValuePathStart:
    @pytest.mark.parametrize(
        ("layers", "start"), [(24, 5), (1, 0), (2, 0), (6, 1), (12, 2), (32, 6), (40, 8), (48, 10)]
    )
    def test_keeps_the_papers_share(self, layers, start):
        """24 blocks: 5 plain ones; others ceil(19/24 depth) from the end."""
        vision = VisionSpec(image_size=56, patch_size=14, width=64, layers=layers, heads=1)
        assert vision.value_path_start == start


class TestInfer:
    def test_golden_state(self):
        assert infer_spec(golden.clip_state(), quick_gelu=True) == BackboneSpec(
            embed_dim=128,
            quick_gelu=True,
            vision=VisionSpec(image_size=56, patch_size=14, width=128, layers=24, heads=2),
            text=TextSpec(width=128, layers=12, heads=2, context_length=77, vocab_size=49408),
        )

    @pytest.mark.parametrize(
        "name", ["ViT-S-32-alt", "ViT-B-16-plus-240", "ViT-L-14-336", "ViT-H-14", "ViT-g-14",
                 "ViT-bigG-14", "ViT-e-14"],
    )  # fmt: skip
    def test_shapes_tell_open_clips_architectures(self, name):
        """Heads among them: those of the widest towers are not 64 channels wide."""
        wanted = spec_from_open_clip(name)
        found = infer_spec(shapes_of(wanted), quick_gelu=wanted.quick_gelu)
        vision = replace(found.vision, mlp_ratio=wanted.vision.mlp_ratio)
        assert replace(found, vision=vision) == wanted
        widths = [int(v.width * v.mlp_ratio) for v in (found.vision, wanted.vision)]
        assert widths[0] == widths[1]

    def test_a_ratio_that_division_cannot_write(self, spec):
        """704 * (960 / 704) is just under 960 in floating point."""
        assert int(704 * (960 / 704)) == 959
        wide = replace(spec, vision=replace(spec.vision, width=704, heads=11, mlp_ratio=1.3637))
        shapes = shapes_of(wide)
        rebuilt = shapes_of(infer_spec(shapes, quick_gelu=True))
        assert {k: t.shape for k, t in rebuilt.items()} == {k: t.shape for k, t in shapes.items()}
        assert rebuilt["visual.transformer.resblocks.0.mlp.c_fc.bias"].shape == (960,)

    def test_heads_may_be_given(self):
        found = infer_spec(golden.clip_state(), quick_gelu=False, heads=(4, 1))
        assert (found.vision.heads, found.text.heads, found.quick_gelu) == (4, 1, False)

    @pytest.mark.parametrize("heads", [(3, 2), (2, 5)])
    def test_heads_that_do_not_divide_are_refused(self, heads):
        with pytest.raises(ModelError, match="width 128 does not split into [35] heads"):
            infer_spec(golden.clip_state(), quick_gelu=True, heads=heads)

    def test_a_width_without_heads_of_64_is_refused(self, spec):
        narrow = replace(spec, vision=replace(spec.vision, width=96, heads=2))
        with pytest.raises(ModelError, match="width 96 does not split into heads of 64"):
            infer_spec(shapes_of(narrow), quick_gelu=True)

    def test_missing_keys_are_named(self, state):
        lame = {k: v for k, v in state.items() if k not in ("visual.proj", "ln_final.weight")}
        with pytest.raises(ModelError, match=r"it lacks visual\.proj, ln_final\.weight\."):
            infer_spec(lame, quick_gelu=True)


class TestDict:
    @pytest.mark.parametrize("vocabulary", [None, (3, 9, 49406, 49407)])
    def test_survives_json(self, vocabulary):
        vision = VisionSpec(
            image_size=64, patch_size=16, width=64, layers=2, heads=1,
            stem_channels=(8, 16, 32), stem_strides=(2, 2, 2, 2),
        )  # fmt: skip
        spec = BackboneSpec(
            embed_dim=32, quick_gelu=False, vision=vision, text=TextSpec(64, 2, 1),
            mean=(0.5, 0.4, 0.3), vocabulary=vocabulary,
        )  # fmt: skip
        assert BackboneSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec

    def test_unknown_keys_are_refused(self, spec):
        data = spec.to_dict()
        data["vision"]["hight"] = 5
        with pytest.raises(ConfigError, match="vision spec: unknown hight; known: .*'heads'"):
            BackboneSpec.from_dict(data)
        with pytest.raises(ConfigError, match="backbone spec: unknown colour"):
            BackboneSpec.from_dict({**spec.to_dict(), "colour": "red"})

    @pytest.mark.parametrize("key", ["quick_gelu", "embed_dim", "text"])
    def test_missing_keys_are_refused(self, spec, key):
        data = spec.to_dict()
        del data[key]
        with pytest.raises(ConfigError, match="spec is incomplete"):
            BackboneSpec.from_dict(data)


class TestOpenClip:
    def test_the_papers_backbone(self):
        assert spec_from_open_clip("ViT-L/14-336", quick_gelu=True) == BackboneSpec(
            embed_dim=768,
            quick_gelu=True,
            vision=VisionSpec(image_size=336, patch_size=14, width=1024, layers=24, heads=16),
            text=TextSpec(width=768, layers=12, heads=12),
        )

    def test_the_config_decides_on_quick_gelu_unless_overridden(self):
        assert not spec_from_open_clip("ViT-B-32").quick_gelu
        assert spec_from_open_clip("ViT-B-32-quickgelu").quick_gelu
        assert not spec_from_open_clip("ViT-B-32-quickgelu", quick_gelu=False).quick_gelu

    def test_round_trip_through_open_clips_config(self):
        spec = spec_from_open_clip("ViT-g-14")
        assert spec_from_open_clip_config(open_clip_config(spec), name="g") == spec

    @pytest.mark.parametrize(
        "name", ["RN50", "ViT-SO400M-14-SigLIP", "coca_ViT-B-32", "EVA02-B-16"]
    )
    def test_other_architectures_are_refused(self, name):
        assert open_clip_module().get_model_config(name)
        with pytest.raises(ConfigError, match=f"'{name}' is not a plain CLIP"):
            spec_from_open_clip(name)

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ConfigError, match="no model 'ViT-Z'; it knows ViT-B-16"):
            spec_from_open_clip("ViT-Z")
