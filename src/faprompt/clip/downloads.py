"""Find the weights of named backbones in the caches of this machine, or download them."""

from __future__ import annotations

import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from faprompt.clip._open_clip import open_clip_module
from faprompt.clip.known_backbones import (
    BLIP_NAMES,
    BUNDLED,
    WEIGHTS_FILE,
    bundled_backbone_folder,
    is_blip_name,
    pretrained_record,
    split_name,
    unknown_backbone,
)
from faprompt.clip.spec import spec_from_open_clip
from faprompt.clip.wide_resnet import WIDE_RESNET
from faprompt.errors import ModelError
from faprompt.files import file_digest

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # open_clip's names
BLIP_FILES = (WEIGHTS_FILE, "config.json", "preprocessor_config.json", "vocab.txt", "tokenizer*")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # as huggingface_hub reads them
_TRUE = {"1", "ON", "YES", "TRUE"}
_TIMEOUT_S = 5.0  # for one address of a server
_ADDRESSES = 2  # of a server that are tried
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class FetchedBackbone:
    """Weights on this machine. `sha256` is the file's digest, 64 hex digits."""

    name: str
    path: Path
    sha256: str


def fetch_backbone(name: str) -> FetchedBackbone:
    """Download the weights of a backbone, or find them in the cache.

    Args:
        name: "tiny", "wide_resnet50_2", "BLIP-ViT-B-16", or open_clip's name and tag, such as
            "ViT-L-14-336" (tag "openai") or "ViT-B-16-plus-240:laion400m_e32".

    Raises:
        ModelError: unknown name or tag, or the download failed.
    """
    if name in BUNDLED:
        path = bundled_backbone_folder(name) / WEIGHTS_FILE
    elif is_blip_name(name):
        path = download_blip(name)
    elif name == WIDE_RESNET:
        path = download_wide_resnet()
    else:
        found = split_name(name)
        if found is None:
            raise unknown_backbone(name)
        path = download(*found)
    return FetchedBackbone(name, path, file_digest(path))


def download(model: str, tag: str) -> Path:
    """Return the weights file of an open_clip tag, from the cache or the network.

    Files whose address carries a hash (OpenAI's, open_clip's own releases) come from that
    address and are checked at every call. Others come from the Hugging Face hub.

    Raises:
        ConfigError: not a plain CLIP of two transformers.
        ModelError: no such tag, or nothing could be downloaded.
    """
    spec_from_open_clip(model)  # refuses before a gigabyte is fetched
    record = pretrained_record(model, tag)
    name, give = f"{model}:{tag}", f"FILE:{'quickgelu' if record.get('quick_gelu') else 'gelu'}"
    if offline():
        cached = _find_url_cache(record) or _find_in_hub_cache(record)
        if cached:
            return cached
        raise _missing_weights(name, _wanted(record), give)
    hashed = _expected_digest(record)
    faults = []
    for from_hub in (False, True) if hashed else (True, False):
        if record.get("hf_hub" if from_hub else "url"):
            try:
                return _download_record(record, from_hub)
            except Exception as error:  # open_clip lets every network library's errors through
                faults.append(f"{type(error).__name__}: {error}".rstrip(": "))
    reasons = "; then ".join(faults) or "they have no address"
    raise _missing_weights(name, _wanted(record), give, reasons)


def download_blip(name: str) -> Path:
    """Return the weights file of a BLIP, with its config and words beside it.

    Args:
        name: one of `BLIP_NAMES`, ours or the hub's.

    Raises:
        ModelError: nothing could be downloaded, or the repository has no safetensors.
    """
    from huggingface_hub import snapshot_download

    repository = BLIP_NAMES.get(name, name)
    cached = _find_in_hub_cache({"hf_hub": f"{repository}/{WEIGHTS_FILE}"})
    words = ("vocab.txt", "tokenizer.json")
    if cached and any((cached.parent / file).is_file() for file in words):
        return cached
    wanted = f"{', '.join(BLIP_FILES)} of {repository} in the hub's cache"
    if offline():
        raise _missing_weights(name, wanted, "their FOLDER")
    try:
        _reach_hub()
        folder = snapshot_download(repository, allow_patterns=list(BLIP_FILES))
        weights = Path(str(folder), WEIGHTS_FILE)
        weights.stat()  # or it is a repository without safetensors
        return weights
    except Exception as error:  # the hub's client lets every network library's errors through
        reasons = f"{type(error).__name__}: {error}"
        raise _missing_weights(name, wanted, "their FOLDER", reasons) from error


def download_wide_resnet() -> Path:
    """Return torchvision's file, from torch's cache or the network, checked by its hash.

    Raises:
        ModelError: it is not here and cannot be downloaded.
    """
    path = wide_resnet_file()
    if path.is_file():
        return path
    url = _wide_resnet_url()
    wanted = f"{url} as {path}, or timm's wide_resnet50_2.tv_in1k.safetensors"
    if offline():
        raise _missing_weights(WIDE_RESNET, wanted, "FILE")
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = path.stem.rpartition("-")[2]
    try:
        reach(url)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
    except (OSError, RuntimeError) as error:
        raise _missing_weights(WIDE_RESNET, wanted, "FILE", str(error)) from error
    return path


def wide_resnet_file() -> Path:
    """Return the path where torch stores the weights, whether they are there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_wide_resnet_url()).name


def _wide_resnet_url() -> str:
    open_clip_module()  # repairs a torchvision of another build than torch
    from torchvision.models import Wide_ResNet50_2_Weights

    return str(Wide_ResNet50_2_Weights.IMAGENET1K_V1.url)


def _missing_weights(name: str, wanted: str, give: str, reasons: str = "") -> ModelError:
    """Return the error for weights that are not here; no reasons mean that we are offline."""
    if not reasons:
        return ModelError(
            f"The weights of {name} are not on this machine, and {offline()} forbids to download "
            f"them. Wanted: {wanted}. Put them there, or pass them as the backbone, as {give}; or "
            "unset the variable."
        )
    return ModelError(
        f"The weights of {name} are not on this machine and could not be downloaded ({reasons}). "
        f"Wanted: {wanted}. On a machine with a network, run `faprompt models fetch {name}` and "
        f"copy what it names; here, pass the copy as the backbone, as {give}."
    )


def _wanted(record: Mapping[str, Any]) -> str:
    places = []
    if record.get("url"):
        places.append(f"{record['url']} as {_url_cache(record)}")
    if record.get("hf_hub"):
        repository, _, file = record["hf_hub"].rpartition("/")
        places.append(f"{file or ' or '.join(HUB_FILES)} of {repository} in the hub's cache")
    return ", or ".join(places)


def _download_record(record: Mapping[str, Any], from_hub: bool) -> Path:
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
    for name in [file] if file else HUB_FILES:
        path = try_to_load_from_cache(repository, name)
        if isinstance(path, str):
            return Path(path)
    return None


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
