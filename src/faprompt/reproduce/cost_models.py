"""Build the detectors that a study of cost measures, with drawn weights and memories.

Speed does not depend on the values of weights or memories, so both may be drawn. PatchCore gets
a memory of the size that the pictures of a class would leave; no coreset is searched.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.known_backbones import pretrained_spec, split_name
from faprompt.clip.weights import load_backbone
from faprompt.clip.wide_resnet import WIDE_RESNET, draw_wide_resnet
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.methods.base import Method
from faprompt.methods.patchcore import PatchCore
from faprompt.methods.registry import build_method, fit_to_backbone, own_backbone

CLASS_NAME = "bottle"  # class of the drawn pictures


def pick_backbone(name: str, *, drawn: bool, device: Any = "cpu", precision: Any = "fp32") -> Any:
    """Load the backbone of a study of cost, or draw its weights from a seed.

    Args:
        name: as for `load_backbone`; with `drawn`, an open_clip name or "wide_resnet50_2".
        drawn: draw the weights instead of loading the trained ones.

    Raises:
        ConfigError: weights cannot be drawn for this name.
    """
    if not drawn:
        return load_backbone(name, precision=precision, device=device)
    if name == WIDE_RESNET:
        return draw_wide_resnet().set_precision(precision).to(device)
    architecture = split_name(name)
    if architecture is None:
        raise ConfigError(
            f"Weights can be drawn for {WIDE_RESNET} and open_clip's names only, not for {name!r}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(111)
        backbone = build_backbone(pretrained_spec(*architecture), name=f"{name}, drawn weights")
    return backbone.set_precision(precision).to(device)


def fit_network(name: str, shared: Backbone, *, preset: str, drawn: bool) -> Backbone:
    """Return the study's backbone, or the network that the preset of a full-shot method needs.

    A study whose backbone has no text tower measures on that. Errors are those of `pick_backbone`.
    """
    own = own_backbone(name, preset)
    if not own or not shared.has_text:
        return shared
    return pick_backbone(own, drawn=drawn, device=shared.device, precision=shared.precision)


def build_measured(name: str, backbone: Backbone, *, preset: str, normal_pictures: int) -> Detector:
    """Build a method as a model folder would hold it, with drawn learned parts.

    PatchCore has one class of `normal_pictures` and keeps its share of their patches, up to its
    limit. Errors are those of `build_method`.
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
    return Detector(backbone, method.eval(), name=name)


def draw_pixels(method: Method, count: int, device: torch.device) -> Tensor:
    """Return (count, 3, side, side) of seeded noise at the method's image size."""
    side = method.config.image_size
    generator = torch.Generator().manual_seed(111)
    return torch.randn(count, 3, side, side, generator=generator).to(device)


@torch.no_grad()
def _count_patches(method: PatchCore, backbone: Backbone) -> int:
    """Return the number of patches of one picture."""
    pixels = draw_pixels(method, 1, backbone.device)
    rows, columns = method.embed(method.encode_image(backbone, pixels)).shape[-2:]
    return rows * columns


def _fill(method: PatchCore) -> None:
    """Draw the patches of every memory, with a spread of one."""
    generator = torch.Generator().manual_seed(111)
    for model in method.models:
        patches = model.get_buffer("patches")
        patches.copy_(torch.randn(patches.shape, generator=generator))
        model.get_buffer("spread").fill_(1.0)
