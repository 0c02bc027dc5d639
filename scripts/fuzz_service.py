"""Send mutated requests to a running service: no answer may be a 5xx but the stated ones.

    faprompt serve tiny --port 8080 --no-access-log &
    python scripts/fuzz_service.py --url http://127.0.0.1:8080 --requests 10000

Bodies are pictures of every kind with flipped, cut, doubled and foreign bytes; damaged JSON and
forms; random options; and raw bytes that are hardly HTTP. Exits with 1 where an answer is a 5xx
other than 503 or 504, where JSON or a problem is malformed, or where the service is not ready at
the end. For requests drawn from the OpenAPI document: `schemathesis run URL/openapi.json`.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote, urlsplit

import numpy as np
from PIL import Image

STATED = (503, 504)  # of the answers 5xx
_KINDS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_PATHS = ("/v1/predict", "/v1/predict/batch", "/v1/report", "/v1/models", "/metrics", "/healthz",
          "/", "/openapi.json", "/v1/../etc/passwd", "/v1/predict/%00")  # fmt: skip
_OPTIONS = ("model", "product", "name", "map", "overlay", "view", "path", "url", "")
_VALUES = ("tiny", "png", "npy", "none", "true", "2", "", "../x", "\0", "é" * 300, "1e999", "[]")
_METHODS = ("POST",) * 30 + ("GET", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")


def seeds(draw: random.Random) -> list[bytes]:
    """Small pictures of every kind and mode."""
    noise = np.random.default_rng(draw.randrange(2**32))
    found = []
    for kind in _KINDS:
        buffer = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (24, 32, 3), np.uint8)).save(buffer, kind)
        found.append(buffer.getvalue())
    for array in (noise.integers(0, 65536, (16, 16), np.uint16), noise.random((9, 9), np.float32)):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "TIFF")
        found.append(buffer.getvalue())
    return found


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Flip, cut, double or overwrite parts of some bytes."""
    data = bytearray(content)
    for _ in range(draw.choice((0, 1, 1, 2, 5, 30))):
        place = draw.randrange(len(data)) if data else 0
        what = draw.randrange(5)
        if what == 0 and data:
            data[place] ^= 1 << draw.randrange(8)
        elif what == 1:
            del data[place : place + draw.randrange(1, 64)]
        elif what == 2:
            data[place:place] = data[place : place + draw.randrange(1, 64)]
        elif what == 3:
            data[place : place + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
        else:
            del data[place:]
    return bytes(data)


def body(draw: random.Random, pictures: list[bytes]) -> tuple[bytes, str]:
    """Return a body and its content type."""
    content = damaged(draw, draw.choice(pictures))
    kind = draw.randrange(5)
    if kind <= 1:
        return content, draw.choice(("image/png", "application/octet-stream", "image/jpeg", ""))
    if kind == 2:
        items = [{"image": base64.b64encode(content).decode(), "name": draw.choice(_VALUES)}]
        extra = {draw.choice(_OPTIONS): draw.choice((*_VALUES, 3, None, [], {}))}
        values = draw.choice((items[0] | extra, {"images": items * draw.randrange(4)} | extra))
        text = json.dumps(values).encode()
        return draw.choice((text, damaged(draw, text))), "application/json"
    if kind == 3:
        option = draw.choice(_OPTIONS).encode()
        form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        form += content + b'\r\n--b\r\nContent-Disposition: form-data; name="' + option
        form += b'"\r\n\r\n' + draw.choice(_VALUES).encode() + b"\r\n--b--\r\n"
        return draw.choice((form, damaged(draw, form))), "multipart/form-data; boundary=b"
    row = {"path": "a", "model": "m", "score": draw.choice((0.5, -1, "x", None)), "regions": []}
    text = json.dumps({"pictures": [{"row": row}] * draw.randrange(3)}).encode()
    return damaged(draw, text), "application/json"


def ask(host: str, port: int, draw: random.Random, pictures: list[bytes]) -> tuple[int, bytes]:
    """Send one request; 0 where the service closed the connection."""
    if draw.random() < 0.03:
        return ask_raw(host, port, draw)
    path = draw.choice(_PATHS[:2] * 10 + _PATHS)
    if draw.random() < 0.4:
        path += f"?{quote(draw.choice(_OPTIONS))}={quote(draw.choice(_VALUES))}"
    content, kind = body(draw, pictures)
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request(draw.choice(_METHODS), path, content, {"content-type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def ask_raw(host: str, port: int, draw: random.Random) -> tuple[int, bytes]:
    """Send damaged HTTP."""
    request = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nabcd"
    with socket.create_connection((host, port), 10) as end:
        try:
            end.sendall(damaged(draw, request))
            end.shutdown(socket.SHUT_WR)
            found = end.makefile("rb").read()
        except OSError:
            return 0, b""
    words = found.split(b" ", 2)
    return (int(words[1]) if len(words) > 1 else 0), b""  # several answers may have come


def fault(status: int, content: bytes) -> str:
    """Return what is wrong with an answer, or ""."""
    if status >= 500 and status not in STATED:
        return f"status {status}"
    if status >= 400 and content:
        try:
            values = json.loads(content)
            if values["status"] != status or not values["detail"]:
                return f"a problem that is none: {content[:200]!r}"
        except (ValueError, KeyError, TypeError):
            return f"an error that is no problem: {content[:200]!r}"
    return ""


def fuzz(
    url: str, requests: int, seed: int, show: Callable[[str], None] = print
) -> tuple[Counter[int], list[str]]:
    """Return the counts of statuses, and the faults."""
    place = urlsplit(url)
    host, port = place.hostname or "127.0.0.1", place.port or 80
    draw = random.Random(seed)
    pictures, statuses, faults = seeds(draw), Counter[int](), []
    for number in range(requests):
        before = draw.getstate()
        status, content = ask(host, port, draw, pictures)
        statuses[status] += 1
        if said := fault(status, content):
            faults.append(f"request {number}: {said}")
            show(f"{faults[-1]} (state {hash(before)})")
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("GET", "/readyz")
    if connection.getresponse().status != 200:
        faults.append("not ready at the end")
    connection.close()
    return statuses, faults


def main() -> int:
    """Fuzz, print the counts, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    begin = time.perf_counter()
    statuses, faults = fuzz(asked.url, asked.requests, asked.seed)
    counts = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    print(f"{asked.requests} requests in {time.perf_counter() - begin:.0f} s; {counts}")
    print("\n".join(faults[:20]) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
