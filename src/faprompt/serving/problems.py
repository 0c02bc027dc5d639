"""Errors of the service as problem JSON (RFC 9457)."""

from __future__ import annotations

import json
import logging
import traceback
from dataclasses import dataclass
from http import HTTPStatus

MEDIA_TYPE = "application/problem+json"
_log = logging.getLogger("faprompt")


@dataclass
class Problem(Exception):
    """An answer that is an error; `detail` is one sentence or two for people."""

    status: int
    code: str  # short name that does not change, such as "queue-full"
    detail: str
    retry_after_s: int | None = None
    close: bool = False  # close the connection, because the rest of the body is not read

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of the answer, besides its length."""
        found = [(b"content-type", MEDIA_TYPE.encode())]
        if self.retry_after_s is not None:
            found.append((b"retry-after", str(self.retry_after_s).encode()))
        if self.status == HTTPStatus.UNAUTHORIZED:
            found.append((b"www-authenticate", b'Bearer realm="faprompt"'))
        return found + [(b"connection", b"close")] * self.close

    def body(self, request_id: str) -> bytes:
        """Return the JSON of the answer."""
        values = {
            "type": f"urn:faprompt:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        return json.dumps(values).encode()


def log_fault(what: str, error: BaseException) -> None:
    """Log a fault of ours with its traceback, line by line."""
    for line in (what, *"".join(traceback.format_exception(error)).splitlines()):
        _log.error("%s", line)
