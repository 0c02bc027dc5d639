"""Backbones known by name: the bundled one, and open_clip's plain ViTs with their tags.

A tag is one set of weights of one architecture. Its record, not the architecture's, knows
the activation and the pixel mean the weights were trained with, so the record decides.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from faprompt.clip._open_clip import open_clip_module
from faprompt.clip.network import offline, reach
from faprompt.clip.spec import (
    BackboneSpec,
    TextSpec,
    VisionSpec,
    spec_from_open_clip,
    spec_from_open_clip_config,
)
from faprompt.clip.wide_resnet import (
    WIDE_RESNET,
    WIDE_RESNET_PARAMETERS,
    WIDE_RESNET_SPEC,
    download_wide_resnet,
)
from faprompt.errors import ConfigError, ModelError
from faprompt.files import file_digest

BUNDLED = ("tiny",)
DEFAULT_TAG = "openai"
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # open_clip's names
SPEC_FILE, WEIGHTS_FILE = "backbone.json", "model.safetensors"
BLIP_NAMES = {"BLIP-ViT-B-16": "Salesforce/blip-itm-base-coco"}  # ours -> on the hub
BLIP_FILES = (WEIGHTS_FILE, "config.json", "preprocessor_config.json", "vocab.txt", "tokenizer*")
BLIP_BASE = BackboneSpec(  # models/vit.py and configs/med_config.json of salesforce/BLIP
    embed_dim=256,
    quick_gelu=False,
    vision=VisionSpec(384, 16, width=768, layers=12, heads=12, value_blocks=7),
    text=TextSpec(width=768, layers=12, heads=12, context_length=35, vocab_size=30524),
)
BLIP_BASE_PARAMETERS = 195_375_872  # both towers, counted by a test


@dataclass(frozen=True, slots=True)
class FetchedBackbone:
    """Weights on this machine. `sha256` is of the file, 64 hex digits."""

    name: str
    path: Path
    sha256: str


def bundled_backbone_folder(name: str) -> Path:
    """Where a backbone that ships with the package lies.

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


def list_backbones() -> list[dict[str, Any]]:
    """Every backbone that can be had by name.

    Returns:
        One dict each: name, kind ("bundled", "open_clip" or "transformers", which needs the
        extra `baselines`), tags (sets of weights; the
        name alone means "openai" where that is among them), embed_dim, image_size and
        patch_size in pixels, parameters (of both towers).
    """
    import json

    rows = []
    for name in BUNDLED:
        try:
            folder = bundled_backbone_folder(name)
        except ModelError:
            continue
        spec = BackboneSpec.from_dict(json.loads((folder / SPEC_FILE).read_text("utf-8")))
        rows.append(_describe(name, "bundled", [], spec))
    open_clip = open_clip_module()
    for name in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(name)
        try:
            spec = spec_from_open_clip_config(open_clip.get_model_config(name), name=name)
        except ConfigError:
            continue
        if tags:
            rows.append(_describe(name, "open_clip", tags, spec))
    for name in BLIP_NAMES:
        rows.append(_describe(name, "transformers", [], BLIP_BASE, BLIP_BASE_PARAMETERS))
    rows.append(_describe(WIDE_RESNET, "torchvision", [], WIDE_RESNET_SPEC, WIDE_RESNET_PARAMETERS))
    return rows


def split_name(text: str) -> tuple[str, str] | None:
    """`ViT-B-32:laion2b_e16` -> (model, tag) if open_clip knows the model, else None.

    A slash is read as a dash; without a tag, OpenAI's weights are meant.
    """
    model, _, tag = text.partition(":")
    model = model.replace("/", "-")
    return (model, tag or DEFAULT_TAG) if model in open_clip_module().list_models() else None


def pretrained_spec(model: str, tag: str, *, quick_gelu: bool | None = None) -> BackboneSpec:
    """The spec of one set of open_clip weights.

    Args:
        model: architecture, such as "ViT-L-14-336".
        tag: weights, such as "openai".
        quick_gelu: overrides the record of the weights.

    Raises:
        ConfigError: not a plain CLIP of two transformers.
        ModelError: no such tag; the known ones are listed.
    """
    record = _record(model, tag)
    activation = record.get("quick_gelu", False) if quick_gelu is None else quick_gelu
    spec = spec_from_open_clip(model, quick_gelu=activation)
    return with_pixel_statistics(spec, record)


def with_pixel_statistics(spec: BackboneSpec, record: Mapping[str, Any]) -> BackboneSpec:
    """The spec with the `mean` and `std` of a record, where it names them."""
    mean, std = (record.get(key) for key in ("mean", "std"))
    return replace(spec, mean=tuple(mean or spec.mean), std=tuple(std or spec.std))


def fetch_backbone(name: str, *, cache_dir: str | Path | None = None) -> FetchedBackbone:
    """Download a backbone by name, into open_clip's own cache, or find it there.

    Args:
        name: "tiny", "BLIP-ViT-B-16", or open_clip's name and tag such as "ViT-L-14-336"
            (tag "openai") or "ViT-B-16-plus-240:laion400m_e32".
        cache_dir: another place for the file than open_clip's own.

    Raises:
        ModelError: unknown name or tag, or the download failed.
    """
    if name in BUNDLED:
        path = bundled_backbone_folder(name) / WEIGHTS_FILE
    elif is_blip_name(name):
        path = download_blip(name, cache_dir=cache_dir)
    elif name == WIDE_RESNET:
        path = download_wide_resnet(cache_dir=cache_dir)
    else:
        found = split_name(name)
        if found is None:
            raise unknown_backbone(name)
        path = download(*found, cache_dir=cache_dir)
    return FetchedBackbone(name, path, file_digest(path))


def download(model: str, tag: str, *, cache_dir: str | Path | None = None) -> Path:
    """The weights file of an open_clip tag, from the cache or the network.

    Files whose address carries a hash (OpenAI's, open_clip's own releases) come from
    there and are checked against it at every call; others come from the Hugging Face hub.

    Raises:
        ConfigError: not a plain CLIP of two transformers.
        ModelError: no such tag, or nothing could be downloaded.
    """
    spec_from_open_clip(model)  # refuses before a gigabyte is fetched
    record = _record(model, tag)
    if offline():
        cached = _find_url_cache(record, cache_dir) or _find_in_hub_cache(record, cache_dir)
        if cached:
            return cached
        raise _not_downloaded(model, tag, record, cache_dir)
    hashed = _expected_digest(record)
    faults = []
    for from_hub in (False, True) if hashed else (True, False):
        if record.get("hf_hub" if from_hub else "url"):
            try:
                return _download_record(record, from_hub, cache_dir)
            except Exception as error:  # open_clip lets every network library's errors through
                faults.append(f"{type(error).__name__}: {error}".rstrip(": "))
    raise ModelError(
        f"The weights of {model}:{tag} are not on this machine and could not be downloaded "
        f"({'; then '.join(faults) or 'they have no address'}). Where there is a network, run "
        f"`faprompt models fetch {model}:{tag}` and copy the file it names; here, give that "
        f"file as the backbone, as FILE:{_activation(record)}."
    )


def _not_downloaded(
    model: str, tag: str, record: Mapping[str, Any], cache_dir: str | Path | None
) -> ModelError:
    """The error where the network is not to be used: which file is wanted, and where."""
    wanted = []
    if record.get("url"):
        wanted.append(f"{record['url']} as {_url_cache(record, cache_dir)}")
    if record.get("hf_hub"):
        repository, _, file = record["hf_hub"].rpartition("/")
        wanted.append(f"{file or ' or '.join(HUB_FILES)} of {repository} in the hub's cache")
    return ModelError(
        f"The weights of {model}:{tag} are not on this machine, and {offline()} forbids to "
        f"download them. Wanted: {', or '.join(wanted)}. Put the file there, or give it as the "
        f"backbone, as FILE:{_activation(record)}; or unset the variable."
    )


def _activation(record: Mapping[str, Any]) -> str:
    return "quickgelu" if record.get("quick_gelu") else "gelu"


def is_blip_name(name: str | Path) -> bool:
    """Whether it is a BLIP's name, ours or the hub's."""
    return name in BLIP_NAMES or name in BLIP_NAMES.values()


def download_blip(name: str, *, cache_dir: str | Path | None = None) -> Path:
    """The weights file of a BLIP, its config and words beside it, from the hub or its cache.

    Args:
        name: one of `BLIP_NAMES`, ours or the hub's.
        cache_dir: another place than the hub's own cache.

    Raises:
        ModelError: nothing could be downloaded, or the repository has no safetensors.
    """
    from huggingface_hub import snapshot_download

    repository = BLIP_NAMES.get(name, name)
    cached = _find_in_hub_cache({"hf_hub": f"{repository}/{WEIGHTS_FILE}"}, cache_dir)
    words = ("vocab.txt", "tokenizer.json")
    if cached and any((cached.parent / file).is_file() for file in words):
        return cached
    if offline():
        raise ModelError(
            f"{name} is not on this machine, and {offline()} forbids to download it. Wanted: "
            f"{', '.join(BLIP_FILES)} of {repository}, in the hub's cache or in a folder that is "
            "given as the backbone; or unset the variable."
        )
    try:
        _reach_hub()
        patterns = list(BLIP_FILES)
        folder = snapshot_download(repository, allow_patterns=patterns, cache_dir=cache_dir)
        weights = Path(str(folder), WEIGHTS_FILE)
        weights.stat()  # or it is a repository without safetensors
        return weights
    except Exception as error:  # the hub's client lets every network library's errors through
        raise ModelError(
            f"{name} is not on this machine, and {', '.join(BLIP_FILES)} of {repository} could "
            f"not be downloaded ({type(error).__name__}: {error}). Where there is a network, run "
            f"`faprompt models fetch {name}` and copy the folder; here, give it as the backbone."
        ) from error


def unknown_backbone(name: str) -> ModelError:
    """The error for a source that is neither a known name nor a path that exists."""
    known = [row for row in open_clip_module().list_models() if row.startswith("ViT-")]
    return ModelError(
        f"No backbone {name!r}: it is neither bundled ({', '.join(BUNDLED)}), nor a file or "
        f"folder here, nor an open_clip name such as {', '.join(known[:4])} or ViT-L-14-336; "
        "`faprompt models list` shows all."
    )


def _record(model: str, tag: str) -> dict[str, Any]:
    open_clip = open_clip_module()
    record = open_clip.get_pretrained_cfg(model, tag)
    if not record:
        tags = open_clip.list_pretrained_tags_by_model(model)
        known = ", ".join(f"{model}:{known}" for known in tags) or "none; give a local file"
        raise ModelError(f"open_clip has no weights {model}:{tag}. Known: {known}.")
    return dict(record)


def _download_record(
    record: Mapping[str, Any], from_hub: bool, cache_dir: str | Path | None
) -> Path:
    if from_hub:
        cached = _find_in_hub_cache(record, cache_dir)
        if cached:
            return cached
        _reach_hub()
    elif not _url_cache(record, cache_dir).is_file():
        reach(record["url"])
    place = None if cache_dir is None else str(cache_dir)
    path = open_clip_module().pretrained.download_pretrained(
        dict(record), prefer_hf_hub=from_hub, cache_dir=place
    )
    return Path(path)


def _find_in_hub_cache(record: Mapping[str, Any], cache_dir: str | Path | None) -> Path | None:
    """What was downloaded before needs no network."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, file = record.get("hf_hub", "").rpartition("/")
    if not repository:
        return None
    for name in [file] if file else HUB_FILES:
        path = try_to_load_from_cache(repository, name, cache_dir=cache_dir)
        if isinstance(path, str):
            return Path(path)
    return None


def _url_cache(record: Mapping[str, Any], cache_dir: str | Path | None) -> Path:
    """Where open_clip keeps the file of an address."""
    return Path(cache_dir or os.path.expanduser("~/.cache/clip"), Path(record["url"]).name)


def _find_url_cache(record: Mapping[str, Any], cache_dir: str | Path | None) -> Path | None:
    """A file that was downloaded from an address before, if it is whole."""
    if not record.get("url"):
        return None
    path, digest = _url_cache(record, cache_dir), _expected_digest(record)
    whole = path.is_file() and bool(digest) and file_digest(path).startswith(digest)
    return path if whole else None


def _expected_digest(record: Mapping[str, Any]) -> str:
    """The beginning of the SHA-256 that an address carries, or ""; as open_clip reads it."""
    address = record.get("url", "")
    if "openaipublic" in address:
        return str(address.split("/")[-2])
    if "mlfoundations" in address:
        return Path(address).stem.split("-")[-1]
    return ""


def _reach_hub() -> None:
    """Fail within seconds where there is no hub: its own client tries for most of a minute."""
    from huggingface_hub import constants

    reach(constants.ENDPOINT)


def _describe(
    name: str, kind: str, tags: list[str], spec: BackboneSpec, parameters: int | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "tags": list(tags),
        "embed_dim": spec.embed_dim,
        "image_size": spec.vision.image_size,
        "patch_size": spec.vision.patch_size,
        "parameters": parameters or _count_parameters(spec),
    }


@cache
def _count_parameters(spec: BackboneSpec) -> int:
    import torch

    from faprompt.clip.backbone import build_clip

    with torch.device("meta"):  # shapes only
        return sum(parameter.numel() for parameter in build_clip(spec).parameters())
