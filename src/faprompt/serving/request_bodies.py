"""Read bodies within their limits, and find pictures and options in them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from faprompt.config import parse_json
from faprompt.serving.problems import Problem
from faprompt.serving.service_limits import MIB, BodyMemory, ServiceLimits

LONGEST_NAME = 255  # characters
# the last is what curl --data-binary says unless told otherwise
_RAW = ("", "application/octet-stream", "application/dicom", "application/x-www-form-urlencoded")
_NOT_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")  # control characters and line ends
_FIELD_BYTES = 64 * 1024  # of an option in a form


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """Pictures of a body with their names, and the options beside them."""

    pictures: list[tuple[str, bytes]]
    options: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def received_body(
    request: Request, limits: ServiceLimits, memory: BodyMemory
) -> AsyncIterator[bytes]:
    """Yield the whole body; its bytes count as used memory until the block ends.

    Raises:
        Problem: 413 too long, 408 too slow, 503 no memory for it now.
    """
    if int(request.headers.get("content-length") or 0) > limits.body_mib * MIB:
        raise _too_long(limits)
    body = bytearray()
    try:
        await _collect(request, body, limits, memory)
        yield bytes(body)
    finally:
        memory.give(len(body))


async def _collect(
    request: Request, body: bytearray, limits: ServiceLimits, memory: BodyMemory
) -> None:
    try:
        async with asyncio.timeout(limits.receive_s):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limits.body_mib * MIB:
                    raise _too_long(limits)
                if not memory.take(len(chunk)):
                    raise Problem(
                        503, "memory-full", "Too many bytes of other requests are waiting.",
                        retry_after_s=1, close=True,
                    )  # fmt: skip
                body += chunk
    except TimeoutError as error:
        raise Problem(
            408, "too-slow", f"The body should arrive within {limits.receive_s} s.", close=True
        ) from error


def _too_long(limits: ServiceLimits) -> Problem:
    return Problem(
        413, "body-too-long", f"The body should have at most {limits.body_mib} MiB.", close=True
    )


async def read_pictures(request: Request, content: bytes, *, most: int) -> Body:
    """Find the pictures of a body: raw, JSON with base64, or a form.

    Args:
        request: gives the content type.
        content: the body.
        most: pictures allowed.

    Raises:
        Problem: 400, 413, 415 or 422.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = await run_in_threadpool(_from_json, content)
    elif kind == "multipart/form-data":
        body = await _from_form(request.headers, content, most)
    elif kind in _RAW or kind.startswith("image/"):
        body = Body([("", content)])
    else:
        raise Problem(
            415, "content-type",
            "The content type should be image/*, application/octet-stream, application/json or "
            "multipart/form-data.",
        )  # fmt: skip
    if not body.pictures or not all(data for _, data in body.pictures):
        raise Problem(422, "no-picture", "The body holds no picture, or an empty one.")
    if len(body.pictures) > most:
        wanted = "one picture" if most == 1 else f"at most {most} pictures"
        raise Problem(413, "too-many-pictures", f"Got {len(body.pictures)}, wanted {wanted}.")
    return body


def read_object(content: bytes) -> dict[str, Any]:
    """Read a JSON object; Problem 400 for anything else."""
    try:
        values = parse_json(content.decode())
    except ValueError as error:
        raise Problem(400, "json", f"The body should be JSON: {_short(error)}.") from error
    if not isinstance(values, dict):
        raise Problem(422, "json", "The body should be a JSON object.")
    return values


def read_base64(value: Any, where: str) -> bytes:
    """Return the bytes of standard base64 text; Problem 422 for anything else."""
    try:
        return base64.b64decode(cast(str, value).encode("ascii"), validate=True)
    except (AttributeError, binascii.Error, UnicodeEncodeError) as error:
        raise Problem(
            422, "base64", f"{where} should be the bytes of a picture as base64 text."
        ) from error


def check_name(name: Any) -> str:
    """Return the label of a picture; Problem 422 if it is long, no text or several lines."""
    fits = isinstance(name, str) and len(name) <= LONGEST_NAME
    if not fits or any(unicodedata.category(c) in _NOT_IN_NAMES for c in name):
        raise Problem(
            422, "name", f"A name should be one line of at most {LONGEST_NAME} characters."
        )
    return name


def _from_json(content: bytes) -> Body:
    values = read_object(content)
    several = values.pop("images", None)
    if several is None:
        one = {key: values.pop(key) for key in ("image", "name") if key in values}
        several = [one] if one else []
    if not isinstance(several, list):
        raise Problem(422, "json", "images should be a list.")
    return Body(list(_named_pictures(several)), values)


def _named_pictures(items: list[Any]) -> Iterator[tuple[str, bytes]]:
    for number, item in enumerate(items):
        if not isinstance(item, Mapping) or not {"image"} <= set(item) <= {"image", "name"}:
            raise Problem(
                422, "json", f"images[{number}] should have the keys image and, at will, name."
            )
        yield check_name(item.get("name", "")), read_base64(item["image"], f"images[{number}]")


class _FormInMemory(MultiPartParser):
    spool_max_size = 2**62  # the body is in memory already; nothing is written to disk


async def _from_form(headers: Headers, content: bytes, most: int) -> Body:
    async def once() -> AsyncGenerator[bytes, None]:
        yield content

    parser = _FormInMemory(
        headers, once(), max_files=most + 1, max_fields=16, max_part_size=_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:
        raise Problem(400, "form", f"The form cannot be read: {_short(error)}.") from error
    pictures: list[tuple[str, bytes]] = []
    options: dict[str, Any] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile) and key == "image":
            pictures.append((check_name(value.filename or ""), await value.read()))
        elif isinstance(value, str) and key not in options:
            options[key] = value
        else:
            raise Problem(
                422, "form", "Pictures should be files named image; each option comes once."
            )
    return Body(pictures, options)


def _short(error: Exception) -> str:
    return str(getattr(error, "message", error)).rstrip(".")[:200]
