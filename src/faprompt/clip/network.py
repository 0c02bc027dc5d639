"""Whether weights may be downloaded, and whether the server can be reached at all."""

from __future__ import annotations

import os
import socket
import urllib.parse
import urllib.request

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # as huggingface_hub reads them
_TRUE = {"1", "ON", "YES", "TRUE"}
_TIMEOUT_S = 5.0  # for one address of a server
_ADDRESSES = 2
_PORTS = {"http": 80, "https": 443}


def offline() -> str:
    """Return the environment variable that forbids downloads, as NAME=VALUE, or ""."""
    for name in OFFLINE:
        value = os.environ.get(name, "")
        if value.upper() in _TRUE:
            return f"{name}={value}"
    return ""


def reach(address: str) -> None:
    """Fail within seconds where a server, or the proxy before it, cannot be reached.

    Clients that download try for most of a minute, or wait for ever.

    Args:
        address: of a file or a server; other schemes than http and https are let through.

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
    answers = socket.getaddrinfo(parts.hostname, None)
    found = dict.fromkeys((family, place) for family, *_, place in answers)
    for number, (family, place) in enumerate(list(found)[:_ADDRESSES], start=1):
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            try:
                connection.connect((place[0], port, *place[2:]))
                return
            except OSError as error:
                if number == min(len(found), _ADDRESSES):
                    raise OSError(f"{parts.hostname} does not answer ({error})") from error
