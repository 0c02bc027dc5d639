"""What a study of cost measures: methods as they stand when they are used, on their networks.

Speed does not depend on what weights or memories hold, so both may be drawn. PatchCore gets a
memory of the size that a class's pictures would leave; its coreset is never searched for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.catalog import pretrained_spec, split_name
from faprompt.clip.weights import load_backbone
from faprompt.clip.wide_resnet import WIDE_RESNET, draw_wide_resnet
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.methods.base import Method
from faprompt.methods.patchcore import PatchCore
from faprompt.methods.registry import build_method, fit_to_backbone, own_backbone

CLASS_NAME = "bottle"  # what drawn pictures are said to show, for methods that ask


def pick_backbone(name: str, *, drawn: bool, device: Any = "cpu", precision: Any = "fp32") -> Any:
    """The backbone of a study of cost.

    Args:
        name: as for `load_backbone`; with `drawn`, an open_clip name or "wide_resnet50_2".
        drawn: seeded weights of that architecture instead of the trained ones.
        device: where it goes.
        precision: of the image tower.

    Raises:
        ConfigError: weights can be drawn for those architectures only.
    """
    if not drawn:
        return load_backbone(name, precision=precision, device=device)
    backbone = draw_wide_resnet() if name == WIDE_RESNET else _draw_clip(name)
    return backbone.set_precision(precision).to(device)


def fit_network(name: str, shared: Backbone, *, preset: str, drawn: bool) -> Backbone:
    """The study's backbone, or the network that a full-shot method's preset is bound to.

    A study whose backbone has no text tower is taken at its word. Errors as in `pick_backbone`.
    """
    own = own_backbone(name, preset)
    if not own or not shared.has_text:
        return shared
    return pick_backbone(own, drawn=drawn, device=shared.device, precision=shared.precision)


def build_measured(name: str, backbone: Backbone, *, preset: str, normal_pictures: int) -> Detector:
    """A method as a loaded model folder has it, with all that it learns drawn.

    Args:
        name: of the method.
        backbone: what it stands on.
        preset: of the method.
        normal_pictures: that PatchCore's one class is said to have; it keeps its share of
            their patches, up to its limit.

    Raises:
        ConfigError, MissingExtraError: as in `build_method`.
    """
    options = fit_to_backbone(name, backbone, {}, preset=preset)
    method = build_method(name, backbone, options, preset=preset)
    if method.full_shot:
        options["classes"] = (CLASS_NAME,)
        if isinstance(method, PatchCore):
            patches = normal_pictures * _count_patches(method, backbone)
            options["memory"] = (method.memory_size(patches),)
        method = build_method(name, backbone, options, preset=preset)
        if isinstance(method, PatchCore):
            _fill(method)
    return Detector(backbone, method, name=name).eval()


def draw_pixels(method: Method, count: int, device: torch.device) -> Tensor:
    """(count, 3, side, side) of noise, of the side that the method sees."""
    side = method.config.image_size
    generator = torch.Generator().manual_seed(111)
    return torch.randn(count, 3, side, side, generator=generator).to(device)


def _draw_clip(name: str) -> Backbone:
    found = split_name(name)
    if found is None:
        raise ConfigError(
            f"Weights can be drawn for {WIDE_RESNET} and open_clip's names only, not for {name!r}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(111)
        return build_backbone(pretrained_spec(*found), name=f"{name}, drawn weights")


@torch.no_grad()
def _count_patches(method: PatchCore, backbone: Backbone) -> int:
    """Of one picture."""
    pixels = draw_pixels(method, 1, backbone.device)
    rows, columns = method.embed(method.encode_image(backbone, pixels)).shape[-2:]
    return rows * columns


def _fill(method: PatchCore) -> None:
    """Drawn patches in every memory, with a spread that is a distance."""
    generator = torch.Generator().manual_seed(111)
    for model in method.models:
        patches = model.get_buffer("patches")
        patches.copy_(torch.randn(patches.shape, generator=generator))
        model.get_buffer("spread").fill_(1.0)
