"""Backbones known by name, and their weights in the caches of this machine or downloaded.

A tag is one set of weights of one open_clip architecture. Its record knows the activation
and the pixel statistics the weights were trained with; it overrides the architecture's.
"""

from __future__ import annotations

import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from faprompt.clip.backbone import build_clip
from faprompt.clip.efficient_net import (
    EFFICIENT_NET,
    EFFICIENT_NET_PARAMETERS,
    EFFICIENT_NET_SPEC,
)
from faprompt.clip.spec import (
    BackboneSpec,
    TextSpec,
    VisionSpec,
    open_clip_module,
    spec_from_open_clip,
    spec_from_open_clip_config,
    torchvision_module,
)
from faprompt.clip.wide_resnet import WIDE_RESNET, WIDE_RESNET_PARAMETERS, WIDE_RESNET_SPEC
from faprompt.config import read_json
from faprompt.errors import ConfigError, ModelError
from faprompt.files import file_digest

BUNDLED = ("tiny",)
DEFAULT_TAG = "openai"
SPEC_FILE, WEIGHTS_FILE = "backbone.json", "model.safetensors"
_OWN_NAMES = (*BUNDLED, EFFICIENT_NET, WIDE_RESNET)
BLIP_NAMES = {"BLIP-ViT-B-16": "Salesforce/blip-itm-base-coco"}  # ours -> on the hub
BLIP_BASE = BackboneSpec(  # models/vit.py and configs/med_config.json of salesforce/BLIP
    embed_dim=256,
    quick_gelu=False,
    vision=VisionSpec(384, 16, width=768, layers=12, heads=12, value_blocks=7),
    text=TextSpec(width=768, layers=12, heads=12, context_length=35, vocab_size=30524),
)
BLIP_BASE_PARAMETERS = 195_375_872  # both towers, counted by a test

_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # open_clip's names
BLIP_FILES = (WEIGHTS_FILE, "config.json", "preprocessor_config.json", "vocab.txt", "tokenizer*")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # as huggingface_hub reads them
_TRUE = {"1", "ON", "YES", "TRUE"}
_TIMEOUT_S = 5.0  # for one address of a server
_ADDRESSES = 2  # of a server that are tried
_PORTS = {"http": 80, "https": 443}


def list_backbones() -> list[dict[str, Any]]:
    """List every backbone that has a name.

    Returns:
        One dict each: name; kind ("bundled", "open_clip", "torchvision", or "transformers",
        which needs the extra `baselines`); tags (sets of weights; the name alone means
        "openai"); embed_dim; image_size and patch_size in pixels; parameters (both towers).
    """
    rows = []
    for name in (*BUNDLED, EFFICIENT_NET):
        try:
            folder = bundled_backbone_folder(name)
        except ModelError:
            continue
        spec = BackboneSpec.from_dict(read_json(folder / SPEC_FILE))
        known = EFFICIENT_NET_PARAMETERS if spec == EFFICIENT_NET_SPEC else 0
        rows.append(_row(name, "bundled", spec, parameters=known))
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

    A slash is read as a dash. The default tag is OpenAI's. Our own names and paths that begin
    with "/", "." or a drive are no names of open_clip, which then need not be imported.
    """
    if text in _OWN_NAMES or text.startswith((".", "/", "\\")) or text[1:2] == ":":
        return None
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


@dataclass(frozen=True, slots=True)
class FetchedBackbone:
    """Weights on this machine. `sha256` is the file's digest, 64 hex digits."""

    name: str
    path: Path
    sha256: str


def fetch_backbone(name: str) -> FetchedBackbone:
    """Download the weights of a backbone, or find them in the cache.

    Args:
        name: "tiny", "efficientnet-lite0", "wide_resnet50_2", "BLIP-ViT-B-16", or open_clip's
            name and tag, such as "ViT-L-14-336" (tag "openai") or
            "ViT-B-16-plus-240:laion400m_e32".

    Raises:
        ModelError: unknown name or tag, or the download failed.
    """
    path = named_weights(name)
    if path is None:
        raise unknown_backbone(name)
    return FetchedBackbone(name, path, file_digest(path))


def named_weights(name: str) -> Path | None:
    """Return the weights file of a backbone, downloaded if need be; None for unknown names.

    Raises:
        ConfigError: an open_clip model that is not a plain CLIP of two transformers.
        ModelError: no such tag, or nothing could be downloaded.
    """
    if name in (*BUNDLED, EFFICIENT_NET):
        return bundled_backbone_folder(name) / WEIGHTS_FILE
    if is_blip_name(name):
        return _blip(name)
    if name == WIDE_RESNET:
        return _wide_resnet()
    found = split_name(name)
    return _open_clip(*found) if found else None


def _open_clip(model: str, tag: str) -> Path:
    """Return the weights file of an open_clip tag.

    Files whose address carries a hash (OpenAI's, open_clip's own releases) come from that
    address and are checked at every call. Others come from the Hugging Face hub.
    """
    spec_from_open_clip(model)  # refuses before a gigabyte is fetched
    record = pretrained_record(model, tag)
    cached = offline() and (_find_url_cache(record) or _find_in_hub_cache(record))
    if cached:
        return cached
    places, ways = [], []
    if record.get("url"):
        places.append(f"{record['url']} as {_url_cache(record)}")
        ways.append(partial(_download_record, record, from_hub=False))
    if record.get("hf_hub"):
        repository, _, file = record["hf_hub"].rpartition("/")
        places.append(f"{file or ' or '.join(_HUB_FILES)} of {repository} in the hub's cache")
        ways.append(partial(_download_record, record, from_hub=True))
    if not _expected_digest(record):
        ways.reverse()
    give = f"FILE:{'quickgelu' if record.get('quick_gelu') else 'gelu'}"
    return _first_of(ways, f"{model}:{tag}", wanted=", or ".join(places), give=give)


def _blip(name: str) -> Path:
    """Return the weights file of a BLIP, with its config and words beside it."""
    repository = BLIP_NAMES.get(name, name)
    cached = _find_in_hub_cache({"hf_hub": f"{repository}/{WEIGHTS_FILE}"})
    if cached and any((cached.parent / file).is_file() for file in ("vocab.txt", "tokenizer.json")):
        return cached

    def download() -> Path:
        from huggingface_hub import snapshot_download

        _reach_hub()
        folder = snapshot_download(repository, allow_patterns=list(BLIP_FILES))
        weights = Path(str(folder), WEIGHTS_FILE)
        weights.stat()  # or it is a repository without safetensors
        return weights

    wanted = f"{', '.join(BLIP_FILES)} of {repository} in the hub's cache"
    return _first_of([download], name, wanted=wanted, give="their FOLDER")


def _wide_resnet() -> Path:
    """Return torchvision's file, checked by its hash when it is downloaded."""
    path, url = wide_resnet_file(), _wide_resnet_url()
    if path.is_file():
        return path

    def download() -> Path:
        reach(url)
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
        return path

    wanted = f"{url} as {path}, or timm's wide_resnet50_2.tv_in1k.safetensors"
    return _first_of([download], WIDE_RESNET, wanted=wanted, give="FILE")


def _first_of(ways: Sequence[Callable[[], Path]], name: str, *, wanted: str, give: str) -> Path:
    """Return the file of the first download that succeeds.

    Raises:
        ModelError: says what is wanted and where to put it.
    """
    if offline():
        raise ModelError(
            f"The weights of {name} are not on this machine, and {offline()} forbids to download "
            f"them. Wanted: {wanted}. Put them there, or pass them as the backbone, as {give}; or "
            "unset the variable."
        )
    faults = []
    for way in ways:
        try:
            return way()
        except Exception as error:  # the clients let every network library's errors through
            faults.append(f"{type(error).__name__}: {error}".rstrip(": "))
    raise ModelError(
        f"The weights of {name} are not on this machine and could not be downloaded "
        f"({'; then '.join(faults) or 'they have no address'}). Wanted: {wanted}. On a machine "
        f"with a network, run `faprompt models fetch {name}` and copy what it names; here, pass "
        f"the copy as the backbone, as {give}."
    )


def wide_resnet_file() -> Path:
    """Return the path where torch stores the weights, whether they are there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_wide_resnet_url()).name


def _wide_resnet_url() -> str:
    torchvision_module()  # repairs a torchvision of another build than torch
    from torchvision.models import Wide_ResNet50_2_Weights

    return str(Wide_ResNet50_2_Weights.IMAGENET1K_V1.url)


def _download_record(record: Mapping[str, Any], *, from_hub: bool) -> Path:
    if from_hub:
        cached = _find_in_hub_cache(record)
        if cached:
            return cached
        _reach_hub()
    elif not _url_cache(record).is_file():
        reach(record["url"])
    pretrained = open_clip_module().pretrained
    return Path(pretrained.download_pretrained(dict(record), prefer_hf_hub=from_hub))


def _find_in_hub_cache(record: Mapping[str, Any]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, _, file = record.get("hf_hub", "").rpartition("/")
    if not repository:
        return None
    for name in [file] if file else _HUB_FILES:
        path = try_to_load_from_cache(repository, name)
        if isinstance(path, str):
            return Path(path)
    return None


def cached_weights(record: Mapping[str, Any]) -> Path | None:
    """Return a file of open_clip's cache or the hub's for a record; its hash is not checked."""
    file = _url_cache(record) if record.get("url") else None
    return file if file and file.is_file() else _find_in_hub_cache(record)


def _url_cache(record: Mapping[str, Any]) -> Path:
    """Return where open_clip stores the file of an address."""
    return Path(os.path.expanduser("~/.cache/clip"), Path(record["url"]).name)


def _find_url_cache(record: Mapping[str, Any]) -> Path | None:
    """Return a file that was downloaded from an address before, if its hash is right."""
    if not record.get("url"):
        return None
    path, digest = _url_cache(record), _expected_digest(record)
    whole = path.is_file() and bool(digest) and file_digest(path).startswith(digest)
    return path if whole else None


def _expected_digest(record: Mapping[str, Any]) -> str:
    """Return the beginning of the SHA-256 in an address, as open_clip reads it, or ""."""
    address = record.get("url", "")
    if "openaipublic" in address:
        return str(address.split("/")[-2])
    if "mlfoundations" in address:
        return Path(address).stem.split("-")[-1]
    return ""


def offline() -> str:
    """Return the environment variable that forbids downloads, as NAME=VALUE, or ""."""
    for name in OFFLINE:
        value = os.environ.get(name, "")
        if value.upper() in _TRUE:
            return f"{name}={value}"
    return ""


def reach(address: str) -> None:
    """Fail within seconds if a server, or the proxy before it, cannot be reached.

    Clients that download try for most of a minute, or wait for ever.

    Args:
        address: of a file or a server. Other schemes than http and https are not checked.

    Raises:
        OSError: its name is unknown, or nothing answers.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in _PORTS or not parts.hostname:
        return
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = parts.port or _PORTS.get(parts.scheme, 80)
    hosts = dict.fromkeys(str(place[0]) for *_, place in socket.getaddrinfo(parts.hostname, None))
    fault: OSError | None = None
    for host in list(hosts)[:_ADDRESSES]:
        try:
            socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
            return
        except OSError as error:
            fault = error
    if fault:
        raise OSError(f"{parts.hostname} does not answer ({fault})") from fault


def _reach_hub() -> None:
    from huggingface_hub import constants

    reach(constants.ENDPOINT)
