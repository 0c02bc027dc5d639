"""Presets of all methods: which there are, whose backbone each is of, and what notes say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from faprompt.clip.known_backbones import pretrained_spec
from faprompt.clip.weights import load_backbone, may_be, save_backbone
from faprompt.config import to_mapping
from faprompt.errors import ConfigError
from faprompt.methods.registry import (
    METHODS,
    PAPERS_BACKBONE,
    describe_methods,
    list_methods,
    own_backbone,
    preset_backbone,
    preset_config,
    preset_note,
    preset_recipe,
    presets_of,
)
from tests.helpers import small

B16 = "ViT-B-16-plus-240:laion400m_e"
OF_ANOTHER = {
    ("winclip", "paper"): f"{B16}31",
    ("winclip", "code"): f"{B16}31",
    ("anovl", "paper"): f"{B16}32",
    ("anovl", "adapted"): f"{B16}32",
    ("anovl", "visa"): f"{B16}32",
    ("anovl", "visa-adapted"): f"{B16}32",
    ("april-gan", "paper"): "ViT-L-14-336:gelu",
    ("filo", "paper"): "ViT-L-14-336:gelu",
    ("filo", "clean"): "ViT-L-14-336:gelu",
    ("relations", "paper"): "efficientnet-lite0",
    ("relations", "untrained"): "efficientnet-lite0",
    ("patchcore", "paper"): "wide_resnet50_2",
    ("patchcore", "code"): "wide_resnet50_2",
    ("rd4ad", "paper"): "wide_resnet50_2",
}


def named(name: str):
    """What a note reads of a backbone by open_clip's name; no weights are needed."""
    model, _, tag = name.partition(":")
    gelu = {"gelu": False, "quickgelu": True}.get(tag)
    spec = pretrained_spec(model, "openai" if gelu is not None else tag or "openai")
    if gelu is not None:
        spec = replace(spec, quick_gelu=gelu)
    return SimpleNamespace(name=name, spec=spec, has_text=True)


def test_each_preset_is_of_one_backbone():
    found = {(n, p): preset_backbone(n, p) for n in METHODS for p in presets_of(n)}
    assert {key: name for key, name in found.items() if name} == OF_ANOTHER
    rows = {row["name"]: row["backbones"] for row in describe_methods()}
    assert {(n, p): name for n, told in rows.items() for p, name in told.items()} == {
        key: name or PAPERS_BACKBONE for key, name in found.items()
    }


@pytest.mark.parametrize("name", list_methods())
def test_full_shot_methods_alone_are_bound(name):
    for preset in presets_of(name):
        bound = METHODS[name].full_shot and (name, preset) in OF_ANOTHER
        assert own_backbone(name, preset) == (OF_ANOTHER[name, preset] if bound else "")


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"rd4ad"}))
def test_common_sees_518_pixels_on_the_papers_backbone(name):
    assert preset_config(name, "common").image_size == 518
    assert preset_backbone(name, "common") == ""


@pytest.mark.parametrize("name", ["coop", "cocoop", "anomalyclip", "tcp-v1", "faprompt"])
def test_common_is_paper_where_that_is_the_same(name):
    assert to_mapping(preset_config(name, "common")) == to_mapping(preset_config(name, "paper"))
    assert preset_recipe(name, "common") == preset_recipe(name, "paper")


def test_coops_common_recipe_is_its_own():
    assert preset_recipe("coop", "common")["optimizer"] == "sgd"


def test_what_stands_on_its_own_network_has_no_common():
    told = "rd4ad has no preset 'common': it runs on wide_resnet50_2 only; known: paper"
    for ask in (preset_config, preset_recipe, preset_backbone, own_backbone):
        with pytest.raises(ConfigError, match=told):
            ask("rd4ad", "common")
    with pytest.raises(ConfigError, match="rd4ad has no preset 'mine'; known: paper"):
        preset_config("rd4ad", "mine")
    with pytest.raises(ConfigError, match="clip has no preset 'mine'; known: paper, common"):
        preset_backbone("clip", "mine")


class TestMayBe:
    @pytest.mark.parametrize(
        ("backbone", "name", "same"),
        [
            (f"{B16}31", f"{B16}31", True),
            ("ViT-B/16-plus-240:laion400m_e31", f"{B16}31", True),
            (f"{B16}32", f"{B16}31", False),
            ("ViT-L-14-336", "ViT-L-14-336:gelu", False),
            ("ViT-L-14-336:openai:gelu", "ViT-L-14-336:gelu", True),
            ("ViT-L-14-336:gelu", "ViT-L-14-336:gelu", True),
        ],
    )
    def test_names(self, backbone, name, same):
        assert may_be(SimpleNamespace(name=backbone, spec=None, has_text=True), name) is same

    def test_files_are_told_by_their_shape_and_activation(self):
        right, gelu = named("ViT-L-14-336").spec, named("ViT-L-14-336:gelu").spec
        for spec, same in ((right, False), (gelu, True), (named(f"{B16}31").spec, False)):
            file = SimpleNamespace(name="weights/mine.pt", spec=spec, has_text=True)
            assert may_be(file, "ViT-L-14-336:gelu") is same

    def test_a_folder_of_another_shape(self, tmp_path):
        save_backbone(small.backbone(), tmp_path / "clip")
        assert not may_be(load_backbone(tmp_path / "clip"), "ViT-L-14-336:gelu")

    def test_names_of_ours(self):
        assert may_be(small.backbone(), small.backbone().name)
        assert not may_be(small.backbone(), "ViT-L-14-336:gelu")
        network = load_backbone("test-wide-resnet")
        assert may_be(network, "wide_resnet50_2") and not may_be(network, f"{B16}31")
        assert not may_be(small.backbone(), "wide_resnet50_2")


class TestNote:
    def note(self, method, preset, backbone, **options):
        return preset_note(method, named(backbone), options, preset=preset)

    def test_a_preset_that_runs_as_it_is_needs_none(self):
        assert self.note("winclip", "paper", f"{B16}31") == ""
        assert self.note("winclip", "common", "ViT-L-14-336") == ""
        assert self.note("april-gan", "paper", "ViT-L-14-336:gelu") == ""
        assert self.note("faprompt", "paper", "ViT-B-32", image_size=512) == "", "it was asked for"

    def test_another_backbone_is_told(self):
        assert self.note("april-gan", "paper", "ViT-L-14-336") == (
            "Preset `paper` was published for ViT-L-14-336:gelu. You run it on `ViT-L-14-336`: "
            "results are not comparable with published ones"
        )

    def test_another_size_is_told(self):
        assert self.note("faprompt", "dap", "ViT-B-16") == (
            "Preset `dap` was published at 518 px. You run it on `ViT-B-16` at 512 px: results are "
            "not comparable with published ones"
        )

    def test_both_are_one_line(self):
        assert self.note("anovl", "adapted", "ViT-L-14-336") == (
            f"Preset `adapted` was published for {B16}32 at 240 px. You run it on `ViT-L-14-336` "
            "at 238 px: results are not comparable with published ones"
        )
