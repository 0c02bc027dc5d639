"""Limits of the service, and who may use it: checked before anything is loaded."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass, fields
from pathlib import Path

from faprompt.config import check_whole_number
from faprompt.errors import ConfigError

MIB = 2**20
SHORTEST_TOKEN = 16  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """Limits of one service; each is a whole number of at least 1 (`ValueError` otherwise)."""

    body_mib: int = 32  # of one request, counted as it arrives
    memory_mib: int = 512  # of all request bodies together
    max_pixels: int = 64_000_000  # of a picture, checked before it is decoded
    max_batch: int = 32  # pictures in one request
    batch_size: int = 8  # pictures scored together
    queue: int = 64  # pictures that wait for one model
    timeout_s: int = 30  # from the whole request to its answer
    receive_s: int = 20  # from the connection, or the first byte of a request, to its last byte
    connections: int = 256  # open at one time

    def __post_init__(self) -> None:
        for field in fields(self):
            check_whole_number(field.name, getattr(self, field.name), low=1)
        if self.max_batch > self.queue:
            raise ValueError(
                f"max_batch={self.max_batch} should be at most queue={self.queue}: a full batch "
                "would never be accepted."
            )


def read_token(path: str | Path) -> str:
    """Read the token of a file: its only line, without the spaces around it.

    Raises:
        ConfigError: the file cannot be read, or its token is short or not printable ASCII.
    """
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"token file {path} cannot be read: {error}") from error
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise ConfigError(
            f"token file {path} should hold one token of at least {SHORTEST_TOKEN} printable "
            "characters without spaces, for example from: openssl rand -hex 32"
        )
    return token


def is_local(host: str) -> bool:
    """Return whether only this machine can reach an address.

    Example:
        >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0")
        (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None, *, no_token: bool) -> None:
    """Refuse an address that others can reach without a token, by a ConfigError."""
    if token is not None and no_token:
        raise ConfigError("Got both --token-file and --no-token; give one of them.")
    if token is None and not no_token and not is_local(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines, and there is no token. Give "
            "--token-file FILE, or --no-token if a proxy or a firewall decides who may ask."
        )


def is_authorized(header: bytes | None, token: str | None) -> bool:
    """Compare an Authorization header, "Bearer TOKEN", with the token in constant time."""
    if token is None:
        return True
    kind, _, given = (header or b"").partition(b" ")
    same = hmac.compare_digest(given.strip(), token.encode())
    return same and kind.lower() == b"bearer"


class BodyMemory:
    """Bytes of all request bodies in memory; for one thread."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def take(self, count: int) -> bool:
        """Count bytes; False if they do not fit, and then nothing is counted."""
        if self.used + count > self.limit:
            return False
        self.used += count
        return True

    def give(self, count: int) -> None:
        """Return bytes that were taken."""
        self.used -= count
