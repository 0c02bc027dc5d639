"""Parts of the OpenAPI document that the endpoints' types do not tell."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from faprompt.serving.problems import MEDIA_TYPE


def _shipped(name: str) -> dict[str, Any]:
    """Return a JSON Schema that the package ships, as part of another document."""
    schema = json.loads((files("faprompt") / "schemas" / f"{name}.json").read_text("utf-8"))
    return {key: value for key, value in schema.items() if not key.startswith("$")}


_TEXT = {"type": ["string", "null"]}
_PICTURE = {"type": "string", "format": "byte", "description": "base64, on request"}
_PICTURES = ("map", "overlay", "small", "layer", "large", "heat")
_ROW_SCHEMA = _shipped("result_row")
_ROW_SCHEMA["properties"] |= {f"{name}_base64": _PICTURE for name in _PICTURES}
_OPTIONS: dict[str, Any] = {
    "model": {"type": "string"},
    "product": {"type": "string"},
    "map": {"enum": ["none", "png", "npy"]},
    "overlay": {"type": "boolean"},
    "view": {"type": "boolean"},
}
_FILE = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "format": "byte"}
_NAMED = {"image": _BASE64, "name": {"type": "string", "maxLength": 255}}


def _object(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "required": required, "properties": properties,
        "additionalProperties": False,
    }  # fmt: skip


def _answers(schema: dict[str, Any], kind: str = "application/json") -> dict[int | str, Any]:
    return {200: {"description": "The answer", "content": {kind: {"schema": schema}}}}


def _body(content: dict[str, dict[str, Any]]) -> dict[str, Any]:
    schemas = {kind: {"schema": schema} for kind, schema in content.items()}
    return {"requestBody": {"required": True, "content": schemas}}


_PROBLEM_SCHEMA = _shipped("problem")
_WHY = {
    400: "The body cannot be parsed",
    401: "The token is missing or wrong",
    403: "A page of another site asked",
    408: "The body came too slowly",
    413: "The body is too long, or holds too many pictures",
    415: "Another content type",
    421: "Another host name than localhost, without a token",
    422: "The picture cannot be read, or an option is unknown or wrong",
    500: "A fault of the service",
    503: "The queue, the memory or the connections are full; see Retry-After",
    504: "No answer within the time limit",
}
PROBLEMS: dict[int | str, Any] = {
    status: {"description": why, "content": {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}}}
    for status, why in _WHY.items()
}
MODELS = _answers(_shipped("service_models"))
ROW = _answers(_ROW_SCHEMA)
ROWS = _answers(_object(["results"], {"results": {"type": "array", "items": _ROW_SCHEMA}}))
REPORT = _answers({"type": "string"}, "text/html")
TEXT = _answers({"type": "string"}, "text/plain")
ONE_PICTURE = _body(
    {
        "application/octet-stream": _FILE,
        "image/*": _FILE,
        "application/x-www-form-urlencoded": _FILE,
        "application/json": _object(["image"], _NAMED | _OPTIONS),
        "multipart/form-data": _object(["image"], {"image": _FILE} | _OPTIONS),
    }
)
PICTURES = _body(
    {
        "application/json": _object(
            ["images"],
            {"images": {"type": "array", "items": _object(["image"], _NAMED)}} | _OPTIONS,
        ),
        "multipart/form-data": _object(
            ["image"], {"image": {"type": "array", "items": _FILE}} | _OPTIONS
        ),
    }
)
SESSION = _body(
    {
        "application/json": _object(
            ["pictures"],
            {
                "model": {"type": "string"},
                "title": {"type": "string"},
                "pictures": {
                    "type": "array",
                    "items": _object(
                        ["row"],
                        {
                            "row": _ROW_SCHEMA,
                            "small_base64": _TEXT,
                            "layer_base64": _TEXT,
                            "large_base64": _TEXT,
                        },
                    ),
                },
            },
        )
    }
)
