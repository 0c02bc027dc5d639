"""Methods by name, and their presets; an unknown name is a `ConfigError` that lists the known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from faprompt.clip.backbone import Backbone
from faprompt.clip.weights import may_be
from faprompt.config import from_mapping, to_mapping
from faprompt.errors import ConfigError
from faprompt.methods.anomalyclip import AnomalyCLIP, AnomalyCLIPEnsemble
from faprompt.methods.anovl import AnoVL
from faprompt.methods.april_gan import AprilGAN
from faprompt.methods.base import Method, MethodConfig, Table
from faprompt.methods.coop import CoCoOp, CoOp
from faprompt.methods.faprompt import FAPrompt
from faprompt.methods.filo import FiLo
from faprompt.methods.patchcore import PatchCore
from faprompt.methods.rd4ad import RD4AD
from faprompt.methods.relations import Relations
from faprompt.methods.sentences import CLIPAC, PlainCLIP
from faprompt.methods.tcp import TCPV1, TCPV2
from faprompt.methods.winclip import WinCLIP

METHODS: dict[str, type[Method]] = {
    cls.name: cls
    for cls in (
        PlainCLIP, CLIPAC, WinCLIP, AprilGAN, AnoVL, CoOp, CoCoOp, AnomalyCLIP,
        AnomalyCLIPEnsemble, TCPV1, TCPV2, FiLo, FAPrompt, Relations, PatchCore, RD4AD,
    )
}  # fmt: skip
PAPERS_BACKBONE = "ViT-L-14-336"  # of presets that name no other; they run on any
PAPER, COMMON = "paper", "common"
FITTED_OPTIONS = ("image_size", "sigma_px", "use_class_names")  # what `fit_to_backbone` sets


def list_methods() -> list[str]:
    """Return the names of all methods."""
    return list(METHODS)


def describe_methods() -> list[dict[str, Any]]:
    """Return a row per method: name, kind, presets, their backbones, parameters at full size."""
    return [
        {
            "name": name,
            "kind": cls.kind(),
            "presets": list(presets_of(name)),
            "backbones": {
                preset: preset_backbone(name, preset) or PAPERS_BACKBONE
                for preset in presets_of(name)
            },
            "parameters": cls.parameters_at_full_size.live,
            "reported_parameters": cls.parameters_at_full_size.reported,
        }
        for name, cls in METHODS.items()
    ]


def method_class(name: str) -> type[Method]:
    """Return the class of a method."""
    if name not in METHODS:
        raise ConfigError(f"No method {name!r}; known: {', '.join(METHODS)}.")
    return METHODS[name]


def presets_of(name: str) -> Table:
    """Return a method's presets, each with the options that differ from the defaults.

    `common` is ViT-L/14@336 at 518 pixels for all methods. A method whose `paper` is just that
    has it under both names; a method that needs its own network has none.

    Example:
        >>> list(presets_of("anomalyclip")), list(presets_of("rd4ad"))
        (['paper', 'official', 'common'], ['paper'])
    """
    cls = method_class(name)
    if COMMON in cls.presets or PAPER in cls.backbones:
        return cls.presets
    return {**cls.presets, COMMON: cls.presets[PAPER]}


def preset_options(name: str, preset: str) -> Mapping[str, Any]:
    """Return the options in which a preset differs from the method's defaults."""
    presets = presets_of(name)
    if preset not in presets:
        only = method_class(name).backbones.get(PAPER, "")
        why = f": it runs on {only} only" if preset == COMMON else ""
        raise ConfigError(f"{name} has no preset {preset!r}{why}; known: {', '.join(presets)}.")
    return presets[preset]


def preset_config(name: str, preset: str) -> MethodConfig:
    """Build the config of a preset."""
    options = preset_options(name, preset)
    return from_mapping(method_class(name).config_class, options, what=f"{name} options")


def preset_recipe(name: str, preset: str) -> Mapping[str, Any]:
    """Return the training options in which a preset differs from FAPrompt's."""
    preset_options(name, preset)
    cls = method_class(name)
    return cls.recipes.get(preset if preset in cls.presets else PAPER, {})


def preset_backbone(name: str, preset: str) -> str:
    """Return the backbone a preset was published for, or "" for `PAPERS_BACKBONE`.

    Example:
        >>> preset_backbone("april-gan", "paper"), preset_backbone("april-gan", "common")
        ('ViT-L-14-336:gelu', '')
    """
    preset_options(name, preset)
    return method_class(name).backbones.get(preset, "")


def own_backbone(name: str, preset: str) -> str:
    """Return the only backbone a full-shot method's preset runs on, or "" if any will do.

    Example:
        >>> own_backbone("patchcore", "paper"), own_backbone("patchcore", "common")
        ('wide_resnet50_2', '')
    """
    return preset_backbone(name, preset) if method_class(name).full_shot else ""


def fit_to_backbone(
    method: str, backbone: Backbone, options: Mapping[str, Any] | None, *, preset: str = "paper"
) -> dict[str, Any]:
    """Complete options for a backbone; those of the caller are kept.

    The image size is the nearest multiple of the patch size to the preset's, or the size `tiny`
    was trained at; sigma is scaled alike. A backbone with a part of CLIP's vocabulary has no
    words for most classes, so every picture shows `class_word` there.
    """
    chosen = dict(options or {})
    vision = backbone.spec.vision
    default = preset_config(method, preset)
    if "image_size" not in chosen:
        side = vision.image_size if vision.stem_strides else default.image_size
        chosen["image_size"] = max(1, round(side / vision.patch_size)) * vision.patch_size
    if "sigma_px" not in chosen and str(chosen["image_size"]).isdecimal():
        chosen["sigma_px"] = default.sigma_px * int(chosen["image_size"]) / default.image_size
    if backbone.spec.vocabulary is not None and hasattr(default, "use_class_names"):
        chosen.setdefault("use_class_names", False)
    return chosen


def preset_note(
    method: str, backbone: Backbone, options: Mapping[str, Any] | None, *, preset: str = "paper"
) -> str:
    """Describe how a preset's backbone or image size differs from the published one.

    An image size among `options` needs no note. The sentences have no last full stop; they
    are "" if the preset runs as published.
    """
    asked, wanted = options or {}, preset_config(method, preset).image_size
    side = wanted
    if "image_size" not in asked:
        side = fit_to_backbone(method, backbone, asked, preset=preset)["image_size"]
    own = preset_backbone(method, preset)
    published = f" for {own}" if own and not may_be(backbone, own) else ""
    run = f"`{backbone.name}`"
    if side != wanted:
        published, run = f"{published} at {wanted} px", f"{run} at {side} px"
    if not published:
        return ""
    return (
        f"Preset `{preset}` was published{published}. You run it on {run}: "
        "results are not comparable with published ones"
    )


def build_method(
    name: str,
    backbone: Backbone,
    options: Mapping[str, Any] | None = None,
    *,
    preset: str = "paper",
    seed: int = 111,
) -> Method:
    """Build a method with freshly drawn parameters; the global random state is left as it was.

    Args:
        name: one of `list_methods()`.
        backbone: read for its sizes, tokens and the embeddings of fixed words.
        options: fields of the method's config; they override the preset.
        preset: one of `presets_of(name)`.
        seed: of the initial values.

    Raises:
        ConfigError: an unknown option, or values out of range or that do not fit this backbone.
    """
    cls = method_class(name)
    values = {**to_mapping(preset_config(name, preset)), **(options or {})}
    config = from_mapping(cls.config_class, values, what=f"{name} options")
    if cls.needs_text and not backbone.has_text:
        raise ConfigError(
            f"{name} compares pictures with words, and {backbone.name} has no text tower; take a "
            "CLIP, such as tiny or ViT-L-14-336."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach every GPU's too
        try:
            return cls(config, backbone).to(backbone.device)
        except ValueError as error:  # options that this backbone cannot serve
            raise ConfigError(f"{name} on {backbone.name}: {error}") from error
