"""Find the weights of named backbones in the caches of this machine, or download them."""

from __future__ import annotations

import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

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
from faprompt.clip.spec import open_clip_module, spec_from_open_clip
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
    if name in BUNDLED:
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
        places.append(f"{file or ' or '.join(HUB_FILES)} of {repository} in the hub's cache")
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
    open_clip_module()  # repairs a torchvision of another build than torch
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
