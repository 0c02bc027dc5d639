"""Read any output file as values by key: numbers, arrays, pictures and texts."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")
EMBEDDED = re.compile(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)")
HIDDEN = re.compile(r"<(style|script|metadata)\b.*?</\1>", re.DOTALL)
HTML_ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
HTML_CELL = re.compile(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", re.DOTALL)
TAG = re.compile(r"<[^>]+>")
COLUMN = re.compile(r"\t|(?<!\\)[|&]")  # of tables in stdout, Markdown and TeX
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, which may be drawn anew without a fault."""

    pixels: np.ndarray


def read_values(path: Path) -> Values:
    """Return the values of a file by their keys."""
    if path.suffix == ".npy":
        return {"array": np.load(path)}
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    content = path.read_bytes()
    try:
        if path.suffix in (".png", ".jpg", ".jpeg", ".tiff"):
            return {"picture": _decode(content)}
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return {"content": content.hex()}
    if path.suffix == ".stderr":
        return {"words": text}
    if path.suffix == ".csv":
        return _read_csv(text)
    return _read_json(text) or _read_text(text)


def _decode(content: bytes) -> Picture | np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image)
        return pixels if image.mode.startswith("I") else Picture(pixels)  # I;16 is a score map


def _read_csv(text: str) -> Values:
    rows = csv.DictReader(io.StringIO(text))
    return {
        f"row {number}.{column}": _number(cell)
        for number, row in enumerate(rows)
        for column, cell in row.items()
    }


def _number(cell: Any) -> Any:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return str(cell)


def _read_json(text: str) -> Values:
    """Return the values of JSON or JSON lines; none for another text."""
    try:
        return dict(_flatten("", json.loads(text)))
    except ValueError:
        pass
    try:
        return dict(_flatten("", [json.loads(line) for line in text.splitlines()]))
    except ValueError:
        return {}


def _flatten(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flatten(f"{key}.{name}" if key else name, item)
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _flatten(f"{key}[{number}]", item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield key or "value", float(value)
    else:
        yield key or "value", str(value)


def _read_text(text: str) -> Values:
    """Return the numbers of a text's tables by row and place, its pictures and its words."""
    values: Values = {
        f"picture {number}": _decode(base64.b64decode(data))
        for number, data in enumerate(EMBEDDED.findall(text))
    }
    text = HIDDEN.sub("", EMBEDDED.sub("", text))
    text = HTML_ROW.sub(lambda row: f"\n{_html_row(row[0])}\n", text)
    words: list[str] = []
    seen: dict[str, int] = {}
    for line in unescape(TAG.sub(" ", text)).splitlines():
        cells = [cell.strip() for cell in COLUMN.split(line.strip().strip("|"))]
        if len(cells) == 1:
            words.append(" ".join(line.split()))
            continue
        label = next((cell for cell in cells if cell and isinstance(_number(cell), str)), "row")
        seen[label] = seen.get(label, 0) + 1
        key = f"table row {label!r} {seen[label]}"
        values[key] = " | ".join(cells)
        for number, found in enumerate(NUMBER.findall(" ".join(cells).replace(label, "", 1))):
            values[f"{key}, number {number}"] = float(found)
    return values | {"words": "\n".join(word for word in words if word)}


def _html_row(row: str) -> str:
    cells = HTML_CELL.findall(row)
    return "\t".join(" ".join(TAG.sub(" ", cell).split()) for cell in cells)
