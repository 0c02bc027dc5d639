"""Send results to a web address, signed with HMAC-SHA256.

Headers and signature follow the Standard Webhooks specification 1.0 (standardwebhooks.com), so
that its libraries verify them in most languages.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from faprompt.errors import ConfigError

SHORTEST_SECRET = 16  # bytes
_PREFIX = "whsec_"  # of a secret in base64, by the specification
_LONGEST_WAIT = 300.0  # seconds that a receiver's Retry-After may ask for


class DeliveryError(Exception):
    """A delivery that the receiver did not take."""

    def __init__(self, reason: str, *, refused: bool = False, retry_after: float = 0.0) -> None:
        """Keep the reason.

        Args:
            reason: one line.
            refused: the receiver works, and did not want this very message.
            retry_after: seconds that the receiver asks to wait.
        """
        super().__init__(reason)
        self.refused, self.retry_after = refused, retry_after


def sign(secret: bytes, key: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a delivery: "v1," and the HMAC-SHA256 in base64.

    Args:
        secret: shared with the receiver.
        key: idempotency key, the header `webhook-id`.
        timestamp: seconds since 1970, the header `webhook-timestamp`.
        body: content of the request.

    Source:
        Standard Webhooks 1.0: HMAC-SHA256 over "key.timestamp.body".
    """
    signed = f"{key}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def read_secret(path: Path) -> bytes:
    """Read a secret from a file: any text, or "whsec_" and base64; white space around it is cut.

    Raises:
        ConfigError: the file cannot be read, or the secret is shorter than 16 bytes.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
        secret = text.encode()
        if text.startswith(_PREFIX):
            secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text, or no base64"
        raise ConfigError(f"{path}: the secret cannot be read ({reason}).") from None
    if len(secret) < SHORTEST_SECRET:
        raise ConfigError(
            f"{path}: the secret has {len(secret)} bytes, and {SHORTEST_SECRET} are the least; "
            "make one with: openssl rand -hex 32"
        )
    return secret


@dataclass(frozen=True, slots=True)
class Webhook:
    """Address and secret of a receiver.

    Raises:
        ConfigError: no http or https address, or one with a user name or password.
    """

    url: str
    secret: bytes = field(repr=False)
    timeout_s: float = 10.0  # seconds without an answer after which an attempt has failed

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            fits = False
        if not fits or not self.url.isascii() or any(c.isspace() for c in self.url):
            raise ConfigError("--post should be an http:// or https:// address.")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("--post should have no user name and no password in it; deliveries "
                              "are authenticated by their signature.")  # fmt: skip

    @property
    def place(self) -> str:
        """Return the address for logs, without the query, which may hold a token."""
        return self.url.partition("?")[0].partition("#")[0]

    def post(self, key: str, body: bytes) -> None:
        """Send one delivery.

        Redirects are not followed: the body would go to an address that nobody named.

        Args:
            key: idempotency key, the same for every attempt.
            body: JSON.

        Raises:
            DeliveryError: there was no answer, or another one than 2xx.
        """
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json", "User-Agent": "faprompt-watch",
            "webhook-id": key, "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(self.secret, key, timestamp, body),
        }  # fmt: skip
        request = urllib.request.Request(self.url, body, headers, method="POST")
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(request, timeout=self.timeout_s):
                return
        except urllib.error.HTTPError as error:
            with error:
                refused = 400 <= error.code < 500 and error.code not in (408, 425, 429)
                raise DeliveryError(f"{self.place} answered {error.code}", refused=refused,
                                    retry_after=_seconds(error.headers["Retry-After"])
                                    ) from None  # fmt: skip
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise DeliveryError(f"{self.place} could not be reached ({reason})") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _seconds(header: str | None) -> float:
    """Return the seconds of a Retry-After header, at most 300; 0 for none, and for a date."""
    return min(float(header), _LONGEST_WAIT) if header and header.isdecimal() else 0.0
