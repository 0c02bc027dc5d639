"""Methods by the names that scripts rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from faprompt.clip.backbone import Backbone
from faprompt.clip.weights import may_be
from faprompt.config import from_mapping, to_mapping
from faprompt.errors import ConfigError
from faprompt.methods.anomalyclip import AnomalyCLIP
from faprompt.methods.anomalyclip_ensemble import AnomalyCLIPEnsemble
from faprompt.methods.anovl import AnoVL
from faprompt.methods.april_gan import AprilGAN
from faprompt.methods.base import Method, MethodConfig
from faprompt.methods.cocoop import CoCoOp
from faprompt.methods.coop import CoOp
from faprompt.methods.faprompt import FAPrompt
from faprompt.methods.filo import FiLo
from faprompt.methods.patchcore import PatchCore
from faprompt.methods.plain_clip import CLIPAC, PlainCLIP
from faprompt.methods.rd4ad import RD4AD
from faprompt.methods.tcp import TCPV1, TCPV2
from faprompt.methods.winclip import WinCLIP

METHODS: dict[str, type[Method]] = {
    "clip": PlainCLIP,
    "clip-ac": CLIPAC,
    "winclip": WinCLIP,
    "april-gan": AprilGAN,
    "anovl": AnoVL,
    "coop": CoOp,
    "cocoop": CoCoOp,
    "anomalyclip": AnomalyCLIP,
    "anomalyclip-ensemble": AnomalyCLIPEnsemble,
    "tcp-v1": TCPV1,
    "tcp-v2": TCPV2,
    "filo": FiLo,
    "faprompt": FAPrompt,
    "patchcore": PatchCore,
    "rd4ad": RD4AD,
}
PAPERS_BACKBONE = "ViT-L-14-336"  # of presets that are bound to no other; they run on any
PAPER, COMMON = "paper", "common"
FITTED_OPTIONS = ("image_size", "sigma_px", "use_class_names")  # what `fit_to_backbone` sets


def list_methods() -> list[str]:
    """Names of all methods."""
    return list(METHODS)


def describe_methods() -> list[dict[str, Any]]:
    """A row a method: name, kind, presets, live and reported parameters at the paper's size.

    "backbones" tells of each preset the backbone it is of.
    """
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
    """The class behind a name.

    Raises:
        ConfigError: no such method; the known ones are listed.
    """
    if name not in METHODS:
        raise ConfigError(f"No method {name!r}; known: {', '.join(METHODS)}.")
    return METHODS[name]


def presets_of(name: str) -> Mapping[str, Mapping[str, Any]]:
    """A method's presets, with the options in which each differs from the defaults.

    `common` is ViT-L/14@336 at 518 pixels, like for like. A method whose `paper` is that
    already has it by this name too; one that stands on its own network has none.

    Raises:
        ConfigError: no such method; the known ones are listed.

    Example:
        >>> list(presets_of("anomalyclip")), list(presets_of("rd4ad"))
        (['paper', 'official', 'common'], ['paper'])
    """
    cls = method_class(name)
    if COMMON in cls.presets or PAPER in cls.backbones:
        return cls.presets
    return {**cls.presets, COMMON: cls.presets[PAPER]}


def preset_options(name: str, preset: str) -> Mapping[str, Any]:
    """What a preset sets otherwise than the method's defaults.

    Raises:
        ConfigError: no such method or preset; the known ones are listed.
    """
    presets = presets_of(name)
    if preset not in presets:
        only = method_class(name).backbones.get(PAPER, "")
        why = f": it stands on {only} alone" if preset == COMMON else ""
        raise ConfigError(f"{name} has no preset {preset!r}{why}; known: {', '.join(presets)}.")
    return presets[preset]


def preset_config(name: str, preset: str) -> MethodConfig:
    """A method's config as a preset has it.

    Raises:
        ConfigError: no such method or preset; the known ones are listed.
    """
    options = preset_options(name, preset)
    return from_mapping(method_class(name).config_class, options, what=f"{name} options")


def preset_recipe(name: str, preset: str) -> Mapping[str, Any]:
    """Options of training that a method's preset wants otherwise than FAPrompt; see `Method`.

    Raises:
        ConfigError: no such method or preset; the known ones are listed.
    """
    preset_options(name, preset)
    cls = method_class(name)
    return cls.recipes.get(preset if preset in cls.presets else PAPER, {})


def preset_backbone(name: str, preset: str) -> str:
    """The backbone a preset is of, or "" for the one of all papers here, `PAPERS_BACKBONE`.

    On another than it names, a preset is a hybrid; see `preset_note`.

    Raises:
        ConfigError: no such method or preset; the known ones are listed.

    Example:
        >>> preset_backbone("april-gan", "paper"), preset_backbone("april-gan", "common")
        ('ViT-L-14-336:gelu', '')
    """
    preset_options(name, preset)
    return method_class(name).backbones.get(preset, "")


def own_backbone(name: str, preset: str) -> str:
    """The backbone that a full-shot method's preset cannot do without, or "" where it takes any.

    Raises:
        ConfigError: no such method or preset; the known ones are listed.

    Example:
        >>> own_backbone("patchcore", "paper"), own_backbone("patchcore", "common")
        ('wide_resnet50_2', '')
    """
    return preset_backbone(name, preset) if method_class(name).full_shot else ""


def preset_note(name: str, preset: str, backbone: Backbone, fitted: Mapping[str, Any]) -> str:
    """What has to be said where a preset does not run as it is, else "".

    Args:
        name: one of `list_methods()`.
        preset: one of its presets.
        backbone: what it runs on.
        fitted: options that were set to suit the backbone; see `fit_to_backbone`.

    Raises:
        ConfigError: no such method or preset; the known ones are listed.
    """
    own, wanted = preset_backbone(name, preset), preset_config(name, preset).image_size
    side = fitted.get("image_size", wanted)
    told = []
    if own and not may_be(backbone, own):
        told.append(f"is of {own}, so on {backbone.name} it is a hybrid")
    if side != wanted:
        told.append(f"is of {wanted} pixels, and sees {side} on {backbone.name}")
    return f"preset {preset} {'; it '.join(told)}" if told else ""


def fit_to_backbone(
    method: str,
    backbone: Backbone,
    options: Mapping[str, Any] | None,
    *,
    preset: str = "paper",
) -> dict[str, Any]:
    """Options whose preset suits one backbone only, set for the backbone at hand.

    The paper sees 518 pixels through patches of 14, a 37x37 grid, and smooths with sigma
    10 (or 4) of those pixels. Other patch sizes get the nearest multiple; `tiny`
    is read at the size it was trained at, with sigma scaled alike. A backbone with a part
    of CLIP's vocabulary has no words for most classes, so every picture shows `class_word`
    there. What the caller sets is kept.
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


def fitting_note(
    method: str, backbone: Backbone, options: Mapping[str, Any] | None, *, preset: str = "paper"
) -> str:
    """What `fit_to_backbone` made of a preset, or a backbone that is not the preset's; see there.

    "" where the preset runs as it is. What the caller sets is his to say.
    """
    asked = options or {}
    chosen = fit_to_backbone(method, backbone, asked, preset=preset)
    fitted = {key: value for key, value in chosen.items() if key not in asked}
    return preset_note(method, preset, backbone, fitted)


def build_method(
    name: str,
    backbone: Backbone,
    options: Mapping[str, Any] | None = None,
    *,
    preset: str = "paper",
    seed: int = 111,
) -> Method:
    """A method with freshly drawn parameters.

    Args:
        name: one of `list_methods()`.
        backbone: it is read for sizes, tokens and the embeddings of fixed words.
        options: any field of the method's config; they go before the preset.
        preset: "paper", or "official" where a method's public code differs.
        seed: of the initial values; the global random state is left as it was.

    Raises:
        ConfigError: unknown method, preset or option, or values that do not fit, be it
            in themselves or to this backbone.
    """
    cls = method_class(name)
    values = {**to_mapping(preset_config(name, preset)), **(options or {})}
    config = from_mapping(cls.config_class, values, what=f"{name} options")
    if not (backbone.has_text or cls.full_shot):
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
