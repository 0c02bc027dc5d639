"""The paper's backbones as shapes without numbers, for what methods build on them."""

from __future__ import annotations

from functools import cache

import torch

from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import spec_from_open_clip
from faprompt.clip.wide_resnet import WideResNet, draw_wide_resnet
from faprompt.methods.base import Method
from faprompt.methods.registry import build_method


@cache
def backbone() -> Backbone:
    """ViT-L/14@336; whatever sentence it is given, it says something of the right shape."""
    spec = spec_from_open_clip("ViT-L-14-336")
    with torch.device("meta"):
        built = build_backbone(spec, name="large")
    built.text.encode_tokens = lambda ids: torch.empty(len(ids), spec.embed_dim, device="meta")
    return built


@cache
def wide_resnet() -> WideResNet:
    """What PatchCore and RD4AD stand on."""
    with torch.device("meta"):
        return draw_wide_resnet()


def method(name: str, on: Backbone | None = None, **options) -> Method:
    """A method as its preset "paper" has it, on ViT-L/14@336 unless told."""
    with torch.device("meta"):
        return build_method(name, on or backbone(), options)
