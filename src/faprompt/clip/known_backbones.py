"""Backbones known by name: the bundled one, open_clip's with their tags, BLIP, WideResNet.

A tag is one set of weights of one open_clip architecture. Its record knows the activation
and the pixel statistics the weights were trained with; it overrides the architecture's.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from faprompt.clip.backbone import build_clip
from faprompt.clip.spec import (
    BackboneSpec,
    TextSpec,
    VisionSpec,
    open_clip_module,
    spec_from_open_clip,
    spec_from_open_clip_config,
)
from faprompt.clip.wide_resnet import WIDE_RESNET, WIDE_RESNET_PARAMETERS, WIDE_RESNET_SPEC
from faprompt.config import read_json
from faprompt.errors import ConfigError, ModelError

BUNDLED = ("tiny",)
DEFAULT_TAG = "openai"
SPEC_FILE, WEIGHTS_FILE = "backbone.json", "model.safetensors"
BLIP_NAMES = {"BLIP-ViT-B-16": "Salesforce/blip-itm-base-coco"}  # ours -> on the hub
BLIP_BASE = BackboneSpec(  # models/vit.py and configs/med_config.json of salesforce/BLIP
    embed_dim=256,
    quick_gelu=False,
    vision=VisionSpec(384, 16, width=768, layers=12, heads=12, value_blocks=7),
    text=TextSpec(width=768, layers=12, heads=12, context_length=35, vocab_size=30524),
)
BLIP_BASE_PARAMETERS = 195_375_872  # both towers, counted by a test


def list_backbones() -> list[dict[str, Any]]:
    """List every backbone that has a name.

    Returns:
        One dict each: name; kind ("bundled", "open_clip", "torchvision", or "transformers",
        which needs the extra `baselines`); tags (sets of weights; the name alone means
        "openai"); embed_dim; image_size and patch_size in pixels; parameters (both towers).
    """
    rows = []
    for name in BUNDLED:
        try:
            folder = bundled_backbone_folder(name)
        except ModelError:
            continue
        rows.append(_row(name, "bundled", BackboneSpec.from_dict(read_json(folder / SPEC_FILE))))
    open_clip = open_clip_module()
    for name in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(name)
        try:
            spec = spec_from_open_clip_config(open_clip.get_model_config(name), name=name)
        except ConfigError:
            continue
        if tags:
            rows.append(_row(name, "open_clip", spec, tags=tags))
    for name in BLIP_NAMES:
        rows.append(_row(name, "transformers", BLIP_BASE, parameters=BLIP_BASE_PARAMETERS))
    wide = _row(WIDE_RESNET, "torchvision", WIDE_RESNET_SPEC, parameters=WIDE_RESNET_PARAMETERS)
    return [*rows, wide]


def _row(
    name: str, kind: str, spec: BackboneSpec, *, tags: list[str] | None = None, parameters: int = 0
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "tags": list(tags or ()),
        "embed_dim": spec.embed_dim,
        "image_size": spec.vision.image_size,
        "patch_size": spec.vision.patch_size,
        "parameters": parameters or _count_parameters(spec),
    }


@cache
def _count_parameters(spec: BackboneSpec) -> int:
    with torch.device("meta"):  # shapes only
        return sum(parameter.numel() for parameter in build_clip(spec).parameters())


def bundled_backbone_folder(name: str) -> Path:
    """Return the folder of a backbone that ships with the package.

    Raises:
        ModelError: this installation lacks it.
    """
    folder = Path(str(resources.files("faprompt") / "bundled" / f"backbone-{name}"))
    if not (folder / SPEC_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise ModelError(
            f"The bundled backbone {name!r} is not in this installation: bundled/{folder.name}/ "
            f"lacks {SPEC_FILE} or {WEIGHTS_FILE}. Install faprompt from a release, or choose "
            "another backbone, such as ViT-L-14-336 or a local file."
        )
    return folder


def split_name(text: str) -> tuple[str, str] | None:
    """Split `ViT-B-32:laion2b_e16` into (model, tag); None if open_clip has no such model.

    A slash is read as a dash. The default tag is OpenAI's.
    """
    model, _, tag = text.partition(":")
    model = model.replace("/", "-")
    return (model, tag or DEFAULT_TAG) if model in open_clip_module().list_models() else None


def is_blip_name(name: str | Path) -> bool:
    """Return whether a name is a BLIP's, ours or the hub's."""
    return name in BLIP_NAMES or name in BLIP_NAMES.values()


def unknown_backbone(name: str) -> ModelError:
    """Return the error for a source that is neither a known name nor an existing path."""
    known = [row for row in open_clip_module().list_models() if row.startswith("ViT-")]
    return ModelError(
        f"No backbone {name!r}: it is neither bundled ({', '.join(BUNDLED)}), nor a file or "
        f"folder here, nor an open_clip name such as {', '.join(known[:4])} or ViT-L-14-336; "
        "`faprompt models list` shows all."
    )


def pretrained_spec(model: str, tag: str, *, quick_gelu: bool | None = None) -> BackboneSpec:
    """Return the spec of one set of open_clip weights; `quick_gelu` overrides its record.

    Raises:
        ConfigError: not a plain CLIP of two transformers.
        ModelError: no such tag; the known ones are listed.
    """
    record = pretrained_record(model, tag)
    activation = record.get("quick_gelu", False) if quick_gelu is None else quick_gelu
    spec = spec_from_open_clip(model, quick_gelu=activation)
    return spec.with_pixel_statistics(record.get("mean"), record.get("std"))


def pretrained_record(model: str, tag: str) -> dict[str, Any]:
    """Return open_clip's record of one set of weights: addresses, activation, mean and std.

    Raises:
        ModelError: no such tag; the known ones are listed.
    """
    open_clip = open_clip_module()
    record = open_clip.get_pretrained_cfg(model, tag)
    if not record:
        tags = open_clip.list_pretrained_tags_by_model(model)
        known = ", ".join(f"{model}:{known}" for known in tags) or "none; give a local file"
        raise ModelError(f"open_clip has no weights {model}:{tag}. Known: {known}.")
    return dict(record)
